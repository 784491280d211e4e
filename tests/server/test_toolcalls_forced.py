"""A forced call obeys the schema of one of the tools, and nothing else does."""

from __future__ import annotations

import json

import jsonschema
import pytest

from lmstudio.server.sampling import GenerationError
from lmstudio.server.toolcalls_forced import forced_call

CITY = {
    "type": "object",
    "properties": {"city": {"$ref": "#/$defs/City"}, "near": {"$ref": "#"}},
    "required": ["city"],
    "$defs": {"City": {"type": "string", "maxLength": 5}},
}


def tool(name, parameters=None):
    function = {"name": name}
    if parameters is not None:
        function["parameters"] = parameters
    return {"type": "function", "function": function}


def fits(structure, value):
    """Whether the engine's schema allows a value."""
    validator = jsonschema.Draft202012Validator(structure.json_schema)
    return validator.is_valid(value)


def test_one_tool():
    """The call has the tool's name, and arguments of its schema."""
    structure = forced_call([tool("weather", CITY)], "arguments")

    assert fits(structure, {"name": "weather", "arguments": {"city": "Bonn"}})
    near = {"city": "Bonn", "near": {"city": "Köln"}}
    assert fits(structure, {"name": "weather", "arguments": near})
    for wrong in (
        {"name": "other", "arguments": {"city": "Bonn"}},
        {"name": "weather", "arguments": {}},
        {"name": "weather", "arguments": {"city": "Bremerhaven"}},
        {"name": "weather", "arguments": {"city": "Bonn", "near": {}}},
        {"name": "weather"},
        {"name": "weather", "arguments": {"city": "Bonn"}, "more": 1},
        {"name": "weather", "arguments": {"city": "Bonn", "more": 1}},
    ):
        assert not fits(structure, wrong)


def test_several_tools():
    """Each name goes with the arguments of its own tool."""
    structure = forced_call([tool("weather", CITY), tool("time")], "parameters")

    assert fits(structure, {"name": "time", "parameters": {}})
    assert fits(structure, {"name": "time", "parameters": {"any": 1}})
    assert fits(structure, {"name": "weather", "parameters": {"city": "Bonn"}})
    assert not fits(structure, {"name": "weather", "parameters": {}})


def test_the_output_is_checked():
    """Output of an engine that could not use the schema is an error."""
    structure = forced_call([tool("weather", CITY)], "arguments")
    structure.check(json.dumps({"name": "weather", "arguments": {"city": "Bonn"}}))

    with pytest.raises(GenerationError):
        structure.check('{"name": "other", "arguments": {}}')
    with pytest.raises(GenerationError):
        structure.check_start("I would call")


def test_what_no_engine_can_enforce():
    """Keywords that would switch the whole schema off are left out."""
    parameters = {
        "type": "object",
        "properties": {
            "a": {"type": "array", "uniqueItems": True, "contains": {"const": 1}},
            "b": {"type": "string", "pattern": "(?=x)y", "format": "color"},
            "c": {"type": "string", "pattern": "^x+$"},
            "d": {"anyOf": [{"not": {"type": "null"}}, {"items": {"if": True}}]},
        },
        "dependentRequired": {"a": ["b"]},
    }
    structure = forced_call([tool("t", parameters)], "arguments")

    assert {
        "type": "object",
        "properties": {
            "a": {"type": "array"},
            "b": {"type": "string"},
            "c": {"type": "string", "pattern": "^x+$"},
            "d": {"anyOf": [{}, {"items": {}}]},
        },
        "additionalProperties": False,
    } == structure.json_schema["$defs"]["tool0"]


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"properties": {"a": {"type": "nonsense"}}}, "nonsense"),
        ({"properties": {"a": {"$ref": "#/$defs/Gone"}}}, "not in the schema"),
        ({"properties": {"a": {"$ref": "http://x/y"}}}, "not in the schema"),
        ({"properties": {"a": {"enum": []}}}, "enum without a value"),
    ],
)
def test_wrong_schemas(parameters, problem):
    """A tool whose schema is none is named before anything runs."""
    with pytest.raises(GenerationError, match="parameters of 't'") as caught:
        forced_call([tool("t", parameters)], "arguments")

    assert problem in caught.value.cause
