"""Whatever keeps a client from connecting, the error says what it is and what helps."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

import tls_files
from lmstudio import session as module
from lmstudio.address import Address
from lmstudio.calls import call
from lmstudio.errors import LMStudioAuthenticationError, LMStudioConnectionError
from lmstudio.session import Session
from raw_server import PATIENCE, RawServer, free_port, http_server


def session_to(host):
    return Session(Address.parse(host), "me", "secret")


def failure(session):
    """The error of a session's first call."""
    with pytest.raises(LMStudioConnectionError) as caught:
        call(session, "system", "version")
    session.close()
    return caught.value


def test_refused():
    """Nobody listens: the error names the address and how to start a server."""
    port = free_port()
    error = failure(session_to(f"localhost:{port}"))

    assert (
        f"no LM Studio server at ws://localhost:{port}: the connection was refused."
        " Start one with `lms server start` (`pip install 'lmstudio[server]'` brings"
        " it), or start LM Studio"
    ) == str(error)
    assert ("refused", f"ws://localhost:{port}") == (error.problem, error.address)
    assert isinstance(error.__cause__, ConnectionRefusedError)


def test_timed_out(monkeypatch):
    """Somebody accepts and says nothing."""
    monkeypatch.setattr(module, "CONNECT_TIME", 0.1)
    with RawServer("") as server:
        error = failure(session_to(server.host))
    assert "timeout" == error.problem
    assert f"no LM Studio server at ws://{server.host}: no answer in time. Check" in (
        str(error)
    )


def test_unknown_name():
    """A host that nobody knows."""
    error = failure(session_to("no-such-host.invalid"))
    assert "name" == error.problem
    assert (
        "no LM Studio server at ws://no-such-host.invalid:1234: the host name is"
        in (str(error))
    )


def test_not_lm_studio():
    """Some other HTTP server."""
    answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    with http_server(answer) as port:
        error = failure(session_to(f"127.0.0.1:{port}"))
    assert "not-lmstudio" == error.problem
    assert (
        f"no LM Studio server at ws://127.0.0.1:{port}: something answers there, but"
        " it is not an LM Studio server (it answers with HTTP status 404). Check the"
        " port."
    ) in str(error)


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-x\r\n\r\n", b"\x15\x03\x01\x00\x02"])
def test_not_http(answer):
    """Some server that does not even speak HTTP."""
    with http_server(answer) as port:
        assert "not-lmstudio" == failure(session_to(f"127.0.0.1:{port}")).problem


def test_redirects_to_nowhere():
    """A redirect without a target is no server of ours either."""
    with http_server(b"HTTP/1.1 302 Found\r\n\r\n") as port:
        assert "not-lmstudio" == failure(session_to(f"127.0.0.1:{port}")).problem


def test_unreachable(monkeypatch):
    """A host without a route to it."""

    def unreachable(*args, **kwargs):
        raise OSError(113, "No route to host")

    monkeypatch.setattr(socket.socket, "connect", unreachable)
    error = failure(session_to("10.0.0.1"))
    assert "unreachable" == error.problem
    assert "the host can't be reached (No route to host (EHOSTUNREACH)). Check" in (
        str(error)
    )


def test_tls(tmp_path, monkeypatch):
    """A trusted certificate works; another fails, and so does TLS to plain HTTP."""
    certificate, context = tls_files.make(tmp_path)
    with RawServer(context=context) as server:
        address = f"https://localhost:{server.port}"
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        session = session_to(address)
        session.connection("llm")
        session.close()
        monkeypatch.delenv("SSL_CERT_FILE")
        error = failure(session_to(address))
    assert "tls" == error.problem
    assert (
        f"no LM Studio server at wss://localhost:{server.port}: TLS failed (TLS:"
        in (str(error))
    )
    with http_server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        assert "tls" == failure(session_to(f"wss://127.0.0.1:{port}")).problem


def test_credentials_refused():
    """The server's own words, and no advice about addresses."""
    with RawServer("upgrade") as server, ThreadPoolExecutor(1) as pool:

        def refuse():
            peer = server.peer()
            peer.json()
            peer.text({"success": False, "error": "Invalid token"})

        refusing = pool.submit(refuse)
        session = session_to(server.host)
        with pytest.raises(LMStudioAuthenticationError, match="Invalid token"):
            call(session, "system", "version")
        refusing.result(PATIENCE)
        session.close()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_proxies_are_not_for_this_machine(monkeypatch, host):
    """With proxy variables set, this machine is reached without the proxy."""
    dead = f"http://127.0.0.1:{free_port()}"
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, dead)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if ":" in host and not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        server = RawServer(family=family)
    except OSError as exc:
        pytest.skip(f"this machine has no {host}: {exc}")
    with server:
        session = session_to(f"{host}:{server.port}")
        assert session.connection("llm").is_usable
        assert f"Host: {host}:{server.port}".encode() in server.peer().request
        session.close()


def test_proxies_are_used_for_others(monkeypatch):
    """A public host goes through the proxy, unless NO_PROXY names it."""
    with http_server(b"HTTP/1.1 503 Busy\r\n\r\n") as port:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        monkeypatch.delenv("no_proxy", raising=False)
        error = failure(session_to("lms.invalid.example.com"))
        assert "proxy" == error.problem
        assert "the proxy did not make the connection" in str(error)
        monkeypatch.setenv("NO_PROXY", "lms.invalid")
        assert "name" == failure(session_to("lms.invalid")).problem
    error = failure(session_to("lms.invalid.example.com"))  # the proxy is gone
    assert "proxy" == error.problem
