"""Values without parts as JSON: numbers and texts, dates, Literals and Enums."""

from __future__ import annotations

import enum
import re
import typing
from collections.abc import Callable, Iterable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import attrs

from ..errors import LMStudioTypeError, shown

Schema = dict[str, Any]
#: Makes a value that obeys the schema an instance. Raises ValueError when it can't.
Read = Callable[[Any], Any]


@attrs.frozen
class Shape:
    """A type as JSON.

    Attributes:
        schema: What JSON obeys it.
        read: Makes parsed JSON that obeys the schema an instance of the type.
    """

    schema: Schema
    read: Read


def as_it_is(value: Any) -> Any:
    """The reader of types that JSON has itself."""
    return value


def _number(value: Any) -> float:
    try:
        return float(value)  # JSON may write 3 for 3.0
    except OverflowError:
        raise ValueError("the number is too large") from None


def _formatted(pattern: str, make: Callable[[str], Any], right: str) -> Read:
    """A reader of texts that checks the format first: `make` allows more."""
    compiled = re.compile(pattern, re.ASCII)

    def read(text: Any) -> Any:
        if compiled.fullmatch(text) is None:
            raise ValueError(f"expected {right}, not {shown(text)}")
        return make(text)

    return read


def _moment(make: Callable[[str], Any]) -> Callable[[str], Any]:
    """Python 3.10 knows no ``Z``, and fractions of three or six digits only."""

    def read(text: str) -> Any:
        whole = re.sub(
            r"\.(\d+)",
            lambda m: f".{m[1][:6]:0<6}",
            text.upper().replace("Z", "+00:00"),
        )
        return make(whole)

    return read


_DATE = r"\d{4}-\d\d-\d\d"
_TIME = r"\d\d:\d\d:\d\d(\.\d+)?([zZ]|[+-]\d\d:\d\d)?"
_UUID = r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
#: Without exponents and names: what a grammar can hold a model to.
_DECIMAL = r"-?[0-9]+(\.[0-9]+)?"

#: Types and their JSON; `bool` is no number there.
SCALARS: dict[Any, Shape] = {
    type(None): Shape({"type": "null"}, as_it_is),
    str: Shape({"type": "string"}, as_it_is),
    bool: Shape({"type": "boolean"}, as_it_is),
    int: Shape({"type": "integer"}, int),  # JSON schema counts 3.0 as an integer
    float: Shape({"type": "number"}, _number),
    date: Shape(
        {"type": "string", "format": "date"},
        _formatted(_DATE, date.fromisoformat, "a date such as 2026-11-30"),
    ),
    datetime: Shape(
        {"type": "string", "format": "date-time"},
        _formatted(
            f"{_DATE}[tT]{_TIME}",
            _moment(datetime.fromisoformat),
            "a time such as 2026-11-30T18:00:00Z",
        ),
    ),
    time: Shape(
        {"type": "string", "format": "time"},
        _formatted(_TIME, _moment(time.fromisoformat), "a time such as 18:00:00Z"),
    ),
    UUID: Shape(
        {"type": "string", "format": "uuid"},
        _formatted(
            r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", UUID, "a UUID"
        ),
    ),
    Decimal: Shape(
        {"type": "string", "pattern": f"^{_DECIMAL}$"},
        _formatted(_DECIMAL, Decimal, "a number such as 12.50"),
    ),
}


def is_enumeration(kind: type) -> bool:
    """Whether a class is an Enum with members; of flags several can be one value."""
    if not issubclass(kind, enum.Enum) or issubclass(kind, enum.Flag):
        return False
    return len(kind.__members__) > 0


def of_enumeration(kind: Any, path: str) -> Shape:
    """An Enum: one of its members' values.

    Raises:
        LMStudioTypeError: A member's value has no JSON form.
    """
    choices = ((member.value, member) for member in kind)
    shape = _choice(choices, f"{path}: members of {kind.__name__}")
    return Shape({"title": kind.__name__, **shape.schema}, shape.read)


def of_literal(kind: Any, path: str) -> Shape:
    """A Literal: one of its values; a member of an Enum stands for its own.

    Raises:
        LMStudioTypeError: A value has no JSON form.
    """
    choices = (
        (value.value if isinstance(value, enum.Enum) else value, value)
        for value in typing.get_args(kind)
    )
    return _choice(choices, f"{path}: values of a Literal")


#: Types of single values that JSON has, and its names for them. The order matters: a
#: bool is an int in Python.
_PLAIN = {bool: "boolean", str: "string", int: "integer", float: "number"}
_PLAIN[type(None)] = "null"


def _choice(choices: Iterable[tuple[Any, Any]], where: str) -> Shape:
    instances: dict[tuple[bool, Any], Any] = {}  # as a key alone, True would be 1
    types = []
    for value, instance in choices:
        plain = next((t for t in _PLAIN if isinstance(value, t)), None)
        if plain is None:
            raise LMStudioTypeError(
                f"{where} must be texts, numbers, True, False or None in JSON, not"
                f" {shown(value)}"
            )
        if value is not None:
            value = plain(value)  # without what a subclass adds
        instances.setdefault((plain is bool, value), instance)
        types.append(_PLAIN[plain])
    values = [value for _, value in instances]
    schema: Schema = {"type": types[0]} if len(set(types)) == 1 else {}
    schema.update({"enum": values} if len(values) > 1 else {"const": values[0]})
    return Shape(schema, lambda value: instances[isinstance(value, bool), value])
