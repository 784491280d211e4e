"""What has arrived of one prediction, shared by all who iterate or wait."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import attrs

from .errors import LMStudioProtocolError, shown
from .mailbox import SLICE, Mailbox
from .protocol.client import Batch, End
from .result import Fragment, fragment_from_wire

log = logging.getLogger("lmstudio.prediction")

#: What is behind it in a mailbox arrived after the prediction was cancelled.
CUT = End("cut")


@attrs.frozen(kw_only=True)
class Watch:
    """What the user wants to know of, and when to give up.

    Attributes:
        on_first_token: Called once, when the first fragment is seen.
        on_fragment: Called with each fragment.
        on_prompt_progress: Called with 0 to 1 while the prompt is processed.
        timeout: Seconds for the whole prediction, None for no limit.
        idle_timeout: Seconds without any message, None for no limit.
        signal: An event (anything with ``is_set``) that cancels.

    Callbacks run in the thread that iterates or waits. One that raises cancels the
    prediction, and its exception comes out there.
    """

    on_first_token: Callable[[], object] | None = None
    on_fragment: Callable[[Fragment], object] | None = None
    on_prompt_progress: Callable[[float], object] | None = None
    timeout: float | None = None
    idle_timeout: float | None = None
    signal: Any = None


class Malformed(Exception):
    """A packet does not fit the protocol; `error` says how."""

    def __init__(self, error: LMStudioProtocolError) -> None:
        super().__init__(error)
        self.error = error


class Arrivals:
    """The fragments of one prediction: kept in order, taken in by whoever waits.

    Attributes:
        fragments: All that was taken so far; it only grows.
        progress: Share of the prompt that is processed, None before any news.
        drained: True when nothing more can come.
    """

    def __init__(self, inbox: Mailbox, watch: Watch) -> None:
        self.fragments: list[Fragment] = []
        self.progress: float | None = None
        self.drained = False
        self._inbox = inbox
        self._watch = watch
        self._first_seen = False
        self._is_cut = False
        # Whoever holds it takes from the mailbox, for all who wait. Held while
        # waiting, so nobody may wait for it without a limit.
        self._taking = threading.Lock()

    def wait_beyond(
        self,
        position: int,
        deadline: float | None = None,
        is_over: Callable[[], bool] = lambda: False,
    ) -> bool | None:
        """Wait for more fragments than `position`.

        Args:
            deadline: Time of `time.monotonic`; None waits for ever.
            is_over: Ends the wait when it becomes true and something arrives.

        Returns:
            True when there are more, False when there will be none, None when the
            time is over.

        Raises:
            Malformed: A packet does not fit; it is left out.
            Exception: What a callback of the user raised.
        """
        while True:
            if is_over():
                return False
            if len(self.fragments) > position:
                return True
            if self.drained:
                return False
            left = None if deadline is None else deadline - time.monotonic()
            slice_ = SLICE if left is None else max(0.0, min(SLICE, left))
            if self._taking.acquire(timeout=slice_):
                try:
                    # The holder before us may have brought what we wait for.
                    if len(self.fragments) > position or self.drained:
                        continue
                    batch = self._inbox.get(left)
                    if batch is not None:
                        self._take(batch)
                        continue
                finally:
                    self._taking.release()
            if deadline is not None and time.monotonic() >= deadline:
                return None

    def take_what_is_here(self) -> None:
        """Take without waiting and without calling back, unless another is at it."""
        if self._taking.acquire(blocking=False):
            try:
                while (batch := self._inbox.get(0)) is not None:
                    self._take(batch, quietly=True)
            finally:
                self._taking.release()

    def how_far(self) -> str:
        """A few words on what has arrived, for messages."""
        if self.fragments:
            return f"{len(self.fragments)} fragments so far"
        if self.progress is not None:
            return f"{self.progress:.0%} of the prompt processed"
        return "nothing has arrived"

    def _take(self, batch: Batch, *, quietly: bool = False) -> None:
        """Put what arrived where it belongs. Only for the holder of `_taking`."""
        fragments, make = self.fragments, fragment_from_wire
        add, before = fragments.append, len(fragments)
        progress: list[float] = []
        problem: LMStudioProtocolError | None = None
        for item in batch:
            if type(item) is End:
                if item is CUT:
                    self._is_cut = True
                else:
                    self.drained = True
                continue
            try:
                kind = item["type"]
                if kind == "fragment":
                    if not self._is_cut:
                        add(make(item["fragment"]))
                elif kind == "promptProcessingProgress":
                    progress.append(float(item["progress"]))
                elif kind == "success":
                    self.drained = True
                else:
                    log.debug("packet: %.200r", item)
            except (KeyError, TypeError, ValueError, AttributeError) as exc:
                what = f"{type(exc).__name__}: {exc} in {shown(item)}"
                problem = problem or LMStudioProtocolError("predict", what)
        if progress:
            self.progress = progress[-1]
        if problem is not None:
            raise Malformed(problem)
        if not quietly:
            self._show(progress, fragments[before:])

    def _show(self, progress: list[float], new: list[Fragment]) -> None:
        """Tell the user's callbacks what arrived."""
        watch = self._watch
        if watch.on_prompt_progress is not None:
            for share in progress:
                watch.on_prompt_progress(share)
        if new and not self._first_seen:
            self._first_seen = True
            if watch.on_first_token is not None:
                watch.on_first_token()
        if watch.on_fragment is not None:
            for fragment in new:
                watch.on_fragment(fragment)
