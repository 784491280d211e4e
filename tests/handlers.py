"""Signal handlers at any line of the package: what they do must never get stuck."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import lmstudio

PATIENCE = 5.0
#: A handler acts at every such line; 1 takes half a minute.
STRIDE = 7
PACKAGE = str(Path(lmstudio.__file__).parent)


class Handler:
    """Does something at the n-th line that this thread runs in the package.

    So does a signal handler: Python runs it in the main thread, between any two steps,
    and with every lock held that the thread holds there.

    Attributes:
        where: The line, once it was reached.
    """

    def __init__(self, at, action):
        self._left, self._action = at, action
        self.where = None

    def __enter__(self):
        sys.settrace(self._call)

    def __exit__(self, *exc):
        sys.settrace(None)

    def _call(self, frame, event, arg):
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        return self._step

    def _step(self, frame, event, arg):
        if event == "line" and self.where is None:
            self._left -= 1
            if self._left == 0:
                name = Path(frame.f_code.co_filename).name
                self.where = f"{name}:{frame.f_lineno}"
                self._action()
        return self._step


def at_each_line(work, prepare, stride=STRIDE, least=100):
    """Do the work again and again, and let a handler act at its next line each time.

    Args:
        work: What is interrupted.
        prepare: Called before each time; gives what the handler does, and a check.
        stride: How many lines lie between two tries.
        least: How many lines the work has at least.
    """
    for at in range(1, 3000, stride):
        action, check = prepare()
        handler = Handler(at, action)

        def run(handler=handler):
            with handler:
                work()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive(), f"stuck after {handler.where}"
        if handler.where is None:
            assert at > least
            action()
            check("the end")
            return
        check(handler.where)
    raise AssertionError("the work has no end")
