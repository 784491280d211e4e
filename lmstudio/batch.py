"""Many prompts through one model: a few at a time, results in order."""

from __future__ import annotations

import concurrent.futures
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from .aliases import CALLBACKS
from .arguments import checked_flag, checked_signal
from .errors import LMStudioError, LMStudioTypeError, LMStudioValueError, shown
from .mailbox import SLICE
from .nearest import Asked, meant
from .options import AFFIXES, PRE_PROMPT
from .prediction import Prediction
from .progress import Bar, Progress, displays
from .result import PredictionResult
from .wire.config import PREDICTION, RAW
from .wire.model import camel

if TYPE_CHECKING:
    from typing_extensions import TypeForm, Unpack

    from .keywords import MapKeywords

T = TypeVar("T")
R = TypeVar("R", covariant=True)

#: So many times `workers` prompts may be ahead of the result that is waited for.
AHEAD = 16

#: What became of a prompt: a prediction that runs or has ended, or why there is none.
_Started = Prediction[Any] | LMStudioError


class Batch(Iterator[R], Generic[R]):
    """The results of many prompts, in their order. One thread iterates over it.

    Prompts are taken from their iterable, and predictions started, while something
    iterates; those that run go on in between. All are cancelled by an error, by leaving
    a ``with`` block, by Ctrl-C, and when nobody holds the batch any more.
    """

    def __init__(
        self,
        start: Callable[[Any], Prediction[Any]],
        prompts: Iterable[Any],
        *,
        workers: int,
        returns_errors: bool,
        signal: Any,
        progress: tuple[Bar | None, Callable[[float], object] | None],
    ) -> None:
        self._start = start
        self._prompts = iter(prompts)
        self._total = len(prompts) if isinstance(prompts, Sized) else None
        self._workers = workers
        self._returns_errors = returns_errors
        self._signal = signal
        self._bar, self._on_progress = progress
        self._open: deque[_Started] = deque()  # not handed out yet, in order
        self._given = 0  # results handed out
        self._seen = 0  # prompts that have ended, as told
        self._is_over = False  # no more prompts

    def __iter__(self) -> Batch[R]:
        return self

    def __next__(self) -> R:
        """Wait for the next result.

        Raises:
            LMStudioError: A prediction failed, of this prompt or a later one; its
                `index` says of which. All others are cancelled.
            Exception: What the iterable of prompts raised, or a callback.
        """
        try:
            return self._next()
        except StopIteration:
            raise
        except BaseException:  # Ctrl-C above all
            self.close()
            raise
        finally:
            if self._bar is not None:
                self._bar.clear()  # nobody draws it while nobody waits

    def _next(self) -> R:
        while True:
            self._fill()
            self._check_errors()
            self._tell()
            if not self._open:
                self.close()
                raise StopIteration
            head = self._open[0]
            if isinstance(head, LMStudioError) or head.done():
                break
            running = [p for p in self._open if _runs(p)]
            concurrent.futures.wait(
                running,  # type: ignore[arg-type]  # no errors are among them
                timeout=SLICE,
                return_when=concurrent.futures.FIRST_COMPLETED,
            )
        self._open.popleft()
        self._given += 1
        outcome: Any = head
        if isinstance(head, Prediction):
            error = head.exception()
            outcome = head.result() if error is None else error
        if isinstance(outcome, LMStudioError):
            outcome = outcome.of_input(self._given - 1)
        return outcome  # type: ignore[no-any-return]  # who asked knows its type

    def _fill(self) -> None:
        """Start predictions until enough run."""
        while not self._is_over and len(self._open) < AHEAD * self._workers:
            if sum(map(_runs, self._open)) >= self._workers:
                return
            self._check_errors()  # what is done by now may have failed
            if self._signal is not None and self._signal.is_set():
                self._is_over = True
                return
            try:
                prompt = next(self._prompts)
            except StopIteration:
                self._is_over = True
                return
            self._open.append(self._started(prompt))

    def _started(self, prompt: Any) -> _Started:
        try:
            return self._start(prompt)
        except LMStudioError as exc:
            return exc

    def _check_errors(self) -> None:
        """Raise the first error that there is, unless errors are wanted as such."""
        if self._returns_errors:
            return
        for index, item in enumerate(self._open, self._given):
            if isinstance(item, Prediction):
                error = item.exception() if item.done() else None
            else:
                error = item
            if error is not None:
                raise error.of_input(index)

    def _tell(self) -> None:
        """Show how many have ended."""
        ended = self._given + sum(not _runs(item) for item in self._open)
        if self._total is None:
            if self._bar is not None:
                self._bar.count(ended)
            return
        if not self._total:
            return
        if self._bar is not None:
            self._bar.update(ended / self._total)
        if self._on_progress is not None and ended > self._seen:
            self._on_progress(ended / self._total)
        self._seen = ended

    def close(self) -> None:
        """Cancel what runs; there are no more results. Safe to repeat."""
        self._is_over = True
        open_, self._open = self._open, deque()
        for item in open_:
            if isinstance(item, Prediction):
                item.cancel()
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Batch[R]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        total = "" if self._total is None else f" of {self._total}"
        running = sum(map(_runs, self._open))
        return f"<Batch {self._given}{total} results taken, {running} running>"


def _runs(item: _Started) -> bool:
    return isinstance(item, Prediction) and not item.done()


def _check_names(
    options: Mapping[str, Any], asked: Asked, predict: Callable[..., Any]
) -> None:
    """Refuse unknown options before the first prompt is read.

    Raises:
        LMStudioTypeError: Neither `map` nor what it calls takes one of them.
    """
    odd = [n for n in options if n != RAW and PREDICTION.find(n) is None]
    if not odd:
        return
    theirs = Asked(predict, (*CALLBACKS, *AFFIXES, PRE_PROMPT)).names()
    known = [*asked.names(), *theirs, *PREDICTION.names()]
    for name in odd:
        spellings = {*known, *map(camel, (*AFFIXES, PRE_PROMPT))}
        if name not in spellings:
            raise LMStudioTypeError(
                f"unknown prediction option {shown(name)}"
                f"{meant(name, known, 'prediction')}"
            )


class Maps:
    """The method `map` of a model that predicts."""

    respond: Callable[..., Prediction[Any]]
    complete: Callable[..., Prediction[Any]]
    _progress: Progress

    @overload
    def map(
        self,
        prompts: Iterable[Any],
        *,
        response_format: type[T],
        on_error: Literal["raise"] = "raise",
        workers: int = 4,
        complete: bool = False,
        progress: Progress = None,
        **options: Unpack[MapKeywords],
    ) -> Batch[PredictionResult[T]]: ...

    @overload
    def map(
        self,
        prompts: Iterable[Any],
        *,
        response_format: None = None,
        structured: None = None,
        on_error: Literal["raise"] = "raise",
        workers: int = 4,
        complete: bool = False,
        progress: Progress = None,
        **options: Unpack[MapKeywords],
    ) -> Batch[PredictionResult[str]]: ...

    @overload
    def map(
        self,
        prompts: Iterable[Any],
        *,
        response_format: TypeForm[T],
        on_error: Literal["raise"] = "raise",
        workers: int = 4,
        complete: bool = False,
        progress: Progress = None,
        **options: Unpack[MapKeywords],
    ) -> Batch[PredictionResult[T]]: ...

    @overload
    def map(
        self,
        prompts: Iterable[Any],
        *,
        structured: type[T],
        on_error: Literal["raise"] = "raise",
        workers: int = 4,
        complete: bool = False,
        progress: Progress = None,
        **options: Unpack[MapKeywords],
    ) -> Batch[PredictionResult[T]]: ...

    @overload
    def map(
        self,
        prompts: Iterable[Any],
        *,
        structured: TypeForm[T],
        on_error: Literal["raise"] = "raise",
        workers: int = 4,
        complete: bool = False,
        progress: Progress = None,
        **options: Unpack[MapKeywords],
    ) -> Batch[PredictionResult[T]]: ...

    @overload
    def map(
        self,
        prompts: Iterable[Any],
        *,
        response_format: type[T],
        on_error: Literal["return"],
        workers: int = 4,
        complete: bool = False,
        progress: Progress = None,
        **options: Unpack[MapKeywords],
    ) -> Batch[PredictionResult[T] | LMStudioError]: ...

    @overload
    def map(
        self,
        prompts: Iterable[Any],
        *,
        response_format: None = None,
        structured: None = None,
        on_error: Literal["return"],
        workers: int = 4,
        complete: bool = False,
        progress: Progress = None,
        **options: Unpack[MapKeywords],
    ) -> Batch[PredictionResult[str] | LMStudioError]: ...

    @overload
    def map(
        self,
        prompts: Iterable[Any],
        *,
        response_format: TypeForm[T],
        on_error: Literal["return"],
        workers: int = 4,
        complete: bool = False,
        progress: Progress = None,
        **options: Unpack[MapKeywords],
    ) -> Batch[PredictionResult[T] | LMStudioError]: ...

    @overload
    def map(
        self,
        prompts: Iterable[Any],
        *,
        structured: type[T],
        on_error: Literal["return"],
        workers: int = 4,
        complete: bool = False,
        progress: Progress = None,
        **options: Unpack[MapKeywords],
    ) -> Batch[PredictionResult[T] | LMStudioError]: ...

    @overload
    def map(
        self,
        prompts: Iterable[Any],
        *,
        structured: TypeForm[T],
        on_error: Literal["return"],
        workers: int = 4,
        complete: bool = False,
        progress: Progress = None,
        **options: Unpack[MapKeywords],
    ) -> Batch[PredictionResult[T] | LMStudioError]: ...

    @overload
    def map(
        self,
        prompts: Iterable[Any],
        *,
        response_format: Any = None,
        structured: Any = None,
        on_error: str = "raise",
        workers: int = 4,
        complete: bool = False,
        progress: Progress = None,
        **options: Unpack[MapKeywords],
    ) -> Batch[Any]: ...

    def map(
        self,
        prompts: Iterable[Any],
        *,
        workers: int = 4,
        on_error: str = "raise",
        complete: bool = False,
        progress: Progress = None,
        **options: Any,
    ) -> Batch[Any]:
        """Answer many prompts, a few at a time; the results come in their order.

        Args:
            prompts: Texts or conversations, as `respond` takes them. Any iterable: it
                is read in the thread that iterates over the results, as they are
                needed, so it may be long or have no end.
            workers: So many predictions run at once, at most. A model works on as many
                as it was loaded for (`max_parallel_predictions`).
            on_error: ``"raise"`` cancels the others and raises, as soon as one fails;
                ``"return"`` gives the error in place of the result, and goes on.
            complete: Continue texts with `complete` in place of `respond`.
            progress: Whether a bar on a terminal or in a notebook shows how many are
                done, after 0.7 s; or a function, called with 0 to 1; or tqdm, the class
                or a bar. Without a length of the prompts a bar only counts, and a
                function is not called.
            options: Of `respond`, or `complete`, for each of them. Once a `signal` is
                set, no more are started.

        Raises:
            LMStudioValueError: An argument is wrong; nothing was sent.
        """
        if isinstance(prompts, (str, bytes, Mapping)) or not isinstance(
            prompts, Iterable
        ):
            raise LMStudioTypeError(
                f"map takes several prompts, such as a list, not {shown(prompts)}"
            )
        if type(workers) is not int:
            raise LMStudioTypeError(
                f"workers must be a whole number, not {shown(workers)}"
            )
        if workers < 1:
            raise LMStudioValueError(f"workers must be at least 1, not {workers}")
        if on_error not in ("raise", "return"):
            raise LMStudioValueError(
                f"on_error must be 'raise' or 'return', not {shown(on_error)}"
            )
        predict = self.respond
        if checked_flag(complete, "complete"):
            predict = self.complete
        _check_names(options, Asked(self.map), predict)
        return Batch(
            # Bars of single prompts would get in the way of the batch's own.
            lambda prompt: predict(prompt, progress=False, **options),
            prompts,
            workers=workers,
            returns_errors=on_error == "return",
            signal=checked_signal(options.get("signal")),
            progress=displays("Predicting", progress, self._progress, None),
        )
