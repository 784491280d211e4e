"""Calling tools for a model: one after the other or at once, and what it is told."""

from __future__ import annotations

import contextvars
import enum
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any

import attrs

from .errors import (
    LMStudioToolError,
    LMStudioTypeError,
    LMStudioValueError,
    shown,
)
from .functions import Tool
from .html import cut
from .mailbox import SLICE
from .wire.checks import encodable
from .wire.llm import Message, Part, ToolCallRequest

log = logging.getLogger("lmstudio.act")

#: Tools that run at once when there is no limit.
MOST_AT_ONCE = 32

STOPPED = "not called: the run was stopped"


@attrs.frozen(kw_only=True)
class ToolCall:
    """A call that the model asked for, with its answer.

    Attributes:
        request: What the model asked for.
        round_index: The round, counted from 0.
        arguments: What the function was called with; None when it was not called.
        value: What it returned; None when it did not.
        error: Why the model has no value, or None.
        content: What the model is told: JSON text of the value, or of an explanation.
        seconds: How long the function took.
    """

    request: ToolCallRequest
    round_index: int
    arguments: Mapping[str, Any] | None = None
    value: Any = None
    error: LMStudioToolError | None = None
    content: str = "null"
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """The name of the tool, as the model wrote it."""
        return self.request.name

    def __repr__(self) -> str:
        given = cut(repr(self.request.arguments), 60)
        answer = self.content if self.error is None else str(self.error)
        kind = "answer" if self.error is None else "error"
        name, said = cut(self.name, 60), cut(answer, 60)
        return f"<ToolCall {name!r} {given}, {kind} {said!r}>"

    def to_dict(self) -> dict[str, Any]:
        """The call as JSON has it: arguments and answer as the model knows them."""
        return {
            "round_index": self.round_index,
            **self.request.to_dict(),
            "content": self.content,
            "error": None if self.error is None else str(self.error),
            "seconds": self.seconds,
        }


class _Job:
    """One call on its way: checked, then run by any thread, then answered."""

    def __init__(self, request: ToolCallRequest) -> None:
        self.request = request
        self.tool: Tool | None = None
        self.arguments: dict[str, Any] | None = None
        self.is_called = False
        self.value: Any = None
        self.content = "null"
        self.error: LMStudioToolError | None = None
        self.told: str | None = None  # why it was refused
        self.passed_on: BaseException | None = None  # of those that end programs
        self.seconds = 0.0

    def run(self) -> None:
        """Call the function; whatever it raises is kept."""
        assert self.tool is not None and self.arguments is not None
        self.is_called = True
        started = time.perf_counter()
        try:
            self.value = self.tool.call(self.arguments)
        except Exception as exc:  # the user's function may raise anything
            self.error = LMStudioToolError(
                self.request.name, f"it raised {type(exc).__name__}: {exc}"
            )
            self.error.__cause__ = exc
        except BaseException as exc:  # to be raised where the run is waited for
            self.passed_on = exc
        else:
            self._put_into_json()
        self.seconds = time.perf_counter() - started

    def _put_into_json(self) -> None:
        try:
            self.content = to_json(self.value)
        except Exception as exc:  # also what attributes of the user's object raise
            self.error = LMStudioToolError(self.request.name, f"it returned {exc}")
            self.error.__cause__ = exc


@attrs.frozen(kw_only=True)
class Caller:
    """How the tools of a run are called.

    Attributes:
        tools: By name.
        guard: Asked before each call, or None; see `lmstudio.models.LLM.act`.
        handle_invalid: Told of each call that can't be answered, or None.
        at_once: How many tools may run at the same time. With 1 they run in the
            thread that asks for the answers, else in threads of their own.
        is_stopping: When it becomes true no further tool is called.
        why_not: What the model is told of a call that is not made any more.
        check_time: Raises when the time of the run is over.
    """

    tools: Mapping[str, Tool]
    guard: Callable[[ToolCallRequest], Any] | None
    handle_invalid: Callable[[LMStudioToolError, ToolCallRequest], str | None] | None
    at_once: int
    is_stopping: Callable[[], bool]
    why_not: Callable[[], str] = lambda: STOPPED
    check_time: Callable[[], None]

    def answers(
        self, requests: Sequence[ToolCallRequest], round_index: int
    ) -> Iterator[ToolCall]:
        """Call what is asked for; the answers come in the order of the requests.

        Raises:
            Exception: What the guard or the handler raised.
            BaseException: What a tool raised that is no mere `Exception`.
        """
        jobs: Iterable[_Job] = map(self._checked, requests)
        if self.at_once > 1 and len(requests) > 1:
            jobs = self._run_at_once(list(jobs))
        else:
            jobs = map(self._run_here, jobs)
        for job in jobs:
            yield self._answer(job, round_index)

    def _checked(self, request: ToolCallRequest) -> _Job:
        """Find the tool, read the arguments, ask the guard."""
        job = _Job(request)
        if self.is_stopping():
            return job
        tool = self.tools.get(request.name)
        if tool is None:
            job.error = LMStudioToolError(
                request.name,
                f"there is no such tool; there are {', '.join(self.tools)}",
            )
            return job
        try:
            job.arguments = tool.arguments(request.arguments)
        except LMStudioToolError as exc:
            job.error = exc
            return job
        job.tool = tool
        if self.guard is not None:
            self._ask(self.guard, job, tool)
        return job

    def _ask(self, guard: Callable[[Any], Any], job: _Job, tool: Tool) -> None:
        said = guard(job.request)
        if isinstance(said, Mapping):
            job.arguments = tool.arguments(said)
        elif said is False or isinstance(said, str):
            job.tool = None
            job.told = "not allowed" + (f": {said}" if said else "")
            job.error = LMStudioToolError(tool.name, job.told)
        elif said is not True:
            raise LMStudioTypeError(
                "guard_tool_call must return True, False, a reason why not, or other"
                f" arguments, not {shown(said)}"
            )

    def _run_here(self, job: _Job) -> _Job:
        if job.tool is not None and not self.is_stopping():
            self.check_time()
            job.run()
        return job

    def _run_at_once(self, jobs: list[_Job]) -> Iterable[_Job]:
        """Run in threads; ends when all have run, or as soon as the time is over."""
        todo: SimpleQueue[_Job] = SimpleQueue()
        done: SimpleQueue[_Job] = SimpleQueue()
        ready = [job for job in jobs if job.tool is not None]
        for job in ready:
            todo.put(job)
        given_up = threading.Event()

        def work() -> None:
            while not given_up.is_set():
                try:
                    job = todo.get_nowait()
                except Empty:
                    return
                if not self.is_stopping():
                    job.run()
                done.put(job)

        for n in range(min(self.at_once, len(ready))):
            # Context variables go along, as with asyncio.to_thread.
            run = contextvars.copy_context().run
            name = f"lmstudio-tool-{n}"
            threading.Thread(target=run, args=(work,), name=name, daemon=True).start()
        try:
            waiting = len(ready)
            while waiting:
                self.check_time()
                try:
                    done.get(timeout=SLICE)
                except Empty:
                    continue
                waiting -= 1
        finally:
            given_up.set()  # after Ctrl-C or the time limit; a tool itself runs on
        return jobs

    def _answer(self, job: _Job, round_index: int) -> ToolCall:
        if job.passed_on is not None:
            raise job.passed_on
        if job.error is None and not job.is_called:
            return not_called(job.request, round_index, self.why_not())
        content = job.content
        if job.error is not None:
            told = job.told
            if told is None:
                told = self._explanation(job.error, job.request, job.is_called)
            content = _said(told)
        return ToolCall(
            request=job.request,
            round_index=round_index,
            arguments=job.arguments if job.is_called else None,
            value=job.value,
            error=job.error,
            content=content,
            seconds=job.seconds,
        )

    def _explanation(
        self, error: LMStudioToolError, request: ToolCallRequest, is_raised: bool
    ) -> str:
        """What the model is told of a call that could not be answered."""
        level = logging.WARNING if is_raised else logging.DEBUG
        log.log(level, "%s", error, exc_info=error.__cause__)
        told = None
        if self.handle_invalid is not None and not self.is_stopping():
            told = self.handle_invalid(error, request)
        if told is not None and not isinstance(told, str):
            raise LMStudioTypeError(
                "handle_invalid_tool_request must return a text for the model, or None,"
                f" not {shown(told)}"
            )
        return str(error) if told is None else told


def not_called(
    request: ToolCallRequest, round_index: int, why: str = STOPPED
) -> ToolCall:
    """The answer to a call that is not made any more: every request has one."""
    return ToolCall(
        request=request,
        round_index=round_index,
        error=LMStudioToolError(request.name, why),
        content=_said(why),
    )


def assistant_message(text: str, requests: Iterable[ToolCallRequest]) -> Message:
    """What the model said and asks for. Source: docs/wire/predict.md."""
    calls = [Part(type="toolCallRequest", tool_call_request=r) for r in requests]
    return Message(role="assistant", content=[Part(type="text", text=text), *calls])


def tool_message(calls: Iterable[ToolCall]) -> Message:
    """The answers to calls, in one message. Source: docs/wire/predict.md."""
    results = [
        Part(type="toolCallResult", content=c.content, tool_call_id=c.request.id)
        for c in calls
    ]
    return Message(role="tool", content=results)


def _said(text: str) -> str:
    """JSON text of an explanation; half a surrogate pair in it can't travel."""
    made = json.dumps(text, ensure_ascii=False)
    return made.encode("utf-8", "replace").decode()


def to_json(value: Any) -> str:
    """JSON text of what a tool returned.

    Raises:
        LMStudioValueError: It has no JSON form: it is, or holds, NaN, bytes that are no
            text, half a surrogate pair, or an object that has no text either.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    except LMStudioValueError as exc:
        raise _no_json(value) from exc
    except (TypeError, ValueError, RecursionError) as exc:
        if "Out of range" in str(exc):  # NaN, or infinite
            raise _no_json(value) from exc
        text = json.dumps(_text(value), ensure_ascii=False)  # odd keys, circles
    if not encodable(text):
        raise _no_json(value)
    return text


def _no_json(value: Any) -> LMStudioValueError:
    return LMStudioValueError(
        f"{shown(value)}, which has no JSON form; return text, numbers, lists or dicts"
    )


def _text(value: Any) -> str:
    try:
        return str(value)
    except RecursionError:  # nested too deeply
        return shown(value)


def _plain(value: Any) -> Any:
    """A value in parts that JSON has; else its text."""
    if isinstance(value, enum.Enum):
        return value.value
    if hasattr(value, "__attrs_attrs__"):
        return attrs.asdict(value, recurse=False)
    for name in ("__dataclass_fields__", "__struct_fields__"):  # the latter of msgspec
        if not isinstance(value, type) and hasattr(value, name):
            return {field: getattr(value, field) for field in getattr(value, name)}
    for name in ("model_dump", "tolist"):  # pydantic; numpy
        if callable(make := getattr(value, name, None)):
            return make()
    if isinstance(value, (bytes, bytearray)):
        try:
            return value.decode()
        except UnicodeDecodeError as exc:
            raise _no_json(value) from exc
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    kind: Any = type(value)
    if kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__:
        raise _no_json(value)
    return str(value)
