"""Bounds of schemas and grammars: an engine that works on one answers nobody else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..errors import shown

#: The largest bounds of one keyword. On two cores llama.cpp takes at most half a second
#: for each; from ten times as much on it takes seconds and gigabytes.
MOST = {
    **dict.fromkeys(("minItems", "maxItems"), 10_000),
    **dict.fromkeys(("minProperties", "maxProperties"), 10_000),
    **dict.fromkeys(("minLength", "maxLength"), 1_000_000),
}
#: The largest sum of the bounds of items and properties in a schema.
MOST_TOGETHER = 50_000
MOST_SCHEMAS = 2_000
#: Repetitions ``{n,m}`` in a pattern of a schema, and in a grammar.
MOST_REPEATED = {"pattern": 10_000, "grammar": 2_000}
#: Characters of a grammar: llama.cpp goes through all alternatives for each token.
LONGEST_GRAMMAR = 32_000

#: Pairs of keywords of which the first may not be larger, or not even as large.
_ORDERED = (
    *(("minItems", "maxItems", False), ("minLength", "maxLength", False)),
    *(("minProperties", "maxProperties", False), ("minimum", "maximum", False)),
    *(("exclusiveMinimum", "maximum", True), ("minimum", "exclusiveMaximum", True)),
    ("exclusiveMinimum", "exclusiveMaximum", True),
)
# Blanks are read at one place each: of two beside each other all ways to share them
# would be tried.
_REPEATED = re.compile(r"\{\s*(?:(\d+)\s*)?(?:,\s*(?:(\d+)\s*)?)?\}")
#: Texts and sets in a grammar; one without an end goes on to the end of the grammar.
_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"?|\[(?:\\.|[^\]\\])*\]?', re.DOTALL)


def schema_problems(schemas: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
    """What in a schema is too large, or impossible.

    Args:
        schemas: The schema and all schemas in it, each with its place.
    """
    together = count = 0
    for at, schema in schemas:
        count += 1
        yield from _impossible(at, schema)
        for key, most in MOST.items():
            value = _number(schema, key)
            if value is not None and value > most:
                yield f"{key} {shown(value)} at {at}, of at most {most}"
            elif value is not None and not key.endswith("Length"):
                together += int(value)
        patterns = [schema.get("pattern"), *(schema.get("patternProperties") or ())]
        for pattern in patterns:
            if isinstance(pattern, str):
                yield from _repeated("pattern", pattern, f" at {at}")
    if together > MOST_TOGETHER:
        yield (
            f"bounds of items and properties of {together} in sum, of at most "
            f"{MOST_TOGETHER}"
        )
    if count > MOST_SCHEMAS:
        yield f"{count} schemas in it, of at most {MOST_SCHEMAS}"


def grammar_problems(grammar: str) -> Iterator[str]:
    """What in a GBNF grammar is too large."""
    if len(grammar) > LONGEST_GRAMMAR:
        yield f"{len(grammar)} characters, of at most {LONGEST_GRAMMAR}"
        return
    # Braces in quotes are text; sets may hold quotes.
    yield from _repeated("grammar", _QUOTED.sub("", grammar))


def _impossible(at: str, schema: Mapping[str, Any]) -> Iterator[str]:
    if schema.get("enum") == []:
        yield f"enum without a value at {at}"
    for low, high, is_strict in _ORDERED:
        least, most = _number(schema, low), _number(schema, high)
        if least is None or most is None:
            continue
        if least > most or (is_strict and least == most):
            yield f"{low} {shown(least)} against {high} {shown(most)} at {at}"


def _number(schema: Mapping[str, Any], key: str) -> float | None:
    value = schema.get(key)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number else None


def _repeated(where: str, text: str, at: str = "") -> Iterator[str]:
    most = MOST_REPEATED[where]
    for found in _REPEATED.finditer(re.sub(r"\\.", "", text)):
        # Compared by their lengths first: numbers of any size may stand there.
        if any(len(n) > 9 or int(n) > most for n in found.groups() if n):
            yield f"the repetition {shown(found[0])}{at}, of at most {most}"
