"""Finds a running server on this machine, and says why one can't be reached."""

from __future__ import annotations

import json
import os
import re
import selectors
import socket
import time
from pathlib import Path

from . import paths, permitted
from .address import Address
from .dial import RESOURCES, Selector, dial, left, secured
from .errors import LMStudioConnectionError
from .wire.ports import DEFAULT_PORT, LOCAL_PORTS

#: Seconds that a probe may take; on some systems closed ports don't refuse.
PROBE_TIME = 0.6
#: Bytes of a greeting that are read at most.
GREETING_SIZE = 65536

START = (
    "Start one with `lms server start` (`pip install 'lmstudio[server]'` brings it),"
    " or start LM Studio"
)


def candidates() -> list[Address]:
    """Local addresses to try, the likeliest first: info file, 1234, the five ports."""
    ports = [port for port in (_port_in_info_file(),) if port]
    return [
        Address("127.0.0.1", port)
        for port in dict.fromkeys((*ports, DEFAULT_PORT, *LOCAL_PORTS))
    ]


def find_local() -> Address:
    """The address of a server on this machine.

    Raises:
        LMStudioConnectionError: None answers; the error names the ports.
        LMStudioRealModelError: A test forbids real servers, and all may be some.
    """
    tried = permitted.permitted(candidates())
    try:
        found = probe(tried)
    except OSError as exc:  # no socket to ask with
        kind = "resources" if exc.errno in RESOURCES else "unreachable"
        error = LMStudioConnectionError(tried[0].url, kind, f"{exc}", "")
        raise diagnosed(error) from exc
    for address in tried:
        if address in found:
            return address
    ports = ", ".join(str(address.port) for address in tried)
    raise LMStudioConnectionError(
        tried[0].url,
        "refused",
        f"nothing on 127.0.0.1 answers as LM Studio (ports tried: {ports})",
        f"{START}, or name the server: LMStudioClient('host:port')",
    )


def _port_in_info_file() -> int | None:
    """The port in ``.internal/http-server.json``: a hint, so any trouble is none."""
    path = os.environ.get("LMS_API_SERVER_INFO_PATH")
    try:
        file = Path(path) if path else paths.internal() / "http-server.json"
        if not file.is_file():  # opening a pipe would wait
            return None
        port = json.loads(file.read_text("utf-8"))["port"]
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return None  # RuntimeError: no home folder, or JSON that is nested too deeply
    return port if type(port) is int and 0 < port < 65536 else None


def probe(
    addresses: list[Address], limit: float = PROBE_TIME
) -> dict[Address, dict[str, object]]:
    """Ask plain HTTP servers for their greeting, all at once, on this thread.

    Args:
        limit: Seconds in all.

    Returns:
        The greetings of those that are LM Studio servers.

    Raises:
        OSError: There are no sockets to ask with.
    """
    found: dict[Address, dict[str, object]] = {}
    deadline = time.monotonic() + limit
    with Selector() as selector:
        try:
            for address in addresses:
                _start_probe(selector, address)
            while selector.get_map() and (left := deadline - time.monotonic()) > 0:
                for key, _ in selector.select(left):
                    greeting = _step(selector, key)
                    if greeting is not None:
                        found[key.data[0]] = greeting
                        if key.data[0] == addresses[0]:
                            return found  # nothing can come before it
        finally:
            for key in list(selector.get_map().values()):
                key.fileobj.close()
    return found


def greet(address: Address, limit: float = 2.0) -> dict[str, object]:
    """The greeting of one server, ``{}`` when it gives none in time.

    Args:
        limit: Seconds in all.

    Raises:
        LMStudioRealModelError: A test forbids real servers, and this may be one.
    """
    permitted.check(address)
    deadline = time.monotonic() + limit
    heard = bytearray()
    try:
        with _connected(address, deadline) as sock:
            sock.sendall(_request(address))
            data = b"?"
            while data and len(heard) < GREETING_SIZE and read_greeting(heard) is None:
                sock.settimeout(left(deadline))
                data = sock.recv(4096)
                heard += data
    except (OSError, ValueError):  # ValueError: a host that can't be a name
        pass
    return read_greeting(heard) or {}


def _connected(address: Address, deadline: float) -> socket.socket:
    sock = dial(address.host, address.port, deadline)
    return secured(sock, address.host, deadline) if address.tls else sock


def _start_probe(selector: selectors.BaseSelector, address: Address) -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.connect_ex((address.host, address.port))
    selector.register(sock, selectors.EVENT_WRITE, (address, bytearray()))


def _step(
    selector: selectors.BaseSelector, key: selectors.SelectorKey
) -> dict[str, object] | None:
    """Go on with one probe; returns the greeting when it is complete."""
    sock: socket.socket = key.fileobj  # type: ignore[assignment]  # we put it there
    address, heard = key.data
    try:
        if key.events == selectors.EVENT_WRITE:
            sock.send(_request(address))
            selector.modify(sock, selectors.EVENT_READ, key.data)
            return None
        data = sock.recv(4096)
        heard += data
        if data and len(heard) < GREETING_SIZE and read_greeting(heard) is None:
            return None
    except OSError:
        pass  # refused, reset: not a server
    selector.unregister(sock)
    sock.close()
    return read_greeting(heard)


def _request(address: Address) -> bytes:
    return (
        f"GET {address.prefix}/lmstudio-greeting HTTP/1.1\r\nHost: {address.netloc}\r\n"
        "Accept: application/json\r\nConnection: close\r\n\r\n"
    ).encode("latin-1", "replace")


def read_greeting(response: bytes | bytearray) -> dict[str, object] | None:
    """The greeting in an HTTP response, None while it is incomplete or another's."""
    head, separator, body = bytes(response).partition(b"\r\n\r\n")
    if not separator or head.split(None, 2)[1:2] != [b"200"]:
        return None
    if re.search(rb"(?im)^transfer-encoding:.*chunked", head):
        body = _without_chunks(body)
    try:
        greeting = json.loads(body)
    except (ValueError, RecursionError):
        return None
    is_ours = isinstance(greeting, dict) and greeting.get("lmstudio") is True
    return greeting if is_ours else None


def _without_chunks(body: bytes) -> bytes:
    """The content of as many chunks as are there."""
    content, rest = b"", body
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        try:
            length = int(size.partition(b";")[0], 16)
        except ValueError:
            break
        if length <= 0:
            break
        content, rest = content + rest[:length], rest[length + 2 :]
    return content


#: Kind of failure -> what happened, and one next step. ``{0}`` is the address.
DIAGNOSES = {
    "refused": ("the connection was refused", START),
    "timeout": (
        "no answer in time",
        "Check the host and the port, and that a firewall lets them through",
    ),
    "name": ("the host name is unknown", "Check its spelling, or use an IP address"),
    "unreachable": (
        "the host can't be reached",
        "Check the address; inside a container the host is often"
        " host.docker.internal, and the server must listen there:"
        " `lms server start --bind 0.0.0.0`",
    ),
    "resources": (
        "this process can't have more open files or threads",
        "Close what it no longer needs (a client has up to one socket and thread for"
        " each namespace until its `close()`), or raise the limits: `ulimit -n` for"
        " files, `ulimit -u` and that of a container for threads",
    ),
    "tls": (
        "TLS failed",
        "Use http:// or ws:// when the server does not speak TLS,"
        " and check its certificate otherwise",
    ),
    "proxy": (
        "the proxy did not make the connection",
        "Name the host in NO_PROXY, or correct the proxy variables",
    ),
    "status": (
        "something answers there, but it is not an LM Studio server",
        f"Check the port. {START}",
    ),
    "not-lmstudio": (
        "something answers there, but it is not an LM Studio server",
        f"Check the port. {START}",
    ),
}


def diagnosed(error: LMStudioConnectionError) -> LMStudioConnectionError:
    """The error of a failed connection, with what helps against it."""
    reason, hint = DIAGNOSES.get(error.problem, (error.reason, START))
    if error.reason.startswith(reason):  # in more detail
        reason = error.reason
    detail = f" ({error.reason})" if error.reason not in reason else ""
    kind = "not-lmstudio" if error.problem == "status" else error.problem
    return LMStudioConnectionError(error.address, kind, reason + detail, hint)
