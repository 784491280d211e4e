"""Classes of other libraries that bring their own JSON schema and validation.

None of the libraries is imported: whoever passes such a class has done so.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import LMStudioTypeError
from .scalars import Read, Schema

#: Keywords that grammars can't hold a model to. The class itself checks them.
_UNENFORCED = {"uniqueItems", "propertyNames", "contains", "minContains", "maxContains"}
#: The parts of a schema whose keys are names and no keywords.
_BY_NAME = ("$defs", "definitions", "properties", "patternProperties")


def own_schema(kind: Any) -> Schema | None:
    """The schema that a class makes of itself; None when it can't.

    Raises:
        LMStudioTypeError: It tried and failed.
    """
    make = _maker(kind)
    if make is None:
        return None
    try:
        schema = make()
        if not isinstance(schema, Mapping):
            raise TypeError(f"it made a {type(schema).__name__}")
        loosened: Schema = _loosened(schema)
        return loosened
    except Exception as exc:  # code of another library, and of the user
        raise LMStudioTypeError(f"{kind.__name__} has no JSON schema: {exc}") from exc


def own_reader(kind: Any) -> Read | None:
    """What makes JSON an instance by the class's own rules; None when it has none."""
    by_text = getattr(kind, "model_validate_json", None)
    if callable(by_text):  # its rules for JSON: texts are dates, lists are sets
        return lambda value: by_text(json.dumps(value))
    for name in ("model_validate", "parse_obj"):
        if callable(read := getattr(kind, name, None)):
            made: Read = read
            return made
    if _is_struct(kind):
        msgspec = sys.modules["msgspec"]
        return lambda value: msgspec.convert(value, kind)
    if _is_pydantic_dataclass(kind):
        adapter = sys.modules["pydantic"].TypeAdapter(kind)
        return lambda value: adapter.validate_json(json.dumps(value))
    return None


def _maker(kind: Any) -> Callable[[], Any] | None:
    if hasattr(kind, "__lmstudio_fields__"):  # ours: it asks `shape_of` in its turn
        return None
    for name, proof in (("model_json_schema", ""), ("schema", "parse_obj")):
        if callable(make := getattr(kind, name, None)) and hasattr(kind, proof or name):
            made: Callable[[], Any] = make
            return made
    if _is_struct(kind):
        return lambda: sys.modules["msgspec"].json.schema(kind)
    if _is_pydantic_dataclass(kind):
        return lambda: sys.modules["pydantic"].TypeAdapter(kind).json_schema()
    return None


def _is_struct(kind: Any) -> bool:
    msgspec: Any = sys.modules.get("msgspec")
    return msgspec is not None and issubclass(kind, msgspec.Struct)


def _is_pydantic_dataclass(kind: Any) -> bool:
    return "__pydantic_validator__" in vars(kind) and "pydantic" in sys.modules


def _loosened(schema: Any, *, by_name: bool = False) -> Any:
    """A schema without what would make a server refuse it or drop it as a whole."""
    if isinstance(schema, list):
        return [_loosened(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    if by_name:
        return {name: _loosened(part) for name, part in schema.items()}
    return {
        key: value
        if key in ("const", "default", "enum", "examples")
        else _loosened(value, by_name=key in _BY_NAME)
        for key, value in schema.items()
        if key not in _UNENFORCED
        and not (key == "pattern" and re.search(r"\(\?[^:]", str(value)))
    }
