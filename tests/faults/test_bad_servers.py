"""Scripted faults: what a server sends that it should not.

Unknown messages, wrong ids, missing and double closes, a close before the success, text
that is no JSON, binary and huge frames, a refused token. Whatever it is: an error that
says so, or nothing, and never a hang; the client is usable afterwards.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from lmstudio import (
    LMStudioAuthenticationError,
    LMStudioChannelClosedError,
    LMStudioClient,
    LMStudioError,
    LMStudioWebsocketError,
    connection,
)
from lmstudio.testing import NEVER
from raw_server import BINARY, TEXT, RawServer, frame
from tcp_proxy import Proxy, corrupt, drop, insert, join, split

#: Where the first fragment of the first prediction is, in the messages of the server.
FIRST, SECOND = 4, 5


def text(message):
    """A frame that says this."""
    return frame(TEXT, json.dumps(message).encode())


def channel(type, number=1, **fields):
    return text({"type": type, "channelId": number, **fields})


@pytest.fixture
def asked(fake):
    """A function that has a prediction harmed, and tells its text or its error."""
    fake.reply(["Once ", "upon"], when="story")

    def ask(action, message=SECOND, byte=0):
        with Proxy(fake.port) as proxy, LMStudioClient(proxy.host) as client:
            proxy.plan("down", message, action, byte)
            prediction = client.llm.get("any").respond("story")
            error = prediction.exception(10)
            result = prediction.content if error is None else error
            assert "hello" == client.llm.get("any").respond("hello").content
            return result

    return ask


#: What harms nobody, wherever it comes.
HARMLESS = {
    "an unknown message": text({"type": "fromTheFuture", "channelId": 1}),
    "an unknown packet": channel("channelSend", message={"type": "fromTheFuture"}),
    "no type": text({"channelId": 1}),
    "no object": text([1, 2, 3]),
    "null": text(None),
    "a number": text(7),
    "a channel that never was": channel("channelClose", 4711),
    "a call that never was": text({"type": "rpcResult", "callId": 1, "result": 1}),
    "a wrong id": channel("channelSend", "1", message={"type": "success"}),
    "a fragment of another": channel("channelSend", 99, message={"type": "fragment"}),
    "an id that is a list": channel("channelSend", [1], message={"type": "success"}),
    "a ping": frame(0x89, b"ping"),
    "an empty ping": frame(0x89),
    "a pong": frame(0x8A, b"pong"),
    "a huge unknown message": text({"type": "fromTheFuture", "x": "x" * 10_000_000}),
    "a warning": text({"type": "communicationWarning", "warning": "a word"}),
}


@pytest.mark.parametrize("what", HARMLESS)
@pytest.mark.parametrize("message", [2, FIRST, SECOND])
def test_what_harms_nobody(asked, what, message):
    """Between two messages of an answer it is passed over."""
    assert "Once upon" == asked(insert(HARMLESS[what]), message)


#: What ends the prediction, or all of the connection: the error, and its words.
HARMFUL = {
    "a close before the success": (
        channel("channelClose"),
        LMStudioChannelClosedError,
        "without a result",
    ),
    "two closes": (channel("channelClose") * 2, LMStudioChannelClosedError, "result"),
    "an error": (
        channel("channelError", error={"title": "It broke"}),
        LMStudioError,
        "It broke",
    ),
    "garbage": (frame(TEXT, b"{garbage"), LMStudioWebsocketError, "no JSON"),
    "no text at all": (frame(TEXT, b""), LMStudioWebsocketError, "no JSON"),
    "bad UTF-8": (frame(TEXT, b'"\xff"'), LMStudioWebsocketError, "utf-8"),
    "a binary frame": (frame(BINARY, b"{}"), LMStudioWebsocketError, "binary"),
    "a close frame": (
        frame(0x88, (1011).to_bytes(2, "big") + b"sorry"),
        LMStudioWebsocketError,
        "1011, 'sorry'",
    ),
    "an absurd length": (
        b"\x81\x7f" + (2**63 - 1).to_bytes(8, "big") + b"{",
        LMStudioWebsocketError,
        f"a message of {2**63 - 1} bytes; it may have {1024**3}",
    ),
    "a reserved opcode": (frame(0x83, b"x"), LMStudioWebsocketError, "websocket"),
    "deep JSON": (frame(TEXT, b"[" * 1_000_000), LMStudioWebsocketError, "no JSON"),
    "a fragment of a wrong form": (
        channel("channelSend", message={"type": "fragment", "fragment": 1}),
        LMStudioError,
        "predict",
    ),
}


@pytest.mark.parametrize("what", HARMFUL)
def test_what_ends_it(asked, what):
    """The error names what came, and holds the text before it."""
    bad, kind, words = HARMFUL[what]
    error = asked(insert(bad))
    assert isinstance(error, kind)
    assert words in str(error)
    assert error.partial.startswith("Once ")


@pytest.mark.parametrize("harm", [split(1), split(3), join(2), join(4)])
def test_packets_of_any_size(asked, harm):
    """However the network cuts or joins it, the answer is the same."""
    assert "Once upon" == asked(harm, 2)


@pytest.mark.slow
@pytest.mark.parametrize("byte", [0, 1, 2, 3, 10, 100])
def test_a_corrupt_byte(asked, monkeypatch, byte):
    """A byte that changed on the way gives an answer or an error, and no hang.

    Bytes 1 to 3 are the length. Where a wrong one is possible, the rest never comes,
    and what does come is taken for it.
    """
    monkeypatch.setattr(connection, "PING_AFTER", 0.05)
    result = asked(corrupt(b"\xff"), SECOND, byte)
    if byte < 3:  # the frame's own first byte, and its length
        assert isinstance(result, LMStudioWebsocketError)
        words = ("websocket error", "bytes; it may have", "in the middle of a message")
        assert words[byte] in str(result)
    assert result == "Once upon" or isinstance(result, (LMStudioError, str))


def test_a_lost_close(asked):
    """The success is enough."""
    # Behind the two fragments: the success, and then the close.
    assert "Once upon" == asked(drop(), SECOND + 2)


def test_a_lost_fragment(asked):
    """What is lost whole can't be missed: there are no numbers."""
    assert "Once " == asked(drop(), SECOND)


def test_what_others_ask_goes_on(fake):
    """A prediction that fails by a message of its own leaves its neighbours alone."""
    fake.reply(["text", NEVER], when="bad")
    fake.reply(["good ", "text"], when="good")
    with LMStudioClient(fake.host) as client:
        model = client.llm.get("any")
        bad = model.respond("bad")
        assert "text" == next(iter(bad))
        number = bad._inbox.request[1]
        fake.send("llm", {"type": "channelClose", "channelId": number})
        assert isinstance(bad.exception(5), LMStudioChannelClosedError)
        assert "good text" == model.respond("good").content
        assert 1 == len(client._session._connections)


def test_a_refused_token():
    """The server's words come out, for each call anew."""
    with RawServer("upgrade") as server, LMStudioClient(server.host) as client:
        for _ in range(2):
            with ThreadPoolExecutor(1) as pool:
                call = pool.submit(client.llm.list_loaded)
                peer = server.peer()
                assert 1 == peer.json()["authVersion"]
                peer.text({"success": False, "error": "unknown token"})
                with pytest.raises(LMStudioAuthenticationError, match="unknown token"):
                    call.result(5)
