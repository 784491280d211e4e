"""Frames go in and out whole, whatever happens to the socket in between."""

from __future__ import annotations

import errno
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import websocket

import tls_files
from lmstudio import sender
from lmstudio.address import Address
from lmstudio.transport import (
    Transport,
    TransportEnded,
    _WebSocket,
    explain,
    failure_kind,
)
from raw_server import (
    BINARY,
    CLOSE,
    PATIENCE,
    PING,
    PONG,
    TEXT,
    RawServer,
    frame,
    free_port,
    open_files,
)
from transports import beside, connected, secured, stuck

MASK = b"\x01\x02\x03\x04"
PLAIN = Address("127.0.0.1", 9)
PUBLIC = Address("lms.example.com", 9)


def test_what_one_read_brings_comes_at_once():
    """Messages that arrive together are read together, an odd one on its own."""
    with connected() as (transport, peer):
        peer.send(frame(TEXT, b"1") + frame(TEXT, b"2") + frame(TEXT, b"3" * 70000))

        assert [b"1", b"2"] == transport.read()
        assert [b"3" * 70000] == transport.read()
        assert transport.heard > 0


def test_a_header_in_two_reads():
    """The length of a frame may come later than its first byte."""
    with connected() as (transport, peer):
        data = frame(TEXT, b"x" * 300)
        transport._ws._buffer = data[:3]
        peer.send(data[3:])
        assert [b"x" * 300] == transport.read()


def test_no_origin_is_sent():
    """Servers take who sends an Origin for a browser."""
    with connected() as (_, peer):
        assert b"origin:" not in peer.request.lower()
        assert peer.request.startswith(b"GET /llm HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frame(BINARY, b"x"), "the server sent a binary frame"),
        (frame(CLOSE), "the server closed the connection (code 1005)"),
        (
            frame(CLOSE, (1009).to_bytes(2, "big") + b"too big"),
            "the server closed the connection (code 1009, 'too big')",
        ),
        (b"\xc1\x01x", "websocket error: rsv is not implemented, yet"),
        (b"\x83\x00", "websocket error: "),
        (frame(0x09, b"x"), "websocket error: Invalid ping frame."),
        (frame(PING, b"x" * 126), "websocket error: Ping message is too long"),
        (frame(TEXT, b"x" * 300)[:50], "the server ended the connection"),
        (frame(0x01, b"half a message"), "the server ended the connection"),
        (b"\x81\x7f\x00\x00", "the server ended the connection"),
        (b"", "the server ended the connection"),
    ],
)
def test_the_end_says_why(data, reason):
    """A frame that ends the connection is named; so is the end in mid-frame."""
    with connected() as (transport, peer):
        peer.send(data)
        peer.close()

        with pytest.raises(TransportEnded) as caught:
            transport.read()
    assert str(caught.value).startswith(reason)


def test_reset():
    """A connection that the server resets ends with these words."""
    with connected() as (transport, peer):
        peer.reset()
        with pytest.raises(TransportEnded, match="the server reset the connection"):
            transport.read()


def test_a_handshake_waits_no_longer_than_its_limit():
    """Until `ready`, reading has a time limit."""
    with RawServer("upgrade") as server:
        address = Address("127.0.0.1", server.port)
        transport = Transport.connect(address, "llm", 0.05)
        with pytest.raises(TransportEnded, match="no answer in time") as caught:
            transport.read()
        transport.dispose()
    assert isinstance(caught.value.__cause__, TimeoutError)


def test_pings_are_handed_out_and_answered_from_elsewhere():
    """A ping reaches the callback, in fragments too; the reader sends nothing."""
    with connected() as (transport, peer):
        pings = []
        transport.ready(pings.append)
        peer.send(frame(0x01, b"a") + frame(PING, b"now") + frame(0x80, b"b"))

        assert [b"ab"] == transport.read()
        assert [b"now"] == pings
        transport.pong(b"now")
        assert transport.ping()
        assert (PONG, b"now") == peer.frame()
        assert (PING, b"") == peer.frame()


def test_text_pongs_of_the_library_are_bytes():
    """The library may call `pong` with text."""
    pings = []
    ws = _WebSocket()
    ws.on_ping(b"nobody listens yet")
    ws.on_ping = pings.append
    ws.pong("text")
    assert [b"text"] == pings


def test_close_says_goodbye_once():
    """Closing sends one close frame, wakes the reader, and may be repeated."""
    with connected() as (transport, peer):
        with beside(transport.read) as reading:
            transport.close()
            transport.close()
        assert "the client was closed" == str(reading.exception())
        assert (CLOSE, (1000).to_bytes(2, "big")) == peer.frame()
        assert peer.closed()
        with pytest.raises(TransportEnded, match="the connection is closed"):
            transport.send(b"late")
        for late in (transport.ping, lambda: transport.pong(b""), transport.flush):
            with pytest.raises(TransportEnded, match="the connection is closed"):
                late()


def test_close_from_many_threads():
    """Any number of threads may close while another reads."""
    with connected() as (transport, _):
        barrier = threading.Barrier(8)

        def close():
            barrier.wait(PATIENCE)
            transport.close()

        with ThreadPoolExecutor(9) as pool:
            reading = pool.submit(transport.read)
            for closing in [pool.submit(close) for _ in range(8)]:
                closing.result(PATIENCE)
            assert isinstance(reading.exception(PATIENCE), TransportEnded)


def test_close_after_the_server_did():
    """Closing what the server has ended already is nothing special."""
    with connected() as (transport, peer):
        peer.reset()
        with pytest.raises(TransportEnded):
            transport.read()
        with pytest.raises(TransportEnded, match="EPIPE"):
            transport.send(b"x")
        transport.close()


def test_file_descriptors_are_freed():
    """Nothing stays open after `dispose`, however the connection ended."""
    with RawServer("upgrade") as server:
        before = open_files()
        for _ in range(5):
            transport = Transport.connect(
                Address("127.0.0.1", server.port), "llm", PATIENCE
            )
            peer = server.peer()
            transport.dispose()
            transport.dispose()
            peer.close()
        assert before == open_files()


def test_dispose_waits_for_a_sender():
    """The file descriptor is not freed under the hands of a thread that sends."""
    with stuck() as (transport, _, sending):
        transport.dispose()
        assert isinstance(sending.exception(PATIENCE), TransportEnded)
        assert -1 == transport._sock.fileno()


def test_forsaken_sockets_go_silently():
    """Freeing a copy after a fork sends nothing and needs no lock."""
    with connected() as (transport, peer), transport._sock.dup() as parents:
        with transport._sending, transport._ending:
            transport.forsake()
        with pytest.raises(TransportEnded):
            transport.send(b"x")
        parents.sendall(frame(TEXT, b"of the parent", MASK))

        assert (TEXT, b"of the parent") == peer.frame()


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """A certificate and a server's TLS context."""
    return tls_files.make(tmp_path_factory.mktemp("tls"))


def test_tls_before_and_after_ready(tls):
    """Frames pass a TLS socket in the handshake and when threads share it."""
    with secured(tls) as (transport, peer):
        transport.send(b"auth")
        peer.send(frame(TEXT, b"welcome"))
        assert [b"welcome"] == transport.read()

        transport.ready(lambda data: None)
        with beside(transport.read) as reading:
            transport.send(b"x" * 100_000)
            assert transport.ping()
            assert [b"auth", b"x" * 100_000, b""] == [peer.frame()[1] for _ in range(3)]
            peer.send(frame(TEXT, b"hello"))
            assert [b"hello"] == reading.result(PATIENCE)
        with beside(transport.read) as reading:
            transport.close()
            assert isinstance(reading.exception(PATIENCE), TransportEnded)


@pytest.mark.slow
def test_tls_reads_and_writes_at_once(tls):
    """Megabytes both ways at the same time arrive as they were sent."""
    count, size = 300, 20_000
    with secured(tls) as (transport, peer):
        transport.ready(lambda data: None)

        def echo():
            for _ in range(count * 2):
                peer.send(frame(TEXT, peer.frame()[1]))

        def send(letter):
            for _ in range(count):
                transport.send(letter * size)

        def read():
            got = []
            while len(got) < count * 2:
                got += transport.read()
            return got

        with ThreadPoolExecutor(4) as pool:
            working = [
                pool.submit(echo),
                pool.submit(send, b"a"),
                pool.submit(send, b"b"),
            ]
            got = pool.submit(read).result(60)
            for work in working:
                work.result(PATIENCE)
    assert {b"a" * size: count, b"b" * size: count} == {g: got.count(g) for g in got}


def test_a_stalled_tls_server(tls):
    """A send that waits holds up neither reading nor closing, over TLS either."""
    with secured(tls, small=True) as (transport, peer):
        transport._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        transport.ready(lambda data: None)
        waits = threading.Event()

        def wait(sock, event, limit=None, wait=sender.wait):
            if limit:
                waits.set()
            return wait(sock, event, limit)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sender, "wait", wait)
            with beside(transport.send, b"x" * 2_000_000) as sending:
                assert waits.wait(PATIENCE)
                peer.send(frame(TEXT, b"still here"))
                assert [b"still here"] == transport.read()
                transport.close()
                assert isinstance(sending.exception(PATIENCE), TransportEnded)


class WantsToWrite:
    """A TLS socket that must write before it reads."""

    def __init__(self, sock):
        self._sock, self.asked = sock, False

    def recv(self, size):
        if not self.asked:
            self.asked = True
            raise ssl.SSLWantWriteError
        return self._sock.recv(size)

    def fileno(self):
        return self._sock.fileno()


def test_tls_that_must_write_to_read(tls):
    """Reading waits for room to write when TLS asks for it."""
    with secured(tls) as (transport, peer):
        transport.ready(lambda data: None)
        peer.send(frame(TEXT, b"x"))
        real = transport._ws.sock
        transport._ws.sock = WantsToWrite(real)
        assert [b"x"] == transport.read()
        transport._ws.sock = real


def test_unknown_certificates_are_refused(tls):
    """Without its certificate among the trusted ones a server is not believed."""
    with RawServer("upgrade", context=tls[1]) as server:
        address = Address("localhost", server.port, tls=True)
        with pytest.raises(ssl.SSLCertVerificationError) as caught:
            Transport.connect(address, "llm", PATIENCE)
        with pytest.raises(OSError):
            server.peer()
    assert "tls" == failure_kind(caught.value, address)
    assert "TLS: self-signed certificate" == explain(caught.value).replace(
        "self signed", "self-signed"
    )


def test_every_exception_of_the_library_is_understood():
    """Each class of the library's errors has words and a kind."""
    kinds = {
        name: failure_kind(kind(*arguments), PLAIN)
        for name, kind in vars(websocket).items()
        if isinstance(kind, type) and issubclass(kind, websocket.WebSocketException)
        for arguments in [("m", 404) if "BadStatus" in name else ("m",)]
    }
    assert {
        "WebSocketAddressException": "name",
        "WebSocketBadStatusException": "status",
        "WebSocketConnectionClosedException": "status",
        "WebSocketException": "status",
        "WebSocketPayloadException": "status",
        "WebSocketProtocolException": "status",
        "WebSocketProxyException": "proxy",
        "WebSocketTimeoutException": "timeout",
    } == kinds


@pytest.mark.parametrize(
    ("exc", "kind", "words"),
    [
        (
            websocket.WebSocketBadStatusException("long text", 404),
            "status",
            "it answers with HTTP status 404",
        ),
        (
            websocket.WebSocketTimeoutException("x"),
            "timeout",
            "no answer in time",
        ),
        (TimeoutError(), "timeout", "no answer in time"),
        (OSError(errno.ETIMEDOUT, "x"), "timeout", "no answer in time"),
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "x"),
            "refused",
            "the connection was refused",
        ),
        (
            ConnectionResetError(errno.ECONNRESET, "x"),
            "status",
            "the server reset the connection",
        ),
        (
            OSError(errno.EHOSTUNREACH, "x"),
            "unreachable",
            "No route to host (EHOSTUNREACH)",
        ),
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            "name",
            "Name or service not known",
        ),
        (UnicodeError("label too long"), "name", "UnicodeError: label too long"),
        (ssl.SSLError(1, "bad"), "tls", "TLS: bad"),
        (KeyError("location"), "status", "KeyError: 'location'"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_failures_have_a_kind_and_words(exc, kind, words):
    """What keeps a connection from being made is told apart, in plain words."""
    assert (kind, words) == (failure_kind(exc, PLAIN), explain(exc))


def test_a_proxy_is_blamed_where_one_is_used(monkeypatch):
    """Behind a proxy it is the proxy that refused; never for this machine."""
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "x")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", ".example.org")

    assert "proxy" == failure_kind(refused, PUBLIC)
    assert "refused" == failure_kind(refused, PLAIN)
    assert "refused" == failure_kind(refused, Address("lms.example.org"))
    with pytest.raises(ConnectionRefusedError):  # by the proxy: no name was looked up
        Transport.connect(PUBLIC, "llm", PATIENCE)
    with connected() as (transport, peer):  # past the proxy
        transport.send(b"x")
        assert (TEXT, b"x") == peer.frame()
