"""Checks of arguments that several calls take: callbacks, time limits, signals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import LMStudioTypeError, LMStudioValueError, shown
from .wire.checks import encodable


def checked_text(text: object, where: str) -> str:
    """A text that can be sent.

    Raises:
        LMStudioTypeError: It is no `str`.
        LMStudioValueError: It holds half of a surrogate pair.
    """
    if not isinstance(text, str):
        raise LMStudioTypeError(f"{where} must be text, not {shown(text)}")
    if not encodable(text):
        raise LMStudioValueError(
            f"{where} holds a lone surrogate, which no encoding has: {shown(text)}"
        )
    return str(text)


def checked_texts(texts: object, what: str) -> list[str]:
    """Several texts, all of them checked.

    Raises:
        LMStudioTypeError: It is nothing to iterate over, or an item is no `str`.
        LMStudioValueError: A text holds half of a surrogate pair.
    """
    is_wrong = isinstance(texts, (bytes, bytearray, Mapping))
    if is_wrong or not isinstance(texts, Iterable):
        raise LMStudioTypeError(f"{what} takes a text or several, not {shown(texts)}")
    return [checked_text(text, f"text {n}") for n, text in enumerate(texts)]


def checked_name(given: object, what: str) -> str:
    """A name as the protocol allows it: 1 to 1024 characters, none of them control.

    Raises:
        LMStudioValueError: It is none.
    """
    text = checked_text(given, what)
    if not 0 < len(text) <= 1024 or any(ord(c) < 32 for c in text):
        raise LMStudioValueError(
            f"{what} must be 1 to 1024 characters without control characters,"
            f" not {shown(text)}"
        )
    return text


def checked_flag(value: object, name: str) -> bool:
    """True or False, nothing that merely counts as such.

    Raises:
        LMStudioTypeError: It is something else.
    """
    if not isinstance(value, bool):
        raise LMStudioTypeError(f"{name} must be True or False, not {shown(value)}")
    return value


def checked_seconds(value: object, name: str, *, zero: bool = False) -> float | None:
    """A time limit: seconds above 0, or None for no limit.

    Args:
        zero: Whether 0 is one as well.

    Raises:
        LMStudioTypeError: It is no number.
        LMStudioValueError: It is not above 0.
    """
    if value is None:
        return None
    least = "from 0" if zero else "above 0"
    right = f"{name} must be a number of seconds {least}, or None, not {shown(value)}"
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise LMStudioTypeError(right)
    try:
        seconds = float(value)
    except OverflowError:
        raise LMStudioValueError(right) from None
    if math.isnan(seconds) or seconds < 0 or (seconds == 0 and not zero):
        raise LMStudioValueError(right)
    return seconds


def checked_callback(
    value: Any, name: str, *, takes: int | None = None, needed: bool = False
) -> Any:
    """A function, or None.

    Args:
        takes: With how many arguments it will be called; None doesn't look.
        needed: Whether None is refused as well.

    Raises:
        LMStudioTypeError: It can't be called, or not with so many.
    """
    if value is None and not needed:
        return None
    if not callable(value):
        raise LMStudioTypeError(f"{name} must be a function, not {shown(value)}")
    if takes is None:
        return value
    import inspect

    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # some of C have none
        return value
    try:
        signature.bind(*(None,) * takes)
    except TypeError as exc:
        count = ("no argument", "one argument", "two arguments")[takes]
        raise LMStudioTypeError(
            f"{name} must be a function of {count}, and {shown(value)} is not: {exc}"
        ) from None
    return value


def checked_count(value: object, name: str) -> int | None:
    """A whole number above 0, or None.

    Raises:
        LMStudioTypeError: It is no whole number.
        LMStudioValueError: It is not above 0.
    """
    if value is None:
        return None
    right = f"{name} must be a whole number above 0, or None, not {shown(value)}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise LMStudioTypeError(right)
    if value < 1:
        raise LMStudioValueError(right)
    return value


def checked_signal(value: Any) -> Any:
    """Something with ``is_set``, or None.

    Raises:
        LMStudioTypeError: It has none.
    """
    if value is not None and not callable(getattr(value, "is_set", None)):
        raise LMStudioTypeError(
            f"signal must be a Signal or a threading.Event, not {shown(value)}"
        )
    return value
