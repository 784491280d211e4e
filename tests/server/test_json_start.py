"""The beginning of JSON is told from what can never become JSON."""

from __future__ import annotations

import json

import pytest

from lmstudio.server.json_start import first_characters, may_become_json

VALUE = {
    'a "b" \\ é\n': [1, -0.5, 1e30, 12e-7, True, False, None, "", {}, []],
    "": {"b": [[], [{"c": None}]]},
}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_every_beginning(indent, ascii_only):
    """Wherever JSON is cut, what stands before the cut is a beginning of it."""
    text = json.dumps(VALUE, indent=indent, ensure_ascii=ascii_only)

    for end in range(len(text) + 1):
        assert may_become_json(text[:end]), text[:end]


@pytest.mark.parametrize(
    "text",
    [
        *("hello", "-squared", "01", "1.x", "1e+-", "--", "tru!", "nulll", "{1,2"),
        *("{,", '{"a" 1', '{"a",', '{"a": }', '{"a": 1,}', '{"a": 1]', "[1,]"),
        *("[1 2", "[}", "]", "1 2", '"a" x', '"\\x', '"\\u12g', '"a\nb', "{}{"),
        *("[1:", "{tr", '{"a": tx'),
    ],
)
def test_no_beginning(text):
    """What can never become JSON is no beginning."""
    assert not may_become_json(text)


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "object"}, "{"),
        ({"type": ["string", "null"]}, '"n'),
        ({"type": "boolean"}, "tf"),
        ({"type": "integer"}, "-0123456789"),
        ({"const": [1]}, "["),
        ({"enum": ["a", 12, None]}, '"1n'),
        ({"type": "string", "enum": ["a", 12]}, '"'),
        ({"anyOf": [{"type": "array"}, {"$ref": "#/x"}]}, "[n"),
        ({"oneOf": [{"type": "null"}, False]}, "n"),
        ({"allOf": [{"type": ["null", "array"]}, {"type": ["null", "object"]}]}, "n"),
        ({"$ref": "#/loop"}, '"{[tfn-0123456789'),
        ({"properties": {"a": {}}}, '"{[tfn-0123456789'),
    ],
)
def test_first_characters(schema, expected):
    """A schema says what its values begin with, through references too."""
    schemas = {"#/x": {"type": "null"}, "#/loop": {"anyOf": [{"$ref": "#/loop"}]}}

    assert set(expected) == first_characters(schema, schemas.__getitem__)
