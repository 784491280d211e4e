"""What a scripted server does: answers, gates and failures, step by step."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from ..server.engine import EngineError, ModelCrashed
from ..wire.llm import History


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


class Mark:
    """A step without fields: `DROP`, `CRASH`, `NEVER` or `AWAIT_CANCEL`."""

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

#: A str is a fragment, a dict a packet as it travels, an exception a failure.
Step = str | dict[str, Any] | Await | Mark | EngineError


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


When = str | Callable[[Asked], bool] | None


@attrs.define
class Reply:
    """A scripted answer.

    Attributes:
        steps: What happens, in order.
        stop: Why it ends: ``"eos"``, ``"word"``, ``"limit"``, ``"context"``, or a stop
            reason as it travels.
        when: Which predictions it is for: a part of the text, or a function; None for
            any.
        times: How often it is used; None for ever.
        used: How often it was.
    """

    steps: Sequence[Step]
    stop: str = "eos"
    when: When = None
    times: int | None = 1
    used: int = 0

    def fits(self, asked: Asked) -> bool:
        """Whether it is for this prediction and not used up."""
        if self.times is not None and self.used >= self.times:
            return False
        if isinstance(self.when, str):
            return self.when in asked.text
        return self.when is None or bool(self.when(asked))


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


def steps_of(steps: Step | Sequence[Step]) -> list[Step]:
    """One step, or several."""
    if isinstance(steps, (str, dict, Await, Mark, EngineError)):
        return [steps]
    return list(steps)


async def perform(step: Step, drop: Callable[[], None]) -> None:
    """Do a step that says nothing.

    Args:
        drop: Breaks the connection that the request came on.
    """
    if isinstance(step, Await):
        await step.wait()
    elif isinstance(step, EngineError):
        # Each request raises its own: a shared one would collect their tracebacks.
        copy = type(step).__new__(type(step))
        copy.__dict__.update(step.__dict__)
        copy.args = step.args
        raise copy
    elif step is CRASH:
        raise ModelCrashed("The model crashed", "The script said so")
    elif step is DROP:
        drop()
        await asyncio.Event().wait()  # ended with the connection
    elif step is NEVER or step is AWAIT_CANCEL:
        await asyncio.Event().wait()
    else:
        raise TypeError(f"{step!r} can't be a step here")
