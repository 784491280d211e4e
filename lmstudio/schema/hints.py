"""What a type hint says besides its type: descriptions and limits in Annotated."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from ..errors import LMStudioTypeError
from .scalars import Schema

#: Attributes of metadata, and the keywords that they become, by the type of the value.
#: annotated_types, msgspec.Meta and pydantic's fields have these names.
_LENGTHS = {"string": "Length", "array": "Items", "object": "Properties"}
_NUMBERS = ("integer", "number")
_LIMITS: dict[str, dict[str, str]] = {
    "ge": dict.fromkeys(_NUMBERS, "minimum"),
    "gt": dict.fromkeys(_NUMBERS, "exclusiveMinimum"),
    "le": dict.fromkeys(_NUMBERS, "maximum"),
    "lt": dict.fromkeys(_NUMBERS, "exclusiveMaximum"),
    "multiple_of": dict.fromkeys(_NUMBERS, "multipleOf"),
    "min_length": {kind: f"min{noun}" for kind, noun in _LENGTHS.items()},
    "max_length": {kind: f"max{noun}" for kind, noun in _LENGTHS.items()},
    "pattern": {"string": "pattern"},
}


@attrs.frozen
class Hint:
    """A type hint without what is around its type.

    Attributes:
        kind: The type.
        description: What its author says it is, or None.
        limits: Names of `_LIMITS` and their values.
        keywords: More of the JSON schema, as it is.
    """

    kind: Any
    description: str | None
    limits: dict[str, Any]
    keywords: dict[str, Any]


def plain(kind: Any) -> Hint:
    """Take a hint apart; what is further out counts more."""
    found: list[Any] = []
    while True:
        if typing.get_origin(kind) is typing.Annotated:
            found = [*kind.__metadata__, *found]
            kind = kind.__origin__
        elif hasattr(kind, "__supertype__"):  # a NewType
            kind = kind.__supertype__
        else:
            break
    description: str | None = None
    limits: dict[str, Any] = {}
    keywords: dict[str, Any] = {}
    for item in _flat(found):
        if isinstance(item, Mapping):
            keywords.update(item)
            continue
        for text in (item, *(getattr(item, n, None) for n in _DESCRIBE)):
            description = text if isinstance(text, str) else description
        for name in _LIMITS:
            value = getattr(item, name, None)
            if value is not None and not callable(value):  # a method is no limit
                limits[name] = value
    return Hint(kind, description, limits, keywords)


#: Attributes of metadata that hold a description.
_DESCRIBE = ("description", "documentation")


def _flat(metadata: Iterable[Any]) -> list[Any]:
    """Metadata, with the parts of what pydantic's ``Field()`` keeps in a list."""
    flat = []
    for item in metadata:
        inner = getattr(item, "metadata", None)
        flat += [item, *inner] if isinstance(inner, list) else [item]
    return flat


def constrained(schema: Schema, hint: Hint, path: str) -> Schema:
    """A schema with the limits of a hint; in a union those of the members that fit.

    Raises:
        LMStudioTypeError: A limit fits no part of it.
    """
    parts = schema.get("anyOf", [schema])
    added: list[dict[str, Any]] = [{} for _ in parts]
    for name, value in hint.limits.items():
        words = [_LIMITS[name].get(part.get("type", "")) for part in parts]
        if not any(words):
            raise LMStudioTypeError(
                f"{path}: a limit {name}={value!r} says nothing about this type in JSON"
            )
        for more, word in zip(added, words, strict=True):
            if word is not None:
                more[word] = value
    limited = [
        {**part, **more} if more else part
        for part, more in zip(parts, added, strict=True)
    ]
    made = {**schema, "anyOf": limited} if "anyOf" in schema else limited[0]
    return {**made, **hint.keywords}
