"""Packets of a prediction are gathered into an answer."""

from __future__ import annotations

import pytest

from lmstudio.server.rest.answers import Answer, Call, Change, new_id
from lmstudio.server.rest.errors import RestError
from lmstudio.testing.engine import fragment
from lmstudio.testing.script import tool_call


def success(reason, **stats):
    """The last packet of a prediction."""
    return {"type": "success", "stats": {"stopReason": reason, **stats}}


def test_text_and_thoughts():
    """Text, thoughts and their tokens are kept apart; tags are left out."""
    answer = Answer()
    packets = [
        fragment("<think>", 1, "reasoningStartTag"),
        fragment("hm", 2, "reasoning"),
        fragment("</think>", 1, "reasoningEndTag"),
        fragment("a"),
        fragment("b"),
    ]
    assert [
        None,
        Change(reasoning="hm", tokens=2),
        None,
        Change(text="a", tokens=1),
        Change(text="b", tokens=1),
    ] == [answer.take(packet) for packet in packets]
    assert ("ab", ["hm"], 2) == (answer.text, answer.reasoning, answer.reasoning_tokens)


def test_calls():
    """A call is told when it is whole; one without an id gets one."""
    answer = Answer()
    start = {"type": "toolCallGenerationStart", "toolCallId": "1"}
    assert answer.take(start) is None
    change = answer.take(tool_call("f", {"a": "é"}))
    assert Change(call=Call(id="1", name="f", arguments={"a": "é"})) == change
    assert '{"a": "\\u00e9"}' == answer.calls[0].text
    answer.take(tool_call("f", id=None))
    assert answer.calls[1].id.startswith("call_")
    answer.take(success("eosFound"))
    assert "tool_calls" == answer.finish_reason


def test_the_end():
    """What was measured is kept; where nothing was, it is 0."""
    answer = Answer()
    answer.take(success("eosFound", promptTokensCount=3, predictedTokensCount=4))
    assert ("stop", 3, 4) == (
        answer.finish_reason,
        answer.prompt_tokens,
        answer.completion_tokens,
    )
    bare = Answer()
    bare.take(success("userStopped"))
    assert (0, 0) == (bare.prompt_tokens, bare.completion_tokens)


@pytest.mark.parametrize(
    ("reason", "status"), [("modelUnloaded", 503), ("failed", 500)]
)
def test_ends_that_are_errors(reason, status):
    """An answer that was cut off by others is an error."""
    with pytest.raises(RestError) as caught:
        Answer().take(success(reason))
    assert status == caught.value.status


def test_ids_differ():
    """No two ids are the same."""
    assert new_id("x_") != new_id("x_")
    assert new_id("x_").startswith("x_")
