"""One call, from the character behind its mark to its end."""

from __future__ import annotations

import pytest

from lmstudio.server.toolcalls_reader import Call, Invalid, Reader
from lmstudio.server.toolcalls_syntax import DEFAULT, SYNTAXES

HERMES = next(syntax for syntax in SYNTAXES if syntax.name == "hermes")


def call():
    return Call("1", lambda name: name)


def kinds(packets):
    return [p["type"].removeprefix("toolCallGeneration") for p in packets]


def test_packets_of_a_call():
    """Start, name, arguments and end, in this order, whatever was known first."""
    made = call()
    made.add('{"a"')
    made.flush()
    assert ["Start"] == kinds(made.packets)  # without a name nothing is told
    made.name = "add"
    made.add(": 1}")
    made.complete('{"raw"} \n')

    expected = ["Start", "NameReceived", "ArgumentFragmentGenerated", "End"]
    assert expected == kinds(made.packets)
    assert {
        "type": "toolCallGenerationEnd",
        "toolCallRequest": {
            "id": "1",
            "type": "function",
            "name": "add",
            "arguments": {"a": 1},
        },
        "rawContent": '{"raw"}',
    } == made.packets[-1]


def test_a_name_is_told_once():
    """The first name of a call counts."""
    made = call()
    made.name = "add"
    made.name = "other"

    assert "add" == made.name
    assert ["Start", "NameReceived"] == kinds(made.packets)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("[1]", "not a JSON object"),
        ('{"a": Infinity}', "not valid JSON"),
        ('{"a": ' + "[" * 100_000, "not valid JSON"),
        ("{", "not valid JSON"),
    ],
)
def test_wrong_arguments(arguments, problem):
    """A call without arguments that are an object is none."""
    made = call()
    made.name = "add"
    made.add(arguments)

    with pytest.raises(Invalid, match=problem):
        made.complete("")


def test_a_failure():
    """A failure says why and shows the text, cut short."""
    made = call()
    made.fail("It is not JSON", "x" * 1_000)
    error = made.packets[-1]["error"]

    assert error["title"] == error["rootTitle"]
    assert error["cause"].startswith("It is not JSON: 'xxx")
    assert len(error["cause"]) < 300
    assert "x" * 1_000 == made.packets[-1]["rawContent"]


def test_what_is_behind_a_call():
    """A reader returns the text behind the call, and None while it goes on."""
    reader = Reader("<tool_call>", HERMES, call, {})

    assert None is reader.feed('{"name": ')
    assert "</tool" == reader.feed('"add"}</tool')
    assert 1 == reader.count
    assert ["Start", "NameReceived", "ArgumentFragmentGenerated", "End"] == kinds(
        reader.packets
    )


@pytest.mark.parametrize("text", ["", "  \n"])
def test_a_mark_without_a_call(text):
    """A mark with nothing behind it is no call, and none that failed."""
    reader = Reader("[TOOL_REQUEST]", DEFAULT, call, {})
    reader.feed(text)
    reader.end()

    assert [] == reader.packets


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "string"}, "1", "1"),
        ({"type": "integer"}, "1", 1),
        ({"type": "object"}, '{"b": [1]}', {"b": [1]}),
        ({"type": "boolean"}, "True", True),
        ({}, "None", None),
        ({}, "two words", "two words"),
        (True, "\n\nx\n\n", "\nx\n"),
    ],
)
def test_the_types_of_tagged_arguments(schema, text, value):
    """Arguments in tags have the types that the tool wants, and text stays text."""
    schemas = {"add": {"properties": {"a": schema}}}
    reader = Reader("<function=", HERMES, call, schemas)
    reader.feed(f"add><parameter=a>{text}</parameter></function>")

    assert {"a": value} == reader.packets[-1]["toolCallRequest"]["arguments"]
