"""The tables of settings, and the codec that reads them in both directions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from ..errors import LMStudioTypeError, LMStudioValueError, shown
from ..nearest import Asked, meant
from . import checks, shapes
from .checks import Check, boolean, choice, integer, mapping, number, ratio, string
from .common import KVConfig, KVField, KVStack
from .model import camel

#: How a value travels: bare, or as ``{"checked": bool, "value": x}``.
PLAIN = "plain"
CHECKBOX = "checkbox"

#: The option that holds settings by the server's keys, as they travel.
RAW = "raw"

CACHE_TYPES = ("f32", "f16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")


@attrs.frozen
class Setting:
    """One row: our name, the server's key, and how the value is checked and wrapped.

    Attributes:
        name: snake_case; the camelCase form is accepted as well.
        key: The server's key.
        check: Checks a value and returns its wire form.
        wrap: `PLAIN` or `CHECKBOX`.
        off: With `CHECKBOX`: the value written beside ``"checked": false``.
        also: Other names that are accepted.

    Source: docs/wire/config.md.
    """

    name: str
    key: str
    check: Check
    wrap: str = PLAIN
    off: Any = 0
    also: tuple[str, ...] = ()


_L = "llm.load."
_LL = "llm.load.llama."
_S = "llm.load.llama.speculativeDecoding."
_P = "llm.prediction."
_PL = "llm.prediction.llama."
_PS = "llm.prediction.speculativeDecoding."
_share = number(0, 1)
_cache = choice(*CACHE_TYPES)

LOAD_SETTINGS = (
    Setting("context_length", _L + "contextLength", integer(1)),
    Setting("auto_fit_min_context_length", _L + "autoFitMinContextLength", integer(0)),
    Setting("num_experts", _L + "numExperts", integer(0)),
    Setting("seed", _L + "seed", integer(-1), CHECKBOX),
    Setting("prompt_template", _L + "promptTemplate", shapes.load_prompt_template),
    Setting(
        "offload_kv_cache_to_gpu",
        _L + "offloadKVCacheToGpu",
        boolean,
        also=("offloadKVCacheToGpu",),
    ),
    Setting("num_cpu_expert_layers_ratio", _L + "numCpuExpertLayersRatio", ratio),
    Setting("max_parallel_predictions", _L + "numParallelSessions", integer(1, 1023)),
    Setting("use_unified_kv_cache", _L + "useUnifiedKvCache", boolean),
    Setting("gpu_ratio", _LL + "acceleration.offloadRatio", ratio),
    Setting("auto_fit", _LL + "autoFit", boolean),
    Setting("cpu_thread_pool_size", _LL + "cpuThreadPoolSize", integer(1)),
    Setting("eval_batch_size", _LL + "evalBatchSize", integer(1)),
    Setting("physical_batch_size", _LL + "physicalBatchSize", integer(1)),
    Setting("flash_attention", _LL + "flashAttention", boolean),
    Setting("context_checkpoints", _LL + "contextCheckpoints", integer(0)),
    Setting("reasoning_budget_message", _LL + "reasoningBudgetMessage", string),
    Setting("rope_frequency_base", _LL + "ropeFrequencyBase", number(0), CHECKBOX),
    Setting("rope_frequency_scale", _LL + "ropeFrequencyScale", number(0), CHECKBOX),
    Setting("keep_model_in_memory", _LL + "keepModelInMemory", boolean),
    Setting(
        "use_fp16_for_kv_cache",
        _LL + "useFp16ForKVCache",
        boolean,
        also=("useFp16ForKVCache",),
    ),
    Setting("try_mmap", _LL + "tryMmap", boolean),
    Setting("try_direct_io", _LL + "tryDirectIO", boolean, also=("tryDirectIO",)),
    Setting(
        "llama_k_cache_quantization_type",
        _LL + "kCacheQuantizationType",
        _cache,
        CHECKBOX,
        "f16",
    ),
    Setting(
        "llama_v_cache_quantization_type",
        _LL + "vCacheQuantizationType",
        _cache,
        CHECKBOX,
        "f16",
    ),
    Setting("speculative_draft_mtp", _S + "draftMtp", boolean),
    Setting("speculative_draft_simple", _S + "draftSimple", boolean),
    Setting("speculative_draft_model", _S + "draftModel", string),
    Setting("speculative_draft_max_tokens", _S + "draftMaxTokens", integer(0)),
    Setting("speculative_draft_min_tokens", _S + "draftMinTokens", integer(0)),
    Setting(
        "speculative_draft_min_continue_probability",
        _S + "draftMinContinueProbability",
        _share,
    ),
    Setting("speculative_draft_dflash_sidecar", _S + "draftDflashSidecar", boolean),
    Setting("speculative_draft_dspark_sidecar", _S + "draftDsparkSidecar", boolean),
    Setting("speculative_draft_mtp_sidecar", _S + "draftMtpSidecar", boolean),
    Setting(
        "llama_cpp_arguments_override",
        _LL + "argumentsOverride",
        shapes.llama_cpp_arguments_override,
    ),
    Setting("mlx_disk_cache", _L + "mlx.diskCache", boolean),
    Setting(
        "mlx_kv_cache_quantization",
        _L + "mlx.kvCacheQuantization",
        shapes.mlx_kv_cache_quantization,
    ),
    Setting("gpu_split", "load.gpuSplitConfig", shapes.gpu_split),
    Setting("gpu_strict_vram_cap", "load.gpuStrictVramCap", boolean),
    Setting("vllm_gpu_memory_utilization", _L + "vllm.gpuMemoryUtilization", _share),
    Setting("vllm_reasoning_parser", _L + "vllm.reasoningParser", string),
    Setting("vllm_tool_call_parser", _L + "vllm.toolCallParser", string),
    Setting("env_vars", "envVars", checks.texts_by_name),
)

_E = "embedding.load."

EMBEDDING_LOAD_SETTINGS = (
    Setting("context_length", _E + "contextLength", integer(1)),
    Setting("seed", _E + "seed", integer(-1), CHECKBOX),
    Setting("gpu_ratio", _E + "llama.acceleration.offloadRatio", ratio),
    Setting("eval_batch_size", _E + "llama.evalBatchSize", integer(1)),
    Setting("rope_frequency_base", _E + "llama.ropeFrequencyBase", number(0), CHECKBOX),
    Setting(
        "rope_frequency_scale", _E + "llama.ropeFrequencyScale", number(0), CHECKBOX
    ),
    Setting("keep_model_in_memory", _E + "llama.keepModelInMemory", boolean),
    Setting("try_mmap", _E + "llama.tryMmap", boolean),
    Setting("gpu_split", "load.gpuSplitConfig", shapes.gpu_split),
)

PREDICTION_SETTINGS = (
    Setting("temperature", _P + "temperature", number(0)),
    Setting(
        "max_tokens",
        _P + "maxPredictedTokens",
        integer(1),
        CHECKBOX,
        1,
        ("max_predicted_tokens",),
    ),
    Setting("stop_strings", _P + "stopStrings", checks.strings, also=("stop",)),
    Setting("tool_call_stop_strings", _P + "toolCallStopStrings", checks.strings),
    Setting(
        "context_overflow_policy",
        _P + "contextOverflowPolicy",
        choice("stopAtLimit", "truncateMiddle", "rollingWindow"),
    ),
    Setting("structured", _P + "structured", mapping),
    Setting("raw_tools", _P + "tools", shapes.raw_tools),
    Setting("tool_choice", _P + "toolChoice", shapes.tool_choice),
    Setting(
        "tool_naming",
        _P + "toolNaming",
        choice("passThrough", "removeSpecial", "snakeCase", "camelCase"),
    ),
    Setting("prompt_template", _P + "promptTemplate", shapes.prompt_template),
    Setting("system_prompt", _P + "systemPrompt", string),
    Setting("context_prefill", _P + "contextPrefill", shapes.context_prefill),
    Setting("seed", _P + "seed", integer(-1), CHECKBOX, -1),
    Setting("top_k_sampling", _P + "topKSampling", integer(-1, 500), also=("top_k",)),
    Setting("top_p_sampling", _P + "topPSampling", _share, CHECKBOX, 0.95, ("top_p",)),
    Setting("min_p_sampling", _P + "minPSampling", _share, CHECKBOX, 0.05, ("min_p",)),
    Setting("repeat_penalty", _P + "repeatPenalty", number(-1), CHECKBOX, 1.1),
    Setting("log_probs", _P + "logProbs", integer(0, 100), CHECKBOX, 0, ("logprobs",)),
    Setting("reasoning_parsing", _P + "reasoning.parsing", shapes.reasoning_parsing),
    Setting("enable_thinking", _P + "reasoning.enableThinking", boolean),
    Setting(
        "reasoning_budget", _P + "reasoning.budgetTokens", integer(0), CHECKBOX, 1024
    ),
    Setting(
        "user_max_image_dimension_pixels",
        _P + "vision.userMaxImageDimensionPixels",
        integer(1),
        CHECKBOX,
        1024,
    ),
    Setting(
        "ignore_model_preferred_max_image_dimension",
        _P + "vision.ignoreModelPreferredMaxImageDimension",
        boolean,
    ),
    Setting("draft_model", _PS + "draftModel", string),
    Setting(
        "speculative_decoding_num_draft_tokens_exact",
        _PS + "numDraftTokensExact",
        integer(1),
    ),
    Setting(
        "speculative_decoding_min_draft_length_to_consider",
        _PS + "minDraftLengthToConsider",
        integer(0),
    ),
    Setting(
        "speculative_decoding_min_continue_drafting_probability",
        _PS + "minContinueDraftingProbability",
        _share,
    ),
    Setting(
        "speculative_decoding_max_tokens_to_draft", _PS + "maxTokensToDraft", integer(1)
    ),
    Setting(
        "speculative_decoding_num_reuse_tokens", _PS + "numReuseTokens", integer(1)
    ),
    Setting("cpu_threads", _PL + "cpuThreads", integer(1)),
    Setting("presence_penalty", _PL + "presencePenalty", number(), CHECKBOX),
    Setting("frequency_penalty", _PL + "frequencyPenalty", number(), CHECKBOX),
    Setting("xtc_probability", _PL + "xtcProbability", _share, CHECKBOX),
    Setting("xtc_threshold", _PL + "xtcThreshold", _share, CHECKBOX),
    Setting("tail_free_sampling", _PL + "tailFreeSampling", _share, CHECKBOX, 0.95),
    Setting(
        "locally_typical_sampling",
        _PL + "locallyTypicalSampling",
        _share,
        CHECKBOX,
        0.9,
    ),
    Setting("mirostat_sampling", _PL + "mirostatSampling", shapes.mirostat_sampling),
    Setting("logit_bias", _PL + "logitBias", checks.logit_bias),
)


class Table:
    """One domain's settings, found by any of their names or by the server's key.

    Attributes:
        what: What it configures, for messages: ``"prediction"``.
    """

    def __init__(self, what: str, settings: Iterable[Setting]) -> None:
        self.what = what
        self._a_what = f"{'an' if what[0] in 'aeiou' else 'a'} {what}"
        self.settings = tuple(settings)
        self._by_key = {row.key: row for row in self.settings}
        self._by_name: dict[str, Setting] = {}
        for row in self.settings:
            for name in (row.name, *row.also):
                self._by_name[name] = row
                self._by_name[camel(name)] = row

    def find(self, name: str) -> Setting | None:
        """The setting of one of our names, in either spelling."""
        return self._by_name.get(name)

    def by_key(self, key: str) -> Setting | None:
        """The setting of a server's key."""
        return self._by_key.get(key)

    def names(self) -> list[str]:
        """Every canonical name."""
        return [row.name for row in self.settings]

    def encode(
        self, options: Mapping[str, Any], asked: Asked | None = None
    ) -> list[KVField]:
        """Check options and put them into wire form; None is not sent.

        Args:
            asked: The call that they were given to, for messages.

        Raises:
            LMStudioTypeError: An unknown name.
            LMStudioValueError: A name given twice, or a wrong value.
        """
        raw = self._raw(options.get(RAW))
        made: dict[str, KVField] = {}
        for name, value in options.items():
            if name == RAW:
                continue
            row = self.find(name)
            if row is None:
                raise LMStudioTypeError(self._unknown(name, asked))
            if value is None:
                continue
            if row.key in made:
                raise LMStudioValueError(
                    f"{self.what} option {row.name} is given twice, as"
                    f" {self._spelling(options, row)!r} and as {name!r}"
                )
            if row.key in raw:
                raise LMStudioValueError(
                    f"{self.what} option {name} is given twice, also in raw"
                )
            made[row.key] = KVField(key=row.key, value=_wrapped(self.what, row, value))
        return [*raw.values(), *made.values()]

    def _raw(self, given: Any) -> dict[str, KVField]:
        """The fields of the option ``raw``: the server's keys, values as they travel.

        Raises:
            LMStudioValueError: It is no mapping of keys, or not JSON.
        """
        if given is None:
            return {}
        fields = given.get("fields") if isinstance(given, Mapping) else None
        try:
            if isinstance(fields, (list, tuple)):  # as JSON has it
                named = {f["key"]: f.get("value") for f in map(checks.mapping, fields)}
            else:
                named = given
            return {
                key: KVField(key=key, value=value)
                for key, value in checks.mapping(named).items()
            }
        except (ValueError, KeyError):
            raise LMStudioValueError(
                f"{self.what} option raw must be a mapping of the server's keys to JSON"
                f' values, such as {{"llm.prediction.temperature": 0.5}}, not'
                f" {shown(given)}"
            ) from None

    def decode(self, config: KVConfig) -> dict[str, Any]:
        """Our names and plain values of what the server reports.

        A setting that is off is False; keys without a row keep the server's name.
        """
        made: dict[str, Any] = {}
        for field in config.fields:
            row = self._by_key.get(field.key)
            if row is None:
                made[field.key] = field.value
            else:
                made[row.name] = unwrapped(row, field.value)
        return made

    def _spelling(self, options: Mapping[str, Any], row: Setting) -> str:
        """The first of the names under which a setting is given."""
        return next(
            n for n in options if self.find(n) is row and options[n] is not None
        )

    def _unknown(self, name: str, asked: Asked | None) -> str:
        own = [] if asked is None else asked.names()
        if asked is not None and name in own:
            return (
                f"{shown(name)} is an argument of {asked.name}() itself, not"
                f" {self._a_what} option; give it as a keyword"
            )
        for other in (LOAD, PREDICTION):
            if other is not self and other.find(name) is not None:
                return (
                    f"{shown(name)} is a {other.what} option, not {self._a_what} option"
                )
        kind = self.what.rpartition(" ")[2]
        known = {n: n for n in own} | {n: r.name for n, r in self._by_name.items()}
        return f"unknown {self.what} option {shown(name)}{meant(name, known, kind)}"


def _wrapped(what: str, row: Setting, value: Any) -> Any:
    """A value in its wire form."""
    # -1 is how the README writes "no limit". Source: docs/wire/config.md.
    is_off = value is False or (row.name == "max_tokens" and value == -1)
    if row.wrap == CHECKBOX and is_off:
        return {"checked": False, "value": row.off}
    try:
        checked = row.check(value)
    except ValueError as exc:
        off = " (or False to switch it off)" if row.wrap == CHECKBOX else ""
        raise LMStudioValueError(
            f"{what} option {row.name} must be {exc}{off}, not {shown(value)}"
        ) from None
    return {"checked": True, "value": checked} if row.wrap == CHECKBOX else checked


def unwrapped(row: Setting, value: Any) -> Any:
    """A wire value without its checkbox; False when it is off.

    Python clients write ``{"checked": true, "value": false}`` for off.
    Source: docs/wire/config.md.
    """
    if row.wrap == CHECKBOX and isinstance(value, Mapping) and "checked" in value:
        return value.get("value") if value["checked"] else False
    return value


LOAD = Table("load", LOAD_SETTINGS)
EMBEDDING_LOAD = Table("embedding load", EMBEDDING_LOAD_SETTINGS)
PREDICTION = Table("prediction", PREDICTION_SETTINGS)


def collapse(stack: KVStack) -> KVConfig:
    """One config out of layers: later layers win, and later fields of one key."""
    merged: dict[str, Any] = {}
    for layer in stack.layers:
        for field in layer.config.fields:
            merged[field.key] = field.value
    return KVConfig(fields=[KVField(key=k, value=v) for k, v in merged.items()])
