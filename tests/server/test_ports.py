"""A port that can't be had is an error that says who has it."""

from __future__ import annotations

import errno
import os
import socket
import sys

import pytest

from lmstudio.errors import LMStudioOSError
from lmstudio.server import ports
from lmstudio.server.ports import PortUnavailable, listen
from server.servers import scripted_server


@pytest.fixture
def taken():
    """A socket that listens."""
    with listen("127.0.0.1", 0) as sock:
        yield sock


def port_of(sock):
    return sock.getsockname()[1]


def test_a_free_port(taken):
    """Port 0 is any free one; the socket names its protocol."""
    assert port_of(taken) > 0
    assert (socket.AF_INET, socket.IPPROTO_TCP) == (taken.family, taken.proto)
    assert not taken.getblocking()


def test_localhost_is_the_address_that_clients_try_first():
    """``localhost`` listens on IPv4 where it means both."""
    with listen("localhost", 0) as sock:
        assert "127.0.0.1" == sock.getsockname()[0]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="is found in /proc")
def test_the_process_that_has_the_port_is_named(taken):
    """The error names host, port, and the process."""
    port = port_of(taken)
    with pytest.raises(PortUnavailable) as caught:
        listen("127.0.0.1", port)
    exc = caught.value
    assert isinstance(exc, LMStudioOSError)
    assert ("127.0.0.1", port) == (exc.host, exc.port)
    assert exc.holder.endswith(f", process {os.getpid()}")
    assert (
        f"can't serve on 127.0.0.1:{port}: the port is taken by {exc.holder}."
        " Stop it, or choose another port"
    ) == str(exc)


@pytest.mark.slow
def test_a_process_that_cannot_be_seen(taken, monkeypatch, tmp_path):
    """Where the system does not tell, it is another program."""
    monkeypatch.setattr(ports, "_PROC", tmp_path)
    with pytest.raises(PortUnavailable, match="taken by another program"):
        listen("127.0.0.1", port_of(taken))


def test_a_server_that_has_the_port(monkeypatch, tmp_path):
    """A server of ours is recognised by its greeting."""
    monkeypatch.setattr(ports, "_PROC", tmp_path)
    with scripted_server() as scripted, pytest.raises(PortUnavailable) as caught:
        listen("0.0.0.0", scripted.server.port)
    assert "an LM Studio server" == caught.value.holder


@pytest.mark.parametrize(
    ("host", "port", "problem"),
    [
        ("no such host.invalid", 0, "there is no such host"),
        ("x" * 300, 0, "there is no such host"),
        ("127.0.0.1", 70_000, "ports are numbers from 0 to 65535"),
        ("203.0.113.1", 0, "this machine does not have that address"),
    ],
)
def test_wrong_addresses(host, port, problem):
    """A host that is none, or not this machine, is an error of its own."""
    with pytest.raises(PortUnavailable, match=problem) as caught:
        listen(host, port)
    assert caught.value.holder is None


@pytest.mark.parametrize(
    ("number", "problem"),
    [
        (errno.EACCES, "this port is reserved for the system"),
        (errno.EMFILE, "Too many open files"),
    ],
)
def test_refusals_of_the_system(monkeypatch, number, problem):
    """Whatever else the system says is passed on."""

    def bind(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket.socket, "bind", bind)
    with pytest.raises(PortUnavailable, match=problem):
        listen("127.0.0.1", 80)


@pytest.mark.slow
def test_discovery_takes_the_first_of_its_ports_that_is_free(monkeypatch, taken):
    """Ports of other programs are passed over; without a free one there is none."""
    with listen("127.0.0.1", 0) as sock:
        free = sock.getsockname()[1]
    monkeypatch.setattr(ports, "LOCAL_PORTS", (taken.getsockname()[1], free))
    with ports.listen_for_discovery() as found:
        assert ("127.0.0.1", free) == found.getsockname()
        assert None is ports.listen_for_discovery()
