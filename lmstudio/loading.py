"""Loading a model: progress, cancelling, and what came of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from .arguments import checked_callback, checked_seconds, checked_signal
from .calls import Channel, call, structure
from .errors import (
    LMStudioCancelledError,
    LMStudioError,
    LMStudioModelLoadError,
    LMStudioTimeoutError,
)
from .mailbox import Mailbox
from .progress import Bar
from .protocol.client import Batch, End
from .session import Session
from .signals import Signal
from .wire.checks import as_float
from .wire.common import InstanceInfo, Unload
from .wire.endpoints import endpoint

log = logging.getLogger("lmstudio.loading")

#: Seconds between two looks at a signal that can't call us.
SIGNAL_SLICE = 0.1
#: Seconds that a cancelled load gets to end before we stop listening.
CANCEL_TIME = 5.0

_WAKE = End("wake")
#: Packets that say how far it is, and those that end it with an instance.
_PROGRESS = ("progress", "loadProgress")
_LOADED = ("success", "loadSuccess", "alreadyLoaded")
#: The one with an instance that nobody else can be using.
_OWN = "success"


class _Inbox(Mailbox):
    """The mailbox of a load; it knows what came, also what an interrupt lost.

    Attributes:
        own: The packet with an instance that nobody else can be using, if it came.
        is_over: Whether the last packet has come.
    """

    def __init__(self) -> None:
        super().__init__()
        self.own: dict[str, Any] | None = None
        self.is_over = False

    def put(self, batch: Batch) -> None:
        for item in batch:
            if isinstance(item, dict) and item.get("type") == _OWN:
                self.own = item
            elif type(item) is End and item is not _WAKE:
                self.is_over = True
        super().put(batch)


class Load:
    """One load from its request to its end, in the thread that waits for it.

    The time limit begins when it is made.

    Attributes:
        parameter: What is sent.
        was_loaded: Whether the model was there already, once it has run.

    Raises:
        LMStudioValueError: An argument can't be used.
    """

    def __init__(
        self,
        session: Session,
        namespace: str,
        name: str,
        parameter: Any,
        *,
        on_progress: Callable[[float], object] | None,
        signal: Any,
        timeout: float | None,
        bar: Bar | None = None,
    ) -> None:
        self._session = session
        self._namespace = namespace
        self._row = endpoint(namespace, name)
        self.parameter = parameter
        self._on_progress = checked_callback(on_progress, "on_progress", takes=1)
        self._signal = checked_signal(signal)
        self._timeout = checked_seconds(timeout, "timeout")
        self._started = time.monotonic()
        self.was_loaded = False
        self._progress = 0.0
        self._bar = bar
        self._inbox = _Inbox()
        self._rest: Batch = []  # arrived and not looked at yet

    def run(self) -> InstanceInfo:
        """Wait for the model.

        Raises:
            LMStudioCancelledError: The signal was set; nothing stays loaded.
            LMStudioTimeoutError: The time is over; the load was cancelled.
            LMStudioModelNotFoundError: No model of that name is on the server.
            LMStudioModelLoadError: The server could not load it.
        """
        if self._is_cancelled():
            raise LMStudioCancelledError("the load was cancelled before it began")
        self._left()
        channel = Channel(self._session, self._row, self.parameter, self._inbox)
        try:
            self._open(channel)
            if isinstance(self._signal, Signal):
                self._signal.listen(self._wake)
            info = self._wait(channel)
            self._close_bar()
            return info
        except BaseException:
            # Ctrl-C, the signal, a limit, or the user's callback: never leave a model
            # behind that nobody knows of.
            self._close_bar()
            self._stop(channel)
            raise

    def _open(self, channel: Channel) -> None:
        limit = self._timeout
        try:
            channel.open(None if limit is None else self._started + limit)
        except LMStudioTimeoutError as exc:
            channel.abandon()  # a server that takes nothing will not say it is over
            self._inbox.is_over = True
            raise LMStudioTimeoutError(
                f"{self._row.name}: not loaded within {limit:g} s ({exc})"
            ) from None

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _wake(self) -> None:
        self._inbox.put([_WAKE])

    def _wait(self, channel: Channel) -> InstanceInfo:
        while True:
            self._check_signal()
            left = self._left()
            polls = self._signal is not None and not isinstance(self._signal, Signal)
            if polls:
                left = SIGNAL_SLICE if left is None else min(left, SIGNAL_SLICE)
            due = self._bar.due() if self._bar is not None else None
            if due is not None:
                left = due if left is None else min(left, due)
            self._rest = channel.receive(left) or []
            info = self._read(channel)
            if info is not None:
                return info
            if self._bar is not None:
                self._bar.tick()

    def _left(self) -> float | None:
        """Seconds until the limit; raises when it is over."""
        if self._timeout is None:
            return None
        left = self._started + self._timeout - time.monotonic()
        if left <= 0:
            raise LMStudioTimeoutError(
                f"{self._row.name}: not loaded within {self._timeout:g} s"
                f" ({self._progress:.0%} done)"
            )
        return left

    def _read(self, channel: Channel) -> InstanceInfo | None:
        while self._rest:
            item = self._rest[0]
            if type(item) is End and item is not _WAKE:
                raise self._failure(channel, item)
            kind = item.get("type") if isinstance(item, dict) else None
            if kind in _LOADED:
                self._check_signal()  # a callback may have set it just now
                self.was_loaded = kind == "alreadyLoaded"
                info: InstanceInfo = structure(
                    item.get("info"), InstanceInfo, f"{self._row.name}: {kind}"
                )
                return info
            del self._rest[0]
            if kind in _PROGRESS:
                self._report(item.get("progress"))
            elif kind == "resolved" and item.get("ambiguous"):
                log.warning(
                    "several models match; loading the first of %s", item["ambiguous"]
                )
            elif kind == "unloadingOtherJITModel":
                log.warning(
                    "the server unloads %.200r, to make room for a model on demand",
                    _identifier(item.get("info")),
                )
        return None

    def _report(self, progress: object) -> None:
        if isinstance(progress, (int, float)) and not isinstance(progress, bool):
            self._progress = as_float(progress)
            log.debug("loading: %.0f %%", self._progress * 100)
            if self._bar is not None:
                self._bar.update(self._progress)
            if self._on_progress is not None:
                self._on_progress(self._progress)

    def _failure(self, channel: Channel, end: End) -> LMStudioError:
        if end.how == "error":
            return LMStudioModelLoadError.from_wire(self._row.name, end.body)
        return channel.error_of(end) or channel.closed_early()

    def _check_signal(self) -> None:
        if self._is_cancelled():
            raise LMStudioCancelledError(
                f"the load was cancelled at {self._progress:.0%}"
            )

    def _is_cancelled(self) -> bool:
        return self._signal is not None and bool(self._signal.is_set())

    def _stop(self, channel: Channel) -> None:
        """Cancel, and unload a model whose success crossed the cancel."""
        inbox, deadline = self._inbox, time.monotonic() + CANCEL_TIME
        if not channel.is_sent:
            return
        if not inbox.is_over:
            channel.cancel()
        while not inbox.is_over and inbox.own is None:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            channel.receive(left)
        channel.forget()
        if inbox.own is not None:
            self._unload(inbox.own.get("info"))

    def _unload(self, info: object) -> None:
        identifier = info.get("identifier") if isinstance(info, dict) else None
        if isinstance(identifier, str):
            try:
                unload = Unload(identifier=identifier)
                call(self._session, self._namespace, "unloadModel", unload, timeout=5)
            except LMStudioError as exc:
                log.warning("a cancelled load left %s loaded: %s", identifier, exc)


def _identifier(info: Any) -> Any:
    """What a model is called, as far as its description says so."""
    return info.get("identifier", info) if isinstance(info, dict) else info
