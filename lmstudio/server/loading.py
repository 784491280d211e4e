"""Load settings: from what a client sends to what an engine takes, and back."""

from __future__ import annotations

import logging
from typing import Any, Literal

from ..errors import LMStudioValueError, shown
from ..wire.common import KVConfig, KVField
from ..wire.config import CHECKBOX, EMBEDDING_LOAD, LOAD, Setting, Table, unwrapped
from .engine import BadRequest, Draft, GPUSplit, LoadSettings, ModelFile

log = logging.getLogger(__name__)

#: Tokens of context when the client does not say, unless the model has fewer.
DEFAULT_CONTEXT = 4096
#: The same of embedding models, which compute a whole text at once.
DEFAULT_EMBEDDING_CONTEXT = 2048
#: Tokens of a prompt that an engine works on at once when the client does not say.
DEFAULT_BATCH = 128
#: The longest context that an engine can count, for models whose RoPE is stretched.
LONGEST_CONTEXT = 2**31 - 1
#: More GPUs than that no engine looks at.
MOST_GPUS = 16
#: The largest values that an engine can hold, by our names.
LARGEST = {
    "seed": 2**32 - 1,
    **dict.fromkeys(("cpu_thread_pool_size", "context_checkpoints"), 512),
    **dict.fromkeys(("eval_batch_size", "physical_batch_size"), 2**20),
    **dict.fromkeys(
        ("speculative_draft_max_tokens", "speculative_draft_min_tokens"), 1024
    ),
    "max_parallel_predictions": 256,
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
    "cpu_thread_pool_size": "threads",
    "physical_batch_size": "physical_batch_size",
    "use_unified_kv_cache": "unified_cache",
    "offload_kv_cache_to_gpu": "cache_on_gpu",
    "try_direct_io": "direct_io",
    "context_checkpoints": "checkpoints",
}
#: Names of what is not passed on as it is: each has code of its own below.
_READ = (
    "use_fp16_for_kv_cache",
    "gpu_split",
    "prompt_template",
    "speculative_draft_simple",
    "speculative_draft_model",
    "speculative_draft_max_tokens",
    "speculative_draft_min_tokens",
    "speculative_draft_min_continue_probability",
)
_OTHER_ENGINE = "it is for another engine than llama.cpp"
_NO_SUCH_DRAFT = "only speculative_draft_simple is there of its kind"
#: Names of what changes nothing here, and why: the protocol wants it ignored.
#: Source: docs/wire/config.md.
IGNORED = {
    "auto_fit": "the settings themselves are taken, and refused if they don't fit",
    "auto_fit_min_context_length": "a context is never shortened to fit",
    "num_experts": "the model's file says how many experts are active",
    "num_cpu_expert_layers_ratio": "experts stay with their layers",
    "reasoning_budget_message": "thoughts end without a message",
    "speculative_draft_mtp": _NO_SUCH_DRAFT,
    "speculative_draft_dflash_sidecar": _NO_SUCH_DRAFT,
    "speculative_draft_dspark_sidecar": _NO_SUCH_DRAFT,
    "speculative_draft_mtp_sidecar": _NO_SUCH_DRAFT,
    "llama_cpp_arguments_override": "clients may not choose the engine's arguments",
    "gpu_strict_vram_cap": "the GPU's share is what gpu_ratio says",
    "env_vars": "clients may not choose the engine's environment",
    "mlx_disk_cache": _OTHER_ENGINE,
    "mlx_kv_cache_quantization": _OTHER_ENGINE,
    "vllm_gpu_memory_utilization": _OTHER_ENGINE,
    "vllm_reasoning_parser": _OTHER_ENGINE,
    "vllm_tool_call_parser": _OTHER_ENGINE,
}


def load_settings(
    file: ModelFile, config: KVConfig, draft: ModelFile | None = None
) -> LoadSettings:
    """What the engine is told to load a model with.

    Settings that this server has no use for are ignored, as the protocol wants; why is
    logged.

    Args:
        draft: The model that `draft_key` names.

    Raises:
        BadRequest: A value that is used is out of its range, or the context is longer
            than what the model was trained for, without a stretched RoPE.
    """
    values = _values(file, config)
    given = {_USED[name]: value for name, value in values.items() if name in _USED}
    usual = DEFAULT_EMBEDDING_CONTEXT if file.is_embedding else DEFAULT_CONTEXT
    given.setdefault("context_length", min(usual, file.max_context_length))
    _check_context(file, given)
    _check_parallel(given)
    ratio = given.get("gpu_ratio")
    given["gpu_ratio"] = {"max": 1.0, "off": 0.0}.get(str(ratio), ratio)
    if given.get("seed") == -1:  # random, which is the engine's own choice
        del given["seed"]
    if values.get("use_fp16_for_kv_cache") is False:
        given.setdefault("k_cache_type", "f32")
        given.setdefault("v_cache_type", "f32")
    # Old clients always send it, and then it says what is so anyway.
    if "gpu_split" in values and (gpus := _gpus(values["gpu_split"])) != GPUSplit():
        given["gpus"] = gpus
    if draft is not None:
        given["draft"] = Draft(
            file=draft,
            max_tokens=values.get("speculative_draft_max_tokens"),
            min_tokens=values.get("speculative_draft_min_tokens"),
            min_probability=values.get("speculative_draft_min_continue_probability"),
        )
    return LoadSettings(**given)


def draft_key(file: ModelFile, config: KVConfig) -> str | None:
    """The model that is to propose tokens, as the client calls it; None without one.

    Raises:
        BadRequest: One is wanted and not named.
    """
    values = _values(file, config)
    name: str | None = values.get("speculative_draft_model")
    if not values.get("speculative_draft_simple"):
        return None
    if not name:
        raise BadRequest(
            "Load option speculative_draft_simple needs speculative_draft_model",
            suggestion="Name a small model with the same vocabulary",
        )
    return name


def own_settings(file: ModelFile, config: KVConfig) -> list[KVField]:
    """Settings of all predictions with a model, from those of its load."""
    template = _values(file, config).get("prompt_template")
    if template is None:
        return []
    value = {"stopStrings": [], **template}
    return [KVField(key="llm.prediction.promptTemplate", value=value)]


def _values(file: ModelFile, config: KVConfig) -> dict[str, Any]:
    """Checked values of all that means something here, by our names."""
    table = _table(file)
    values: dict[str, Any] = {}
    for field in config.fields:
        row = table.by_key(field.key)
        if row is None:
            continue
        if row.name in IGNORED:
            _log_ignored(row.name, field.value)
        else:
            value = _value(row, field.value)
            if value is not None:
                values[row.name] = value
    return values


def _log_ignored(name: str, value: Any) -> None:
    is_off = not value or value == "off"
    if isinstance(value, dict):
        is_off = not value.get("enabled", value.get("checked", value))
    if not is_off:
        log.info("load option %s is ignored: %s", name, IGNORED[name])


def _gpus(split: dict[str, Any]) -> GPUSplit:
    """Source: docs/wire/config.md, "The GPU"."""
    priority, disabled = split["priority"], split["disabledGpus"]
    shares: list[float] = split["customRatio"] if split["strategy"] == "custom" else []
    if disabled and not shares:
        shares = [1.0] * MOST_GPUS
    enabled = [0.0 if n in disabled else float(part) for n, part in enumerate(shares)]
    main = next((n for n in priority if n not in disabled), 0)
    mode: Literal["layer", "none", "tensor"] = "layer"
    if split["strategy"] == "tensor":
        mode = "tensor"
    elif split["strategy"] == "priorityOrder" and priority:
        mode = "none"
    return GPUSplit(mode=mode, main=main, shares=tuple(enabled))


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


def _check_parallel(given: dict[str, Any]) -> None:
    """Each of the parallel predictions needs a token in a batch, and in the context."""
    parallel: int = given.get("parallel") or LoadSettings(context_length=1).parallel
    options = {"context_length": "context_length", "batch_size": "eval_batch_size"}
    for key, name in options.items():
        value: int = given.get(key) or DEFAULT_BATCH
        if value < parallel:
            raise BadRequest(
                f"Load option {name} must be at least {parallel}, which is"
                f" max_parallel_predictions, not {shown(value)}"
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
