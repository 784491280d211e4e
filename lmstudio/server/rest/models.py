"""Lists of models, in the three forms that clients know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...wire.config import EMBEDDING_LOAD, LOAD
from ..engine import ModelFile
from ..infos import model_info
from ..instances import Instance
from ..service import Service
from . import shapes
from .errors import RestError
from .exchange import Exchange

#: Load settings that ``/api/v1`` tells, by our names. Source: docs/wire/rest.md.
_TOLD = (
    *("context_length", "eval_batch_size", "flash_attention", "num_experts"),
    "offload_kv_cache_to_gpu",
)

#: A name, its file, and the instance if it is in memory.
Row = tuple[str, ModelFile, Instance | None]


class Lists:
    """Answers requests about the models that there are."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def openai(self, exchange: Exchange, _: dict[str, Any]) -> None:
        """All names that a request may give."""
        data = [_openai(row) for row in await self._rows()]
        await exchange.reply({"object": "list", "data": data})

    async def openai_one(self, exchange: Exchange, _: dict[str, Any]) -> None:
        """One of them."""
        await exchange.reply(_openai(await self._row(exchange)))

    async def v0(self, exchange: Exchange, _: dict[str, Any]) -> None:
        """The same, with more about each."""
        data = [_v0(row) for row in await self._rows()]
        await exchange.reply({"object": "list", "data": data})

    async def v0_one(self, exchange: Exchange, _: dict[str, Any]) -> None:
        """One of them."""
        await exchange.reply(_v0(await self._row(exchange)))

    async def v1(self, exchange: Exchange, _: dict[str, Any]) -> None:
        """The models on disk, and their instances in memory."""
        files = await self._service.registry.downloaded()
        loaded = list(self._loaded())
        models = []
        for file in files:
            path = file.relative_path
            instances = [i for i in loaded if i.file.relative_path == path]
            models.append(_v1(file, instances))
        await exchange.reply({"models": models})

    def _loaded(self) -> Iterator[Instance]:
        for domain in ("llm", "embedding"):
            yield from self._service.registry.loaded(domain)

    async def _rows(self) -> list[Row]:
        """Instances first, then what could be loaded."""
        rows: list[Row] = [(i.identifier, i.file, i) for i in self._loaded()]
        names = {name for name, _, _ in rows}
        for file in await self._service.registry.downloaded():
            if file.key not in names:
                names.add(file.key)
                rows.append((file.key, file, None))
        return rows

    async def _row(self, exchange: Exchange) -> Row:
        wanted = exchange.params["model"]
        rows = await self._rows()
        for row in rows:
            if row[0] == wanted:
                return row
        known = ", ".join(name for name, _, _ in rows[:10])
        raise RestError(
            f"There is no model {wanted[:100]!r}",
            f"There are {known}" if known else "Get one first: lms get",
            status=404,
            code="model_not_found",
            param="model",
        )


def load_config(instance: Instance) -> dict[str, Any]:
    """How a model was loaded, as ``/api/v1`` tells it."""
    table = EMBEDDING_LOAD if instance.file.is_embedding else LOAD
    decoded = table.decode(instance.config)
    return {name: decoded[name] for name in _TOLD if decoded.get(name) is not None}


def _openai(row: Row) -> dict[str, Any]:
    name, file, _ = row
    try:
        created = int(file.path.stat().st_mtime)
    except OSError:
        created = 0
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": file.publisher,
    }


def _v0(row: Row) -> dict[str, Any]:
    name, file, instance = row
    made = {
        "id": name,
        "object": "model",
        "type": shapes.kind_of(file),
        "publisher": file.publisher,
        "arch": file.architecture,
        "compatibility_type": "gguf",
        "quantization": file.quantization,
        "state": "not-loaded" if instance is None else "loaded",
        "max_context_length": file.max_context_length,
    }
    if instance is not None:
        made["loaded_context_length"] = instance.model.context_length
    return made


def _v1(file: ModelFile, instances: list[Instance]) -> dict[str, Any]:
    info = model_info(file)
    made: dict[str, Any] = {
        "type": info.type,
        "publisher": info.publisher,
        "key": info.model_key,
        "display_name": info.display_name,
        "quantization": {"name": file.quantization, "bits_per_weight": file.bits},
        "size_bytes": info.size_bytes,
        "params_string": info.params_string,
        "loaded_instances": [
            {"id": one.identifier, "config": load_config(one)} for one in instances
        ],
        "max_context_length": info.max_context_length,
        "format": "gguf",
    }
    if not file.is_embedding:
        made["architecture"] = info.architecture
        made["description"] = None
        made["capabilities"] = {
            "vision": file.vision,
            "trained_for_tool_use": file.trained_for_tools,
        }
    return made
