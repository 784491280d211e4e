"""Checks of options whose values are objects: their fields, one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .checks import (
    Check,
    boolean,
    choice,
    integer,
    json_value,
    number,
    one_of,
    string,
    strings,
)
from .model import snake

_NEEDED: Any = object()
_nothing: tuple[Any, ...] = ()


class Shape:
    """A check of an object: its fields in either spelling, none left over.

    Args:
        others: Keep fields that are not known here, if they are JSON.
        fields: By the server's name: a check, and the value of a field that is not
            given; without one the field is needed.
    """

    def __init__(
        self, *, others: bool = False, **fields: Check | tuple[Check, Any]
    ) -> None:
        self._others = others
        self._fields = {
            name: field if isinstance(field, tuple) else (field, _NEEDED)
            for name, field in fields.items()
        }
        self._names = {snake(name): name for name in fields}
        needed = [
            snake
            for snake, name in self._names.items()
            if self._fields[name][1] is _NEEDED
        ]
        self._right = f"a mapping with {', '.join(needed or self._names)}"

    def __call__(self, value: Any) -> Any:
        """The object in its wire form.

        Raises:
            ValueError: With what would be right.
        """
        if not isinstance(value, Mapping):
            raise ValueError(self._right)
        made: dict[str, Any] = {}
        for given, item in value.items():
            name = self._names.get(given, given) if isinstance(given, str) else None
            if name is None or name in made:
                raise ValueError(f"{self._right}, each once")
            if name in self._fields:
                if item is not None:
                    made[name] = _inside(snake(name), self._fields[name][0], item)
            elif self._others:
                made[name] = _inside(name, json_value, item)
            else:
                raise ValueError(
                    f"a mapping with {', '.join(self._names)} and nothing else"
                )
        for name, (_, default) in self._fields.items():
            if name not in made:
                if default is _NEEDED:
                    raise ValueError(self._right)
                if default is not None:
                    made[name] = json_value(default)
        return made


def _inside(name: str, check: Check, value: Any) -> Any:
    try:
        return check(value)
    except ValueError as exc:
        raise ValueError(f"a mapping whose {name} is {exc}") from None


def list_of(check: Check, what: str) -> Check:
    """A list of items that a check takes.

    Args:
        what: The items, for messages.
    """

    def check_all(value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"a list of {what}")
        try:
            return [check(item) for item in value]
        except ValueError as exc:
            raise ValueError(f"a list of {what}, each {exc}") from None

    return check_all


def short(shape: Shape, words: str, **forms: Callable[[Any], Any]) -> Check:
    """A shape that may be written shorter.

    Args:
        words: The shorter forms, for messages.
        forms: Name of a type -> what makes the object of a value of just that type.
    """

    def check(value: Any) -> Any:
        form = forms.get(type(value).__name__)
        if form is not None:
            return shape(form(value))
        try:
            return shape(value)
        except ValueError as exc:
            either = "" if isinstance(value, Mapping) else f"{words}, or "
            raise ValueError(f"{either}{exc}") from None

    return check


_texts = strings
_gpus = list_of(integer(0), "numbers of GPUs")

#: Which GPUs share a model, and how.
gpu_split = Shape(
    strategy=(choice("evenly", "priorityOrder", "custom", "tensor"), "evenly"),
    disabledGpus=(_gpus, _nothing),
    priority=(_gpus, _nothing),
    customRatio=(list_of(number(0), "numbers"), _nothing),
)

mlx_kv_cache_quantization = short(
    Shape(
        enabled=(boolean, True),
        bits=(one_of(8, 6, 4, 3, 2), 8),
        groupSize=(one_of(32, 64, 128), 64),
        quantizedStart=(integer(0), 5000),
    ),
    "True, False",
    bool=lambda enabled: {"enabled": enabled},
)


def _scalar(value: Any) -> Any:
    if value is None or isinstance(value, (Mapping, list, tuple, set)):
        raise ValueError("a text, a number, True or False")
    return json_value(value)


_overrides = list_of(Shape(key=string, value=_scalar), "keys and values")


def _by_key(value: Any) -> Any:
    if isinstance(value, Mapping):
        value = [{"key": key, "value": item} for key, item in value.items()]
    return _overrides(value)


llama_cpp_arguments_override = short(
    Shape(
        enabled=(boolean, True),
        disabledParameters=(_texts, _nothing),
        overrideParameters=(_by_key, _nothing),
        excludeAllConfig=(boolean, False),
    ),
    "False",
    bool=lambda enabled: {"enabled": enabled},
)

reasoning_parsing = short(
    Shape(
        enabled=(boolean, True),
        startString=(string, "<think>"),
        endString=(string, "</think>"),
    ),
    "True, False",
    bool=lambda enabled: {"enabled": enabled},
)

mirostat_sampling = short(
    Shape(
        version=one_of(0, 1, 2),
        learningRate=(number(0), 0.1),
        targetEntropy=(number(0), 5),
    ),
    "0, 1, 2",
    int=lambda version: {"version": version},
    bool=lambda on: {} if on else {"version": 0},
)

_jinja = Shape(template=string, others=True)
_manual = Shape(
    beforeSystem=(string, ""),
    afterSystem=(string, ""),
    beforeUser=(string, ""),
    afterUser=(string, ""),
    beforeAssistant=(string, ""),
    afterAssistant=(string, ""),
)
_templates = {
    "jinja": Shape(
        type=choice("jinja"),
        jinjaPromptTemplate=_jinja,
        manualPromptTemplate=(_manual, None),
        stopStrings=(_texts, _nothing),
    ),
    "manual": Shape(
        type=choice("manual"),
        manualPromptTemplate=_manual,
        jinjaPromptTemplate=(_jinja, None),
        stopStrings=(_texts, _nothing),
    ),
}


def prompt_template(value: Any) -> Any:
    """A template of conversations; a text is one in Jinja."""
    if isinstance(value, str):
        value = {"type": "jinja", "jinjaPromptTemplate": {"template": value}}
    kind = value.get("type") if isinstance(value, Mapping) else None
    if not isinstance(kind, str) or kind not in _templates:
        raise ValueError(
            "a Jinja template, or a mapping with the type 'jinja' and a"
            " jinja_prompt_template, or 'manual' and a manual_prompt_template"
        )
    return _templates[kind](value)


#: The same when a model is loaded: without strings that stop predictions.
load_prompt_template = short(
    Shape(type=choice("jinja"), jinjaPromptTemplate=_jinja),
    "a Jinja template",
    str=lambda text: {"type": "jinja", "jinjaPromptTemplate": {"template": text}},
)

_tool = Shape(
    type=(choice("function"), "function"),
    function=Shape(
        name=string,
        description=(string, None),
        parameters=(
            Shape(
                type=(choice("object"), "object"),
                properties=(json_value, {}),
                others=True,
            ),
            None,
        ),
        others=True,
    ),
)
_tools = list_of(_tool, "tools")


def raw_tools(value: Any) -> Any:
    """The tools that a model may ask for, as they travel; a list counts as all."""
    if isinstance(value, (list, tuple)):
        value = {"type": "toolArray", "tools": value}
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind == "none" and set(value) == {"type"}:
        return {"type": "none"}
    if kind != "toolArray":
        raise ValueError(
            'a list of tools, {"type": "toolArray", "tools": [...]} or {"type": "none"}'
        )
    return Shape(type=choice("toolArray"), tools=(_tools, _nothing))(value)


_choice = Shape(
    type=(choice("generic"), "generic"), mode=choice("none", "auto", "required")
)


def tool_choice(value: Any) -> Any:
    """How free a model is to call tools: a mode, or the whole setting."""
    try:
        return _choice({"mode": value} if isinstance(value, str) else value)
    except ValueError:
        raise ValueError(
            "'none', 'auto', 'required', or {\"type\": \"generic\", \"mode\": one of"
            " these}; a tool can't be chosen by name"
        ) from None


#: Files of the server that begin every conversation.
context_prefill = list_of(
    Shape(type=choice("jsonFile", "yamlFile"), absPath=string), "files"
)
