"""One socket serves many threads, and whoever waits on it hears of its end."""

from __future__ import annotations

import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from connections import open_to, result
from lmstudio.address import Address
from lmstudio.connection import Connection
from lmstudio.errors import (
    LMStudioAuthenticationError,
    LMStudioConnectionError,
    LMStudioTimeoutError,
    LMStudioValueError,
    LMStudioWebsocketError,
)
from lmstudio.mailbox import Mailbox
from lmstudio.protocol.client import End
from lmstudio.transport import TransportEnded
from lmstudio.worker import Worker
from raw_server import (
    CLOSE,
    PATIENCE,
    PING,
    PONG,
    TEXT,
    RawServer,
    frame,
    free_port,
    open_files,
)


@pytest.fixture
def worker():
    made = Worker("lmstudio-worker")
    yield made
    made.stop(wait=PATIENCE)


@pytest.fixture
def server():
    with RawServer() as made:
        yield made


@pytest.fixture
def linked(server, worker):
    """A connection, and the server's end of it."""
    connection = open_to(server, worker)
    yield connection, server.peer()
    connection.close()


def test_request_and_reply(linked):
    """A call is sent as JSON, and its reply ends up in its mailbox."""
    connection, peer = linked
    mailbox = Mailbox()
    number = connection.open("rpc", "countTokens", {"text": "ä"}, mailbox)

    assert {
        "type": "rpcCall",
        "endpoint": "countTokens",
        "callId": number,
        "parameter": {"text": "ä"},
    } == peer.json()
    peer.text(result(number, 3))
    assert [End("result", 3)] == mailbox.get(PATIENCE)
    assert connection.is_usable


def test_packets_go_both_ways_until_the_end(linked):
    """On a channel both sides send; after its end nothing more is sent."""
    connection, peer = linked
    mailbox = Mailbox()
    number = connection.open("channel", "predict", None, mailbox)
    peer.json()
    connection.send_packet(number, {"type": "cancel"})
    assert {
        "type": "channelSend",
        "channelId": number,
        "message": {"type": "cancel"},
    } == peer.json()

    peer.text({"type": "channelSend", "channelId": number, "message": "x"})
    peer.text({"type": "channelClose", "channelId": number})
    got = []
    while End("closed") not in got:
        got += mailbox.get(PATIENCE)
    assert ["x", End("closed")] == got

    connection.send_packet(number, {"type": "late"})
    connection.abandon(number)
    connection.open("rpc", "version", None, Mailbox())
    assert "version" == peer.json()["endpoint"]


def test_abandoned_channels_are_cancelled(linked):
    """Abandoning sends a cancel, and what still comes is dropped."""
    connection, peer = linked
    mailbox = Mailbox()
    number = connection.open("channel", "predict", None, mailbox)
    peer.json()
    connection.abandon(number)
    connection.abandon(number)

    assert {"type": "cancel"} == peer.json()["message"]
    peer.text({"type": "channelSend", "channelId": number, "message": "late"})
    other = Mailbox()
    call = connection.open("rpc", "version", None, other)
    peer.text(result(call, 1))
    assert [End("result", 1)] == other.get(PATIENCE)
    assert mailbox.get(0) is None


def test_abandoning_on_a_broken_connection(linked):
    """Then the server has stopped by itself, and nothing is raised."""
    connection, _ = linked
    number = connection.open("channel", "predict", None, Mailbox())

    def fail(payload):
        raise TransportEnded("broken")

    connection._transport.post = fail
    connection.abandon(number)
    assert 0 == connection._protocol.open_requests


def test_what_wants_to_be_waited_for(linked):
    """Each mailbox says what it is, and most say nothing."""
    connection, _ = linked
    box = Mailbox()
    connection.open("channel", "predict", None, Mailbox())
    connection.open("channel", "predict", None, box)
    assert [] == connection.pending()
    box.pending = lambda: "a prediction"
    assert ["a prediction"] == connection.pending()


def test_odd_messages_harm_nothing(linked, worker, caplog):
    """What is JSON but no message is logged at debug, and the next one counts."""
    connection, peer = linked
    caplog.set_level(logging.DEBUG, "lmstudio.connection")
    mailbox = Mailbox()
    number = connection.open("rpc", "version", None, mailbox)
    odd = ["[]", "3", "null", '"text"', '{"type": 5}', ' {"type": "channelSend"}']
    for text in odd:
        peer.send(frame(TEXT, text.encode()))
    peer.text(result(number, 1))

    assert [End("result", 1)] == mailbox.get(PATIENCE)
    worker.settle(PATIENCE)
    strays = [r for r in caplog.records if r.message.startswith("stray: ")]
    assert len(odd) == len(strays)
    assert {"lmstudio-worker"} == {r.threadName for r in strays}


@pytest.mark.parametrize(
    "payload",
    [
        b"no JSON",
        b"",
        b'{"type": "\xff"}',
        b'{"type": "\xed\xa0\x80"}',
        "{}".encode("utf-16"),
        b"[" * 100_000,
    ],
    ids=["words", "empty", "latin-1", "surrogate", "utf-16", "deep"],
)
def test_garbage_ends_the_connection(linked, payload):
    """A frame that is no JSON ends all requests; messages before it still count."""
    connection, peer = linked
    answered, lost = Mailbox(), Mailbox()
    first = connection.open("rpc", "version", None, answered)
    connection.open("rpc", "version", None, lost)
    message = json.dumps(result(first, 1)).encode()
    peer.send(frame(TEXT, message) + frame(TEXT, payload))

    assert [End("result", 1)] == answered.get(PATIENCE)
    (end,) = lost.get(PATIENCE)
    assert "lost" == end.how
    assert end.body.startswith("the server sent a frame that is no JSON: ")
    assert not connection.is_usable


def test_a_failure_of_the_reader_is_heard(linked, worker, caplog):
    """Even an error of our own in the reader releases those who wait."""
    connection, peer = linked
    mailbox = Mailbox()
    connection.open("rpc", "version", None, mailbox)
    connection._protocol.receive = None
    with caplog.at_level(logging.ERROR, "lmstudio.connection"):
        peer.text({})
        (end,) = mailbox.get(PATIENCE)
        connection.close()
        worker.settle(PATIENCE)

    assert ("lost", "TypeError") == (end.how, end.body.partition(":")[0])
    assert ["the reader of llm failed"] == [r.message for r in caplog.records]


def test_complaints_are_logged_from_the_worker(linked):
    """A warning of the server that fits no request becomes a log record."""
    _, peer = linked
    logged = threading.Event()
    records = []

    class Handler(logging.Handler):
        def emit(self, record):
            records.append((threading.current_thread().name, record.getMessage()))
            logged.set()

    logger = logging.getLogger("lmstudio.connection")
    handler = Handler()
    logger.addHandler(handler)
    try:
        peer.text({"type": "communicationWarning", "warning": "Bad manners"})
        assert logged.wait(PATIENCE)
    finally:
        logger.removeHandler(handler)

    said = "the server complains on llm: Bad manners"
    assert [("lmstudio-worker", said)] == records


def test_close_releases_all_and_may_be_repeated(linked):
    """Closing from several threads ends every request, with the reason given."""
    connection, peer = linked
    mailbox = Mailbox()
    connection.open("rpc", "version", None, mailbox)
    barrier = threading.Barrier(4)

    def close():
        barrier.wait(PATIENCE)
        connection.close()

    with ThreadPoolExecutor(4) as pool:
        for closing in [pool.submit(close) for _ in range(4)]:
            closing.result(PATIENCE)
    assert [End("lost", "the client was closed")] == mailbox.get(0)
    assert peer.json()["endpoint"] == "version"
    assert peer.closed()
    with pytest.raises(LMStudioWebsocketError, match="the client was closed"):
        connection.open("rpc", "version", None, Mailbox())


def test_the_reader_may_close_its_own_connection(linked):
    """A close on the reader's thread, as by a finalizer of anything, does not hang."""
    connection, peer = linked
    closed = threading.Event()

    class Closing(Mailbox):
        def put(self, items):
            if not closed.is_set():
                assert threading.current_thread() is connection._reader
                connection.close("enough")
                closed.set()

    number = connection.open("rpc", "version", None, Closing())
    peer.text(result(number, 1))
    assert closed.wait(PATIENCE)


class Sends:
    """Stands in for a transport's `send`, at a moment that a test picks."""

    def __init__(self, work):
        self.work = work

    def __call__(self, payload, deadline=None, silence=None):
        self.work(payload)


def test_a_request_that_was_not_sent_leaves_its_mailbox_alone(linked):
    """When the connection ends in mid-send, the sender alone hears of it, at once.

    So that it can offer the same mailbox to another connection.
    """
    connection, peer = linked
    mailbox = Mailbox()

    def fail(payload):
        peer.close()
        connection._reader.join(PATIENCE)
        raise TransportEnded("broken")

    connection._transport.send = Sends(fail)
    with pytest.raises(LMStudioWebsocketError, match="the server ended the connection"):
        connection.open("rpc", "version", None, mailbox)
    assert mailbox.get(0) is None


def test_a_failed_send_ends_the_connection_for_all(linked):
    """After a failed send nobody is given this connection, reader or not."""
    connection, _ = linked

    def fail(payload):
        raise TransportEnded("broken")

    connection._transport.send = Sends(fail)
    with pytest.raises(LMStudioWebsocketError, match="broken"):
        connection.open("rpc", "version", None, Mailbox())
    assert not connection.is_usable


def test_a_request_sent_in_the_last_moment_is_lost(linked):
    """What went out while the reader ended gets an end nevertheless."""
    connection, peer = linked
    mailbox = Mailbox()

    def late(payload):
        peer.close()
        connection._reader.join(PATIENCE)

    connection._transport.send = Sends(late)
    connection.open("rpc", "version", None, mailbox)
    assert [End("lost", "the server ended the connection")] == mailbox.get(0)


def test_ctrl_c_in_a_send_leaves_the_request_to_its_owner(linked):
    """The server may have got it, and the mailbox says what to give up."""
    connection, _ = linked
    mailbox = Mailbox()

    def interrupt(payload):
        raise KeyboardInterrupt

    connection._transport.send = Sends(interrupt)
    with pytest.raises(KeyboardInterrupt):
        connection.open("rpc", "version", None, mailbox)
    assert (connection, 1) == mailbox.request
    connection.forget(1)
    assert 0 == connection._protocol.open_requests
    assert {} == connection._mailboxes
    assert set() == connection._unsent


@pytest.mark.parametrize(
    "parameter", [{"a": {1, 2}}, {"a": float("nan")}, {"a": "\ud800"}], ids=repr
)
def test_parameters_without_a_json_form(linked, parameter):
    """They are the caller's mistake, and the connection goes on."""
    connection, peer = linked
    with pytest.raises(LMStudioValueError, match="has no JSON form"):
        connection.open("rpc", "x", parameter, Mailbox())
    connection.open("rpc", "version", None, Mailbox())
    assert "version" == peer.json()["endpoint"]


def test_parameters_that_hold_themselves(linked):
    """A circle is no JSON either."""
    connection, _ = linked
    circle = []
    circle.append(circle)
    with pytest.raises(LMStudioValueError, match="has no JSON form"):
        connection.open("rpc", "x", circle, Mailbox())


def test_nobody_waits_for_a_sender_but_itself(linked):
    """Replies arrive while the server takes nothing; the worker sends what waits."""
    connection, peer = linked
    transport, answered = connection._transport, threading.Event()
    pong = transport.pong
    transport.pong = lambda data: pong(data) or answered.set()
    mailbox, channel = Mailbox(), Mailbox()
    number = connection.open("rpc", "version", None, mailbox)
    other = connection.open("channel", "predict", None, channel)
    peer.json(), peer.json()
    transport._send_some = lambda view: 0

    connection.abandon(other)
    peer.send(frame(PING, b"are you there"))
    peer.text(result(number, 1))
    assert [End("result", 1)] == mailbox.get(PATIENCE)
    assert answered.wait(PATIENCE)

    del transport._send_some
    assert {"type": "cancel"} == peer.json()["message"]
    assert (PONG, b"are you there") == peer.frame()


@pytest.mark.parametrize("way", ["_flush", "_pong", "_check_life"])
def test_the_worker_finds_the_connection_broken(linked, way):
    """What it can't send ends the connection, with the reason."""
    connection, _ = linked

    def fail(*arguments):
        raise TransportEnded("broken")

    for name in ("flush", "pong", "ping"):
        setattr(connection._transport, name, fail)
    connection._transport._ws.heard -= 60.0
    getattr(connection, way)(*[b""] * (way == "_pong"))
    assert not connection.is_usable
    with pytest.raises(LMStudioWebsocketError, match="broken"):
        connection.open("rpc", "version", None, Mailbox())


def test_a_request_that_is_not_out_in_time(linked):
    """It is withdrawn, or else left to its owner, who has to give it up."""
    connection, peer = linked
    transport = connection._transport
    begun, never = Mailbox(), Mailbox()
    transport._send_some = lambda view: 3 if len(view) > 99 else 0
    for mailbox, size in ((begun, 100), (never, 0)):
        with pytest.raises(LMStudioTimeoutError) as caught:
            connection.open("rpc", "x", "x" * size, mailbox, time.monotonic() + 0.01)
        assert f"still sending to {connection.address.url}" == str(caught.value)
    assert [(connection, 1), None] == [begun.request, never.request]
    assert [1] == [*connection._mailboxes]
    connection.forget(1)
    assert set() == connection._unsent
    assert connection.is_usable
    assert peer is not None


def test_time_for_sending_is_no_silence(linked):
    """What was taken slowly counts as heard of when the last of it was."""
    connection, _ = linked
    mailbox = Mailbox()
    connection._transport.send = lambda *arguments: mailbox.heard + 5
    before = mailbox.heard
    connection.open("rpc", "version", None, mailbox)
    assert before + 5 == mailbox.heard


def test_pings_after_the_end_are_not_answered(linked):
    """Nor is life looked for in a connection that is over."""
    connection, _ = linked
    connection.close()
    connection._pong(b"late")
    connection._check_life()
    assert not connection.is_usable


def test_refused_credentials(worker):
    """The server's words come out, and nothing stays open."""
    with RawServer("upgrade") as server:
        before = open_files()

        def refuse():
            peer = server.peer()
            peer.json()
            peer.text({"success": False, "error": "Invalid passkey"})

        with ThreadPoolExecutor(1) as pool:
            refusing = pool.submit(refuse)
            with pytest.raises(LMStudioAuthenticationError) as caught:
                open_to(server, worker)
            refusing.result(PATIENCE)
        server.stop()
        assert (
            "authentication: Invalid passkey. Check api_token, or the variables"
            " LM_API_TOKEN and LMSTUDIO_API_TOKEN; the server's settings list its"
            " tokens"
        ) == str(caught.value)
        assert before >= open_files()


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (frame(TEXT, b"no JSON"), "not-lmstudio"),
        (frame(TEXT, b"[" * 100_000), "not-lmstudio"),
        (frame(TEXT, b"\xff"), "not-lmstudio"),
        (frame(CLOSE), "not-lmstudio"),
        (b"", "timeout"),
    ],
    ids=["words", "deep", "latin-1", "close", "silence"],
)
def test_no_reply_to_authentication(worker, answer, problem):
    """A websocket server of another kind is told from a slow one."""
    with RawServer("upgrade") as server:

        def reply():
            peer = server.peer()
            peer.json()
            peer.send(answer)

        with ThreadPoolExecutor(1) as pool:
            replying = pool.submit(reply)
            with pytest.raises(LMStudioConnectionError) as caught:
                open_to(server, worker, PATIENCE if answer else 0.1)
            replying.result(PATIENCE)
    assert problem == caught.value.problem
    assert caught.value.reason.startswith("no reply to authentication: ")
    assert "secret" not in str(caught.value)


def test_nobody_there(worker):
    """A refused connection is an error of ours that names address and kind."""
    port = free_port()
    with pytest.raises(LMStudioConnectionError) as caught:
        Connection.open_to(
            Address("127.0.0.1", port),
            "llm",
            identifier="me",
            passkey="secret",
            worker=worker,
            timeout=PATIENCE,
        )
    assert (f"ws://127.0.0.1:{port}", "refused") == (
        caught.value.address,
        caught.value.problem,
    )
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def test_a_thread_that_does_not_start(server, worker, monkeypatch):
    """Without a reader there is no connection, and its socket is freed."""

    def refuse():
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Worker, "start", lambda self: refuse())
    with pytest.raises(RuntimeError, match="can't start new thread"):
        open_to(server, worker)
    assert server.peer().closed()


def test_what_is_logged(server, worker, caplog):
    """Connecting and closing at info, traffic at debug, the passkey never."""
    with caplog.at_level(logging.DEBUG, "lmstudio"):
        connection = open_to(server, worker)
        connection.open("rpc", "version", None, Mailbox())
        connection.close()
        worker.settle(PATIENCE)

    said = [(r.levelname, r.message) for r in caplog.records]
    assert ("INFO", f"connected to ws://{server.host}/llm") == said[0]
    assert ("INFO", "connection llm ended: the client was closed") == said[-1]
    assert "DEBUG" == said[1][0]
    assert "version" in said[1][1]
    assert "secret" not in caplog.text
    assert {"me", "secret"} <= set(server.auths[0].values())


def test_forsaken_connections(linked):
    """In a child after a fork those who wait get an end, and no lock is needed."""
    connection, peer = linked
    mailbox = Mailbox()
    connection.open("rpc", "version", None, mailbox)
    peer.json()
    reader, parents = connection._reader, connection._transport._sock.dup()
    with connection._state, connection._transport._sending:
        # The socket is the parent's, here played by a copy; shutting it ends the
        # reader, which a child would not have.
        connection.forsake()
    assert [End("lost", "the process was forked; make a new request")] == mailbox.get(0)
    with pytest.raises(LMStudioWebsocketError, match="the process was forked"):
        connection.open("rpc", "version", None, Mailbox())
    parents.sendall(frame(TEXT, b"1", b"abcd"))
    assert 1 == peer.json()
    peer.close()
    parents.close()
    reader.join(PATIENCE)
