"""Functions of all kinds tell their name, parameters and hints."""

from __future__ import annotations

import functools
import inspect

import pytest

from ids import stable
from lmstudio import LMStudioTypeError
from lmstudio.signatures import (
    check_sync,
    docstring_of,
    finished,
    hints_of,
    name_of,
    parameters_of,
)


def plain(a: int, b: str = "x") -> float:
    """Plain."""
    return a * 1.0


class Thing:
    """A thing."""

    def __init__(self, size: int) -> None:
        self.size = size

    def method(self, a: int) -> int:
        """Method."""
        return a + self.size

    @classmethod
    def of_class(cls, a: int) -> int:
        """Class method."""
        return a

    @staticmethod
    def static(a: int) -> int:
        """Static."""
        return a

    def __call__(self, a: int) -> int:
        return a


class Told(Thing):
    def __call__(self, a: int) -> int:
        """Call."""
        return a


@functools.wraps(plain)
def wrapped(*args, **kwargs):
    return plain(*args, **kwargs)


@pytest.mark.parametrize(
    ("function", "name", "docstring", "parameters"),
    [
        (plain, "plain", "Plain.", ["a", "b"]),
        (wrapped, "plain", "Plain.", ["a", "b"]),
        (Thing(1).method, "method", "Method.", ["a"]),
        (Thing.of_class, "of_class", "Class method.", ["a"]),
        (Thing.static, "static", "Static.", ["a"]),
        (vars(Thing)["static"], "static", "Static.", ["a"]),
        (Thing(1), "Thing", "A thing.", ["a"]),
        (Told(1), "Told", "Call.", ["a"]),
        (Thing, "Thing", "A thing.", ["size"]),
        (functools.partial(plain, 1), "plain", "Plain.", ["b"]),
        (functools.partial(plain, b="y"), "plain", "Plain.", ["a"]),
        (
            functools.partial(functools.partial(plain, b="y"), a=1),
            "plain",
            "Plain.",
            [],
        ),
    ],
    ids=stable,
)
def test_kinds_of_functions(function, name, docstring, parameters):
    """Each kind has a name, a docstring, and the parameters that are left, hinted."""
    found = [parameter.name for parameter in parameters_of(function, name)]

    assert name == name_of(function)
    assert docstring == docstring_of(function)
    assert parameters == found
    assert set(found) <= set(hints_of(function, name))
    check_sync(function, name)


async def waits(a: int) -> int:
    return a


async def yields(a: int):
    yield a


class Waits:
    async def __call__(self, a: int) -> int:
        return a


@pytest.mark.parametrize(
    "function",
    [waits, yields, Waits(), functools.partial(waits, 1)],
    ids=["async def", "async generator", "object", "partial"],
)
def test_async_functions(function):
    """Whatever has to be awaited is refused, with what to do instead."""
    with pytest.raises(LMStudioTypeError, match=r"tool t is async.*asyncio\.run\("):
        check_sync(function, "t")


def test_a_coroutine_as_result():
    """A function that looks plain and returns a coroutine is found out in the end."""
    made = waits(1)

    with pytest.raises(LMStudioTypeError, match="tool t returned a coroutine"):
        finished(made, "t")
    assert inspect.CORO_CLOSED == inspect.getcoroutinestate(made)
    assert 3 == finished(3, "t")


def any_number(*numbers: int) -> int:
    return sum(numbers)


def any_name(**options: int) -> int:
    return len(options)


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (any_number, "tool t has *numbers, and a model must be told each parameter"),
        (any_name, "tool t has **options, and a model must be told each parameter"),
        (dict.fromkeys.__self__, "the parameters of tool t can't be found out ("),
    ],
    ids=["*args", "**kwargs", "builtin"],
)
def test_unknown_parameters(function, problem):
    """Parameters that can't be listed are refused, with the reason."""
    with pytest.raises(LMStudioTypeError) as caught:
        parameters_of(function, "t")
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (lambda a: a, "a lambda has no name that a model could call; use def, or"),
        (functools.partial(lambda a: a, 1), "a lambda has no name"),
        (3, "3 is no function"),
    ],
    ids=["lambda", "partial", "number"],
)
def test_no_name(given, problem):
    """What has no name for a model is refused."""
    with pytest.raises(LMStudioTypeError) as caught:
        name_of(given)
    assert str(caught.value).startswith(problem)


def unknown_hint(a: Nowhere) -> int:  # noqa: F821
    return 1


def broken_hint(a: 1 + None) -> int:
    return 1


def test_hints_that_cannot_be_read():
    """A hint that names nothing, or does not even compute, is told with the tool."""
    with pytest.raises(LMStudioTypeError, match=r"of tool t can't be resolved: .*Now"):
        hints_of(unknown_hint, "t")
    with pytest.raises(LMStudioTypeError, match="hints of tool t can't be read: unsu"):
        hints_of(broken_hint, "t")
