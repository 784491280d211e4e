"""An answer is checked by everything in its schema except regular expressions."""

from __future__ import annotations

import pytest
from jsonschema import Draft202012Validator

from lmstudio.server.schema_answers import answer_problem, inner_drafts


@pytest.mark.parametrize(
    ("schema", "value", "problem"),
    [
        ({"type": "integer"}, "x", "$: 'x' is not of type 'integer'"),
        ({"properties": {"a": {"const": 1}}}, {"a": 2}, "$.a: 1 was expected"),
        ({"additionalProperties": False, "properties": {"a": {}}}, {"a": 1}, None),
        ({"pattern": "^b$"}, "a", None),
        ({"patternProperties": {"a": {"type": "null"}}}, {"a": 1}, None),
    ],
)
def test_answers(schema, value, problem):
    """What breaks the schema is told with its place."""
    assert problem == answer_problem(Draft202012Validator, schema, value)


def test_properties_that_may_not_be():
    """Without patterns of names all others are checked."""
    schema = {"additionalProperties": False}
    found = answer_problem(Draft202012Validator, schema, {"b": 1})

    assert found is not None
    assert found.startswith("$: Additional properties are not allowed")


def test_inner_drafts():
    """The schema itself may name its draft, and none in it."""
    draft = {"$schema": "x"}

    assert [] == inner_drafts(draft, "s")
    assert ["$schema at s.a[0]"] == inner_drafts({**draft, "a": [draft]}, "s")
