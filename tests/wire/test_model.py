"""The decorator of wire models behaves as attrs does."""

from __future__ import annotations

import attrs
import pytest

from lmstudio.wire.model import model


@model(kw_only=True)
class Point:
    """Two numbers and a note that does not count."""

    x: int
    y: int = 0
    note: str = attrs.field(default="", eq=False, repr=False)


def test_compared_by_the_fields_that_count():
    """Equal fields make equal objects of equal hash; the class counts as well."""
    assert Point(x=1) == Point(x=1, note="other")
    assert hash(Point(x=1)) == hash(Point(x=1, note="other"))
    assert Point(x=1) != Point(x=2)
    assert Point(x=1) != attrs.asdict(Point(x=1))


def test_shown_as_it_is_written():
    """The repr is the call that makes the object."""
    assert "Point(x=1, y=2)" == repr(Point(x=1, y=2, note="secret"))


def test_frozen_and_by_keyword():
    """Fields can't be set, nor given by position."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Point(x=1).x = 2
    with pytest.raises(TypeError):
        Point(1)


def test_attrs_knows_it():
    """evolve, asdict and the converter take it for an attrs class."""
    assert attrs.has(Point)
    assert Point(x=3, y=2) == attrs.evolve(Point(x=1, y=2), x=3)
