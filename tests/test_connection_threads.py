"""A connection is shared by many threads, and tells all of them of its end."""

from __future__ import annotations

import gc
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from connections import open_to, result
from lmstudio.errors import LMStudioWebsocketError
from lmstudio.mailbox import SLICE, Mailbox
from lmstudio.protocol.client import End
from lmstudio.worker import Worker
from raw_server import CLOSE, PATIENCE, TEXT, RawServer, frame


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


def test_many_threads_share_one_socket(linked):
    """Replies in any order reach the thread that asked."""
    connection, peer = linked
    count, barrier = 32, threading.Barrier(32)

    def ask(value):
        barrier.wait(PATIENCE)
        mailbox = Mailbox()
        connection.open("rpc", "echo", value, mailbox)
        return mailbox.get(PATIENCE)[-1].body

    with ThreadPoolExecutor(count) as pool:
        asking = [pool.submit(ask, value) for value in range(count)]
        calls = [peer.json() for _ in range(count)]
        for call in reversed(calls):
            peer.text(result(call["callId"], call["parameter"]))
        assert list(range(count)) == [a.result(PATIENCE) for a in asking]


@pytest.mark.parametrize("how", ["close", "reset", "goodbye"])
def test_a_lost_connection_releases_all_who_wait(linked, how):
    """Every waiting thread hears of the end at once, with the reason."""
    connection, peer = linked
    mailboxes = [Mailbox() for _ in range(16)]
    for mailbox in mailboxes:
        connection.open("rpc", "version", None, mailbox)

    def wait(mailbox):
        return mailbox.get(PATIENCE), time.monotonic()

    with ThreadPoolExecutor(16) as pool:
        waiting = [pool.submit(wait, mailbox) for mailbox in mailboxes]
        ended = time.monotonic()
        if how == "goodbye":
            peer.send(frame(CLOSE, (1001).to_bytes(2, "big") + b"bye"))
        elif how == "reset":
            peer.reset()
        else:
            peer.close()
        heard = [w.result(PATIENCE) for w in waiting]

    reasons = {batch[0].body for batch, _ in heard}
    assert {"lost"} == {batch[0].how for batch, _ in heard}
    if how == "goodbye":
        assert {"the server closed the connection (code 1001, 'bye')"} == reasons
    else:
        assert reasons <= {
            "the server ended the connection",
            "the server reset the connection",
        }
    assert max(when for _, when in heard) - ended < SLICE / 2
    assert not connection.is_usable
    with pytest.raises(LMStudioWebsocketError, match="lost the connection to ws://"):
        connection.open("rpc", "version", None, Mailbox())


def test_routing_while_requests_are_forgotten(linked):
    """Forgetting from one thread what another routes loses only that."""
    connection, peer = linked
    count = 200
    mailboxes = [Mailbox() for _ in range(count)]
    numbers = [connection.open("rpc", "x", None, m) for m in mailboxes]
    for _ in numbers:
        peer.json()
    with ThreadPoolExecutor(2) as pool:
        forgetting = pool.submit(
            lambda: [connection.forget(n) for n in numbers[::2]] and None
        )
        peer.send(
            b"".join(frame(TEXT, json.dumps(result(n, n)).encode()) for n in numbers)
        )
        assert forgetting.result(PATIENCE) is None
        for number, mailbox in list(zip(numbers, mailboxes, strict=True))[1::2]:
            assert [End("result", number)] == mailbox.get(PATIENCE)
    assert {} == connection._mailboxes


def test_a_garbage_collection_inside_the_locks(linked):
    """A finalizer that leaves a note for the worker takes none of our locks."""
    connection, _ = linked
    abandoned = threading.Event()

    class Leaving:
        def __init__(self):
            self.myself = self

        def __del__(self):
            connection._worker.soon(abandoned.set)

    Leaving()
    with connection._state, connection._transport._sending:
        gc.collect()
        assert abandoned.wait(PATIENCE)
