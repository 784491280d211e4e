"""What a request holds is read into classes, and errors say where it is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from lmstudio.server.rest.errors import RestError
from lmstudio.server.rest.reading import body, choose, read, refuse, text


@body(kw_only=True)
class Inner:
    """An object inside another."""

    some_role: str


@body(kw_only=True)
class Outer:
    """A request."""

    top_p: float = 1.0
    count: int = 0
    is_on: bool = False
    inner: list[Inner] | None = None
    anything: Any = None


def test_names_stay_as_they_are():
    """Names have underscores on the wire too; null is "not given"."""
    given = {"top_p": 0.5, "count": None, "inner": [{"some_role": "x"}], "new": 1}
    expected = Outer(top_p=0.5, inner=[Inner(some_role="x")])
    assert expected == read(given, Outer)


@pytest.mark.parametrize(
    ("value", "param", "message"),
    [
        ({"top_p": "x"}, "top_p", "top_p must be a number, not 'x'"),
        ({"count": 1.5}, "count", "count must be a whole number, not 1.5"),
        ({"count": True}, "count", "count must be a whole number, not True"),
        ({"is_on": "no"}, "is_on", "is_on must be true or false, not 'no'"),
        ({"inner": {}}, "inner", "inner must be a list, not {}"),
        ({"inner": [5]}, "inner[0]", "inner[0] must be an object, not 5"),
        ({"inner": [{}]}, "inner[0].some_role", "inner[0].some_role is missing"),
        (
            {"inner": [{"some_role": "x"}, {"some_role": 5}]},
            "inner[1].some_role",
            "inner[1].some_role must be a string, not 5",
        ),
    ],
)
def test_errors_say_where(value, param, message):
    """The error names the place, what would be right, and what it is."""
    with pytest.raises(RestError) as caught:
        read(value, Outer)
    assert (400, param, message) == (
        caught.value.status,
        caught.value.param,
        caught.value.title,
    )


def test_places_are_put_together():
    """What is read inside something else is named from the beginning."""
    with pytest.raises(RestError, match=r"^messages\[2\]\.some_role is missing"):
        read({}, Inner, "messages[2]")


def test_choose():
    """One of a few words, or an error that lists them."""
    assert "a" == choose("a", ("a", "b"), "mode")
    with pytest.raises(RestError, match=r"^mode must be one of 'a', 'b', not 'c'$"):
        choose("c", ("a", "b"), "mode")


def test_text():
    """A text has a UTF-8 form."""
    assert "é" == text("é", "input")
    with pytest.raises(RestError, match=r"^input must be a string, not 5"):
        text(5, "input")
    with pytest.raises(RestError, match=r"^input must be a string without lone"):
        text("\ud800", "input")


def test_refuse():
    """What nobody here can do is refused, with what to do instead."""
    refuse({"n": 1, "audio": None}, {"audio": "Ask for text"})
    with pytest.raises(RestError, match=r"^audio: .*Ask for text") as caught:
        refuse({"audio": {}}, {"audio": "Ask for text"})
    assert "audio" == caught.value.param
