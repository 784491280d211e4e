"""Connects to a host, by whichever of its addresses answers first."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time
from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl

#: Seconds that an address has for itself before the next one is tried beside it: what
#: RFC 8305 recommends. An address that fails gives way at once.
HEAD_START = 0.25
#: What a process that has too much open already gets from the system.
RESOURCES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
# select() knows 1024 files only, and epoll would take a file for each wait.
Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)

_NAMES: dict[int, str] = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6"}
# Answers of the host tell more than what this machine makes of an address: it may have
# no IPv6 at all.
_LITTLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL)
# Messages are small and wanted at once; and a router between us must not forget
# connections on which little happens. What a system does not know is left out.
_OPTIONS = [
    (level, getattr(socket, name), value)
    for level, name, value in (
        (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 30),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 10),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
    )
    if hasattr(socket, name)
]

#: Family and address, as `socket` has them.
Place = tuple[int, Any]


class NotReached(OSError):
    """None of several addresses of a host took the connection.

    Attributes:
        failures: What was tried, such as ``"IPv6 ::1"``, and what came of it; the most
            telling one first.
    """

    def __init__(self, failures: Sequence[tuple[str, OSError]]) -> None:
        self.failures = sorted(failures, key=lambda failure: _rank(failure[1]))
        super().__init__(*self.failures[0][1].args)


def dial(host: str, port: int, deadline: float) -> socket.socket:
    """Connect to a host whose name may have several addresses, in both families.

    They are tried in the system's order, with the families taking turns. The next one
    starts when one fails, or has not answered for `HEAD_START` seconds; the first that
    connects is taken, and the others are closed.

    Args:
        deadline: When to give up, by `time.monotonic`.

    Returns:
        A socket with what is left of that time as its time limit.

    Raises:
        NotReached: None of several addresses took the connection.
        OSError: The only one did not, or the name is unknown (`socket.gaierror`).
        UnicodeError: It can't be a name.
    """
    found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    with Selector() as selector:
        try:
            sock = _first(selector, _in_turns(found), deadline)
        finally:
            for key in list(selector.get_map().values()):
                key.fileobj.close()
    sock.settimeout(left(deadline))
    return sock


def secured(sock: socket.socket, host: str, deadline: float) -> socket.socket:
    """Begin TLS on a socket. If that fails, the socket is closed.

    Raises:
        OSError: The handshake failed (`ssl.SSLError`), or took too long.
    """
    try:
        sock.settimeout(left(deadline))
        return trusting().wrap_socket(sock, server_hostname=host)
    except BaseException:
        sock.close()
        raise


def trusting() -> ssl.SSLContext:
    """A TLS context that believes what this system, or ``SSL_CERT_FILE``, trusts.

    Not `ssl.create_default_context`, which from Python 3.13 on refuses many of the
    certificates that people make for machines of their own.
    """
    import ssl  # slow to import, and not always needed

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bundle = os.environ.get("WEBSOCKET_CLIENT_CA_BUNDLE")  # the library's variable
    if bundle and os.path.exists(bundle):
        is_folder = os.path.isdir(bundle)
        context.load_verify_locations(**{"capath" if is_folder else "cafile": bundle})
    else:
        context.load_default_certs()
    keys = os.environ.get("SSLKEYLOGFILE")
    if keys:
        context.keylog_filename = keys
    return context


def left(deadline: float) -> float:
    """Seconds until then, more than none: 0 would mean not to wait."""
    return max(deadline - time.monotonic(), 0.001)


def _in_turns(found: Sequence[tuple[Any, ...]]) -> list[Place]:
    """Each address once, and one of each family after the other."""
    families: dict[int, dict[Any, Place]] = {}
    for family, _, _, _, where in found:
        families.setdefault(family, {})[where] = (family, where)
    turns = zip_longest(*(places.values() for places in families.values()))
    return [place for turn in turns for place in turn if place is not None]


def _first(
    selector: selectors.BaseSelector, places: list[Place], deadline: float
) -> socket.socket:
    """The first socket that connects. Those still at it remain in the selector."""
    failures: list[tuple[str, OSError]] = []
    next_start = 0.0
    while True:
        if places and time.monotonic() >= next_start:
            place = places.pop(0)
            try:
                selector.register(_begun(*place), selectors.EVENT_WRITE, place)
            except OSError as exc:
                failures.append((_shown(place), exc))
                continue
            next_start = time.monotonic() + HEAD_START
        if not selector.get_map() and not places:
            raise _failure(failures)
        until = min(next_start, deadline) if places else deadline
        for key, _ in selector.select(left(until)):
            sock: socket.socket = key.fileobj  # type: ignore[assignment]  # as above
            selector.unregister(sock)
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not number:
                return sock
            sock.close()
            failures.append((_shown(key.data), OSError(number, os.strerror(number))))
            next_start = 0.0
        if time.monotonic() >= deadline:
            late = [_shown(key.data) for key in selector.get_map().values()]
            failures += [(one, TimeoutError("timed out")) for one in late]
            raise _failure(failures)


def _failure(failures: list[tuple[str, OSError]]) -> OSError:
    return NotReached(failures) if len(failures) > 1 else failures[0][1]


def _begun(family: int, where: Any) -> socket.socket:
    """A socket that is connecting."""
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        for option in _OPTIONS:
            sock.setsockopt(*option)
        sock.setblocking(False)
        sock.connect(where)
    except BlockingIOError:
        pass  # it is on its way
    except BaseException:
        sock.close()
        raise
    return sock


def _shown(place: Place) -> str:
    family, where = place
    return f"{_NAMES.get(family, family)} {where[0]}"


def _rank(exc: OSError) -> int:
    """How little a failure tells of why there is no connection."""
    if exc.errno in RESOURCES:
        return 0
    if isinstance(exc, ConnectionRefusedError):
        return 1
    if isinstance(exc, TimeoutError):
        return 2
    if exc.errno in _LITTLE:
        return 4 + _LITTLE.index(exc.errno)
    return 7 if exc.errno == errno.EAFNOSUPPORT else 3
