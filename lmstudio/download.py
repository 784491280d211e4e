"""A download by the server: iterator of its progress, future and cancel in one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Any

from .arguments import checked_callback, checked_seconds, checked_signal
from .calls import Channel, structure
from .errors import (
    LMStudioCancelledError,
    LMStudioError,
    LMStudioRuntimeError,
    LMStudioTimeoutError,
    LMStudioWebsocketError,
)
from .forks import FORKED, renew_locks
from .mailbox import Mailbox
from .progress import Bar
from .protocol.client import Batch, End
from .session import Session
from .signals import Signal
from .turns import Turns
from .wire.endpoints import endpoint
from .wire.repository import DownloadModel, DownloadProgress

#: Seconds between two looks at a signal that can't call us.
SIGNAL_SLICE = 0.1
#: Seconds that a cancelled download gets to end before we stop listening.
CANCEL_TIME = 5.0

_WAKE = End("wake")


class _Inbox(Mailbox):
    """The mailbox of a download; it knows what came, also what nobody took yet.

    Attributes:
        latest: The last news of how far it is, as it came.
        is_over: Whether the last packet has come.
    """

    def __init__(self) -> None:
        super().__init__()
        self.latest: Any = None
        self.is_over = False

    def put(self, batch: Batch) -> None:
        for item in batch:
            if type(item) is End:
                self.is_over = self.is_over or item is not _WAKE
            elif isinstance(item, dict):
                self.is_over = self.is_over or item.get("type") == "success"
                if item.get("type") == "downloadProgress":
                    self.latest = item.get("update")
        super().put(batch)


class _Packets:
    """What a download gets from the server, taken by one thread at a time."""

    def __init__(
        self,
        session: Session,
        identifier: str,
        *,
        on_progress: Any,
        on_finalize: Any,
        signal: Any,
        timeout: float | None,
    ) -> None:
        self.identifier = identifier
        self._on_progress = checked_callback(on_progress, "on_progress")
        self._on_finalize = checked_callback(on_finalize, "on_finalize")
        self._signal = checked_signal(signal)
        self._timeout = checked_seconds(timeout, "timeout")
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._inbox = _Inbox()
        parameter = DownloadModel(download_identifier=identifier)
        row = endpoint("repository", "downloadModel")
        self._channel = Channel(session, row, parameter, self._inbox)
        self._bar: Bar | None = None
        self._shares: Callable[[float], object] | None = None
        self._turns = Turns()  # the lock of its `news` guards the four below
        self._count = 0  # news of the progress that were taken
        self._seen: DownloadProgress | None = None  # the last of them
        self._outcome: str | LMStudioError | None = None
        self._stopping: float | None = None  # when cancel() was called
        renew_locks(self)

    def start(self, bar: Bar | None, shares: Callable[[float], object] | None) -> None:
        """Send the request.

        Args:
            bar: Shows how far it is.
            shares: Called with 0 to 1.

        Raises:
            LMStudioCancelledError: The signal is set already; nothing was sent.
            LMStudioWebsocketError: The server can't be reached.
        """
        self._bar, self._shares = bar, shares
        self._check()
        try:
            self._channel.open(self._deadline)
            if isinstance(self._signal, Signal):
                self._signal.listen(self._wake)
        except BaseException as exc:  # Ctrl-C: the request may be on its way
            self._channel.abandon()
            if isinstance(exc, LMStudioTimeoutError):
                raise LMStudioTimeoutError(f"{self._late()} ({exc})") from None
            raise

    def after_fork(self) -> None:
        """Replace what threads of the parent process may hold; see `forks`."""
        if self._turns.after_fork() and self._outcome is None:
            # That thread may have had the last packet in hand.
            self._outcome = LMStudioWebsocketError(self._channel.address, FORKED)

    def _take_turn(self, left: float | None) -> None:
        """Take what comes next. Whatever goes wrong here stops the download."""
        try:
            self._check()
            for item in self._channel.receive(self._patience(left)) or ():
                self._take(item)
                if self._outcome is not None:
                    break
            else:
                self._check()
                if self._bar is not None:
                    self._bar.tick()
        except BaseException as exc:
            self._end(exc)
            if not isinstance(exc, LMStudioError):
                raise  # Ctrl-C, or what a callback raised: it is this thread's

    def _end(self, outcome: str | BaseException) -> None:
        """The download has ended, or is to end with an error that was found here."""
        if not isinstance(outcome, (str, LMStudioError)):  # this thread's alone
            outcome = self._cancelled()
        try:
            if self._bar is not None:
                self._bar.close()
            self._stop()
        finally:
            with self._turns.news:
                if self._outcome is None:
                    self._outcome = outcome

    def _wake(self) -> None:
        self._inbox.put([_WAKE])

    def _cancelled(self) -> LMStudioCancelledError:
        return LMStudioCancelledError(
            f"the download of {self.identifier} was cancelled; what is there stays, and"
            " the next download continues it"
        )

    def _check(self) -> None:
        """Raise when it is to end."""
        stopping = self._stopping
        if stopping is not None and time.monotonic() >= stopping + CANCEL_TIME:
            raise self._cancelled()  # the server has not said so
        if self._signal is not None and self._signal.is_set():
            raise self._cancelled()
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise LMStudioTimeoutError(
                f"{self._late()}; the next download continues it"
            )

    def _late(self) -> str:
        return f"{self.identifier} was not downloaded within {self._timeout:g} s"

    def _patience(self, left: float | None) -> float | None:
        """Seconds until something else than a packet is to be looked at."""
        waits = [] if left is None else [max(0.0, left)]
        if self._stopping is not None:
            waits.append(CANCEL_TIME)
        if self._deadline is not None:
            waits.append(max(0.0, self._deadline - time.monotonic()))
        if self._signal is not None and not isinstance(self._signal, Signal):
            waits.append(SIGNAL_SLICE)
        due = self._bar.due() if self._bar is not None else None
        if due is not None:
            waits.append(due)
        return min(waits, default=None)

    def _take(self, item: Any) -> None:
        """What one packet brings."""
        if item is _WAKE:
            return
        if type(item) is End:
            if self._stopping is not None:
                raise self._cancelled()
            raise self._channel.error_of(item) or self._channel.closed_early()
        kind = item.get("type") if isinstance(item, dict) else None
        if kind == "success":
            key: str = structure(
                item.get("defaultIdentifier"), str, "downloadModel: success"
            )
            self._end(key)
        elif kind == "downloadProgress":
            update = item.get("update")
            self._report(structure(update, DownloadProgress, "downloadModel: update"))
        elif kind == "startFinalizing" and self._on_finalize is not None:
            self._on_finalize()

    def _report(self, update: DownloadProgress) -> None:
        with self._turns.news:
            self._seen = update
            self._count += 1
        if self._bar is not None:
            self._bar.update(update.share)
        if self._shares is not None:
            self._shares(update.share)
        if self._on_progress is not None:
            self._on_progress(update)

    def _stop(self) -> None:
        """Ask for the end if it has not come, and wait a little for it."""
        if not self._channel.is_sent:
            return
        deadline = time.monotonic() + CANCEL_TIME
        if not self._inbox.is_over:
            self._channel.cancel()
        while not self._inbox.is_over:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self._channel.receive(left)
        self._channel.forget()


class Download(_Packets):
    """A download that the server does: iterate over its progress, wait, or cancel it.

    It goes on whether or not anyone iterates. Callbacks are called, and the time limit
    and the signal are looked at, while a thread iterates or waits. Any number of them
    may; one of them works for all.

    It is cancelled as well by leaving a ``with`` block, by Ctrl-C and by an exception
    of a callback in a thread that iterates or waits, by a time limit, by its signal,
    and when nobody holds it any more. What is there stays, and the next download
    continues it.

    Attributes:
        identifier: What is downloaded, such as ``"owner/name@q4_k_m"``.
    """

    def __iter__(self) -> Iterator[DownloadProgress]:
        """Yield how far it is, each time there is news; the latest, not each.

        It ends with the download, also after `cancel`.

        Raises:
            LMStudioDownloadError: The hub, the network or the disk failed.
            LMStudioCancelledError: The signal was set.
            LMStudioTimeoutError: The time is over.
            LMStudioWebsocketError: The server was lost.
            Exception: What a callback of yours raised.
        """
        position = 0
        while self._wait_beyond(position, None):
            with self._turns.news:
                position, latest = self._count, self._seen
            assert latest is not None  # it came before it was counted
            yield latest
        if self._stopping is None:
            self._key()

    def result(self, timeout: float | None = None) -> str:
        """Wait for the end and return the key that loads the model.

        Args:
            timeout: Seconds to wait from 0 on; None waits as long as it takes. The
                download goes on when the time is over.

        Raises:
            LMStudioTimeoutError: The time is over.
            LMStudioCancelledError: It was cancelled.
            Exception: As for iterating.
        """
        self._wait_for_end(timeout)
        return self._key()

    def exception(self, timeout: float | None = None) -> LMStudioError | None:
        """Wait for the end and return its error, None when it ended well.

        Raises:
            LMStudioTimeoutError: The time (seconds from 0 on) is over.
        """
        self._wait_for_end(timeout)
        outcome = self._outcome
        return outcome.fresh() if isinstance(outcome, LMStudioError) else None

    def done(self) -> bool:
        """Whether it has ended, well or not. Does not wait."""
        return self._outcome is not None or self._inbox.is_over

    @property
    def progress(self) -> DownloadProgress | None:
        """How far it is; None before any news. Does not wait."""
        raw = self._inbox.latest
        if raw is None:
            return None
        known: DownloadProgress = structure(
            raw, DownloadProgress, "downloadModel: update"
        )
        return known

    def cancel(self) -> bool:
        """Ask the server to stop. Safe to repeat, and from any thread.

        Iterating ends then, and `result` raises `lmstudio.LMStudioCancelledError`.

        Returns:
            False when it had already ended.
        """
        with self._turns.news:
            if self._outcome is not None or self._inbox.is_over:
                return False
            is_first = self._stopping is None
            if is_first:
                self._stopping = time.monotonic()
        if is_first:
            self._channel.cancel()
            self._wake()
        return True

    close = cancel

    def _key(self) -> str:
        outcome = self._outcome
        if isinstance(outcome, LMStudioError):
            raise outcome.fresh()
        assert outcome is not None  # only asked for at the end
        return outcome

    def _wait_for_end(self, timeout: float | None) -> None:
        limit = checked_seconds(timeout, "timeout", zero=True)
        deadline = None if limit is None else time.monotonic() + limit
        while more := self._wait_beyond(self._count, deadline):
            pass
        if more is None:
            raise LMStudioTimeoutError(
                f"{self.identifier} was not downloaded within {timeout:g} s; it goes on"
            )

    def _wait_beyond(self, position: int, deadline: float | None) -> bool | None:
        """Wait for more news than `position`, taking it if no other thread does.

        Returns:
            True when there are more, False when there will be none, None when the
            time is over.
        """
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            with self._turns.news:
                if self._has_more(position):
                    return True
                if self._outcome is not None:
                    return False
            if left is not None and left <= 0 and not self._inbox.is_over:
                return None
            if self._turns.is_mine:
                raise LMStudioRuntimeError(
                    "a callback of a download can't wait for that download"
                )
            self._turns.work(
                partial(self._take_turn, left),
                left,
                lambda: self._has_more(position) or self._outcome is not None,
            )

    def _has_more(self, position: int) -> bool:
        return self._count > position and self._stopping is None

    def __enter__(self) -> Download:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()

    def __del__(self) -> None:
        # Runs anywhere, also inside locks: it may only leave a note.
        channel = getattr(self, "_channel", None)
        if channel is not None and self._outcome is None:
            channel.abandon_soon()

    def __repr__(self) -> str:
        latest = self._inbox.latest
        share = ""
        if isinstance(latest, dict) and not self.done():
            try:
                share = f" {latest['downloadedBytes'] / latest['totalBytes']:.0%}"
            except (KeyError, TypeError, ZeroDivisionError):  # as it came
                share = ""
        state = "running"
        if self.done():
            failed = isinstance(self._outcome, LMStudioError)
            state = "failed" if failed else "done"
        return f"<Download {self.identifier} {state}{share}>"
