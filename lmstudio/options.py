"""From what users pass to the settings that travel: one place for all spellings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .arguments import checked_text
from .errors import LMStudioTypeError, LMStudioValueError, shown
from .nearest import Asked
from .structured import Parse, to_setting
from .wire.common import KVConfig, KVField, KVLayer, KVStack
from .wire.config import EMBEDDING_LOAD, LOAD, PREDICTION, RAW, Table
from .wire.model import camel

#: Explicit placement or context: the server must not choose by itself then.
#: Source: docs/wire/config.md.
_PLACEMENT = (
    "llm.load.contextLength",
    "llm.load.llama.acceleration.offloadRatio",
    "llm.load.numCpuExpertLayersRatio",
    "load.gpuSplitConfig",
    "load.gpuStrictVramCap",
)
_DRAFT = "llm.load.llama.speculativeDecoding."
_AUTO_FIT = ("llm.load.llama.autoFit", "llm.load.mlx.autoFit", "llm.load.yuzu.autoFit")

#: How `complete` asks for raw text: every message's content, nothing between.
#: Source: docs/wire/predict.md.
_VERBATIM = "{% for message in messages %}{{ message['content'] }}{% endfor %}"

#: Options of conversations, and of plain texts, that become other settings.
AFFIXES = ("input_prefix", "input_suffix")
PRE_PROMPT = "pre_prompt"

_NO_TOOLS = "offers no tools"
#: What only a conversation has, and why `complete` takes it not.
_NOT_IN_COMPLETE = {
    "prompt_template": "uses no template",
    "system_prompt": "has pre_prompt for text in front",
    "tools": _NO_TOOLS,
    "on_tool_call": _NO_TOOLS,
    "raw_tools": _NO_TOOLS,
    "tool_choice": _NO_TOOLS,
    "tool_naming": _NO_TOOLS,
}

_GPU = {
    "ratio": "ratio",
    "mainGpu": "main_gpu",
    "splitStrategy": "split_strategy",
    "disabledGpus": "disabled_gpus",
    "numCpuExpertLayersRatio": "num_cpu_expert_layers_ratio",
}


def merged(
    config: Mapping[str, Any] | None, options: Mapping[str, Any], what: str
) -> dict[str, Any]:
    """Options from ``config={}`` and from keywords together.

    Raises:
        LMStudioValueError: The config is no mapping, or one name is in both.
    """
    if config is None:
        return dict(options)
    if not isinstance(config, Mapping):
        raise LMStudioTypeError(
            f"config must be a mapping of {what} options, not {shown(config)}"
        )
    known = {_row(name, what): name for name in config}
    for name, value in options.items():
        other = known.get(_row(name, what))
        if other is None or value is None or config[other] is None:
            continue
        spelled = "" if other == name else f" as {other!r}"
        keyword = "a keyword" if other == name else f"the keyword {name!r}"
        raise LMStudioValueError(
            f"{what} option {name} is given twice, in config{spelled} and as {keyword}"
        )
    given = {n: v for n, v in options.items() if v is not None or n not in config}
    return {**config, **given}


def _row(name: str, what: str) -> str:
    """What a name stands for, in any spelling."""
    row = {"load": LOAD, "prediction": PREDICTION}[what].find(name)
    return str(name) if row is None else row.key


def _layer(name: str, fields: list[KVField]) -> KVLayer:
    return KVLayer(layer_name=name, config=KVConfig(fields=fields))


def load_stack(
    config: Mapping[str, Any] | None,
    acceleration: Any,
    *,
    keywords: Mapping[str, Any] | None = None,
    embedding: bool = False,
    asked: Asked | None = None,
) -> KVStack:
    """The settings of a load.

    Args:
        config: Load options in either spelling; ``gpu`` may be a ratio or a mapping.
        acceleration: ``{"offload": ratio}`` as the README of the alpha has it.
        keywords: Load options that were given as keywords.
        asked: The call that they were given to, for messages.

    Raises:
        LMStudioValueError: An unknown option, or a wrong value.
    """
    options = merged(config, keywords or {}, "load")
    wishes = [("acceleration", acceleration)]
    for name in ("gpu", "acceleration", "gpu_offload", "gpuOffload"):
        wishes.append((name, options.pop(name, None)))
    for name, wish in wishes:
        for row, value in _gpu(wish, name).items():
            if options.get(row) is not None:
                raise LMStudioValueError(
                    f"load option {row} is given twice, also by {name}"
                )
            options[row] = value
    table: Table = EMBEDDING_LOAD if embedding else LOAD
    fields = table.encode(options, asked)
    if not embedding:
        fields += [*_auto_fit(fields), *_no_sidecars(fields)]
    return KVStack(layers=[_layer("apiOverride", fields)])


def _auto_fit(fields: list[KVField]) -> list[KVField]:
    """The other settings that go with ``auto_fit``, or with placement by hand.

    Source: docs/wire/config.md.
    """
    given = {field.key: field.value for field in fields}
    if not given.keys() & {*_PLACEMENT, _AUTO_FIT[0]}:
        return []
    fits = given.get(_AUTO_FIT[0], False)
    return [KVField(key=key, value=fits) for key in _AUTO_FIT if key not in given]


def _no_sidecars(fields: list[KVField]) -> list[KVField]:
    """Who says how drafts are made wants no draft model that lies beside the file.

    Source: docs/wire/config.md.
    """
    given = {field.key for field in fields}
    ways = {f"{_DRAFT}draft{name}" for name in ("Mtp", "Simple", "Model")}
    if not given & ways:
        return []
    sidecars = (f"{_DRAFT}draft{name}Sidecar" for name in ("Dflash", "Dspark", "Mtp"))
    return [KVField(key=key, value=False) for key in sidecars if key not in given]


def _gpu(given: Any, name: str) -> dict[str, Any]:
    """The settings behind ``gpu`` and ``acceleration``.

    Source: docs/wire/config.md.
    """
    if given is None:
        return {}
    if isinstance(given, Mapping) and set(given) == {"acceleration"}:
        given = given["acceleration"]  # the README nests it once
    if isinstance(given, Mapping) and set(given) <= {"offload"}:
        given = given.get("offload")
    if not isinstance(given, Mapping):
        return {} if given in (None, "auto") else {"gpu_ratio": given}
    parts: dict[str, Any] = {}
    for key, value in given.items():
        known = _GPU.get(str(key), str(key))
        if known not in _GPU.values():
            raise LMStudioValueError(
                f"unknown {name} option {shown(key)}; known are offload (alone),"
                f" {', '.join(_GPU.values())}"
            )
        if value is not None:
            parts[known] = value
    made: dict[str, Any] = {}
    if "ratio" in parts and parts["ratio"] != "auto":
        made["gpu_ratio"] = parts["ratio"]
    if "num_cpu_expert_layers_ratio" in parts:
        made["num_cpu_expert_layers_ratio"] = parts["num_cpu_expert_layers_ratio"]
    if {"main_gpu", "split_strategy", "disabled_gpus"} & set(parts):
        made["gpu_split"] = _gpu_split(parts)
    return made


def _gpu_split(parts: Mapping[str, Any]) -> dict[str, Any]:
    strategies = {"evenly": "evenly", "favormaingpu": "priorityOrder"}
    given = parts.get("split_strategy", "evenly")
    strategy = strategies.get(str(given).replace("_", "").lower())
    if strategy is None:
        raise LMStudioValueError(
            f"split_strategy must be 'evenly' or 'favorMainGpu', not {shown(given)}"
        )
    main, disabled = parts.get("main_gpu"), parts.get("disabled_gpus", [])
    for name, numbers in (("main_gpu", [main]), ("disabled_gpus", disabled)):
        if name in parts and not (
            isinstance(numbers, (list, tuple))
            and all(type(n) is int and n >= 0 for n in numbers)
        ):
            raise LMStudioValueError(
                f"{name} takes numbers of GPUs from 0, not {shown(parts[name])}"
            )
    return {
        "strategy": strategy,
        "disabledGpus": list(disabled),
        "priority": [] if main is None else [main],
        "customRatio": [],
    }


class PredictionSettings:
    """The settings of one prediction, and what reads its answer.

    Attributes:
        stack: The layers that travel.
        parse: Makes the answer a value; None without structure.
        pre_prompt: Text that `complete` puts in front of the prompt.
    """

    def __init__(
        self,
        options: dict[str, Any],
        *,
        structured: Any = None,
        response_format: Any = None,
        is_completion: bool,
        asked: Asked | None = None,
    ) -> None:
        self.parse: Parse | None = None
        self.pre_prompt = ""
        inside = options.pop("structured", None)
        wishes = [w for w in (structured, response_format, inside) if w is not None]
        if len(wishes) > 1:
            raise LMStudioValueError(
                "structured and response_format ask for the same thing; give one"
            )
        if wishes:
            options["structured"], self.parse = to_setting(wishes[0])
        layers = []
        if is_completion:
            self._for_completion(options)
        else:
            self._for_conversation(options)
        layers.append(_layer("apiOverride", PREDICTION.encode(options, asked)))
        if is_completion:
            template = {
                "type": "jinja",
                "jinjaPromptTemplate": {"template": _VERBATIM},
                "stopStrings": [],
            }
            row = PREDICTION.find("prompt_template")
            assert row is not None
            fields = [KVField(key=row.key, value=template)]
            layers.append(_layer("completeModeFormatting", fields))
        self.stack = KVStack(layers=layers)

    def _for_completion(self, options: dict[str, Any]) -> None:
        for name in ("input_prefix", "inputPrefix", "input_suffix", "inputSuffix"):
            if options.pop(name, None) is not None:
                raise LMStudioValueError(
                    f"{name!r} is an option of respond(); complete() sends the prompt"
                    " as it is, with pre_prompt in front"
                )
        for name, why in _NOT_IN_COMPLETE.items():
            for spelling in (name, camel(name)):
                if options.pop(spelling, None) is not None:
                    raise LMStudioValueError(
                        f"{spelling!r} is an option of respond(); complete() {why}"
                    )
        self.pre_prompt = _text(options, "pre_prompt", "prePrompt") or ""
        given = {name for name, value in options.items() if value is not None}
        if not given & {"stop_strings", "stopStrings", "stop"}:
            options["stop_strings"] = []  # of a preset they would end raw text early

    def _for_conversation(self, options: dict[str, Any]) -> None:
        for name in ("pre_prompt", "prePrompt"):
            if options.pop(name, None) is not None:
                raise LMStudioValueError(
                    f"{name!r} is an option of complete(); in respond() put a message"
                    " of the role system first"
                )
        _check_choice(options)
        prefix = _text(options, "input_prefix", "inputPrefix")
        suffix = _text(options, "input_suffix", "inputSuffix")
        if prefix is not None or suffix is not None:
            templates = (options.get("prompt_template"), options.get("promptTemplate"))
            if any(template is not None for template in templates):
                raise LMStudioValueError(
                    "input_prefix and input_suffix make a prompt_template; give one"
                )
            options.pop("promptTemplate", None)
            options["prompt_template"] = _affix_template(prefix or "", suffix or "")


def _check_choice(options: Mapping[str, Any]) -> None:
    """A model can't be made to call a tool when there is none."""
    choice = options.get("tool_choice", options.get("toolChoice"))
    mode = choice.get("mode") if isinstance(choice, Mapping) else choice
    tools = options.get("raw_tools", options.get("rawTools"))
    offered = tools.get("tools") if isinstance(tools, Mapping) else tools
    if mode == "required" and not offered and options.get(RAW) is None:
        raise LMStudioValueError(
            "tool_choice='required' makes the model call a tool, and there is none;"
            " give tools=[...]"
        )


def _text(options: dict[str, Any], *names: str) -> str | None:
    """Take an option that is a text out of all, under any of its names."""
    given = {name: options.pop(name, None) for name in names}
    texts = [checked_text(t, name) for name, t in given.items() if t is not None]
    if len(texts) > 1:
        raise LMStudioValueError(
            f"prediction option {names[0]} is given twice, also as {names[1]!r}"
        )
    return texts[0] if texts else None


def _affix_template(prefix: str, suffix: str) -> dict[str, Any]:
    """A template that puts two texts around each message of the user.

    Source: docs/wire/predict.md.
    """
    manual = dict.fromkeys(
        (
            "beforeSystem",
            "afterSystem",
            "beforeUser",
            "afterUser",
            "beforeAssistant",
            "afterAssistant",
        ),
        "",
    )
    manual.update(beforeUser=prefix, afterUser=suffix)
    return {"type": "manual", "manualPromptTemplate": manual, "stopStrings": []}
