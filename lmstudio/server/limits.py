"""How much one client may ask of a server, and what the log says of those refused."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import attrs

log = logging.getLogger(__name__)

#: Seconds in which one kind of refusal is logged once.
_QUIET = 10.0


@attrs.frozen(kw_only=True)
class Limits:
    """What a server takes from its clients. The defaults suit one machine's users.

    Attributes:
        message_bytes: Bytes in one websocket message; a larger one ends its socket.
            The application has the same figure. Source: docs/wire/messages.md.
        body_bytes: Bytes in the body of an HTTP request.
        connections: Open connections, over all clients.
        connections_per_address: Open connections from one address; all programs of
            one machine share it.
        channels: Open channels on one socket.
        channel_bytes: Bytes in what opened the channels of one socket that are open.
        authentication_time: Seconds for a socket to say who it is.
        header_time: Seconds for the head of an HTTP request.
        body_time: Seconds for its body.
        write_time: Seconds in which a client has to read a part of an HTTP answer that
            waits for it; a prediction ends with its connection.
        first_bytes: Bytes in a message of a socket that has not said who it is.
        values: Values in one message or body, told by the marks between them.
    """

    message_bytes: int = 100 * 1024 * 1024
    body_bytes: int = 100 * 1024 * 1024
    connections: int = 800
    connections_per_address: int = 400
    channels: int = 1024
    channel_bytes: int = 256 * 1024 * 1024
    authentication_time: float = 10.0
    header_time: float = 10.0
    body_time: float = 120.0
    write_time: float = 30.0
    first_bytes: int = 8 * 1024
    values: int = 2_000_000

    def are_too_many(self, data: str | bytes) -> bool:
        """Whether JSON makes more values than one message may.

        Parsed they take thirty times the memory, and all others wait meanwhile: so
        they are counted before. Marks in texts count as well.
        """
        if isinstance(data, str):
            return len(data) > self.values and sum(map(data.count, "[{,")) > self.values
        marks = (b"[", b"{", b",")
        return len(data) > self.values and sum(map(data.count, marks)) > self.values


class Refusals:
    """Logs what is refused: of each kind one line in `_QUIET` seconds, and how many.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[str, float] = {}
        self._more: dict[str, int] = {}
        self._end = ""

    def of(self, address: str) -> Refusals:
        """The same, with the address that is refused in each line."""
        made = Refusals(self._clock)
        made._last, made._more = self._last, self._more
        made._end = f" (from {address})" if address else ""
        return made

    def add(self, kind: str, text: str) -> None:
        """Log one refusal, unless one of its kind was just logged.

        Args:
            kind: One of few: it is remembered.
            text: What the log says.
        """
        now = self._clock()
        last = self._last.get(kind)
        if last is not None and now - last < _QUIET:
            self._more[kind] = self._more.get(kind, 0) + 1
            return
        more = self._more.pop(kind, 0)
        self._last[kind] = now
        log.warning(
            "%s%s%s", text, self._end, f" (and {more} more like it)" if more else ""
        )
