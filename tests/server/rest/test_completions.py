"""Chat and text completions have OpenAI's shapes, streamed and whole."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

import pytest

from lmstudio.server.engine import ContextOverflow
from lmstudio.testing.engine import fragment
from lmstudio.testing.script import AWAIT_CANCEL, CRASH, Await, tool_call
from server.rest.asking import HELLO, PATIENCE, begin, stream

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
PARAMETERS = {"type": "object", "properties": {}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": PARAMETERS}}


def chat(**more):
    """A request with one message."""
    return {"model": "any", "messages": HELLO, **more}


def test_a_chat_completion(served):
    """The whole answer is one object with message, reason and usage."""
    served.reply("Hi", " you")
    made = served.ask(CHAT, chat()).json

    assert ("chat.completion", "any") == (made["object"], made["model"])
    assert made["id"].startswith("chatcmpl-")
    assert [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hi you", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ] == made["choices"]
    assert {
        "prompt_tokens": 2,
        "completion_tokens": 2,
        "total_tokens": 4,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    } == made["usage"]


@pytest.mark.parametrize("is_streamed", [False, True])
def test_cached_tokens(served, is_streamed):
    """What an earlier prediction left of the prompt is told."""
    details = {
        "cachedTokenCount": 7,
        "totalPromptTokenCount": 9,
        "processedPromptTokenCount": 2,
        "unprocessedPromptTokenCount": 0,
    }
    progress = {"type": "promptProcessingProgress", "progress": 1.0}
    served.reply({**progress, "details": details}, "Hi")
    more = {"stream_options": {"include_usage": True}} if is_streamed else {}
    answer = served.ask(CHAT, chat(stream=is_streamed, **more))

    usage = (answer.chunks[-1] if is_streamed else answer.json)["usage"]
    assert {"cached_tokens": 7} == usage["prompt_tokens_details"]


def test_several_prompts(served):
    """Each prompt has a choice with its number; tokens are counted together."""
    for prompt, said in (("one", "1"), ("two two", "2 2"), ("three", "3")):
        served.scripted.reply(said, when=lambda asked, of=prompt: of == asked.text)
    made = served.ask(
        TEXT, {"model": "any", "prompt": ["one", "two two", "three"]}
    ).json

    said = [(one["index"], one["text"]) for one in made["choices"]]
    assert [(0, "1"), (1, "2 2"), (2, "3")] == said
    assert {"prompt_tokens": 4, "completion_tokens": 3} == {
        name: made["usage"][name] for name in ("prompt_tokens", "completion_tokens")
    }


def test_a_stream_for_several_prompts(served):
    """Choices come as they are made, each with its number and its own end."""
    held = Await()
    served.scripted.reply("a", held, "b", when=lambda asked: asked.text == "one")
    served.scripted.reply("c", "d", when=lambda asked: asked.text == "two")
    connection = http.client.HTTPConnection(
        urlsplit(served.url).netloc, timeout=PATIENCE
    )
    begin(connection, TEXT, {"model": "any", "prompt": ["one", "two"], "stream": True})
    events = stream(connection)
    got = []
    while (1, "", "stop") not in got:  # the second one does not wait for the first
        (choice,) = next(events)["choices"]
        got.append((choice["index"], choice["text"], choice["finish_reason"]))
    held.open()
    for event in events:
        if event != "[DONE]":
            (choice,) = event["choices"]
            got.append((choice["index"], choice["text"], choice["finish_reason"]))
    connection.close()

    assert [("a", None), ("b", None), ("", "stop")] == [g[1:] for g in got if not g[0]]
    assert [("c", None), ("d", None), ("", "stop")] == [g[1:] for g in got if g[0]]


def test_one_of_several_prompts_fails(served):
    """The request fails, and the others are stopped."""
    served.scripted.reply(AWAIT_CANCEL, when=lambda asked: asked.text == "long")
    served.scripted.reply(ContextOverflow(9, 5), when=lambda asked: asked.text == "bad")
    answer = served.ask(TEXT, {"model": "any", "prompt": ["long", "bad", "long"]})

    assert (400, "context_length_exceeded") == (answer.status, answer.error["code"])
    (instance,) = served.scripted.services[0].registry.loaded("llm")
    assert ("idle", 0) == instance.status


def test_a_streamed_chat_completion(served):
    """A stream has a role first, then text, then the reason, and a last word."""
    served.reply("Hi", " you")
    answer = served.ask(CHAT, chat(stream=True))

    assert "text/event-stream; charset=utf-8" == answer.headers["content-type"]
    deltas = [chunk["choices"][0]["delta"] for chunk in answer.chunks]
    assert [{"role": "assistant", "content": "Hi"}, {"content": " you"}, {}] == deltas
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in answer.chunks]
    assert [None, None, "stop"] == reasons
    assert 1 == len({chunk["id"] for chunk in answer.chunks})


def test_usage_comes_when_asked_for(served):
    """With include_usage one more chunk has the usage and no choices."""
    asked = chat(stream=True, stream_options={"include_usage": True})
    last = served.ask(CHAT, asked).chunks[-1]

    assert [] == last["choices"]
    assert 4 == last["usage"]["total_tokens"]


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        ("limit", "length"),
        ("context", "length"),
        ("word", "stop"),
        ("toolCalls", "tool_calls"),
    ],
)
def test_finish_reasons(served, stop, expected):
    """Why an answer ends is said in OpenAI's words."""
    served.reply("a", stop=stop)
    assert expected == served.ask(CHAT, chat()).json["choices"][0]["finish_reason"]


def test_thoughts_are_apart(served):
    """Thoughts come as reasoning_content, without the tags around them."""
    steps = (
        fragment("<think>", 1, "reasoningStartTag"),
        fragment("hm", 1, "reasoning"),
        fragment("</think>", 1, "reasoningEndTag"),
        "yes",
    )
    served.reply(*steps)
    made = served.ask(CHAT, chat()).json
    message = made["choices"][0]["message"]
    assert ("hm", "yes") == (message["reasoning_content"], message["content"])
    assert 1 == made["usage"]["completion_tokens_details"]["reasoning_tokens"]

    served.reply(*steps)
    chunks = served.ask(CHAT, chat(stream=True)).chunks
    assert [
        {"role": "assistant", "reasoning_content": "hm"},
        {"content": "yes"},
        {},
    ] == [chunk["choices"][0]["delta"] for chunk in chunks]


def test_tool_calls(served):
    """Calls of tools come with ids, names and JSON arguments, also in a stream."""
    steps = (tool_call("add", {"a": 1}), tool_call("add", {"a": 2}, id=None))
    served.reply(*steps)
    made = served.ask(CHAT, chat(tools=[TOOL])).json["choices"][0]

    assert ("tool_calls", None) == (made["finish_reason"], made["message"]["content"])
    first, second = made["message"]["tool_calls"]
    function = {"name": "add", "arguments": '{"a": 1}'}
    assert {"id": "1", "type": "function", "function": function} == first
    assert second["id"].startswith("call_")

    served.reply(*steps)
    *deltas, last = [
        chunk["choices"][0]
        for chunk in served.ask(CHAT, chat(tools=[TOOL], stream=True)).chunks
    ]
    assert [(0, '{"a": 1}'), (1, '{"a": 2}')] == [
        (call["index"], call["function"]["arguments"])
        for delta in deltas
        for call in delta["delta"]["tool_calls"]
    ]
    assert "tool_calls" == last["finish_reason"]


def test_packets_of_a_call_make_one_call(served):
    """Starts, names and pieces of arguments are not told; the whole call is."""
    served.reply(
        {"type": "toolCallGenerationStart", "toolCallId": "7"},
        {"type": "toolCallGenerationNameReceived", "name": "add"},
        {"type": "toolCallGenerationArgumentFragmentGenerated", "content": "{'a'"},
        tool_call("add", {"a": 1}, id="7"),
    )
    message = served.ask(CHAT, chat(tools=[TOOL])).json["choices"][0]["message"]
    assert ["7"] == [call["id"] for call in message["tool_calls"]]


def test_a_failed_call_is_text(served):
    """What can't be read as a call is what the model said."""
    failed = {"error": {"title": "no JSON"}, "rawContent": '{"name": "add", '}
    served.reply({"type": "toolCallGenerationFailed", **failed})
    made = served.ask(CHAT, chat(tools=[TOOL])).json["choices"][0]
    assert ('{"name": "add", ', "stop") == (
        made["message"]["content"],
        made["finish_reason"],
    )


def test_one_call_at_a_time(served):
    """Without parallel calls the first one ends the answer, and the model's work."""
    served.reply(tool_call("add", {"a": 1}), AWAIT_CANCEL, tool_call("add", {"a": 2}))
    made = served.ask(CHAT, chat(tools=[TOOL], parallel_tool_calls=False)).json
    assert 1 == len(made["choices"][0]["message"]["tool_calls"])


def test_options_reach_the_model(served):
    """Every option that a request has is one of ours."""
    served.reply("x")
    sent = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "min_p": 0.1,
        "repeat_penalty": 1.2,
        "presence_penalty": 0.3,
        "frequency_penalty": -0.4,
        "seed": 9,
        "max_tokens": 3,
        "max_completion_tokens": 5,
        "stop": "END",
        "logit_bias": {"5": -100, "6": 2},
        "logprobs": True,
        "top_logprobs": 2,
        "reasoning_effort": "none",
        "response_format": {"type": "json_schema", "json_schema": {"schema": {}}},
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "add"}},
        "a field of tomorrow": 1,
    }
    assert 200 == served.ask(CHAT, chat(**sent)).status
    (asked,) = served.asked
    assert {
        "temperature": 0.5,
        "top_p_sampling": 0.9,
        "top_k_sampling": 7,
        "min_p_sampling": 0.1,
        "repeat_penalty": 1.2,
        "presence_penalty": 0.3,
        "frequency_penalty": -0.4,
        "seed": 9,
        "max_tokens": 5,
        "stop_strings": ["END"],
        "logit_bias": [[5, "-inf"], [6, 2]],
        "log_probs": 2,
        "enable_thinking": False,
        "structured": {"type": "json", "jsonSchema": {}},
        "raw_tools": {"type": "toolArray", "tools": [TOOL]},
        "tool_choice": {"type": "generic", "mode": "required"},
    } == asked.config


def test_log_probabilities(served):
    """Probabilities have OpenAI's form, and as many candidates as asked for."""
    one = {"text": "a", "id": 1, "logProb": -0.5}
    packet = fragment("a")
    packet["fragment"]["tokens"] = [{**one, "candidates": [one, {**one, "text": "é"}]}]
    expected = {"token": "a", "logprob": -0.5, "bytes": [97]}

    served.reply(packet)
    made = served.ask(CHAT, chat(logprobs=True, top_logprobs=1)).json["choices"][0]
    assert [{**expected, "top_logprobs": [expected]}] == made["logprobs"]["content"]

    served.reply(packet)
    asked = chat(logprobs=True, stream=True)
    made = served.ask(CHAT, asked).chunks[0]["choices"][0]
    assert [{**expected, "top_logprobs": []}] == made["logprobs"]["content"]

    served.reply(packet)
    made = served.ask(TEXT, {"model": "any", "prompt": "x", "logprobs": 2}).json
    assert {
        "tokens": ["a"],
        "token_logprobs": [-0.5],
        "top_logprobs": [{"a": -0.5, "é": -0.5}],
        "text_offset": [0],
    } == made["choices"][0]["logprobs"]


def test_a_text_completion(served):
    """A text goes on as it is, whole and streamed."""
    served.reply(" on")
    made = served.ask(TEXT, {"model": "any", "prompt": ["go"]}).json
    choice = {"index": 0, "text": " on", "logprobs": None, "finish_reason": "stop"}
    assert ("text_completion", [choice]) == (made["object"], made["choices"])
    (asked,) = served.asked
    assert ("go", None) == (asked.text, asked.history)
    assert asked.config["reasoning_parsing"]["enabled"] is False

    served.reply(" on")
    chunks = served.ask(TEXT, {"model": "any", "prompt": "go", "stream": True}).chunks
    assert [(" on", None), ("", "stop")] == [
        (chunk["choices"][0]["text"], chunk["choices"][0]["finish_reason"])
        for chunk in chunks
    ]


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
@pytest.mark.parametrize("is_streamed", [False, True])
def test_v0_adds_what_was_measured(served, path, is_streamed):
    """LM Studio's older interface adds stats, model_info and runtime."""
    asked = {"messages": HELLO} if path.startswith("chat") else {"prompt": "x"}
    body = {"model": "any", "stream": is_streamed, **asked}
    answer = served.ask(f"/api/v0/{path}", body)
    made = answer.chunks[-1] if is_streamed else answer.json

    assert "eosFound" == made["stats"]["stop_reason"]
    assert {"tokens_per_second", "time_to_first_token", "generation_time"} < set(
        made["stats"]
    )
    assert {
        "arch": "scripted",
        "quant": "Q4_K_M",
        "format": "gguf",
        "context_length": 4096,
    } == made["model_info"]
    assert ("scripted", ["gguf"]) == (
        made["runtime"]["name"],
        made["runtime"]["supported_formats"],
    )


@pytest.mark.parametrize(
    ("path", "more", "param"),
    [
        (CHAT, {"n": 2}, "n"),
        (CHAT, {"model": 5}, "model"),
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {"messages": "x"}, "messages"),
        (CHAT, {"stream": "yes"}, "stream"),
        (CHAT, {"stream_options": {"include_usage": True}}, "stream_options"),
        (CHAT, {"functions": []}, "functions"),
        (CHAT, {"modalities": ["audio"]}, "modalities"),
        (CHAT, {"top_logprobs": 2}, "logprobs"),
        (CHAT, {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        (CHAT, {"ttl": 0}, "ttl"),
        (TEXT, {"prompt": [1, 2]}, "prompt[0]"),
        (TEXT, {"prompt": ["a", [1]]}, "prompt[1]"),
        (TEXT, {"prompt": ["a", None]}, "prompt[1]"),
        (TEXT, {"prompt": []}, "prompt"),
        (TEXT, {"prompt": ["a"] * 257}, "prompt"),
        (TEXT, {"prompt": "x", "suffix": "y"}, "suffix"),
        (TEXT, {"prompt": "x", "echo": True}, "echo"),
        (TEXT, {"prompt": "x", "best_of": 3}, "best_of"),
        (TEXT, {}, "prompt"),
    ],
)
def test_what_is_refused(served, path, more, param):
    """Wrong values and what nobody here can do are refused by name, before any work."""
    body = chat(**more) if path == CHAT else {"model": "any", **more}
    answer = served.ask(path, body)

    assert (400, param) == (answer.status, answer.error["param"])
    assert param in answer.error["message"]
    assert [] == served.scripted.engine.loads


def test_the_model_is_loaded_on_demand(served):
    """A model that is not loaded is, with the time to live of the request."""
    assert 200 == served.ask(CHAT, chat(ttl=60)).status
    (instance,) = served.scripted.services[0].registry.loaded("llm")
    assert ("any", 60) == (instance.identifier, instance.ttl)
    served.ask(CHAT, chat())
    assert 1 == len(served.scripted.engine.loads)


def test_errors_before_the_first_word_have_a_status(served):
    """What fails before anything is out is told by the status, also in a stream."""
    served.reply(ContextOverflow(5000, 4096))
    answer = served.ask(CHAT, chat(stream=True))
    assert (400, "context_length_exceeded") == (answer.status, answer.error["code"])


def test_a_long_prompt_keeps_the_stream_alive(served):
    """While a prompt is read there are lines that readers of streams pass over."""
    served.reply({"type": "promptProcessingProgress", "progress": 0.5}, "a")
    answer = served.ask(CHAT, chat(stream=True))
    assert answer.text.startswith(": waiting\n\ndata: ")

    served.reply({"type": "promptProcessingProgress", "progress": 0.5}, "a")
    assert "a" == served.ask(CHAT, chat()).json["choices"][0]["message"]["content"]


def test_errors_in_a_stream_are_its_last_event(served):
    """What fails later ends the stream with an error object."""
    served.reply("a", CRASH)
    answer = served.ask(CHAT, chat(stream=True))
    *_, (_, last) = answer.events
    assert (200, "model_crashed") == (answer.status, last["error"]["code"])


def test_an_unloaded_model_is_an_error(served):
    """An answer that was cut off by an unload is none."""
    served.reply("a", stop="modelUnloaded")
    answer = served.ask(CHAT, chat())
    assert (503, "model_unloaded") == (answer.status, answer.error["code"])


def test_a_client_that_hangs_up_stops_the_model(served):
    """The end of a connection ends its prediction."""
    gate = Await()
    served.reply("a", gate)
    connection = http.client.HTTPConnection(
        urlsplit(served.url).netloc, timeout=PATIENCE
    )
    begin(connection, CHAT, chat(stream=True))
    events = stream(connection)
    next(events)
    assert gate.reached.wait(PATIENCE)
    service = served.scripted.services[0]
    (instance,) = service.registry.loaded("llm")
    assert ("generating", 1) == instance.status
    events.close()
    connection.close()
    # The next request is answered; with it the loop has seen the end of the first.
    for _ in range(100):
        served.ask("/v1/models")
        if instance.status == ("idle", 0):
            break
    assert ("idle", 0) == instance.status
