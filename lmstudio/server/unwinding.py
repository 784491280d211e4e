"""Signals that end a process at once, made to unwind its stack first."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def unwound_by_signals() -> Iterator[None]:
    """Have SIGTERM and SIGHUP raise SystemExit here, so that ``finally`` is obeyed.

    Only where they would end the process: handlers that the program has set itself stay
    as they are. Outside the main thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    ours: list[int] = []

    def leave(number: int, _: FrameType | None) -> None:
        for each in ours:  # a second one must not interrupt the cleaning up
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    try:
        for signal_name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, signal_name, None)
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                ours.append(number)
                signal.signal(number, leave)
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
