"""What the reader logs, and what comes first: nothing is lost, nobody waited for."""

from __future__ import annotations

import contextlib
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from connections import open_to, result
from lmstudio.errors import LMStudioConnectionError
from lmstudio.mailbox import Mailbox
from lmstudio.protocol.client import End
from lmstudio.worker import Worker
from raw_server import PATIENCE, TEXT, RawServer, frame


@pytest.fixture
def worker():
    made = Worker("lmstudio-worker")
    yield made
    made.stop(wait=PATIENCE)


@contextlib.contextmanager
def logged(emit):
    """Records of connections, all levels, go to a function while the block runs."""

    class Handler(logging.Handler):
        def handle(self, record):  # without the lock of handlers
            emit(record)

    logger = logging.getLogger("lmstudio.connection")
    handler, level = Handler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def test_a_handler_that_blocks_does_not_stop_the_reader(worker):
    """Replies arrive, and ends are told, while a handler of the log waits."""
    blocked, goes_on = threading.Event(), threading.Event()
    seen = []

    def emit(record):
        if record.levelno == logging.DEBUG and "<-" in record.msg:
            return  # what is sent is logged by who sends
        seen.append((threading.current_thread().name, record.getMessage()))
        if "stray" in record.msg:
            blocked.set()
            assert goes_on.wait(PATIENCE)

    with RawServer() as server:
        connection = open_to(server, worker)
        peer = server.peer()
        with logged(emit):
            try:
                peer.text({"type": "stray"})
                assert blocked.wait(PATIENCE)

                mailbox, lost = Mailbox(), Mailbox()
                number = connection.open("rpc", "version", None, mailbox)
                connection.open("rpc", "version", None, lost)
                peer.text(result(number, 1))
                assert [End("result", 1)] == mailbox.get(PATIENCE)
                peer.close()
                assert ["lost"] == [end.how for end in lost.get(PATIENCE)]
                connection.close()
            finally:
                goes_on.set()
            worker.settle(PATIENCE)
    assert [
        ("lmstudio-worker", "stray: {'type': 'stray'}"),
        ("lmstudio-worker", "connection llm ended: the server ended the connection"),
    ] == seen


def opened(server, worker, *frames):
    """A connection whose server answers the credentials with these bytes, at once."""
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(open_to, server, worker)
        peer = server.peer()
        assert 1 == peer.json()["authVersion"]
        peer.send(b"".join(frames))
        return opening.result(PATIENCE)


WELCOME = frame(TEXT, b'{"success": true}')


def test_what_comes_with_the_welcome_is_routed(worker):
    """Messages in one packet with the answer to the credentials are not lost."""
    said = frame(TEXT, b'{"type": "communicationWarning", "warning": "too old"}')
    records = []
    with RawServer("upgrade") as server, logged(records.append):
        connection = opened(server, worker, WELCOME, said, said)
        connection.close()
        worker.settle(PATIENCE)
    said = "the server complains on llm: too old"
    assert [said] * 2 == [
        r.getMessage() for r in records if r.levelno == logging.WARNING
    ]


def test_rubbish_with_the_welcome(worker):
    """It ends the connection as it would later."""
    with RawServer("upgrade") as server:
        connection = opened(server, worker, WELCOME, frame(TEXT, b"no JSON"))
        connection._reader.join(PATIENCE)
        assert not connection.is_usable
        assert connection._ended.startswith("the server sent a frame that is no JSON")
        connection.close()


def test_no_threads_left(worker, monkeypatch):
    """Where no thread can be started, nothing is left open, and the error says it."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with RawServer() as server:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(LMStudioConnectionError) as caught:
                open_to(server, worker)
        assert server.peer().closed()
    assert ("resources", "can't start new thread") == (
        caught.value.problem,
        caught.value.reason,
    )
