"""Frames go out whole and in order, and only who wants to waits for the server."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
import ssl
import threading
import time
from types import SimpleNamespace

import pytest

import tls_files
from lmstudio import sender as module
from lmstudio.sender import Sender, TransportEnded, Unsent, wait
from raw_server import CLOSE, PATIENCE, PING, PONG, TEXT, frame
from transports import beside, connected, secured, stuck

#: More than any socket takes at once.
LARGE = b"x" * 1_000_000


class Unwilling(socket.socket):
    """A socket that does to senders what is asked of it: takes so much, or raises."""

    def __init__(self, sock, *behaviour):
        super().__init__(fileno=sock.dup().detach())
        self.settimeout(None)
        self.behaviour = list(behaviour)

    def send(self, data, flags=0):
        what = self.behaviour.pop(0) if self.behaviour else len(data)
        if isinstance(what, BaseException):
            raise what
        return super().send(data[:what], flags)


@contextlib.contextmanager
def unwilling(*behaviour):
    """A transport whose socket is unwilling; its peer, and what it asked for."""
    with connected() as (transport, peer):
        asked = []
        transport.ready(lambda data: None, lambda: asked.append(1))
        real = transport._sock
        with Unwilling(real, *behaviour) as transport._sock:
            try:
                yield transport, peer, asked
            finally:
                transport._sock = real


def test_sent_frames_are_whole_and_masked():
    """Each length has its form of header, and the payload arrives as it was."""
    with connected() as (transport, peer):
        for size in (0, 1, 125, 126, 65535, 65536):
            payload = bytes(range(256)) * (size // 256) + b"x" * (size % 256)

            assert 0.0 == transport.send(payload) or size > 65535
            assert (TEXT, payload) == peer.frame()


def test_the_half_alone():
    """What receives and closes is the business of the other half."""
    assert {"heard", "close"} == Sender.__abstractmethods__


def test_a_stalled_server_holds_up_neither_reading_nor_closing():
    """While a send waits, reading goes on, nobody else waits, and close ends it."""
    with stuck() as (transport, peer, sending):
        peer.send(frame(TEXT, b"still here"))

        assert [b"still here"] == transport.read()
        assert not transport.ping()
        transport.post(b"cancel")
        transport.pong(b"here")
        assert not transport.flush()
        assert not sending.done()

        transport.close()
        assert "the connection is closed" == str(sending.exception(PATIENCE))


def test_half_a_frame_is_never_followed_by_anything():
    """After a close in mid-send the server gets the rest of nothing."""
    with stuck() as (transport, peer, sending):
        transport.close()
        assert isinstance(sending.exception(PATIENCE), TransportEnded)
        head = peer.exactly(14)
        mask, count = head[10:], 0
        with contextlib.suppress(ConnectionError):
            while data := peer.socket.recv(65536):
                expected = bytes(ord("x") ^ mask[(count + i) % 4] for i in range(4))
                cycle = (expected * (len(data) // 4 + 1))[: len(data)]
                assert cycle == data
                count += len(data)
        assert count < len(LARGE)


def test_a_slow_server_gets_all():
    """A server that reads late and little still gets the whole message."""
    with stuck() as (_, peer, sending):
        began = time.monotonic()
        first, payload = peer.frame()

        assert (TEXT, len(LARGE)) == (first, len(payload))
        assert began <= sending.result(PATIENCE) <= time.monotonic()


def test_what_waits_goes_out_in_its_order():
    """Messages, posts and the last of several pongs follow the frame that is out."""
    with stuck() as (transport, peer, sending), contextlib.ExitStack() as stack:
        transport.post(b"first")
        transport.pong(b"old")
        transport.pong(b"new")
        second = stack.enter_context(beside(transport.send, b"second"))
        while len(transport._outbox) < 4:  # until it is in line
            assert not second.done()
        transport.post(b"third")

        assert LARGE == peer.frame()[1]
        assert (TEXT, b"first") == peer.frame()
        assert (PONG, b"new") == peer.frame()
        assert (TEXT, b"second") == peer.frame()
        assert transport.flush()  # who waits sends what stands before, if it must
        assert (TEXT, b"third") == peer.frame()
        assert sending.result(PATIENCE) <= second.result(PATIENCE)
        transport.pong(b"again")
        assert (PONG, b"again") == peer.frame()


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["deadline", "silence", "both"])
def test_a_limit_ends_the_waiting_alone(limit):
    """What is begun goes out whole nevertheless, and what is not never does."""
    with connected(small=True) as (transport, peer):
        transport._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

        def limits():
            deadline = None if limit == "silence" else time.monotonic() + 0.05
            return deadline, None if limit == "deadline" else 0.05

        with pytest.raises(Unsent, match="does not take the message") as begun:
            transport.send(LARGE, *limits())
        with pytest.raises(Unsent) as waiting:
            transport.send(b"never", *limits())
        transport.post(b"cancel")

        assert [True, False] == [begun.value.is_begun, waiting.value.is_begun]
        with beside(peer.frame) as reading:
            while not transport.flush():
                assert wait(transport._sock, 2, PATIENCE)
            assert (TEXT, LARGE) == reading.result(PATIENCE)
        assert (TEXT, b"cancel") == peer.frame()


def test_a_server_that_takes_a_little_is_not_silent(monkeypatch):
    """Each byte that is taken begins the silence anew; the deadline stays."""
    times = iter(range(1000))
    clock = SimpleNamespace(monotonic=lambda: float(next(times)))
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "wait", lambda *arguments: True)
    with unwilling(1, *[1, BlockingIOError()] * 30) as (transport, peer, _):
        assert transport.send(b"x" * 50, None, 5.0) > 30
        assert (TEXT, b"x" * 50) == peer.frame()
    with (
        unwilling(1, *[1, BlockingIOError()] * 30) as (transport, _, _),
        pytest.raises(Unsent),
    ):
        transport.send(b"x" * 50, next(times) + 20.0, 5.0)


def test_a_frame_that_another_thread_sent_before_the_close(monkeypatch):
    """Who waited for it is told that it is out, not that the connection is closed."""

    def wait_meanwhile(*arguments):
        assert transport.flush()
        transport.close()

    with unwilling(1, BlockingIOError()) as (transport, peer, _):
        monkeypatch.setattr(module, "wait", wait_meanwhile)
        assert transport.send(b"x") > 0
        assert [(TEXT, b"x"), CLOSE] == [peer.frame(), peer.frame()[0]]


def test_who_sends_for_others_is_asked_for_once():
    """`on_rest` is called when something is left, and not again until it is out."""
    with unwilling(1, *[BlockingIOError()] * 3) as (transport, peer, asked):
        transport.post(b"a")
        transport.post(b"b")
        assert not transport.flush()
        transport.post(b"c")
        assert [1] == asked
        assert transport.flush()
        assert [b"a", b"b", b"c"] == [peer.frame()[1] for _ in range(3)]
        transport._sock.behaviour = [BlockingIOError()]
        transport.post(b"d")
        assert [1, 1] == asked


def test_nobody_is_held_up_by_a_long_outbox(monkeypatch):
    """Sending for others ends after some offers, also where the socket takes all."""
    monkeypatch.setattr(module, "OFFERS", 3)
    with unwilling(BlockingIOError()) as (transport, peer, _):
        with transport._sending:
            for letter in b"abcde":
                part = module.frame_of(TEXT, bytes([letter]))
                rest = module._Rest(memoryview(part), is_begun=False)
                transport._outbox.append(rest)
        transport._sock.behaviour.clear()
        assert not transport.flush()
        assert transport.flush()
        assert list(b"abcde") == [peer.frame()[1][0] for _ in range(5)]


@pytest.mark.slow
def test_a_server_that_takes_nothing_is_given_up(monkeypatch):
    """A send without any progress ends at the limit, and with it the connection."""
    monkeypatch.setattr(module, "SEND_STALL", 0.3)
    monkeypatch.setattr(module, "SLICE", 0.05)
    with stuck() as (transport, _, sending):
        assert "the server read nothing for 0.3 s" == str(sending.exception(PATIENCE))
        with pytest.raises(TransportEnded, match=r"the server read nothing for 0\.3 s"):
            transport.read()


@pytest.mark.slow
def test_a_silent_server_that_takes_nothing_is_given_up_sooner(monkeypatch):
    """No ping goes out in mid-frame: there silence is death, and words are life."""
    monkeypatch.setattr(module, "SEND_SILENT", 0.3)
    monkeypatch.setattr(module, "SLICE", 0.05)
    with stuck() as (transport, peer, sending):
        peer.send(frame(TEXT, b"still here"))
        assert [b"still here"] == transport.read()
        heard = transport.heard

        assert "no sign of life for 0.3 s" == str(sending.exception(PATIENCE))
        assert time.monotonic() - heard > 0.3


@pytest.mark.skipif(
    not hasattr(signal, "pthread_kill"), reason="this system can't signal a thread"
)
def test_ctrl_c_while_waiting_harms_nobody(monkeypatch):
    """Ctrl-C while a frame is half out comes out, and the rest follows later."""
    with connected(small=True) as (transport, peer):
        transport._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        here = threading.get_ident()
        waits = threading.Event()

        def interrupt():
            assert waits.wait(PATIENCE)
            signal.pthread_kill(here, signal.SIGINT)

        def waiting(sock, event, limit=None):
            waits.set()
            return wait(sock, event, PATIENCE)

        with monkeypatch.context() as patch, beside(interrupt):
            patch.setattr(module, "wait", waiting)
            with pytest.raises(KeyboardInterrupt):
                transport.send(LARGE)
        with beside(transport.send, b"more") as sending:
            assert (TEXT, LARGE) == peer.frame()
            assert (TEXT, b"more") == peer.frame()
            assert sending.result(PATIENCE)


def test_ctrl_c_in_the_middle_of_a_send_closes():
    """Nobody knows then what of the frame is out, so nothing can follow it."""
    for behaviour in ([KeyboardInterrupt()], [3, KeyboardInterrupt()]):
        with unwilling(*behaviour) as (transport, peer, _):
            with pytest.raises(KeyboardInterrupt):
                transport.send(b"x")
            with pytest.raises(TransportEnded, match="the connection is closed"):
                transport.send(b"more")
            if len(behaviour) == 1:  # nothing of it is out
                with pytest.raises((EOFError, ConnectionError)):
                    peer.frame()


def test_a_broken_socket():
    """Whoever sends hears why, and so does who reads."""
    with unwilling(OSError(errno.EPIPE, "")) as (transport, _, _):
        with pytest.raises(TransportEnded, match="EPIPE"):
            transport.ping()
        with pytest.raises(TransportEnded, match="EPIPE"):
            transport.read()
    with unwilling(3, BlockingIOError(), OSError(errno.EPIPE, "")) as (transport, _, _):
        transport.post(b"x")
        assert not transport.flush()
        with pytest.raises(TransportEnded, match="EPIPE"):
            transport.flush()
        with pytest.raises(TransportEnded, match="the connection is closed"):
            transport.flush()


def test_half_a_ping_is_followed_by_its_rest():
    """A ping that did not go out whole does not count, and comes nevertheless."""
    with unwilling(3) as (transport, peer, _):
        assert not transport.ping()
        assert not transport.ping()  # something is still to be sent
        transport.post(b"x")
        assert (PING, b"") == peer.frame()
        assert (TEXT, b"x") == peer.frame()
        assert transport.ping()
        assert (PING, b"") == peer.frame()


def test_no_farewell_into_the_middle_of_a_frame():
    """A close frame would complete half a frame with rubbish."""
    with unwilling(3) as (transport, peer, _):
        transport.post(b"xyz")
        transport.close()
        assert 3 == len(peer.exactly(3))
        with pytest.raises((EOFError, ConnectionError)):
            peer.exactly(1)
    with connected() as (transport, peer):
        transport.close()
        assert CLOSE == peer.frame()[0]


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """A certificate and a server's TLS context."""
    return tls_files.make(tmp_path_factory.mktemp("tls"))


def test_what_tls_did_not_take_comes_first(tls):
    """Once offered, a record can't be withdrawn: the same bytes must come again."""
    with secured(tls) as (transport, peer):
        transport.ready(lambda data: None)
        real, offered = transport._sock, []

        class Full:
            behaviour = [ssl.SSLWantWriteError()] * 3

            def send(self, data):
                offered.append(bytes(data))
                if self.behaviour:
                    raise self.behaviour.pop()
                return real.send(data)

        transport._sock = Full()
        with pytest.raises(Unsent) as caught:
            transport.send(b"x" * 20_000, time.monotonic())
        assert caught.value.is_begun
        assert not transport.ping()
        assert not transport.flush()
        transport._sock.behaviour.clear()
        transport.post(b"next")

        assert [b"x" * 20_000, b"next"] == [peer.frame()[1] for _ in range(2)]
        assert 1 == len(set(offered[:4]))
        assert module.TLS_RECORD == len(offered[0])
        transport._sock = real


def test_tls_before_it_is_shared(tls):
    """One thread has the socket for itself until the connection is ready."""
    with secured(tls) as (transport, peer):
        assert 0.0 == transport.send(b"auth")
        assert (TEXT, b"auth") == peer.frame()


def test_forsaken_halves():
    """After a fork nothing of the parent's is sent, and no lock of it is needed."""

    class Half(Sender):
        heard = 0.0

        def close(self):
            pass

    one, other = socket.socketpair()
    with other, one.dup():
        half = Half(one, str)
        with half._sending:
            half._outbox.append(module._Rest(memoryview(b"x"), is_begun=True))
            half.forsake()
        assert (-1, 0) == (one.fileno(), len(half._outbox))
        with pytest.raises(TransportEnded):
            half.send(b"x")


def test_a_file_that_is_freed_while_it_is_waited_for(monkeypatch):
    """Waiting for it may fail in any way then; who waits looks why."""
    answers = [ValueError("no file"), OSError(errno.EBADF, "")]

    def fail(*arguments):
        if answers:
            raise answers.pop()
        transport.close()

    with unwilling(1, *[BlockingIOError()] * 9) as (transport, _, _):
        monkeypatch.setattr(module, "wait", fail)
        with pytest.raises(TransportEnded, match="the connection is closed"):
            transport.send(b"x")


def test_waiting_has_a_limit():
    """A socket without news is not ready in time."""
    one, other = socket.socketpair()
    with one, other:
        assert not wait(one, 1, 0.01)
        other.send(b"x")
        assert wait(one, 1, PATIENCE)
