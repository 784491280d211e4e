"""Load settings: from what a client sends to what an engine takes, and back."""

from __future__ import annotations

from typing import Any

from ..errors import LMStudioValueError, shown
from ..wire.common import KVConfig, KVField
from ..wire.config import CHECKBOX, EMBEDDING_LOAD, LOAD, Setting, Table, unwrapped
from .engine import BadRequest, LoadSettings, ModelFile

#: Tokens of context when the client does not say, unless the model has fewer.
DEFAULT_CONTEXT = 4096
#: The same of embedding models, which compute a whole text at once.
DEFAULT_EMBEDDING_CONTEXT = 2048
#: The longest context that an engine can count, for models whose RoPE is stretched.
LONGEST_CONTEXT = 2**31 - 1
#: The largest values that an engine can hold, by our names.
LARGEST = {
    "seed": 2**32 - 1,
    "rope_frequency_base": 10**12,
    "rope_frequency_scale": 10**12,
}

#: Names in the settings table and in `LoadSettings`.
_USED = {
    "context_length": "context_length",
    "gpu_ratio": "gpu_ratio",
    "seed": "seed",
    "max_parallel_predictions": "parallel",
    "eval_batch_size": "batch_size",
    "flash_attention": "flash_attention",
    "rope_frequency_base": "rope_base",
    "rope_frequency_scale": "rope_scale",
    "llama_k_cache_quantization_type": "k_cache_type",
    "llama_v_cache_quantization_type": "v_cache_type",
    "try_mmap": "mmap",
    "keep_model_in_memory": "lock_memory",
}


def load_settings(file: ModelFile, config: KVConfig) -> LoadSettings:
    """What the engine is told to load a model with.

    Settings that this server has no use for are ignored, as the protocol wants.

    Raises:
        BadRequest: A value that is used is out of its range, or the context is longer
            than what the model was trained for, without a stretched RoPE.
    """
    table = _table(file)
    given: dict[str, Any] = {}
    for field in config.fields:
        row = table.by_key(field.key)
        if row is not None and row.name in _USED:
            value = _value(row, field.value)
            if value is not None:
                given[_USED[row.name]] = value
    usual = DEFAULT_EMBEDDING_CONTEXT if file.is_embedding else DEFAULT_CONTEXT
    given.setdefault("context_length", min(usual, file.max_context_length))
    _check_context(file, given)
    ratio = given.get("gpu_ratio")
    given["gpu_ratio"] = {"max": 1.0, "off": 0.0}.get(str(ratio), ratio)
    if given.get("seed") == -1:  # random, which is the engine's own choice
        del given["seed"]
    return LoadSettings(**given)


def effective(file: ModelFile, config: KVConfig, context_length: int) -> KVConfig:
    """The load configuration as it came about, for clients to read.

    The context length is always there: clients read it from here, and the official
    ones assume 2048 without it. Source: docs/wire/models.md.
    """
    table = _table(file)
    context = table.find("context_length")
    assert context is not None
    made = {context.key: KVField(key=context.key, value=context_length)}
    for field in config.fields:
        if field.key != context.key:
            row = table.by_key(field.key)
            value = field.value if row is None else _normal(row, field.value)
            made[field.key] = KVField(key=field.key, value=value)
    return KVConfig(fields=list(made.values()))


def _check_context(file: ModelFile, given: dict[str, Any]) -> None:
    wanted, longest = given["context_length"], file.max_context_length
    if "rope_base" in given or "rope_scale" in given:
        longest = LONGEST_CONTEXT
    if wanted > longest:
        raise BadRequest(
            f"Load option context_length must be at most {longest} for {file.key}, "
            f"not {shown(wanted)}",
            suggestion="Use a shorter context, or stretch RoPE as its page says",
        )


def _table(file: ModelFile) -> Table:
    return EMBEDDING_LOAD if file.is_embedding else LOAD


def _value(row: Setting, wire: Any) -> Any:
    """A checked plain value; None where it is off or not given."""
    value = unwrapped(row, wire)
    if value is None or (value is False and row.wrap == CHECKBOX):
        return None
    try:
        checked = row.check(value)
        largest = LARGEST.get(row.name)
        if largest is not None and checked > largest:
            raise ValueError(f"at most {largest}")
        return checked
    except (ValueError, LMStudioValueError) as exc:
        raise BadRequest(
            f"Load option {row.name} must be {exc}, not {shown(value)}"
        ) from None


def _normal(row: Setting, value: Any) -> Any:
    # Python clients write off as {"checked": true, "value": false}, which others
    # refuse to read. Source: docs/wire/config.md.
    is_off = row.wrap == CHECKBOX and unwrapped(row, value) is False
    return {"checked": False, "value": row.off} if is_off else value
