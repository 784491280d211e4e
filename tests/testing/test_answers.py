"""What nobody scripted is made up from what was asked, and is what was asked for."""

from __future__ import annotations

import json

import jsonschema
import pytest

from lmstudio import LMStudioPredictionError
from lmstudio.server.failures import Failure
from lmstudio.testing import FakeServer
from lmstudio.testing.answers import cut, filled

NODE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer"},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["value", "next"],
        }
    },
}

SCHEMAS = [
    {},
    {"type": "string"},
    {"type": "string", "minLength": 9, "maxLength": 9},
    {"type": "string", "maxLength": 2},
    {"type": "string", "format": "date"},
    {"type": "string", "pattern": "^[0-9]+$"},
    {"type": "integer", "minimum": 3},
    {"type": "integer", "exclusiveMinimum": 3, "multipleOf": 5},
    {"type": "integer", "maximum": -2},
    {"type": "integer", "exclusiveMaximum": 0},
    {"type": "number", "minimum": 1.25, "maximum": 1.5},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    {"type": "boolean"},
    {"type": "null"},
    {"type": ["null", "integer"]},
    {"const": 7},
    {"enum": ["b", "a"]},
    {"type": "array", "items": {"type": "integer"}, "minItems": 3},
    {"type": "array", "items": {"type": "integer"}, "maxItems": 0},
    {"type": "array", "items": {"type": "string"}, "minItems": 3, "uniqueItems": True},
    {
        "type": "array",
        "items": {"enum": ["a", "b"]},
        "minItems": 2,
        "uniqueItems": True,
    },
    {"type": "array", "prefixItems": [{"type": "null"}], "items": False},
    {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 2},
    {"allOf": [{"properties": {"a": {"type": "null"}}}, {"required": ["a", "b"]}]},
    True,
    {"examples": ["x"]},
    {"prefixItems": [{"type": "integer"}]},
    {"type": "array", "items": {"type": "integer"}, "minItems": 3, "uniqueItems": True},
    {"type": "object", "required": ["a"]},
    {"allOf": [{"required": ["a"]}, {"required": ["b"]}]},
    {
        "type": "array",
        "items": {"$ref": "#/$defs/a~1b"},
        "$defs": {"a/b": {"const": 1}},
    },
    {"oneOf": [{"type": "integer"}, {"type": "string"}]},
    NODE,
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=json.dumps)
def test_schemas_are_filled(schema):
    """The value is valid, and the same each time."""
    value = filled(schema)

    jsonschema.validate(value, schema, jsonschema.Draft202012Validator)
    assert filled(schema) == value


def test_objects_have_what_they_need_and_no_more():
    """Optional properties are left out where there are required ones."""
    text = {"type": "string"}
    both = {"type": "object", "properties": {"a": text, "b": text}}

    assert {"b": "text"} == filled({**both, "required": ["b"]})
    assert {"a": "text", "b": "text"} == filled(both)


def test_what_can_not_be_filled_has_to_be_scripted():
    """A pattern that no plain text has is an error that says so."""
    with pytest.raises(Failure, match="scripted"):
        filled({"type": "string", "pattern": "^(q|z){17}$"})


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [(None, ["ab c"]), ("words", ["ab", " c"]), (3, ["ab ", "c"])],
)
def test_texts_are_cut(chunk, expected):
    """A text goes out whole, by words, or by characters."""
    assert expected == cut("ab c", chunk)


def test_each_tool_is_called_once(client, fake):
    """Tools are called with valid arguments, and after their results comes text."""
    calls = []

    def add(a: int, b: int) -> int:
        """Add."""
        calls.append(("add", a, b))
        return a + b

    def shout(text: str) -> str:
        """Shout."""
        calls.append(("shout", text))
        return text.upper()

    run = client.llm.get("any").act("Do it", [add, shout])

    assert "Do it" == run.content
    assert [("add", 1, 1), ("shout", "text")] == sorted(calls)
    assert ["add", "shout"] == [tool["name"] for tool in fake.predictions[0].tools]
    assert 2 == len(fake.predictions)


def test_answers_of_a_schema(model, fake):
    """The text is JSON of the asked schema; without a schema it is any JSON."""
    schema = {"properties": {"age": {"type": "integer", "minimum": 18}}}

    assert {"age": 18} == model.respond("Who?", structured=schema).parsed
    assert schema == fake.predictions[-1].schema
    with pytest.raises(LMStudioPredictionError, match="has to be scripted"):
        pattern = {"properties": {"a": {"type": "string", "pattern": "^(q|z){17}$"}}}
        model.respond("Who?", structured=pattern).result()


def test_json_without_a_schema(model):
    """An object is JSON."""
    assert {} == model.respond("Who?", structured={"type": "json"}).parsed


def test_the_default_can_be_set():
    """``"echo"`` gives the text back whatever is asked for."""
    from lmstudio import LMStudioClient

    with (
        FakeServer(loaded=["any"], default="echo", chunk=2) as server,
        LMStudioClient(server.host) as client,
    ):
        prediction = client.llm.get("any").respond(
            "true", structured={"type": "boolean"}
        )
        assert ["tr", "ue"] == [str(piece) for piece in prediction]
