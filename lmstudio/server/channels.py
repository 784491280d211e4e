"""What the server does on each channel: one function per endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

from ..wire import common, diagnostics, llm
from ..wire.common import KVConfig, KVLayer, KVStack
from ..wire.config import collapse
from ..wire.converter import unstructure
from . import application, plans, repository, retrieval
from .access import logged_channel
from .calls import Context
from .engine import BadRequest
from .failures import Failure
from .heartbeat import Heartbeat
from .infos import instance_info, model_info
from .instances import Instance, Load, Use, Wanted
from .logs import OLD_KINDS
from .presets import Preset, find, for_raw_text
from .sampling import draft_model_of
from .service import Prediction, Service

#: How long an instance of `getOrLoad` stays idle when the client does not say,
#: seconds. Source: docs/wire/models.md.
DEFAULT_TTL = 3600.0
#: The layer that means: the text of the history is the prompt itself.
#: Source: docs/wire/predict.md.
RAW_LAYER = "completeModeFormatting"


#: Packets by which clients stop something.
_STOPS = ("cancel", "stop", "cancelDownload", "cancelPlan")
#: Packets that a channel keeps while its handler has not begun; more are dropped.
_EARLY = 16


class Ends:
    """The server's end of an open channel, as its handler sees it.

    Attributes:
        is_cancelled: Whether the client has asked to stop.
    """

    def __init__(self, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        self.send = send
        self.is_cancelled = False
        self._on_cancel: Callable[[], object] | None = None
        self._on_packet: dict[str, Callable[[Any], object]] = {}
        self._early: list[tuple[str, Any]] = []

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Call this when the client cancels, at once if it has."""
        self._on_cancel = callback
        if self.is_cancelled:
            callback()

    def cancel(self) -> None:
        """The client has asked to stop. Safe to repeat."""
        if not self.is_cancelled:
            self.is_cancelled = True
            if self._on_cancel is not None:
                self._on_cancel()

    def on_packets(self, **callbacks: Callable[[Any], object]) -> None:
        """Call these when packets of such types come, and now for those that have."""
        self._on_packet = callbacks
        early, self._early = self._early, []
        for kind, value in early:
            self.take(kind, value)

    def take(self, kind: str, value: Any = None) -> None:
        """The client has sent a packet.

        Args:
            value: What it holds besides its type, see `REQUEST_SHAPES`.
        """
        if kind in self._on_packet:
            self._on_packet[kind](value)
        elif kind in _STOPS:
            self.cancel()
        elif len(self._early) < _EARLY:
            self._early.append((kind, value))


Handler = Callable[[Context, Any, Ends], Awaitable[None]]


async def _load_model(
    context: Context, parameter: common.LoadModel, ends: Ends
) -> None:
    preset = await _preset(context, parameter.preset)
    layers = [
        KVLayer(layer_name="preset", config=preset.load),
        *parameter.load_config_stack.layers,
    ]
    wanted = Wanted(
        config=collapse(KVStack(layers=layers)),
        operation=preset.operation,
        ttl=_seconds("ttlMs", parameter.ttl_ms),
        owner=context.client if parameter.no_hup is False else None,
    )
    load = await context.service.registry.load(
        parameter.model_key, context.namespace, wanted, parameter.identifier
    )
    resolved: dict[str, Any] = {
        "type": "resolved",
        "info": unstructure(model_info(load.file)),
    }
    if load.candidates:
        resolved["ambiguous"] = [file.variant or file.key for file in load.candidates]
    await ends.send(resolved)
    instance = await _follow(context, load, ends, "progress")
    await ends.send({"type": "success", "info": unstructure(instance_info(instance))})


async def _get_or_load(
    context: Context, parameter: common.GetOrLoad, ends: Ends
) -> None:
    ttl = _seconds("loadTtlMs", parameter.load_ttl_ms)
    wanted = Wanted(
        config=collapse(parameter.load_config_stack),
        ttl=DEFAULT_TTL if ttl is None else ttl,
    )
    found = await context.service.registry.get_or_load(
        parameter.identifier, context.namespace, wanted
    )
    if isinstance(found, Instance):
        info = unstructure(instance_info(found))
        await ends.send({"type": "alreadyLoaded", "info": info})
        return
    info = unstructure(model_info(found.file))
    await ends.send(
        {"type": "startLoading", "identifier": found.identifier, "info": info}
    )
    for other in found.evicted:
        info = unstructure(instance_info(other))
        await ends.send({"type": "unloadingOtherJITModel", "info": info})
    instance = await _follow(context, found, ends, "loadProgress")
    info = unstructure(instance_info(instance))
    await ends.send({"type": "loadSuccess", "info": info})


async def _follow(context: Context, load: Load, ends: Ends, packet: str) -> Instance:
    """Report a load until it ends.

    A client that vanishes lets it run; its release stops what it owns.
    """
    task = asyncio.current_task()
    assert task is not None
    ends.on_cancel(task.cancel)
    try:
        async with aclosing(load.follow()) as changes:
            async for progress in changes:
                await ends.send({"type": packet, "progress": progress})
        instance = await load.instance()
        ends.on_cancel(_nothing)  # too late from here on
        return instance
    except asyncio.CancelledError:
        if not ends.is_cancelled:
            raise
        await context.service.registry.leave(load)
        raise Failure(f"Loading {load.file.key} was cancelled") from None


def _nothing() -> None:
    """What a cancel does when there is nothing to stop."""


async def _predict(context: Context, parameter: llm.Predict, ends: Ends) -> None:
    stack = parameter.prediction_config_stack
    raw_prompt, layers = None, stack.layers
    if any(layer.layer_name == RAW_LAYER for layer in layers):
        layers = [layer for layer in layers if layer.layer_name != RAW_LAYER]
        raw_prompt = _text(parameter.history)
    await _generate(
        context,
        parameter,
        ends,
        history=None if raw_prompt is not None else parameter.history,
        raw_prompt=raw_prompt,
        layers=layers,
    )


async def _complete(
    context: Context, parameter: llm.CompleteRawText, ends: Ends
) -> None:
    await _generate(
        context,
        parameter,
        ends,
        history=None,
        raw_prompt=parameter.raw_prompt,
        layers=parameter.prediction_config_stack.layers,
    )


async def _generate(
    context: Context,
    parameter: llm.Predict | llm.CompleteRawText,
    ends: Ends,
    *,
    history: llm.History | None,
    raw_prompt: str | None,
    layers: Sequence[KVLayer],
) -> None:
    """Send a prediction's packets, and what it came to."""
    service = context.service
    preset = await _preset(context, parameter.fuzzy_preset_identifier)
    instance = context.find(parameter.model_specifier)
    file = instance.file
    config = _under(layers, instance, preset, is_raw=history is None)
    files = {}
    if history is not None:
        files = service.files.check(context.client, history, file)
    with (
        service.registry.use(instance, "processingPrompt") as use,
        Heartbeat(ends.send) as heart,
    ):
        async with _drafting(service, instance, config) as working:
            prediction = await service.predict(
                working,
                history=history,
                raw_prompt=raw_prompt,
                config=config,
                files=files,
            )
            service.logs.add(
                "llm.prediction.input",
                modelPath=file.relative_path,
                modelIdentifier=instance.identifier,
                input=prediction.input_text,
            )
            output = _Output(context, instance)
            packet = await _send(prediction, ends, use, heart, output)
    stats = unstructure(packet.stats)
    output.end(stats)
    await ends.send(
        {
            "type": "success",
            "stats": stats,
            "modelInfo": unstructure(instance_info(instance)),
            "loadModelConfig": unstructure(instance.config),
            "predictionConfig": unstructure(packet.prediction_config),
        }
    )


@asynccontextmanager
async def _drafting(
    service: Service, instance: Instance, config: KVConfig
) -> AsyncIterator[Instance]:
    """What runs a prediction: the instance, or its twin with the draft model asked for.

    Raises:
        EngineError: There is no such twin.
    """
    twins = service.twins
    if twins is None:
        yield instance
        return
    name = draft_model_of(config)
    if name is None:
        yield instance
        return
    async with twins.drafting(instance, name) as twin:
        yield twin


async def _send(
    prediction: Prediction, ends: Ends, use: Use, heart: Heartbeat, output: _Output
) -> Any:
    """Run a prediction and send its packets; returns what it came to."""
    ends.on_cancel(prediction.cancel)
    run = cast("AsyncGenerator[Any, None]", prediction.packets())
    async with aclosing(run) as packets:
        async for packet in packets:
            if not isinstance(packet, dict):
                break
            heart.packet = None
            if packet["type"] == "promptProcessingProgress":
                heart.packet = packet
            else:
                use.status = "generating"
                output.take(packet)
            await ends.send(packet)
    heart.packet = None
    return packet


async def _preset(context: Context, name: str | None) -> Preset:
    """The preset of a name; an empty one when none is given."""
    if name is None:
        return Preset(identifier="", name="")
    return await asyncio.to_thread(find, context.service.presets, name)


def _under(
    layers: Sequence[KVLayer], instance: Instance, preset: Preset, *, is_raw: bool
) -> KVConfig:
    """The settings of a client, on top of what the server knows.

    Source: docs/wire/config.md, "Presets".
    """
    lower = [
        KVLayer(layer_name=name, config=for_raw_text(config) if is_raw else config)
        for name, config in (
            ("instance", instance.operation),
            ("preset", preset.operation),
        )
    ]
    return collapse(KVStack(layers=[*lower, *layers]))


class _Output:
    """The text of a prediction, for those who watch the server; for nobody nothing."""

    def __init__(self, context: Context, instance: Instance) -> None:
        self._logs = context.service.logs
        self._identifier = instance.identifier
        self._texts: list[str] = []
        self._is_wanted = self._logs.wants("llm.prediction.output")

    def take(self, packet: dict[str, Any]) -> None:
        """Keep the text of a fragment. Runs for each token."""
        if self._is_wanted and packet["type"] == "fragment":
            self._texts.append(packet["fragment"]["content"])

    def end(self, stats: dict[str, Any]) -> None:
        """Tell what came of it."""
        if self._is_wanted:
            self._logs.add(
                "llm.prediction.output",
                modelIdentifier=self._identifier,
                output="".join(self._texts),
                stats=stats,
            )


async def _stream_logs(
    context: Context, parameter: diagnostics.StreamLogs | None, ends: Ends
) -> None:
    """Tell what happens on the server until the client stops it."""
    kinds = OLD_KINDS if parameter is None else parameter.kinds
    with context.service.logs.listen(kinds) as listener:
        ends.on_cancel(listener.close)
        while (entry := await listener.next()) is not None:
            await ends.send({"type": "log", "log": entry})


async def _alive(_: Context, __: None, ___: Ends) -> None:
    """Stay open until the connection ends."""
    await asyncio.Event().wait()


def _text(history: llm.History) -> str:
    """All text of a history with nothing between."""
    parts = (part for message in history.messages for part in message.content)
    return "".join(part.text or "" for part in parts if part.type == "text")


def _seconds(name: str, milliseconds: int | None) -> float | None:
    if milliseconds is None:
        return None
    if milliseconds < 1:
        raise BadRequest(f"{name} must be at least 1, not {milliseconds}")
    return milliseconds / 1000


_CHANNELS: dict[tuple[str, str], Handler] = {
    **{(of, "loadModel"): _load_model for of in ("llm", "embedding")},
    **{(of, "getOrLoad"): _get_or_load for of in ("llm", "embedding")},
    ("llm", "predict"): _predict,
    ("llm", "completeRawText"): _complete,
    ("system", "alive"): _alive,
    ("diagnostics", "streamLogs"): _stream_logs,
    **application.CHANNELS,
    **repository.CHANNELS,
    **plans.CHANNELS,
    **retrieval.CHANNELS,
}

#: Namespace and endpoint -> what serves it.
CHANNELS: dict[tuple[str, str], Handler] = {
    key: logged_channel("/".join(key), handler) for key, handler in _CHANNELS.items()
}
