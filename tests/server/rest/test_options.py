"""Options of requests become ours, checked, with errors that name the field."""

from __future__ import annotations

import pytest

from lmstudio.server.rest import options
from lmstudio.server.rest.errors import RestError
from lmstudio.server.sampling import GenerationError
from lmstudio.wire.config import PREDICTION

FUNCTION = {"name": "add", "parameters": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": FUNCTION}


@pytest.mark.parametrize("name", sorted(set(options.FIELDS.values())))
def test_fields_are_options(name):
    """Every row of the table names one of our options."""
    assert PREDICTION.find(name) is not None


@pytest.mark.parametrize(
    ("name", "given", "field"),
    [
        ("top_k_sampling", {"top_k": 1}, "top_k"),
        ("max_tokens", {"max_tokens": 1}, "max_tokens"),
        (
            "max_tokens",
            {"max_tokens": 1, "max_completion_tokens": 2},
            "max_completion_tokens",
        ),
        ("structured", {"response_format": {}}, "response_format"),
        ("raw_tools", {"tools": []}, "tools"),
        ("top_k_sampling", {"model": "any"}, None),
    ],
)
def test_field_at_fault(name, given, field):
    """A setting that was refused is told by the field that it came from."""
    key = PREDICTION.find(name).key
    for title in (f"{key} must be 1", f"{key}: no", f"{key}, other: no"):
        exc = GenerationError(title, code="invalidSetting")
        assert field == options.field_at_fault(exc, given)


@pytest.mark.parametrize(
    "exc",
    [
        GenerationError("llm.prediction.structured is odd", code="invalidAnswer"),
        GenerationError("something is odd", code="invalidSetting"),
        ValueError("llm.prediction.structured"),
    ],
)
def test_no_field_at_fault(exc):
    """Other failures have no field."""
    assert options.field_at_fault(exc, {"response_format": {}}) is None


@pytest.mark.parametrize("name", sorted(set(options.OTHERS.values())))
def test_other_fields_are_options(name):
    """Fields with a form of their own stand for options too."""
    assert PREDICTION.find(name) is not None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"temperature": None, "stop": []}, {}),
        ({"max_tokens": -1}, {"max_tokens": False}),
        ({"max_tokens": 5, "max_completion_tokens": 6}, {"max_tokens": 6}),
        ({"max_output_tokens": 7}, {"max_tokens": 7}),
        ({"stop": ["a", "b"]}, {"stop_strings": ["a", "b"]}),
        ({"logit_bias": {"7": 1}}, {"logit_bias": {7: 1}}),
        ({"logit_bias": {}}, {}),
    ],
)
def test_sampling(given, expected):
    """Fields that are given become options; an empty stop is none."""
    assert expected == options.sampling(given)


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ({"temperature": -1}, "a number of at least 0"),
        ({"top_p": 2}, "a number from 0 to 1"),
        ({"max_tokens": 0}, "a whole number of at least 1"),
        ({"seed": 2**40}, "a whole number from -1 to 4294967295"),
        ({"seed": "x"}, "a whole number"),
        ({"stop": [""]}, "a list of non-empty strings"),
        ({"draft_model": 5}, "a string"),
        ({"logit_bias": [1]}, "an object from token ids"),
        ({"logit_bias": {"a": 1}}, "an object from token ids"),
        ({"logit_bias": {"1": 101}}, "an object from token ids"),
        ({"logit_bias": {"1": True}}, "an object from token ids"),
    ],
)
def test_sampling_refuses(given, right):
    """A wrong value is told by the field's own name."""
    (name,) = given
    with pytest.raises(RestError, match=f"^{name} must be {right}") as caught:
        options.sampling(given)
    assert name == caught.value.param


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, {}),
        ({"type": "text"}, {}),
        ({"type": "json_object"}, {"structured": {"type": "json"}}),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "schema": {"a": 1}}},
            {"structured": {"type": "json", "jsonSchema": {"a": 1}}},
        ),
        (
            {"type": "json_schema", "name": "x", "schema": {"a": 1}},
            {"structured": {"type": "json", "jsonSchema": {"a": 1}}},
        ),
    ],
)
def test_structured(value, expected):
    """Both places of a schema are understood."""
    assert expected == options.structured(value)


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ("json", "response_format"),
        ({}, "response_format.type"),
        ({"type": "lark", "grammar": "x"}, "response_format.type"),
        ({"type": "json_schema"}, "response_format.schema"),
        (
            {"type": "json_schema", "json_schema": {"schema": "x"}},
            "response_format.json_schema.schema",
        ),
    ],
)
def test_structured_refuses(value, param):
    """Other kinds of grammars, and schemas that are none, are refused."""
    with pytest.raises(RestError) as caught:
        options.structured(value)
    assert param == caught.value.param


@pytest.mark.parametrize(
    ("choice", "mode"),
    [
        (None, "auto"),
        ("none", "none"),
        ("required", "required"),
        ({"type": "function", "function": {"name": "add"}}, "required"),
        ({"type": "function", "name": "add"}, "required"),
    ],
)
def test_tools(choice, mode):
    """Tools and the choice among them become two options."""
    made = options.tools([TOOL], choice)
    assert {
        "raw_tools": {"type": "toolArray", "tools": [TOOL]},
        "tool_choice": {"type": "generic", "mode": mode},
    } == made


def test_one_tool_by_name_is_the_only_one():
    """A choice by name leaves the others out."""
    other = {"type": "function", "function": {"name": "sub"}}
    choice = {"type": "function", "function": {"name": "sub"}}
    made = options.tools([TOOL, other], choice)
    names = [tool["function"]["name"] for tool in made["raw_tools"]["tools"]]
    assert ["sub"] == names


def test_flat_tools():
    """Responses have name and parameters beside the type."""
    flat = {"type": "function", "strict": False, **FUNCTION}
    made = options.tools([flat], None, flat=True)
    assert [TOOL] == made["raw_tools"]["tools"]


@pytest.mark.parametrize("is_flat", [True, False])
def test_strict_tools(is_flat):
    """Strict tools take no properties but those that they name, at any depth."""
    inner = {"type": "object", "properties": {"x": {"type": "integer"}}}
    free = {"type": "object", "additionalProperties": True}
    parts = {"a": {"items": inner}, "b": {"anyOf": [inner, {"type": "null"}]}}
    schema = {"type": "object", "properties": {**parts, "c": free, "enum": 5}}
    function = {"name": "add", "parameters": schema, "strict": True}
    tool = {"type": "function", **(function if is_flat else {"function": function})}
    (made,) = options.tools([tool], None, flat=is_flat)["raw_tools"]["tools"]
    closed = {**inner, "additionalProperties": False}
    parts = {"a": {"items": closed}, "b": {"anyOf": [closed, {"type": "null"}]}}
    assert {
        "type": "object",
        "properties": {**parts, "c": free, "enum": 5},
        "additionalProperties": False,
    } == made["function"]["parameters"]
    assert "strict" not in made["function"]
    bare = {"function": {"name": "add", "strict": True}}
    (made,) = options.tools([bare], None)["raw_tools"]["tools"]
    assert False is made["function"]["parameters"]["additionalProperties"]


def test_no_tools():
    """Without tools there is nothing to choose."""
    assert {} == options.tools(None, "auto")
    assert {} == options.tools([], "none")


@pytest.mark.parametrize(
    ("tools", "choice", "param"),
    [
        ("x", None, "tools"),
        ([5], None, "tools[0]"),
        ([{"type": "web_search"}], None, "tools[0].type"),
        ([{"type": "function"}], None, "tools[0].function"),
        ([{"type": "function", "function": {}}], None, "tools[0].function.name"),
        ([{"function": {"name": ""}}], None, "tools[0].function.name"),
        ([{"function": {"name": "a", "parameters": 5}}], None, "tools[0].function"),
        ([TOOL], "often", "tool_choice"),
        ([TOOL], {"type": "function"}, "tool_choice.function.name"),
        ([TOOL], {"type": "custom"}, "tool_choice.type"),
        ([TOOL], {"function": {"name": "mul"}}, "tool_choice"),
        ([], "required", "tool_choice"),
    ],
)
def test_tools_refuses(tools, choice, param):
    """A wrong tool or choice is told with its place."""
    with pytest.raises(RestError) as caught:
        options.tools(tools, choice)
    assert caught.value.param is not None
    assert caught.value.param.startswith(param)


@pytest.mark.parametrize(
    ("effort", "expected"),
    [
        (None, {}),
        ("none", {"enable_thinking": False}),
        ("low", {"enable_thinking": True}),
    ],
)
def test_reasoning(effort, expected):
    """Engines know whether a model thinks, not how much."""
    assert expected == options.reasoning(effort)


def test_candidates():
    """At least one candidate is asked for: none would mean no report."""
    assert {"log_probs": 1} == options.candidates(None)
    assert {"log_probs": 1} == options.candidates(0)
    assert {"log_probs": 20} == options.candidates(20)
    with pytest.raises(RestError, match=r"^top_logprobs must be"):
        options.candidates(21)


def test_milliseconds():
    """Seconds become whole milliseconds, at least one."""
    assert (None, 1500, 1) == tuple(map(options.milliseconds, (None, 1.5, 0.0001)))
    for ttl in (0, -5, 1e12):
        with pytest.raises(RestError, match=r"^ttl must be"):
            options.milliseconds(ttl)
