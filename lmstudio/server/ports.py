"""The server's listening socket, and who has the port when it is taken."""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import socket
from contextlib import suppress
from http import client
from pathlib import Path
from typing import Any

from ..errors import LMStudioOSError
from ..wire.ports import LOCAL_PORTS

_PROC = Path("/proc")
_LISTENING = "0A"  # the state in /proc/net/tcp
_ASKING = 0.5  # how long the holder of a port may take to say what it is, seconds

#: Addresses that stand for all of a machine, and one that reaches it.
_ANY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


class PortUnavailable(LMStudioOSError):
    """The server can't listen where it was told to.

    Attributes:
        host: Where.
        port: The port.
        holder: Who has the port, as far as it can be told; None when it is free.
    """

    def __init__(self, host: str, port: int, problem: str, holder: str | None) -> None:
        self.host = host
        self.port = port
        self.holder = holder
        super().__init__(f"can't serve on {host}:{port}: {problem}")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        port: 0 takes a free one.

    Raises:
        PortUnavailable: The port is taken or reserved, or the host is another machine.
    """
    if not 0 <= port <= 65535:  # the system would take it modulo 65536
        problem = "ports are numbers from 0 to 65535"
        raise PortUnavailable(host, port, problem, None)
    family, address = _resolved(host, port)
    # With the protocol named, asyncio switches Nagle's algorithm off for connections.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere the option lets two servers share a port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(128)
    except OSError as exc:
        sock.close()
        raise _unavailable(host, port, exc) from exc
    sock.setblocking(False)
    return sock


def listen_for_discovery() -> socket.socket | None:
    """A socket on one of the ports where official clients look for a server.

    None when other programs have all of them: then there is a server to be found
    already, or it is not for us to be found.
    """
    for port in LOCAL_PORTS:
        with suppress(PortUnavailable):
            return listen("127.0.0.1", port)
    return None


def bound_address(host: str) -> str:
    """The address that `listen` takes for a host.

    Raises:
        PortUnavailable: There is no such host.
    """
    return str(_resolved(host, 0)[1][0])


def reachable(address: str) -> str:
    """By which address this machine reaches a server that listens at one."""
    return _ANY.get(address, address)


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches a server that listens at an address."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def greets(host: str, port: int, patience: float = _ASKING) -> bool:
    """Whether what listens there says that it is LM Studio.

    Args:
        patience: Seconds for the connection, and for each part of the answer.
    """
    http = client.HTTPConnection(reachable(host), port, timeout=patience)
    try:
        http.request("GET", "/lmstudio-greeting")
        greeting = json.loads(http.getresponse().read(65536))
        return isinstance(greeting, dict) and greeting.get("lmstudio") is True
    except (OSError, ValueError, client.HTTPException):
        return False
    finally:
        http.close()


def _resolved(host: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError) as exc:
        problem = f"there is no such host ({exc})"
        raise PortUnavailable(host, port, problem, None) from exc
    # What most clients try first comes first: localhost is often ::1 as well.
    family, _, _, _, address = sorted(found, key=lambda f: f[0] != socket.AF_INET)[0]
    return family, address


def _unavailable(host: str, port: int, exc: OSError) -> PortUnavailable:
    if exc.errno == errno.EADDRINUSE:
        holder = _holder(host, port)
        problem = f"the port is taken by {holder}. Stop it, or choose another port"
        return PortUnavailable(host, port, problem, holder)
    if exc.errno == errno.EACCES:
        problem = "this port is reserved for the system. Choose one above 1023"
    elif exc.errno == errno.EADDRNOTAVAIL:
        problem = "this machine does not have that address"
    else:
        problem = str(exc)
    return PortUnavailable(host, port, problem, None)


def _holder(host: str, port: int) -> str:
    """Who listens on a port, as far as it can be told."""
    process = _process(port)
    by = f" ({process})" if process else ""
    if greets(host, port):
        return f"an LM Studio server{by}"
    return process or "another program"


def _process(port: int) -> str | None:
    """Name and id of the process that listens on a port, where the system tells."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (_PROC / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                ours = int(fields[1].rpartition(":")[2], 16) == port
                if ours and fields[3] == _LISTENING:
                    inodes.add(f"socket:[{fields[9]}]")
    for process in _PROC.glob("[0-9]*") if inodes else ():
        with suppress(OSError):  # it has ended, or is another user's
            for link in (process / "fd").iterdir():
                with suppress(OSError):
                    if os.readlink(link) in inodes:
                        name = (process / "comm").read_text().strip()
                        return f"{name}, process {process.name}"
    return None
