"""Schemas and grammars that would block the engine are refused, with their bounds."""

from __future__ import annotations

import time

import pytest

from lmstudio.server.sampling import GenerationError
from lmstudio.server.schema_limits import schema_problems
from lmstudio.server.structure import read_structure


def refused(setting):
    with pytest.raises(GenerationError) as caught:
        read_structure(setting)
    return caught.value.code, str(caught.value)


def of(schema):
    return read_structure({"type": "json", "jsonSchema": schema})


def list_of(least):
    return {"type": "array", "minItems": least}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("inner", "problem"),
    [
        (list_of(10**9), "minItems 1000000000 at #/items, of at most 10000"),
        ({"maxItems": 10_001}, "maxItems 10001 at #/items, of at most 10000"),
        ({"minProperties": 10**5}, "minProperties 100000 at #/items"),
        ({"maxProperties": 10**5}, "maxProperties 100000 at #/items"),
        ({"minLength": 10**7}, "minLength 10000000 at #/items, of at most 1000000"),
        ({"maxLength": 10**7}, "maxLength 10000000 at #/items, of at most 1000000"),
        ({"pattern": "^a{20000}$"}, "the repetition '{20000}' at #/items, of at most"),
        ({"pattern": "a{1,20000}"}, "the repetition '{1,20000}' at #/items"),
        ({"patternProperties": {"a{20000}": {}}}, "the repetition '{20000}' at"),
        ({"prefixItems": [list_of(9000)] * 6}, "bounds of items and properties of 540"),
        ({"anyOf": [{}] * 2000}, "2002 schemas in it, of at most 2000"),
        ({"enum": []}, "enum without a value at #/items"),
        ({"minItems": 3, "maxItems": 2}, "minItems 3 against maxItems 2 at #/items"),
        ({"minLength": 3, "maxLength": 2}, "minLength 3 against maxLength 2"),
        ({"minimum": 1, "maximum": 0.5}, "minimum 1 against maximum 0.5"),
        ({"minimum": 1, "exclusiveMaximum": 1}, "minimum 1 against exclusiveMaximum 1"),
        ({"exclusiveMinimum": 1, "maximum": 1}, "exclusiveMinimum 1 against maximum 1"),
    ],
)
def test_schemas_that_are_refused(inner, problem):
    """The error names the keyword, the place and what is allowed."""
    code, message = refused({"type": "json", "jsonSchema": {"items": inner}})

    assert "invalidSchema" == code
    assert problem in message


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "minItems": 10_000, "maxItems": 10_000},
        {"type": "string", "minLength": 0, "maxLength": 1_000_000},
        {"type": "string", "pattern": r"^a{2,10000}\{99999\}$"},
        {"type": "integer", "minimum": 1, "maximum": 1},
        {"type": "number", "exclusiveMinimum": 1, "maximum": 2},
        {"properties": {"minItems": {"type": "string"}}},
    ],
)
def test_schemas_at_the_bounds(schema):
    """What is just allowed reaches the engine as it is."""
    assert schema == of(schema).json_schema


@pytest.mark.parametrize(
    ("grammar", "problem"),
    [
        ('root ::= "a"{2001}', "the repetition '{2001}', of at most 2000"),
        ('root ::= [a-z"]{ 1 , 9999 } "x"', "the repetition '{ 1 , 9999 }', of at"),
        ('root ::= "a"' + ' | "a"' * 6000, "36012 characters, of at most 32000"),
    ],
)
def test_grammars_that_are_refused(grammar, problem):
    """A grammar has bounds of its own."""
    code, message = refused({"type": "gbnf", "gbnfGrammar": grammar})

    assert "invalidGrammar" == code
    assert problem in message


@pytest.mark.slow
@pytest.mark.parametrize("piece", ["[", "{ ", "{" + " " * 30_000, "\\", '"\\', "\n"])
def test_reading_takes_no_square(piece):
    """A grammar and a pattern are read once, whatever they hold."""
    text = (piece * 31_000)[:31_000]
    started = time.thread_time()
    read_structure({"type": "gbnf", "gbnfGrammar": f"root ::= a\n{text}"})
    list(schema_problems([("#", {"pattern": text})]))

    with pytest.raises(GenerationError):
        read_structure({"type": "gbnf", "gbnfGrammar": text * 10})
    assert time.thread_time() - started < 2


def test_braces_in_the_text_of_a_grammar():
    """What a grammar generates may look like a repetition."""
    grammar = 'root ::= "{99999}" [{99999}]{1,2000}'

    structure = read_structure({"type": "gbnf", "gbnfGrammar": grammar})
    assert grammar == structure.grammar
