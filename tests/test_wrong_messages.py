"""Whatever a server says, a call gives a value or an `LMStudioError`."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from canned import answered, recorded
from lmstudio import LMStudioClient, LMStudioError
from lmstudio import __file__ as init_file
from lmstudio.testing import FakeServer, tool_call
from lmstudio.wire.endpoints import ENDPOINTS

PACKAGE = Path(init_file).parent
#: What stands where something else belongs.
ODD = (
    None,
    True,
    False,
    -1,
    0,
    3.5,
    1e400,
    float("nan"),
    2**70,
    10**400,
    "",
    "type",
    "x" * 300,
    "\ud800",
    [],
    {},
    [None],
    [[]],
    {"type": "fragment"},
    {"type": None},
    {"content": 7},
)


def add(a: int, b: int) -> int:
    return a + b


def predict(client):
    model = client.llm.get("any")
    said = model.respond("Hi?", on_prompt_progress=lambda share: None)
    pieces = [(piece.content, piece.to_dict()) for piece in said]
    result = said.result()
    return pieces, result.to_dict(), repr(result), result.stats, result.model_info


#: Calls by name.
CALLS = {
    "load": lambda c: c.llm.load("any", identifier="m", on_progress=print, no_hup=True),
    "model": lambda c: c.llm.model("any"),
    "unload": lambda c: c.llm.unload("any"),
    "list_loaded": lambda c: [h.info for h in c.llm.list_loaded()],
    "get_model_info": lambda c: c.llm.get("any").get_model_info(),
    "get_load_config": lambda c: c.llm.get("any").get_load_config(),
    "get_context_length": lambda c: c.llm.get("any").get_context_length(),
    "processing_state": lambda c: c.llm.get("any").get_processing_state(),
    "tokenize": lambda c: c.llm.get("any").tokenize("a b"),
    "count_tokens": lambda c: c.llm.get("any").count_tokens(["a", "b"]),
    "apply_prompt_template": lambda c: c.llm.get("any").apply_prompt_template("x"),
    "predict": predict,
    "complete": lambda c: c.llm.get("any").complete("x").result().to_dict(),
    "parsed": lambda c: c.llm.get("any").respond("x", response_format=list[int]).parsed,
    "act": lambda c: repr(c.llm.get("any").act("1 + 2?", [add]).result()),
    "embed": lambda c: c.embedding.get("embed").embed(["a", "b"]),
    "downloaded": lambda c: [m.to_dict() for m in c.system.list_downloaded_models()],
    "version": lambda c: c.system.get_version(),
    "upload": lambda c: c.prepare_image(b"\x89PNG\r\n\x1a\n", "a.png"),
    "estimate": lambda c: c.llm.estimate_resources_usage("any"),
    "log": lambda c: [(entry, entry.data) for entry in c.diagnostics.stream_logs()],
    "download": lambda c: c.repository.download("acme/Tiny", on_progress=print),
}
SCRIPTS = {
    "predict": [
        {"type": "promptProcessingProgress", "progress": 0.5},
        "Hello",
        tool_call("add", {"a": 1, "b": 2}),
    ],
    "parsed": ["[1, ", "2]"],
    "act": [tool_call("add", {"a": 1, "b": 2})],
}


def result(value):
    return [{"type": "rpcResult", "callId": 1, "result": value}]


def channel(*packets):
    """The messages of a channel that ends well."""
    send = {"type": "channelSend", "channelId": 1}
    end = {"type": "channelClose", "channelId": 1}
    return [*({**send, "message": packet} for packet in packets), end]


#: Answers that the scripted server does not give.
WRITTEN = {
    "log": [
        (
            "streamLogs",
            channel(
                *(
                    {"type": "log", "log": {"timestamp": 1.5, "data": data}}
                    for data in (
                        {
                            "type": "llm.prediction.input",
                            "modelPath": "p",
                            "modelIdentifier": "m",
                            "input": "x",
                        },
                        {
                            "type": "llm.prediction.output",
                            "modelIdentifier": "m",
                            "output": "y",
                            "stats": {"stopReason": "eosFound"},
                        },
                        {"type": "server.log", "level": "info", "content": "z"},
                        {"type": "newer"},
                    )
                )
            ),
        )
    ],
    "download": [
        (
            "searchModels",
            result(
                {
                    "results": [
                        {
                            "name": "acme/Tiny",
                            "identifier": {"type": "hf", "identifier": "acme/Tiny"},
                            "exact": True,
                        }
                    ]
                }
            ),
        ),
        (
            "getModelDownloadOptions",
            result(
                {
                    "results": [
                        {
                            "name": "Tiny",
                            "sizeBytes": 10,
                            "fitEstimation": "fullGPUOffload",
                            "downloadIdentifier": "d",
                            "indexedModelIdentifier": "acme/Tiny/a.gguf",
                            "quantization": "Q4_K_M",
                            "recommended": True,
                        }
                    ]
                }
            ),
        ),
        (
            "downloadModel",
            channel(
                {
                    "type": "downloadProgress",
                    "update": {
                        "downloadedBytes": 1,
                        "totalBytes": 10,
                        "speedBytesPerSecond": 2.5,
                    },
                },
                {"type": "startFinalizing"},
                {"type": "success", "defaultIdentifier": "tiny"},
            ),
        ),
    ],
}


class Recordings(dict):
    def __repr__(self):  # hypothesis prints what a failing test got
        return f"<{len(self)} recordings>"


@pytest.fixture(scope="module")
def recordings():
    """What the scripted server answers to each call."""
    found = Recordings(WRITTEN)
    for name in CALLS.keys() - WRITTEN.keys():
        models = ["any", "embed"]
        with FakeServer(models, loaded=models) as fake, recorded() as recording:
            if name in SCRIPTS:
                fake.reply(SCRIPTS[name])
            with LMStudioClient(fake.host) as client:
                CALLS[name](client)
        found[name] = recording
    return found


def places(value, path=()):
    """The way to everything in a value."""
    yield path
    if isinstance(value, (dict, list)):
        keys = value if isinstance(value, dict) else range(len(value))
        for key in keys:
            yield from places(value[key], (*path, key))


def changed(value, path, change):
    """A value with the thing at the end of a path changed, in its dict or list."""
    made = copy.deepcopy(value)
    at = made
    for key in path[:-1]:
        at = at[key]
    change(at, path[-1])
    return made


def drop(at, key):
    del at[key]


def double(at, key):
    if isinstance(at, list):
        at.insert(key, copy.deepcopy(at[key]))
    else:
        at[f"{key}2"] = at.pop(key)


def swap(at, key):
    if isinstance(at, list):
        at.append(at.pop(key))
    else:
        at[key] = [at[key]]


def put(odd):
    def change(at, key):
        at[key] = copy.deepcopy(odd)

    return change


changes = st.sampled_from((drop, double, swap, *map(put, ODD)))


def mutate(recording, data):
    """One to three changes of what was answered, anywhere in it."""
    bodies = [messages for _, messages in recording]
    for _ in range(data.draw(st.integers(1, 3))):
        paths = [path for path in places(bodies) if len(path) > 1]
        if not paths:
            break
        path, change = data.draw(st.sampled_from(paths)), data.draw(changes)
        bodies = changed(bodies, path, change)
    return [(row[0], body) for row, body in zip(recording, bodies, strict=True)]


def outcome(name, recording):
    """What a call gives: its value, or an error of ours; all else is raised."""
    with answered(recording), LMStudioClient("127.0.0.1:1") as client:
        try:
            return CALLS[name](client)
        except LMStudioError as exc:
            assert str(exc)
            return exc


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_recordings_are_true(recordings, name):
    """A recording that nobody changed gives a value: what is changed is an answer."""
    assert not isinstance(outcome(name, recordings[name]), LMStudioError)


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_changed_answers(recordings, name, data):
    """Answers with odd values, and more or less of all, are understood or refused."""
    outcome(name, mutate(recordings[name], data))


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_answers_that_lack_something(recordings, name):
    """So are answers in which one thing is missing or nothing, whichever it is."""
    recording = recordings[name]
    bodies = [messages for _, messages in recording]
    for path in places(bodies):
        for change in (drop, put(None)):
            if len(path) > 1:
                made = changed(bodies, path, change)
                rows = zip(recording, made, strict=True)
                outcome(name, [(row[0], body) for row, body in rows])


@pytest.mark.slow
def test_every_call_is_here(recordings):
    """Each endpoint that the client calls by itself is answered, and each packet."""
    rows = [row for recording in recordings.values() for row in recording]
    names = {name for name, _ in rows}
    source = "".join(path.read_text() for path in PACKAGE.glob("*.py"))
    called = {name for _, name in ENDPOINTS if f'"{name}"' in source}
    assert set() == called - names - {"info"}  # also the name of a field
    packets = {
        message["message"]["type"]
        for _, messages in rows
        for message in messages
        if message["type"] == "channelSend"
    }
    assert {"fragment", "toolCallGenerationEnd", "success", "progress"} < packets
    assert {"promptProcessingProgress", "alreadyLoaded", "resolved", "log"} < packets
