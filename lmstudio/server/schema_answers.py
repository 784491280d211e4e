"""Checks an answer against the schema of a client, within bounds."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping
from typing import Any

#: Seconds that one answer may be checked for; usual ones take a few thousandths.
MAX_SECONDS = 5.0
#: Keywords that run regular expressions of the client: one of a few characters can take
#: years. The engine has held the output to them.
_PATTERNS = ("pattern", "patternProperties")


class _TooLong(Exception):
    """The time is over."""


def answer_problem(kind: Any, schema: Mapping[str, Any], value: Any) -> str | None:
    """How parsed output breaks a schema, without its patterns; None when it does not.

    Args:
        kind: The class that validates, of the draft of the schema.
    """
    deadline = time.thread_time() + MAX_SECONDS
    try:
        for error in _bounded(kind, deadline)(schema).iter_errors(value):
            return f"{error.json_path}: {error.message}"
    except _TooLong:
        return f"to check it takes more than {MAX_SECONDS:g} seconds"
    except RecursionError:
        return "the schema refers to itself without an end"
    return None


def inner_drafts(schema: Mapping[str, Any], at: str) -> list[str]:
    """Schemas in a schema that name a draft of their own, with their places."""
    found: list[str] = []
    waiting: list[tuple[str, Any]] = [(at, schema)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, Mapping):
            if place != at and isinstance(value.get("$schema"), str):
                found.append(f"$schema at {place[:200]}")
            waiting += ((f"{place[:200]}.{key}", part) for key, part in value.items())
        elif isinstance(value, list):
            waiting += ((f"{place[:200]}[{n}]", part) for n, part in enumerate(value))
    return found[:10]


def _bounded(kind: Any, deadline: float) -> Any:
    """The class with a limit of time, and without what runs regular expressions."""
    from jsonschema import validators

    def timed(keyword: Any) -> Any:
        @functools.wraps(keyword)
        def check(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
            if time.thread_time() > deadline:
                raise _TooLong
            if "patternProperties" in schema and keyword in additional:
                return None  # it matches the patterns, too
            return keyword(validator, value, instance, schema)

        return check

    known = kind.VALIDATORS
    additional = (known.get("additionalProperties"),)
    made = {name: timed(keyword) for name, keyword in known.items()}
    extend: Any = validators.extend  # it has no types
    return extend(kind, made | dict.fromkeys(_PATTERNS, _nothing))


def _nothing(*_: Any) -> Iterator[Any]:
    """A keyword that finds no error."""
    return iter(())
