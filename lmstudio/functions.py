"""Python functions offered to a model, and their schemas."""

from __future__ import annotations

import enum
import inspect
import json
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from .arguments import checked_text
from .docstrings import parsed
from .errors import LMStudioToolError, LMStudioTypeError, LMStudioValueError, shown
from .signatures import (
    check_sync,
    docstring_of,
    finished,
    hints_of,
    name_of,
    parameters_of,
)
from .structured import checked_schema

#: Names of tools that every server and template takes.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_EMPTY = inspect.Parameter.empty
_RIGHT = (
    "a tool is a function with type hints, a ToolFunctionDef, or"
    ' {"type": "function", "function": {"name": ..., "parameters": {...}}}'
)
#: What a schema of parameters may have beside ``properties``. Source:
#: docs/wire/predict.md.
_KEPT = ("type", "properties", "required", "additionalProperties", "$defs")


def _or_empty(text: str | None) -> str:
    return "" if text is None else text


@attrs.frozen(kw_only=True)
class ToolFunctionDef:
    """A tool in all its parts, for what a plain function can't say.

    Attributes:
        name: What the model calls it: 1 to 64 letters of ASCII, digits, _ and -.
        description: What it is for; the model reads it.
        parameters: Names and types, or a JSON schema of an object. In place of a type
            there may be ``{"type": int, "default": 1, "description": "..."}``; what has
            a default is not required.
        implementation: Called with the arguments by name. None for a tool that only
            `respond` can offer, whose calls you answer yourself.
    """

    name: str
    description: str = attrs.field(default="", converter=_or_empty)
    parameters: Mapping[str, Any] = attrs.field(factory=dict)
    implementation: Callable[..., Any] | None = None

    @classmethod
    def from_callable(
        cls,
        f: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
    ) -> ToolFunctionDef:
        """Take the parts from a function: its hints, defaults and docstring.

        Args:
            f: A function, bound method, `functools.partial` or callable object. What a
                partial has filled in is not shown to the model.
            name: None takes the function's.
            description: None takes the docstring's, without its sections.

        Raises:
            LMStudioTypeError: A hint is missing or can't be used, or the function is
                async or has ``*args``.
        """
        if not callable(f):
            raise LMStudioTypeError(f"{shown(f)} is no tool; {_RIGHT}")
        name = _checked_name(name_of(f) if name is None else name)
        if description is not None:
            checked_text(description, f"the description of tool {name}")
        check_sync(f, name)
        doc = parsed(docstring_of(f))
        if description is None:
            returns = f"Returns: {doc.returns}" if doc.returns else ""
            description = "\n\n".join(t for t in (doc.description, returns) if t)
        parameters: dict[str, Any] = {}
        hints = hints_of(f, name)
        for parameter in parameters_of(f, name):
            if parameter.name not in hints:
                raise LMStudioTypeError(
                    f"parameter {parameter.name} of tool {name} has no type hint; write"
                    f" one, such as {parameter.name}: str"
                )
            made = {"type": hints[parameter.name]}
            if parameter.default is not _EMPTY:
                made["default"] = parameter.default
            if parameter.name in doc.parameters:
                made["description"] = doc.parameters[parameter.name]
            plain = made["type"] if len(made) == 1 else made
            parameters[parameter.name] = plain
        return cls(
            name=name, description=description, parameters=parameters, implementation=f
        )


#: What is taken as a tool.
ToolLike = Callable[..., Any] | ToolFunctionDef | Mapping[str, Any]


class Tool:
    """A tool that is ready to be offered and called.

    Attributes:
        name: Its name, also in the model's calls.
        definition: What travels.
        implementation: What is called; None when nobody can.
    """

    def __init__(self, given: ToolFunctionDef) -> None:
        self.name = _checked_name(given.name)
        self.implementation = given.implementation
        description = checked_text(
            given.description,
            f"the description of tool {self.name}",
        )
        self._read: Callable[[Any], Any] | None = None
        self._schema = self._schema_of(given.parameters)
        self.definition: dict[str, Any] = {
            "type": "function",
            "function": {
                "name": self.name,
                **({"description": description} if description else {}),
                "parameters": self._schema,
            },
        }
        self._takes_places = False
        if self.implementation is not None:
            self._check_implementation(self.implementation)

    def _schema_of(self, parameters: Any) -> dict[str, Any]:
        if not isinstance(parameters, Mapping):
            raise LMStudioTypeError(
                f"parameters of tool {self.name} must be a mapping of names to types,"
                f" or a JSON schema, not {shown(parameters)}"
            )
        if parameters.get("type") == "object":
            try:
                return dict(checked_schema(parameters))
            except LMStudioValueError as exc:
                raise LMStudioValueError(f"tool {self.name}: {exc}") from None
        from .schema import shape_of

        fields = [self._field(name, given) for name, given in parameters.items()]
        make: Any = typing.TypedDict  # type checkers want literals
        try:
            keys = make(self.name, {n: hint for n, hint, _ in fields}, total=False)
        except Exception as exc:  # of many kinds, also what a `repr` raises
            raise LMStudioTypeError(
                f"parameters of tool {self.name} must be names and types: {exc}"
            ) from None
        keys.__required_keys__ = frozenset(n for n, _, d in fields if d is _EMPTY)
        shape = shape_of(keys)
        self._read = shape.read
        schema = {key: shape.schema[key] for key in _KEPT if key in shape.schema}
        properties = schema.setdefault("properties", {})
        for name, hint, default in fields:
            self._check_default(name, hint, default)
            if (plain := _as_json(default)) is not _EMPTY:
                properties[name] = {**properties[name], "default": plain}
        return {**schema, "additionalProperties": False}

    def _field(self, name: str, given: Any) -> tuple[str, Any, Any]:
        """Name, hint and default of a parameter."""
        if not isinstance(given, Mapping):
            return name, given, _EMPTY
        unknown = set(given) - {"type", "default", "description"}
        if unknown or "type" not in given:
            raise LMStudioTypeError(
                f"parameter {name} of tool {self.name} must be a type, or"
                ' {"type": int, "default": 1, "description": "..."}, not'
                f" {shown(given)}"
            )
        hint, description = given["type"], given.get("description")
        if description is not None:
            said = getattr(hint, "__metadata__", ())
            inner = hint.__origin__ if said else hint
            make: Any = typing.Annotated  # type checkers want literals
            parts = (inner, description, *said)  # what the hint says counts more
            hint = make[parts]
        return name, hint, given.get("default", _EMPTY)

    def _check_default(self, name: str, hint: Any, default: Any) -> None:
        """Refuse a default that its own hint does not allow; None always is."""
        if default is _EMPTY or default is None or type(default) is hint:
            return
        plain = _as_json(default)
        if plain is _EMPTY:  # JSON can't tell
            is_right = _is_instance(default, hint, otherwise=True)
        else:
            is_right = _fits(plain, hint) or _is_instance(
                default, hint, otherwise=False
            )
        if not is_right:
            plain_name = None if typing.get_args(hint) else hint.__name__
            raise LMStudioTypeError(
                f"the default of parameter {name} of tool {self.name} is"
                f" {shown(default)}, which does not fit its type {plain_name or hint}"
            )

    def _check_implementation(self, implementation: Callable[..., Any]) -> None:
        if not callable(implementation):
            raise LMStudioTypeError(
                f"the implementation of tool {self.name} must be a function, not"
                f" {shown(implementation)}"
            )
        check_sync(implementation, self.name)
        try:
            signature = inspect.signature(implementation)
        except (TypeError, ValueError):  # some of C have none
            return
        kinds = {parameter.kind for parameter in signature.parameters.values()}
        self._takes_places = inspect.Parameter.POSITIONAL_ONLY in kinds
        if self._takes_places:
            return
        every = self._schema.get("properties", {})
        for names in (every, self._schema.get("required", ())):
            try:
                signature.bind(**dict.fromkeys(names))
            except TypeError as exc:
                raise LMStudioTypeError(
                    f"the implementation of tool {self.name} does not fit its"
                    f" parameters {', '.join(every) or '(none)'}: {exc}"
                ) from None

    def arguments(self, given: Mapping[str, Any] | None) -> dict[str, Any]:
        """The arguments of a call, as the types that the hints ask for.

        Raises:
            LMStudioToolError: They don't fit.
        """
        import jsonschema

        values = dict(given or {})
        known = self._schema.get("properties", {})
        extra = [name for name in values if name not in known]
        if extra and self._schema.get("additionalProperties") is False:
            raise LMStudioToolError(
                self.name,
                f"unknown argument {', '.join(extra)}; it takes"
                f" {', '.join(known) or 'none'}",
            )
        validator = jsonschema.Draft202012Validator(self._schema)
        try:
            error = jsonschema.exceptions.best_match(validator.iter_errors(values))
            if error is not None:
                where = error.json_path.removeprefix("$").lstrip(".")
                problem = f"{where}: {error.message}" if where else error.message
                raise LMStudioToolError(self.name, f"wrong arguments: {problem:.300}")
            return values if self._read is None else dict(self._read(values))
        except (ValueError, RecursionError) as exc:  # the schema can't say it all
            problem = f"wrong arguments: {exc}"
            raise LMStudioToolError(self.name, f"{problem:.300}") from exc

    def call(self, arguments: Mapping[str, Any]) -> Any:
        """Call the implementation, with what `arguments` gave."""
        assert self.implementation is not None  # `act` takes no other
        if not self._takes_places:
            return finished(self.implementation(**arguments), self.name)
        signature = inspect.signature(self.implementation)
        bound = inspect.BoundArguments(signature, dict(arguments))
        bound.apply_defaults()
        return finished(self.implementation(*bound.args, **bound.kwargs), self.name)


def tools_of(given: Iterable[ToolLike]) -> dict[str, Tool]:
    """Tools by their names.

    Raises:
        LMStudioValueError: One can't be used, or two have one name; nothing was sent.
    """
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise LMStudioTypeError(f"tools must be a list, not {shown(given)}; {_RIGHT}")
    made: dict[str, Tool] = {}
    for item in given:
        tool = Tool(_definition_of(item))
        if tool.name in made:
            raise LMStudioValueError(
                f"two tools are named {tool.name}; name one of them with"
                " ToolFunctionDef.from_callable(f, name=...)"
            )
        made[tool.name] = tool
    return made


def _definition_of(item: Any) -> ToolFunctionDef:
    if isinstance(item, ToolFunctionDef):
        return item
    if isinstance(item, Mapping):
        fields = dict(item)
        kind, function = fields.pop("type", "function"), fields.pop("function", None)
        if isinstance(function, Mapping):
            fields = {**fields, **function, "parameters": _raw(function)}
            fields.pop("strict", None)  # OpenAI's; no server of ours has it
        known = {field.name for field in attrs.fields(ToolFunctionDef)}
        if kind != "function" or "name" not in fields or set(fields) - known:
            raise LMStudioTypeError(f"{shown(item)} is no tool; {_RIGHT}")
        return ToolFunctionDef(**fields)
    if callable(item):
        return ToolFunctionDef.from_callable(item)
    raise LMStudioTypeError(f"{shown(item)} is no tool; {_RIGHT}")


def _raw(function: Mapping[str, Any]) -> Any:
    """The schema of a definition as OpenAI writes it; without one there is nothing."""
    parameters = function.get("parameters")
    parameters = {} if parameters is None else parameters
    if isinstance(parameters, Mapping) and parameters.get("type") != "object":
        if parameters:
            raise LMStudioValueError(
                f"parameters of tool {shown(function.get('name'))} must be a JSON"
                f' schema with "type": "object", not {shown(parameters)}'
            )
        return {"type": "object", "properties": {}}
    return parameters


def tool_setting(tools: Mapping[str, Tool]) -> dict[str, Any]:
    """The value of the option ``raw_tools``. Source: docs/wire/config.md."""
    if not tools:
        return {"type": "none"}
    return {"type": "toolArray", "tools": [t.definition for t in tools.values()]}


def with_tools(
    options: Mapping[str, Any], tools: Iterable[ToolLike] | None
) -> dict[str, Any]:
    """Prediction options together with the tools that `respond` was given.

    Raises:
        LMStudioValueError: A tool can't be used, or tools are given twice.
    """
    if tools is None:
        return dict(options)
    _refuse(options, ("raw_tools", "rawTools"), "tools stands for it; give one")
    return {**options, "raw_tools": tool_setting(tools_of(tools))}


def to_act_with(
    options: dict[str, Any], tools: Iterable[ToolLike]
) -> tuple[dict[str, Tool], Any]:
    """The tools of `act`, and the option ``tool_choice``, which is taken out.

    Raises:
        LMStudioValueError: There is no tool, one can't be called, or an option does not
            go together with tools.
    """
    _refuse(options, ("raw_tools", "rawTools"), "the tools of act() stand for it")
    for name in ("response_format", "structured"):
        if options.pop(name, None) is not None:
            raise LMStudioValueError(
                f"act() takes no {name}; ask for it afterwards, with"
                f" respond([question, *run.messages], {name}=...)"
            )
    choices = [options.pop(name, None) for name in ("tool_choice", "toolChoice")]
    made = tools_of(tools)
    if not made:
        raise LMStudioValueError("act() needs a tool; without any use respond()")
    for tool in made.values():
        if tool.implementation is None:
            raise LMStudioValueError(
                f"act() can't call tool {tool.name}, which has no implementation; give"
                " one, or offer it with respond(tools=...) and answer its calls"
            )
    return made, next((choice for choice in choices if choice is not None), None)


def _refuse(options: Mapping[str, Any], names: Iterable[str], why: str) -> None:
    for name in names:
        if options.get(name) is not None:
            raise LMStudioValueError(f"{shown(name)} is no option here: {why}")


def _checked_name(name: object) -> str:
    text = checked_text(name, "the name of a tool")
    if not _NAME.fullmatch(text):
        raise LMStudioValueError(
            "the name of a tool must be 1 to 64 letters (a to z), digits, _ and -, not"
            f" {shown(text)}; ToolFunctionDef.from_callable(f, name=...) gives another"
        )
    return text


def _is_instance(value: object, hint: Any, *, otherwise: bool) -> bool:
    """Whether a value is of a class; `otherwise` for a hint that is none."""
    try:
        return isinstance(value, hint)
    except TypeError:  # such as Any and list[int]
        return otherwise


def _fits(plain: Any, hint: Any) -> bool:
    """Whether a value, as JSON has it, is what a hint asks for."""
    import jsonschema

    from .schema import shape_of

    shape = shape_of(hint)
    validator = jsonschema.Draft202012Validator(shape.schema)
    try:
        if not validator.is_valid(plain):
            return False
        shape.read(plain)
    except (ValueError, RecursionError):
        return False
    return True


def _as_json(value: Any) -> Any:
    """A default as JSON has it, or `_EMPTY`."""
    plain = value.value if isinstance(value, enum.Enum) else value
    if plain is None or plain is _EMPTY:  # None mostly means: nothing
        return _EMPTY
    try:
        text = json.dumps(plain, allow_nan=False, ensure_ascii=False)
        return json.loads(text.encode())
    except (TypeError, ValueError, RecursionError):
        return _EMPTY
