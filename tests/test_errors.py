"""Errors carry fields, make sentences of them, and travel between processes."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from lmstudio import errors as module
from lmstudio.errors import (
    CODES,
    LMStudioAuthenticationError,
    LMStudioCancelledError,
    LMStudioChannelClosedError,
    LMStudioClientError,
    LMStudioConnectionError,
    LMStudioContextOverflowError,
    LMStudioError,
    LMStudioModelCrashedError,
    LMStudioModelLoadError,
    LMStudioModelNotFoundError,
    LMStudioOSError,
    LMStudioOutputError,
    LMStudioPredictionError,
    LMStudioPresetNotFoundError,
    LMStudioProtocolError,
    LMStudioRealModelError,
    LMStudioRuntimeError,
    LMStudioServerError,
    LMStudioTimeoutError,
    LMStudioTypeError,
    LMStudioUnknownMessageWarning,
    LMStudioUnsupportedError,
    LMStudioValueError,
    LMStudioWebsocketError,
    shown,
)

SERVER = ("predict", "Title.", "Cause", "Try this.", "x.code", {"a": 1})
SERVER_TEXT = "predict: Title. Cause. Try this"

#: Class -> arguments, sentence, and the built-in that it also is.
ALL = {
    LMStudioError: (("m",), "m", Exception),
    LMStudioOSError: (("m",), "m", OSError),
    LMStudioRuntimeError: (("m",), "m", RuntimeError),
    LMStudioRealModelError: (
        (["ws://h:1"],),
        "real models are forbidden here, and ws://h:1 is no stand-in. Use"
        " lmstudio.testing.FakeServer or a cassette, or take back"
        " forbid_real_models() or the variable LMSTUDIO_FORBID_REAL_MODELS",
        RuntimeError,
    ),
    LMStudioValueError: (("m",), "m", ValueError),
    LMStudioTypeError: (("m",), "m", TypeError),
    LMStudioOutputError: (
        ("{", "eosFound", "no JSON"),
        "the answer can't be used as asked for: no JSON"
        " (stop reason eosFound, text '{')",
        ValueError,
    ),
    LMStudioTimeoutError: (("m", "so far"), "m", TimeoutError),
    LMStudioServerError: (SERVER, SERVER_TEXT, Exception),
    LMStudioModelNotFoundError: (SERVER, SERVER_TEXT, LookupError),
    LMStudioPresetNotFoundError: (SERVER, SERVER_TEXT, LookupError),
    LMStudioChannelClosedError: (SERVER, SERVER_TEXT, Exception),
    LMStudioModelLoadError: (SERVER, SERVER_TEXT, Exception),
    LMStudioPredictionError: (SERVER, SERVER_TEXT, Exception),
    LMStudioModelCrashedError: (SERVER, SERVER_TEXT, Exception),
    LMStudioContextOverflowError: (SERVER, SERVER_TEXT, Exception),
    LMStudioAuthenticationError: (SERVER, SERVER_TEXT, Exception),
    LMStudioUnsupportedError: (SERVER, SERVER_TEXT, Exception),
    LMStudioClientError: (("m",), "m", Exception),
    LMStudioCancelledError: (("m",), "m", Exception),
    LMStudioProtocolError: (
        ("call: $.a", "missing"),
        "unexpected message from the server at call: $.a: missing",
        ValueError,
    ),
    LMStudioWebsocketError: (
        ("ws://h:1", "gone", "so far"),
        "lost the connection to ws://h:1: gone",
        ConnectionError,
    ),
    LMStudioConnectionError: (
        ("ws://h:1", "refused", "gone", "Start it"),
        "no LM Studio server at ws://h:1: gone. Start it",
        ConnectionError,
    ),
    LMStudioUnknownMessageWarning: (("m",), "m", UserWarning),
}


CLASSES = [
    cls
    for _, cls in inspect.getmembers(module, inspect.isclass)
    if issubclass(cls, BaseException)
]


def expected_of(cls):
    """A row of the table; made up from the signature for those without one."""
    if cls in ALL:
        return ALL[cls]
    parameters = inspect.signature(cls).parameters.values()
    needed = [p for p in parameters if p.default is inspect.Parameter.empty]
    arguments = tuple(3 if p.annotation == "int" else p.name for p in needed)
    return arguments, str(cls(*arguments)), Exception


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error(cls):
    """Its sentence, its built-in, its repr, and copies of it in three ways."""
    arguments, sentence, built_in = expected_of(cls)
    error = cls(*arguments)
    error.__cause__ = KeyError("k")

    assert sentence == str(error)
    assert (sentence,) == error.args
    assert f"{cls.__name__}({sentence!r})" == repr(error)
    assert isinstance(error, LMStudioError)
    assert isinstance(error, built_in)
    try:
        raise error
    except cls as caught:
        assert caught.__traceback__ is not None
    for copied in (
        pickle.loads(pickle.dumps(error)),
        copy.copy(error),
        error.fresh(),
    ):
        assert cls is type(copied)
        assert vars(error) == vars(copied)
        assert error.args == copied.args
        assert sentence == str(copied)
        assert copied.__traceback__ is None
    assert error.__cause__ is error.fresh().__cause__


def test_what_was_added_later_travels_too():
    """Fields that are set after the making are in the copies."""
    error = LMStudioPredictionError("predict", "Title")
    assert "" == error.partial
    error.partial = "so far"

    assert "so far" == pickle.loads(pickle.dumps(error)).partial
    assert "so far" == error.fresh().partial


def test_fields():
    """What was passed is there as attributes."""
    server = LMStudioServerError(*SERVER)
    assert SERVER == (
        server.endpoint,
        server.title,
        server.cause,
        server.suggestion,
        server.code,
        server.details,
    )
    lost = LMStudioWebsocketError("ws://h:1", "gone", "so far")
    assert ("ws://h:1", "gone", "so far") == (lost.address, lost.reason, lost.partial)
    unreachable = LMStudioConnectionError("ws://h:1", "refused", "gone", "Start it")
    assert ("refused", "Start it", "", None) == (
        unreachable.problem,
        unreachable.hint,
        unreachable.partial,
        unreachable.errno,
    )
    output = LMStudioOutputError("{", "eosFound", "no JSON")
    assert ("{", "eosFound", "no JSON") == (
        output.content,
        output.stop_reason,
        output.problem,
    )
    protocol = LMStudioProtocolError("call: $.a", "missing")
    assert ("call: $.a", "missing") == (protocol.where, protocol.problem)
    assert "so far" == LMStudioTimeoutError("m", "so far").partial


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("field", ["displayData", "errorData"])
def test_every_code_has_its_class(code, field):
    """The code of an error decides its class; the other fields become details."""
    error = LMStudioServerError.from_wire(
        "loadModel",
        {
            "title": "No",
            "rootTitle": "No",
            "cause": "Because",
            "suggestion": "",
            field: {"code": code, "path": "a/b"},
        },
    )
    assert (CODES[code], code, {"path": "a/b"}, "Because", None) == (
        type(error),
        error.code,
        error.details,
        error.cause,
        error.suggestion,
    )
    assert "loadModel: No. Because" == str(error)


@pytest.mark.parametrize(
    ("wire", "title", "code"),
    [
        (None, "Unknown error", None),
        ("text", "Unknown error", None),
        ([], "Unknown error", None),
        ({}, "Unknown error", None),
        ({"title": 3, "cause": [], "displayData": "x"}, "Unknown error", None),
        ({"title": "T", "displayData": {"code": 7}}, "T", None),
        ({"title": "T", "displayData": {"code": "new.code"}}, "T", "new.code"),
        ({"title": "T", "displayData": [], "errorData": [1]}, "T", None),
    ],
)
def test_any_error_object_is_accepted(wire, title, code):
    """Whatever the server sends as an error becomes a `LMStudioServerError`."""
    error = LMStudioServerError.from_wire("predict", wire)
    assert (LMStudioServerError, title, code) == (type(error), error.title, error.code)


def test_a_known_kind_keeps_its_class():
    """Without a code the class that was asked for is made."""
    error = LMStudioPredictionError.from_wire("predict", {"title": "T"})
    assert LMStudioPredictionError is type(error)


def test_errors_of_one_input():
    """Of several inputs the error says which one, and stays what it was."""
    error = LMStudioModelNotFoundError(*SERVER)
    third = error.of_input(2)

    assert (LMStudioModelNotFoundError, 2) == (type(third), third.index)
    assert f"input 2: {SERVER_TEXT}" == str(third) == third.args[0]
    assert (None, SERVER_TEXT) == (error.index, str(error))


def test_values_are_cut():
    """A long value is cut to 200 characters, its end marked."""
    assert "'x'" == shown("x")
    assert (200, "…") == (len(shown("x" * 500)), shown("x" * 500)[-1])


def test_values_without_a_repr():
    """A value whose `repr` fails is named by its type."""

    class Odd:
        def __repr__(self):
            raise ZeroDivisionError

    assert "<Odd>" == shown(Odd())


def test_long_texts_are_cut_in_messages_only():
    """The field of an error keeps what its sentence cuts."""
    error = LMStudioOutputError("x" * 500, "eosFound", "no JSON")
    assert 500 == len(error.content)
    assert len(str(error)) < 300
