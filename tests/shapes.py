"""What the tests of types have in common."""

from __future__ import annotations

from typing import Any

import jsonschema

from lmstudio.schema import shape_of


def through(kind: Any, value: Any) -> Any:
    """What an answer becomes, checked against the schema first."""
    shape = shape_of(kind)
    jsonschema.Draft202012Validator.check_schema(shape.schema)
    jsonschema.Draft202012Validator(shape.schema).validate(value)
    return shape.read(value)


def accepts(kind: Any, value: Any) -> bool:
    """Whether a value obeys the schema of a type."""
    schema = shape_of(kind).schema
    return bool(jsonschema.Draft202012Validator(schema).is_valid(value))
