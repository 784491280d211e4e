"""Checks of one option's value; each returns the value or says what would be right."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from numbers import Integral, Real
from typing import Any

#: Takes a value, returns it in its wire form. Raises ValueError with what would be
#: right, such as ``"a number from 0 to 1"``.
Check = Callable[[Any], Any]

#: Values that are objects may hold others so deep, and whole numbers be so large:
#: beyond that, other languages read another number.
MOST_DEEP, MOST = 100, 2**53
_LARGEST = sys.float_info.max


def as_float(value: int | float) -> float:
    """A number that came from a server, as a float.

    It is infinite where no float is so large, as JSON's ``1e400`` is anyway.
    """
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _plain_number(value: Any) -> int | float | None:
    """A finite number as one of Python's own types; None for anything else.

    Those of NumPy count as well.
    """
    if type(value) is float:  # nearly always, and the rest takes longer
        return value if math.isfinite(value) else None
    if isinstance(value, bool):
        return None
    if isinstance(value, Integral):
        return whole if -MOST <= (whole := int(value)) <= MOST else None
    if isinstance(value, Real):
        try:
            plain = float(value)
        except (OverflowError, ValueError):
            return None
        return plain if math.isfinite(plain) else None
    return None


def _span(kind: str, low: float | None, high: float | None, value: Any) -> str:
    if high is None and isinstance(value, int) and abs(value) > MOST:
        return f"{kind} that fits in 53 bits"
    if low is None:
        return kind
    if high is None:
        return f"{kind} of at least {low:g}"
    return f"{kind} from {low:g} to {high:g}"


def number(low: float | None = None, high: float | None = None) -> Check:
    """A finite number between two limits, both allowed."""

    def check(value: Any) -> Any:
        plain = _plain_number(value)
        if plain is None or not _between(plain, low, high):
            raise ValueError(_span("a number", low, high, value))
        return plain

    return check


def integer(low: int | None = None, high: int | None = None) -> Check:
    """A whole number between two limits, both allowed; 3.0 counts as 3."""

    def check(value: Any) -> Any:
        plain = _plain_number(value)
        whole = plain is not None and plain == plain // 1
        if plain is None or not whole or not _between(plain, low, high):
            raise ValueError(_span("a whole number", low, high, value))
        return int(plain)

    return check


def _between(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def boolean(value: Any) -> Any:
    """True or False, nothing that merely counts as such."""
    if not isinstance(value, bool):
        raise ValueError("True or False")
    return value


def string(value: Any) -> Any:
    """Text that can be encoded."""
    if not isinstance(value, str):
        raise ValueError("a string")
    if not encodable(value):
        raise ValueError("a string without lone surrogates")
    return value


def strings(value: Any) -> Any:
    """A list of non-empty texts; a single text counts as a list of one."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, Sequence) or isinstance(value, (bytes, bytearray)):
        raise ValueError("a list of non-empty strings")
    for item in value:
        if not isinstance(item, str) or not item or not encodable(item):
            raise ValueError("a list of non-empty strings")
    return list(value)


def choice(*names: str) -> Check:
    """One of a few names; snake_case counts as camelCase."""
    by_folded = {_folded(name): name for name in names}

    def check(value: Any) -> Any:
        if isinstance(value, Enum):
            value = value.value
        if isinstance(value, str) and _folded(value) in by_folded:
            return by_folded[_folded(value)]
        raise ValueError("one of " + ", ".join(map(repr, names)))

    return check


def one_of(*numbers: int) -> Check:
    """One of a few whole numbers."""

    def check(value: Any) -> Any:
        plain = _plain_number(value)
        if plain not in numbers:
            raise ValueError("one of " + ", ".join(map(str, numbers)))
        return numbers[numbers.index(int(plain or 0))]

    return check


def _folded(name: str) -> str:
    return name.replace("_", "").lower()


def ratio(value: Any) -> Any:
    """A share from 0 to 1, ``"max"`` or ``"off"``; False counts as off."""
    if value is False:
        return "off"
    if isinstance(value, str) and value in ("max", "off"):
        return value
    plain = _plain_number(value)
    if plain is not None and 0 <= plain <= 1:
        return plain
    raise ValueError("a number from 0 to 1, 'max' or 'off'")


def mapping(value: Any) -> Any:
    """An object with string keys, of nothing but JSON."""
    if not isinstance(value, Mapping) or not all(isinstance(k, str) for k in value):
        raise ValueError("a mapping with string keys")
    return json_value(value)


def texts_by_name(value: Any) -> Any:
    """An object of texts."""
    right = "a mapping of names to texts"
    if not isinstance(value, Mapping):
        raise ValueError(right)
    try:
        return {string(name): string(text) for name, text in value.items()}
    except ValueError:
        raise ValueError(right) from None


def json_value(value: Any, depth: int = MOST_DEEP) -> Any:
    """What JSON can say, as a copy of plain types."""
    if depth < 0:
        raise ValueError(f"nested at most {MOST_DEEP} deep")
    if isinstance(value, Enum):
        return json_value(value.value, depth)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return string(value)
    if isinstance(value, Integral):  # schemas have limits such as 2**64
        if abs(whole := int(value)) <= _LARGEST:
            return whole
    elif (plain := _plain_number(value)) is not None:
        return plain
    if isinstance(value, Mapping):
        return {string(k): json_value(v, depth - 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(item, depth - 1) for item in value]
    raise ValueError("JSON: texts, finite numbers, True, False, None, lists, mappings")


def logit_bias(value: Any) -> Any:
    """Pairs of a token and a number or ``"-inf"``; a mapping counts as pairs."""
    right = "pairs of a token id and a number or '-inf'"
    pairs = list(value.items()) if isinstance(value, Mapping) else value
    if not isinstance(pairs, (list, tuple)):
        raise ValueError(right)
    made: list[list[Any]] = []
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise ValueError(right)
        token, bias = pair
        if isinstance(token, str) and token.isdecimal():  # OpenAI's keys are texts
            token = int(token)
        token = _plain_number(token)
        is_never = isinstance(bias, (str, float)) and bias in ("-inf", -math.inf)
        plain = "-inf" if is_never else _plain_number(bias)
        if not isinstance(token, int) or token < 0 or plain is None:
            raise ValueError(right)
        made.append([token, plain])
    return made


def encodable(text: str) -> bool:
    """Whether a text has a UTF-8 form: no half of a surrogate pair stands alone."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
