"""Arguments of every wrong kind are refused by every call, before a byte is sent."""

from __future__ import annotations

import datetime
import math

import pytest

import lmstudio.keywords
import lmstudio.rounds
import lmstudio.wire.config
from lmstudio import Chat, LMStudioClient, LMStudioError, ToolFunctionDef
from lmstudio.testing import FakeServer

DEEP: dict[str, object] = {}
for _ in range(3000):
    DEEP = {"a": DEEP}
ROUND: list[object] = []
ROUND.append(ROUND)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


class Wrong:
    """Nothing that any argument can be."""


class Loud:
    """Something that can't even be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


#: What no argument of ours takes, whatever it is for. Functions of too many arguments
#: are wrong where functions are right.
NONSENSE = {
    "object": Wrong(),
    "loud": Loud(),
    "bytes": b"a",
    "nan": math.nan,
    "-inf": -math.inf,
    "complex": 1j,
    "-2": -2,
    "half": "a\ud800",
    "date": datetime.date(2020, 1, 1),
    "error": ValueError("x"),
    "none inside": [None],
    "half inside": ["\ud800"],
    "numbers as names": {1: Wrong()},
    "deep": DEEP,
    "round": ROUND,
    "set": {1.5},
    "function": lambda a, b, c: None,
}
#: Single arguments that take some of these: where, and which.
FINE = {
    ("add_tool_result", "result"): set(NONSENSE) - {"half"},
    ("add_tool_results", "results"): {"none inside", "round", "set"},
    ("chat load", "path"): {"bytes"},
}


def tool(a: int) -> int:
    """Add one."""
    return a + 1


def without_hints(a):
    return a


@pytest.fixture(scope="module")
def server():
    names = ["any", "text-embed"]
    with FakeServer(names, loaded=names) as made:
        yield made


@pytest.fixture(scope="module")
def client(server):
    with LMStudioClient(server.url, timeout=10, idle_timeout=10) as made:
        # All connections are open: what is sent from here on is what a call sends.
        made.llm.get("any").count_tokens("x")
        made.embedding.get("text-embed").count_tokens("x")
        made.list_downloaded_models()
        made.prepare_image(PNG)
        yield made


OPTIONS = sorted(lmstudio.keywords.PredictionOptions.__annotations__)
COMMON = [
    *("config", "preset", "structured", "response_format", "on_first_token"),
    *("on_fragment", "on_prompt_progress", "on_message", "on_prediction_fragment"),
    *("progress", "timeout", "idle_timeout", "signal"),
]
LOADING = ["identifier", "config", "acceleration", "preset", "no_hup", "ttl"]
LOADING += ["on_progress", "on_load_progress", "progress", "verbose", "signal"]
ACT = ["wait", "max_prediction_rounds", "max_parallel_tool_calls", "config", "preset"]
ACT += list(lmstudio.rounds._CALLBACKS)
ACT += ["timeout", "idle_timeout", "signal", "tool_choice", "raw_tools", "seed"]
LOAD_OPTIONS = [*lmstudio.wire.config.LOAD.names(), "gpu", "acceleration", "raw"]

#: A call, what it is given that is right, and the arguments that are to be wrong.
CALLS = {
    "complete": (
        lambda c, **k: c.llm.get("any").complete(**{"prompt": "x", **k}).result(),
        ["prompt", "pre_prompt", *COMMON, *OPTIONS],
    ),
    "respond": (
        lambda c, **k: c.llm.get("any").respond(**{"history": "x", **k}).result(),
        [
            *("history", "input_prefix", "input_suffix", "tools", "on_tool_call"),
            *COMMON,
            *OPTIONS,
        ],
    ),
    "act": (
        lambda c, **k: c.llm.get("any").act(**{"chat": "x", "tools": [tool], **k}),
        ["chat", "tools", *ACT],
    ),
    "map": (
        lambda c, **k: list(c.llm.get("any").map(**{"prompts": ["x"], **k})),
        ["prompts", "workers", "on_error", "complete", "progress", "signal", "seed"],
    ),
    "template": (
        lambda c, **k: c.llm.get("any").apply_prompt_template(**{"history": "x", **k}),
        ["history", "opts", "omit_bos_token", "omit_eos_token", "tools"],
    ),
    "count_tokens": (
        lambda c, **k: c.llm.get("any").count_tokens(**{"input": "x", **k}),
        ["input", "tools"],
    ),
    "tokenize": (lambda c, text: c.llm.get("any").tokenize(text), ["text"]),
    "embed": (lambda c, text: c.embedding.get("text-embed").embed(text), ["text"]),
    "load": (
        lambda c, **k: c.llm.load(**{"path": "any", **k}),
        ["path", "timeout", *LOADING],
    ),
    "load embedding": (
        lambda c, **k: c.embedding.load(**{"path": "text-embed", **k}),
        ["path", *LOADING],
    ),
    "load option": (lambda c, **k: c.llm.load("any", config=k), LOAD_OPTIONS),
    "load_new_instance": (
        lambda c, **k: c.llm.load_new_instance(**{"model_key": "any", **k}),
        ["model_key", "instance_identifier", "ttl", "config", "on_load_progress"],
    ),
    "model": (lambda c, key: c.llm.model(key), ["key"]),
    "model with": (
        lambda c, **k: c.llm.model("any", **k),
        ["ttl", "config", "on_progress", "on_load_progress", "progress", "timeout"],
    ),
    "get": (lambda c, query: c.llm.get(query), ["query"]),
    "get by": (lambda c, **k: c.llm.get(**k), ["identifier", "path"]),
    "unload": (lambda c, identifier: c.llm.unload(identifier), ["identifier"]),
    "downloaded": (lambda c, **k: c.system.list_downloaded_models(**k), ["domain"]),
    "loaded": (lambda c, **k: c.list_loaded_models(**k), ["namespace"]),
    "prepare_image": (
        lambda c, **k: c.prepare_image(**{"src": PNG, **k}),
        ["src", "name"],
    ),
    "stream_logs": (lambda c, **k: c.diagnostics.stream_logs(**k), ["on_log"]),
    "client": (
        lambda c, **k: LMStudioClient(**k).close(),
        [
            *("base_url", "api_host", "api_token", "client_identifier"),
            *("client_passkey", "timeout", "idle_timeout", "progress"),
        ],
    ),
    "chat": (lambda c, prompt: Chat(prompt), ["prompt"]),
    "from_history": (lambda c, history: Chat.from_history(history), ["history"]),
    "chat load": (lambda c, path: Chat.load(path), ["path"]),
    "indent": (lambda c, indent: Chat("x").to_json(indent), ["indent"]),
    "add_user_message": (
        lambda c, **k: Chat().add_user_message(**{"content": "x", **k}),
        ["content", "images", "files"],
    ),
    "add_assistant_response": (
        lambda c, **k: Chat().add_assistant_response(**{"response": "x", **k}),
        ["response", "tool_call_requests"],
    ),
    "add_tool_result": (
        lambda c, **k: Chat().add_tool_result(**{"result": "x", **k}),
        ["result", "call_id"],
    ),
    "add_tool_results": (lambda c, results: Chat().add_tool_results(results), []),
    "append": (lambda c, value: Chat().append(value), ["value"]),
    "extend": (lambda c, values: Chat().extend(values), ["values"]),
    "part": (
        lambda c, x: c.llm.get("any").respond([{"role": "user", "content": [x]}]),
        ["x"],
    ),
    "role": (
        lambda c, x: c.llm.get("any").respond([{"role": x, "content": "x"}]),
        ["x"],
    ),
    "tool_calls": (
        lambda c, x: c.llm.get("any").respond([{"role": "assistant", "tool_calls": x}]),
        ["x"],
    ),
    "from_callable": (
        lambda c, **k: ToolFunctionDef.from_callable(**{"f": tool, **k}),
        ["f", "name", "description"],
    ),
    "tool": (
        lambda c, **k: c.llm.get("any").respond(
            "x", tools=[{"name": "t", "parameters": {}, **k}]
        ),
        ["name", "description", "parameters", "implementation"],
    ),
    "parameter": (
        lambda c, hint: c.llm.get("any").respond(
            "x", tools=[{"name": "t", "parameters": {"a": hint}}]
        ),
        ["hint"],
    ),
    "schema": (
        lambda c, x: c.llm.get("any").respond(
            "x", structured={"type": "object", "properties": {"a": x}}
        ),
        ["x"],
    ),
}
CASES = [(call, name) for call, (_, names) in CALLS.items() for name in names]


@pytest.mark.parametrize(("call", "name"), CASES, ids=lambda value: value)
def test_nonsense(server, client, call, name):
    """The error is one of ours, a ValueError with a short sentence; nothing is sent."""
    ask, _ = CALLS[call]
    for kind, value in NONSENSE.items():
        if kind in FINE.get((call, name), ()) or is_fine(call, name, kind):
            continue
        before = len(server.requests)
        with pytest.raises(LMStudioError) as caught:
            ask(client, **{name: value})
        assert isinstance(caught.value, ValueError), (kind, caught.value)
        assert 10 < len(str(caught.value)) < 800, kind
        assert before == len(server.requests), kind


def is_fine(call, name, kind):
    """Whether something is no nonsense here."""
    if kind == "-2":
        return name in ("presence_penalty", "frequency_penalty")
    return False


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (
            lambda m: m.respond("x", on_fragment=lambda: 0),
            "on_fragment must be a function of one argument, and <function ",
        ),
        (
            lambda m: m.respond("x", on_first_token=lambda text: 0),
            "on_first_token must be a function of no argument, and <function ",
        ),
        (
            lambda m: m.act("x", [tool], on_prediction_fragment=lambda text: 0),
            "on_prediction_fragment must be a function of two arguments, and <functio",
        ),
        (
            lambda m: m.respond("x", progress=lambda: 0),
            "progress must be a function of one argument, and <function ",
        ),
        (
            lambda m: m.respond("x", temperature=10**400),
            "prediction option temperature must be a number that fits in 53 bits, not ",
        ),
        (
            lambda m: m.respond("x", preset=""),
            "preset must be 1 to 1024 characters without control characters, not ''",
        ),
        (
            lambda m: m.respond("x", structured={"$ref": "http://a/b"}),
            "the JSON schema refers to 'http://a/b'; only references within it, such",
        ),
        (
            lambda m: m.act("x", [without_hints]),
            "parameter a of tool without_hints has no type hint; write one, such as a",
        ),
        (
            lambda m: m.respond("x", tools=[{"name": "t", "parameters": {"a": ""}}]),
            "parameters of tool t must be names and types: ",
        ),
        (lambda m: m.complete("x", tools=[]), "'tools' is an option of respond(); com"),
    ],
)
def test_what_is_said(server, client, ask, said):
    """What was wrong, where, and what would be right."""
    before = len(server.requests)
    with pytest.raises(ValueError) as caught:
        ask(client.llm.get("any"))
    assert said == str(caught.value)[: len(said)]
    assert before == len(server.requests)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [101, 200, 400, 900])
def test_values_that_are_nested_too_deeply(server, client, depth):
    """Wherever JSON goes in, too deep is an error that says so."""
    value, schema = 5, {"type": "string"}
    for _ in range(depth):
        value, schema = [value], {"type": "array", "items": schema}
    call = {"id": "1", "function": {"name": "f", "arguments": {"a": value}}}
    parameters = {"type": "object", "properties": {"a": schema}}
    model, before = client.llm.get("any"), len(server.requests)
    for ask in (
        lambda: model.respond("x", structured=schema),
        lambda: model.respond("x", tools=[{"name": "f", "parameters": parameters}]),
        lambda: model.respond([{"role": "assistant", "tool_calls": [call]}]),
        lambda: Chat().add_assistant_response("x", [call]),
    ):
        with pytest.raises(LMStudioError, match=r"nested (too deeply|at most)"):
            ask()
    with pytest.raises(LMStudioError, match="must be a mapping of the server's keys"):
        model.respond("x", raw={"a": value})
    assert before == len(server.requests)


def test_times_of_a_run():
    """Waiting for a run takes the same times as waiting for a prediction."""
    said = "timeout must be a number of seconds from 0, or None, not "
    with FakeServer(loaded=["any"]) as fake, LMStudioClient(fake.url) as client:
        run = client.llm.get("any").act("x", [tool])
        for wrong in ("1", -1, math.nan, True, 10**400):
            for wait in (run.result, run.exception):
                with pytest.raises(ValueError) as caught:
                    wait(wrong)
                assert said == str(caught.value)[: len(said)]
        assert "x" == run.result(0).content
