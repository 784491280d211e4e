"""The decorator that makes a class of the wire: frozen, by keywords, and quick to make.

attrs writes and compiles methods for each class, which takes half a millisecond; with
some fifty classes that is felt at ``import lmstudio``. All that need not differ between
classes is shared here instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

__all__ = ["camel", "model", "snake"]


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
    shown = [field.name for field in _fields(self) if field.repr]
    inside = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
    return f"{type(self).__name__}({inside})"


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
            made.__eq__, made.__hash__, made.__repr__ = _equal, _hash, _repr
            return made

        return make
