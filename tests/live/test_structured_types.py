"""A real model is held to types, and its answers become instances of them."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest

import lmstudio
from live.conftest import KEY

Short = Annotated[str, msgspec.Meta(max_length=12)]
Small = Annotated[int, msgspec.Meta(ge=0, le=99)]


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


@attrs.frozen
class Joke:
    """A joke in two parts."""

    setup: Short
    punchline: Short = attrs.field(metadata={"description": "What makes it funny."})
    mood: Mood = Mood.GOOD


@dataclasses.dataclass
class Point:
    x: Small
    y: Small | None = None


class City(TypedDict):
    name: Short
    people: Small


class Pair(NamedTuple):
    first: Small
    second: bool


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=12)
    lucky: set[Literal[3, 7]] = pydantic.Field(max_length=3)
    price: Decimal


class Song(msgspec.Struct):
    title: Short
    released: dt.date


@attrs.frozen
class Chain:
    label: Literal["a", "b"]
    rest: Chain | None


@attrs.frozen
class Circle:
    radius: Small


@attrs.frozen
class Formats:
    day: dt.date
    moment: dt.datetime
    number: UUID


SHAPES: dict[Any, Any] = {
    Joke: Joke,
    Point: Point,
    City: dict,
    Pair: Pair,
    Person: Person,
    Song: Song,
    Mood: Mood,
    Formats: Formats,
    Annotated[list[Point], msgspec.Meta(min_length=1, max_length=2)]: list,
    tuple[Small, Short]: tuple,
    Annotated[dict[str, Small], msgspec.Meta(max_length=2)]: dict,
    Literal["yes", "no"]: str,
    Point | Circle: (Point, Circle),
    Small | bool: int,
    bool: bool,
}


def test_answers_of_types(client):
    """Whatever the model would like to say, it says one of these."""
    model = client.llm.load(KEY, config={"context_length": 2048})
    for kind, made in SHAPES.items():
        prediction = model.respond(
            f"Something that is a {kind}, as short JSON:",
            response_format=kind,
            max_tokens=300,
            temperature=0,
            seed=1,
        )
        assert isinstance(prediction.parsed, made), prediction.content


def test_a_recursive_answer(client):
    """The model stays within a type that holds itself; cut off, it is an error."""
    model = client.llm.load(KEY, config={"context_length": 2048})
    cut = model.respond("A long chain:", response_format=Chain, max_tokens=3)
    with pytest.raises(lmstudio.LMStudioOutputError) as caught:
        _ = cut.parsed
    assert caught.value.stop_reason == "maxPredictedTokensReached"

    # Such a small model often goes on and on, but not with every seed.
    for seed in range(20):
        whole = model.respond(
            "A short chain:",
            response_format=Chain,
            max_tokens=60,
            temperature=1.5,
            seed=seed,
        )
        if whole.stats.stop_reason == "eosFound":
            break
    assert isinstance(whole.parsed, Chain), whole.content
