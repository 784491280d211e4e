"""What a prediction of a type gives has that type, for mypy and pyright.

Nothing here runs: `make types` checks it.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypedDict

import attrs
import msgspec
import pydantic
from typing_extensions import assert_type

from lmstudio import LLM, Fragment, Prediction, PredictionResult


@attrs.frozen
class Joke:
    setup: str


@dataclasses.dataclass
class Point:
    x: int


class City(TypedDict):
    name: str


class Pair(NamedTuple):
    first: int


class Person(pydantic.BaseModel):
    name: str


class Song(msgspec.Struct):
    title: str


class Color(enum.Enum):
    RED = "red"


def classes(model: LLM) -> None:
    assert_type(model.respond("?", response_format=Joke), Prediction[Joke])
    assert_type(model.complete("?", response_format=Joke), Prediction[Joke])
    assert_type(model.respond("?", response_format=Point).parsed, Point)
    assert_type(model.respond("?", response_format=City).parsed, City)
    assert_type(model.respond("?", response_format=Pair).parsed, Pair)
    assert_type(model.respond("?", response_format=Person).parsed, Person)
    assert_type(model.respond("?", response_format=Song).parsed, Song)
    assert_type(model.respond("?", response_format=Color).parsed, Color)
    assert_type(model.respond("?", response_format=int).parsed, int)


def other_types(model: LLM) -> None:
    assert_type(model.respond("?", response_format=list[Joke]).parsed, list[Joke])
    assert_type(
        model.complete("?", response_format=dict[str, int]).parsed, dict[str, int]
    )
    assert_type(
        model.respond("?", response_format=Literal["yes", "no"]).parsed,
        Literal["yes", "no"],
    )
    assert_type(model.respond("?", response_format=Joke | Point).parsed, Joke | Point)
    assert_type(model.complete("?", response_format=Joke | None).parsed, Joke | None)


def structured(model: LLM) -> None:
    assert_type(model.respond("?", structured=Joke), Prediction[Joke])
    assert_type(model.complete("?", structured=list[Joke]).parsed, list[Joke])
    assert_type(model.respond("?", {"temperature": 0}, response_format=int).parsed, int)


def results(model: LLM) -> None:
    prediction = model.respond("?", response_format=Joke, temperature=0, timeout=5)
    assert_type(prediction.result(), PredictionResult[Joke])
    assert_type(prediction.result().parsed.setup, str)
    assert_type(prediction.content, str)
    with model.complete("?", response_format=Point) as running:
        assert_type(running, Prediction[Point])
        for fragment in running:
            assert_type(fragment, Fragment)


def text(model: LLM) -> None:
    assert_type(model.respond("?"), Prediction[str])
    assert_type(model.complete("?", max_tokens=5).parsed, str)
    assert_type(model.respond("?", on_fragment=print, tools=[abs]).parsed, str)


def other_structures(model: LLM, schema: Mapping[str, Any]) -> None:
    assert_type(model.respond("?", response_format=schema), Prediction[Any])
    assert_type(model.respond("?", structured={"type": "json"}), Prediction[Any])
    assert_type(model.complete("?", structured={"type": "json"}), Prediction[Any])
    assert_type(
        model.complete("?", response_format={"type": "object"}), Prediction[Any]
    )


def mistakes(model: LLM) -> None:
    # What would not be ignored if it were right: warn_unused_ignores sees to it.
    model.respond("?", temprature=0)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    model.respond("?", max_tokens="5")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    model.complete("?", tools=[abs])  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    model.respond("?", context_overflow_policy="cut")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    model.respond("?", pre_prompt="a")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
