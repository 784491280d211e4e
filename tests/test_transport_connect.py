"""A transport connects to whom it was told, and says what kept it from that."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import time

import pytest
import websocket

import tls_files
from lmstudio import transport as module
from lmstudio.address import Address
from lmstudio.dial import NotReached
from lmstudio.sender import TransportEnded
from lmstudio.transport import Transport, explain, failure_kind
from raw_server import PATIENCE, TEXT, RawServer, frame, http_server, open_files
from transports import beside, connected

PLAIN = Address("127.0.0.1", 9)
PUBLIC = Address("lms.example.com", 9)


def failed(first, second):
    """What `dial` raises when both addresses of a host fail, in these ways."""
    ways = [OSError(number, os.strerror(number)) for number in (first, second)]
    return NotReached([("IPv6 ::1", ways[0]), ("IPv4 127.0.0.1", ways[1])])


@pytest.mark.parametrize(
    ("exc", "kind", "words"),
    [
        (
            failed(errno.ECONNREFUSED, errno.ECONNREFUSED),
            "refused",
            "the connection was refused at IPv6 ::1 and IPv4 127.0.0.1",
        ),
        (
            failed(errno.EADDRNOTAVAIL, errno.ECONNREFUSED),
            "refused",
            "the connection was refused at IPv4 127.0.0.1; Cannot assign requested"
            " address (EADDRNOTAVAIL) at IPv6 ::1",
        ),
        (
            failed(errno.ENETUNREACH, errno.ETIMEDOUT),
            "timeout",
            "no answer in time at IPv4 127.0.0.1; Network is unreachable"
            " (ENETUNREACH) at IPv6 ::1",
        ),
        (
            failed(errno.EHOSTUNREACH, errno.EMFILE),
            "resources",
            f"{os.strerror(errno.EMFILE)} (EMFILE) at IPv4 127.0.0.1;"
            f" {os.strerror(errno.EHOSTUNREACH)} (EHOSTUNREACH) at IPv6 ::1",
        ),
        (
            OSError(errno.ENOBUFS, "x"),
            "resources",
            f"{os.strerror(errno.ENOBUFS)} (ENOBUFS)",
        ),
    ],
)
def test_failures_of_addresses(exc, kind, words):
    """Each address is named, the one with the most telling failure first."""
    words = words.replace(
        "Cannot assign requested address", os.strerror(errno.EADDRNOTAVAIL)
    ).replace("Network is unreachable", os.strerror(errno.ENETUNREACH))
    assert (kind, words) == (failure_kind(exc, PLAIN), explain(exc))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status):
    """Credentials go to nobody but the server that was named."""
    with RawServer("") as other:
        there = f"ws://{other.host}/llm"
        answer = f"HTTP/1.1 {status} Moved\r\nLocation: {there}\r\n\r\n"
        with (
            http_server(answer.encode()) as port,
            pytest.raises(websocket.WebSocketBadStatusException) as caught,
        ):
            Transport.connect(Address("127.0.0.1", port), "llm", PATIENCE)
        assert 0 == other.accepted
    assert "status" == failure_kind(caught.value, PLAIN)
    assert (
        f"it redirects to {there!r} (HTTP status {status}), which is not followed"
    ) == explain(caught.value)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 302 Moved\r\n\r\n", "it redirects to None (HTTP status 302), "),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "it answers with HTTP status 404"),
        (b"HTTP/1.1 101 Yes\r\n\r\n", "websocket error: Invalid WebSocket Header"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "websocket error: "),
    ],
)
def test_a_handshake_that_fails_leaves_no_socket(answer, words):
    """Whatever answers in place of a websocket, the socket is closed."""
    with http_server(answer) as port:
        files = open_files()
        with pytest.raises(websocket.WebSocketException) as caught:
            Transport.connect(Address("127.0.0.1", port), "llm", PATIENCE)
    assert explain(caught.value).startswith(words)
    assert files >= open_files()


@pytest.mark.parametrize("variable", ["http://proxy:wrong", "http://proxy:99999"])
def test_a_proxy_variable_that_is_wrong(monkeypatch, variable):
    """The variable is blamed, not the server."""
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", variable)
    with pytest.raises(websocket.WebSocketProxyException) as caught:
        Transport.connect(PUBLIC, "llm", PATIENCE)
    assert "proxy" == failure_kind(caught.value, PUBLIC)
    assert explain(caught.value).startswith("websocket error: wrong proxy variable: ")


def test_a_name_with_both_families(monkeypatch):
    """Where IPv6 can't be used, the websocket is that of the second address."""
    real = socket.getaddrinfo

    def getaddrinfo(host, port, *rest):
        return [one for ip in ("::1", "127.0.0.1") for one in real(ip, port, *rest)]

    class NoSix(socket.socket):
        def connect(self, where):
            if ":" in where[0]:
                raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
            super().connect(where)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with RawServer("upgrade") as server:
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socket", NoSix)
            transport = Transport.connect(
                Address("localhost", server.port), "llm", PATIENCE
            )
        transport.send(b"x")
        assert b"x" == server.peer().frame()[1]
        transport.dispose()


def test_tls_behind_a_proxy_is_checked_too(tmp_path, monkeypatch):
    """A certificate for another host is refused, whoever made the connection."""
    certificate, context = tls_files.make(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with RawServer("") as proxy:
        monkeypatch.setenv("https_proxy", f"http://{proxy.host}")
        host = Address("lms.example.com", 443, tls=True)
        with beside(Transport.connect, host, "llm", PATIENCE) as connecting:
            peer = proxy.peer()
            while not peer.request.endswith(b"\r\n\r\n"):
                peer.request += peer.exactly(1)
            peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
            with pytest.raises(OSError):
                context.wrap_socket(peer.socket, server_side=True)
            exc = connecting.exception(PATIENCE)
    assert peer.request.startswith(b"CONNECT lms.example.com:443 HTTP/1.1\r\n")
    assert "tls" == failure_kind(exc, host)
    assert "lms.example.com" in explain(exc)


@pytest.mark.slow
@pytest.mark.parametrize("steps", ["", "upgrade"], ids=["handshake", "credentials"])
def test_a_server_that_drips_does_not_stop_the_clock(steps):
    """The time limit is for connecting as a whole, not for each byte that comes."""
    data = frame(TEXT, b"x" * 100)
    if not steps:
        data = b"HTTP/1.1 101 Switching\r\n" + b"X-A: b\r\n" * 1000
    gone = threading.Event()

    def drip(server):
        peer = server.peer()
        for start in range(len(data)):
            peer.send(data[start : start + 1])
            if gone.wait(0.02):
                break

    with RawServer(steps) as server, beside(drip, server) as dripping:
        address, began = Address("127.0.0.1", server.port), time.monotonic()
        try:
            with pytest.raises((TransportEnded, websocket.WebSocketException)) as late:
                transport = Transport.connect(address, "llm", 0.3)
                with contextlib.closing(transport):
                    transport.read()
            took = time.monotonic() - began
        finally:
            gone.set()
        if steps:
            transport.dispose()
            assert "no answer in time" == str(late.value)
        else:
            assert "no answer in time" == explain(late.value)
        assert isinstance(dripping.exception(PATIENCE), (OSError, type(None)))
    assert 0.3 <= took < PATIENCE


@pytest.mark.parametrize("size", [300, 70_000])
def test_in_the_middle_of_a_frame(size):
    """A transport knows that more must come: of any length, and behind whole frames."""
    data = frame(TEXT, b"x" * size)
    with connected() as (transport, peer):
        peer.send(frame(TEXT, b"1"))
        assert [b"1"] == transport.read()
        assert not transport.is_mid_frame
        with beside(transport.read) as reading:
            for start in (0, 100):
                heard = transport.heard
                peer.send(data[start : start + 100])
                until = time.monotonic() + PATIENCE
                while heard == transport.heard:
                    assert time.monotonic() < until
                assert transport.is_mid_frame
            peer.send(data[200:])
            assert [b"x" * size] == reading.result(PATIENCE)
        assert not transport.is_mid_frame


def test_a_limit_that_is_over():
    """Nothing is read once the time for connecting is over, even what is there."""
    now = time.monotonic()
    assert 4.0 < module._before(now + PATIENCE) <= PATIENCE
    one, other = socket.socketpair()
    with one, other:
        other.send(b"here")
        with pytest.raises(TimeoutError):
            module._Timed(one, now - 1.0).recv(4)
        assert b"here" == module._Timed(one, now + PATIENCE).recv(4)
