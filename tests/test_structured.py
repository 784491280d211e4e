"""Structured output: wishes become settings, and answers become values."""

from __future__ import annotations

import pytest

from ids import stable
from lmstudio import LMStudioOutputError, LMStudioTypeError, LMStudioValueError
from lmstudio.structured import checked_schema, to_setting

JOKE = {
    "type": "object",
    "properties": {"setup": {"type": "string"}, "punchline": {"type": "string"}},
    "required": ["setup", "punchline"],
}


class Joke:
    """As pydantic and the official SDK have it."""

    def __init__(self, setup):
        self.setup = setup

    @classmethod
    def model_json_schema(cls):
        return JOKE

    @classmethod
    def model_validate(cls, value):
        if value["setup"] == "?":
            raise RuntimeError("not funny")
        return cls(value["setup"])


class Plain:
    """Has a schema, and makes nothing of the answer."""

    @staticmethod
    def model_json_schema():
        return JOKE


@pytest.mark.parametrize(
    ("given", "setting"),
    [
        ({"type": "json"}, {"type": "json"}),
        ({"type": "json", "json_schema": None}, {"type": "json"}),
        ({"type": "json", "jsonSchema": JOKE}, {"type": "json", "jsonSchema": JOKE}),
        ({"type": "json", "json_schema": JOKE}, {"type": "json", "jsonSchema": JOKE}),
        (JOKE, {"type": "json", "jsonSchema": JOKE}),
        ({}, {"type": "json", "jsonSchema": {}}),
        (
            {"type": ["object", "null"]},
            {"type": "json", "jsonSchema": {"type": ["object", "null"]}},
        ),
        ({"type": "json_object"}, {"type": "json"}),
        (
            {
                "type": "json_schema",
                "json_schema": {"name": "joke", "strict": True, "schema": JOKE},
            },
            {"type": "json", "jsonSchema": JOKE},
        ),
        (Joke, {"type": "json", "jsonSchema": JOKE}),
        (Joke("?"), {"type": "json", "jsonSchema": JOKE}),
        (Plain, {"type": "json", "jsonSchema": JOKE}),
        (
            {"type": "gbnf", "gbnf_grammar": "root ::= x"},
            {"type": "gbnf", "gbnfGrammar": "root ::= x"},
        ),
        (
            {"type": "gbnf", "gbnfGrammar": "root ::= x"},
            {"type": "gbnf", "gbnfGrammar": "root ::= x"},
        ),
        ({"type": "none"}, {"type": "none"}),
    ],
    ids=stable,
)
def test_settings(given, setting):
    """All of these can be asked for."""
    assert setting == to_setting(given)[0]


def test_what_is_not_parsed():
    """Grammars and no structure at all leave the text as it is."""
    assert to_setting({"type": "none"})[1] is None
    assert to_setting({"type": "gbnf", "gbnf_grammar": "root ::= x"})[1] is None


RIGHT = (
    'write {"type": "json"}, {"type": "json", "json_schema": {...}},'
    ' {"type": "gbnf", "gbnf_grammar": "..."}, a JSON schema, or a type'
)
CIRCLE: dict[str, object] = {"type": "object"}
CIRCLE["properties"] = {"a": CIRCLE}


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ("json", f"structured output can't be made of 'json'; {RIGHT}"),
        (
            7,
            "structured output can't be made of 7: 7 of type int is no type; pass a"
            " type, such as a class, and no instance",
        ),
        (object(), "structured output can't be made of <object object at "),
        (
            bytes,
            "structured output can't be made of <class 'bytes'>: bytes has no JSON"
            " form; supported are attrs classes, dataclasses,",
        ),
        ({"type": "json", "schema": {}}, "structured has unknown fields 'schema'; "),
        ({"type": "none", "x": 1}, "structured has unknown fields 'x'; "),
        ({"type": "gbnf"}, "gbnf_grammar must be text, not None"),
        ({"type": "gbnf", "gbnf_grammar": 7}, "gbnf_grammar must be text, not 7"),
        (
            {"type": "gbnf", "gbnf_grammar": " \n"},
            "gbnf_grammar must be a grammar, not empty",
        ),
        (
            {"type": "gbnf", "gbnf_grammar": "\ud800"},
            "gbnf_grammar holds a lone surrogate",
        ),
        (
            {"type": "json", "json_schema": {}, "jsonSchema": JOKE},
            f"structured asks for two things at once; {RIGHT}",
        ),
        ({"type": "json", "json_schema": 7}, "a JSON schema is a mapping, not 7"),
        (
            {"type": "jsn"},
            "the type of structured must be 'json' or 'gbnf', or one of a JSON schema,"
            " not 'jsn'; did you mean 'json'?",
        ),
        (
            {"type": "objct", "properties": {}},
            "the type of structured must be 'json' or 'gbnf', or one of a JSON schema,"
            " not 'objct'; did you mean 'object'?",
        ),
        (
            {"properties": {"a": {"type": "strin"}}},
            "the JSON schema is not valid at properties/a/type: 'strin' is not",
        ),
        (
            {"properties": {"a": {"enum": [{1: 2}]}}},
            "the JSON schema has the key 1 at properties/a/enum/0, and keys must be",
        ),
        (
            {(): 1},
            "the JSON schema has the key () at the top, and keys must be text",
        ),
        (
            {"type": "json_object", "schema": {}},
            "structured has unknown fields 'schema'; write",
        ),
        (
            {"properties": {"a": {"type": 7}}},
            "the JSON schema is not valid at properties/a/type: ",
        ),
        ({"type": "object", "required": 7}, "the JSON schema is not valid at requir"),
        ({"pattern": "("}, "the JSON schema is not valid at pattern: '(' is not a"),
        ({"$schema": 7}, "the JSON schema is no JSON: $schema must be text, not 7"),
        ({"const": {1, 2}}, "the JSON schema is no JSON: Object of type set"),
        ({"const": float("nan")}, "the JSON schema is no JSON: Out of range float"),
        ({"const": "\ud800"}, "the JSON schema is no JSON: 'utf-8' codec"),
        (CIRCLE, "the JSON schema is no JSON: Circular reference"),
        (
            {"$ref": "https://example.com/x"},
            "the JSON schema refers to 'https://example.com/x'; only references",
        ),
        (
            {"allOf": [{"$ref": "#/$defs/x"}]},
            "the JSON schema refers to '#/$defs/x', and nothing is there",
        ),
        (
            {"allOf": [{"$ref": "#/allOf/1"}]},
            "the JSON schema refers to '#/allOf/1', and nothing is there",
        ),
        (
            {"type": "json_schema", "json_schema": {}},
            "structured output in OpenAI's form is",
        ),
        (
            {"type": "json_schema", "json_schema": {"schema": {}, "stric": True}},
            "structured output in OpenAI's form is",
        ),
    ],
    ids=stable,
)
def test_wrong_wishes(given, error):
    """What can't be asked for is refused before anything is sent."""
    with pytest.raises(LMStudioValueError) as caught:
        to_setting(given)
    assert str(caught.value).startswith(error), str(caught.value)


def test_wrong_types_are_type_errors():
    """What has a wrong type may be caught as a TypeError."""
    for wrong in (7, {"type": "json", "json_schema": 7}):
        with pytest.raises(LMStudioTypeError):
            to_setting(wrong)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "string"}}},
        {"$ref": "#/%24defs/a", "$defs": {"a": {"type": "string"}}},
        {"$ref": "#/allOf/0", "allOf": [{"type": "string"}]},
        {"$ref": "#name", "$defs": {"x": {"$anchor": "name", "type": "string"}}},
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "definitions": {"s": {"type": "string"}},
            "$ref": "#/definitions/s",
        },
    ],
    ids=str,
)
def test_references_within_the_schema(schema):
    """References inside are followed, in every draft."""
    _, parse = to_setting(schema)

    assert "x" == parse('"x"', "eosFound")
    with pytest.raises(LMStudioOutputError, match="does not fit the schema"):
        parse("7", "eosFound")


def test_a_property_named_ref():
    """What only looks like a reference is none."""
    schema = {"properties": {"$ref": {"type": "string"}}}
    assert schema is checked_schema(schema)


def test_parsing():
    """Text becomes a value, checked and made into what was asked for."""
    text = '{"setup": "a", "punchline": "b"}'
    value = {"setup": "a", "punchline": "b"}

    assert value == to_setting({"type": "json"})[1](text, "eosFound")
    assert value == to_setting(JOKE)[1](text, "eosFound")
    assert value == to_setting(Plain)[1](text, "eosFound")
    joke = to_setting(Joke)[1](text, "eosFound")
    assert isinstance(joke, Joke)
    assert "a" == joke.setup


@pytest.mark.parametrize(
    ("wish", "text", "problem"),
    [
        ({"type": "json"}, '{"a": ', "it is no whole JSON (Expecting value"),
        ({"type": "json"}, "", "it is no whole JSON (Expecting value"),
        ({"type": "json"}, "[NaN]", "it is no whole JSON (NaN is no number in JSON)"),
        ({"type": "json"}, "[1e999]", "it is no whole JSON ('1e999' is too large for"),
        (float, "-1e999", "it is no whole JSON ('-1e999' is too large for a number)"),
        ({"type": "json"}, "[" * 200_000, "it is no whole JSON ("),
        (JOKE, '{"setup": "a"}', "$ does not fit the schema: 'punchline' is a req"),
        (
            JOKE,
            '{"setup": 1, "punchline": "b"}',
            "$.setup does not fit the schema: 1 is not of type 'string'",
        ),
        (Joke, '{"setup": "?", "punchline": ""}', "Joke refuses it: not funny"),
        ({"$ref": "#"}, "1", "the schema goes round in circles, or it is nested"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_answers_that_do_not_fit(wish, text, problem):
    """The error holds the text, the reason it ended for, and what is wrong."""
    with pytest.raises(LMStudioOutputError) as caught:
        to_setting(wish)[1](text, "maxPredictedTokensReached")

    assert text == caught.value.content
    assert "maxPredictedTokensReached" == caught.value.stop_reason
    assert caught.value.problem.startswith(problem)


def test_an_instance_that_refuses():
    """Also an object may stand for its class."""
    with pytest.raises(LMStudioOutputError, match="Joke refuses it"):
        to_setting(Joke("x"))[1]('{"setup": "?", "punchline": ""}', "eosFound")


def test_through_a_prediction(fake, model):
    """The whole way: the setting travels, and the answer is parsed when it is asked."""
    fake.reply('{"setup": "a", "punchline": "b"}')
    fake.reply('{"setup"', stop="limit")

    whole = model.respond("A joke", response_format=Joke)
    cut = model.complete("A joke", structured={"type": "json", "json_schema": JOKE})

    assert "a" == whole.parsed.setup
    assert whole.result().structured
    with pytest.raises(LMStudioOutputError) as caught:
        _ = cut.parsed
    assert "maxPredictedTokensReached" == caught.value.stop_reason
    assert '{"setup"' == cut.content
