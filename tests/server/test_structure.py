"""A wrong schema is an error before anything runs, and a wrong answer one after it."""

from __future__ import annotations

import pytest

from lmstudio.server.sampling import GenerationError
from lmstudio.server.structure import FORMATS, REFUSED, Structure, read_structure

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city"],
}


def of(schema):
    return read_structure({"type": "json", "jsonSchema": schema})


def refused(schema):
    """What the error about a schema says."""
    with pytest.raises(GenerationError) as caught:
        of(schema)
    assert "invalidSchema" == caught.value.code
    return str(caught.value)


@pytest.mark.parametrize("setting", [None, {"type": "none"}])
def test_free_text(setting):
    """Without a setting, and with the one for "off", the output is free text."""
    assert None is read_structure(setting)


@pytest.mark.parametrize("setting", [{}, {"type": "xml"}])
def test_unknown_kind(setting):
    """A kind that is not there is refused, never taken for free text."""
    with pytest.raises(GenerationError, match=r"type must be 'none', 'json' or 'gbnf'"):
        read_structure(setting)


def test_any_json():
    """Without a schema any JSON is right, and anything else wrong."""
    structure = read_structure({"type": "json"})

    assert Structure(json_schema={}) == structure
    structure.check('[1, {"a": null}]')
    for text in ("[1,", "hello", "NaN", ""):
        with pytest.raises(GenerationError, match="The answer is not JSON"):
            structure.check(text)


def test_schema_reaches_the_engine():
    """A plain schema goes to the engine as it is."""
    assert CITY == of(CITY).json_schema


def test_answer_against_schema():
    """A finished answer is checked, and the error says where it is wrong."""
    structure = of(CITY)

    structure.check('{"city": "Oslo", "people": 700000}')
    with pytest.raises(GenerationError) as caught:
        structure.check('{"city": "Oslo", "people": "many"}')

    assert "The answer is not JSON that obeys the schema" == caught.value.title
    assert "$.people: 'many' is not of type 'integer'" in caught.value.cause
    assert "invalidAnswer" == caught.value.code


@pytest.mark.parametrize("schema", [[], "object", True, 3])
def test_schema_that_is_no_object(schema):
    """Only an object is a schema here."""
    assert "jsonSchema must be an object, not" in refused(schema)


def test_invalid_schema():
    """What is no valid schema is refused, with the place and the reason."""
    message = refused({"type": "object", "properties": {"a": {"type": "nonsense"}}})

    assert "jsonSchema.properties.a.type is not valid JSON schema" in message
    assert "'nonsense' is not" in message


def test_draft_of_the_schema_counts():
    """A schema is read by the draft that it names."""
    schema = {"type": "number", "minimum": 0, "exclusiveMinimum": True}

    of({"$schema": "http://json-schema.org/draft-04/schema#", **schema})

    assert "exclusiveMinimum is not valid JSON schema" in refused(schema)


@pytest.mark.parametrize("keyword", sorted(REFUSED))
def test_keywords_that_cannot_be_enforced(keyword):
    """A keyword with which engines drop the whole schema is refused, with its place."""
    values = {
        **dict.fromkeys(["maxContains", "minContains"], 1),
        **dict.fromkeys(["$dynamicAnchor", "$recursiveRef"], "a"),
        "$dynamicRef": "#a",
        "uniqueItems": True,
    }
    inner = {keyword: values.get(keyword, {})}

    message = refused({"anyOf": [{"properties": {"a": inner}}]})

    assert f"{keyword} at #/anyOf/0/properties/a" in message


def test_all_problems_are_listed():
    """Everything that has to go is named at once."""
    message = refused({"not": {}, "properties": {"a": {"contains": {}}}})

    assert "not at #; contains at #/properties/a" in message


def test_names_and_data_are_no_keywords():
    """Properties may be called like keywords, and data may hold anything."""
    schema = {
        "type": "object",
        "properties": {"not": {"type": "string"}, "$ref": {"type": "string"}},
        "default": {"not": "yes"},
        "enum": [{"$ref": "x", "not": "y"}],
    }

    assert schema == of(schema).json_schema


@pytest.mark.parametrize(
    "reference",
    ["http://example.org/x", "#anchor", "#/$defs/y", "#/allOf/1", "other.json"],
)
def test_references_elsewhere(reference):
    """A reference to something outside the schema, or to nothing, is refused."""
    schema = {"$ref": reference, "$defs": {"x": {"type": "string"}}, "allOf": [{}]}

    assert f"$ref '{reference}' at #, which is not in the schema" in refused(schema)


def test_references_within():
    """References to the root, to definitions and through lists are followed."""
    schema = {
        "$defs": {"a/b": {"type": "string"}, "pair": {"prefixItems": [{}, {}]}},
        "properties": {
            "self": {"$ref": "#"},
            "text": {"$ref": "#/$defs/a~1b"},
            "first": {"$ref": "#/$defs/pair/prefixItems/0"},
        },
    }

    assert schema == of(schema).json_schema


@pytest.mark.parametrize(
    "pattern",
    ["^(?=a)a$", "(?!a)b", "(?<=a)b", "(?<!a)b", r"(a)\1", r"a\b", "(?P<x>a)(?P=x)"],
)
def test_patterns_beyond_regular_languages(pattern):
    """Patterns that no grammar can express are refused."""
    assert "with more than a regular language" in refused(
        {"type": "string", "pattern": pattern}
    )


@pytest.mark.parametrize(
    "pattern", [r"^[\b(?=]+$", r"\\1", r"(?:a|b)+?", r"\d{2}", "[]a]"]
)
def test_patterns_that_are_fine(pattern):
    """What only looks like look-ahead or a reference is no reason to refuse."""
    schema = {"type": "string", "pattern": pattern}

    assert schema == of(schema).json_schema


def test_invalid_pattern():
    """A pattern that is no regular expression is refused."""
    assert "is not valid JSON schema" in refused({"type": "string", "pattern": "[a"})


def test_unknown_formats_are_remarks():
    """A format that the engine does not know is left out, to keep the schema."""
    known = {"type": "string", "format": sorted(FORMATS)[0]}

    assert known == of(known).json_schema
    assert {"type": "string"} == of({"type": "string", "format": "uri"}).json_schema


def test_alternatives_that_overlap():
    """The engine gets ``anyOf`` for ``oneOf``; the answer must match exactly one."""
    first, second = {"type": "integer"}, {"type": "number", "maximum": 5}
    structure = of({"items": {"oneOf": [first, second]}, "uniqueItems": False})

    assert {"items": {"anyOf": [first, second]}} == structure.json_schema
    structure.check("[2.5, 9]")
    with pytest.raises(GenerationError, match="obeys the schema"):
        structure.check("[3]")


def test_nested_too_deeply():
    """A schema without end is refused and hurts nobody."""
    schema = {"type": "string"}
    for _ in range(3000):
        schema = {"items": schema}

    assert "nested too deeply" in refused(schema)


@pytest.mark.parametrize("text", ["I'm fine", "The", "{1", "[1", "-sq", '"a'])
def test_output_that_is_no_json_from_the_start(text):
    """An engine that lost the schema is found out by its first words."""
    with pytest.raises(
        GenerationError, match="could not hold the output to the schema"
    ):
        of(CITY).check_start(text)


@pytest.mark.parametrize(
    "text", ["", " ", "{", '\n["a', "-1", "t", "true", "fa", "nu", '"The']
)
def test_output_that_may_be_json(text):
    """The beginning of any JSON passes where any JSON is right."""
    of({"description": "anything"}).check_start(text)
    read_structure({"type": "json"}).check_start(text)


def test_first_characters_through_references():
    """References are followed to what an answer has to begin with."""
    structure = of({"$ref": "#/$defs/a", "$defs": {"a": {"enum": ["x", 1]}}})

    structure.check_start('"')
    with pytest.raises(GenerationError, match="could not hold"):
        structure.check_start("{")


SLOW = "^((a+)+b|a*c)$"


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": ["a" * 40 + "c"], "pattern": SLOW},
        {"anyOf": [{"pattern": SLOW}, {"pattern": SLOW + "|x"}]},
        {"$ref": "#/$defs/a", "$defs": {"a": {"pattern": SLOW}}},
    ],
)
def test_patterns_are_left_to_the_engine(schema):
    """No regular expression of a client runs here: some would take years."""
    of(schema).check('"' + "a" * 40 + 'c"')


def test_patterns_of_names_are_left_to_the_engine():
    """Those neither, nor with what goes for all other names."""
    patterns = {SLOW: {"type": "integer"}}
    schema = {"type": "object", "patternProperties": patterns}
    name = "a" * 40 + "c"

    of(schema).check('{"' + name + '": 1}')
    of(schema | {"additionalProperties": False}).check('{"' + name + '": 1}')


@pytest.mark.parametrize("draft", ["2020-12/schema", "2019-09/schema"])
def test_schemas_in_schemas_name_no_draft(draft):
    """An inner schema of another draft would be checked by other rules."""
    inner = {"$schema": f"https://json-schema.org/draft/{draft}", "pattern": "a"}

    message = refused({"type": "object", "properties": {"x": inner}})

    assert "$schema at llm.prediction.structured.jsonSchema.properties.x" in message
    named = {"properties": {"$schema": {"type": "string"}}}
    assert named == of(named).json_schema


@pytest.mark.slow
def test_a_check_has_an_end(monkeypatch):
    """A schema that doubles the work at each step is given up in time."""
    monkeypatch.setattr("lmstudio.server.schema_answers.MAX_SECONDS", 0.05)
    steps = {f"s{n}": {"allOf": [{"$ref": f"#/$defs/s{n + 1}"}] * 2} for n in range(40)}
    endless = {"$ref": "#/$defs/s0", "$defs": steps | {"s40": {}}}

    with pytest.raises(GenerationError, match=r"takes more than 0.05 seconds"):
        of(endless).check("1")
    with pytest.raises(GenerationError, match="without an end"):
        of({"$ref": "#"}).check("1")


def test_grammar():
    """A grammar goes to the engine as it is, and its output is not looked at."""
    grammar = 'root ::= "yes" | "no"'
    structure = read_structure({"type": "gbnf", "gbnfGrammar": grammar})

    assert Structure(grammar=grammar) == structure
    structure.check_start("yes")
    structure.check("yes")


@pytest.mark.parametrize(
    "grammar", [None, "", 'rule ::= "x"', "%llguidance {}\nstart: x"]
)
def test_wrong_grammar(grammar):
    """What is no GBNF is refused: engines drop a wrong grammar in silence."""
    with pytest.raises(GenerationError) as caught:
        read_structure({"type": "gbnf", "gbnfGrammar": grammar})

    assert "gbnfGrammar must be a GBNF grammar" in caught.value.title
    assert "invalidGrammar" == caught.value.code


def test_boolean_schemas():
    """Within a schema, True and False are schemas as well."""
    schema = {"properties": {"a": True}, "additionalProperties": False}

    assert schema == of(schema).json_schema


def test_output_of_an_engine_without_the_grammar():
    """Output that the grammar does not allow is an error, whole and at its start."""
    structure = read_structure({"type": "gbnf", "gbnfGrammar": 'root ::= "yes" | "no"'})
    structure.check("yes")
    structure.check_start("y")

    for text in ("ye", "Sure"):
        with pytest.raises(GenerationError, match="to the grammar"):
            structure.check(text)
    with pytest.raises(GenerationError, match="to the grammar"):
        structure.check_start("Sure")


def test_grammars_that_are_not_understood_here():
    """What only the engine understands is left to it."""
    structure = read_structure({"type": "gbnf", "gbnfGrammar": "root ::= <[1]>"})
    structure.check("x")
    structure.check_start("x")


def test_other_kinds_of_grammar():
    """A grammar of another kind, which the engine might drop, is refused."""
    grammar = '%llguidance {}\nroot ::= "a"'
    with pytest.raises(GenerationError, match="must be a GBNF grammar"):
        read_structure({"type": "gbnf", "gbnfGrammar": grammar})
