"""An event that cancels what it was given to, at once."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

from .forks import renew_locks


class Signal(threading.Event):
    """A `threading.Event` whose `set` cancels at once what it was passed to.

    Any object with ``is_set`` works as a ``signal``; a plain event is looked at ten
    times a second, this one tells by itself.
    """

    def __init__(self) -> None:
        super().__init__()
        # Guards the list. Not held while listeners are called. Reentrant, since `set`
        # may come from a signal handler in the middle of `listen`.
        self._adding = threading.RLock()
        self._listeners: list[weakref.WeakMethod[Callable[[], object]]] = []
        renew_locks(self)

    def after_fork(self) -> None:
        """Replace what threads of the parent process may hold; see `forks`."""
        self._adding = threading.RLock()

    def listen(self, listener: Callable[[], object]) -> None:
        """Call a method when the signal is set, or now if it is.

        Args:
            listener: A bound method; it is forgotten with its object. It must be quick
                and must not raise, since it runs in the thread of `set`.
        """
        with self._adding:
            alive = [known for known in self._listeners if known() is not None]
            self._listeners = [*alive, weakref.WeakMethod(listener)]
        if self.is_set():
            listener()

    def set(self) -> None:
        """Cancel everything that listens."""
        super().set()
        with self._adding:
            listeners = [known() for known in self._listeners]
        for listener in listeners:
            if listener is not None:
                listener()
