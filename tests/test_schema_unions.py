"""A value of a union becomes the member that it is, or the union is refused."""

from __future__ import annotations

import datetime as dt
import enum
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import attrs
import msgspec
import pydantic
import pytest

from lmstudio import LMStudioTypeError
from lmstudio.schema import shape_of
from shapes import through


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@attrs.frozen
class Cat:
    lives: int
    name: str = ""


@attrs.frozen
class Dog:
    tricks: list[str]
    name: str = ""


@attrs.frozen
class Created:
    kind: Literal["created"]
    name: str


@attrs.frozen
class Deleted:
    kind: Literal["deleted", "gone"]
    name: str


class Shop(msgspec.Struct):
    street: str


class Named(TypedDict):
    name: str


class Number(NamedTuple):
    value: int


class Word(NamedTuple):
    value: str


@attrs.frozen
class Node:
    """May hold a union that it is in itself."""

    inner: Node | Cat | None = None


Few = Annotated[list[int], msgspec.Meta(max_length=1)]


@pytest.mark.parametrize(
    ("kind", "value", "instance"),
    [
        (int | str, "1", "1"),
        (int | str, 1, 1),
        (float | int, 3, 3),
        (float | int, 3.5, 3.5),
        (bool | int, True, True),
        (int | bool, 1, 1),
        (str | dt.date, "2026-11-30", dt.date(2026, 11, 30)),
        (str | dt.date, "2026-02-31", "2026-02-31"),
        (dt.datetime | dt.date, "2026-11-30", dt.date(2026, 11, 30)),
        (str | Color, "red", Color.RED),
        (str | Color, "green", "green"),
        (Any | int, 3, 3),
        (list[int] | list[str], ["a"], ["a"]),
        (tuple[str, str] | list[str], ["a", "b"], ("a", "b")),
        (list[str] | str, "ab", "ab"),
        (Few | set[int], [1, 1], {1}),
        (Cat | Dog, {"lives": 9}, Cat(9)),
        (Cat | Dog, {"tricks": ["roll"], "name": "x"}, Dog(["roll"], "x")),
        (Created | Deleted, {"kind": "gone", "name": "a"}, Deleted("gone", "a")),
        (Number | Word, {"value": 1}, Number(1)),
        (Number | Word, {"value": "a"}, Word("a")),
        (Cat | Named, {"name": "a"}, {"name": "a"}),
        (Cat | dict[str, int], {"lives": 1}, Cat(1)),
        (Cat | dict[str, int], {"other": 1}, {"other": 1}),
        (Cat | None, None, None),
        (Node, {"inner": {"inner": {"lives": 1}}}, Node(Node(Cat(1)))),
        (list[Shop | Cat], [{"lives": 1}, {"street": "a"}], [Cat(1), Shop("a")]),
    ],
    ids=str,
)
def test_members(kind, value, instance):
    """The narrowest member that fits, whatever the order."""
    made = through(kind, value)

    assert instance == made
    assert type(instance) is type(made)


@attrs.frozen
class Twin:
    lives: int
    name: str = "twin"


@attrs.frozen
class Nested:
    pets: dict[str, Cat | Twin]


class Open(pydantic.BaseModel):
    name: str


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (Cat | Twin, "Cat | Twin: the same JSON may be Cat and Twin; give each a"),
        (Nested, "Nested.pets[...]: the same JSON may be Cat and Twin; give each"),
        (Dog | Cat | Twin | None, "Dog | Cat | Twin | None: the same JSON may be C"),
        (Shop | Open, "Shop | Open: the same JSON may be Shop and Open; give each"),
    ],
    ids=str,
)
def test_classes_that_json_does_not_tell_apart(kind, error):
    """It is said before anything is sent, with what would help."""
    with pytest.raises(LMStudioTypeError) as caught:
        shape_of(kind)

    assert str(caught.value).startswith(error), str(caught.value)


def test_two_open_classes_told_apart_by_a_literal():
    """Classes that allow more fields need one with different values."""

    class Buy(msgspec.Struct, tag="buy"):
        item: str

    class Sell(msgspec.Struct, tag="sell"):
        item: str

    shape = shape_of(list[Buy | Sell])

    value = [{"type": "sell", "item": "a"}, {"type": "buy", "item": "b"}]
    assert [Sell("a"), Buy("b")] == shape.read(value)
