"""A server's log can be watched from any thread, and left at any time."""

from __future__ import annotations

import gc
import logging
import threading

import pytest

from lmstudio import (
    LMStudioClient,
    LMStudioProtocolError,
    LMStudioTypeError,
    LMStudioWebsocketError,
    LogEntry,
)
from lmstudio.testing import FakeServer
from lmstudio.wire.diagnostics import (
    OtherLog,
    PredictionInput,
    PredictionOutput,
    ServerLog,
)

PATIENCE = 5.0


def watched(fake):
    """How many streams the server feeds."""

    async def count():
        return len(fake._service.logs._listeners)

    return fake._loopback.call(count)


def watch(fake, client, *on_log):
    """Open a stream, and wait until the server feeds it."""
    stream = client.diagnostics.stream_logs(*on_log)
    fake.wait_for_call("streamLogs")
    while not watched(fake):
        pass  # each look is a turn of the server's loop
    return stream


def unwatched(fake):
    """Wait until the server feeds no stream."""
    gone = threading.Event()
    for _ in range(500):
        if not watched(fake):
            return True
        gone.wait(0.01)
    return False


def packet(fake, kind, **fields):
    """Send an entry of a newer server on every open channel."""
    log = {"timestamp": 1767225600500, "data": {"type": kind, **fields}}
    message = {"type": "log", "log": log}
    fake.send(
        "diagnostics", {"type": "channelSend", "channelId": 1, "message": message}
    )


def test_what_a_prediction_logs(fake, client, model):
    """Our server tells the prompt, and then what came of it."""
    with watch(fake, client) as stream:
        fake.reply(["one", " two"])
        result = model.respond("Hello").result()
        first, second = next(stream), next(stream)

    assert LogEntry is type(first)
    assert ["llm.prediction.input", "llm.prediction.output"] == [
        first.type,
        second.type,
    ]
    path = "testing/any-GGUF/any-Q4_K_M.gguf"
    assert first.data == PredictionInput(
        model_path=path, model_identifier="any", input="Hello"
    )
    assert PredictionOutput is type(second.data)
    assert ("any", "one two") == (second.data.model_identifier, second.data.output)
    assert result.stats == second.data.stats
    assert 1e9 < first.timestamp <= second.timestamp < 1e10  # seconds
    assert unwatched(fake)


def test_the_application_is_asked_as_it_knows_it():
    """Without our extension the channel has no parameter, and inputs come."""
    with FakeServer(loaded=["any"], extensions=()) as fake:
        with LMStudioClient(fake.host) as client, watch(fake, client) as stream:
            client.llm.get("any").respond("Hello").result()
            assert "Hello" == next(stream).data.input
            client.llm.get("any").respond("Again").result()
            assert "Again" == next(stream).data.input
        assert [None] == fake.parameters("streamLogs")


def test_kinds_of_newer_servers(fake, client):
    """Lines of the server are typed; what nobody knows is kept as it came."""
    with watch(fake, client) as stream:
        packet(fake, "server.log", content="started", level="warn")
        packet(fake, "some.newer", x=1)
        first, second = next(stream), next(stream)

    assert ServerLog(content="started", level="warn") == first.data
    assert 1767225600.5 == first.timestamp
    assert OtherLog({"type": "some.newer", "x": 1}) == second.data
    assert "some.newer" == second.type


def test_an_entry_that_does_not_fit(fake, client):
    """It is an error with its place, and the next one is read."""
    with watch(fake, client) as stream:
        packet(fake, "server.log", level="warn")
        packet(fake, "server.log", content="fine")
        with pytest.raises(LMStudioProtocolError, match=r"streamLogs: server\.log"):
            next(stream)

        assert "fine" == next(stream).data.content


def test_packets_of_other_types_are_left_out(fake, client):
    """A newer server may send more than entries."""
    other = {"type": "channelSend", "channelId": 1, "message": {"type": "newer"}}
    with watch(fake, client) as stream:
        fake.send("diagnostics", other)
        packet(fake, "server.log", content="fine")

        assert "fine" == next(stream).data.content


def test_closing_ends_those_who_wait(fake, client):
    """Any thread may close; all who iterate come to an end, then and later."""
    stream = watch(fake, client)
    ended = []
    threads = [
        threading.Thread(target=lambda: ended.append(list(stream))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    stream.close()
    stream.close()
    for thread in threads:
        thread.join(PATIENCE)

    assert [[], [], []] == ended
    assert [] == list(stream)
    assert "<LogStream closed>" == repr(stream)
    assert unwatched(fake)


def test_closing_the_client_ends_it(fake):
    """It is no error: that was asked for."""
    client = LMStudioClient(fake.host)
    stream = watch(fake, client)
    assert "<LogStream open>" == repr(stream)
    client.close()

    assert [] == list(stream)


def test_a_lost_connection_is_an_error(fake, client):
    """Each who iterates gets one, now and later."""
    stream = watch(fake, client)
    fake.drop_connections()

    for _ in range(2):
        with pytest.raises(LMStudioWebsocketError):
            next(stream)


def test_a_stream_that_nobody_holds_is_closed(fake, client):
    """The server does not go on sending for nobody."""
    watch(fake, client)
    gc.collect()

    assert unwatched(fake)


def test_callbacks(fake, client, model):
    """A function is called with each entry, in a thread of its own."""
    seen, done = [], threading.Event()

    def on_log(entry):
        seen.append((entry.type, threading.current_thread().name))
        if entry.type == "llm.prediction.output":
            done.set()

    stream = watch(fake, client, on_log)
    model.respond("Hello").result()
    assert done.wait(PATIENCE)
    stream.close()

    kinds = ["llm.prediction.input", "llm.prediction.output"]
    assert [(kind, "lmstudio-logs") for kind in kinds] == seen


def test_a_callback_that_closes_the_stream(fake, client, model):
    """It is called no more."""
    seen = []
    streams = []

    def on_log(entry):
        seen.append(entry)
        streams[0].close()

    streams.append(watch(fake, client, on_log))
    model.respond("Hello").result()
    streams[0]._caller.join(PATIENCE)

    assert 1 == len(seen)
    assert unwatched(fake)


def test_a_callback_that_raises(fake, client, model, caplog):
    """The log says so, and the stream is closed."""

    def on_log(entry):
        raise SystemExit("no more")

    stream = watch(fake, client, on_log)
    with caplog.at_level(logging.ERROR, "lmstudio.diagnostics"):
        model.respond("Hello").result()
        stream._caller.join(PATIENCE)

    assert ["error in on_log; no more entries are read"] == caplog.messages
    assert unwatched(fake)


def test_callbacks_end_with_the_connection(fake, client, caplog):
    """A lost connection is told in the log, as there is nobody to raise it to."""
    stream = watch(fake, client, print)
    with caplog.at_level(logging.WARNING, "lmstudio.diagnostics"):
        fake.drop_connections()
        stream._caller.join(PATIENCE)

    (message,) = caplog.messages
    assert message.startswith("the log of the server ended: lost the connection")


def test_what_is_no_function(fake, client):
    """It is refused before anything is sent."""
    with pytest.raises(LMStudioTypeError, match="on_log must be a function, not 7"):
        client.diagnostics.stream_logs(7)

    assert [] == fake.requests
