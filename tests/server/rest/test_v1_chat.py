"""LM Studio's own chat tells of each step, and goes on from earlier answers."""

from __future__ import annotations

import base64

import pytest

from lmstudio.testing.engine import fragment
from lmstudio.testing.script import CRASH, tool_call

PATH = "/api/v1/chat"
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n and so on").decode()


def asked(**more):
    """A request to chat."""
    return {"model": "any", "input": "Hi", **more}


def test_a_whole_answer(served):
    """Output, figures and an id come in one object."""
    served.reply(fragment("hm", 2, "reasoning"), "Hello")
    made = served.ask(PATH, asked()).json
    assert "any" == made["model_instance_id"]
    assert [
        {"type": "reasoning", "content": "hm"},
        {"type": "message", "content": "Hello"},
    ] == made["output"]
    stats = made["stats"]
    assert (1, 1, 2) == (
        stats["input_tokens"],
        stats["total_output_tokens"],
        stats["reasoning_output_tokens"],
    )
    assert stats["model_load_time_seconds"] >= 0
    assert made["response_id"].startswith("resp_")
    served.reply("x")
    again = served.ask(PATH, asked(store=False)).json
    assert "response_id" not in again
    assert "model_load_time_seconds" not in again["stats"]


def test_events(served):
    """A stream tells of the load, the prompt, thoughts and the message."""
    served.reply(fragment("hm", 1, "reasoning"), "Hello", " you")
    answer = served.ask(PATH, asked(stream=True))
    names = [name for name, _ in answer.events]
    assert [
        "chat.start",
        "model_load.start",
        "model_load.progress",
        "model_load.progress",
        "model_load.end",
        "prompt_processing.start",
        "prompt_processing.progress",
        "prompt_processing.progress",
        "prompt_processing.end",
        "reasoning.start",
        "reasoning.delta",
        "reasoning.end",
        "message.start",
        "message.delta",
        "message.delta",
        "message.end",
        "chat.end",
    ] == names
    assert all(name == data["type"] for name, data in answer.events)
    result = answer.events[-1][1]["result"]
    assert {"type": "message", "content": "Hello you"} == result["output"][1]


def test_a_loaded_model_is_not_loaded_again(served):
    """Without a load there are no events about one."""
    served.ask(PATH, asked())
    names = [name for name, _ in served.ask(PATH, asked(stream=True)).events]
    assert ["chat.start", "prompt_processing.start"] == names[:2]


def test_going_on(served):
    """An id goes on from its answer; a new system prompt takes the old one's place."""
    served.reply("One")
    first = served.ask(PATH, asked(system_prompt="A")).json
    served.reply("Two")
    more = {"previous_response_id": first["response_id"], "system_prompt": "B"}
    served.ask(PATH, asked(input="And?", **more))
    assert [
        ("system", "B"),
        ("user", "Hi"),
        ("assistant", "One"),
        ("user", "And?"),
    ] == [(one.role, one.text) for one in served.asked[-1].history.messages]


def test_images(served):
    """An input may be texts and images."""
    items = [
        {"type": "text", "content": "What is this?"},
        {"type": "image", "data_url": f"data:image/png;base64,{PIXEL}"},
    ]
    served.reply("A cat")
    answer = served.ask(PATH, asked(model="acme/any-vision", input=items))
    assert 200 == answer.status
    (message,) = served.asked[0].history.messages
    assert ["text", "file"] == [part.type for part in message.content]
    refused = served.ask(PATH, asked(input=items))
    assert (400, "unsupported_content") == (refused.status, refused.error["code"])


def test_options(served):
    """Options reach the model, and the context its load."""
    body = asked(max_output_tokens=5, top_k=3, reasoning="off", context_length=512)
    served.reply("x")
    assert 200 == served.ask(PATH, body).status
    assert {
        "max_tokens": 5,
        "top_k_sampling": 3,
        "enable_thinking": False,
    } == served.asked[0].config
    ((_, settings),) = served.scripted.engine.loads
    assert 512 == settings.context_length


def test_a_call_that_nobody_asked_for(served):
    """There are no tools here; what looks like a call is told as text."""
    served.reply(tool_call("f", {"a": 1}))
    made = served.ask(PATH, asked()).json
    assert [{"type": "message", "content": '{"a": 1}'}] == made["output"]

    served.reply(tool_call("f", {"a": 1}))
    names = {name for name, _ in served.ask(PATH, asked(stream=True)).events}
    assert "message.delta" in names
    assert [] == [name for name in names if name.startswith("tool_call")]


def test_an_error_in_a_stream(served):
    """After an error the end comes all the same, with what there is."""
    served.reply("Hel", CRASH)
    answer = served.ask(PATH, asked(stream=True))
    (_, error), (last, end) = answer.events[-2:]
    assert ("internal_error", "model_crashed") == (
        error["error"]["type"],
        error["error"]["code"],
    )
    assert "chat.end" == last
    assert [{"type": "message", "content": "Hel"}] == end["result"]["output"]


@pytest.mark.parametrize(
    ("more", "status", "kind", "param"),
    [
        ({"model": "none"}, 404, "model_not_found", "model"),
        ({"model": "none", "stream": True}, 404, "model_not_found", "model"),
        ({"input": 5}, 400, "invalid_request", "input"),
        ({"input": []}, 400, "invalid_request", "input"),
        ({"input": [{"type": "x"}]}, 400, "invalid_request", "input[0].type"),
        ({"input": [{"type": "text"}]}, 400, "invalid_request", "input[0].content"),
        ({"input": [{"type": "image"}]}, 400, "invalid_request", "input[0].data_url"),
        ({"integrations": ["x"]}, 400, "invalid_request", "integrations"),
        ({"reasoning": "some"}, 400, "invalid_request", "reasoning"),
        ({"context_length": "x"}, 400, "invalid_request", "context_length"),
        (
            {"previous_response_id": "x"},
            404,
            "invalid_request",
            "previous_response_id",
        ),
    ],
)
def test_what_is_refused(served, more, status, kind, param):
    """Wrong values are told with LM Studio's own types of errors."""
    answer = served.ask(PATH, asked(**more))
    error = answer.error
    assert (status, kind, param) == (answer.status, error["type"], error["param"])
