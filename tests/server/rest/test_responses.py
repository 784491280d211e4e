"""Responses are made, kept, gone on from and deleted."""

from __future__ import annotations

import pytest

from lmstudio.testing.script import CRASH, tool_call

PATH = "/v1/responses"
FLAT = {"type": "function", "name": "add", "parameters": {"type": "object"}}


def asked(**more):
    """A request for a response."""
    return {"model": "any", "input": "Hi", **more}


def conversation(served):
    """Roles and texts of the last prediction that was asked for."""
    return [(one.role, one.text) for one in served.asked[-1].history.messages]


def test_a_response(served):
    """The whole response has output, status and usage."""
    served.reply("Hello", " you")
    made = served.ask(PATH, asked(metadata={"a": "b"}, temperature=0.5)).json
    assert ("response", "completed", "any") == (
        made["object"],
        made["status"],
        made["model"],
    )
    (item,) = made["output"]
    assert "Hello you" == item["content"][0]["text"]
    assert {
        "input_tokens": 1,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 3,
    } == made["usage"]
    assert ({"a": "b"}, 0.5) == (made["metadata"], made["temperature"])


def test_a_streamed_response(served):
    """Events are numbered, named, and end with the whole response."""
    served.reply("Hello")
    answer = served.ask(PATH, asked(stream=True))
    assert [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ] == [name for name, _ in answer.events]
    assert all(name == data["type"] for name, data in answer.events)
    numbers = [data["sequence_number"] for _, data in answer.events]
    assert list(range(9)) == numbers
    last = answer.events[-1][1]["response"]
    assert "Hello" == last["output"][0]["content"][0]["text"]
    assert answer.events[0][1]["response"]["id"] == last["id"]
    assert last == served.ask(f"{PATH}/{last['id']}").json


def test_an_empty_stream(served):
    """A response without a word begins and ends all the same."""
    served.reply()
    names = [name for name, _ in served.ask(PATH, asked(stream=True)).events]
    assert [
        "response.created",
        "response.in_progress",
        "response.completed",
    ] == names


@pytest.mark.parametrize("is_streamed", [False, True])
def test_an_incomplete_response(served, is_streamed):
    """A limit makes it incomplete, and says why."""
    served.reply("Hello", stop="limit")
    answer = served.ask(PATH, asked(stream=is_streamed))
    if is_streamed:
        name, data = answer.events[-1]
        assert "response.incomplete" == name
        made = data["response"]
    else:
        made = answer.json
    assert ("incomplete", {"reason": "max_output_tokens"}) == (
        made["status"],
        made["incomplete_details"],
    )


def test_going_on(served):
    """The model sees what was said before; instructions are those of the request."""
    served.reply("One")
    first = served.ask(PATH, asked(instructions="Be brief")).json
    assert [("system", "Be brief"), ("user", "Hi")] == conversation(served)
    served.reply("Two")
    more = {"input": "And?", "previous_response_id": first["id"]}
    second = served.ask(PATH, asked(**more)).json
    expected = [("user", "Hi"), ("assistant", "One"), ("user", "And?")]
    assert expected == conversation(served)
    assert first["id"] == second["previous_response_id"]


def test_a_call_and_its_result(served):
    """The result of a call goes on from the response that asked for it."""
    served.reply(tool_call("add", {"a": 1}))
    body = asked(tools=[FLAT], tool_choice={"type": "function", "name": "add"})
    first = served.ask(PATH, body).json
    assert ["function_call"] == [item["type"] for item in first["output"]]
    assert "required" == served.asked[0].config["tool_choice"]["mode"]
    result = {"type": "function_call_output", "call_id": "1", "output": "5"}
    served.reply("Five")
    served.ask(PATH, asked(input=[result], previous_response_id=first["id"]))
    assert ["user", "assistant", "tool"] == [
        one.role for one in served.asked[-1].history.messages
    ]


def test_deleting(served):
    """A response that was deleted, or not stored, is not there."""
    name = served.ask(PATH, asked()).json["id"]
    gone = served.ask(f"{PATH}/{name}", method="DELETE").json
    assert {"id": name, "object": "response", "deleted": True} == gone
    assert 404 == served.ask(f"{PATH}/{name}").status
    name = served.ask(PATH, asked(store=False)).json["id"]
    assert 404 == served.ask(f"{PATH}/{name}").status
    answer = served.ask(PATH, asked(previous_response_id=name))
    assert (404, "previous_response_id") == (answer.status, answer.error["param"])


def test_options(served):
    """Options have other names and places here, and mean the same."""
    body = asked(
        max_output_tokens=5,
        truncation="disabled",
        reasoning={"effort": "none"},
        text={"format": {"type": "json_schema", "name": "x", "schema": {}}},
        top_logprobs=3,
    )
    served.reply("{}")
    assert 200 == served.ask(PATH, body).status
    assert {
        "max_tokens": 5,
        "context_overflow_policy": "stopAtLimit",
        "enable_thinking": False,
        "structured": {"type": "json", "jsonSchema": {}},
        "log_probs": 3,
    } == served.asked[0].config


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"input": None}, "input"),
        ({"background": True}, "background"),
        ({"conversation": "x"}, "conversation"),
        ({"truncation": "some"}, "truncation"),
        ({"text": {"format": {"type": "lark"}}}, "text.format.type"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
    ],
)
def test_what_is_refused(served, more, param):
    """Wrong values are told with their places."""
    answer = served.ask(PATH, asked(**more))
    assert (400, param) == (answer.status, answer.error["param"])


def test_errors_in_a_stream(served):
    """What fails in the middle is an event of the name error."""
    served.reply("a", CRASH)
    name, data = served.ask(PATH, asked(stream=True)).events[-1]
    assert ("error", "error", "model_crashed") == (name, data["type"], data["code"])
    assert data["message"] == data["error"]["message"]
