"""Types that have no JSON form, and answers that don't fit, are errors that say so."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import typing
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest

from lmstudio import LMStudioOutputError, LMStudioTypeError
from lmstudio.schema import Misfit, shape_of
from lmstudio.structured import to_setting

T = typing.TypeVar("T")


@attrs.frozen
class Joke:
    setup: str
    punchline: str


@dataclasses.dataclass
class Point:
    x: int


class Pair(NamedTuple):
    first: int
    second: str = "two"


@dataclasses.dataclass
class Chain:
    value: int
    rest: Chain | None = None


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=20)
    born: dt.date | None = None


@attrs.frozen
class Box(typing.Generic[T]):
    content: T


def answer(kind: Any, text: str) -> Any:
    parse = to_setting(kind)[1]
    assert parse is not None
    return parse(text, "eosFound")


@attrs.frozen
class Guarded:
    size: int = attrs.field(validator=attrs.validators.lt(10))


@pytest.mark.parametrize(
    ("kind", "text", "problem"),
    [
        (Joke, '{"setup": "a"', "it is no whole JSON"),
        (Joke, '{"setup": "a"}', "$ does not fit the schema: 'punchline' is a"),
        (list[Joke], '[{"setup": 1, "punchline": ""}]', "$[0].setup does not fit"),
        (list[dt.date], '["2026-02-31"]', "$[0]: day"),
        (dict[str, dt.date], '{"a": "soon"}', "$['a']: expected a date such as 2026"),
        (Guarded, '{"size": 10}', "Guarded refuses it: 'size' must be < 10: 10"),
        (list[Guarded], '[{"size": 10}]', "$[0]: Guarded refuses it: 'size' must be"),
        (tuple[int, UUID], '[1, "x"]', "$[1]: expected a UUID, not 'x'"),
        (float, "1" + "0" * 400, "the number is too large"),
        (Person, f'{{"name": "{"a" * 21}"}}', "$.name does not fit the schema"),
        (list[Person], '[{"name": "A", "born": "x"}]', "$[0]: Person refuses it: 1 va"),
        (int | str, "[1]", "$ does not fit the schema: [1] is not valid under any"),
        (dt.date | UUID, '"x"', "expected a date such as 2026-11-30, not 'x'"),
        (list[int], "[" * 900 + "]" * 900, "$"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_answers_that_do_not_fit(kind, text, problem):
    """The error says where, and keeps the text."""
    with pytest.raises(LMStudioOutputError) as caught:
        answer(kind, text)

    assert caught.value.problem.startswith(problem), caught.value.problem
    assert text == caught.value.content


def test_a_misfit_says_where():
    """It has the path and the reason, and a sentence of both."""
    with pytest.raises(Misfit) as caught:
        shape_of(list[Guarded]).read([{"size": 1}, {"size": 11}])

    assert "[1]" == caught.value.path
    assert f"$[1]: {caught.value.reason}" == str(caught.value)
    assert isinstance(caught.value.__cause__, ValueError)


def test_very_deep_answers():
    """Deep nesting is an error of ours, and not one of the interpreter."""
    value: Any = {"value": 1}
    for _ in range(100_000):
        value = {"value": 1, "rest": value}

    with pytest.raises(Misfit):
        shape_of(Chain).read(value)


class Untouched:
    pass


class Flags(enum.Flag):
    A = 1


class Empty(enum.Enum):
    pass


class Odd(enum.Enum):
    A = (1, 2)


@attrs.frozen
class Holder:
    inner: dict[str, list[Untouched]]


WithInit = dataclasses.make_dataclass("WithInit", [("x", dataclasses.InitVar[int])])


@attrs.frozen
class Unknown:
    x: Nowhere  # type: ignore[name-defined]  # noqa: F821


@attrs.frozen
class Unreadable:
    x: 1 / 0  # type: ignore[valid-type]


class Refuses:
    @classmethod
    def model_json_schema(cls):
        raise RuntimeError("not today")


class NoMapping:
    @classmethod
    def model_json_schema(cls):
        return ["type"]


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (Untouched, "Untouched has no JSON form; supported are attrs classes, data"),
        (Holder, "Untouched at Holder.inner[...][] has no JSON form; supported"),
        (Flags, "Flags has no JSON form; "),
        (Empty, "Empty has no JSON form; "),
        (bytes, "bytes has no JSON form; "),
        (("a", "b"), "('a', 'b') of type tuple is no type; pass a type, such as"),
        (typing.Callable[[], int], "Callable[[], int] has no JSON form; "),
        (Pair(1), "Pair(first=1, second='two') of type Pair is no type; pass a type,"),
        (list["Joke"], "'Joke' at list['Joke'][] is only a name; pass the type"),
        (typing.List["Joke"], "ForwardRef('Joke') at List[ForwardRef('Joke')][] is"),  # noqa: UP006
        (Box, "~T at Box.content is a type variable; say what it stands for"),
        (dict[int, str], "dict[int, str]: keys must be str, as JSON has them, not int"),
        (set[list[int]], "set[list[int]]: a set can't hold list[int], which can"),
        (set[Point], "set[Point]: a set can't hold Point, which can change; use a"),
        (frozenset[int | Point], "frozenset[int | Point]: a frozenset can't hold"),
        (Odd, "Odd: members of Odd must be texts, numbers, True, False or None"),
        (Literal[b"a"], "Literal[b'a']: values of a Literal must be texts, numbers"),
        (WithInit, "WithInit.x is an InitVar, of which nothing is kept; make it"),
        (
            attrs.make_class("Bare", ["x"]),
            "Bare.x has no type hint; write one",
        ),
        (Unknown, "a type hint of Unknown can't be resolved: name 'Nowhere' is not"),
        (Unreadable, "the type hints of Unreadable can't be read: division by zero"),
        (Refuses, "Refuses has no JSON schema: not today"),
        (NoMapping, "NoMapping has no JSON schema: it made a list"),
        (
            Annotated[bool, msgspec.Meta(ge=1)],
            "Annotated[bool, Meta(ge=1)]: a limit ge=1 says nothing about this type",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_has_no_json_form(kind, error):
    """It is refused before anything is sent, by name, place and what would do."""
    with pytest.raises(LMStudioTypeError) as caught:
        shape_of(kind)

    assert str(caught.value).startswith(error), str(caught.value)
