"""Answers are kept within bounds, the latest longest."""

from __future__ import annotations

import pytest

from lmstudio.server.rest.answers import Answer, Call
from lmstudio.server.rest.errors import RestError
from lmstudio.server.rest.stored import Entry, Stored, said
from lmstudio.wire.llm import Message, Part, ToolCallRequest


def entry(text=""):
    """An answer with a conversation of one message."""
    part = Part(type="text", text=text)
    return Entry(messages=[Message(role="user", content=[part])], body={})


def names_in(stored, names):
    """Those of some names that are kept, without using them."""
    return [name for name in names if name in stored._entries]


def test_the_latest_are_kept():
    """Beyond the number that is kept, what was not used for longest goes."""
    stored = Stored(2)
    first = entry()
    stored.add("a", first)
    stored.add("b", entry())
    assert first is stored.get("a")
    stored.add("c", entry())
    assert ["a", "c"] == names_in(stored, "abc")


def test_the_characters_are_bounded():
    """Large conversations push others out; one that is too large is not kept."""
    stored = Stored(most_characters=2000)
    stored.add("a", entry("x" * 500))
    stored.add("b", entry("x" * 1000))
    assert ["b"] == names_in(stored, "ab")
    stored.add("c", entry("x" * 3000))
    assert ["b"] == names_in(stored, "abc")
    stored.delete("b")
    stored.add("d", entry("x" * 1400))
    assert ["d"] == names_in(stored, "abcd")


def test_what_clients_add_counts_as_well():
    """A response holds what its request said: tools, and whatever is metadata."""
    stored = Stored(most_characters=2000)
    stored.add("a", Entry(messages=[], body={"metadata": {"x": "x" * 3000}}))
    assert [] == names_in(stored, "a")


def test_what_is_not_kept():
    """An unknown id is a 404 that names the field."""
    stored = Stored()
    with pytest.raises(RestError, match="no response 'x'") as caught:
        stored.get("x", "previous_response_id")
    assert (404, "previous_response_id") == (caught.value.status, caught.value.param)
    with pytest.raises(RestError):
        stored.delete("x")


def test_said():
    """An answer goes on as a message with its text and its calls."""
    answer = Answer()
    answer.texts.append("Hi")
    answer.calls.append(Call(id="1", name="f", arguments={"a": 1}))
    request = ToolCallRequest(id="1", name="f", arguments={"a": 1})
    assert (
        Part(type="text", text="Hi"),
        Part(type="toolCallRequest", tool_call_request=request),
    ) == said(answer).content
    assert (Part(type="text", text=""),) == said(Answer()).content
