"""Loads and unloads models for ``/api/v1``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from ...errors import shown
from ...wire.common import KVConfig, KVLayer, KVStack, LoadModel, ModelSpecifier
from ...wire.config import EMBEDDING_LOAD, LOAD, Table
from ..channels import CHANNELS, Ends
from ..failures import domain_of
from ..service import Service
from .answers import Packet
from .errors import RestError, wrong
from .exchange import Exchange
from .models import load_config
from .options import milliseconds
from .reading import body, read
from .running import Run

#: Fields of requests that are load settings, by the same names.
#: Source: docs/wire/rest.md, "/api/v1".
SETTINGS = (
    *("context_length", "eval_batch_size", "flash_attention", "num_experts"),
    "offload_kv_cache_to_gpu",
)


@body(kw_only=True)
class _Load:
    model: str
    ttl: float | None = None
    config: dict[str, Any] | None = None
    echo_load_config: bool = False


@body(kw_only=True)
class _Unload:
    instance_id: str


class Loads:
    """Answers requests to load and unload."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def load(self, exchange: Exchange, given: dict[str, Any]) -> None:
        """Load a new instance, and answer when it is there.

        A client that hangs up lets it go on.
        """
        asked = read(given, _Load)
        models = self._service.registry.models
        file, _ = await asyncio.to_thread(models.find, asked.model)
        table = EMBEDDING_LOAD if file.is_embedding else LOAD
        layers = load_stack(table, {**given, **(asked.config or {})})
        run = Run(self._service, domain_of(file))
        info: dict[str, Any] = {}

        async def send(packet: Packet) -> None:
            if packet["type"] == "success":
                info.update(packet["info"])

        started = time.perf_counter()
        parameter = LoadModel(
            model_key=asked.model,
            ttl_ms=milliseconds(asked.ttl),
            load_config_stack=layers,
        )
        domain = run.context.namespace
        await CHANNELS[domain, "loadModel"](run.context, parameter, Ends(send))
        made = {
            "type": domain,
            "instance_id": info["identifier"],
            "load_time_seconds": time.perf_counter() - started,
            "status": "loaded",
        }
        if asked.echo_load_config:
            reference = info["instanceReference"]
            instance = run.context.find(
                ModelSpecifier(type="instanceReference", instance_reference=reference)
            )
            made["load_config"] = load_config(instance)
        await exchange.reply(made)

    async def unload(self, exchange: Exchange, given: dict[str, Any]) -> None:
        """Unload one instance."""
        name = read(given, _Unload).instance_id
        registry = self._service.registry
        loaded = [*registry.loaded("llm"), *registry.loaded("embedding")]
        for instance in loaded:
            if instance.identifier == name:
                await registry.unload(name, instance.domain)
                await exchange.reply({"instance_id": name})
                return
        known = ", ".join(instance.identifier for instance in loaded[:10])
        raise RestError(
            f"No model is loaded as {name[:100]!r}",
            f"Loaded are {known}" if known else "No model is loaded",
            status=404,
            code="model_not_found",
            param="instance_id",
        )


def load_stack(table: Table, given: Mapping[str, Any]) -> KVStack:
    """The load settings of a request as they travel.

    Raises:
        RestError: A value is wrong, or not for this kind of model.
    """
    chosen = {}
    for name in SETTINGS:
        value = given.get(name)
        if value is None:
            continue
        row = table.find(name)
        if row is None:
            raise wrong(name, "left out for an embedding model", shown(value))
        try:
            chosen[name] = row.check(value)
        except ValueError as exc:
            raise wrong(name, str(exc), shown(value)) from None
    config = KVConfig(fields=table.encode(chosen))
    return KVStack(layers=[KVLayer(layer_name="apiOverride", config=config)])
