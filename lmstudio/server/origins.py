"""Tells requests of web pages that are not ours from all others."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit


def is_foreign(origin: str | None, host: str | None) -> bool:
    """Whether an upgrade comes from a web page that is not ours.

    A page under a name that its owner points at this machine has the same origin and
    host, so a name counts as ours only if it is ``localhost`` or an address.

    Args:
        origin: The ``Origin`` header; programs other than browsers send none.
        host: The ``Host`` header.
    """
    if origin is None:
        return False
    try:
        theirs, ours = urlsplit(origin), urlsplit(f"//{host or ''}")
        same = theirs.netloc.lower() == ours.netloc.lower() and theirs.netloc != ""
        name = ours.hostname or ""
    except ValueError:
        return True
    return not (same and _is_fixed(name))


def is_ours(host: str | None, hosts: Collection[str]) -> bool:
    """Whether a request names this machine, and not a name that a page pointed at it.

    Args:
        host: The ``Host`` header; no browser leaves it out.
        hosts: Names that are ours, in small letters, besides addresses and
            ``localhost``.
    """
    if host is None:
        return True
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return _is_fixed(name) or name in hosts


def _is_fixed(name: str) -> bool:
    """Whether nobody else can make a name mean this machine."""
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
