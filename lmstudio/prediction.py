"""Text being generated: iterator, future and cancel in one."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Generic, TypeVar

from .arguments import checked_callback, checked_seconds
from .arrivals import CUT, Arrivals, Malformed, Watch
from .calls import Channel, error_of
from .errors import (
    LMStudioChannelClosedError,
    LMStudioError,
    LMStudioPredictionError,
    LMStudioRuntimeError,
    LMStudioTimeoutError,
)
from .forks import renew_locks
from .mailbox import Mailbox
from .protocol.client import Batch, End
from .result import Fragment, PredictionResult
from .session import Session
from .signals import Signal
from .turns import never
from .wire.common import InstanceInfo
from .wire.llm import PredictionStats, ToolCallRequest
from .worker import Worker

log = logging.getLogger("lmstudio.prediction")

T = TypeVar("T")

#: Seconds between two looks at a signal that can't call us.
SIGNAL_SLICE = 0.1
#: Seconds after which a time limit is looked at again in any case: what watches a
#: prediction that is long gone does not stay until its limit.
LOOK_AGAIN = 10.0

#: How a prediction ended: with the success packet, or with an error.
Outcome = dict[str, Any] | LMStudioError


class _Inbox(Mailbox):
    """The mailbox of a prediction: tells it of the last packet, and lets it go.

    It must not keep the prediction alive: one that nobody holds is to be cancelled.
    """

    def __init__(self, prediction: Prediction[Any]) -> None:
        super().__init__()
        self._prediction = weakref.ref(prediction)
        self.kept: Prediction[Any] | None = None  # while it has done callbacks

    def pending(self) -> Prediction[Any] | None:
        """The prediction, if somebody has it and has neither read nor stopped it."""
        found = self._prediction()
        if found is None or found.done() or found._stopping or found._iterated:
            return None
        return found

    def put(self, batch: Batch) -> None:
        item = batch[-1]
        if type(item) is dict and item.get("type") == "fragment":
            super().put(batch)  # nearly always: nothing ends with a fragment
            return
        last = _last(batch)
        if last is not None:
            # The outcome first: whoever takes the last packet must find it there.
            prediction = self._prediction()
            if prediction is not None:
                prediction._settle(last)
            self.kept = None
            batch.append(_OVER)  # no need to wait for a close behind the success
        super().put(batch)


_OVER = End("closed")


def _last(batch: Batch) -> dict[str, Any] | End | None:
    """The success in a batch, or else the end of the channel; None without either.

    The look is short: it goes from the end to the next fragment.
    """
    end = None
    for item in reversed(batch):
        if type(item) is End:
            end = None if item is CUT else item
        elif type(item) is dict:
            kind = item.get("type")
            if kind == "success":
                return item
            if kind == "fragment":
                break
    return end


class _Answer(Generic[T]):
    """The short ways to what a result has; each waits for it."""

    result: Callable[..., PredictionResult[T]]
    exception: Callable[..., LMStudioError | None]
    done: Callable[[], bool]

    def _get_snapshot(
        self,
    ) -> tuple[bool, bool, PredictionResult[T] | None, LMStudioError | None]:
        # asyncio asks for it from 3.15 on, in place of `result` and `exception`: is it
        # done, is it cancelled, and both of these. The future's own knows neither.
        if not self.done():
            return False, False, None, None
        error = self.exception()
        return True, False, None if error else self.result(), error

    @property
    def content(self) -> str:
        """Wait for the end; the whole text."""
        return self.result().content

    @property
    def parsed(self) -> T:
        """Wait for the end; the answer as what was asked for."""
        return self.result().parsed

    @property
    def stats(self) -> PredictionStats:
        """Wait for the end; what the server measured."""
        return self.result().stats

    @property
    def tool_calls(self) -> Sequence[ToolCallRequest]:
        """Wait for the end; the calls of tools that the model asks for."""
        return self.result().tool_calls

    @property
    def model_info(self) -> InstanceInfo | None:
        """Wait for the end; the model that answered."""
        return self.result().model_info

    def __str__(self) -> str:
        return self.content

    def __format__(self, spec: str) -> str:
        return format(self.content, spec)


class _Shown(_Answer[T]):
    """What notebooks ask a prediction for."""

    _session: Session
    _channel: Channel
    _arrivals: Arrivals
    _parse: Callable[[str, str], T] | None
    beyond: Callable[..., Sequence[Fragment] | None]
    cancel: Callable[[], bool]

    def _ipython_display_(self) -> None:
        # IPython calls it for the last value of a cell, and for display().
        from .notebook import show

        show(self, is_json=self._parse is not None)
        # A notebook keeps all that it has shown. That must not keep the client.
        self._session = self._session.shadow()
        self._channel.outlive_session()

    def _mime_(self) -> tuple[str, str]:
        # The same for marimo, where nothing can be shown before it is whole.
        return "text/markdown", self.result()._repr_markdown_()

    def prompt_share(self) -> float | None:
        """How much of the prompt is processed, for who shows it in place of the bar.

        The bar is not drawn any more; None when there is none, as it is not wanted.
        """
        return self._arrivals.prompt_share()


class _Settled(_Shown[T], Future[PredictionResult[T]]):
    """The step to done, and its locks."""

    def __init__(self) -> None:
        super().__init__()
        self._outcome: Outcome | None = None
        self._looked = False  # somebody has met the outcome
        # Guards _outcome, _stopping and the step to done. Held for a moment only:
        # the reader takes it. Reentrant for signal handlers that cancel.
        self._settling = threading.RLock()

    def after_fork(self) -> None:
        """Replace what threads of the parent process may hold; see `forks`."""
        self._settling, self._condition = threading.RLock(), threading.Condition()
        for waiter in self._waiters:  # of `as_completed`, perhaps of this very thread
            if hasattr(waiter, "lock"):
                waiter.lock = threading.Lock()
        self._arrivals.after_fork()
        self._looked = True  # whoever asks in the child is told; nobody else need be
        if self._outcome is not None and not self.done():
            self._announce(self._outcome)  # whoever was about to is not here

    def _announce(self, outcome: Outcome) -> None:
        if isinstance(outcome, LMStudioError):
            self.set_exception(outcome)
        else:
            # The result itself is made by whoever asks for it.
            self.set_result(None)  # type: ignore[arg-type]  # only wakes the waiters


class Prediction(_Settled[T]):
    """Text being generated: iterate over it, wait for its result, or cancel it.

    It goes on whether or not anyone iterates. Iterating again, or from another thread,
    gives every fragment from the first. It is a `concurrent.futures.Future` with one
    difference: `cancel` asks the server to stop, and the prediction then *ends
    normally* with the text so far and the stop reason ``"userStopped"``; `cancelled`
    stays False.

    It is cancelled as well by leaving a ``with`` block, by Ctrl-C in a thread that
    iterates or waits, by a time limit, by its signal, and when nobody holds it any
    more.
    """

    def __init__(
        self,
        session: Session,
        make_channel: Callable[[Mailbox], Channel],
        watch: Watch,
        parse: Callable[[str, str], T] | None = None,
    ) -> None:
        super().__init__()
        self._session = session
        self._parse = parse
        self._stopping = False  # cancel() was called
        self._is_stopped = False  # and has done what it does
        self._iterated = False  # somebody has begun to
        self._result: PredictionResult[T] | None = None
        self.set_running_or_notify_cancel()
        self._inbox = _Inbox(self)
        self._arrivals = Arrivals(self._inbox, watch)
        renew_locks(self)
        self._channel = make_channel(self._inbox)
        self._guard = _Guard(self, watch)
        try:
            self._guard.open(self._channel)
            self._guard.start()
        except BaseException:  # Ctrl-C above all: the request may be on its way
            self._channel.abandon()
            raise

    def __iter__(self) -> Iterator[Fragment]:
        """Yield fragments as they arrive, from the first.

        After `cancel` it ends at once: what had arrived but was not yielded yet is in
        the result.

        Raises:
            LMStudioPredictionError: The server gave up, with the text in `partial`.
            LMStudioWebsocketError: The connection ended, with the text in `partial`.
            LMStudioTimeoutError: A time limit ran out, with the text in `partial`.
        """
        fragments, position = self._arrivals.fragments, 0
        self._iterated = True
        ends_at_cancel = not self._stopping

        def is_over() -> bool:
            return ends_at_cancel and self._stopping

        try:
            while self._wait_beyond(position, None, is_over):
                new = fragments[position:]
                position += len(new)
                for fragment in new:
                    if self._stopping and ends_at_cancel:
                        return
                    yield fragment
        except KeyboardInterrupt:
            self.cancel()
            raise
        if not is_over() and isinstance(self._outcome, LMStudioError):
            raise self._error()

    def result(self, timeout: float | None = None) -> PredictionResult[T]:
        """Wait for the end and return the whole.

        Args:
            timeout: Seconds to wait from 0 on; None waits as long as it takes. The
                prediction goes on when the time is over; `Watch.timeout` is what ends
                it.

        Raises:
            LMStudioValueError: That is no time.
            LMStudioTimeoutError: The time is over, or a limit of the prediction.
            LMStudioPredictionError, LMStudioWebsocketError: As for iterating.
        """
        self._wait_for_end(timeout)
        if isinstance(self._outcome, LMStudioError):
            raise self._error()
        self._looked = True
        if self._result is None:
            assert self._outcome is not None  # it is set before the last packet
            self._result = PredictionResult(
                self._arrivals.fragments,
                self._outcome,
                self._parse,
                self._arrivals.asked,
            )
        return self._result

    def exception(self, timeout: float | None = None) -> LMStudioError | None:
        """Wait for the end and return its error, None when it ended well.

        Raises:
            LMStudioTimeoutError: The time (seconds from 0 on) is over.
            LMStudioValueError: That is no time.
        """
        self._wait_for_end(timeout)
        return self._error() if isinstance(self._outcome, LMStudioError) else None

    def wait_for_result(self) -> PredictionResult[T]:
        """The same as `result` without a limit."""
        return self.result()

    def beyond(
        self,
        position: int,
        deadline: float | None = None,
        is_over: Callable[[], bool] = never,
    ) -> Sequence[Fragment] | None:
        """Wait for more fragments than `position`, for who iterates in steps.

        Args:
            deadline: Time of `time.monotonic`; None waits for ever.
            is_over: Ends the wait when it becomes true and something arrives.

        Returns:
            The fragments behind the position; none of them when the prediction has
            ended; None when the time is over, or the wait.
        """
        self._iterated = True
        more = self._wait_beyond(position, deadline, is_over)
        if more:
            return self._arrivals.fragments[position:]
        return None if more is None or is_over() else ()

    def settled(self) -> None:
        """Wait for the end, whatever it is; who asks for the result learns of it."""
        self._wait_for_end(None)

    def _wait_for_end(self, timeout: float | None) -> None:
        limit = checked_seconds(timeout, "timeout", zero=True)
        deadline = None if limit is None else time.monotonic() + limit
        arrivals = self._arrivals
        while (more := self._wait_beyond(len(arrivals.fragments), deadline)) is not (
            False
        ):
            if more is None:
                raise LMStudioTimeoutError(
                    f"the prediction has not ended within {timeout:g} s"
                    f" ({arrivals.how_far()}); it goes on",
                    "".join(arrivals.fragments),
                )

    def _wait_beyond(
        self,
        position: int,
        deadline: float | None,
        is_over: Callable[[], bool] = never,
    ) -> bool | None:
        """Wait for more fragments; stops the server when waiting goes wrong."""
        while True:
            try:
                return self._arrivals.wait_beyond(position, deadline, is_over)
            except Malformed as exc:
                self._give_up(exc.error, overrules=True)
                self._arrivals.problem_is_known()
            except BaseException:  # Ctrl-C, or what a callback of the user raised
                self.cancel()
                raise

    def _settle(self, last: Outcome | End) -> None:
        """The outcome is known. Called by the reader, or by whoever gives up."""
        outcome = self._failure(last) if isinstance(last, End) else last
        with self._settling:
            if self._outcome is not None:
                return
            self._outcome = outcome
        self._announce(outcome)

    def _failure(self, end: End) -> LMStudioError:
        """The error of a channel that ended before the success."""
        if end.how == "error":
            return LMStudioPredictionError.from_wire("predict", end.body)
        error = error_of(end, "predict", self._session.known_address)
        return error or LMStudioChannelClosedError(
            "predict", "the server closed the channel without a result"
        )

    def _give_up(self, error: LMStudioError, *, overrules: bool = False) -> None:
        """End with an error that was found on this side.

        Args:
            overrules: Also after a success: its text has a hole.
        """
        self._settle(error)
        with self._settling:
            if overrules and not isinstance(self._outcome, LMStudioError):
                self._outcome = error
        self._inbox.put([End("expired", error)])
        self._channel.abandon()

    def cancel(self) -> bool:
        """Ask the server to stop early. Safe to repeat, and after the end.

        The prediction then ends as usual: its stop reason is ``"userStopped"`` and its
        content what had been received until now.

        Returns:
            False when it had already ended.
        """
        with self._settling:
            if self._outcome is not None:
                return False
            self._stopping = True
            if not self._is_stopped:  # or a second Ctrl-C interrupted it here
                self._inbox.put([CUT])
                # On the worker: a signal handler may be here while its own thread
                # holds the locks of the connection, or is in the middle of a frame.
                self._session.worker.soon(self._channel.cancel)
                self._is_stopped = True
        return True

    close = cancel

    def cancelled(self) -> bool:
        """Always False: a cancelled prediction ends normally."""
        return False

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        """Call back with the prediction once it has ended, on a thread of its own.

        With a callback the prediction goes on even when nobody else holds it. When the
        program ends, what is due is still called, for 0.5 seconds at most; what becomes
        due later is not.

        Raises:
            LMStudioTypeError: It can't be called.
        """
        checked_callback(fn, "the done callback", needed=True)
        shared = self._session.callbacks
        callbacks = shared or Worker("lmstudio-callbacks", is_users=True)
        callbacks.start()
        self._inbox.kept = self

        def call_back(done: Future[Any]) -> None:
            callbacks.soon(lambda: fn(done))
            if shared is None:  # the client is closed and does not end it
                callbacks.stop()

        super().add_done_callback(call_back)
        if self._outcome is not None:
            self._inbox.kept = None

    def _error(self) -> LMStudioError:
        """The error for one waiter, with the text so far."""
        assert isinstance(self._outcome, LMStudioError)
        self._looked = True
        error = self._outcome.fresh()
        error.partial = "".join(self._arrivals.fragments)
        return error

    def __enter__(self) -> Prediction[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()

    def __repr__(self) -> str:
        state = "running"
        if self._outcome is not None:
            state = "failed" if isinstance(self._outcome, LMStudioError) else "done"
        return f"<Prediction {state}, {self._arrivals.how_far()}>"

    def __del__(self) -> None:
        # Runs anywhere, also inside locks: it may only leave a note. And when this
        # module is gone, without the GIL: so nothing of it is used, but in the note.
        channel = getattr(self, "_channel", None)
        if channel is None:  # it could not be made, and that raised
            return
        if self._outcome is None and self._stopping:  # the server was asked already
            self._session.worker.soon(channel.forget)
        elif self._outcome is None:
            channel.abandon_soon()
        elif not self._looked and not isinstance(self._outcome, dict):
            text = str(self._outcome)
            self._session.worker.soon(lambda: log.warning("unseen failure: %s", text))


class _Guard:
    """Watches time limits and the signal of a prediction, on the worker.

    It does not keep the prediction alive.
    """

    def __init__(self, prediction: Prediction[Any], watch: Watch) -> None:
        self._prediction = weakref.ref(prediction)
        # Not the watch itself: its callbacks may hold the prediction.
        self._timeout = watch.timeout
        self._idle_timeout = watch.idle_timeout
        self._signal = watch.signal
        self._worker = prediction._session.worker
        self._started = time.monotonic()

    def open(self, channel: Channel) -> None:
        """Send the request, in the time that there is for it.

        Raises:
            LMStudioTimeoutError: It took too long.
        """
        limit, idle = self._timeout, self._idle_timeout
        deadline = None if limit is None else self._started + limit
        try:
            channel.open(deadline, idle)
        except LMStudioTimeoutError as exc:
            what = f"no news from the server for {idle:g} s" if idle is not None else ""
            if deadline is not None and time.monotonic() >= deadline:
                what = f"not finished within {limit:g} s"
            raise LMStudioTimeoutError(f"prediction: {what} ({exc})") from None

    def start(self) -> None:
        """Begin to watch, if there is anything to watch for."""
        limits = (self._timeout, self._idle_timeout, self._signal)
        if any(limit is not None for limit in limits):
            if isinstance(self._signal, Signal):
                self._signal.listen(self._look_now)
            self._look_now()

    def _look_now(self) -> None:
        self._worker.soon(self._look)

    def _look(self) -> None:
        prediction, signal, now = self._prediction(), self._signal, time.monotonic()
        if prediction is None or prediction.done():
            return
        if signal is not None:
            try:
                is_set = signal.is_set()
            except Exception as exc:  # it is the user's; limits must outlast it
                error = LMStudioRuntimeError(
                    "the signal of a prediction can't be asked: is_set() raised"
                    f" {type(exc).__name__}: {exc}"
                )
                error.__cause__ = exc
                prediction._give_up(error)
                return
            if is_set:
                prediction.cancel()
                signal = None
        looks = []
        if self._timeout is not None:
            looks.append(self._started + self._timeout)
            if now >= looks[-1]:
                self._expire(prediction, f"not finished within {self._timeout:g} s")
                return
        if self._idle_timeout is not None:
            looks.append(prediction._inbox.heard + self._idle_timeout)
            if now >= looks[-1]:
                what = f"no news from the server for {self._idle_timeout:g} s"
                self._expire(prediction, what)
                return
        if signal is not None and not isinstance(signal, Signal):
            looks.append(now + SIGNAL_SLICE)
        if looks:
            self._worker.at(min(*looks, now + LOOK_AGAIN), self._look)

    @staticmethod
    def _expire(prediction: Prediction[Any], what: str) -> None:
        arrivals = prediction._arrivals
        try:
            arrivals.take_what_is_here()
        except Malformed as exc:
            prediction._give_up(exc.error, overrules=True)
            return
        where = f"prediction: {what} ({arrivals.how_far()})"
        prediction._give_up(LMStudioTimeoutError(where))
