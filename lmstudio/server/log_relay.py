"""The lines of the server's own log, told to clients that watch."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator

from .logs import Logs

#: The kind of these entries. Source: docs/wire/diagnostics.md.
KIND = "server.log"


class _Relay(logging.Handler):
    """Hands records to the loop, from whatever thread they come."""

    def __init__(self, logs: Logs, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(logging.INFO)  # debug lines may have prompts in them
        self._logs = logs
        self._loop = loop

    def emit(self, record: logging.LogRecord) -> None:
        level = "warn" if record.levelname == "WARNING" else record.levelname.lower()
        level = "error" if level == "critical" else level
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._add, self.format(record), level)

    def _add(self, content: str, level: str) -> None:
        self._logs.add(KIND, content=content, level=level)


@contextlib.contextmanager
def relayed(logs: Logs) -> Iterator[None]:
    """Tell those who watch what the server logs, until the block ends.

    Which lines there are is for the program to say, by the levels of its loggers.
    """
    relay = _Relay(logs, asyncio.get_running_loop())
    logger = logging.getLogger("lmstudio.server")
    logger.addHandler(relay)
    try:
        yield
    finally:
        logger.removeHandler(relay)
