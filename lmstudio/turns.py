"""Several threads wait for the same thing, and one of them works for all of them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import FrameType

from .mailbox import SLICE

#: Whether threads take turns at running; what they run can be looked at then.
HAS_GIL: bool = getattr(sys, "_is_gil_enabled", lambda: True)()

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
    between any two lines, also between the end of the work and giving the turn back.
    So a turn counts only while the function runs that took it: the one whose local
    variable `mine` it is.

    Attributes:
        holder: ``{}``, or ``{TURN: mine}`` with the turn of the thread that works: a
            tuple of its identifier, another one each time.
        news: Wakes those who wait while another thread works. Its lock is for the
            owner's own state as well; it is held for moments only, never while
            working.
    """

    def __init__(self) -> None:
        self.holder: dict[str, tuple[int]] = {}
        self.news = threading.Condition()
        self._waiting = 0  # guarded by the lock of `news`

    @property
    def is_mine(self) -> bool:
        """Whether this very thread works: it must not wait for itself.

        A turn that Ctrl-C left behind in this thread is given back.
        """
        found = self.holder.get(TURN)
        if found is None or found[0] != threading.get_ident():
            return False
        if _runs(found, sys._getframe()):
            return True
        self._give_back(found)
        return False

    def work(
        self,
        do: Callable[[], object],
        left: float | None,
        is_decided: Callable[[], bool],
    ) -> None:
        """Work if no other thread does, else wait for what that one brings.

        It may return before anything is decided: look again then. Who may be called
        by the work itself asks for `is_mine` first.

        Args:
            do: A step of the work. What it raises comes out here.
            left: Seconds to wait for another thread at most; None waits for long.
            is_decided: Whether there is nothing left to do or to wait for. It is
                also called under the lock of `news`.
        """
        mine, turn = (threading.get_ident(),), self.holder
        try:
            if turn.setdefault(TURN, mine) is not mine:
                self.wait(left, is_decided)
            elif not is_decided():  # by another thread, meanwhile
                do()
        finally:
            if turn.get(TURN) is mine:
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
                if self.news.wait(slice_):
                    return True
            finally:
                self._waiting -= 1
        self._look_after()
        return False

    def _look_after(self) -> None:
        """Give back the turn of another thread that does not work any more."""
        found = self.holder.get(TURN)
        if found is None:
            return
        frame = sys._current_frames().get(found[0])
        # Without the GIL nobody may look into what another thread runs. Then only one
        # that has ended loses its turn; one that lives gives it back when it asks.
        if frame is None or (HAS_GIL and not _runs(found, frame)):
            self._give_back(found)

    def _give_back(self, found: tuple[int]) -> None:
        with self.news:
            if self.holder.get(TURN) is found:
                self.holder.clear()
                self.news.notify_all()

    def after_fork(self) -> bool:
        """Start anew in a child process, where only the thread is that forked.

        The owner has it called; see `forks.renew_locks`.

        Returns:
            Whether another thread worked, and so left its work in the middle.
        """
        self.news = threading.Condition()
        self._waiting = 0
        found = self.holder.get(TURN)
        is_left = found is not None and found[0] != threading.get_ident()
        if is_left:
            self.holder.clear()
        return is_left

    def tell(self) -> None:
        """Wake those who wait: there is news for them, and the work may go on."""
        with self.news:
            self.news.notify_all()


def _runs(turn: tuple[int], frame: FrameType | None) -> bool:
    """Whether the function that took a turn is still on a thread's stack."""
    while frame is not None:
        if "mine" in frame.f_code.co_varnames and frame.f_locals.get("mine") is turn:
            return True
        frame = frame.f_back
    return False
