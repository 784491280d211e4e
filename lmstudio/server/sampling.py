"""The settings of one prediction, checked: what comes in as keys goes to the engine."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from ..errors import shown
from ..wire.common import KVConfig, KVField
from ..wire.config import CHECKBOX, PREDICTION, Setting, unwrapped
from .engine import EngineError, Sampling

log = logging.getLogger("lmstudio.server.sampling")

#: What a setting is when nobody gives it. Source: docs/wire/config.md.
DEFAULTS: Mapping[str, Any] = {
    "temperature": 0.8,
    "top_k_sampling": 40,
    "top_p_sampling": 0.95,
    "min_p_sampling": 0.05,
    "repeat_penalty": 1.1,
    "context_overflow_policy": "truncateMiddle",
}
ROWS = {row.key: row for row in PREDICTION.settings}
#: The largest seed: engines keep it in 32 bits.
MAX_SEED = 2**32 - 1
#: The largest id of a token: engines keep it in 31 bits.
MAX_TOKEN = 2**31 - 1
#: The largest temperature, penalty or bias, either way: more makes no difference, and
#: numbers that an engine cannot hold become infinite there.
MAX_NUMBER = 1_000_000
#: Samplers that no engine offers, and the value with which they do nothing.
NOT_OFFERED = {"llm.prediction.llama.tailFreeSampling": 1}


_Tools = tuple[dict[str, Any], ...]


class GenerationError(EngineError):
    """A prediction cannot be made, or its output is not what was asked for.

    Attributes:
        code: Tells programs the kind of failure, such as ``"invalidSetting"``.
    """

    def __init__(
        self,
        title: str,
        cause: str | None = None,
        suggestion: str | None = None,
        *,
        code: str | None = None,
    ) -> None:
        super().__init__(title, cause, suggestion)
        self.code = code


@attrs.frozen(kw_only=True)
class ReasoningTags:
    """The texts between which a model thinks."""

    start: str = "<think>"
    end: str = "</think>"


@attrs.frozen(kw_only=True)
class Options:
    """The settings of one prediction. None is "not given" where nothing else is said.

    Attributes:
        sampling: How tokens are chosen, with the defaults filled in.
        max_tokens: Most tokens to generate; None for no limit.
        stop_strings: Texts that end the generation.
        tool_call_stop_strings: The same, with the stop reason ``"toolCalls"``.
        overflow: ``"stopAtLimit"``, ``"truncateMiddle"`` or ``"rollingWindow"``.
        structured: The setting as it came; `structure.read_structure` reads it.
        tools: Definitions of the tools that the model may see.
        forced_tools: Of these, the ones of which one has to be called; empty where
            the model may choose.
        tool_naming: How the names are changed for the model.
        prompt_template: The setting as it came; `prompt.Formatter` reads it.
        system_prompt: Stands in for a missing system message; may be empty.
        enable_thinking: What templates know as ``enable_thinking``.
        reasoning: Where the model's thoughts are; None when they are not told apart.
        own_tags: Whether `reasoning` was given, instead of what the template says.
        reasoning_budget: Most tokens of thoughts; None for no limit.
        logprobs: Candidates to report with each token; None for no report.
    """

    sampling: Sampling
    max_tokens: int | None = None
    stop_strings: tuple[str, ...] = ()
    tool_call_stop_strings: tuple[str, ...] = ()
    overflow: str = "truncateMiddle"
    structured: Mapping[str, Any] | None = None
    tools: tuple[dict[str, Any], ...] = ()
    forced_tools: tuple[dict[str, Any], ...] = ()
    tool_naming: str = "removeSpecial"
    prompt_template: Mapping[str, Any] | None = None
    system_prompt: str = ""
    enable_thinking: bool | None = None
    reasoning: ReasoningTags | None = attrs.field(factory=ReasoningTags)
    own_tags: bool = False
    reasoning_budget: int | None = None
    logprobs: int | None = None


def read_options(config: KVConfig) -> Options:
    """Check the collapsed settings of a prediction.

    Raises:
        GenerationError: A value is wrong, or asks for what no engine here can do; the
            title names the key and says what would be right.
    """
    given = _Given(config)
    given.refuse_what_is_not_offered()
    max_tokens = given.max_tokens()
    tools, forced = _tools(given)
    reasoning = _reasoning(given)
    budget = _off_is(None, given.get("reasoning_budget"))
    if budget is not None and reasoning is None:
        raise GenerationError(
            f"{_row('reasoning_budget').key} needs the thoughts told apart",
            suggestion=f"Switch {_row('reasoning_parsing').key} on",
            code="invalidSetting",
        )
    return Options(
        sampling=_sampling(given),
        max_tokens=max_tokens,
        stop_strings=tuple(given.get("stop_strings", ())),
        tool_call_stop_strings=tuple(given.get("tool_call_stop_strings", ())),
        overflow=given.get("context_overflow_policy"),
        structured=given.get("structured"),
        tools=tools,
        forced_tools=forced,
        tool_naming=given.get("tool_naming", "removeSpecial"),
        prompt_template=given.get("prompt_template"),
        system_prompt=given.get("system_prompt", ""),
        enable_thinking=given.get("enable_thinking"),
        reasoning=reasoning,
        own_tags=given.raw("reasoning_parsing") is not None,
        reasoning_budget=budget,
        logprobs=_off_is(None, given.get("log_probs")),
    )


def draft_model_of(config: KVConfig) -> str | None:
    """The name of the draft model that a prediction asks for, None without one.

    Raises:
        GenerationError: It is no text.
    """
    return _Given(config).get("draft_model") or None


def effective(config: KVConfig) -> KVConfig:
    """The settings that a prediction runs with, in the form that clients read.

    Defaults are filled in, and checkboxes have both their fields: strict readers
    raise otherwise. Source: docs/wire/config.md.
    """
    merged: dict[str, Any] = {}
    for name, default in DEFAULTS.items():
        row = _row(name)
        merged[row.key] = _checkbox(default) if row.wrap == CHECKBOX else default
    for field in config.fields:
        if field.value is not None:
            merged[field.key] = _canonical(field)
    return KVConfig(fields=[KVField(key=k, value=v) for k, v in merged.items()])


def _canonical(field: KVField) -> Any:
    row = ROWS.get(field.key)
    if row is None or row.wrap != CHECKBOX:
        return field.value
    value = unwrapped(row, field.value)
    if value is False:
        return {"checked": False, "value": row.off}
    return _checkbox(value)


def _checkbox(value: Any) -> dict[str, Any]:
    return {"checked": True, "value": value}


def _row(name: str) -> Setting:
    row = PREDICTION.find(name)
    assert row is not None, name
    return row


def _wrong(key: str, right: str, value: Any) -> GenerationError:
    return GenerationError(
        f"{key} must be {right}, not {shown(value)}", code="invalidSetting"
    )


class _Given:
    """The settings of a config, found by our names and checked one by one."""

    def __init__(self, config: KVConfig) -> None:
        self._values = {field.key: field.value for field in config.fields}

    def get(self, name: str, default: Any = None, fields: Iterable[str] = ()) -> Any:
        """A checked value, False when its checkbox is off.

        Args:
            fields: Those of an object that count; newer clients may send others.
        """
        row = _row(name)
        value = self._values.get(row.key)
        if value is None:
            return DEFAULTS.get(name, default)
        value = unwrapped(row, value)
        if row.wrap == CHECKBOX and value is False:
            return False
        if fields and isinstance(value, Mapping):
            value = {name: value[name] for name in fields if name in value}
        try:
            return row.check(value)
        except ValueError as exc:
            raise _wrong(row.key, str(exc), value) from None

    def amount(self, name: str, off: float = 0.0) -> Any:
        """A number that an engine can hold; `off` where it is switched off."""
        value = _off_is(off, self.get(name))
        if value is not None and abs(value) > MAX_NUMBER:
            right = f"a number no further from 0 than {MAX_NUMBER}"
            raise _wrong(_row(name).key, right, value)
        return value

    def by_key(self, key: str) -> Any:
        """A value of a key that has no row, without its checkbox."""
        value = self._values.get(key)
        if isinstance(value, Mapping):
            return value.get("value") if value.get("checked") else None
        return value

    def raw(self, name: str) -> Any:
        """A value without its checkbox, not checked."""
        row = _row(name)
        return unwrapped(row, self._values.get(row.key))

    def max_tokens(self) -> int | None:
        # -1 is how older clients write "no limit". Source: docs/wire/alpha.md.
        if self.raw("max_tokens") == -1:
            return None
        limit: int | None = _off_is(None, self.get("max_tokens"))
        return limit

    def refuse_what_is_not_offered(self) -> None:
        """Say so where a setting would change the text and nothing here knows it."""
        on = [key for key, off in NOT_OFFERED.items() if self._is_on(key, off)]
        if on:
            raise GenerationError(
                f"{', '.join(on)}: this server has no such sampler",
                suggestion="Leave it out, or switch it off",
                code="invalidSetting",
            )
        if self.get("context_prefill"):
            raise GenerationError(
                f"{_row('context_prefill').key}: this server reads no files for it",
                suggestion="Leave it out, and send the messages in the history",
                code="unsupportedSetting",
            )

    def _is_on(self, key: str, off: Any) -> bool:
        return self.by_key(key) not in (None, False, off)


def _off_is(neutral: Any, value: Any) -> Any:
    """A value, or what stands for "off" where it is switched off."""
    return neutral if value is False else value


def _sampling(given: _Given) -> Sampling:
    return Sampling(
        temperature=given.amount("temperature"),
        top_k=max(0, given.get("top_k_sampling")),  # -1 keeps all candidates, like 0
        top_p=_off_is(1.0, given.get("top_p_sampling")),
        min_p=_off_is(0.0, given.get("min_p_sampling")),
        repeat_penalty=_repeat_penalty(given),
        presence_penalty=given.amount("presence_penalty"),
        frequency_penalty=given.amount("frequency_penalty"),
        xtc_probability=_off_is(0.0, given.get("xtc_probability")),
        xtc_threshold=_off_is(None, given.get("xtc_threshold")),
        typical_p=_off_is(None, given.get("locally_typical_sampling")),
        **_mirostat(given),
        seed=_seed(given),
        logit_bias=_logit_bias(given),
    )


def _mirostat(given: _Given) -> dict[str, Any]:
    """The settings of Mirostat; nothing where it is off."""
    fields = ("version", "targetEntropy", "learningRate")
    setting = given.get("mirostat_sampling", fields=fields) or {}
    if not setting.get("version"):
        return {}
    return {
        "mirostat": setting["version"],
        "mirostat_tau": setting.get("targetEntropy"),
        "mirostat_eta": setting.get("learningRate"),
    }


def _repeat_penalty(given: _Given) -> float:
    value: float = given.amount("repeat_penalty", 1.0)
    if value == -1:
        return 1.0
    if value <= 0:  # it divides the chances of a token
        key = _row("repeat_penalty").key
        raise _wrong(key, "a number above 0, or -1 for none", value)
    return value


def _seed(given: _Given) -> int | None:
    value: int | None = _off_is(None, given.get("seed"))
    if value is not None and value > MAX_SEED:
        key = _row("seed").key
        raise _wrong(key, f"a whole number from -1 to {MAX_SEED}", value)
    return None if value == -1 else value


def _logit_bias(given: _Given) -> dict[int, float | bool]:
    made: dict[int, float | bool] = {}
    for token, bias in given.get("logit_bias", ()):
        key = _row("logit_bias").key
        if token > MAX_TOKEN:
            raise _wrong(key, f"pairs with a token id of at most {MAX_TOKEN}", token)
        if bias != "-inf" and abs(bias) > MAX_NUMBER:
            right = f"pairs with a bias no further from 0 than {MAX_NUMBER}"
            raise _wrong(key, right, bias)
        made[token] = False if bias == "-inf" else bias
    return made


def _reasoning(given: _Given) -> ReasoningTags | None:
    fields = ("enabled", "startString", "endString")
    setting = given.get("reasoning_parsing", fields=fields)
    if setting is None:
        return ReasoningTags()
    if not setting.get("enabled", True):
        return None
    tags = ReasoningTags()
    start = setting.get("startString", tags.start)
    end = setting.get("endString", tags.end)
    if not all(isinstance(tag, str) and tag for tag in (start, end)):
        right = "an object with non-empty startString and endString"
        raise _wrong(_row("reasoning_parsing").key, right, setting)
    return ReasoningTags(start=start, end=end)


def _tools(given: _Given) -> tuple[_Tools, _Tools]:
    """The tools that the model may see, and those of which it has to call one."""
    raw = given.raw("raw_tools") or {"type": "none"}
    is_none = isinstance(raw, Mapping) and raw.get("type") == "none"
    fields = ("type",) if is_none else ("type", "tools")
    setting = given.get("raw_tools", {"type": "none"}, fields)
    tools = setting.get("tools") or []
    names = check_tools(tools, f"{_row('raw_tools').key}.tools")
    mode, only = _choice(given)
    if not is_none and raw.get("force") is True and mode == "auto":
        mode = "required"
    # The last round of a run takes the tools away, and may leave the choice.
    if mode == "none" or is_none:
        return (), ()
    forced = [t for t in tools if only is None or t["function"]["name"] == only]
    if mode == "required" and not forced:
        tools_there = f"There are {', '.join(map(shown, names))}" if names else None
        raise GenerationError(
            f"{_row('tool_choice').key} asks for a call of "
            f"{'a tool' if only is None else shown(only)}, and there is none",
            tools_there,
            "Name one of the tools" if names else "Send tools, or leave it out",
            code="invalidSetting",
        )
    return tuple(tools), tuple(forced) if mode == "required" else ()


def check_tools(tools: Any, at: str) -> list[str]:
    """The names of some tools, whose definitions are right.

    Raises:
        GenerationError: One is wrong, or two have one name.
    """
    row = _row("raw_tools")
    try:
        row.check({"type": "toolArray", "tools": tools})
    except ValueError as exc:
        raise _wrong(at, str(exc), tools) from None
    names: list[str] = [tool["function"]["name"] for tool in tools]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise _wrong(at, "tools with different names", twice)
    return names


def _choice(given: _Given) -> tuple[str, str | None]:
    """How free the model is, and the only tool that it may call.

    Source: docs/wire/config.md, "Tools".
    """
    choice = given.raw("tool_choice")
    if choice is None:
        return "auto", None
    if not isinstance(choice, Mapping):
        choice = {}
    mode = choice.get("mode")
    if choice.get("type") == "generic" and mode in ("none", "auto", "required"):
        return str(mode), None
    function = choice.get("function")
    name = (function if isinstance(function, Mapping) else choice).get("name")
    if choice.get("type") == "function" and isinstance(name, str) and name:
        return "required", name
    right = (
        "{'type': 'generic', 'mode': 'none', 'auto' or 'required'} or "
        "{'type': 'function', 'function': {'name': ...}}"
    )
    raise _wrong(_row("tool_choice").key, right, given.raw("tool_choice"))
