"""Locks between processes."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_PAUSE = 0.1  # seconds between two tries


@contextlib.contextmanager
def only_one(path: Path, waiting: Callable[[], None]) -> Iterator[bool]:
    """Hold the lock that a file stands for; the file is there while someone does.

    A process that ends in whatever way lets go of it. Where the system or the file
    system has no such locks, nothing is locked.

    Args:
        path: The file; the folder above it is made.
        waiting: Called ten times a second while another holds it.

    Yields:
        Whether the lock is really held.

    Raises:
        OSError: The file can't be made.
    """
    descriptor, locked = _acquire(path, waiting)
    try:
        yield locked
    finally:
        # Removed before it is let go of: who comes next makes a new one, and who had
        # opened this one finds that out in `_acquire`.
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _acquire(path: Path, waiting: Callable[[], None]) -> tuple[int, bool]:
    """Open the file, and lock it if that can be done."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            locked = _lock(descriptor)
            if locked is None or (locked and _is_at(path, descriptor)):
                return descriptor, bool(locked)
            waiting()
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        time.sleep(_PAUSE)


def _lock(descriptor: int) -> bool | None:
    """Whether the lock is ours now; None where there are no locks."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the opened file is still the one at the path."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
