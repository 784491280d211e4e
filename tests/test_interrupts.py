"""Ctrl-C at any moment leaves nothing behind, on either side."""

from __future__ import annotations

import threading

import pytest

from interrupts import at_each_step
from lmstudio.testing import AWAIT_CANCEL


def settle(client):
    """Wait until the worker has done its notes, and the server what it was sent."""
    done = threading.Event()
    client._session.worker.soon(done.set)
    assert done.wait(5)
    client.llm.list_loaded()
    client.system.get_version()


def assert_stopped(fake, kind, where):
    """Whatever channel the server saw, it was asked to stop with a packet of a kind."""

    def number(seen, type):
        return seen.message.get("type") == type and seen.message["channelId"]

    for channel in {number(seen, "channelCreate") for seen in fake.requests} - {False}:
        assert fake.wait_for(
            lambda seen, channel=channel: (
                number(seen, "channelSend") == channel
                and seen.message["message"] == {"type": kind}
            )
        ), where


def assert_nothing_is_left(client, where):
    for connection in client._session._connections.values():
        left = (connection._mailboxes, connection._unsent)
        assert ({}, set()) == left, where
        assert 0 == connection._protocol.open_requests, where


@pytest.mark.slow
@pytest.mark.parametrize(
    "ask",
    [
        lambda model: model.count_tokens("x"),
        lambda model: model.tokenize(["x", "y", "z"]),
    ],
    ids=["call", "call_all"],
)
def test_a_call(client, model, ask):
    """No reply is expected for a call that was interrupted."""
    client.llm.list_loaded()  # it connects

    for where in at_each_step(lambda n: ask(model)):
        assert_nothing_is_left(client, where)

    assert 1 == len(client.llm.list_loaded())


@pytest.mark.slow
def test_a_load(fake, client, monkeypatch):
    """A load that was interrupted leaves no model, whatever had crossed by then."""
    monkeypatch.setattr("lmstudio.loading.CANCEL_TIME", 0.5)
    client.llm.list_loaded()

    def load(number):
        client.llm.load("other", identifier=f"ghost{number}", no_hup=True)

    for where in at_each_step(load):
        assert ["any"] == fake.loaded(), where
        assert_nothing_is_left(client, where)

    assert 2 == len(fake.loaded())


@pytest.mark.slow
def test_a_prediction(fake, client, model):
    """The server is asked to stop a prediction that nobody got, or never sees it."""
    client.llm.list_loaded()
    fake.reply([AWAIT_CANCEL], times=None)
    kept = []

    for where in at_each_step(lambda n: kept.append(model.respond("x"))):
        settle(client)
        assert_stopped(fake, "cancel", where)
        assert_nothing_is_left(client, where)

    kept.pop().cancel()
    assert [] == kept


@pytest.mark.slow
def test_a_stream_of_the_log(fake, client):
    """The same of a log that nobody reads."""
    client.diagnostics.stream_logs().close()
    kept = []

    for where in at_each_step(lambda n: kept.append(client.diagnostics.stream_logs())):
        settle(client)
        assert_stopped(fake, "stop", where)
        assert_nothing_is_left(client, where)

    kept.pop().close()
    assert [] == kept
