"""Options of requests: a table from their names to our settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs

from ...errors import shown
from ...wire.common import KVConfig, KVLayer, KVStack
from ...wire.config import PREDICTION
from ..engine import EngineError
from ..sampling import MAX_SEED
from .errors import RestError, wrong
from .reading import body, choose, read

#: Fields of requests that mean one of our options, by its name.
#: Source: docs/wire/rest.md, "Options".
FIELDS: Mapping[str, str] = {
    "temperature": "temperature",
    "top_p": "top_p_sampling",
    "top_k": "top_k_sampling",
    "min_p": "min_p_sampling",
    "repeat_penalty": "repeat_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "xtc_probability": "xtc_probability",
    "xtc_threshold": "xtc_threshold",
    "seed": "seed",
    "max_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",  # the last one that is given counts
    "stop": "stop_strings",
    "draft_model": "draft_model",
}
#: The same for fields with a form of their own.
OTHERS: Mapping[str, str] = {
    "response_format": "structured",
    "tools": "raw_tools",
    "tool_choice": "tool_choice",
    "logit_bias": "logit_bias",
    "top_logprobs": "log_probs",
    "reasoning_effort": "enable_thinking",
}
#: How much a model may think. Source: docs/wire/rest.md, "Reasoning".
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
#: A bias that stands for "never".
BAN = -100
#: Most candidates that are reported with a token.
MOST_CANDIDATES = 20
#: Longest time to live, seconds: some 30 years.
LONGEST_TTL = 1_000_000_000

Options = dict[str, Any]


def sampling(given: Mapping[str, Any]) -> Options:
    """Our options for the fields of a request that are given.

    Raises:
        RestError: A value is wrong; the error names the field.
    """
    made: Options = {}
    for field, name in FIELDS.items():
        value = given.get(field)
        if value is None or value == []:
            continue
        row = PREDICTION.find(name)
        assert row is not None, name
        if name == "max_tokens" and value == -1:  # how LM Studio's users say "no limit"
            made[name] = False
            continue
        try:
            made[name] = row.check(value)
        except ValueError as exc:
            raise wrong(field, str(exc), shown(value)) from None
    if made.get("seed", 0) > MAX_SEED:
        right = f"a whole number from -1 to {MAX_SEED}"
        raise wrong("seed", right, shown(made["seed"]))
    if given.get("logit_bias"):
        made["logit_bias"] = _logit_bias(given["logit_bias"])
    return made


def field_at_fault(exc: BaseException, given: Mapping[str, Any]) -> str | None:
    """The field of a request that a setting came from which was refused; None if none.

    Args:
        exc: Names the setting by its key at the beginning of its title.
        given: The request.
    """
    if getattr(exc, "code", None) != "invalidSetting":
        return None
    assert isinstance(exc, EngineError)
    key = re.split(r"[\s:,]", exc.title, maxsplit=1)[0]
    row = next((row for row in PREDICTION.settings if row.key == key), None)
    named = {**FIELDS, **OTHERS}
    fields = [field for field in named if row is not None and named[field] == row.name]
    return next((field for field in reversed(fields) if field in given), None)


def structured(value: Any, at: str = "response_format") -> Options:
    """The option for what the answer has to be.

    Args:
        value: In the form of chat completions, or of responses (a schema beside the
            type instead of below it).
    """
    if value is None:
        return {}
    asked = read(value, _Format, at)
    kind = choose(asked.type, ("text", "json_object", "json_schema"), f"{at}.type")
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"structured": {"type": "json"}}
    place = f"{at}.json_schema" if asked.json_schema is not None else at
    schema = asked.schema if asked.json_schema is None else asked.json_schema.schema
    if not isinstance(schema, dict):
        raise wrong(f"{place}.schema", "a JSON schema", shown(schema))
    return {"structured": {"type": "json", "jsonSchema": schema}}


def tools(definitions: Any, choice: Any, *, flat: bool = False) -> Options:
    """The options for the tools that the model may call.

    Args:
        definitions: The field ``tools``.
        choice: The field ``tool_choice``.
        flat: Definitions have name and parameters beside their type, as in responses.
    """
    if definitions is None:
        definitions = []
    made: list[dict[str, Any]] = []
    for number, value in enumerate(read(definitions, list[Any], "tools")):
        at = f"tools[{number}]"
        _only_functions(read(value, _Typed, at).type, f"{at}.type")
        place = at if flat else f"{at}.function"
        one = read(value, _Function, at) if flat else read(value, _Tool, at).function
        if not one.name:
            raise wrong(f"{place}.name", "a non-empty string", "''")
        made.append({"type": "function", "function": _definition(one)})
    mode, only = _choice(choice)
    if only is not None:
        made = [tool for tool in made if tool["function"]["name"] == only]
    if mode == "required" and not made:
        right = "the name of one of the tools" if only else "'auto' without tools"
        raise wrong("tool_choice", right, shown(only or mode))
    if not made:
        return {}
    return {
        "raw_tools": {"type": "toolArray", "tools": made},
        "tool_choice": {"type": "generic", "mode": mode},
    }


def reasoning(effort: str | None, at: str = "reasoning_effort") -> Options:
    """The option for how much the model may think: engines know "no" and "yes"."""
    if effort is None:
        return {}
    return {"enable_thinking": choose(effort, EFFORTS, at) != "none"}


def candidates(wanted: int | None, at: str = "top_logprobs") -> Options:
    """The option for probabilities, with as many candidates for each token."""
    count = wanted or 0
    if not 0 <= count <= MOST_CANDIDATES:
        raise wrong(at, f"a whole number from 0 to {MOST_CANDIDATES}", shown(count))
    return {"log_probs": max(1, count)}  # 0 would report nothing at all


def stack(options: Options) -> KVStack:
    """Options as they travel."""
    config = KVConfig(fields=PREDICTION.encode(options))
    return KVStack(layers=[KVLayer(layer_name="apiOverride", config=config)])


def milliseconds(ttl: float | None) -> int | None:
    """A time to live in seconds, as it travels."""
    if ttl is None:
        return None
    if not 0 < ttl <= LONGEST_TTL:
        right = f"a number of seconds above 0, at most {LONGEST_TTL}"
        raise wrong("ttl", right, shown(ttl))
    return max(1, round(ttl * 1000))


@body(kw_only=True)
class _Typed:
    type: str = "function"


@body(kw_only=True)
class _Schema:
    schema: Any = None


@body(kw_only=True)
class _Format:
    type: str
    json_schema: _Schema | None = None
    schema: Any = None


@body(kw_only=True)
class _Function:
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


@body(kw_only=True)
class _Tool:
    function: _Function


@body(kw_only=True)
class _Named:
    name: str


@body(kw_only=True)
class _Choice:
    type: str = "function"
    function: _Named | None = None
    name: str | None = None


def _definition(function: _Function) -> dict[str, Any]:
    given = attrs.asdict(function, filter=lambda _, value: value is not None)
    strict = given.pop("strict", False)
    schema = function.parameters or {"type": "object", "properties": {}}
    return {**given, "parameters": _closed(schema) if strict else schema}


def _closed(schema: Any) -> Any:
    """A schema whose objects have no other properties than it names.

    Source: docs/wire/rest.md, "Options".
    """
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = dict(schema)
    for key in ("properties", "$defs", "definitions"):
        if isinstance(made.get(key), dict):
            made[key] = {name: _closed(one) for name, one in made[key].items()}
    for key in ("items", "prefixItems", "anyOf", "oneOf"):
        if key in made:
            made[key] = _closed(made[key])
    if made.get("type") == "object" or "properties" in made:
        made.setdefault("additionalProperties", False)
    return made


def _choice(value: Any) -> tuple[str, str | None]:
    """The mode, and the only tool that may be called."""
    if value is None:
        return "auto", None
    if isinstance(value, str):
        return choose(value, ("none", "auto", "required"), "tool_choice"), None
    asked = read(value, _Choice, "tool_choice")
    _only_functions(asked.type, "tool_choice.type")
    name = asked.function.name if asked.function is not None else asked.name
    if name is None:
        raise RestError(
            "tool_choice.function.name is missing",
            code="missing_required_parameter",
            param="tool_choice.function.name",
        )
    return "required", name


def _only_functions(kind: str, at: str) -> None:
    if kind != "function":
        raise wrong(at, "'function': this server has no tools of its own", shown(kind))


def _logit_bias(value: Any) -> dict[int, float]:
    at, right = "logit_bias", "an object from token ids to numbers from -100 to 100"
    if not isinstance(value, dict):
        raise wrong(at, right, shown(value))
    made: dict[int, float] = {}
    for token, bias in value.items():
        is_number = isinstance(bias, (int, float)) and not isinstance(bias, bool)
        if not token.isdecimal() or not is_number or not -100 <= bias <= 100:
            raise wrong(at, right, f"{shown(token)}: {shown(bias)}")
        made[int(token[:20])] = float("-inf") if bias == BAN else bias
    return made
