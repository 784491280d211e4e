"""A server that is silent is asked whether it lives, and given up if it does not."""

from __future__ import annotations

import json
import re
import time

import pytest

from connections import open_to, result
from lmstudio import connection as module
from lmstudio.mailbox import Mailbox
from lmstudio.protocol.client import End
from lmstudio.worker import Worker
from raw_server import PATIENCE, PING, PONG, TEXT, RawServer, frame


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
def looks(worker, monkeypatch):
    """The looks at life that were asked for, and when; the test does them itself."""
    asked = []
    monkeypatch.setattr(worker, "at", lambda when, job: asked.append((when, job)))
    return asked


@pytest.fixture
def linked(server, worker):
    """A connection, and the server's end of it."""
    connection = open_to(server, worker)
    yield connection, server.peer()
    connection.close()


def test_a_silent_server_is_pinged_and_lives(looks, linked):
    """Pongs count as life: a server that has nothing to say is not given up."""
    connection, peer = linked
    mailbox = Mailbox()
    connection.open("rpc", "slow", None, mailbox)
    peer.json()
    assert len(looks) == 1
    for _ in range(2 * module.PINGS):
        connection._transport._ws.heard -= module.DEAD_AFTER + module.PING_AFTER
        silent_since = connection._transport.heard
        connection._check_life()
        assert 1 == connection._pings
        assert (PING, b"") == peer.frame()

        peer.send(frame(PONG, b""))
        until = time.monotonic() + PATIENCE
        while silent_since == connection._transport.heard:
            assert time.monotonic() < until
        connection._check_life()
        assert 0 == connection._pings

    assert connection.is_usable
    assert mailbox.get(0) is None


def test_when_life_is_looked_at(looks, linked):
    """After the first silence, and then soon enough to tell a death in time."""
    connection, _ = linked
    [(first, look)] = looks
    now = time.monotonic()
    assert first == pytest.approx(now + module.PING_AFTER, abs=PATIENCE)
    look()
    assert connection._transport.heard + module.PING_AFTER == looks[-1][0]

    connection._transport._ws.heard -= module.PING_AFTER
    before = time.monotonic()
    look()
    after = time.monotonic()
    pause = module.PING_AFTER / 4
    assert before + pause <= looks[-1][0] <= after + pause
    assert module.PING_AFTER + (module.PINGS + 1) * pause <= module.DEAD_AFTER
    assert module.DEAD_AFTER + pause < 30


def test_a_dead_server_is_given_up(server, worker, monkeypatch):
    """A server that answers no ping is dead, and those who wait are told."""
    monkeypatch.setattr(module, "PING_AFTER", 0.04)
    monkeypatch.setattr(module, "DEAD_AFTER", 0.1)
    connection = open_to(server, worker)
    peer = server.peer()
    mailbox = Mailbox()
    connection.open("rpc", "slow", None, mailbox)

    (end,) = mailbox.get(PATIENCE)

    assert "lost" == end.how
    assert re.fullmatch(r"no sign of life for \d+ s", end.body)
    connection.close()
    peer.json()
    assert [(PING, b"")] * module.PINGS == [peer.frame() for _ in range(module.PINGS)]


def test_a_long_pause_of_our_own_is_no_death(linked, monkeypatch):
    """A process that was stopped for a while first asks whether the server lives."""
    connection, peer = linked
    connection._transport._ws.heard -= 60.0
    connection._check_life()

    assert connection.is_usable
    assert (PING, b"") == peer.frame()
    assert 1 == connection._pings
    ws = connection._transport._ws
    ws.heard = ws.whole = time.monotonic()
    connection._check_life()
    assert 0 == connection._pings


def test_a_busy_sender_is_no_sign_of_death(linked):
    """While something is still to be sent no ping goes out, and none is missed."""
    connection, _ = linked
    connection._transport._ws.heard -= 60.0
    connection._transport._send_some = lambda view: 0
    connection._transport.post(b"stuck")
    for _ in range(module.PINGS + 1):
        connection._check_life()
    assert 0 == connection._pings
    assert connection.is_usable


def test_a_message_without_end(looks, linked):
    """Pongs that are taken for the rest of a message are no signs of life."""
    connection, peer = linked
    mailbox = Mailbox()
    connection.open("rpc", "slow", None, mailbox)
    peer.json()
    ws = connection._transport._ws

    def comes(data):
        before = ws.heard
        peer.send(data)
        until = time.monotonic() + PATIENCE
        while ws.heard == before:
            assert time.monotonic() < until

    comes(frame(TEXT, b"x" * 60_000)[:100])  # and its rest never comes
    for done in range(module.PINGS):
        ws.heard -= module.PING_AFTER
        ws.whole = ws.heard - 1.0  # which was before this message
        connection._check_life()
        assert done + 1 == connection._pings
        assert (PING, b"") == peer.frame()
        comes(frame(PONG, b""))
        connection._check_life()
        assert done + 1 == connection._pings
    assert connection.is_usable

    ws.heard -= module.PING_AFTER
    ws.whole = ws.heard - 1.0
    connection._check_life()
    (end,) = mailbox.get(PATIENCE)
    assert ("lost", "no sign of life for 10 s, in the middle of a message") == (
        end.how,
        end.body,
    )


def test_a_message_that_comes_slowly(looks, linked):
    """It may take its time: as long as some of it comes, nothing is asked."""
    connection, peer = linked
    mailbox = Mailbox()
    number = connection.open("rpc", "slow", None, mailbox)
    peer.json()
    ws, said = connection._transport._ws, json.dumps(result(number, "x" * 9000))
    data, before = frame(TEXT, said.encode()), ws.heard
    for start in range(0, len(data), 3000):
        peer.send(data[start : start + 3000])
        until = time.monotonic() + PATIENCE
        while ws.heard == before:
            assert time.monotonic() < until
        before = ws.heard
        connection._check_life()
        assert 0 == connection._pings
    assert [End("result", "x" * 9000)] == mailbox.get(PATIENCE)
    assert not connection._transport.is_mid_frame
