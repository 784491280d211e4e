"""Beginnings of JSON: whether a text that is not finished can still become JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

_TOKEN = re.compile(
    r'[ \t\n\r]*(?:(?P<string>"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")'
    r"|(?P<value>-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\d.eE])"
    r"|true|false|null)|(?P<mark>[\[\]{}:,]))"
)
#: What a text may end in the middle of.
_OPEN_STRING = re.compile(
    r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*(?:\\(?:u[0-9a-fA-F]{0,3})?)?'
)
_OPEN_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)?(?:(?<=\d)\.\d*)?(?:(?<=\d)[eE][+-]?\d*)?")
_WORDS = ("true", "false", "null")

_DIGITS = frozenset("-0123456789")
_ANY = frozenset('"{[tfn') | _DIGITS
_BY_TYPE = {
    "string": frozenset('"'),
    "object": frozenset("{"),
    "array": frozenset("["),
    "boolean": frozenset("tf"),
    "null": frozenset("n"),
    "integer": _DIGITS,
    "number": _DIGITS,
}


def may_become_json(text: str) -> bool:
    """Whether a text is JSON, or the beginning of JSON."""
    at, expected = 0, "value"
    inside: list[str] = []  # the brackets that are open
    while found := _TOKEN.match(text, at):
        kind = "value" if found["value"] else found["mark"] or "string"
        after = _after(kind, expected, inside)
        if after is None:
            return False
        at, expected = found.end(), after
    rest = text[at:].lstrip(" \t\n\r")
    if not rest:
        return True
    if rest[0] == '"':
        may_be = ("value", "value or ]", "key", "key or }")
        return expected in may_be and _OPEN_STRING.fullmatch(rest) is not None
    is_open = any(word.startswith(rest) for word in _WORDS)
    is_open = is_open or _OPEN_NUMBER.fullmatch(rest) is not None
    return is_open and expected in ("value", "value or ]")


def _after(kind: str, expected: str, inside: list[str]) -> str | None:
    """What may follow a token; None when the token itself is wrong there."""
    then = "comma" if inside else "end"
    if kind in ("value", "string") and expected in ("value", "value or ]"):
        return then
    if kind in ("[", "{") and expected in ("value", "value or ]"):
        inside.append(kind)
        return "value or ]" if kind == "[" else "key or }"
    if kind == "string" and expected in ("key", "key or }"):
        return ":"
    if kind == ":" and expected == ":":
        return "value"
    if kind == "," and expected == "comma":
        return "value" if inside[-1] == "[" else "key"
    if kind in ("]", "}"):
        bracket = "[" if kind == "]" else "{"
        may_close = ("comma", "value or ]" if kind == "]" else "key or }")
        if inside and inside[-1] == bracket and expected in may_close:
            inside.pop()
            return "comma" if inside else "end"
    return None


def first_characters(schema: Any, resolve: Callable[[str], Any]) -> frozenset[str]:
    """The characters that JSON of a schema can begin with.

    Args:
        resolve: Gives the schema of a local reference.
    """
    return _first(schema, resolve, {})


def _first(
    schema: Any, resolve: Callable[[str], Any], known: dict[str, frozenset[str]]
) -> frozenset[str]:
    if not isinstance(schema, Mapping):
        return _ANY if schema is not False else frozenset()
    may_be = _ANY
    if "const" in schema:
        may_be &= frozenset(json.dumps(schema["const"])[0])
    if isinstance(schema.get("enum"), list):
        may_be &= frozenset(json.dumps(value)[0] for value in schema["enum"])
    types = schema.get("type")
    if types is not None:
        names = [types] if isinstance(types, str) else types
        may_be &= frozenset[str]().union(*(_BY_TYPE.get(str(n), _ANY) for n in names))
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list):
            parts = (_first(part, resolve, known) for part in schema[key])
            may_be &= frozenset[str]().union(*parts)
    for part in schema.get("allOf") or ():
        may_be &= _first(part, resolve, known)
    reference = schema.get("$ref")
    if isinstance(reference, str):
        if reference not in known:
            known[reference] = _ANY  # what refers to itself says nothing new
            known[reference] = _first(resolve(reference), resolve, known)
        may_be &= known[reference]
    return may_be
