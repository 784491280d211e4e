"""Arguments that can't be right are refused with a sentence that says what would be."""

from __future__ import annotations

import threading

import pytest

from lmstudio import LMStudioTypeError, LMStudioValueError, Signal
from lmstudio.arguments import (
    checked_callback,
    checked_count,
    checked_flag,
    checked_name,
    checked_seconds,
    checked_signal,
    checked_text,
    checked_texts,
)
from lmstudio.result import fragment_from_wire


class Text(str):
    """A text of the user's own type."""


@pytest.mark.parametrize("text", ["", "a", "ä\0\n", "x" * 10_000_000, Text("a")])
def test_texts(text):
    """Any text comes back, as a plain one."""
    checked = checked_text(text, "the prompt")

    assert text == checked
    assert str is type(checked)
    assert str is type(checked_text(fragment_from_wire({"content": "a"}), "it"))


@pytest.mark.parametrize("text", [None, b"a", 1, ["a"], object])
def test_what_is_no_text(text):
    """Nothing is converted to a text in silence."""
    with pytest.raises(LMStudioTypeError) as caught:
        checked_text(text, "the prompt")
    assert f"the prompt must be text, not {text!r}" == str(caught.value)


def test_lone_surrogates():
    """Half of a surrogate pair can't travel."""
    with pytest.raises(LMStudioValueError) as caught:
        checked_text("a\ud800", "the prompt")
    assert (
        "the prompt holds a lone surrogate, which no encoding has: 'a\\ud800'"
    ) == str(caught.value)


@pytest.mark.parametrize("given", [["a", "b"], ("a", "b"), {"b": 1, "a": 2}.keys()])
def test_several_texts(given):
    """Whatever can be iterated over gives a list of plain texts."""
    assert ["a", "b"] == sorted(checked_texts(given, "embed"))
    assert [] == checked_texts(iter(()), "embed")


@pytest.mark.parametrize("given", [None, 1, b"ab", bytearray(b"ab"), {"a": 1}])
def test_what_is_not_several_texts(given):
    """Bytes and mappings are not, although both can be iterated over."""
    with pytest.raises(LMStudioTypeError) as caught:
        checked_texts(given, "embed")
    assert f"embed takes a text or several, not {given!r}" == str(caught.value)


def test_which_of_several_texts_is_wrong():
    """The error says which, counted from 0."""
    with pytest.raises(LMStudioTypeError, match="text 1 must be text, not 7"):
        checked_texts(["a", 7], "embed")


@pytest.mark.parametrize("name", ["a", "publisher/model-GGUF", "x" * 1024])
def test_names(name):
    """A name has 1 to 1024 characters."""
    assert name == checked_name(name, "path")


@pytest.mark.parametrize("name", ["", "a\nb", "\0", "x" * 1025])
def test_what_is_no_name(name):
    """Control characters and other lengths are refused."""
    with pytest.raises(LMStudioValueError, match="path must be 1 to 1024 characters"):
        checked_name(name, "path")


def test_flags():
    """Only True and False are flags."""
    assert checked_flag(True, "no_hup")
    assert not checked_flag(False, "no_hup")
    for value in (1, 0, None, "yes"):
        with pytest.raises(LMStudioTypeError, match="no_hup must be True or False"):
            checked_flag(value, "no_hup")


def test_seconds():
    """Positive numbers are limits, and None is none."""
    assert checked_seconds(None, "timeout") is None
    assert [2.0, 0.5, float("inf")] == [
        checked_seconds(value, "timeout") for value in (2, 0.5, float("inf"))
    ]


@pytest.mark.parametrize("value", [0, -1, float("nan"), -float("inf")])
def test_wrong_seconds(value):
    """Zero, negative numbers and NaN are no limits."""
    with pytest.raises(LMStudioValueError) as caught:
        checked_seconds(value, "timeout")
    assert (
        f"timeout must be a number of seconds above 0, or None, not {value!r}"
    ) == str(caught.value)


def test_seconds_from_zero():
    """Who only looks waits 0 seconds."""
    assert 0.0 == checked_seconds(0, "timeout", zero=True)
    with pytest.raises(LMStudioValueError) as caught:
        checked_seconds(-0.1, "timeout", zero=True)
    assert ("timeout must be a number of seconds from 0, or None, not -0.1") == str(
        caught.value
    )


def test_more_seconds_than_a_float_has():
    """The error does not repeat them all."""
    for value in (10**400, -(10**400), 10**5000):
        with pytest.raises(LMStudioValueError, match="timeout must be") as caught:
            checked_seconds(value, "timeout")
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", ["1", True, [1]])
def test_what_are_no_seconds(value):
    """Only numbers are limits, and True is none."""
    with pytest.raises(LMStudioTypeError):
        checked_seconds(value, "timeout")


def test_callbacks():
    """What can be called is a callback, and None is none."""
    assert print is checked_callback(print, "on_progress")
    assert checked_callback(None, "on_progress") is None
    with pytest.raises(LMStudioTypeError) as caught:
        checked_callback(7, "on_progress")
    assert "on_progress must be a function, not 7" == str(caught.value)
    with pytest.raises(LMStudioTypeError, match="must be a function, not None"):
        checked_callback(None, "the callback", needed=True)


def test_signals():
    """Anything that can be asked whether it is set is a signal."""
    for signal in (None, Signal(), threading.Event()):
        assert signal is checked_signal(signal)
    for wrong in (True, "stop", threading.Lock()):
        with pytest.raises(LMStudioTypeError, match="must be a Signal or a threading"):
            checked_signal(wrong)


@pytest.mark.parametrize(
    ("function", "takes"),
    [
        (print, 0),
        (print, 2),
        ([].append, 1),
        (lambda: 0, 0),
        (lambda *rest: 0, 2),
        (lambda a, b=1: 0, 1),
        (int, 1),
        (threading.Event().set, 0),
    ],
)
def test_callbacks_that_fit(function, takes):
    """Whatever can be called with so many arguments is taken, also what C has made."""
    assert function is checked_callback(function, "on_x", takes=takes)


@pytest.mark.parametrize(
    ("function", "takes", "count"),
    [
        (lambda a: 0, 0, "no argument"),
        (lambda: 0, 1, "one argument"),
        (lambda a, b: 0, 1, "one argument"),
        (lambda *, a: 0, 0, "no argument"),
        (threading.Event().set, 2, "two arguments"),
    ],
)
def test_callbacks_of_another_number(function, takes, count):
    """They would fail in the middle of a prediction, so they are refused before."""
    with pytest.raises(LMStudioTypeError) as caught:
        checked_callback(function, "on_x", takes=takes)
    assert str(caught.value).startswith(f"on_x must be a function of {count}, and <")


def test_counts():
    """Whole numbers above 0, or None."""
    assert [None, 1, 9] == [checked_count(value, "n") for value in (None, 1, 9)]
    for wrong in (0, -1):
        with pytest.raises(LMStudioValueError) as caught:
            checked_count(wrong, "n")
        assert f"n must be a whole number above 0, or None, not {wrong}" == str(
            caught.value
        )
    for wrong in (True, 1.0, "1"):
        with pytest.raises(LMStudioTypeError, match="n must be a whole number above"):
            checked_count(wrong, "n")
