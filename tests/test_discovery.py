"""A server on this machine is found quickly, and a failure says what helps."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import tls_files
from lmstudio import discovery, paths
from lmstudio.address import Address
from lmstudio.discovery import (
    DIAGNOSES,
    candidates,
    diagnosed,
    find_local,
    greet,
    probe,
    read_greeting,
)
from lmstudio.errors import LMStudioConnectionError
from lmstudio.testing import FakeServer
from raw_server import RawServer, free_port, http_server
from timing import quickest

GREETING = b'{"lmstudio": true, "extensions": ["x"]}'
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def local(port):
    return Address("127.0.0.1", port)


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """A home folder of the test's own, and no variables."""
    for name in ("LMSTUDIO_HOME", "LMS_API_SERVER_INFO_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


@pytest.fixture
def ports(monkeypatch):
    """Ports of the test's own in place of the well-known ones; all are closed."""
    made = tuple(free_port() for _ in range(3))
    monkeypatch.setattr(discovery, "DEFAULT_PORT", made[0])
    monkeypatch.setattr(discovery, "LOCAL_PORTS", made[1:])
    return made


def write_info(folder, text):
    file = folder / ".internal" / "http-server.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def ports_of(addresses):
    return [address.port for address in addresses]


def test_the_well_known_ports():
    """Without a hint: 1234, then the application's five, all on loopback."""
    assert [1234, 41343, 52993, 16141, 39414, 22931] == ports_of(candidates())
    assert {"127.0.0.1"} == {address.host for address in candidates()}


def test_the_info_file_comes_first(own_home, monkeypatch):
    """The port of the info file is tried first, and no port twice."""
    write_info(own_home / ".lmstudio", '{"port": 39414, "host": "x"}')
    assert [39414, 1234, 41343, 52993, 16141, 22931] == ports_of(candidates())

    other = write_info(own_home / "other", '{"port": 7}')
    monkeypatch.setenv("LMSTUDIO_HOME", str(own_home / "other"))
    assert 7 == candidates()[0].port

    monkeypatch.setenv("LMSTUDIO_HOME", str(own_home / "nowhere"))
    monkeypatch.setenv("LMS_API_SERVER_INFO_PATH", str(other))
    assert 7 == candidates()[0].port


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe",
        b"no json",
        b"[]",
        b"7",
        b"null",
        b"{}",
        b'"port"',
        b'{"port": null}',
        b'{"port": "1235"}',
        b'{"port": 1235.0}',
        b'{"port": true}',
        b'{"port": 0}',
        b'{"port": -1}',
        b'{"port": 65536}',
        b'{"port": 1e999}',
        b'{"port": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
    ],
    ids=lambda value: repr(value[-30:]),
)
def test_rubbish_in_the_info_file_is_no_hint(own_home, text):
    """Whatever stands in the file, discovery goes on without it."""
    write_info(own_home / ".lmstudio", text)
    assert 1234 == candidates()[0].port


def test_an_info_file_that_is_no_file(own_home, monkeypatch):
    """A folder, a pipe, nothing, or a path that can't be: no hint, no waiting."""
    (own_home / ".lmstudio/.internal/http-server.json").mkdir(parents=True)
    assert 1234 == candidates()[0].port

    names = [str(own_home / "nothing"), "/" + "x" * 5000]
    if hasattr(os, "mkfifo"):
        os.mkfifo(own_home / "pipe")
        names.append(str(own_home / "pipe"))
    for path in names:
        monkeypatch.setenv("LMS_API_SERVER_INFO_PATH", path)
        assert 1234 == candidates()[0].port


def test_no_home_folder(monkeypatch):
    """A user without a home folder has no info file."""

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(paths, "home", no_home)
    assert 1234 == candidates()[0].port


@pytest.mark.parametrize("which", [0, 1, 2])
def test_every_port_is_found(ports, which):
    """A server on any of the ports is found, wherever it is in the list."""
    with FakeServer(port=ports[which]):
        assert local(ports[which]) == find_local()


def test_the_likeliest_server_wins(ports):
    """Of several servers the one that stands first is taken."""
    with FakeServer(port=ports[2]), FakeServer(port=ports[1]):
        assert local(ports[1]) == find_local()


@pytest.mark.slow
def test_silent_ports_hold_up_little(ports):
    """Ports that accept and say nothing are waited for together, 0.6 s in all."""
    silent = [RawServer("", port=port) for port in ports[:2]]
    with silent[0], silent[1], FakeServer(port=ports[2]):

        def once():
            before = time.monotonic()
            assert local(ports[2]) == find_local()
            return time.monotonic() - before

        quickest(1.1, once)


def test_nothing_there(ports):
    """Without a server the error names the ports and says how to start one."""
    with pytest.raises(LMStudioConnectionError) as caught:
        find_local()
    listed = ", ".join(map(str, ports))
    assert (
        f"no LM Studio server at ws://127.0.0.1:{ports[0]}: nothing on 127.0.0.1"
        f" answers as LM Studio (ports tried: {listed})."
        " Start one with `lms server start` (`pip install 'lmstudio[server]'` brings"
        " it), or start LM Studio, or name the server: LMStudioClient('host:port')"
    ) == str(caught.value)
    assert "refused" == caught.value.problem


@pytest.mark.parametrize(
    "answer",
    [
        OK + GREETING,
        OK + b"  " + GREETING + b"\r\n",
        CHUNKED + b"27\r\n" + GREETING + b"\r\n0\r\n\r\n",
        CHUNKED + b"5;x=y\r\n" + GREETING[:5] + b"\r\n22\r\n" + GREETING[5:] + b"\r\n",
    ],
    ids=["plain", "spaces", "one chunk", "two chunks"],
)
def test_greetings(answer):
    """A greeting is understood whole and in chunks, and not before it is whole."""
    assert {"lmstudio": True, "extensions": ["x"]} == read_greeting(answer)
    end = answer.rindex(b"}")
    assert [None] * end == [read_greeting(answer[:size]) for size in range(end)]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"220 ftp ready\r\n",
        b"\r\n\r\n" + GREETING,
        b"HTTP/1.1 404 Not Found\r\n\r\n" + GREETING,
        b"HTTP/1.1 500 200\r\n\r\n" + GREETING,
        OK,
        OK + b"<html>{}</html>",
        OK + b"{}",
        OK + b"[1]",
        OK + b'{"lmstudio": "yes"}',
        OK + b'{"lmstudio": 1}',
        OK + b'{"lmstudio": true',
        OK + b'{"a":' * 50_000,
        OK + b"\xff\xff",
        CHUNKED + b"zz\r\n" + GREETING,
        CHUNKED + b"-5\r\n" + GREETING,
        OK + b"x" * 200_000,
    ],
    ids=lambda value: repr(value[-30:]),
)
def test_other_servers_are_not_taken(answer):
    """What is no greeting makes no server of LM Studio, neither way of asking."""
    assert read_greeting(answer) is None
    with http_server(answer) as port:
        assert {} == probe([local(port)], 1.0)
        assert {} == greet(local(port), 1.0)


def test_a_slow_greeting(ports):
    """A greeting that comes in two pieces is put together, either way."""
    for ask in (lambda a: probe([a], 5.0).get(a, {}), lambda a: greet(a, 5.0)):
        with RawServer("") as server:

            def answer(server=server):
                peer = server.peer()
                while not peer.request.endswith(b"\r\n\r\n"):
                    peer.request += peer.exactly(1)
                peer.send(OK + GREETING[:7])
                peer.send(GREETING[7:])
                return peer.request

            with ThreadPoolExecutor(1) as pool:
                answering = pool.submit(answer)
                assert ["x"] == ask(local(server.port))["extensions"]
                request = answering.result(5.0)
    assert request.startswith(b"GET /lmstudio-greeting HTTP/1.1\r\nHost: 127.0.0.1:")


def test_an_answer_without_end(ports):
    """A server that trickles for ever is left at the limit."""
    with http_server(OK + b"{", hold=True) as port:
        for ask in (lambda a: probe([a], 0.1), lambda a: greet(a, 0.1)):
            before = time.monotonic()
            assert {} == ask(local(port))
            assert 0.1 <= time.monotonic() - before < 3.0  # the server never ends


def test_greet_a_server():
    """The greeting of a fake server; nothing where nobody is."""
    with FakeServer(extensions=("noHup",)) as server:
        assert {"lmstudio": True, "extensions": ["noHup"]} == greet(local(server.port))
    assert {} == greet(local(free_port()))
    assert {} == greet(Address("a..b"), 0.1)


def test_greet_over_tls(tmp_path, monkeypatch):
    """A trusted server is greeted over TLS, another is not."""
    certificate, context = tls_files.make(tmp_path)
    for trusted in (True, False):
        if trusted:
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        else:
            monkeypatch.delenv("SSL_CERT_FILE")
        with RawServer("", context=context) as server:

            def answer(server=server):
                peer = server.peer()
                peer.socket.recv(65536)
                peer.send(OK + GREETING)

            with ThreadPoolExecutor(1) as pool:
                answering = pool.submit(answer)
                greeting = greet(Address("localhost", server.port, tls=True), 5.0)
                assert trusted == bool(greeting)
                assert trusted == (answering.exception(5.0) is None)


def test_probing_stops_at_the_first(monkeypatch):
    """When the likeliest server answers, nobody waits for the others."""
    with FakeServer() as server, RawServer("") as silent:

        def once():
            before = time.monotonic()
            wanted = local(server.port)
            assert [wanted] == list(probe([wanted, local(silent.port)], 5.0))
            return time.monotonic() - before

        quickest(2.0, once)


def test_nothing_to_probe():
    """Without addresses nothing is found."""
    assert {} == probe([])


def test_no_file_descriptors_left(monkeypatch):
    """When sockets run out in the middle, those made before are closed."""
    made = []

    class Few(socket.socket):
        def __init__(self, *args, **kwargs):
            if len(made) == 2:
                raise OSError(24, "Too many open files")
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(socket, "socket", Few)
    with pytest.raises(OSError, match="Too many open files"):
        probe([local(1), local(2), local(3)])
    assert [-1, -1] == [sock.fileno() for sock in made]

    del made[:]
    with pytest.raises(LMStudioConnectionError, match="`ulimit -n` for files") as error:
        find_local()
    assert "resources" == error.value.problem
    assert str(error.value).startswith("no connection to ws://127.0.0.1:")


def test_no_sockets_at_all(monkeypatch):
    """Where the system lets nobody connect, that is what the error says."""

    def refuse(*args):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(LMStudioConnectionError, match="not permitted") as caught:
        find_local()
    assert "unreachable" == caught.value.problem


@pytest.mark.parametrize("kind", DIAGNOSES)
def test_every_kind_of_failure_has_words_and_a_next_step(kind):
    """The message names the address, what happened, the detail, and what helps."""
    raw = LMStudioConnectionError("ws://host:1", kind, "the detail", "")
    error = diagnosed(raw)
    what, hint = DIAGNOSES[kind]

    which = "connection to" if kind == "resources" else "LM Studio server at"
    assert f"no {which} ws://host:1: {what} (the detail). {hint}" == str(error)
    assert hint == error.hint
    assert ("not-lmstudio" if kind == "status" else kind) == error.problem


def test_a_detail_that_says_nothing_new_is_left_out():
    """The reason is not said twice."""
    raw = LMStudioConnectionError(
        "ws://h:1", "refused", "the connection was refused", ""
    )
    assert "the connection was refused" == diagnosed(raw).reason

    more = "the connection was refused at IPv6 ::1 and IPv4 127.0.0.1"
    raw = LMStudioConnectionError("ws://h:1", "refused", more, "")
    assert more == diagnosed(raw).reason


def test_an_unknown_kind_of_failure():
    """A kind without a row keeps its own words."""
    error = diagnosed(LMStudioConnectionError("ws://host:1", "odd", "it fell", ""))
    assert "no LM Studio server at ws://host:1: it fell. Start one" in str(error)


def test_info_file_of_a_server(own_home, ports):
    """A server on a port of its own is found by the info file."""
    with FakeServer() as server:
        write_info(own_home / ".lmstudio", json.dumps({"port": server.port}))
        assert local(server.port) == find_local()
