"""Which servers a client may connect to: all of them, unless tests forbid real ones."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable

from .address import Address
from .errors import LMStudioRealModelError

#: Forbids every server that is not a stand-in. ``1``, ``true``, ``yes`` or ``on``, or
#: addresses (``host:port``, with commas between) that are stand-ins in other processes.
VARIABLE = "LMSTUDIO_FORBID_REAL_MODELS"

_OFF = ("", "0", "false", "no", "off")
_ON = ("1", "true", "yes", "on")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

_state = threading.Lock()  # guards the next two; held for a moment only
_stand_ins: dict[int, int] = {}  # port on this machine -> how many have it
_forbidding = 0


def add_stand_in(port: int) -> None:
    """A fake server or a cassette listens on this loopback port."""
    with _state:
        _stand_ins[port] = _stand_ins.get(port, 0) + 1


def remove_stand_in(port: int) -> None:
    """It has stopped."""
    with _state:
        left = _stand_ins.pop(port) - 1
        if left:
            _stand_ins[port] = left


def forbid() -> None:
    """Refuse real servers until `permit` was called as often."""
    global _forbidding
    with _state:
        _forbidding += 1


def permit() -> None:
    """Take back one `forbid`."""
    global _forbidding
    with _state:
        _forbidding -= 1


def check(address: Address) -> None:
    """Raise unless a connection to this address is allowed.

    Raises:
        LMStudioRealModelError: Real servers are forbidden, and this may be one.
    """
    if not is_permitted(address):
        raise LMStudioRealModelError([address.url])


def permitted(addresses: Iterable[Address]) -> list[Address]:
    """Those of several addresses that are allowed.

    Raises:
        LMStudioRealModelError: None of them is.
    """
    wanted = list(addresses)
    allowed = [address for address in wanted if is_permitted(address)]
    if wanted and not allowed:
        raise LMStudioRealModelError([address.url for address in wanted])
    return allowed


def is_permitted(address: Address) -> bool:
    """Whether a connection to this address is allowed."""
    said = os.environ.get(VARIABLE, "").strip().lower()
    if not _forbidding and said in _OFF:
        return True
    if address.host in _LOOPBACK and address.port in _stand_ins:
        return True
    if said in _OFF or said in _ON:
        return False
    named = [Address.parse(part) for part in said.split(",") if part.strip()]
    return any((a.host, a.port) == (address.host, address.port) for a in named)
