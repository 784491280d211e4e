"""Unions in JSON: which member a value is, and whether that can be known at all."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from ..errors import shown
from .references import resolved
from .scalars import Schema, Shape

_Definitions = Mapping[str, Any]


@attrs.frozen
class Member:
    """One type of a union: its name, for errors, and its shape."""

    name: str
    shape: Shape


def read_member(
    members: Sequence[Member], definitions: _Definitions, value: Any
) -> Any:
    """Read a value as the first member that it fits, the narrowest first.

    Otherwise no text would ever be a date in ``str | date``, and no number whole in
    ``float | int``.

    Raises:
        Exception: Whatever the narrowest that it seemed to fit raised.
    """
    from jsonschema import Draft202012Validator

    def rank(member: Member) -> int:
        return _rank(resolved(member.shape.schema, definitions))

    problem: Exception | None = None
    for member in sorted(members, key=rank):
        schema = {**member.shape.schema, "$defs": definitions}
        if Draft202012Validator(schema).is_valid(value):
            try:
                return member.shape.read(value)
            except Exception as exc:  # it only looked like a date, for example
                problem = problem or exc
    names = " or ".join(member.name for member in members)
    raise problem or ValueError(f"expected {names}, not {shown(value)}")


def _rank(schema: Schema) -> int:
    if "const" in schema or "enum" in schema:
        return 0
    if {"format", "pattern"} & schema.keys():
        return 1
    if schema.get("type") == "integer" or "properties" in schema:
        return 2
    return 3 if schema else 4  # the empty schema is Any


def undecidable(
    schemas: Sequence[Schema], definitions: _Definitions
) -> tuple[int, int] | None:
    """Two members that are classes, and that the same JSON may be; None without such.

    Only classes: ``[]`` is the same list for any type of items.
    """
    classes = [
        (index, schema)
        for index, schema in enumerate(resolved(s, definitions) for s in schemas)
        if "properties" in schema
    ]
    for (i, first), (j, second) in itertools.combinations(classes, 2):
        if not _told_apart(first, second, definitions):
            return i, j
    return None


def _told_apart(first: Schema, second: Schema, definitions: _Definitions) -> bool:
    """Whether no object can obey both schemas."""
    for one, other in ((first, second), (second, first)):
        is_closed = other.get("additionalProperties") is False
        if is_closed and set(one.get("required", ())) - other["properties"].keys():
            return True
    required = {*first.get("required", ()), *second.get("required", ())}
    return any(
        _disjoint(
            resolved(first["properties"][name], definitions),
            resolved(second["properties"][name], definitions),
        )
        for name in sorted(required)
        if name in first["properties"] and name in second["properties"]
    )


def _disjoint(first: Schema, second: Schema) -> bool:
    """Whether surely no value obeys both schemas."""
    values = [_values(schema) for schema in (first, second)]
    if values[0] is not None and values[1] is not None:
        return not values[0] & values[1]
    kinds = [set(_types(schema)) for schema in (first, second)]
    return bool(kinds[0] and kinds[1]) and not kinds[0] & kinds[1]


def _values(schema: Schema) -> set[tuple[str, Any]] | None:
    """The only values that obey a schema, with their types; None when it has more."""
    if "const" in schema:
        return {(type(schema["const"]).__name__, repr(schema["const"]))}
    if "enum" in schema:
        return {(type(value).__name__, repr(value)) for value in schema["enum"]}
    return None


def _types(schema: Schema) -> Iterator[str]:
    """The types of JSON that obey a schema; none when that is not known."""
    kind = schema.get("type")
    for name in [kind] if isinstance(kind, str) else kind or ():
        yield "number" if name == "integer" else name
