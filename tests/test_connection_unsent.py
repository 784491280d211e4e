"""What can't be sent: a message that servers would not take, or a broken connection."""

from __future__ import annotations

import pytest

from connections import open_to
from lmstudio import connection as module
from lmstudio.errors import LMStudioValueError
from lmstudio.mailbox import Mailbox
from lmstudio.sender import TransportEnded
from lmstudio.worker import Worker
from raw_server import PATIENCE, RawServer


@pytest.fixture
def linked():
    """A connection, and the server's end of it."""
    worker = Worker("lmstudio-worker")
    with RawServer() as server:
        connection = open_to(server, worker)
        yield connection, server.peer()
        connection.close()
    worker.stop(wait=PATIENCE)


@pytest.mark.parametrize(
    ("parameter", "where"),
    [
        ({"a": [1, {"b": "y" * 70}], "c": "z"}, "a[1].b, has 70"),
        (("z", "xy" * 35), "[1], has 70"),
    ],
)
def test_a_request_that_is_too_large(linked, monkeypatch, parameter, where):
    """The error names the longest text and where it stands; nothing was sent."""
    connection, peer = linked
    monkeypatch.setattr(module, "LARGEST_MESSAGE", 100)
    with pytest.raises(LMStudioValueError) as caught:
        connection.open("rpc", "x", parameter, Mailbox())
    said = str(caught.value)
    assert said.startswith("x: the message would have 1")
    assert f"; the longest text in it, {where} characters. Nothing was sent" in said

    monkeypatch.undo()
    connection.open("rpc", "version", None, Mailbox())
    assert "version" == peer.json()["endpoint"]


@pytest.mark.parametrize(
    ("body", "longest"),
    [({"type": "x" * 99}, "message.type, has 99"), (list(range(99)), "type, has 11")],
)
def test_a_packet_that_is_too_large(linked, monkeypatch, body, longest):
    """A packet belongs to no endpoint, and may have no text of its own."""
    connection, _ = linked
    number = connection.open("channel", "predict", None, Mailbox())
    monkeypatch.setattr(module, "LARGEST_MESSAGE", 100)
    with pytest.raises(LMStudioValueError) as caught:
        connection.send_packet(number, body)
    assert str(caught.value).startswith("the message would have ")
    assert f"; the longest text in it, {longest} characters" in str(caught.value)


def test_numbers_that_are_too_large(linked, monkeypatch):
    """Where no text makes it large, none is named."""
    connection, _ = linked
    monkeypatch.setattr(module, "LARGEST_MESSAGE", 100)
    with pytest.raises(LMStudioValueError, match=r"servers take 100\. Nothing"):
        connection.open("rpc", "x", [*range(99)], Mailbox())


def test_a_channel_is_abandoned_on_a_broken_connection(linked):
    """Then the server has stopped by itself, and nothing is raised."""
    connection, _ = linked
    number = connection.open("channel", "predict", None, Mailbox())

    def fail(payload):
        raise TransportEnded("broken")

    connection._transport.post = fail
    connection.abandon(number)
    assert not connection.is_usable
    assert 0 == connection._protocol.open_requests
