"""What the tests of runs with tools have in common."""

from __future__ import annotations

from lmstudio.testing import tool_call

#: Longer than any test: what waits for it hangs.
FOREVER = 60.0

STOPPED = '"not called: the run was stopped"'


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


def asks(name, id="1", **arguments):
    """The packet of a call that the model asks for."""
    return tool_call(name, arguments, id=id)


def sum_first(fake):
    """Two rounds: a call of `add`, then the answer."""
    fake.reply(["Let me see. ", asks("add", a=1, b=2)])
    fake.reply(["It is ", "3."])


def options_of(fake, index):
    """The options that a prediction was asked for with."""
    [layer] = fake.parameters("predict")[index]["predictionConfigStack"]["layers"]
    return {field["key"]: field["value"] for field in layer["config"]["fields"]}


def history_of(fake, index):
    """The messages that a prediction was asked for with."""
    return fake.parameters("predict")[index]["history"]["messages"]
