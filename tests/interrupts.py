"""Ctrl-C at a chosen line of the package, or at one after another."""

from __future__ import annotations

import linecache
import sys
from pathlib import Path

import lmstudio

PACKAGE = Path(lmstudio.__file__).parent
#: What runs between the request of a user and the wait for its answers. Not the socket:
#: an interrupt in the middle of a frame ends the connection.
TRACED = {
    str(PACKAGE / name)
    for name in (
        "arrivals.py",
        "calls.py",
        "connection.py",
        "diagnostics.py",
        "loading.py",
        "mailbox.py",
        "prediction.py",
        "protocol/client.py",
        "session.py",
        "turns.py",
    )
}
#: Where the user has what he asked for (a load), and where Python drops exceptions.
UNTRACED_RETURNS = {"run", "__del__"}


class Interrupt:
    """Raises KeyboardInterrupt at the n-th step of what this thread does in its block.

    A step is a line, or the return of a function. Not so the end of a ``with``: Python
    lets no signal in between its last line and the release of its lock.

    Attributes:
        where: The step, once it was reached.
    """

    def __init__(self, at):
        self._left = at
        self.where = None

    def __enter__(self):
        self._before = sys.gettrace()
        sys.settrace(self._call)
        return self

    def __exit__(self, *exc):
        sys.settrace(self._before)

    def _call(self, frame, event, arg):
        code, withs = frame.f_code, set()
        if code.co_filename not in TRACED or code.co_name == "__del__":
            return None

        def step(frame, event, arg):
            line = frame.f_lineno
            if event == "line":
                text = linecache.getline(code.co_filename, line).strip()
                if line in withs:
                    withs.discard(line)
                    return step
                if text.startswith("with "):
                    withs.add(line)
            elif event != "return" or code.co_name in UNTRACED_RETURNS:
                return step
            self._left -= 1
            if self._left == 0:
                self.where = f"{Path(code.co_filename).name}:{line}, {event}"
                raise KeyboardInterrupt
            return step

        return step


def at_each_step(work):
    """Interrupt the work at its first step, at its second, and so on to its last.

    Args:
        work: Called with a number that is new each time.

    Yields:
        Where the work was interrupted, after each interrupt.
    """
    for at in range(1, 2000):
        interrupt = Interrupt(at)
        try:
            with interrupt:
                work(at)
        except KeyboardInterrupt:
            was_interrupted = True
        else:
            was_interrupted = False
        if not was_interrupted:
            assert interrupt.where is None, f"it got lost at {interrupt.where}"
            assert at > 20
            return
        yield interrupt.where  # outside: what is handled keeps all of its frames alive
    raise AssertionError("the work has no end")
