"""Types become JSON schemas, and JSON becomes instances of them."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import sys
import typing
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest
from typing_extensions import NotRequired, Required

from lmstudio.schema import shape_of
from shapes import accepts, through

T = typing.TypeVar("T")


class Color(enum.Enum):
    """Two of them."""

    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@attrs.frozen
class Joke:
    """A joke in two parts.

    The first part asks.
    """

    setup: str = attrs.field(metadata={"description": "The question."})
    punchline: str
    rating: float = 0.5
    tags: list[str] = attrs.field(factory=list)
    _author: str | None = None
    told: bool = attrs.field(default=False, init=False)


@dataclasses.dataclass
class Point:
    x: int
    y: Annotated[int, "Upwards."] = 0
    color: Color = dataclasses.field(
        default=Color.RED, metadata={"description": "Of the dot.", "unit": None}
    )
    trail: list[int] = dataclasses.field(default_factory=list)
    norm: float = dataclasses.field(default=0.0, init=False)


class City(TypedDict):
    name: Required[str]
    people: NotRequired[Annotated[int, "Millions."]]


class Partial(TypedDict, total=False):
    a: int
    b: Required[str]


class Pair(NamedTuple):
    first: int
    second: str = "two"


@attrs.define
class Tree:
    label: str
    children: list[Tree] = attrs.Factory(list)


@dataclasses.dataclass
class Chain:
    value: int
    rest: Chain | None = None


class Folder(TypedDict):
    files: list[str]
    folders: dict[str, Folder]


class Person(pydantic.BaseModel):
    """One of us."""

    name: str = pydantic.Field(max_length=20)
    born: dt.date | None = None
    tags: set[str] = set()
    friends: list[Person] = []


class Song(msgspec.Struct):
    title: str
    seconds: Annotated[int, msgspec.Meta(ge=0)] = 0
    released: dt.date | None = None


@attrs.frozen
class Box(typing.Generic[T]):
    content: T
    more: list[T] = attrs.Factory(list)


@attrs.frozen
class IntBox(Box[int]):
    pass


@attrs.frozen
class Everything:
    """Holds one of each, also classes of others."""

    joke: Joke
    point: Point
    city: City
    pair: Pair
    person: Person
    song: Song
    color: Color
    word: Literal["a", "b"]


UserId = NewType("UserId", int)
LATE = dt.datetime(2026, 11, 30, 18, 0, 0, 250000, tzinfo=dt.timezone.utc)


@pytest.mark.parametrize(
    ("kind", "schema", "value", "instance"),
    [
        (str, {"type": "string"}, "a", "a"),
        (bool, {"type": "boolean"}, True, True),
        (int, {"type": "integer"}, 3, 3),
        (float, {"type": "number"}, 3, 3.0),
        (None, {"type": "null"}, None, None),
        (type(None), {"type": "null"}, None, None),
        (Any, {}, {"a": [1]}, {"a": [1]}),
        (UserId, {"type": "integer"}, 3, 3),
        (
            dt.date,
            {"type": "string", "format": "date"},
            "2026-11-30",
            dt.date(2026, 11, 30),
        ),
        (
            dt.datetime,
            {"type": "string", "format": "date-time"},
            "2026-11-30t18:00:00.25z",
            LATE,
        ),
        (
            dt.time,
            {"type": "string", "format": "time"},
            "18:00:00.1234567",
            dt.time(18, 0, 0, 123456),
        ),
        (UUID, {"type": "string", "format": "uuid"}, str(UUID(int=7)), UUID(int=7)),
        (
            Decimal,
            {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"},
            "-12.50",
            Decimal("-12.50"),
        ),
        (
            Color,
            {"title": "Color", "type": "string", "enum": ["red", "blue"]},
            "blue",
            Color.BLUE,
        ),
        (Level, {"title": "Level", "type": "integer", "enum": [1, 2]}, 2, Level.HIGH),
        (Literal["a"], {"type": "string", "const": "a"}, "a", "a"),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}, "b", "b"),
        (Literal[1, True, "a", None], {"enum": [1, True, "a", None]}, True, True),
        (Literal[Color.RED], {"type": "string", "const": "red"}, "red", Color.RED),
        (list[int], {"type": "array", "items": {"type": "integer"}}, [1, 2], [1, 2]),
        (list, {"type": "array", "items": {}}, [1, "a"], [1, "a"]),
        (Sequence[int], {"type": "array", "items": {"type": "integer"}}, [1], [1]),
        (set[int], {"type": "array", "items": {"type": "integer"}}, [1, 1], {1}),
        (
            frozenset[str],
            {"type": "array", "items": {"type": "string"}},
            ["a"],
            frozenset("a"),
        ),
        (
            tuple[int, str],
            {
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "string"}],
                "minItems": 2,
                "maxItems": 2,
            },
            [1, "a"],
            (1, "a"),
        ),
        (
            tuple[()],
            {"type": "array", "minItems": 0, "maxItems": 0},
            [],
            (),
        ),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}, [1], (1,)),
        (tuple, {"type": "array", "items": {}}, [1], (1,)),
        (typing.Tuple, {"type": "array", "items": {}}, [1], (1,)),  # noqa: UP006
        (
            dict[str, Color],
            {
                "type": "object",
                "additionalProperties": {
                    "title": "Color",
                    "type": "string",
                    "enum": ["red", "blue"],
                },
            },
            {"a": "red"},
            {"a": Color.RED},
        ),
        (dict, {"type": "object", "additionalProperties": {}}, {"a": 1}, {"a": 1}),
        (
            Mapping[str, int],
            {"type": "object", "additionalProperties": {"type": "integer"}},
            {"a": 1},
            {"a": 1},
        ),
        (
            int | None,
            {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            None,
            None,
        ),
        (
            Annotated[str, "A name.", {"maxLength": 3}],
            {"type": "string", "maxLength": 3, "description": "A name."},
            "abc",
            "abc",
        ),
    ],
    ids=str,
)
def test_kinds(kind, schema, value, instance):
    """A type has this schema, and this JSON is this instance."""
    made = through(kind, value)

    assert schema == shape_of(kind).schema
    assert instance == made
    assert type(instance) is type(made)


def test_an_attrs_class():
    """Fields of the constructor, under its names; docstring, defaults, descriptions."""
    assert {
        "title": "Joke",
        "description": "A joke in two parts.\n\nThe first part asks.",
        "type": "object",
        "properties": {
            "setup": {"type": "string", "description": "The question."},
            "punchline": {"type": "string"},
            "rating": {"type": "number", "default": 0.5},
            "tags": {"type": "array", "items": {"type": "string"}},
            "author": {
                "anyOf": [{"type": "string"}, {"type": "null"}],
                "default": None,
            },
        },
        "required": ["setup", "punchline"],
        "additionalProperties": False,
    } == shape_of(Joke).schema
    value = {"setup": "a", "punchline": "b", "rating": 1, "author": "c"}
    assert Joke("a", "b", 1.0, author="c") == through(Joke, value)


def test_a_dataclass():
    """As an attrs class; the signature that it writes itself is no description."""
    assert {
        "title": "Point",
        "type": "object",
        "properties": {
            "x": {"type": "integer"},
            "y": {"type": "integer", "description": "Upwards.", "default": 0},
            "color": {
                "title": "Color",
                "type": "string",
                "enum": ["red", "blue"],
                "description": "Of the dot.",
                "default": "red",
            },
            "trail": {"type": "array", "items": {"type": "integer"}},
        },
        "required": ["x"],
        "additionalProperties": False,
    } == shape_of(Point).schema
    assert Point(1, color=Color.BLUE) == through(Point, {"x": 1, "color": "blue"})


def test_typed_dicts():
    """Keys may be left out as their class says, or the wrapper of one key."""
    city, partial = shape_of(City).schema, shape_of(Partial).schema

    assert ["name"] == city["required"]
    assert {"type": "integer", "description": "Millions."} == (
        city["properties"]["people"]
    )
    assert ["b"] == partial["required"]
    assert {"name": "Rome"} == through(City, {"name": "Rome"})
    assert not accepts(City, {"name": "Rome", "mayor": "?"})


def test_a_named_tuple():
    """It is an object with names, which tell a model more than places do."""
    assert ["first", "second"] == list(shape_of(Pair).schema["properties"])
    made = through(Pair, {"first": 1})
    assert (1, "two") == made
    assert type(made) is Pair


def test_classes_of_other_libraries():
    """They are asked for their own schema, and make the instances themselves."""
    song, person = shape_of(Song).schema, shape_of(Person).schema

    assert {"type": "integer", "minimum": 0, "default": 0} == (
        song["properties"]["seconds"]
    )
    # A grammar can't hold a model to unique items; a set takes them anyway.
    assert "uniqueItems" not in str(person)
    released = dt.date(2026, 11, 30)
    assert Song("a", 3, released) == through(
        Song, {"title": "a", "seconds": 3, "released": "2026-11-30"}
    )
    made = through(
        Person, {"name": "A", "tags": ["x", "x"], "friends": [{"name": "B"}]}
    )
    assert Person(name="A", tags={"x"}, friends=[Person(name="B")]) == made


def test_a_pydantic_dataclass():
    """It has no schema of its own; pydantic makes one."""

    @pydantic.dataclasses.dataclass
    class Small:
        size: int = pydantic.Field(le=9)

    assert 9 == shape_of(Small).schema["properties"]["size"]["maximum"]
    assert Small(size=3) == through(Small, {"size": 3})


def test_the_first_version_of_pydantic():
    """Its methods have other names, and its references lead elsewhere."""

    class Inner:
        """Stands in for one of its models."""

        @classmethod
        def schema(cls):
            parts = {"Leaf": {"type": "object", "properties": {"x": {"const": 1}}}}
            leaf = {"$ref": "#/definitions/Leaf"}
            return {
                "type": "object",
                "properties": {"leaf": leaf},
                "definitions": parts,
            }

        @classmethod
        def parse_obj(cls, value):
            return ("parsed", value)

    assert {"$ref": "#/$defs/Leaf"} == shape_of(Inner).schema["properties"]["leaf"]
    assert not accepts(list[Inner], [{"leaf": {"x": 2}}])
    value = {"leaf": {"x": 1}}
    assert [("parsed", value)] == through(list[Inner], [value])


def test_an_own_schema_for_own_fields():
    """A class with a schema made by hand is still read by its fields."""

    @attrs.frozen
    class Manual:
        size: int
        again: Manual | None = None

        @classmethod
        def model_json_schema(cls):
            return {"type": "object", "properties": {"size": {"type": "integer"}}}

    assert Manual(3) == through(Manual, {"size": 3})
    assert {"size": {"type": "integer"}} == shape_of(Manual).schema["properties"]


def test_defaults_that_json_does_not_have():
    """They are left out of the schema; the field need not be there all the same."""

    @attrs.frozen
    class Defaults:
        high: float = float("inf")
        pair: tuple[int, ...] = (1, 2)

    schema = shape_of(Defaults).schema
    assert {"type": "number"} == schema["properties"]["high"]
    assert "default" not in schema["properties"]["pair"]
    assert [] == schema["required"]
    assert Defaults() == through(Defaults, {})


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type aliases are of 3.12")
def test_type_aliases():
    """A type alias may hold itself; it becomes a definition under its name."""
    names: dict[str, Any] = {}
    exec("type Nested = int | list[Nested]", names)

    assert [1, [2]] == through(names["Nested"], [1, [2]])
    assert "#/$defs/Nested" == shape_of(names["Nested"]).schema["$ref"]


def test_two_classes_of_one_name():
    """Definitions don't overwrite each other."""

    def make(hint):
        return attrs.make_class("Same", {"x": attrs.field(type=hint)})

    one, two = make(int), make(str)
    first, second = through(tuple[one, two], [{"x": 1}, {"x": "a"}])

    assert [(one, 1), (two, "a")] == [(type(v), v.x) for v in (first, second)]
    assert {"Same", "Same2"} == shape_of(tuple[one, two]).schema["$defs"].keys()


def test_generic_classes():
    """Type variables stand for what was filled in, also by a subclass."""
    assert Box("a", ["b"]) == through(Box[str], {"content": "a", "more": ["b"]})
    assert IntBox(1, [2]) == through(IntBox, {"content": 1, "more": [2]})
    assert not accepts(Box[str], {"content": 1})
    assert not accepts(IntBox, {"content": "a"})
    assert "Box_int" in shape_of(list[Box[int]]).schema["$defs"]


@pytest.mark.parametrize(
    ("kind", "value", "instance"),
    [
        (
            Tree,
            {"label": "a", "children": [{"label": "b"}]},
            Tree("a", [Tree("b")]),
        ),
        (Chain, {"value": 1, "rest": {"value": 2}}, Chain(1, Chain(2))),
        (
            Folder,
            {"files": [], "folders": {"a": {"files": ["b"], "folders": {}}}},
            {"files": [], "folders": {"a": {"files": ["b"], "folders": {}}}},
        ),
    ],
    ids=["Tree", "Chain", "Folder"],
)
def test_recursion(kind, value, instance):
    """A class may hold itself; the schema refers to its own definitions."""
    name = kind.__name__
    schema = shape_of(kind).schema

    assert {"$ref": f"#/$defs/{name}", "$defs": schema["$defs"]} == schema
    assert instance == through(kind, value)
    assert [instance] == through(list[kind], [value])


def test_recursion_in_a_function():
    """A class that a function makes may refer to itself by name."""

    @dataclasses.dataclass
    class Local:
        rest: list[Local]

    assert Local([Local([])]) == through(Local, {"rest": [{"rest": []}]})


def test_one_of_each():
    """Classes of all kinds hold each other."""
    value = {
        "joke": {"setup": "a", "punchline": "b"},
        "point": {"x": 1},
        "city": {"name": "c"},
        "pair": {"first": 1},
        "person": {"name": "d", "friends": [{"name": "e"}]},
        "song": {"title": "f"},
        "color": "red",
        "word": "b",
    }
    expected = Everything(
        joke=Joke("a", "b"),
        point=Point(1),
        city={"name": "c"},
        pair=Pair(1),
        person=Person(name="d", friends=[Person(name="e")]),
        song=Song("f"),
        color=Color.RED,
        word="b",
    )

    assert expected == through(Everything, value)
    assert ["Joke", "Point", "City", "Pair", "Person", "Song"] == list(
        shape_of(Everything).schema["$defs"]
    )


def test_the_order_is_always_the_same():
    """Two schemas of a type are the same to the last character."""
    assert repr(shape_of(Everything).schema) == repr(shape_of(Everything).schema)


def test_a_prediction_of_a_type(fake, model):
    """The whole way: the schema travels, and `parsed` is an instance."""
    fake.reply('{"x": 1, "color": "blue"}')

    prediction = model.respond("A point", response_format=Point)

    assert Point(1, color=Color.BLUE) == prediction.parsed
    config = fake.wait_for_call("predict").parameter["predictionConfigStack"]
    assert "'title': 'Point'" in str(config)
