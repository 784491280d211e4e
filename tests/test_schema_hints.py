"""What hints say besides their types is in the schema, and nothing fits by chance."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
from typing import Annotated, Any, Literal, NamedTuple

import attrs
import hypothesis
import msgspec
import pydantic
import pytest
from hypothesis import strategies as st

from ids import stable
from lmstudio.schema import shape_of
from shapes import accepts, through


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@attrs.frozen
class Joke:
    setup: str
    punchline: str


class Pair(NamedTuple):
    first: int
    second: str = "two"


@pytest.mark.parametrize(
    ("kind", "schema"),
    [
        (
            Annotated[int, msgspec.Meta(ge=1, lt=9, description="few")],
            {
                "type": "integer",
                "minimum": 1,
                "exclusiveMaximum": 9,
                "description": "few",
            },
        ),
        (
            Annotated[list[int], pydantic.Field(max_length=3)],
            {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
        ),
        (
            Annotated[str | None, msgspec.Meta(max_length=3, pattern="^a")],
            {
                "anyOf": [
                    {"type": "string", "maxLength": 3, "pattern": "^a"},
                    {"type": "null"},
                ]
            },
        ),
        (
            Annotated[dict[str, int], msgspec.Meta(min_length=1)],
            {
                "type": "object",
                "additionalProperties": {"type": "integer"},
                "minProperties": 1,
            },
        ),
        (
            Annotated[Annotated[int, "in"], "out"],
            {"type": "integer", "description": "out"},
        ),
        (Annotated[int, object()], {"type": "integer"}),
    ],
    ids=stable,
)
def test_what_annotated_says(kind, schema):
    """Limits in the words of the usual libraries, and descriptions; no more."""
    assert schema == shape_of(kind).schema


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (str, 1),
        (int, "1"),
        (int, 1.5),
        (int, True),
        (float, "1"),
        (bool, 1),
        (bool, "true"),
        (list[str], "ab"),
        (tuple[int, int], [1]),
        (tuple[int, int], [1, 2, 3]),
        (Literal[1], True),
        (Level, 3),
        (Joke, {"setup": "a"}),
        (Joke, {"setup": "a", "punchline": "b", "other": 1}),
        (Pair, [1, "a"]),
        (dict[str, int], {"a": "b"}),
    ],
    ids=str,
)
def test_nothing_is_converted_in_silence(kind, wrong):
    """What Python would make fit does not fit."""
    assert not accepts(kind, wrong)


HINTS: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(),
    str: st.text(),
    bool: st.booleans(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    dt.date: st.dates().map(str),
    Color: st.sampled_from(["red", "blue"]),
    Literal["x", 3]: st.sampled_from(["x", 3]),
    list[int]: st.lists(st.integers()),
    tuple[str, ...]: st.lists(st.text()),
    dict[str, bool]: st.dictionaries(st.text(), st.booleans()),
    int | None: st.none() | st.integers(),
    Pair: st.fixed_dictionaries({"first": st.integers()}),
}


@pytest.mark.slow
@hypothesis.settings(max_examples=20)
@hypothesis.given(st.data())
def test_any_dataclass(data):
    """Whatever JSON obeys the schema of a class of known fields becomes one."""
    hints = data.draw(st.lists(st.sampled_from(list(HINTS)), max_size=5))
    names = [f"f{number}" for number in range(len(hints))]
    made = dataclasses.make_dataclass("Made", list(zip(names, hints, strict=True)))
    value = {n: data.draw(HINTS[h]) for n, h in zip(names, hints, strict=True)}

    instance = through(made, value)

    for name, hint in zip(names, hints, strict=True):
        part = getattr(instance, name)
        assert through(hint, value[name]) == part
