"""What handlers of calls and channels see of who calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from .clients import Client
from .service import Service


class Caller(Protocol):
    """Where a call comes from: `calls.Context`, as far as a handler needs it."""

    @property
    def service(self) -> Service:
        """What all connections share."""
        ...

    @property
    def client(self) -> Client:
        """Who calls."""
        ...


class End(Protocol):
    """The server's end of an open channel: `channels.Ends`."""

    @property
    def send(self) -> Callable[[dict[str, Any]], Awaitable[None]]:
        """Sends a packet."""
        ...

    @property
    def is_cancelled(self) -> bool:
        """Whether the client has asked to stop."""
        ...

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Call this when the client cancels, at once if it has."""
        ...

    def on_packets(self, **callbacks: Callable[[Any], object]) -> None:
        """Call these when packets of such types come, and now for those that have."""
        ...


CallHandler = Callable[[Caller, Any], Awaitable[Any]]
ChannelHandler = Callable[[Caller, Any, End], Awaitable[None]]
