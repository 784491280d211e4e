"""A connection is made once for all who want it, and each waits as long as it wants."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from lmstudio import session as module
from lmstudio.address import Address
from lmstudio.errors import LMStudioConnectionError, LMStudioTimeoutError
from lmstudio.mailbox import Mailbox
from lmstudio.session import Session
from lmstudio.testing import FakeServer
from raw_server import PATIENCE, RawServer


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    """No token, proxy or host from outside."""
    for name in (*module.TOKEN_VARIABLES, "LMSTUDIO_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    with FakeServer() as made:
        yield made


def session_to(host, identifier="me", passkey="secret"):
    return Session(Address.parse(host), identifier, passkey)


@pytest.fixture
def session(server):
    made = session_to(server.host)
    yield made
    made.close()


class Waited(threading.Event):
    """An event that tells who waits for it."""

    def __init__(self):
        super().__init__()
        self.waiting = threading.Semaphore(0)

    def wait(self, timeout=None):
        self.waiting.release()
        return super().wait(timeout)


@pytest.fixture
def watched(monkeypatch):
    """The next attempt to connect, whose event tells who waits for it."""
    attempt = module._Attempt("llm", is_over=Waited())
    made, real = [], module._Attempt
    monkeypatch.setattr(
        module,
        "_Attempt",
        lambda name: real(name) if made else made.append(1) or attempt,
    )
    return attempt


def test_who_waits_for_a_failed_attempt_shares_its_failure(monkeypatch, watched):
    """Many threads at an unreachable server wait for one attempt, not each for its own.

    Each gets an error of its own, and the next call tries again.
    """
    count, attempts = 8, []
    session = session_to("127.0.0.1:1")

    def reach(namespace):
        attempts.append(namespace)
        if len(attempts) == 1:
            while len(waiters) < count:
                assert watched.is_over.waiting.acquire(timeout=PATIENCE)
        raise LMStudioConnectionError("ws://127.0.0.1:1", "timeout", "late", "Hint")

    waiters, wait = set(), type(watched).wait

    def waits(*arguments):
        waiters.add(threading.get_ident())
        return wait(*arguments)

    monkeypatch.setattr(session, "_reach", reach)
    monkeypatch.setattr(type(watched), "wait", waits)
    with ThreadPoolExecutor(count) as pool:
        asking = [pool.submit(session.connection, "llm") for _ in range(count)]
        errors = [a.exception(PATIENCE) for a in asking]

    assert ["llm"] == attempts
    assert {"no LM Studio server at ws://127.0.0.1:1: late. Hint"} == set(
        map(str, errors)
    )
    assert count == len(set(map(id, errors)))
    with pytest.raises(LMStudioConnectionError):
        session.connection("llm")
    assert 2 == len(attempts)
    session.close()


def test_a_failed_attempt_keeps_nothing_alive(monkeypatch):
    """A failure holds nothing once whoever got it lets it go, before any collection."""

    class Large:
        """Something that the attempt had in hand."""

    known = []

    def reach(namespace):
        large = Large()
        known.append(weakref.ref(large))
        try:
            raise OSError("no")
        except OSError as exc:
            raise LMStudioConnectionError("ws://nowhere", "refused", "no", "") from exc

    session = session_to("127.0.0.1:1")
    monkeypatch.setattr(session, "_reach", reach)
    gc.collect()
    gc.disable()
    try:
        try:
            session.connection("llm")
        except LMStudioConnectionError as exc:
            assert isinstance(exc.__cause__, OSError)
        assert known[0]() is None
    finally:
        gc.enable()
    session.close()


def test_a_connection_made_meanwhile_is_taken(server, session, monkeypatch):
    """Who begins to connect when another just has gets that connection."""
    made = session.connection("llm")
    monkeypatch.setattr(session, "_reach", None)
    attempt = session._attempts["llm"] = module._Attempt("llm")
    attempt.begin(session)
    attempt.wait(session, None)
    assert attempt.is_over.is_set()
    assert made is attempt.outcome
    assert {} == session._attempts


@pytest.mark.parametrize("limit", ["deadline", "silence", "both"])
def test_connecting_in_the_background(limit):
    """Whose time is over leaves; connecting goes on, and the next one gets it."""
    with RawServer("") as server:
        session = session_to(server.host)
        deadline = None if limit == "silence" else time.monotonic() + 0.02
        silence = None if limit == "deadline" else 0.02
        with pytest.raises(LMStudioTimeoutError) as caught:
            session.connection("llm", deadline, silence)
        assert f"still connecting to {session.known_address}" == str(caught.value)
        with ThreadPoolExecutor(1) as pool:
            connecting = pool.submit(session.connection, "llm", None, PATIENCE)
            peer = server.peer()
            peer.upgrade()
            peer.json()
            peer.text({"success": True})
            assert connecting.result(PATIENCE).is_usable
        assert 1 == server.accepted
        session.close()


def test_who_waits_for_nobody_tries_itself(server, session, monkeypatch):
    """Where the one who began has got no thread, the others begin anew."""
    attempt = session._attempts["llm"] = module._Attempt("llm", is_over=Waited())
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(session.connection, "llm")
        assert attempt.is_over.waiting.acquire(timeout=PATIENCE)
        attempt.conclude(session)
        assert waiting.result(PATIENCE).is_usable

    def refuse(work, name):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(module, "apart", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        session.connection("system")
    assert {} == session._attempts
    monkeypatch.undo()
    assert session.connection("system").is_usable


def test_no_thread_to_connect_on(session, monkeypatch):
    """Where the system has no more threads, that is the error; later it may have."""

    def start(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(LMStudioConnectionError) as caught:
            session.connection("llm")
    assert "resources" == caught.value.problem
    assert "can't start new thread" in str(caught.value)
    assert session.connection("llm").is_usable


def test_an_attempt_ends_no_other(session):
    """Who is interrupted while another connects leaves that one's attempt alone."""
    other = session._attempts["llm"] = module._Attempt("llm")
    mine = module._Attempt("llm")
    mine.conclude(session)
    assert {"llm": other} == session._attempts
    assert [True, False] == [mine.is_over.is_set(), other.is_over.is_set()]
    other.conclude(session)
    assert {} == session._attempts


def test_a_request_has_a_limit_for_connecting():
    """The limit of a request holds while it waits for the connection."""
    with RawServer("") as server:
        session, mailbox = session_to(server.host), Mailbox()
        with pytest.raises(LMStudioTimeoutError):
            session.open("llm", "rpc", "x", None, mailbox, None, 0.02)
        assert mailbox.request is None
        session.close()


def test_one_connection_is_kept(session):
    """Of two that were made, after Ctrl-C in the first perhaps, the later is closed."""
    kept = session.connection("llm")
    late = session._reach("llm")

    assert session._kept("llm", late) is kept
    assert kept.is_usable
    assert not late.is_usable
    assert not late._reader.is_alive()
