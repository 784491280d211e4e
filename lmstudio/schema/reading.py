"""From JSON that obeys a schema to instances, and the error that says where not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .scalars import Read


class Misfit(ValueError):
    """JSON that obeys the schema of a type, and yet makes no instance.

    Attributes:
        path: Where, as ``.name`` and ``[index]`` from the top.
        reason: What is wrong there.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"${self.path}: {self.reason}"


def read_at(step: str, read: Read, value: Any) -> Any:
    """Read a value that is one step further down.

    Raises:
        Misfit: It makes no instance; the path begins with the step.
    """
    try:
        return read(value)
    except Misfit as exc:
        raise Misfit(step + exc.path, exc.reason) from exc.__cause__
    except Exception as exc:  # whatever a class of the user raises
        raise Misfit(step, str(exc) or type(exc).__name__) from exc


def make_instance(name: str, make: Read, value: Any) -> Any:
    """Call what makes an instance of a class of the user, or of another library.

    Raises:
        Misfit: It refuses the value, or a part of it does not fit.
    """
    try:
        return make(value)
    except Misfit:
        raise
    except Exception as exc:  # it may raise anything
        raise Misfit("", f"{name} refuses it: {exc}") from exc


def read_each(read: Read, values: Iterable[Any]) -> list[Any]:
    """Read items that are all of one type."""
    return [read_at(f"[{i}]", read, value) for i, value in enumerate(values)]


def read_values(read: Read, values: Mapping[str, Any]) -> dict[str, Any]:
    """Read what belongs to keys, all of one type."""
    return {name: read_at(f"[{name!r}]", read, value) for name, value in values.items()}


def read_fields(reads: Mapping[str, Read], values: Mapping[str, Any]) -> dict[str, Any]:
    """Read the fields of a class, each by its own reader."""
    return {
        name: read_at(f".{name}", reads[name], value) for name, value in values.items()
    }
