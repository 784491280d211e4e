"""A model at work with tools: iterator, future and cancel in one."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any

from .actresult import (
    ActResult,
    EndedBy,
    Event,
    PredictionRoundResult,
    RoundFragment,
)
from .arguments import checked_seconds
from .errors import LMStudioError, LMStudioRuntimeError, LMStudioTimeoutError
from .forks import renew_locks
from .rounds import Rounds
from .toolcalls import ToolCall
from .wire.llm import Message, PredictionStats

#: The runs that the code which runs just now works for: their marks.
_working: contextvars.ContextVar[frozenset[object]] = contextvars.ContextVar(
    "lmstudio-act", default=frozenset()
)


class _Answer:
    """The short ways to what a result has; each waits for it."""

    result: Callable[..., ActResult]

    @property
    def content(self) -> str:
        """Wait for the end; the text of the last round."""
        return self.result().content

    @property
    def rounds(self) -> int:
        """Wait for the end; how many predictions there were."""
        return self.result().rounds

    @property
    def stats(self) -> list[PredictionStats]:
        """Wait for the end; what the server measured, round by round."""
        return self.result().stats

    @property
    def total_time_seconds(self) -> float:
        """Wait for the end; how long it took."""
        return self.result().total_time_seconds

    @property
    def text(self) -> str:
        """The same as `content`."""
        return self.content

    @property
    def predictions(self) -> Sequence[PredictionRoundResult]:
        """Wait for the end; the result of each round."""
        return self.result().predictions

    @property
    def is_cancelled(self) -> bool:
        """Wait for the end; see `ActResult`."""
        return self.result().is_cancelled

    @property
    def ended_by(self) -> EndedBy:
        """Wait for the end; see `ActResult`."""
        return self.result().ended_by

    def to_dict(self) -> dict[str, Any]:
        """Wait for the end; the run as JSON has it."""
        return self.result().to_dict()

    def __str__(self) -> str:
        return self.content


class ActRun(_Answer):
    """A model at work with tools: iterate over its text, wait, or cancel.

    The first round starts at once. From then on the run goes on while a thread iterates
    or waits: tools and callbacks run there, or, if several tools may run at once, the
    tools in threads of their own. Any number of threads may iterate and wait; one of
    them works for all. Iterating again gives everything from the first.

    It is cancelled as well by leaving a ``with`` block, by Ctrl-C in a thread that
    iterates or waits, by a time limit, by its signal, and when nobody holds it any
    more. A tool that runs can't be stopped: the run ends when it returns.
    """

    def __init__(self, rounds: Rounds) -> None:
        self._rounds = rounds
        # Stands for it in contexts: those may outlive it, and its `id` is free then.
        self._mark = object()
        renew_locks(self)

    def after_fork(self) -> None:
        """Replace what threads of the parent process may hold; see `forks`."""
        rounds = self._rounds
        if rounds.turns.after_fork() and rounds.outcome is None:
            # Calls of tools are done once: nobody knows how far that thread was.
            rounds.outcome = LMStudioRuntimeError(
                "the process was forked while another thread worked on this run;"
                " start a new one"
            )

    def __iter__(self) -> Iterator[RoundFragment]:
        """Yield the text of all rounds as it arrives, from the first.

        After `cancel` it ends at once.

        Raises:
            LMStudioPredictionError: The server gave up, or the model asked for a call
                that can't be read; with the text of the round in `partial`.
            LMStudioWebsocketError: The connection ended.
            LMStudioTimeoutError: A time limit ran out.
            Exception: What a callback of yours raised.
        """
        for event in self.events():
            if isinstance(event, RoundFragment):
                yield event

    def events(self) -> Iterator[Event]:
        """Yield what happens, as it happens, from the first.

        A `RoundFragment` is text; a `PredictionRoundResult` is what the model said in a
        round, with the calls that it asks for, before they are made; a `ToolCall` is a
        call with its answer.

        Raises what iterating raises.
        """
        rounds, position = self._rounds, 0
        ends_at_cancel = not rounds.is_stopped

        def is_over() -> bool:
            return ends_at_cancel and rounds.is_stopped

        try:
            while self._wait_beyond(position, None, is_over):
                for event in rounds.events[position:]:
                    if is_over():
                        return
                    position += 1
                    yield event
        except KeyboardInterrupt:
            self.cancel()
            raise
        if not is_over():
            self._raise_error()

    def result(self, timeout: float | None = None) -> ActResult:
        """Work until the end and return the whole.

        Args:
            timeout: Seconds from 0 on to wait for the model; None waits as long as it
                takes. A tool is not left in the middle. The run can go on afterwards.

        Raises:
            LMStudioTimeoutError: The time is over, or a limit of the run.
            Exception: As for iterating.
        """
        self._wait_for_end(timeout)
        self._raise_error()
        outcome = self._rounds.outcome
        assert isinstance(outcome, ActResult)  # no error, so it is the result
        return outcome

    def exception(self, timeout: float | None = None) -> LMStudioError | None:
        """Work until the end and return its error, None when it ended well.

        Raises:
            LMStudioTimeoutError: The time (seconds) is over.
        """
        self._wait_for_end(timeout)
        outcome = self._rounds.outcome
        return outcome.fresh() if isinstance(outcome, LMStudioError) else None

    def done(self) -> bool:
        """Whether it has ended, well or not. Does not wait."""
        return self._rounds.outcome is not None

    def cancel(self) -> bool:
        """Stop the model, and call no further tool. Safe to repeat, from any thread.

        The run then ends as usual, with what there is. A call that is not made any more
        gets an answer that says so.

        Returns:
            False when it had already ended.
        """
        return self._rounds.cancel()

    close = cancel

    @property
    def messages(self) -> Sequence[Message]:
        """What came to the conversation so far. Does not wait."""
        return tuple(self._rounds.messages)

    @property
    def calls(self) -> Sequence[ToolCall]:
        """The calls that have an answer so far. Does not wait."""
        return tuple(self._rounds.calls)

    def _raise_error(self) -> None:
        outcome = self._rounds.outcome
        if isinstance(outcome, LMStudioError):
            raise outcome.fresh()

    def _wait_for_end(self, timeout: float | None) -> None:
        limit = checked_seconds(timeout, "timeout", zero=True)
        deadline = None if limit is None else time.monotonic() + limit
        rounds = self._rounds
        while more := self._wait_beyond(len(rounds.events), deadline):
            pass
        if more is None:
            raise LMStudioTimeoutError(
                f"the run has not ended within {timeout:g} s ({rounds.how_far()});"
                " it can go on",
                rounds.text(),
            )

    def _wait_beyond(
        self,
        position: int,
        deadline: float | None,
        is_over: Callable[[], bool] = lambda: False,
    ) -> bool | None:
        """Wait for more events than `position`, working if no other thread does.

        Returns:
            True when there are more, False when there will be none, None when the
            time is over.
        """
        rounds = self._rounds

        def is_decided() -> bool:
            has_more = len(rounds.events) > position
            return has_more or is_over() or rounds.outcome is not None

        while not is_decided():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return None
            if self._mark in _working.get():
                raise LMStudioRuntimeError(
                    "a tool or a callback of a run can't wait for that run"
                )
            try:
                step = partial(self._step, deadline, is_decided)
                rounds.turns.work(step, left, is_decided)
            except BaseException:  # Ctrl-C, or what a function of the user raised
                self.cancel()
                raise
        return not is_over() and len(rounds.events) > position

    def _step(self, deadline: float | None, is_decided: Callable[[], bool]) -> None:
        """Do one step; what runs in it knows that it belongs to this run."""
        before = _working.set(_working.get() | {self._mark})
        try:
            self._rounds.step(deadline, is_decided)
        finally:
            _working.reset(before)

    def __enter__(self) -> ActRun:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()

    def __repr__(self) -> str:
        rounds, state = self._rounds, "running"
        if rounds.outcome is not None:
            failed = isinstance(rounds.outcome, LMStudioError)
            state = "failed" if failed else "done"
        return f"<ActRun {state}, {rounds.how_far()}>"
