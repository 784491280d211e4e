"""A bar that shows how far something is: on a terminal, in a notebook, or of tqdm."""

from __future__ import annotations

import os
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from . import html
from .arguments import checked_callback
from .errors import LMStudioTypeError, shown
from .notebook import PATIENCE, Slot, is_notebook

#: Columns of a bar, and of a terminal that does not say how wide it is.
WIDTH, COLUMNS = 30, 80

#: Seconds between two updates of a bar in a notebook, at least.
INTERVAL = 0.1


class BarOfTqdm(Protocol):
    """What a bar of tqdm has, as far as it is needed here."""

    n: Any
    total: Any

    @property
    def refresh(self) -> Callable[..., object]:
        """Draws it."""

    @property
    def update(self) -> Callable[..., object]:
        """Not called: it adds, and shares may also fall."""


#: None for the default, True for a bar on a terminal or in a notebook, False for
#: nothing, a function that is called with 0 to 1, or tqdm: the class, or a bar.
Progress = bool | Callable[[float], object] | type[BarOfTqdm] | BarOfTqdm | None

#: The bar that is on the terminal: two would write over each other.
_drawn: Callable[[], Bar | None] = lambda: None  # noqa: E731  # later a weak reference


def checked_progress(given: Any) -> Progress:
    """What may be given as ``progress``.

    Raises:
        LMStudioTypeError: It is something else.
    """
    if isinstance(given, bool) or _is_tqdm(given):
        return given  # type: ignore[no-any-return]  # so it was looked at
    if given is None or callable(given):
        checked: Progress = checked_callback(given, "progress", takes=1)
        return checked
    raise LMStudioTypeError(
        "progress must be True, False or a function, not"
        f" {shown(given)}; a bar or the class of tqdm is good too"
    )


def _is_tqdm(given: Any) -> bool:
    """Whether it is a bar of tqdm, or the class of such bars.

    tqdm has many of these (``auto``, ``notebook``, ``rich``), told by what they offer.
    """
    return all(
        hasattr(given, name) for name in ("update", "refresh", "set_description")
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
    wish: Any = default if checked_progress(given) is None else given
    if wish is None:
        wish = own is None
    if _is_tqdm(wish):
        return TqdmBar(label, wish), own
    if wish is True:
        if is_notebook():
            return NotebookBar(label), own
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
        self._count: int | None = None  # in place of a share
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

    def count(self, done: int) -> None:
        """Show how many are done, where nobody knows of how many."""
        self._count = done
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
        if self._count is not None:
            return f"{self._label} {self._count} done"[:room]
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


class NotebookBar(Bar):
    """The same in a notebook: in a display of its own, which is empty at the end."""

    def __init__(self, label: str) -> None:
        super().__init__(label, None)
        self._slot = Slot()
        self._due = self._begin + PATIENCE

    def due(self) -> float | None:
        """Seconds until the bar wants to be drawn; None when it needs no call."""
        if self._is_over or self._line == self._text():
            return None
        return max(0.0, self._due - time.monotonic())

    def tick(self) -> None:
        """Show the bar if it is time to."""
        now = time.monotonic()
        if not self._is_over and now >= self._due:
            self._due = now + INTERVAL
            self._draw(self._text())

    def clear(self) -> None:
        """Leave it: nothing else is written there."""

    def close(self) -> None:
        """Empty the display for good. Safe to repeat."""
        if self._line:
            self._draw("")
        self._is_over = True

    def _text(self) -> str:
        done = f"{self._share:.0%}" if self._count is None else f"{self._count} done"
        return f"{self._label} {done}"

    def _draw(self, line: str) -> None:
        if line != self._line:
            self._line = line
            share = self._share if self._count is None else None
            text = self._label if share is not None else line
            self._slot.show(line, html=html.bar(text, share) if line else "")


class TqdmBar(Bar):
    """A bar of tqdm, driven by shares.

    Args:
        label: What is going on.
        given: The class, to make a bar of and close it; or a bar, which stays the
            user's: it is neither named nor closed.
    """

    def __init__(self, label: str, given: Any) -> None:
        super().__init__(label, None)
        self._is_own = isinstance(given, type)
        self._given = given
        self._bar: Any = None if self._is_own else given

    def due(self) -> float | None:
        """None: it is drawn when there is something new."""
        return None

    def tick(self) -> None:
        """Show the bar."""
        if self._is_over:
            return
        if self._bar is None:
            known = self._count is None
            total, unit = (100, "%") if known else (None, "it")
            self._bar = self._given(
                total=total, desc=self._label, unit=unit, leave=False
            )
        if self._count is None:
            if self._bar.total is None:
                self._bar.total = 100
            self._bar.n = round(self._share * self._bar.total)
        else:
            self._bar.n = self._count
        self._bar.refresh()

    def clear(self) -> None:
        """Leave it: tqdm does its own clearing."""

    def close(self) -> None:
        """Close a bar that was made here. Safe to repeat."""
        if self._is_own and self._bar is not None and not self._is_over:
            self._bar.close()
        self._is_over = True
