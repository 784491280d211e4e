"""What a scripted server does: answers, gates and failures, step by step."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import attrs

from ..errors import LMStudioTypeError, shown
from ..server.engine import EngineError, ModelCrashed
from ..wire.llm import History, Message
from .link import Request


class Await:
    """A step that holds a scripted request until a test opens it.

    Args:
        event: Opens it when set; by default one of its own, see `open`.

    Attributes:
        event: What is waited for.
        reached: Set when a request has come to this step.
    """

    def __init__(self, event: threading.Event | None = None) -> None:
        self.event = event if event is not None else threading.Event()
        self.reached = threading.Event()

    def __repr__(self) -> str:
        state = "reached" if self.reached.is_set() else "not reached"
        return f"<Await {'open' if self.event.is_set() else 'closed'}, {state}>"

    def open(self) -> None:
        """Let everything through, from now on."""
        self.event.set()

    async def wait(self) -> None:
        """Hold the task that runs this, and not its loop."""
        self.reached.set()
        if self.event.is_set():
            return
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = loop.create_future()
        given_up = threading.Event()

        def resolve() -> None:
            if not opened.done():
                opened.set_result(None)

        def watch() -> None:
            while not given_up.is_set() and not self.event.wait(0.05):
                pass
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(resolve)

        threading.Thread(target=watch, name="lmstudio-fake-gate", daemon=True).start()
        try:
            await opened
        finally:
            given_up.set()


class Frame:
    """A step that sends one frame past all rules, on the request's own connection.

    Args:
        content: A text as it is, bytes for a binary frame, a dict for JSON; or a
            function that makes one of these from the number of the request, which
            is 0 for authentication.
    """

    def __init__(
        self,
        content: str
        | bytes
        | Mapping[str, Any]
        | Callable[[int], str | bytes | Mapping[str, Any]],
    ) -> None:
        if not (isinstance(content, (str, bytes, Mapping)) or callable(content)):
            raise LMStudioTypeError(
                "a Frame takes a text, bytes, a dict, or a function of the request's"
                f" number, not {shown(content)}"
            )
        self.content = content

    def __repr__(self) -> str:
        return f"Frame({shown(self.content)})"


class Mark:
    """A step without fields, such as `DROP`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


#: The connection breaks, without a word.
DROP = Mark("DROP")
#: The model's process dies: it is no longer loaded, and the request fails.
CRASH = Mark("CRASH")
#: Nothing more comes, whatever the client sends.
NEVER = Mark("NEVER")
#: Nothing more comes until the client cancels.
AWAIT_CANCEL = Mark("AWAIT_CANCEL")

#: The model is unloaded, as if somebody else had done it or its time were over.
EVICT = Mark("EVICT")
#: The last packet of a prediction: all is well. What follows comes too late.
SUCCESS = Mark("SUCCESS")
#: The channel is closed here; what the server says on it afterwards is lost.
CLOSE = Mark("CLOSE")

#: A str is a fragment, a dict a packet as it travels, an exception a failure.
Step = str | dict[str, Any] | Await | Frame | Mark | EngineError
#: Steps that say nothing of an answer: they have a place in front of any call.
SILENT = (Await, Frame, Mark, EngineError)


@attrs.frozen(kw_only=True)
class Asked:
    """A prediction that a client asks for.

    Attributes:
        text: The last message of the user, or the raw prompt.
        history: The messages; None for a raw prompt.
        config: The options by our names, as `lmstudio.wire.config` decodes them.
        identifier: The model.
    """

    text: str
    history: History | None
    config: dict[str, Any]
    identifier: str

    @property
    def messages(self) -> list[Message]:
        """The messages, oldest first; none for a raw prompt."""
        return list(self.history.messages) if self.history is not None else []

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The tools that the model may ask for: ``name``, ``parameters`` and so on."""
        offered = self.config.get("raw_tools") or {}
        return [tool["function"] for tool in offered.get("tools") or ()]

    @property
    def schema(self) -> Any:
        """The JSON schema of the answer; None when none is asked for."""
        wanted = self.config.get("structured") or {}
        return wanted.get("jsonSchema") if wanted.get("type") == "json" else None


class Pace:
    """Lets the fragments of an answer out when a test says so.

    Attributes:
        wanted: How many fragments were about to go out so far.
    """

    def __init__(self) -> None:
        self.wanted = 0
        self._state = threading.Lock()  # guards all the rest; held for moments
        self._free: float = 0
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def __repr__(self) -> str:
        return f"<Pace {self._free:g} free, {self.wanted} wanted>"

    def let(self, count: int = 1) -> None:
        """Let so many more fragments out, now or when they come."""
        self._add(count)

    def open(self) -> None:
        """Let everything out, from now on."""
        self._add(float("inf"))

    def _add(self, count: float) -> None:
        with self._state:
            self._free += count
            waiting, self._waiting = self._waiting, []
        for loop, future in waiting:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_resolve, future)

    async def wait(self) -> None:
        """Hold the task that runs this until a fragment may go out."""
        self.wanted += 1
        while True:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[None] = loop.create_future()
            with self._state:
                if self._free >= 1:
                    self._free -= 1
                    return
                self._waiting.append((loop, future))
            await future


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


When = str | re.Pattern[str] | Callable[[Asked], bool] | None
#: How a text is cut into fragments: ``"words"``, or so many characters each.
Chunk = Literal["words"] | int | None


@attrs.define
class Reply:
    """A scripted answer.

    Attributes:
        steps: What happens, in order; or a function that says so for a prediction, and
            None where it has nothing to say.
        stop: Why it ends: ``"eos"``, ``"word"``, ``"limit"``, ``"context"``, or a stop
            reason as it travels.
        when: Which predictions it is for: a part of the text, a pattern in it, or a
            function; None for any.
        times: How often it is used; None for ever.
        model: Only for the model of this identifier.
        tools: Only when all tools of these names are offered, and for ``()`` only when
            there are none.
        config: Only with these options, by our names.
        ordered: Only when all other ordered ones before it are used up.
        chunk: How texts among the steps are cut: ``"words"``, or so many characters;
            None sends each whole.
        pace: Lets the fragments out, or seconds between them.
        used: How often it was.
    """

    steps: Sequence[Step] | Callable[[Asked], Any]
    stop: str = "eos"
    when: When = None
    times: int | None = 1
    model: str | None = None
    tools: Sequence[str] | None = None
    config: Mapping[str, Any] | None = None
    ordered: bool = False
    chunk: Chunk = None
    pace: Pace | float | None = None
    used: int = 0

    @property
    def is_used_up(self) -> bool:
        """Whether it is never used again."""
        return self.times is not None and self.used >= self.times


def tool_call(
    name: str, arguments: Mapping[str, Any] | None = None, *, id: str | None = "1"
) -> dict[str, Any]:
    """A step that asks for a tool.

    Args:
        arguments: Its arguments by name.
        id: Names the call in its answer; None leaves it out, as older servers do.

    Source: docs/wire/predict.md.
    """
    request: dict[str, Any] = {"type": "function", "name": name}
    request["arguments"] = dict(arguments or {})
    if id is not None:
        request["id"] = id
    return {"type": "toolCallGenerationEnd", "toolCallRequest": request}


def all_text(history: History) -> str:
    """All messages, one a line."""
    return "\n".join(_text(message) for message in history.messages)


def last_text(history: History | None) -> str:
    """The last message of the user; ``""`` without one."""
    for message in reversed(history.messages if history is not None else []):
        if message.role == "user":
            return _text(message)
    return ""


def _text(message: Message) -> str:
    return "".join(part.text or part.content or "" for part in message.content)


def steps_of(
    steps: Step | Sequence[Step | float],
    *,
    kinds: tuple[type, ...] = (str, dict, *SILENT),
    where: str = "an answer",
) -> list[Any]:
    """One step, or several.

    Args:
        kinds: What can be a step here.
        where: What they are the steps of, for messages.

    Raises:
        LMStudioTypeError: Something else is among them.
    """
    alone = isinstance(steps, (str, bytes, Mapping)) or not isinstance(steps, Iterable)
    checked: list[Any] = [steps] if alone else list(steps)  # type: ignore[arg-type]
    for step in checked:
        if not isinstance(step, kinds) or isinstance(step, bool):
            right = ", ".join(_KINDS[kind] for kind in kinds)
            raise LMStudioTypeError(
                f"a step of {where} is {right}, but not {shown(step)}"
            )
    return checked


_KINDS: Mapping[type, str] = {
    str: "a text",
    dict: "a packet",
    int: "a share",
    float: "from 0 to 1",
    Await: "an Await",
    Frame: "a Frame",
    Mark: "a mark such as DROP",
    EngineError: "a Failure",
}


async def perform(step: Step, request: Request | None) -> None:
    """Do a step that says nothing of an answer.

    Args:
        request: What the step is for; None where there is no connection.
    """
    if isinstance(step, Await):
        await step.wait()
    elif isinstance(step, EngineError):
        # Each request raises its own: a shared one would collect their tracebacks.
        copy = type(step).__new__(type(step))
        copy.__dict__.update(step.__dict__)
        copy.args = step.args
        raise copy
    elif isinstance(step, Frame):
        if request is not None:
            content = step.content
            made = content(request.number) if callable(content) else content
            await request.link.send(made)
    elif step is CLOSE:
        if request is not None:
            await request.link.close(request.number)
    elif step is CRASH:
        raise ModelCrashed("The model crashed", "The script said so")
    elif step is DROP:
        if request is not None:
            request.link.drop()
        await asyncio.Event().wait()  # ended with the connection
    elif step is NEVER or step is AWAIT_CANCEL:
        await asyncio.Event().wait()
    elif step is not EVICT and step is not SUCCESS:  # who predicts knows these two
        raise TypeError(f"{step!r} can't be a step here")
