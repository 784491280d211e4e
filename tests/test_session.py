"""A session has one connection for each namespace, and finds its way back."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ids import stable
from lmstudio import LMStudioClient, discovery
from lmstudio import session as module
from lmstudio.address import Address
from lmstudio.calls import call
from lmstudio.errors import (
    LMStudioConnectionError,
    LMStudioRuntimeError,
    LMStudioTypeError,
    LMStudioValueError,
    LMStudioWebsocketError,
)
from lmstudio.mailbox import Mailbox
from lmstudio.protocol.client import End
from lmstudio.session import Session, credentials
from lmstudio.testing import Await, FakeServer
from lmstudio.transport import Transport
from raw_server import PATIENCE, RawServer

TOKEN = "sk-lm-abcdefgh:abcdefghijklmnopqrst"
SECRET = "abcdefghijklmnopqrst"


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


def version(session):
    return call(session, "system", "version").version


def test_guests_have_names_of_their_own():
    """Without anything a client makes up who it is, anew each time."""
    identifier, passkey = credentials(None, None, None)

    assert identifier.startswith("guest:")
    assert 4 == len({identifier, passkey, *credentials(None, None, None)})


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((TOKEN, None, None), ("abcdefgh", SECRET)),
        ((None, "me", "secret"), ("me", "secret")),
    ],
)
def test_given_credentials(arguments, expected):
    """A token is cut in two; an identifier and a passkey stay as they are."""
    assert expected == credentials(*arguments)


def test_half_given_credentials(monkeypatch):
    """What is missing is made up, and no variable comes in between."""
    monkeypatch.setenv("LM_API_TOKEN", TOKEN)
    assert "me" == credentials(None, "me", None)[0]
    identifier, passkey = credentials(None, None, "secret")
    assert "secret" == passkey
    assert identifier.startswith("guest:")
    assert credentials("", None, None)[0].startswith("guest:")


def test_token_variables(monkeypatch):
    """The two variables count in their order, empty ones not at all."""
    monkeypatch.setenv("LMSTUDIO_API_TOKEN", TOKEN)
    assert ("abcdefgh", SECRET) == credentials(None, None, None)
    monkeypatch.setenv("LM_API_TOKEN", "")
    assert ("abcdefgh", SECRET) == credentials(None, None, None)
    monkeypatch.setenv("LM_API_TOKEN", TOKEN.replace("abcdefgh:", "ABCDEFGH:"))
    assert ("ABCDEFGH", SECRET) == credentials(None, None, None)


@pytest.mark.parametrize("token", ["x" + TOKEN, TOKEN + "\n", SECRET])
def test_wrong_tokens_are_not_repeated(token, monkeypatch):
    """A token of the wrong form is an error that says the form and not the token."""
    with pytest.raises(LMStudioValueError) as caught:
        credentials(token, None, None)
    assert (
        "api_token is no API token: one looks like"
        " sk-lm-<8 letters or digits>:<20 letters or digits>"
    ) == str(caught.value)
    monkeypatch.setenv("LMSTUDIO_API_TOKEN", SECRET)
    with pytest.raises(LMStudioValueError) as caught:
        credentials(None, None, None)
    assert str(caught.value).startswith("the variable LMSTUDIO_API_TOKEN is no API")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("given", [5, b"bytes", [], 0, False, {}, object()], ids=stable)
def test_credentials_are_texts(given):
    """Nothing else is one, also not what counts as False; it is not repeated."""
    for position, problem in enumerate(
        (
            "api_token must be text",
            "client_identifier must be 1 to 256 characters",
            "client_passkey must be 1 to 256 characters",
        )
    ):
        arguments = [None, None, None]
        arguments[position] = given
        with pytest.raises(LMStudioTypeError) as caught:
            credentials(*arguments)
        assert problem == str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((None, "a\ud800", None), "^client_identifier holds a lone surrogate, which"),
        ((None, None, "a\ud800"), "^client_passkey holds a lone surrogate, which no"),
        ((None, "", None), "client_identifier must be 1 to 256 characters"),
        ((None, "x" * 257, None), "client_identifier must be 1 to 256 characters"),
        ((None, 5, None), "client_identifier must be 1 to 256 characters"),
        ((None, None, ""), "client_passkey must be 1 to 256 characters"),
        ((TOKEN, "me", None), "api_token stands for client_identifier and"),
        ((TOKEN, None, "secret"), "api_token stands for client_identifier and"),
    ],
)
def test_wrong_credentials(arguments, problem):
    """Nothing that was given is dropped in silence."""
    with pytest.raises(LMStudioValueError, match=problem):
        credentials(*arguments)


def test_the_token_is_nowhere_to_be_seen(monkeypatch, caplog):
    """Not in a repr, a log record or an error; only in the first frame."""
    caplog.set_level(logging.DEBUG)
    with RawServer() as server:
        client = LMStudioClient(server.host, api_token=TOKEN)
        client._session.connection("llm")
        peer = server.peer()
        mailbox = Mailbox()
        client._session.open("llm", "rpc", "version", None, mailbox)
        seen = [repr(client), repr(client._session), repr(vars(client).keys())]
        peer.close()
        seen.append(repr(mailbox.get(PATIENCE)))
        server.stop()
        with pytest.raises(LMStudioConnectionError) as caught:
            client._session.connection("llm")
        seen += [str(caught.value), repr(caught.value), caplog.text]
        client.close()

    assert [SECRET] == [auth["clientPasskey"] for auth in server.auths]
    assert [] == [text for text in seen if SECRET in text or TOKEN in text]


def test_one_socket_for_each_namespace(session, monkeypatch):
    """Sixty-four threads that start at once share one socket per namespace."""
    count, opened, connect = 64, [], Transport.connect

    def counted(address, namespace, timeout):
        opened.append(namespace)
        return connect(address, namespace, timeout)

    monkeypatch.setattr(Transport, "connect", counted)
    barrier = threading.Barrier(count)

    def ask(number):
        barrier.wait(PATIENCE)
        if number % 2:
            return version(session)
        return len(call(session, "llm", "listLoaded"))

    with ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(ask, range(count)))

    assert {0, version(session)} == set(answers)
    assert ["llm", "system"] == sorted(opened)


def test_reconnecting_after_a_restart():
    """The server goes and comes back on its port: the next call just works."""
    with FakeServer() as first:
        session = session_to(first.host)
        assert version(session)
        old = session.connection("system")
    with FakeServer(port=first.port) as second:
        assert version(session)
        assert 1 == len(second.parameters("version"))
        assert old is not session.connection("system")
    with pytest.raises(LMStudioConnectionError, match="the connection was refused"):
        version(session)
    session.close()


def test_reading_is_repeated_once(server, session):
    """A call that only reads survives a drop; twice in a row is an error."""
    assert version(session)
    drops = []

    def ask():
        drops.append(1)
        if len(drops) < 3:
            raise LMStudioWebsocketError("ws://h:1", "gone")
        return "answer"

    with pytest.raises(LMStudioWebsocketError):
        session.again(ask)
    assert 2 == len(drops)
    assert "answer" == session.again(ask)

    def unreachable():
        drops.append(1)
        raise LMStudioConnectionError("ws://h:1", "refused", "r", "h")

    drops.clear()
    with pytest.raises(LMStudioConnectionError):
        session.again(unreachable)
    assert [1] == drops


def test_repeating_on_a_closed_client(session):
    """A call that lost its connection to `close` says that the client is closed."""

    def ask():
        session.close()
        raise LMStudioWebsocketError("ws://h:1", "the client was closed")

    with pytest.raises(LMStudioRuntimeError, match="the client was closed; make a new"):
        session.again(ask)


def test_requests_that_were_not_sent_are_sent_anew(server, session, monkeypatch):
    """A connection that turns out broken while sending is replaced."""
    old = session.connection("system")
    old._transport.close()
    mailbox, real, found = Mailbox(), session.connection, [old]
    # It looks usable still: its reader has not noticed yet.
    monkeypatch.setattr(
        session, "connection", lambda *to: found.pop() if found else real(*to)
    )
    connection, _ = session.open("system", "rpc", "version", None, mailbox)

    (end,) = mailbox.get(PATIENCE)
    assert ("result", True) == (end.how, connection is not old)
    assert 1 == len(server.parameters("version"))


def test_sending_anew_to_nobody(session, server):
    """When there is no server any more, the error is that of connecting."""
    session.connection("system")
    server.close()
    with pytest.raises(LMStudioConnectionError):
        session.open("system", "rpc", "version", None, Mailbox())


def found_on(monkeypatch, *servers):
    """Let discovery find these, one after the other."""
    left = [Address("127.0.0.1", server.port) for server in servers]

    def find():
        if not left:
            raise LMStudioConnectionError("ws://127.0.0.1:1", "refused", "no", "Hint")
        return left.pop(0)

    monkeypatch.setattr(discovery, "find_local", find)


def test_a_server_that_moved_is_found_again(monkeypatch):
    """The server that was found is gone: discovery looks once more."""
    with FakeServer() as second:
        with FakeServer() as first:
            found_on(monkeypatch, first, second)
            session = Session(None, "me", "secret")
            assert "a local server" == session.known_address
            assert version(session)
            assert first.url == session.known_address
        assert version(session)
        assert second.url == session.known_address
        assert version(session)
        session.close()


def test_a_found_server_that_went_at_once(monkeypatch):
    """What was found and can't be reached is diagnosed; the next call looks again."""
    with FakeServer() as first, FakeServer() as second:
        found_on(monkeypatch, first, second)
        session = Session(None, "me", "secret")
        first.close()
        with pytest.raises(LMStudioConnectionError) as caught:
            version(session)
        assert f"no LM Studio server at {first.url}: the connection was refused." in (
            str(caught.value)
        )
        assert version(session)
        second.close()
        with pytest.raises(LMStudioConnectionError, match="Hint"):
            version(session)
        session.close()


def test_no_local_server(monkeypatch):
    """The error of discovery comes out as it is."""
    found_on(monkeypatch)
    session = Session(None, "me", "secret")
    with pytest.raises(LMStudioConnectionError) as caught:
        version(session)
    assert "no LM Studio server at ws://127.0.0.1:1: no. Hint" == str(caught.value)
    session.close()


def test_greeting(server, session):
    """What the server says of itself."""
    assert session.greeting()["lmstudio"] is True


def test_who_we_are(session):
    """The identifier is known; a given address too."""
    assert "me" == session.identifier
    assert session.known_address == session.address.url


def test_after_close(session, server):
    """A closed client says so; closing again, from many threads, is nothing."""
    assert version(session)
    assert session.has_connections
    barrier = threading.Barrier(8)

    def close():
        barrier.wait(PATIENCE)
        session.close()

    with ThreadPoolExecutor(8) as pool:
        for closing in [pool.submit(close) for _ in range(8)]:
            closing.result(PATIENCE)
    session.close()

    assert session.is_closed
    assert not session.has_connections
    with pytest.raises(LMStudioRuntimeError, match="the client was closed; make a new"):
        version(session)
    assert session.callbacks is None


def test_close_releases_who_waits(session, server):
    """A call that waits for its answer ends with the close."""
    gate = Await()
    server.before("version", gate)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(version, session)
        assert gate.reached.wait(PATIENCE)
        session.close()
        assert isinstance(waiting.exception(PATIENCE), LMStudioRuntimeError)
    gate.open()


def test_close_while_connecting():
    """A connection that is made after the close is closed at once."""
    with RawServer("") as server:
        session = session_to(server.host)
        with ThreadPoolExecutor(1) as pool:
            connecting = pool.submit(session.connection, "llm")
            peer = server.peer()
            session.close()
            peer.upgrade()
            peer.json()
            peer.text({"success": True})
            assert isinstance(connecting.exception(PATIENCE), LMStudioRuntimeError)
        assert peer.closed()
    assert "lmstudio-llm" not in [t.name for t in threading.enumerate()]


def test_what_wants_to_be_waited_for(session):
    """What the mailboxes of all connections name, and nothing else."""

    class Awaited(Mailbox):
        def pending(self):
            return "that"

    assert [] == session.pending()
    for namespace, mailbox in (("llm", Awaited()), ("system", Mailbox())):
        session.connection(namespace)._mailboxes[-1] = mailbox
    assert ["that"] == session.pending()


def test_callbacks_have_a_thread_of_their_own(session):
    """One worker for callbacks, started when first asked for, ended by close."""
    ran = threading.Event()
    worker = session.callbacks
    worker.soon(ran.set)
    assert ran.wait(PATIENCE)
    assert worker is session.callbacks
    assert worker is not session.worker


def test_a_shadow_works_in_place_of_its_session(server):
    """Finalizers of a session close it through another object."""
    session = session_to(server.host)
    assert version(session)
    shadow = session.shadow()
    del session
    shadow.close()
    assert shadow.is_closed


def test_after_a_fork(session, server):
    """A child starts with nothing of its parent's: no locks, threads or sockets."""
    gate = Await()
    server.before("version", gate)
    mailbox = Mailbox()
    connection, _ = session.open("system", "rpc", "version", None, mailbox)
    assert gate.reached.wait(PATIENCE)
    worker, reader = session.worker, connection._reader
    with session._state:
        # What a child would find, played in the parent: its socket is kept by a copy.
        with connection._transport._sock.dup():
            module._after_fork()
        assert [End("lost", "the process was forked; make a new request")] == (
            mailbox.get(0)
        )
    gate.open()
    assert version(session)
    assert worker is not session.worker
    reader.join(PATIENCE)
    worker.stop(wait=PATIENCE)


FORKING = """
    import os, sys, threading
    from lmstudio.address import Address
    from lmstudio.calls import call
    from lmstudio.mailbox import Mailbox
    from lmstudio.session import Session

    session = Session(Address.parse(sys.argv[1]), "me", "secret")
    call(session, "llm", "listLoaded")
    mailbox = Mailbox()
    session.open("system", "rpc", "version", None, mailbox)
    waiting = threading.Thread(target=lambda: heard.append(mailbox.get(20)))
    heard = []
    waiting.start()
    child = os.fork()
    if not child:
        try:
            end = mailbox.get(20)[-1]
            assert ("lost", "the process was forked") == (end.how, end.body[:22]), end
            assert [] == call(session, "llm", "listLoaded")
            session.close()
            os._exit(0)
        except BaseException as exc:
            print("child:", repr(exc), flush=True)
            os._exit(1)
    assert 0 == os.waitpid(child, 0)[1]
    assert [] == call(session, "llm", "listLoaded")
    print("undisturbed", flush=True)
    waiting.join(20)
    assert "result" == heard[0][-1].how, heard
    session.close()
    print("done", flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_fork(server):
    """The parent goes on undisturbed, and the child has connections of its own."""
    gate = Await()
    server.before("version", gate)
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(FORKING), server.host],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    with process:
        assert "undisturbed\n" == process.stdout.readline()
        gate.open()
        assert "done\n" == process.stdout.readline()
        assert 0 == process.wait(PATIENCE)
    assert ["llm", "llm"] == [
        seen.namespace for seen in server.requests if seen.endpoint == "listLoaded"
    ][:2]
