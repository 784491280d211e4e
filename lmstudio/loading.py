"""Loading a model: progress, cancelling, and what came of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from .calls import Channel, call, structure
from .errors import (
    LMStudioCancelledError,
    LMStudioError,
    LMStudioModelLoadError,
    LMStudioTimeoutError,
)
from .mailbox import Mailbox
from .protocol.client import Batch, End
from .session import Session
from .signals import Signal
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


class Load:
    """One load from its request to its end, in the thread that waits for it."""

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
    ) -> None:
        self._session = session
        self._namespace = namespace
        self._row = endpoint(namespace, name)
        self._parameter = parameter
        self._on_progress = on_progress
        self._signal = signal
        self._timeout = timeout
        self._progress = 0.0
        self._inbox = Mailbox()
        self._ended = False  # nothing more can arrive

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
        channel = Channel(self._session, self._row, self._parameter, self._inbox)
        try:
            if isinstance(self._signal, Signal):
                self._signal.listen(self._wake)
            return self._wait(channel)
        except BaseException:
            # Ctrl-C, the signal, a limit, or the user's callback: never leave a model
            # behind that nobody knows of.
            if not self._ended:
                self._stop(channel)
            raise

    def _wake(self) -> None:
        self._inbox.put([_WAKE])

    def _wait(self, channel: Channel) -> InstanceInfo:
        started = time.monotonic()
        while True:
            if self._is_cancelled():
                raise LMStudioCancelledError(
                    f"the load was cancelled at {self._progress:.0%}"
                )
            left = None
            if self._timeout is not None:
                left = started + self._timeout - time.monotonic()
                if left <= 0:
                    raise LMStudioTimeoutError(
                        f"{self._row.name}: not loaded within {self._timeout:g} s"
                        f" ({self._progress:.0%} done)"
                    )
            polls = self._signal is not None and not isinstance(self._signal, Signal)
            if polls:
                left = SIGNAL_SLICE if left is None else min(left, SIGNAL_SLICE)
            batch = channel.receive(left)
            info = self._read(channel, batch or [])
            if info is not None:
                return info

    def _read(self, channel: Channel, batch: Batch) -> InstanceInfo | None:
        for item in batch:
            if type(item) is End:
                if item is not _WAKE:
                    self._ended = True
                    raise self._failure(channel, item)
                continue
            kind = item.get("type") if isinstance(item, dict) else None
            if kind in _LOADED:
                info: InstanceInfo = structure(
                    item.get("info"), InstanceInfo, f"{self._row.name}: {kind}"
                )
                return info
            if kind in _PROGRESS:
                self._report(item.get("progress"))
            elif kind == "resolved" and item.get("ambiguous"):
                log.warning(
                    "several models match; loading the first of %s", item["ambiguous"]
                )
            elif kind == "unloadingOtherJITModel":
                log.info("the server unloads another model: %.200r", item.get("info"))
        return None

    def _report(self, progress: object) -> None:
        if isinstance(progress, (int, float)) and not isinstance(progress, bool):
            self._progress = float(progress)
            log.debug("loading: %.0f %%", self._progress * 100)
            if self._on_progress is not None:
                self._on_progress(self._progress)

    def _failure(self, channel: Channel, end: End) -> LMStudioError:
        if end.how == "error":
            return LMStudioModelLoadError.from_wire(self._row.name, end.body)
        return channel.error_of(end) or channel.closed_early()

    def _is_cancelled(self) -> bool:
        return self._signal is not None and bool(self._signal.is_set())

    def _stop(self, channel: Channel) -> None:
        """Cancel, and unload a model whose success crossed the cancel."""
        channel.cancel()
        deadline = time.monotonic() + CANCEL_TIME
        while (left := deadline - time.monotonic()) > 0:
            for item in channel.receive(left) or []:
                if type(item) is End and item is not _WAKE:
                    return
                if isinstance(item, dict) and item.get("type") in _LOADED[:2]:
                    self._unload(item.get("info"))
                    channel.forget()
                    return
        channel.forget()

    def _unload(self, info: object) -> None:
        identifier = info.get("identifier") if isinstance(info, dict) else None
        if isinstance(identifier, str):
            try:
                unload = Unload(identifier=identifier)
                call(self._session, self._namespace, "unloadModel", unload, timeout=5)
            except LMStudioError as exc:
                log.warning("a cancelled load left %s loaded: %s", identifier, exc)
