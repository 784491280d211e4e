"""A bar on a terminal that shows how far something is."""

from __future__ import annotations

import os
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any

from .arguments import checked_callback
from .errors import LMStudioTypeError, shown

#: Seconds before a bar appears: what is quick needs none.
PATIENCE = 0.7
#: Columns of a bar, and of a terminal that does not say how wide it is.
WIDTH, COLUMNS = 30, 80

#: None for the default, True for a bar on a terminal, False for nothing, or a function
#: that is called with 0 to 1.
Progress = bool | Callable[[float], object] | None

#: The bar that is on the terminal: two would write over each other.
_drawn: Callable[[], Bar | None] = lambda: None  # noqa: E731  # later a weak reference


def checked_progress(given: Any) -> Progress:
    """What may be given as ``progress``.

    Raises:
        LMStudioTypeError: It is something else.
    """
    if isinstance(given, bool):
        return given
    if given is None or callable(given):
        checked: Progress = checked_callback(given, "progress", takes=1)
        return checked
    raise LMStudioTypeError(
        f"progress must be True, False or a function, not {shown(given)}"
    )


def displays(
    label: str, given: Any, default: Progress, own: Any
) -> tuple[Bar | None, Callable[[float], object] | None]:
    """Who is told of the progress: a bar, a function, or both.

    Args:
        label: What is going on, for people.
        given: The argument ``progress`` of the call.
        default: That of the client.
        own: The callback of the call; with one, there is a bar only if asked for.

    Raises:
        LMStudioTypeError: The argument can't be used.
    """
    wish = default if checked_progress(given) is None else given
    if wish is None:
        wish = own is None
    if wish is True:
        stream: Any = sys.stderr
        try:
            is_terminal = stream is not None and stream.isatty()
        except (AttributeError, ValueError):  # somebody's own, or closed
            is_terminal = False
        return (Bar(label, stream) if is_terminal else None), own
    if wish is False:
        return None, own
    if own is None:
        return None, wish
    if not callable(own):  # whoever takes it says so
        return None, own

    def both(share: float) -> None:
        wish(share)
        own(share)

    return None, both


class Bar:
    """One line of text on a terminal, drawn by whoever waits. No escape codes.

    Args:
        label: What is going on.
        stream: The terminal.
    """

    def __init__(self, label: str, stream: Any) -> None:
        self._label = " ".join(label.split())
        self._stream = stream
        self._begin = time.monotonic()
        self._share = 0.0
        self._line = ""  # what is on the terminal
        self._is_over = False

    def due(self) -> float | None:
        """Seconds until the bar wants to appear; None when it needs no call."""
        if self._is_over or self._line:
            return None
        return max(0.0, self._begin + PATIENCE - time.monotonic())

    def update(self, share: float) -> None:
        """Show how far it is, 0 to 1, unless it is too early."""
        self._share = min(1.0, max(0.0, share))
        self.tick()

    def tick(self) -> None:
        """Show the bar if it is time to."""
        global _drawn
        if self._is_over or time.monotonic() < self._begin + PATIENCE:
            return
        other = _drawn()
        if other is not None and other is not self:
            self._begin = time.monotonic()  # look again later
            return
        _drawn = weakref.ref(self)
        self._draw(self._text())

    def clear(self) -> None:
        """Take the bar off the terminal; `tick` shows it again."""
        global _drawn
        if self._line:
            self._draw("")
        if _drawn() is self:
            _drawn = lambda: None  # noqa: E731

    def close(self) -> None:
        """Take the bar off for good. Safe to repeat."""
        self.clear()
        self._is_over = True

    def _text(self) -> str:
        """The line, not longer than the terminal: a wrapped one can't be cleared."""
        room = self._columns() - 1
        share = f"{self._share:4.0%}"
        width = min(WIDTH, room - len(share) - 14)
        if width < 5:
            return share[:room]
        filled = round(self._share * width)
        bar = f"[{'#' * filled}{' ' * (width - filled)}] {share}"
        most = room - len(bar) - 1
        label = self._label
        if len(label) > most:
            label = label[: most - 3] + "..."
        return f"{label} {bar}"

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or COLUMNS
        except (OSError, ValueError, AttributeError):
            return COLUMNS

    def _draw(self, line: str) -> None:
        if line == self._line:
            return
        blanks = " " * (len(self._line) - len(line))
        end = "\r" if not line else ""
        try:
            self._stream.write(f"\r{line}{blanks}{end}")
            self._stream.flush()
        except (OSError, ValueError):  # the terminal is gone
            self._is_over = True
        self._line = line
