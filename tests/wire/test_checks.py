"""Each check takes what is right, and says what would be right of the rest."""

from __future__ import annotations

import math
from enum import Enum
from fractions import Fraction

import pytest

from ids import stable
from lmstudio.wire import checks

PERCENT = checks.number(0, 1)
POSITIVE = checks.number(0)
ANY = checks.number()
DIGIT = checks.integer(0, 9)
COUNT = checks.integer(1)
WHOLE = checks.integer()
POLICY = checks.choice("stopAtLimit", "q8_0", "f16")
PAIRS = "pairs of a token id and a number or '-inf'"
HUGE = 10**400
DEEP: dict[str, object] = {}
for _ in range(checks.MOST_DEEP + 1):
    DEEP = {"a": DEEP}


def test_numbers_of_servers():
    """What is too large for a float is infinite, as `1e400` in JSON is."""
    numbers = (1, 0.5, HUGE, -HUGE)
    assert [1.0, 0.5, math.inf, -math.inf] == [checks.as_float(n) for n in numbers]


class Policy(Enum):
    """An option's values as constants."""

    STOP = "stopAtLimit"


@pytest.mark.parametrize(
    ("check", "value", "expected"),
    [
        (PERCENT, 0, 0),
        (PERCENT, 1.0, 1.0),
        (POSITIVE, 5, 5),
        (ANY, -5.5, -5.5),
        (ANY, 10, 10),
        (ANY, Fraction(1, 2), 0.5),
        (DIGIT, 0, 0),
        (DIGIT, 9.0, 9),
        (COUNT, 2**53, 2**53),
        (WHOLE, -3, -3),
        (checks.boolean, True, True),
        (checks.boolean, False, False),
        (checks.string, "", ""),
        (checks.string, "ä", "ä"),
        (checks.strings, "one", ["one"]),
        (checks.strings, ("a", "b"), ["a", "b"]),
        (checks.strings, [], []),
        (POLICY, "stopAtLimit", "stopAtLimit"),
        (POLICY, "stop_at_limit", "stopAtLimit"),
        (POLICY, "STOPATLIMIT", "stopAtLimit"),
        (POLICY, "Q8_0", "q8_0"),
        (POLICY, "F16", "f16"),
        (checks.ratio, 0, 0),
        (checks.ratio, 0.5, 0.5),
        (checks.ratio, "max", "max"),
        (checks.ratio, "off", "off"),
        (checks.ratio, False, "off"),
        (checks.mapping, {"a": 1}, {"a": 1}),
        (POLICY, Policy.STOP, "stopAtLimit"),
        (checks.one_of(0, 8), 8.0, 8),
        (checks.json_value, {"a": (1, None, True)}, {"a": [1, None, True]}),
        (checks.json_value, [2**64, 0.5, Policy.STOP], [2**64, 0.5, "stopAtLimit"]),
        (checks.texts_by_name, {"A": "b"}, {"A": "b"}),
        (checks.logit_bias, {5: -1.5, 6: "-inf"}, [[5, -1.5], [6, "-inf"]]),
        (checks.logit_bias, [(5, 1)], [[5, 1]]),
        (checks.logit_bias, [(5, -math.inf)], [[5, "-inf"]]),
        (checks.logit_bias, {"5": 1}, [[5, 1]]),
        (checks.logit_bias, [], []),
    ],
    ids=stable,
)
def test_right_values(check, value, expected):
    """A right value comes back in its wire form, and of the right type."""
    found = check(value)
    assert expected == found
    assert type(expected) is type(found)


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (
            PERCENT,
            "a number from 0 to 1",
            [1.1, -0.1, "0.5", None, True, math.nan, math.inf, 1j, HUGE],
        ),
        (POSITIVE, "a number of at least 0", [-1, math.inf]),
        (POSITIVE, "a number that fits in 53 bits", [HUGE, -HUGE]),
        (COUNT, "a whole number that fits in 53 bits", [HUGE, 2**53 + 1]),
        (ANY, "a number", ["x", math.nan, [1]]),
        (DIGIT, "a whole number from 0 to 9", [10, -1, 1.5, "1", True, math.inf]),
        (COUNT, "a whole number of at least 1", [0, math.nan, None]),
        (WHOLE, "a whole number", [0.5]),
        (checks.boolean, "True or False", [0, 1, "true", None]),
        (checks.string, "a string", [5, b"x", None]),
        (checks.string, "a string without lone surrogates", ["\ud800"]),
        (
            checks.strings,
            "a list of non-empty strings",
            [5, b"x", bytearray(b"x"), {"a"}, [""], "", ["a", 5], ["\udfff"], None],
        ),
        (POLICY, "one of 'stopAtLimit', 'q8_0', 'f16'", ["stop", "", 5, None]),
        (
            checks.ratio,
            "a number from 0 to 1, 'max' or 'off'",
            [1.1, -1, "on", "", True, None, ["max"]],
        ),
        (checks.mapping, "a mapping with string keys", [[], "x", {1: 2}, None]),
        (checks.one_of(8, 6), "one of 8, 6", [7, 6.5, "8", True, None, HUGE]),
        (checks.json_value, f"nested at most {checks.MOST_DEEP} deep", [DEEP]),
        (checks.mapping, f"nested at most {checks.MOST_DEEP} deep", [DEEP]),
        (checks.json_value, "a string without lone surrogates", [{"\ud800": 1}]),
        (
            checks.json_value,
            "JSON: texts, finite numbers, True, False, None, lists, mappings",
            [{"a": math.nan}, [math.inf], {"a": b""}, [{1}], object(), HUGE, 1j],
        ),
        (
            checks.texts_by_name,
            "a mapping of names to texts",
            [5, {"A": 1}, {1: "b"}, {"A": "\ud800"}],
        ),
        (
            checks.logit_bias,
            PAIRS,
            [
                5,
                "text",
                [5],
                [(1, 2, 3)],
                [("five", 1)],
                [(-1, 1)],
                {5},
                [(True, 1)],
                [(5, True)],
                [(5, "inf")],
                [(5, math.inf)],
                [(5, math.nan)],
                {"-5": 1},
                None,
            ],
        ),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_wrong_values(check, right, wrong):
    """A wrong value is refused with what would be right."""
    for value in wrong:
        with pytest.raises(ValueError) as caught:
            check(value)
        assert right == str(caught.value), value
