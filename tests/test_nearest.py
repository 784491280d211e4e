"""Unknown names: what was meant, and where a thing is found."""

from __future__ import annotations

import pytest

from lmstudio.nearest import ELSEWHERE, Asked, meant, nearest
from lmstudio.wire.config import LOAD, PREDICTION

KNOWN = ["timeout", "tools", "temperature", "context_prefill", "context_length"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("time_out", "timeout"),
        ("Tools", "tools"),
        ("temp", "temperature"),
        ("tem", None),
        ("context", None),
        ("contextLenght", "context_length"),
        ("verbose", None),
        ("", None),
    ],
)
def test_nearest(name, expected):
    """A name is near when it is much the same, or the beginning of one name only."""
    assert expected == nearest(name, KNOWN)


def test_what_is_said():
    """The end of the message: a name, a sentence, or nothing."""
    assert "; did you mean 'tools'?" == meant("tool", KNOWN)
    assert "; did you mean 'x'?" == meant("tool", {"tools": "x"})
    assert meant("stream", KNOWN, "prediction").startswith("; predictions always str")
    assert "; did you mean 'max_tokens'?" == meant("numPredict", KNOWN, "prediction")
    assert "" == meant(7, KNOWN)


@pytest.mark.parametrize(
    ("kind", "table"), [("prediction", PREDICTION), ("load", LOAD)]
)
def test_names_of_other_libraries(kind, table):
    """They lead to names that exist, or a sentence; none of them is a name itself."""
    own = {"load": ("gpu", "ttl")}.get(kind, ())
    for name, there in ELSEWHERE[kind].items():
        assert table.find(name) is None
        assert " " in there or there in own or table.find(there) is not None, name


def test_a_call_refuses_what_it_does_not_take():
    """The error names the call, the keyword, and the one that was meant."""

    def look(path, *more, deep=False, **options):
        """Has arguments."""

    asked = Asked(look, ["hidden"])
    assert ["path", "deep", "hidden"] == asked.names()
    asked.refuse({})
    with pytest.raises(TypeError) as caught:
        asked.refuse({"deeep": 1})
    assert "look() takes no 'deeep'; did you mean 'deep'?" == str(caught.value)
