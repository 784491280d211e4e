"""Reads what a request holds into classes, and says where it is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import cattrs

from ...errors import shown
from ...wire.converter import converter
from .errors import RestError, wrong

T = TypeVar("T")

__all__ = ["body", "choose", "read", "refuse", "text"]

if TYPE_CHECKING:
    # For type checkers it is what it stands for.
    from attrs import frozen as body
else:

    def _as_named(_, fields):
        """Names on the wire are those of the fields: no camelCase here."""
        return [field.evolve(metadata={"wire": field.name}) for field in fields]

    def body(*, kw_only):
        """Make a class of a request: frozen, with the names that it has in JSON."""
        return attrs.frozen(kw_only=kw_only, field_transformer=_as_named)


#: What the converter says of a wrong value, and how a field's owner is told.
_RIGHT = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "a list": "a list",
    "an object": "an object",
}


def read(value: Any, kind: type[T], at: str = "") -> T:
    """Read parsed JSON as a type; fields that the type does not know are passed over.

    Args:
        at: Where the value is in the request, such as ``"messages[2]"``.

    Raises:
        RestError: The value does not fit; the error names the place.
    """
    try:
        made: T = converter.structure(value, kind)
        return made
    except Exception as exc:  # cattrs groups whatever the hooks raised
        problem, _, path = cattrs.transform_error(exc)[0].rpartition(" @ ")
        raise _refused(problem, at + path.removeprefix("$"), exc) from exc


def choose(value: str, right: Sequence[str], at: str) -> str:
    """One of a few words.

    Raises:
        RestError: It is none of them.
    """
    if value not in right:
        raise wrong(at, "one of " + ", ".join(map(repr, right)), shown(value))
    return value


def text(value: Any, at: str) -> str:
    """A string that has a UTF-8 form.

    Raises:
        RestError: It is none.
    """
    if not isinstance(value, str):
        raise wrong(at, "a string", shown(value))
    try:
        value.encode()
    except UnicodeEncodeError:
        raise wrong(at, "a string without lone surrogates", shown(value)) from None
    return value


def refuse(given: Mapping[str, Any], reasons: Mapping[str, str]) -> None:
    """Refuse what would change the answer and nobody here can do.

    Args:
        given: Fields and their values; None is not given.
        reasons: Fields, and what to do instead.

    Raises:
        RestError: One of them is given.
    """
    for name, instead in reasons.items():
        if given.get(name) is not None:
            raise RestError(
                f"{name}: this server does not support it",
                instead,
                code="unsupported_value",
                param=name,
            )


def _refused(problem: str, path: str, exc: BaseException) -> RestError:
    path = path.lstrip(".")
    if problem.startswith("required field missing"):
        return RestError(
            f"{path} is missing", code="missing_required_parameter", param=path
        )
    reason = _innermost(exc) or problem
    for word, right in _RIGHT.items():
        reason = reason.replace(f"expected {word},", f"must be {right},")
    where = path or "The request"
    return RestError(f"{where} {reason}", code="invalid_value", param=path or None)


def _innermost(exc: BaseException) -> str | None:
    inner = getattr(exc, "exceptions", None)
    if inner:
        return _innermost(inner[0])
    return str(exc) if isinstance(exc, ValueError) else None
