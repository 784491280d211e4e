"""The keywords of predictions and their types, for those who check types.

The table in `lmstudio.wire.config` decides what is accepted; a test holds this to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict

from .functions import ToolLike
from .progress import Progress
from .result import Fragment
from .wire.llm import Message, ToolCallRequest


class PredictionOptions(TypedDict, total=False):
    """Options in the spelling of Python. None is not sent; False switches off.

    ``config={...}`` takes the other spellings as well.
    """

    temperature: float | None
    max_tokens: int | bool | None
    max_predicted_tokens: int | bool | None
    stop_strings: str | Sequence[str] | None
    stop: str | Sequence[str] | None
    tool_call_stop_strings: str | Sequence[str] | None
    context_overflow_policy: (
        Literal["stopAtLimit", "truncateMiddle", "rollingWindow"] | None
    )
    raw: Mapping[str, Any] | None
    raw_tools: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None
    tool_choice: Any
    tool_naming: (
        Literal["passThrough", "removeSpecial", "snakeCase", "camelCase"] | None
    )
    prompt_template: Mapping[str, Any] | str | None
    system_prompt: str | None
    context_prefill: Sequence[Mapping[str, Any]] | None
    seed: int | bool | None
    top_k_sampling: int | None
    top_k: int | None
    top_p_sampling: float | bool | None
    top_p: float | bool | None
    min_p_sampling: float | bool | None
    min_p: float | bool | None
    repeat_penalty: float | bool | None
    log_probs: int | bool | None
    logprobs: int | bool | None
    reasoning_parsing: Mapping[str, Any] | bool | None
    enable_thinking: bool | None
    reasoning_budget: int | bool | None
    user_max_image_dimension_pixels: int | bool | None
    ignore_model_preferred_max_image_dimension: bool | None
    draft_model: str | None
    speculative_decoding_num_draft_tokens_exact: int | None
    speculative_decoding_min_draft_length_to_consider: int | None
    speculative_decoding_min_continue_drafting_probability: float | None
    speculative_decoding_max_tokens_to_draft: int | None
    speculative_decoding_num_reuse_tokens: int | None
    cpu_threads: int | None
    presence_penalty: float | bool | None
    frequency_penalty: float | bool | None
    xtc_probability: float | bool | None
    xtc_threshold: float | bool | None
    tail_free_sampling: float | bool | None
    locally_typical_sampling: float | bool | None
    mirostat_sampling: Mapping[str, Any] | int | None
    logit_bias: Mapping[int, Any] | Iterable[Any] | None


class LoadOptions(TypedDict, total=False):
    """Options of loading in the spelling of Python. None is not sent.

    ``config={...}`` takes the other spellings as well. Embedding models know some.
    """

    context_length: int | None
    auto_fit_min_context_length: int | None
    num_experts: int | None
    seed: int | bool | None
    prompt_template: Mapping[str, Any] | str | None
    offload_kv_cache_to_gpu: bool | None
    num_cpu_expert_layers_ratio: float | Literal["max", "off"] | None
    max_parallel_predictions: int | None
    use_unified_kv_cache: bool | None
    gpu_ratio: float | Literal["max", "off"] | None
    auto_fit: bool | None
    cpu_thread_pool_size: int | None
    eval_batch_size: int | None
    physical_batch_size: int | None
    flash_attention: bool | None
    context_checkpoints: int | None
    reasoning_budget_message: str | None
    rope_frequency_base: float | bool | None
    rope_frequency_scale: float | bool | None
    keep_model_in_memory: bool | None
    use_fp16_for_kv_cache: bool | None
    try_mmap: bool | None
    try_direct_io: bool | None
    llama_k_cache_quantization_type: str | bool | None
    llama_v_cache_quantization_type: str | bool | None
    speculative_draft_mtp: bool | None
    speculative_draft_simple: bool | None
    speculative_draft_model: str | None
    speculative_draft_max_tokens: int | None
    speculative_draft_min_tokens: int | None
    speculative_draft_min_continue_probability: float | None
    speculative_draft_dflash_sidecar: bool | None
    speculative_draft_dspark_sidecar: bool | None
    speculative_draft_mtp_sidecar: bool | None
    llama_cpp_arguments_override: Any
    mlx_disk_cache: bool | None
    mlx_kv_cache_quantization: Any
    gpu_split: Mapping[str, Any] | None
    gpu_strict_vram_cap: bool | None
    vllm_gpu_memory_utilization: float | None
    vllm_reasoning_parser: str | None
    vllm_tool_call_parser: str | None
    env_vars: Mapping[str, str] | None
    gpu: Mapping[str, Any] | float | str | None
    gpu_offload: Mapping[str, Any] | float | str | None
    raw: Mapping[str, Any] | None


class OfficialKeywords(TypedDict, total=False):
    """Callbacks under the official SDK's names; `lmstudio.aliases` has ours."""

    on_prediction_fragment: Callable[[Fragment], object] | None
    on_prompt_processing_progress: Callable[[float], object] | None


class Arguments(TypedDict, total=False):
    """Arguments of `complete` and of `respond`, besides what decides their type."""

    preset: str | None
    on_first_token: Callable[[], object] | None
    on_fragment: Callable[[Fragment], object] | None
    on_prompt_progress: Callable[[float], object] | None
    on_message: Callable[[Message], object] | None
    timeout: float | None
    idle_timeout: float | None
    signal: Any


class CompleteOptions(TypedDict, total=False):
    """What only `complete` takes."""

    pre_prompt: str | None


class ConversationOptions(TypedDict, total=False):
    """What `respond` and `act` take, and `complete` does not."""

    input_prefix: str | None
    input_suffix: str | None


class RespondOptions(ConversationOptions, total=False):
    """What only `respond` takes."""

    on_tool_call: Callable[[ToolCallRequest], object] | None
    tools: Iterable[ToolLike] | None


class Keywords(PredictionOptions, OfficialKeywords, Arguments, total=False):
    """What `complete` and `respond` both take, besides what decides their type."""

    progress: Progress


class CompleteKeywords(Keywords, CompleteOptions, total=False):
    """The keywords of `complete`."""


class RespondKeywords(Keywords, RespondOptions, total=False):
    """The keywords of `respond`."""


class ActOptions(PredictionOptions, ConversationOptions, total=False):
    """What `act` takes, besides the arguments that it names."""


class MapKeywords(
    PredictionOptions,
    OfficialKeywords,
    Arguments,
    CompleteOptions,
    RespondOptions,
    total=False,
):
    """What `map` hands on to `respond` or `complete`, for each prompt."""

    config: Mapping[str, Any] | None
