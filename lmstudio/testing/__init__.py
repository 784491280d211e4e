"""For tests of programs that use this package: a server that says what it is told."""

from __future__ import annotations

from .fake import FakeServer
from .log import Received
from .script import AWAIT_CANCEL, CRASH, DROP, NEVER, Asked, Await, Reply, tool_call

__all__ = [
    "FakeServer",
    "Await",
    "AWAIT_CANCEL",
    "CRASH",
    "DROP",
    "NEVER",
    "Asked",
    "Received",
    "Reply",
    "tool_call",
]
