"""Several threads wait for the same thing, and one of them works for all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable

from .mailbox import SLICE

#: The one key of the dict that says whose turn it is.
TURN = "taker"


def never() -> bool:
    """Says no: for waits that nothing but work ends."""
    return False


class Turns:
    """Whose turn it is to work, among threads that wait for what the work brings.

    A waiting thread takes the turn if no other one has it, else it waits until that
    one has brought something or gives the turn back. What the work brings belongs to
    the owner of this, who looks whether it is enough.

    Nothing is locked for a turn that nobody else wants: it is in `holder`, which is
    changed by single operations of a dict, that no thread can split. Ctrl-C may come
    between any two lines of who works, so whether a turn is to be given back is told
    by `holder` and not by how far the thread got.

    Attributes:
        holder: ``{}``, or ``{TURN: identifier}`` of the thread that works.
        news: Wakes those who wait while another thread works. Its lock is for the
            owner's own state as well; it is held for moments only, never while
            working.
    """

    def __init__(self) -> None:
        self.holder: dict[str, int] = {}
        self.news = threading.Condition()
        self._waiting = 0  # guarded by the lock of `news`

    @property
    def is_mine(self) -> bool:
        """Whether this very thread works: it must not wait for itself."""
        return self.holder.get(TURN) == threading.get_ident()

    def work(
        self,
        do: Callable[[], object],
        left: float | None,
        is_decided: Callable[[], bool],
    ) -> None:
        """Work if no other thread does, else wait for what that one brings.

        It may return before anything is decided: look again then.

        Args:
            do: A step of the work. What it raises comes out here.
            left: Seconds to wait for another thread at most; None waits for long.
            is_decided: Whether there is nothing left to do or to wait for. It is
                also called under the lock of `news`.
        """
        me = threading.get_ident()
        try:
            if self.holder.setdefault(TURN, me) != me:
                self.wait(left, is_decided)
            elif not is_decided():  # by another thread, meanwhile
                do()
        finally:
            if self.holder.get(TURN) == me:
                self.leave()

    def leave(self) -> None:
        """Give the turn back; only for the thread that has it."""
        self.holder.clear()
        if self._waiting:
            self.tell()

    def wait(self, left: float | None, is_decided: Callable[[], bool] = never) -> bool:
        """Wait until the thread that works has brought something, or stops working.

        Args:
            left: As `work` takes it.
            is_decided: As `work` takes it.

        Returns:
            False when the time was over first.
        """
        with self.news:
            self._waiting += 1
            try:
                # Looked at after the count: who works gives its turn back first and
                # looks at the count then, so one of us sees the other.
                if not self.holder or is_decided():
                    return True
                slice_ = SLICE if left is None else max(0.0, min(SLICE, left))
                return self.news.wait(slice_)
            finally:
                self._waiting -= 1

    def after_fork(self) -> bool:
        """Start anew in a child process, where only the thread is that forked.

        The owner has it called; see `forks.renew_locks`.

        Returns:
            Whether another thread worked, and so left its work in the middle.
        """
        self.news = threading.Condition()
        self._waiting = 0
        found = self.holder.get(TURN)
        is_left = found is not None and found != threading.get_ident()
        if is_left:
            self.holder.clear()
        return is_left

    def tell(self) -> None:
        """Wake those who wait: there is news for them, and the work may go on."""
        with self.news:
            self.news.notify_all()
