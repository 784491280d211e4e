"""Structured output: from what users ask for to the setting, and back to values."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from .arguments import checked_text
from .errors import LMStudioOutputError, LMStudioTypeError, LMStudioValueError, shown
from .nearest import meant

#: Text and stop reason of an answer to its value.
Parse = Callable[[str, str], Any]

_RIGHT = (
    'write {"type": "json"}, {"type": "json", "json_schema": {...}},'
    ' {"type": "gbnf", "gbnf_grammar": "..."}, a JSON schema, or a type'
)


#: What JSON schema calls its types, and how OpenAI asks for structure.
_SCHEMA_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_OPENAI = ("json_schema", "json_object", "text")


def to_setting(given: Any) -> tuple[dict[str, Any], Parse | None]:
    """The wire setting for a wish, and what reads the answer.

    Args:
        given: The setting in either spelling, a ``response_format`` of OpenAI's, a JSON
            schema, or a type as `lmstudio.schema.shape_of` takes it. An object with
            ``model_json_schema()`` stands for its class.

    Raises:
        LMStudioValueError: It is none of these, or the schema is not valid; nothing
            was sent.

    Source: docs/wire/config.md.
    """
    if isinstance(given, (str, bytes)):
        raise LMStudioTypeError(
            f"structured output can't be made of {shown(given)}; {_RIGHT}"
        )
    if not isinstance(given, Mapping):
        return _typed(given)
    if given.get("type") in _OPENAI:
        return to_setting(_from_openai(given))
    kind = given.get("type")
    names = set(given) - {"type"}
    if kind == "none" and not names:
        return {"type": "none"}, None
    if len(names & {"json_schema", "jsonSchema", "gbnf_grammar", "gbnfGrammar"}) > 1:
        raise LMStudioValueError(f"structured asks for two things at once; {_RIGHT}")
    if kind == "json" and names <= {"json_schema", "jsonSchema"}:
        wanted = given.get("json_schema", given.get("jsonSchema"))
        checked = None if wanted is None else checked_schema(wanted)
        return _json(checked), _parser(checked, None)
    if kind == "gbnf" and names <= {"gbnf_grammar", "gbnfGrammar"}:
        grammar = checked_text(
            given.get("gbnf_grammar", given.get("gbnfGrammar")), "gbnf_grammar"
        )
        if not grammar.strip():
            raise LMStudioValueError("gbnf_grammar must be a grammar, not empty")
        return {"type": "gbnf", "gbnfGrammar": grammar}, None
    if kind in ("json", "gbnf", "none"):
        odd = ", ".join(sorted(map(repr, names)))
        raise LMStudioValueError(f"structured has unknown fields {odd}; {_RIGHT}")
    if isinstance(kind, str) and kind not in _SCHEMA_TYPES:
        raise LMStudioValueError(
            f"the type of structured must be 'json' or 'gbnf', or one of a JSON"
            f" schema, not {shown(kind)}{meant(kind, ('json', 'gbnf', *_SCHEMA_TYPES))}"
        )
    schema = checked_schema(given)
    return _json(schema), _parser(schema, None)


def _from_openai(given: Mapping[str, Any]) -> dict[str, Any]:
    """A ``response_format`` of OpenAI's chat completions, as ours."""
    kind, rest = given["type"], set(given) - {"type"}
    if kind == "json_schema":
        inner = given.get("json_schema")
        if rest == {"json_schema"} and isinstance(inner, Mapping) and "schema" in inner:
            odd = set(inner) - {"schema", "name", "description", "strict"}
            if not odd:
                return {"type": "json", "json_schema": inner["schema"]}
        raise LMStudioValueError(
            "structured output in OpenAI's form is"
            ' {"type": "json_schema", "json_schema": {"name": ..., "schema": {...}}},'
            f" not {shown(given)}"
        )
    if rest:
        odd_ones = ", ".join(sorted(map(repr, rest)))
        raise LMStudioValueError(f"structured has unknown fields {odd_ones}; {_RIGHT}")
    return {"type": "json" if kind == "json_object" else "none"}


def _typed(kind: Any) -> tuple[dict[str, Any], Parse]:
    from .schema import shape_of  # most predictions do without

    if not isinstance(kind, type) and hasattr(type(kind), "model_json_schema"):
        kind = type(kind)
    try:
        shape = shape_of(kind)
    except LMStudioTypeError as exc:
        raise LMStudioTypeError(
            f"structured output can't be made of {shown(kind)}: {exc}"
        ) from exc
    schema = checked_schema(shape.schema)
    return _json(schema), _parser(schema, shape.read)


def _json(schema: Mapping[str, Any] | None) -> dict[str, Any]:
    setting: dict[str, Any] = {"type": "json"}
    if schema is not None:
        setting["jsonSchema"] = dict(schema)
    return setting


def checked_schema(schema: Any) -> Mapping[str, Any]:
    """A JSON schema that is valid and stands alone.

    Raises:
        LMStudioValueError: It is no schema, or refers to something outside of it.
    """
    import jsonschema  # costs more than the rest of the package to import

    from .schema.references import references

    if not isinstance(schema, Mapping):
        raise LMStudioTypeError(f"a JSON schema is a mapping, not {shown(schema)}")
    try:
        plain = json.dumps(schema, allow_nan=False, ensure_ascii=False, skipkeys=True)
        plain.encode()
        _check_keys(schema, "")
        _validator(schema).check_schema(dict(schema))
    except jsonschema.SchemaError as exc:
        path = "/".join(str(step) for step in exc.absolute_path) or "the top"
        raise LMStudioValueError(
            f"the JSON schema is not valid at {path}: {exc.message:.300}"
        ) from None
    except RecursionError:
        raise LMStudioValueError("the JSON schema is nested too deeply") from None
    except LMStudioValueError:
        raise
    except (TypeError, ValueError) as exc:
        raise LMStudioValueError(f"the JSON schema is no JSON: {exc}") from None
    for ref in references(schema):
        if not ref.startswith("#"):
            raise LMStudioValueError(
                f"the JSON schema refers to {shown(ref)}; only references within it,"
                " such as '#/$defs/name', can be followed"
            )
        if ref.startswith("#/") and not _leads_somewhere(schema, ref):
            raise LMStudioValueError(
                f"the JSON schema refers to {shown(ref)}, and nothing is there"
            )
    return schema


def _check_keys(node: Any, path: str) -> None:
    """Refuse keys that are no text: JSON would make some of them text in silence."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if not isinstance(key, str):
                raise LMStudioValueError(
                    f"the JSON schema has the key {shown(key)} at {path or 'the top'},"
                    " and keys must be text"
                )
            _check_keys(value, f"{path}/{key}" if path else key)
    elif isinstance(node, (list, tuple)):
        for number, value in enumerate(node):
            _check_keys(value, f"{path}/{number}")


def _validator(schema: Mapping[str, Any]) -> Any:
    """The class of validators for the draft that a schema is written in."""
    import jsonschema

    draft = schema.get("$schema")
    if draft is not None and not isinstance(draft, str):
        raise TypeError(f"$schema must be text, not {shown(draft)}")
    return jsonschema.validators.validator_for(
        schema, default=jsonschema.Draft202012Validator
    )


def _leads_somewhere(schema: Any, ref: str) -> bool:
    """Whether there is something at a JSON pointer."""
    from urllib.parse import unquote

    node = schema
    for step in unquote(ref).split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(node, Mapping) and key in node:
            node = node[key]
        elif (
            isinstance(node, (list, tuple)) and key.isdecimal() and int(key) < len(node)
        ):
            node = node[int(key)]
        else:
            return False
    return True


def _parser(
    schema: Mapping[str, Any] | None, read: Callable[[Any], Any] | None
) -> Parse:
    """Reads JSON text, checks it against the schema, and makes it an instance."""

    def parse(text: str, stop_reason: str) -> Any:
        try:
            value = json.loads(text, parse_constant=_no_constant, parse_float=_number)
        except (ValueError, RecursionError) as exc:
            problem = f"it is no whole JSON ({exc})"
            raise LMStudioOutputError(text, stop_reason, problem) from None
        if schema is not None:
            _validate(value, schema, text, stop_reason)
        if read is None:
            return value
        try:
            return read(value)
        except ValueError as exc:  # `Misfit` says where and why
            problem = str(exc).removeprefix("$: ")
            raise LMStudioOutputError(text, stop_reason, problem) from exc

    return parse


def _number(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{shown(text)} is too large for a number")
    return number


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


def _validate(
    value: Any, schema: Mapping[str, Any], text: str, stop_reason: str
) -> None:
    import jsonschema

    errors = _validator(schema)(schema).iter_errors(value)
    try:
        error = jsonschema.exceptions.best_match(errors)
    except RecursionError:
        problem = "the schema goes round in circles, or it is nested too deeply"
        raise LMStudioOutputError(text, stop_reason, problem) from None
    if error is not None:
        path = error.json_path
        raise LMStudioOutputError(
            text, stop_reason, f"{path} does not fit the schema: {error.message:.300}"
        )
