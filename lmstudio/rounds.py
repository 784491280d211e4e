"""Rounds of prediction and tool calls: what happens, one step after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import attrs

from .actresult import (
    ActResult,
    Event,
    PredictionRoundResult,
    RoundFragment,
    of_round,
)
from .arguments import checked_callback, checked_count, checked_seconds, checked_signal
from .arrivals import Watch
from .errors import (
    LMStudioError,
    LMStudioTimeoutError,
    LMStudioToolError,
)
from .functions import Tool, tool_setting
from .prediction import Prediction
from .result import Fragment
from .toolcalls import (
    MOST_AT_ONCE,
    STOPPED,
    Caller,
    ToolCall,
    assistant_message,
    not_called,
    tool_message,
)
from .turns import Turns
from .wire.llm import History, Message, ToolCallRequest

#: Starts the prediction of a round: the history, options about tools, what to watch.
Start = Callable[[History, dict[str, Any], Watch], Prediction[Any]]

#: Callbacks, and how many arguments they are called with.
_CALLBACKS = {
    "on_message": 1,
    "on_first_token": 1,
    "on_prediction_fragment": 2,
    "on_round_start": 1,
    "on_round_end": 1,
    "on_prediction_completed": 1,
    "on_prompt_processing_progress": 2,
    "handle_invalid_tool_request": 2,
    "guard_tool_call": 1,
}


@attrs.frozen(kw_only=True)
class Rules:
    """How a run goes: its limits, and what the user wants to know of.

    The attributes are the arguments of `lmstudio.models.LLM.act`.

    Raises:
        LMStudioValueError: One of these can't be used.
    """

    max_prediction_rounds: int | None = None
    max_parallel_tool_calls: int | None = 1
    on_message: Callable[[Message], object] | None = None
    on_first_token: Callable[[int], object] | None = None
    on_prediction_fragment: Callable[[Fragment, int], object] | None = None
    on_round_start: Callable[[int], object] | None = None
    on_round_end: Callable[[int], object] | None = None
    on_prediction_completed: Callable[[PredictionRoundResult], object] | None = None
    on_prompt_processing_progress: Callable[[float, int], object] | None = None
    handle_invalid_tool_request: (
        Callable[[LMStudioToolError, ToolCallRequest | None], str | None] | None
    ) = None
    guard_tool_call: Callable[[ToolCallRequest], Any] | None = None
    tool_choice: Any = None
    timeout: float | None = None
    idle_timeout: float | None = None
    signal: Any = None

    def __attrs_post_init__(self) -> None:
        for name, takes in _CALLBACKS.items():
            checked_callback(getattr(self, name), name, takes=takes)
        for name in ("max_prediction_rounds", "max_parallel_tool_calls"):
            checked_count(getattr(self, name), name)
        checked_seconds(self.timeout, "timeout")
        checked_seconds(self.idle_timeout, "idle_timeout")
        checked_signal(self.signal)


class _Late(Exception):
    """The time of the run is over."""


class _Round:
    """The round that runs."""

    def __init__(self, index: int, prediction: Prediction[Any]) -> None:
        self.index = index
        self.prediction = prediction
        self.seen = 0  # fragments that were shown
        self.result: PredictionRoundResult | None = None
        self.answers: Iterator[ToolCall] | None = None  # once the model is done
        self.calls: list[ToolCall] = []
        self.is_recorded = False


class Rounds:
    """The rounds of one run. `step` is for one thread at a time, the rest for any.

    Attributes:
        events: All that happened so far; it only grows.
        messages: What came to the conversation so far.
        calls: The calls that have an answer so far.
        outcome: How it ended; None before.
        is_stopped: Whether it was cancelled; once true it stays so.
        turns: Whose turn it is to call `step`. The lock of its `news` guards `outcome`
            and which round runs, so that a cancel between two rounds reaches one of
            them. It is never held while sending, waiting for the server or calling
            out.
    """

    def __init__(
        self, start: Start, history: History, tools: Mapping[str, Tool], rules: Rules
    ) -> None:
        self._start = start
        self._history = list(history.messages)
        self._tools = tools
        self._rules = rules
        self._started = time.monotonic()
        self._calls_back = True  # until a callback raised
        self._predictions: list[PredictionRoundResult] = []
        self.events: list[Event] = []
        self.messages: list[Message] = []
        self.calls: list[ToolCall] = []
        self.outcome: ActResult | LMStudioError | None = None
        self.is_stopped = False
        self.turns = Turns()
        self._round = self._begun(0)

    def cancel(self) -> bool:
        """Stop the model, and call no further tool; False when it had ended."""
        with self.turns.news:
            if self.outcome is not None:
                return False
            self.is_stopped = True
            prediction = self._round.prediction
            self.turns.news.notify_all()
        prediction.cancel()
        return True

    def step(self, deadline: float | None, is_over: Callable[[], bool]) -> None:
        """Wait for what comes next, and do it.

        Args:
            deadline: Time of `time.monotonic` at which waiting for the model ends.
            is_over: Ends that wait as well, once it is true.

        Raises:
            Exception: What a function of the user raised; the run is stopped then, and
                calls no other of them.
        """
        round_ = self._round
        try:
            if round_.answers is None:
                news = round_.prediction.beyond(round_.seen, deadline, is_over)
                if news:
                    self._show(round_, news)
                elif news is not None:
                    self._end_prediction(round_)
            elif (call := next(round_.answers, None)) is not None:
                round_.calls.append(call)
                self.calls.append(call)
                self._add(call)
            else:
                self._end_round(round_)
        except _Late:
            self._settle(self._late())
        except BaseException:  # Ctrl-C, or what a function of the user raised
            self._calls_back = False
            self.cancel()
            if round_.result is not None:  # nothing is left to wait for
                self._settle(self._finished())
            raise

    def how_far(self) -> str:
        """A few words on what has happened, for messages."""
        count = len(self.calls)
        return (
            f"round {self._round.index + 1}, {count} call{'s' * (count != 1)} answered"
        )

    def text(self) -> str:
        """The text of this round so far."""
        index = self._round.index
        pieces = (e for e in self.events[:] if isinstance(e, RoundFragment))
        return "".join(piece for piece in pieces if piece.round_index == index)

    def _begun(self, index: int) -> _Round:
        """Start the prediction of a round."""
        rules = self._rules
        self._tell(rules.on_round_start, index)
        progress = rules.on_prompt_processing_progress
        left = self._left()
        # It must not hold the run: a run that nobody holds is to be cancelled.
        watch = Watch(
            on_prompt_progress=progress and partial(_with_index, progress, index),
            timeout=None if left is None else max(left, 0.001),
            idle_timeout=rules.idle_timeout,
            signal=rules.signal,
        )
        options: dict[str, Any] = {"raw_tools": tool_setting({})}
        if not self._is_last(index):
            # A model that must call a tool in every round would never end.
            choice = rules.tool_choice
            mode = choice.get("mode") if isinstance(choice, Mapping) else choice
            options = {
                "raw_tools": tool_setting(self._tools),
                "tool_choice": "auto" if mode == "required" and index else choice,
            }
        history = History(messages=[*self._history])
        return _Round(index, self._start(history, options, watch))

    def _is_last(self, index: int) -> bool:
        return index + 1 == self._rules.max_prediction_rounds

    def _show(self, round_: _Round, news: Sequence[Fragment]) -> None:
        is_first, round_.seen = round_.seen == 0, round_.seen + len(news)
        if self.is_stopped:
            return
        self._add(*(of_round(piece, round_.index) for piece in news))
        if is_first:
            self._tell(self._rules.on_first_token, round_.index)
        if (on_fragment := self._rules.on_prediction_fragment) is not None:
            for piece in news:
                self._tell(on_fragment, piece, round_.index)

    def _end_prediction(self, round_: _Round) -> None:
        """The model has said all: what it asks for is to be answered."""
        error = round_.prediction.exception(0)
        if error is not None:
            is_late = isinstance(error, LMStudioTimeoutError) and self._left() == 0
            self._settle(self._late() if is_late else error)
            return
        result = PredictionRoundResult(round_.prediction.result(), round_.index)
        round_.result = result
        self._predictions.append(result)
        self._add(result)
        if result.stats.stop_reason == "userStopped":  # by the signal, or over there
            self.is_stopped = True
        self._tell(self._rules.on_prediction_completed, result)
        if result.failed_tool_calls and not self.is_stopped:
            self._settle(self._unreadable(result.failed_tool_calls[0]))
            return
        rules, is_last = self._rules, self._is_last(round_.index)
        caller = Caller(
            tools=self._tools,
            guard=rules.guard_tool_call,
            handle_invalid=rules.handle_invalid_tool_request,
            at_once=rules.max_parallel_tool_calls or MOST_AT_ONCE,
            is_stopping=lambda: is_last or self._is_stopping(),
            why_not=lambda: _why_not(rules, is_last and not self.is_stopped),
            check_time=self._check_time,
        )
        round_.answers = caller.answers(result.tool_calls, round_.index)

    def _end_round(self, round_: _Round) -> None:
        """Everything is answered: the next round, or the end."""
        for message in self._record(round_):
            self._tell(self._rules.on_message, message)
        self._tell(self._rules.on_round_end, round_.index)
        if not round_.calls or self._is_last(round_.index) or self._is_stopping():
            self._settle(self._finished())
            return
        self._check_time()
        try:
            begun = self._begun(round_.index + 1)
        except LMStudioError as exc:
            self._settle(exc)
            return
        with self.turns.news:
            self._round = begun
            is_late = self.is_stopped
        if is_late:  # cancelled meanwhile, when there was nothing to cancel
            begun.prediction.cancel()

    def _record(self, round_: _Round) -> list[Message]:
        """Put a round into the conversation; each request gets its answer."""
        result, calls = round_.result, round_.calls
        if result is None or round_.is_recorded:
            return []
        round_.is_recorded = True
        for request in result.tool_calls[len(calls) :]:
            is_last = self._is_last(round_.index) and not self.is_stopped
            why = _why_not(self._rules, is_last)
            calls.append(not_called(request, round_.index, why))
            self.calls.append(calls[-1])
        if not (result.content or calls) and self.is_stopped:
            return []  # it had not said anything yet
        made = [assistant_message(result.content, result.tool_calls)]
        if calls:
            made.append(tool_message(calls))
        self.messages += made
        self._history += made
        return made

    def _unreadable(self, failure: LMStudioToolError) -> LMStudioError:
        """The error of a call that can't be read: there is no request to answer."""
        error = failure.fresh()
        error.partial = self.text()
        if self._rules.handle_invalid_tool_request is not None and self._calls_back:
            self._rules.handle_invalid_tool_request(failure, None)
        return error

    def _add(self, *events: Event) -> None:
        self.events += events
        self.turns.tell()  # others need not wait for the callbacks

    def _tell(self, callback: Callable[..., object] | None, *news: Any) -> None:
        if callback is not None and self._calls_back:
            callback(*news)

    def _settle(self, outcome: ActResult | LMStudioError) -> None:
        self._record(self._round)
        with self.turns.news:
            if self.outcome is None:
                self.outcome = outcome

    def _finished(self) -> ActResult:
        self._record(self._round)
        is_last = self._is_last(self._round.index)
        return ActResult(
            predictions=tuple(self._predictions),
            messages=tuple(self.messages),
            calls=tuple(self.calls),
            is_cancelled=self.is_stopped,
            ended_by="cancel" if self.is_stopped else "limit" if is_last else "answer",
            total_time_seconds=time.monotonic() - self._started,
        )

    def _is_stopping(self) -> bool:
        signal = self._rules.signal
        if signal is not None and signal.is_set():
            self.is_stopped = True
        return self.is_stopped

    def _left(self) -> float | None:
        """Seconds until the time is over; None without a limit."""
        limit = self._rules.timeout
        if limit is None:
            return None
        return max(0.0, self._started + limit - time.monotonic())

    def _check_time(self) -> None:
        if self._left() == 0:
            raise _Late

    def _late(self) -> LMStudioTimeoutError:
        limit = self._rules.timeout
        return LMStudioTimeoutError(
            f"act: not finished within {limit:g} s ({self.how_far()})", self.text()
        )


def _with_index(
    progress: Callable[[float, int], object], index: int, share: float
) -> None:
    progress(share, index)


def _why_not(rules: Rules, is_last: bool) -> str:
    """What the model is told of a call that is not made any more."""
    if not is_last:
        return STOPPED
    limit = rules.max_prediction_rounds
    rounds = f"{limit} round{'' if limit == 1 else 's'}"
    return f"not called: the limit of {rounds} was reached"
