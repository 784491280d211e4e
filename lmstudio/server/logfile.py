"""The log file of a server: what it prints and logs, with a bound on its size."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path

#: Bytes that a log file may have; then the next one begins, and the last one is kept.
MOST = 5_000_000


class LogFile(logging.StreamHandler):  # type: ignore[type-arg]  # it has none at run time
    """Logs to standard error, which is a file, and begins a new one when it is full.

    What is printed goes to the new file as well, a traceback at the end above all.

    Args:
        path: The file that standard output and standard error are. The last one is
            beside it, with ``.1`` at its end.
        most: Bytes.
    """

    def __init__(self, path: Path, most: int = MOST) -> None:
        super().__init__(sys.stderr)
        with contextlib.suppress(OSError):  # what others ask for is nobody else's
            path.chmod(0o600)
        self._path = path
        self._most = most

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        super().emit(record)
        with contextlib.suppress(OSError):  # a full log is better than no server
            if os.fstat(2).st_size >= self._most:
                self._begin()

    def _begin(self) -> None:
        os.replace(self._path, self._path.with_name(self._path.name + ".1"))
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        new = os.open(self._path, flags, 0o600)
        try:
            for number in (1, 2):
                os.dup2(new, number)
        finally:
            os.close(new)
