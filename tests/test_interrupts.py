"""Ctrl-C at any moment leaves nothing behind, on either side."""

from __future__ import annotations

import linecache
import sys
import threading
from pathlib import Path

import pytest

import lmstudio
from lmstudio.testing import AWAIT_CANCEL

PACKAGE = Path(lmstudio.__file__).parent
#: What runs between the request of a user and the wait for its answers. Not the socket:
#: an interrupt in the middle of a frame ends the connection.
TRACED = {
    str(PACKAGE / name)
    for name in (
        "arrivals.py",
        "calls.py",
        "connection.py",
        "diagnostics.py",
        "loading.py",
        "mailbox.py",
        "prediction.py",
        "protocol/client.py",
        "session.py",
    )
}
#: Where the user has what he asked for (a load), and where Python drops exceptions.
UNTRACED_RETURNS = {"run", "__del__"}


class Interrupt:
    """Raises KeyboardInterrupt at the n-th step of what this thread does in its block.

    A step is a line, or the return of a function. Not so the end of a ``with``: Python
    lets no signal in between its last line and the release of its lock.

    Attributes:
        where: The step, once it was reached.
    """

    def __init__(self, at):
        self._left = at
        self.where = None

    def __enter__(self):
        self._before = sys.gettrace()
        sys.settrace(self._call)
        return self

    def __exit__(self, *exc):
        sys.settrace(self._before)

    def _call(self, frame, event, arg):
        code, withs = frame.f_code, set()
        if code.co_filename not in TRACED or code.co_name == "__del__":
            return None

        def step(frame, event, arg):
            line = frame.f_lineno
            if event == "line":
                text = linecache.getline(code.co_filename, line).strip()
                if line in withs:
                    withs.discard(line)
                    return step
                if text.startswith("with "):
                    withs.add(line)
            elif event != "return" or code.co_name in UNTRACED_RETURNS:
                return step
            self._left -= 1
            if self._left == 0:
                self.where = f"{Path(code.co_filename).name}:{line}, {event}"
                raise KeyboardInterrupt
            return step

        return step


def at_each_step(work):
    """Interrupt the work at its first step, at its second, and so on to its last.

    Args:
        work: Called with a number that is new each time.

    Yields:
        Where the work was interrupted, after each interrupt.
    """
    for at in range(1, 2000):
        interrupt = Interrupt(at)
        try:
            with interrupt:
                work(at)
        except KeyboardInterrupt:
            was_interrupted = True
        else:
            was_interrupted = False
        if not was_interrupted:
            assert interrupt.where is None, f"it got lost at {interrupt.where}"
            assert at > 20
            return
        yield interrupt.where  # outside: what is handled keeps all of its frames alive
    raise AssertionError("the work has no end")


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
