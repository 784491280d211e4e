"""The calls that a model asks for come out of its packets, one after the other."""

from __future__ import annotations

import pytest

from lmstudio import LMStudioProtocolError, LMStudioToolError, ToolCallRequest
from lmstudio.asked import Asked

START = "toolCallGenerationStart"
NAME = "toolCallGenerationNameReceived"
FRAGMENT = "toolCallGenerationArgumentFragmentGenerated"
END = "toolCallGenerationEnd"
FAILED = "toolCallGenerationFailed"


def take(asked, *packets):
    """What `take` says to each packet."""
    return [asked.take(kind, {"type": kind, **fields}) for kind, fields in packets]


def request(name="add", **fields):
    return {"toolCallRequest": {"type": "function", "name": name, **fields}}


def test_a_whole_call():
    """Only the end of a call completes it; its own id counts."""
    asked = Asked()

    said = take(
        asked,
        (START, {"toolCallId": "7"}),
        (NAME, {"name": "add"}),
        (FRAGMENT, {"content": '{"a": 1}'}),
        (END, request(id="8", arguments={"a": 1})),
    )

    assert [False, False, False, True] == said
    assert [ToolCallRequest(name="add", arguments={"a": 1}, id="8")] == asked.calls
    assert [] == asked.failures


def test_the_id_of_the_start():
    """A call without an id has that of its start; the next one doesn't."""
    asked = Asked()

    take(asked, (START, {"toolCallId": "7"}), (END, request()), (END, request()))

    assert ["7", None] == [call.id for call in asked.calls]


def test_older_servers():
    """The end alone is a call: older servers send nothing in front of it."""
    asked = Asked()

    take(asked, (START, {}), (END, request(id="1")), (END, request("sub", id="2")))

    assert ["add", "sub"] == [call.name for call in asked.calls]


def test_calls_that_cannot_be_read():
    """A failure keeps the name, if there was one, and what the model wrote."""
    asked = Asked()
    error = {"title": "No JSON"}

    said = take(
        asked,
        (START, {"toolCallId": "7"}),
        (NAME, {"name": "add"}),
        (FAILED, {"error": error, "rawContent": '{"a":'}),
        (START, {}),
        (FAILED, {"error": None}),
    )

    assert not any(said)
    first, second = asked.failures
    assert isinstance(first, LMStudioToolError)
    assert ("add", '{"a":') == (first.tool, first.raw_content)
    assert "tool add: No JSON" == str(first)
    assert ("", None) == (second.tool, second.raw_content)
    assert "Unknown error" == str(second)
    assert [] == asked.calls


def test_unknown_packets():
    """Packets of newer servers, and fields of a wrong type, harm nothing."""
    asked = Asked()

    assert not any(take(asked, ("new", {}), (START, {"toolCallId": 7}), (NAME, {})))
    take(asked, (END, request()))
    assert None is asked.calls[0].id


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "expected an object, not None"),
        (request(name=3), "expected str, not 3"),
        (request(arguments=[1]), "expected"),
    ],
)
def test_malformed_calls(fields, problem):
    """A call that does not fit the protocol is an error that says where."""
    asked = Asked()

    with pytest.raises(LMStudioProtocolError, match=problem):
        take(asked, (END, fields))
    assert [] == asked.calls


def test_a_copy_goes_its_own_way():
    """It knows all that came before, also of a call in its middle, and changes none."""
    asked = Asked()
    take(
        asked,
        (END, request("one", id="1")),
        (START, {"toolCallId": "2"}),
        (NAME, {"name": "two"}),
        (FAILED, {}),
        (START, {"toolCallId": "3"}),
        (NAME, {"name": "three"}),
    )

    copied = asked.copy()
    take(copied, (END, request("three")))

    assert ["1", "3"] == [call.id for call in copied.calls]
    assert ["1"] == [call.id for call in asked.calls]
    again = asked.copy()
    take(again, (FAILED, {}))
    assert [["two", "three"], ["two"]] == [
        [failure.tool for failure in one.failures] for one in (again, asked)
    ]
