"""References within a JSON schema: found, followed and moved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PREFIX = "#/$defs/"


def references(node: Any) -> list[str]:
    """Every ``$ref`` in a schema, as often as it stands there."""
    if isinstance(node, Mapping):
        found = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return found + [ref for value in node.values() for ref in references(value)]
    if isinstance(node, (list, tuple)):
        return [ref for value in node for ref in references(value)]
    return []


def resolved(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """A schema, or what its reference to one of the definitions leads to."""
    seen: set[str] = set()
    while isinstance(reference := schema.get("$ref"), str) and reference not in seen:
        seen.add(reference)
        schema = definitions.get(reference.removeprefix(PREFIX), {})
    return schema


def moved(schema: Any, moves: Mapping[str, str]) -> Any:
    """A schema whose references begin somewhere else.

    Args:
        moves: Beginnings of references and what they become; the first one counts.
    """
    if isinstance(schema, (list, tuple)):
        return [moved(part, moves) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    made = {key: moved(value, moves) for key, value in schema.items()}
    reference = made.get("$ref")
    if isinstance(reference, str):
        for old, new in moves.items():
            if reference == old or reference.startswith(f"{old}/"):
                made["$ref"] = new + reference[len(old) :]
                break
    return made
