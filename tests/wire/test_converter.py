"""Models become JSON and come back, and what does not fit is named by its path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import pytest

from lmstudio.errors import LMStudioProtocolError
from lmstudio.wire.converter import (
    camel,
    converter,
    structure,
    unstructure,
    wire_name,
)
from lmstudio.wire.model import tagged


@attrs.frozen(kw_only=True)
class Inner:
    some_number: int
    share: float = 0.0


@attrs.frozen(kw_only=True)
class Outer:
    name: str
    is_good: bool = False
    inner_part: Inner | None = None
    parts: list[Inner] = attrs.field(factory=list)
    texts: list[str] | None = None
    extra: dict[str, Any] | None = None
    anything: Any = None
    nothing: float | None = attrs.field(default=None, metadata={"null": True})
    odd_name: int | None = attrs.field(default=None, metadata={"wire": "ODD"})


@attrs.frozen(kw_only=True)
class Keeping:
    name: str
    raw: Mapping[str, Any] = attrs.field(factory=dict, eq=False)


FULL = {
    "name": "n",
    "isGood": True,
    "innerPart": {"someNumber": 1, "share": 0.5},
    "parts": [{"someNumber": 2, "share": 1}],
    "texts": ["a"],
    "extra": {"Some_Key": [1]},
    "anything": {"x": None},
    "nothing": None,
    "ODD": 7,
}


def test_names():
    """Snake case becomes camel case, or what the field says."""
    assert ["name", "innerPart", "aBC"] == [
        camel(name) for name in ("name", "inner_part", "a_b_c")
    ]
    assert "ODD" == wire_name(attrs.fields(Outer).odd_name)


def test_round_trip():
    """Everything that a model holds comes back, nested models and all."""
    outer = structure(FULL, Outer, "x")

    assert Inner(some_number=1, share=0.5) == outer.inner_part
    assert 7 == outer.odd_name
    assert FULL == unstructure(outer)
    assert outer == structure(unstructure(outer), Outer, "x")


def test_none_is_not_sent():
    """None is left out, except where the wire wants null; off and empty are sent."""
    assert {
        "name": "n",
        "isGood": False,
        "parts": [],
        "nothing": None,
    } == unstructure(Outer(name="n"))


def test_unknown_keys_are_ignored():
    """A newer server may send more."""
    assert Inner(some_number=1) == structure(
        {"someNumber": 1, "new": {"a": 1}}, Inner, "x"
    )


def test_null_is_missing():
    """Where something may be missing, null says that it is; elsewhere it is wrong."""
    nothing = dict.fromkeys([*FULL, "new"]) | {"name": "n"}

    assert Outer(name="n") == structure(nothing, Outer, "x")
    with pytest.raises(LMStudioProtocolError, match=r"x: \$\.name"):
        structure({"name": None}, Outer, "x")


def test_raw_is_the_object_as_it_came():
    """A model with `raw` keeps all of it, and never sends it."""
    wire = {"name": "n", "new": 1}
    kept = structure(wire, Keeping, "x")

    assert wire == kept.raw
    assert {"name": "n"} == unstructure(kept)


@pytest.mark.parametrize("value", [3, 3.0])
def test_whole_numbers(value):
    """3.0 is an int where one is expected, since Python clients write it."""
    number = structure({"someNumber": value}, Inner, "x").some_number
    assert (3, int) == (number, type(number))


@pytest.mark.parametrize(
    ("value", "kind", "where", "problem"),
    [
        ({}, Outer, "x: $.name", "required field missing"),
        ({"name": 5}, Outer, "x: $.name", "expected str, not 5"),
        ({"name": None}, Outer, "x: $.name", "expected str, not None"),
        ({"name": "n", "isGood": 1}, Outer, "x: $.isGood", "expected bool, not 1"),
        (
            {"name": "n", "innerPart": {"someNumber": "1"}},
            Outer,
            "x: $.innerPart.someNumber",
            "expected int, not '1'",
        ),
        (
            {"name": "n", "parts": [{"someNumber": 1}, {"someNumber": True}]},
            Outer,
            "x: $.parts[1].someNumber",
            "expected int, not True",
        ),
        ({"someNumber": 1.5}, Inner, "x: $.someNumber", "expected int, not 1.5"),
        (
            {"someNumber": 1, "share": "1"},
            Inner,
            "x: $.share",
            "expected float, not '1'",
        ),
        (
            {"someNumber": 1, "share": True},
            Inner,
            "x: $.share",
            "expected float, not True",
        ),
        ({"name": "n", "parts": {}}, Outer, "x: $.parts", "expected a list, not {}"),
        (
            {"name": "n", "texts": "ab"},
            Outer,
            "x: $.texts",
            "expected a list, not 'ab'",
        ),
        ({"name": "n", "extra": [1]}, Outer, "x: $.extra", "expected a mapping"),
        (None, Inner, "x: $", "expected an object, not None"),
        ([1], Inner, "x: $", "expected an object, not [1]"),
        ([{"someNumber": 1}, 5], list[Inner], "x: $[1]", "expected an object, not 5"),
        (5, Inner | None, "x: $", "expected an object, not 5"),
        ("5", int, "x: $", "expected int, not '5'"),
    ],
)
def test_what_does_not_fit(value, kind, where, problem):
    """The error has the path in the words of the wire, and what was expected."""
    with pytest.raises(LMStudioProtocolError) as caught:
        structure(value, kind, "x")
    assert (where, problem) == (caught.value.where, caught.value.problem)


def test_errors_without_a_path():
    """A type that nothing is known of is an error of the same kind."""

    class Foreign:
        pass

    with pytest.raises(LMStudioProtocolError) as caught:
        structure({}, Foreign, "x")
    assert caught.value.where.startswith("x")


@attrs.frozen
class Unknown:
    packet: Any


class Tolerant:
    """Stands for a union in annotations."""


class Strict:
    """Stands for another."""


def test_unions_told_apart_by_a_field():
    """The tag decides the class; an unknown one is kept, where that is wanted."""
    tagged(Tolerant, "type", {"inner": Inner, "outer": Outer}, Unknown)
    tagged(Strict, "kind", {"inner": Inner, "outer": Outer})

    assert Inner(some_number=1) == structure(
        {"type": "inner", "someNumber": 1}, Tolerant, "x"
    )
    assert Outer(name="n") == structure({"type": "outer", "name": "n"}, Tolerant, "x")
    for odd in ({"type": "new"}, {"type": 5}, {}):
        assert Unknown(odd) == structure(odd, Tolerant, "x")
    assert Inner(some_number=1) == converter.structure(
        {"kind": "inner", "someNumber": 1}, Strict
    )
    for value, problem in (
        ({"kind": "new"}, "expected kind to be one of inner, outer, not 'new'"),
        ({"kind": []}, "expected kind to be one of inner, outer, not []"),
        ("text", "expected an object, not 'text'"),
    ):
        with pytest.raises(LMStudioProtocolError) as caught:
            structure(value, Strict, "x")
        assert problem == caught.value.problem


def test_every_problem_has_one_sentence():
    """Of several problems the first is told."""
    with pytest.raises(LMStudioProtocolError) as caught:
        structure({"name": 5, "isGood": 5}, Outer, "listLoaded")
    assert (
        "unexpected message from the server at listLoaded: $.name: expected str, not 5"
    ) == str(caught.value)


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ([0.5, 1], list[float], [0.5, 1]),
        ([1, 2.0], list[int], [1, 2]),
        ([], list[int], []),
    ],
)
def test_long_lists_of_numbers(value, kind, expected):
    """Numbers that need no look at each come as they are, others one by one."""
    found = structure(value, kind, "x")
    assert expected == found
    assert [type(number) for number in expected] == [type(n) for n in found]


@attrs.frozen(kw_only=True)
class Fixed:
    parts: tuple[Inner, ...] = ()


def test_tuples_are_lists_on_the_wire():
    """A tuple of any length travels as a list, and is as strict as one."""
    wire = {"parts": [{"someNumber": 1, "share": 0.5}]}
    fixed = structure(wire, Fixed, "x")

    assert (Inner(some_number=1, share=0.5),) == fixed.parts
    assert wire == unstructure(fixed)
    with pytest.raises(LMStudioProtocolError) as caught:
        structure({"parts": {}}, Fixed, "x")
    assert ("x: $.parts", "expected a list, not {}") == (
        caught.value.where,
        caught.value.problem,
    )
