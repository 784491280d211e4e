"""Items of a response's input become messages."""

from __future__ import annotations

import pytest

from lmstudio.server.rest.errors import RestError
from lmstudio.server.rest.response_input import input_of
from lmstudio.wire.llm import Message, Part, ToolCallRequest


def text(role, value):
    """A message with one text."""
    return Message(role=role, content=[Part(type="text", text=value)])


def test_a_text():
    """A text alone is a message of the user."""
    assert [text("user", "Hi")] == input_of("Hi")


def test_items():
    """An answer and its calls are one message; thoughts are passed over."""
    items = [
        {"role": "developer", "content": "a"},
        {"type": "message", "role": "user", "content": [input_text("b")]},
        {"type": "reasoning", "summary": []},
        {"type": "message", "role": "assistant", "content": [output_text("c")]},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "2", "name": "f"},
        {"type": "function_call_output", "call_id": "1", "output": "d"},
        {"type": "function_call_output", "call_id": "2", "output": [input_text("e")]},
    ]
    calls = [
        Part(
            type="toolCallRequest",
            tool_call_request=ToolCallRequest(id=one, name="f", arguments={}),
        )
        for one in "12"
    ]
    results = [
        Part(type="toolCallResult", tool_call_id=one, content=value)
        for one, value in ("1d", "2e")
    ]
    assert [
        text("system", "a"),
        text("user", "b"),
        Message(role="assistant", content=[Part(type="text", text="c"), *calls]),
        Message(role="tool", content=[results[0]]),
        Message(role="tool", content=[results[1]]),
    ] == input_of(items)


def input_text(value):
    """A part of a message of the user."""
    return {"type": "input_text", "text": value}


def output_text(value):
    """A part of an answer, as it came."""
    return {"type": "output_text", "text": value, "annotations": []}


@pytest.mark.parametrize(
    ("value", "param"),
    [
        (5, "input"),
        ([], "input"),
        ([5], "input[0]"),
        ([{"type": "item_reference", "id": "x"}], "input[0].type"),
        ([{"role": "user"}], "input[0].content"),
        ([{"role": "tool", "content": "x"}], "input[0].role"),
        ([{"role": "user", "content": [{"type": "x"}]}], "input[0].content[0].type"),
        ([{"type": "function_call", "name": "f"}], "input[0].call_id"),
        (
            [{"type": "function_call", "call_id": "1", "name": "f", "arguments": "x"}],
            "input[0].arguments",
        ),
        ([{"type": "function_call_output", "call_id": "1"}], "input[0].output"),
    ],
)
def test_errors_say_where(value, param):
    """The place of what is wrong is in the error."""
    with pytest.raises(RestError) as caught:
        input_of(value)
    assert param == caught.value.param
