"""Checks of one option's value; each returns the value or says what would be right."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

#: Takes a value, returns it in its wire form. Raises ValueError with what would be
#: right, such as ``"a number from 0 to 1"``.
Check = Callable[[Any], Any]


def _is_number(value: Any) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool)
    return isinstance(value, float) and math.isfinite(value)


def _span(kind: str, low: float | None, high: float | None) -> str:
    if low is None:
        return kind
    if high is None:
        return f"{kind} of at least {low:g}"
    return f"{kind} from {low:g} to {high:g}"


def number(low: float | None = None, high: float | None = None) -> Check:
    """A finite number between two limits, both allowed."""

    def check(value: Any) -> Any:
        if not _is_number(value) or not _between(value, low, high):
            raise ValueError(_span("a number", low, high))
        return value

    return check


def integer(low: int | None = None, high: int | None = None) -> Check:
    """A whole number between two limits, both allowed; 3.0 counts as 3."""

    def check(value: Any) -> Any:
        whole = _is_number(value) and value == value // 1
        if not whole or not _between(value, low, high):
            raise ValueError(_span("a whole number", low, high))
        return int(value)

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
        if isinstance(value, str) and _folded(value) in by_folded:
            return by_folded[_folded(value)]
        raise ValueError("one of " + ", ".join(map(repr, names)))

    return check


def _folded(name: str) -> str:
    return name.replace("_", "").lower()


def ratio(value: Any) -> Any:
    """A share from 0 to 1, ``"max"`` or ``"off"``; False counts as off."""
    if value is False:
        return "off"
    if isinstance(value, str) and value in ("max", "off"):
        return value
    if _is_number(value) and 0 <= value <= 1:
        return value
    raise ValueError("a number from 0 to 1, 'max' or 'off'")


def mapping(value: Any) -> Any:
    """An object with string keys."""
    if not isinstance(value, Mapping) or not all(isinstance(k, str) for k in value):
        raise ValueError("a mapping with string keys")
    return dict(value)


def tool_choice(value: Any) -> Any:
    """How free a model is to call tools: a mode, or the whole setting."""
    if isinstance(value, str) and value in ("none", "auto", "required"):
        return {"type": "generic", "mode": value}
    try:
        return mapping(value)
    except ValueError:
        raise ValueError("'none', 'auto', 'required', or a mapping") from None


def logit_bias(value: Any) -> Any:
    """Pairs of a token and a number or ``"-inf"``; a mapping counts as pairs."""
    pairs = list(value.items()) if isinstance(value, Mapping) else value
    try:
        made = [[token, bias] for token, bias in pairs]
    except (TypeError, ValueError):
        made = [[None, None]]
    for token, bias in made:
        if isinstance(token, bool) or not isinstance(token, int):
            raise ValueError("pairs of a token id and a number or '-inf'")
        if bias not in ("-inf", -math.inf) and not _is_number(bias):
            raise ValueError("pairs of a token id and a number or '-inf'")
    return [[token, "-inf" if bias == -math.inf else bias] for token, bias in made]


def encodable(text: str) -> bool:
    """Whether a text has a UTF-8 form: no half of a surrogate pair stands alone."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
