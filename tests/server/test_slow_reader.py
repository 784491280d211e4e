"""A client that stops reading costs no other client anything, and little memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import threading

import pytest
from websockets.sync.client import connect

from lmstudio.server.limits import Limits
from lmstudio.testing.script import Await
from rawclient import prediction, raw_client, texts
from server.rest.asking import HELLO
from server.servers import scripted_server

AUTH = {"authVersion": 1, "clientIdentifier": "slow", "clientPasskey": "x"}
#: What the slow client asks for, bytes, in fragments of so many.
WANTED, FRAGMENT = 200 * 1024 * 1024, 64 * 1024
#: What the server may hold for it: the buffers of its socket, bytes.
HELD = 8 * 1024 * 1024


@contextlib.contextmanager
def small_window(port):
    """A connection that takes little before it is read."""
    reach = socket.socket()
    reach.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reach.connect(("127.0.0.1", port))
    # One message waits in the library, and no more is read from the socket.
    url = f"ws://127.0.0.1:{port}/llm"
    with connect(url, sock=reach, compression=None, max_queue=1) as made:
        made.send(json.dumps(AUTH))
        assert {"success": True} == json.loads(made.recv(5))
        yield made
        with contextlib.suppress(OSError):
            reach.shutdown(socket.SHUT_RDWR)


def buffered(scripted):
    """Bytes that wait in the server for sockets to take them."""

    async def count():
        connections = scripted.server._web.server_state.connections
        return sum(c.transport.get_write_buffer_size() for c in connections)

    loop = scripted.server._loop
    return asyncio.run_coroutine_threadsafe(count(), loop).result(5)


def resident():
    """Memory of this process, which has the server in it, bytes."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads /proc")
@pytest.mark.slow
def test_a_slow_reader_costs_nobody_anything():
    """While one client reads nothing of 200 MB others get all of theirs at once."""
    with scripted_server() as scripted, raw_client(scripted.url) as client:
        client.load("any")
        begun = Await()
        scripted.reply(begun, *["x" * FRAGMENT] * (WANTED // FRAGMENT))
        memory = resident()
        with small_window(scripted.server.port) as slow:
            create = {"type": "channelCreate", "endpoint": "predict", "channelId": 1}
            slow.send(json.dumps(create | {"creationParameter": prediction("hi")}))
            assert begun.reached.wait(5)
            begun.open()
            stuck_at(scripted)
            both = threading.Barrier(5)  # all stream while the slow one is stuck
            done = []

            def other():
                with raw_client(scripted.url) as mine:
                    gate = Await()
                    with lock:
                        scripted.reply("one", gate, *["more"] * 100)
                        number = mine.open("predict", prediction("hi"))
                        assert gate.reached.wait(5)
                    both.wait(10)
                    gate.open()
                    *packets, _, _ = mine.packets(number)
                    done.append(len(texts(packets)))

            lock = threading.Lock()
            threads = [threading.Thread(target=other) for _ in range(4)]
            for thread in threads:
                thread.start()
            both.wait(10)
            for thread in threads:
                thread.join(10)
            assert [101] * 4 == done
            assert 0 < buffered(scripted) < HELD
            assert resident() - memory < 4 * HELD


def stuck_at(scripted):
    """Wait until the server holds back: its buffer has some, and no longer grows."""
    waiting, last = threading.Event(), -1
    for _ in range(200):
        now = buffered(scripted)
        if now == last > 0:
            return
        last = now
        waiting.wait(0.05)
    raise AssertionError("the server never held back")


@pytest.mark.slow
def test_streams_that_nobody_reads_end(caplog):
    """Plain HTTP: who reads nothing of an answer for a while loses its connection."""
    limits = Limits(write_time=1.0)
    with (
        scripted_server(limits=limits) as scripted,
        contextlib.ExitStack() as stack,
        raw_client(scripted.url) as client,
    ):
        client.load("any")
        (instance,) = scripted.services[0].registry.loaded("llm")
        for _ in range(4):
            scripted.reply(*["x" * FRAGMENT] * (WANTED // FRAGMENT))
            stack.enter_context(unread_stream(scripted.server.port))
        until(lambda: ("generating", 4) == instance.status)
        until(lambda: ("idle", 0) == instance.status)
        scripted.reply("prompt")
        *packets, _, _ = client.packets(client.open("predict", prediction("hi")))
        assert ["prompt"] == texts(packets)
    assert "closed a connection from 127.0.0.1: no part of the answer" in caplog.text


def until(condition):
    """Wait for a condition, ten seconds at most."""
    waiting = threading.Event()
    for _ in range(200):
        if condition():
            return
        waiting.wait(0.05)
    raise AssertionError("it did not come about")


@contextlib.contextmanager
def unread_stream(port):
    """A connection that asked for a stream, and takes little before it is read."""
    asked = {"model": "any", "stream": True, "messages": HELLO}
    body = json.dumps(asked).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.settimeout(10)
        made.connect(("127.0.0.1", port))
        made.sendall(head.encode() + body)
        yield made
