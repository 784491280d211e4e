"""What clients are told about models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from ..wire.common import InstanceInfo, ModelInfo, Quantization
from ..wire.converter import unstructure
from .engine import ModelFile
from .failures import domain_of
from .instances import Instance
from .store import Store


def model_info(file: ModelFile) -> ModelInfo:
    """A model on disk. Every field that any client requires is there.

    Source: docs/wire/models.md.
    """
    return ModelInfo(**_fields(file))


def on_disk(models_dir: Path) -> list[ModelInfo]:
    """The models of a folder as a client would see them, without a running server."""
    infos = [model_info(file) for file in Store(models_dir).list()]
    return [attrs.evolve(info, raw=unstructure(info)) for info in infos]


def instance_info(instance: Instance) -> InstanceInfo:
    """A model in memory."""
    used, ttl = instance.last_used, instance.ttl
    return InstanceInfo(
        **_fields(instance.file),
        identifier=instance.identifier,
        instance_reference=instance.reference,
        context_length=instance.model.context_length,
        ttl_ms=None if ttl is None else round(ttl * 1000),
        last_used_time=None if used is None else round(used * 1000),
    )


def _fields(file: ModelFile) -> dict[str, Any]:
    is_known = file.quantization is not None and file.bits is not None
    return {
        "type": domain_of(file),
        # What loads this very file: the key alone loads the first of its variants.
        "model_key": file.key
        if file.variant in (file.variants or (file.variant,))[:1]
        else file.variant,
        "path": file.relative_path,
        "format": "gguf",
        "display_name": file.display_name,
        "size_bytes": file.size,
        "publisher": file.publisher,
        "architecture": file.architecture,
        "params_string": file.params,
        # Clients require both fields of it, or none.
        "quantization": Quantization(name=file.quantization, bits=file.bits)
        if file.quantization is not None and is_known
        else None,
        "max_context_length": file.max_context_length,
        "vision": None if file.is_embedding else file.vision,
        "trained_for_tool_use": None if file.is_embedding else file.trained_for_tools,
        "variants": list(file.variants) or None,
        "selected_variant": file.variants[0] if file.variants else None,
        "indexed_model_identifier": file.relative_path,
        "device_identifier": None,
    }
