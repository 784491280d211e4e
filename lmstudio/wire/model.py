"""The decorator that makes a class of the wire: frozen, by keywords, and quick to make.

attrs writes and compiles methods for each class, which takes half a millisecond; with
some fifty classes that is felt at ``import lmstudio``. All that need not differ between
classes is shared here instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from ..errors import shown

__all__ = ["TAGGED", "Plain", "camel", "model", "snake", "tagged"]


def camel(name: str) -> str:
    """The camelCase form of a snake_case name."""
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def snake(name: str) -> str:
    """The snake_case form of a camelCase name."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)


def _fields(self: Any) -> tuple[attrs.Attribute[Any], ...]:
    fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(type(self))
    return fields


def _equal(self: Any, other: object) -> Any:
    if type(other) is not type(self):
        return NotImplemented
    compared = [field.name for field in _fields(self) if field.eq]
    return all(getattr(self, name) == getattr(other, name) for name in compared)


def _hash(self: Any) -> int:
    compared = [field.name for field in _fields(self) if field.eq]
    return hash((type(self), *(getattr(self, name) for name in compared)))


def _repr(self: Any) -> str:
    values = ((field, getattr(self, field.name)) for field in _fields(self))
    inside = ", ".join(
        f"{field.name}={shown(value)}"
        for field, value in values
        # What is None by default was not said, and would only be in the way.
        if field.repr and not (value is None and field.default is None)
    )
    return f"{type(self).__name__}({inside})"


#: Unions that `tagged` names -> their field, the classes of its values, and the class
#: for others. The converter reads them from here: it takes long to import.
TAGGED: dict[Any, tuple[str, Mapping[str, type], type | None]] = {}


def tagged(
    union: Any, field: str, variants: Mapping[str, type], other: type | None = None
) -> None:
    """Have the members of a union told apart by a field.

    Args:
        union: The union type as annotations name it.
        field: The field that tells, such as ``"type"``.
        variants: Its values and their classes.
        other: Class for unknown values, made from the whole object; without it an
            unknown value is an error.
    """
    TAGGED[union] = (field, variants, other)


class Plain:
    """What can be written as plain JSON values."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """All fields under their own names, as JSON has them.

        What was not said is None. `raw` is left out.
        """
        names = [field.name for field in _fields(self)]
        return {
            name: _as_json(getattr(self, name))
            for name in names
            if name != "raw" and not name.startswith("_")
        }

    def _repr_html_(self) -> str:
        from ..html import table

        rows = [(n, v) for n, v in self.to_dict().items() if v is not None]
        return table((type(self).__name__, ""), rows, len(rows))


def _as_json(value: Any) -> Any:
    if isinstance(value, Plain):
        return value.to_dict()
    if isinstance(value, (list, tuple)):
        return [_as_json(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


if TYPE_CHECKING:
    # For type checkers it is what it stands for.
    from attrs import frozen as model
else:

    def model(*, kw_only):
        """Make an attrs class that is frozen and compared by its fields.

        The same as ``attrs.frozen(kw_only=...)`` for everyone who uses it.
        """

        def make(cls):
            made = attrs.frozen(cls, kw_only=kw_only, eq=False, repr=False)
            made.__eq__, made.__hash__ = _equal, _hash
            if "__repr__" not in vars(cls):
                made.__repr__ = _repr
            return made

        return make
