"""What has arrived of one prediction, shared by all who iterate or wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import chain
from typing import Any

import attrs

from .arguments import checked_callback, checked_seconds, checked_signal
from .asked import Asked
from .errors import LMStudioProtocolError, LMStudioRuntimeError, shown
from .mailbox import Mailbox
from .progress import Bar
from .protocol.client import Batch, End
from .result import Fragment, fragment_from_wire
from .turns import TURN, Turns, never
from .wire.checks import as_float
from .wire.llm import Message, Part, ToolCallRequest

#: What is behind it in a mailbox arrived after the prediction was cancelled.
CUT = End("cut")

_CALLBACKS = (
    "on_first_token",
    "on_fragment",
    "on_prompt_progress",
    "on_tool_call",
    "on_message",
)
_WATCHED = (*_CALLBACKS, "bar")


@attrs.frozen(kw_only=True)
class Watch:
    """What the user wants to know of, and when to give up.

    Attributes:
        on_first_token: Called once, when the first fragment is seen.
        on_fragment: Called with each fragment.
        on_prompt_progress: Called with 0 to 1 while the prompt is processed.
        on_tool_call: Called with each call of a tool that the model asks for.
        on_message: Called once, at the end, with the message of the model.
        timeout: Seconds for the whole prediction, None for no limit.
        idle_timeout: Seconds without any message, None for no limit.
        signal: An event (anything with ``is_set``) that cancels.
        bar: Shows how far the prompt is processed, until the first fragment.

    Callbacks run in the thread that iterates or waits. One that raises cancels the
    prediction, its exception comes out there, and no callback is called any more.

    Raises:
        LMStudioValueError: One of these can't be used.
    """

    on_first_token: Callable[[], object] | None = None
    on_fragment: Callable[[Fragment], object] | None = None
    on_prompt_progress: Callable[[float], object] | None = None
    on_tool_call: Callable[[ToolCallRequest], object] | None = None
    on_message: Callable[[Message], object] | None = None
    timeout: float | None = None
    idle_timeout: float | None = None
    signal: Any = None
    bar: Bar | None = None

    def __attrs_post_init__(self) -> None:
        for name in _CALLBACKS:
            takes = 0 if name == "on_first_token" else 1
            checked_callback(getattr(self, name), name, takes=takes)
        checked_seconds(self.timeout, "timeout")
        checked_seconds(self.idle_timeout, "idle_timeout")
        checked_signal(self.signal)


class Malformed(Exception):
    """A packet does not fit the protocol; `error` says how."""

    def __init__(self, error: LMStudioProtocolError) -> None:
        super().__init__(error)
        self.error = error


@attrs.define  # not frozen: one is made for each batch, and that takes half as long
class _Before:
    """What was there before batches were put in their place.

    Attributes:
        taken: The batches.
        count: How many fragments there were.
        asked: The calls of tools.
        is_cut: Whether the prediction was cancelled before them.
    """

    taken: list[Batch]
    count: int
    asked: Asked
    is_cut: bool


class Arrivals:
    """The fragments of one prediction: kept in order, taken in by whoever waits.

    Attributes:
        fragments: All that was taken so far; it only grows.
        asked: The calls of tools that the model asks for.
        progress: Share of the prompt that is processed, None before any news.
        drained: True when nothing more can come.
    """

    def __init__(self, inbox: Mailbox, watch: Watch) -> None:
        self.fragments: list[Fragment] = []
        self.asked = Asked()
        self.progress: float | None = None
        self.drained = False
        self._inbox = inbox
        self._watch = watch
        self._is_watched = any(getattr(watch, name) for name in _WATCHED)
        self._first_seen = False
        self._calls_back = True  # until a callback raised
        self._is_cut = False
        # Who takes for all who wait. Its dict is used here as `Turns.work` uses it: a
        # call more for each batch would cost more than the turn does.
        self._turns = Turns()
        self._turn = self._turns.holder
        # Batches out of the mailbox that are not put in their place yet, and what was
        # there before that began. Ctrl-C may come in the middle of it: whoever is
        # next begins again with the same batches, and comes to the same.
        self._taken: list[Batch] = []
        self._before: _Before | None = None
        self._problem: LMStudioProtocolError | None = None  # to be raised

    def wait_beyond(
        self,
        position: int,
        deadline: float | None = None,
        is_over: Callable[[], bool] = never,
    ) -> bool | None:
        """Wait for more fragments than `position`.

        Args:
            deadline: Time of `time.monotonic`; None waits for ever.
            is_over: Ends the wait when it becomes true and something arrives.

        Returns:
            True when there are more, False when there will be none, None when the
            time is over.

        Raises:
            Malformed: A packet does not fit; it is left out. Raised until
                `problem_is_known`.
            LMStudioRuntimeError: A callback waits for the end of what waits for it.
            Exception: What a callback of the user raised.
        """
        fragments = self.fragments
        try:
            while not (is_over() or self.drained or len(fragments) > position):
                left = None if deadline is None else deadline - time.monotonic()
                came = self._next(position, left, is_over)
                if not came and left is not None and left <= 0:
                    return None
        finally:
            if self._watch.bar is not None:
                self._watch.bar.clear()  # nobody draws it while nobody waits
        self._raise_problem()
        return len(fragments) > position and not is_over()

    def _next(
        self, position: int, left: float | None, is_over: Callable[[], bool]
    ) -> bool:
        """Take one batch, or wait until another thread has; False when none came."""
        mine, turn = (threading.get_ident(),), self._turn
        if turn and self._turns.is_mine:
            raise LMStudioRuntimeError(
                "a callback of a prediction can't wait for that prediction"
            )
        try:
            if turn.setdefault(TURN, mine) is not mine:
                return self._turns.wait(
                    left,
                    lambda: is_over() or self.drained or len(self.fragments) > position,
                )
            if is_over() or self.drained or len(self.fragments) > position:
                return True  # another thread brought it meanwhile
            bar, taken = self._watch.bar, self._taken
            limit = left if bar is None else self._until(left, bar)
            if taken or self._inbox.move(taken, limit):
                self._take()
                return True
            if bar is not None:
                bar.tick()
            return False
        finally:
            if turn.get(TURN) is mine:
                self._turns.leave()

    @staticmethod
    def _until(left: float | None, bar: Bar) -> float | None:
        """Seconds to wait, at most until the bar wants to appear."""
        due = bar.due()
        if due is None:
            return left
        return due if left is None else min(left, due)

    def take_what_is_here(self) -> None:
        """Take without waiting and without calling back, unless another is at it."""
        mine, turn = (threading.get_ident(),), self._turn
        try:
            if turn.setdefault(TURN, mine) is not mine:
                return  # this very thread, perhaps
            while self._taken or self._inbox.move(self._taken, 0):
                self._take(quietly=True)
        finally:
            if turn.get(TURN) is mine:
                self._turns.leave()

    def after_fork(self) -> None:
        """Whoever took for all is not here; what it had in hand is."""
        self._turns.after_fork()

    def prompt_share(self) -> float | None:
        """Take over from the bar: how far the prompt is; None if there is no bar."""
        if self._watch.bar is None:
            return None
        self._watch.bar.close()
        return self.progress or 0.0

    def how_far(self) -> str:
        """A few words on what has arrived, for messages."""
        if self.fragments:
            count = len(self.fragments)
            return f"{count} fragment{'s' * (count > 1)} so far"
        if self.progress is not None:
            return f"{self.progress:.0%} of the prompt processed"
        return "nothing has arrived"

    def _take(self, *, quietly: bool = False) -> None:
        """Put what was taken where it belongs. Only for who has the turn."""
        taken, before, make = self._taken, self._before, fragment_from_wire
        if before is None or before.taken is not taken:
            self._before = before = _Before(
                taken, len(self.fragments), self.asked, self._is_cut
            )
        new: list[Fragment] = []
        add, rare = new.append, []
        progress: list[float] = []
        problem: LMStudioProtocolError | None = None
        is_cut, is_last, is_answered = before.is_cut, False, False
        for item in taken[0] if len(taken) == 1 else chain.from_iterable(taken):
            if type(item) is End:
                is_cut = is_cut or item is CUT
                is_last = is_last or item is not CUT
                continue
            try:
                kind = item["type"]
                if kind == "fragment":
                    if not is_cut:
                        add(make(item["fragment"]))
                elif kind == "promptProcessingProgress":
                    share = item.get("progress")
                    if isinstance(share, (int, float)):
                        progress.append(as_float(share))
                elif kind == "success":
                    is_answered = True
                elif not is_cut:
                    rare.append((kind, item))
            except (KeyError, TypeError, AttributeError) as exc:
                problem = problem or _misfit(exc, item)
        asked = before.asked
        calls: list[ToolCallRequest] = []
        if rare:
            asked, calls, problem = _asked_for(asked, rare, problem)
        # All that others see, in steps that may be repeated; the last ends the taking.
        self.fragments[before.count :] = new
        self.asked, self._is_cut = asked, is_cut
        if progress:
            self.progress = progress[-1]
        self._problem = self._problem or problem
        self.drained = self.drained or is_last
        self._taken = []
        self._before = None
        self._raise_problem()
        if not quietly and self._calls_back and self._is_watched:
            self._show(progress, new, calls, is_answered)

    def _raise_problem(self) -> None:
        if self._problem is not None:
            raise Malformed(self._problem)

    def problem_is_known(self) -> None:
        """Raise it no more: whoever asks has done about it what there is to do."""
        self._problem = None

    def _show(
        self,
        progress: list[float],
        new: list[Fragment],
        calls: list[ToolCallRequest],
        is_answered: bool,
    ) -> None:
        """Tell the user's callbacks what arrived."""
        watch = self._watch
        self._turns.tell()  # others need not wait for the callbacks
        if watch.bar is not None:
            if new or calls or self.drained or self._is_cut:
                watch.bar.close()
            elif progress:
                watch.bar.update(progress[-1])
        self._calls_back = False  # stays so when one raises: that comes out once
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
        if watch.on_tool_call is not None:
            for call in calls:
                watch.on_tool_call(call)
        if is_answered and watch.on_message is not None:
            watch.on_message(self._message())
        self._calls_back = True

    def _message(self) -> Message:
        """What the model said, as a message."""
        parts = [Part(type="text", text="".join(self.fragments))]
        for call in self.asked.calls:
            parts.append(Part(type="toolCallRequest", tool_call_request=call))
        return Message(role="assistant", content=parts)


def _asked_for(
    before: Asked,
    packets: list[tuple[Any, dict[str, Any]]],
    problem: LMStudioProtocolError | None,
) -> tuple[Asked, list[ToolCallRequest], LMStudioProtocolError | None]:
    """The calls of tools with these packets, which of them are new, what is wrong."""
    asked, calls = before.copy(), []
    for kind, packet in packets:
        try:
            if asked.take(kind, packet):
                calls.append(asked.calls[-1])
        except LMStudioProtocolError as exc:
            problem = problem or exc
    return asked, calls, problem


def _misfit(exc: Exception, packet: object) -> LMStudioProtocolError:
    what = f"{type(exc).__name__}: {exc} in {shown(packet)}"
    return LMStudioProtocolError("predict", what)
