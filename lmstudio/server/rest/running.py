"""Finds or loads the model of a request, and runs predictions on it.

It goes through the same functions as the websockets' channels: what they check, count
and log is so for plain HTTP as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import attrs

from ...wire.common import GetOrLoad, KVStack, ModelSpecifier
from ...wire.llm import CompleteRawText, Message, Predict
from ..calls import Context
from ..channels import CHANNELS, Ends
from ..clients import Client
from ..instances import Instance
from ..service import Service
from .answers import Answer, Change, Packet
from .messages import upload
from .options import Options, milliseconds, stack

T = TypeVar("T")
#: Parts of one request that run at once: as many as a model takes of itself.
AT_ONCE = 4

OnPacket = Callable[[Packet], Awaitable[None]]
OnChange = Callable[[Change], Awaitable[None]]


async def nothing(_: Any) -> None:
    """What is done with packets that nobody waits for."""


@attrs.frozen(kw_only=True)
class Wanted:
    """The model that a request names.

    Attributes:
        name: An identifier, a key, or another name of a model on disk.
        ttl: Seconds of idleness after which it is unloaded, if it has to be loaded.
        load: How to load it then.
    """

    name: str
    ttl: float | None = None
    load: KVStack = attrs.field(factory=KVStack)


@attrs.frozen(kw_only=True)
class Prompt:
    """What a prediction is to do.

    Attributes:
        messages: The messages to answer.
        raw: Text to go on with, instead of messages.
        options: Our options by their names.
        one_call: End with the first call of a tool.
    """

    messages: Sequence[Message] = ()
    raw: str | None = None
    options: Mapping[str, Any] = attrs.field(factory=dict)
    one_call: bool = False


class Run:
    """One request that uses a model. It has its own files, like a client has.

    Attributes:
        load_seconds: How long the model took to load; None when it was loaded.
    """

    def __init__(self, service: Service, domain: str) -> None:
        self.context = Context(service, domain, Client("rest", ""))
        self.load_seconds: float | None = None

    @contextlib.contextmanager
    def open(self) -> Iterator[Run]:
        """Let go of the files at the end."""
        try:
            yield self
        finally:
            self.context.service.files.release(self.context.client)

    async def obtain(self, wanted: Wanted, watch: OnPacket = nothing) -> Instance:
        """The model, loaded if need be.

        Args:
            watch: Gets the packets of the load.

        Raises:
            EngineError: There is none, or it can't be loaded.
        """
        info: dict[str, Any] = {}
        started = time.perf_counter()

        async def send(packet: Packet) -> None:
            if packet["type"] == "loadSuccess":
                self.load_seconds = time.perf_counter() - started
            if packet["type"] in ("alreadyLoaded", "loadSuccess"):
                info.update(packet["info"])
            await watch(packet)

        parameter = GetOrLoad(
            identifier=wanted.name,
            load_ttl_ms=milliseconds(wanted.ttl),
            load_config_stack=wanted.load,
        )
        handler = CHANNELS[self.context.namespace, "getOrLoad"]
        await handler(self.context, parameter, Ends(send))
        return self.context.find(_exactly(info["instanceReference"]))

    async def predict(
        self,
        instance: Instance,
        prompt: Prompt,
        on_change: OnChange,
        on_progress: OnPacket = nothing,
    ) -> Answer:
        """Run a prediction to its end; returns the whole answer.

        Cancelling the task stops the model.

        Args:
            on_change: Gets what is added, as it comes.
            on_progress: Gets the packets about the prompt.

        Raises:
            EngineError: What the channel raises.
        """
        answer = Answer()

        async def send(packet: Packet) -> None:
            if packet["type"] == "promptProcessingProgress":
                answer.take(packet)
                await on_progress(packet)
                return
            if prompt.one_call and answer.calls and packet["type"] != "success":
                return  # it had come before the model heard of the end
            change = answer.take(packet)
            if change is not None:
                await on_change(change)
            if prompt.one_call and answer.calls:
                ends.cancel()

        ends = Ends(send)
        specifier = _exactly(instance.reference)
        layers = stack(dict(prompt.options))
        if prompt.raw is None:
            files = self.context.service.files
            history = upload(prompt.messages, files, self.context.client)
            predict = Predict(
                model_specifier=specifier,
                history=history,
                prediction_config_stack=layers,
            )
            await CHANNELS["llm", "predict"](self.context, predict, ends)
        else:
            complete = CompleteRawText(
                model_specifier=specifier,
                raw_prompt=prompt.raw,
                prediction_config_stack=layers,
            )
            await CHANNELS["llm", "completeRawText"](self.context, complete, ends)
        return answer


async def each(works: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """Do several works, `AT_ONCE` of them at once; what they return, in order.

    When one fails, or the task is cancelled, all of them are stopped first.
    """
    turns = asyncio.Semaphore(AT_ONCE)

    async def do(work: Callable[[], Awaitable[T]]) -> T:
        async with turns:
            return await work()

    tasks = [asyncio.ensure_future(do(work)) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _exactly(reference: str) -> ModelSpecifier:
    return ModelSpecifier(type="instanceReference", instance_reference=reference)


def merged(*options: Options) -> Options:
    """Several options in one; they have no names in common."""
    made: Options = {}
    for some in options:
        made |= some
    return made
