"""What the server tells those who watch it: one queue for each."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)

#: What every client understands. Others get warnings about the rest, of which they
#: count only five. Source: docs/wire/diagnostics.md.
OLD_KINDS = ("llm.prediction.input",)
#: Entries that wait for a slow client; then the oldest go.
MOST_WAITING = 256

Entry = dict[str, Any]  # as it travels


class Listener:
    """One who watches. Its methods belong to one event loop.

    Attributes:
        kinds: The kinds of entries that it wants.
    """

    def __init__(self, kinds: Collection[str]) -> None:
        self.kinds = frozenset(kinds)
        self._waiting: deque[Entry] = deque(maxlen=MOST_WAITING)
        self._news = asyncio.Event()
        self._is_closed = False
        self._dropped = 0

    def put(self, entry: Entry) -> None:
        """Keep an entry until it is asked for. Never waits."""
        if len(self._waiting) == MOST_WAITING:
            if not self._dropped:
                log.warning("a client reads the log too slowly and misses entries")
            self._dropped += 1
        self._waiting.append(entry)
        self._news.set()

    def close(self) -> None:
        """End: `next` gives what waits, and then None."""
        self._is_closed = True
        self._news.set()

    async def next(self) -> Entry | None:
        """The next entry; None at the end."""
        while not self._waiting:
            if self._is_closed:
                return None
            self._news.clear()
            await self._news.wait()
        return self._waiting.popleft()


class Logs:
    """Hands entries to all who watch."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()

    def wants(self, kind: str) -> bool:
        """Whether anybody watches this kind: what costs something asks first."""
        return any(kind in listener.kinds for listener in self._listeners)

    def add(self, kind: str, **data: Any) -> None:
        """Tell those who want to know.

        Args:
            kind: Such as ``"llm.prediction.input"``.
            data: Its other fields, as they travel.
        """
        entry = {"timestamp": round(time.time() * 1000), "data": {"type": kind, **data}}
        for listener in self._listeners:
            if kind in listener.kinds:
                listener.put(entry)

    @contextmanager
    def listen(self, kinds: Collection[str]) -> Iterator[Listener]:
        """Watch, until the block ends."""
        listener = Listener(kinds)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
