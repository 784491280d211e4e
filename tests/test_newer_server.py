"""A server of the future: what it says more, and otherwise, breaks nothing.

A whole session runs against a server whose messages are changed on their way, and gives
what it gives with the server of today.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest

from lmstudio import LMStudioClient, LMStudioServerError
from lmstudio.server.peer import Peer
from lmstudio.testing import AWAIT_CANCEL, FakeServer, loopback, tool_call
from lmstudio.wire.diagnostics import OtherLog
from scripts import is_cancel

#: The smallest PNG: one pixel.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJ"
    "RU5ErkJggg=="
)
#: Objects whose keys belong to users, not to the protocol.
DATA = {"value", "arguments", "errorData"}
THOUGHT = {"content": "hm", "tokensCount": 1, "reasoningType": "reasoning"}


def more_fields(message):
    """Fields that nobody knows, in every object."""

    def grow(value, name=None):
        if isinstance(value, list):
            return [grow(item) for item in value]
        if not isinstance(value, dict) or name in DATA:
            return value
        grown = {key: grow(item, key) for key, item in value.items()}
        return {"new": {"type": "newer"}, **grown, "newNull": None, "newList": [1]}

    yield grow(message)


def more_messages(message):
    """Messages and packets that nobody knows, in front of each."""
    yield {"type": "newMessage", "callId": 1, "channelId": 1}
    yield {"type": "signalUpdate", "subscribeId": 1, "patches": [], "tags": []}
    yield {"type": "channelAck", "channelId": 1, "ackId": 1}
    yield {"type": "keepAliveAck"}
    yield {"type": None}
    yield {"noType": 1}
    yield [{"type": "rpcResult"}]
    yield {"type": "communicationWarning", "warning": "Beware.", "kind": "newKind"}
    yield {"type": "communicationWarning", "warning": {"text": "Beware."}}
    if message.get("type") == "channelSend":
        yield {**message, "message": {"type": "newPacket", "progress": "far"}}
        yield {**message, "message": {"type": "newPacket", "fragment": None}}
    yield message


#: Words of enumerations, by field, and what comes in their place.
WORDS = {
    "stopReason": "newReason",
    "format": "newFormat",
    "reasoningType": "newReasoning",
    "status": "newStatus",
    "architecture": "newArchitecture",
    "level": "newLevel",
    "paramsString": "many",
}
#: Fields that need not be there, by a field that tells their object.
OPTIONAL = {
    "stopReason": lambda key: key != "stopReason",
    "modelKey": lambda key: (
        key not in {"type", "modelKey", "path", "identifier", "instanceReference"}
    ),
    "stats": lambda key: key not in {"type", "stats"},
    "title": lambda key: key != "title",
    "tokensCount": lambda key: key != "content",
    "toolCallRequest": lambda key: key not in {"type", "toolCallRequest"},
}


def changed(value, change):
    """A value with every object changed, those of users left as they are."""
    if isinstance(value, list):
        return [changed(item, change) for item in value]
    if not isinstance(value, dict):
        return value
    made = {k: v if k in DATA else changed(v, change) for k, v in value.items()}
    return change(made)


def other_words(message):
    """Values that nobody knows, for all that are words of an enumeration."""

    def rename(thing):
        is_word = {
            k for k, v in thing.items() if k in WORDS and v not in (None, "none")
        }
        made = {k: WORDS[k] if k in is_word else v for k, v in thing.items()}
        if "modelKey" in made:
            made["type"] = "newType"
        return made

    yield changed(message, rename)


def optional(thing):
    """The fields of an object that need not be there."""
    for tells, test in OPTIONAL.items():
        if tells in thing:
            return {key for key in thing if test(key)}
    return set()


def no_optional_fields(message):
    """Only what must be there."""

    def strip(thing):
        left_out = optional(thing)
        return {key: value for key, value in thing.items() if key not in left_out}

    yield changed(message, strip)


def nulls(message):
    """``null`` where nothing need be."""

    def empty(thing):
        nothing = optional(thing)
        return {k: None if k in nothing else v for k, v in thing.items()}

    yield changed(message, empty)


@pytest.fixture
def newer(monkeypatch):
    """Makes servers whose messages are changed by a function."""

    def become(change):
        class NewerPeer(Peer):
            def __init__(self, namespace, service, send, close):
                async def send_changed(text):
                    message = json.loads(text)
                    is_greeting = message.get("success") is True
                    for made in [message] if is_greeting else change(message):
                        await send(json.dumps(made))

                super().__init__(namespace, service, send_changed, close)

        monkeypatch.setattr(loopback, "Peer", NewerPeer)

    return become


def session():
    """What comes of everything that a client can do, step by step."""
    models = ["any", "see-vision", "embed"]
    with (
        FakeServer(models, loaded=models, extensions=["new", "newer"]) as fake,
        LMStudioClient(fake.host) as client,
    ):
        return {name: value for step in STEPS for name, value in step(fake, client)}


def models(fake, client) -> Iterator[tuple[str, object]]:
    shares = []
    config = {"context_length": 512}
    mine = client.llm.load(
        "any", identifier="mine", config=config, on_progress=shares.append
    )
    yield "loaded", (mine.identifier, mine.info.path, shares[-1])
    yield "got", client.llm.model("any").identifier
    yield "fetched", client.llm.model("mine", ttl=60).get_info().model_key
    yield "config", mine.get_load_config()["context_length"]
    yield "context", mine.get_context_length()
    mine.unload()
    yield "unloaded", [handle.identifier for handle in client.llm.list_loaded()]
    yield "keys", [info.model_key for info in client.system.list_downloaded_models()]
    yield "nothing", client.llm.get("mine").get_model_info()
    yield "info", client.llm.get("any").get_info()
    yield "version", client.system.get_version()


def predictions(fake, client):
    model = client.llm.get("any")
    fake.reply([{"type": "fragment", "fragment": THOUGHT}, "Hello", " you"])
    said = model.respond("Hi?", on_prompt_progress=lambda _: None)
    yield "fragments", [(piece.content, piece.tokens_count) for piece in said]
    yield "reasoning type", next(iter(said)).reasoning_type
    yield "stop reason", said.stats.stop_reason
    yield "stats", said.stats
    fake.reply("[1, 2]")
    yield "parsed", model.respond("x", response_format=list[int]).parsed
    fake.reply(["a", AWAIT_CANCEL])
    cancelled = model.complete("x")
    yield "first", next(iter(cancelled))
    cancelled.cancel()
    fake.wait_for(is_cancel)
    yield "cancelled", cancelled.result().content
    seeing = client.llm.get("see-vision")
    picture = {"role": "user", "content": ["?", client.prepare_image(PNG, "a.png")]}
    fake.reply("a dot")
    yield "seen", seeing.respond([picture]).content


def tools(fake, client):
    def add(a: int, b: int) -> int:
        return a + b

    fake.reply(tool_call("add", {"a": 1, "b": 2}))
    fake.reply("3")
    done = client.llm.get("any").act("1 + 2?", [add])
    yield "rounds", (done.rounds, done.content, [c.content for c in done.calls])


def small_calls(fake, client):
    model, embedding = client.llm.get("any"), client.embedding.get("embed")
    yield "tokens", (len(model.tokenize("a b")), model.count_tokens("a b"))
    yield "template", model.apply_prompt_template("x")
    yield "vectors", embedding.embed(["a", "b"])
    yield "state", model.get_processing_state().status


def errors(fake, client):
    fake.fail("countTokens", "Boom", code="new.code", what={"deep": [1]})
    with pytest.raises(LMStudioServerError) as caught:
        client.llm.get("any").count_tokens("x")
    yield "error", (type(caught.value).__name__, caught.value.title)
    with pytest.raises(LMStudioServerError) as caught:
        client.llm.load("nowhere")
    yield "load error", caught.value.title


STEPS = [models, predictions, tools, small_calls, errors]


@pytest.fixture(scope="module")
def today():
    """What comes of a server of today."""
    return session()


def plain(found):
    """What came, without what only tells of the server that said it."""
    seen = {"info", "stats", "reasoning type", "stop reason", "state"}
    return {name: value for name, value in found.items() if name not in seen}


@pytest.mark.slow
@pytest.mark.parametrize("change", [more_fields, more_messages])
def test_more(today, newer, change):
    """More fields, more packets, more messages: nothing is different."""
    newer(change)
    found = session()

    assert plain(today) == plain(found)
    for name in ("reasoning type", "stop reason", "state"):
        assert today[name] == found[name]


def test_unknown_fields_are_kept(newer):
    """What nobody knows of a model is in its `raw`."""
    newer(more_fields)

    assert [1] == session()["info"].raw["newList"]


@pytest.mark.slow
def test_other_words(today, newer):
    """Unknown words are texts like those that are known."""
    newer(other_words)
    found = session()

    assert plain(today) == plain(found)
    assert "newReasoning" == found["reasoning type"]
    assert "newReason" == found["stop reason"]
    assert "newStatus" == found["state"]
    assert ("newType", "newFormat") == (found["info"].type, found["info"].format)


@pytest.mark.parametrize("change", [no_optional_fields, nulls])
def test_less(today, newer, change):
    """What need not be said may be missing, or be nothing."""
    newer(change)
    found = session()

    assert plain(today) == plain(found)
    assert found["stats"].tokens_per_second is None
    assert (0, "") == (found["info"].size_bytes, found["info"].display_name)


def test_an_entry_of_a_newer_log(newer):
    """Its kind is a text, its fields are kept."""
    newer(more_messages)
    log = {"timestamp": 1000, "data": {"type": "new.kind", "deep": [1]}}
    with (
        FakeServer() as fake,
        LMStudioClient(fake.host) as client,
        client.diagnostics.stream_logs() as stream,
    ):
        channel = fake.wait_for_call("streamLogs").message["channelId"]
        message = {"type": "log", "log": log}
        sent = {"type": "channelSend", "channelId": channel, "message": message}
        fake.send("diagnostics", sent)
        entry = next(stream)

    assert ("new.kind", 1.0) == (entry.type, entry.timestamp)
    assert isinstance(entry.data, OtherLog)
    assert [1] == entry.data.raw["deep"]
