"""Models of ``estimateModelUsage``: what a model would take, without loading it."""

from __future__ import annotations

import attrs

from .common import KVStack
from .model import Plain, model


@model(kw_only=True)
class EstimateUsage:
    """Parameter of ``estimateModelUsage``, of ``llm`` and ``embedding``.

    Source: docs/wire/models.md, "Estimates".
    """

    model_key: str
    load_config_stack: KVStack = attrs.field(factory=KVStack)


@model(kw_only=True)
class MemoryUsage(Plain):
    """Memory that a model would take. Sizes in bytes.

    Attributes:
        confidence: ``"high"`` or ``"low"``.
        model_vram_bytes: Weights on the GPU.
        context_vram_bytes: Context on the GPU.
        total_vram_bytes: Both.
        model_bytes: Weights, wherever they are.
        context_bytes: Context, wherever it is.
        total_bytes: Both.
    """

    confidence: str
    model_vram_bytes: float
    context_vram_bytes: float
    total_vram_bytes: float
    model_bytes: float
    context_bytes: float
    total_bytes: float


@model(kw_only=True)
class ResourcesUsage(Plain):
    """What a model would take if it were loaded.

    Attributes:
        memory: In bytes.
        passes_guardrails: Whether the server would load it.

    Source: docs/wire/models.md, "Estimates".
    """

    memory: MemoryUsage
    passes_guardrails: bool
