"""The walk over a type that makes its JSON schema, and what reads JSON as it.

One walk makes both, so that they can't disagree.
"""

from __future__ import annotations

import enum
import math
import re
import types
import typing
from collections import abc
from collections.abc import Mapping
from functools import partial
from typing import Any

from ..errors import LMStudioTypeError, shown
from .fields import ClassField, described, fields_of, is_typed_dict
from .foreign import own_reader, own_schema
from .hints import constrained, plain
from .reading import make_instance, read_at, read_each, read_fields, read_values
from .references import PREFIX, moved, references
from .scalars import (
    SCALARS,
    Read,
    Schema,
    Shape,
    as_it_is,
    is_enumeration,
    of_enumeration,
    of_literal,
)
from .unions import Member, read_member, undecidable

_SUPPORTED = (
    "supported are attrs classes, dataclasses, TypedDict, NamedTuple, pydantic models,"
    " msgspec Structs, Enum, Literal, unions, list, tuple, set, dict with str as keys,"
    " str, int, float, bool, None, date, datetime, time, UUID, Decimal and Any"
)

#: Generic types that are arrays with items of one type, and what is made of them.
_ARRAYS: dict[Any, type] = {
    list: list,
    abc.Sequence: list,
    abc.MutableSequence: list,
    abc.Collection: list,
    abc.Iterable: list,
    set: set,
    abc.Set: set,
    abc.MutableSet: set,
    frozenset: frozenset,
}
_OBJECTS = (dict, abc.Mapping, abc.MutableMapping)


def shape_of(kind: Any) -> Shape:
    """The JSON schema of a type, and what makes instances of JSON that obeys it.

    Args:
        kind: A type as a type hint has it. Texts in ``Annotated`` are descriptions,
            mappings in it keywords of JSON schema.

    Returns:
        A shape whose `read` raises `Misfit` when a value obeys the schema and is
        refused nevertheless: a date that does not exist, or by the class itself.

    Raises:
        LMStudioTypeError: A part of the type has no JSON form; the error says where.
    """
    walk = _Walk()
    shape = walk.shape(kind, name_of(kind))
    walk.check_unions()
    return Shape(walk.whole(shape.schema), partial(read_at, "", shape.read))


def name_of(kind: Any) -> str:
    """A type as people write it, without the modules."""
    if typing.get_origin(kind) is None and isinstance(kind, type):
        return kind.__name__
    text = re.sub(r"\b([A-Za-z_]\w*\.)+(<locals>\.)?(?=\w)", "", shown(kind))
    return text if len(text) <= 100 else f"{text[:99]}…"


class _Walk:
    """One walk over a type. Classes become ``$defs``, so that they may be recursive."""

    def __init__(self) -> None:
        self._definitions: dict[str, Any] = {}
        self._readers: dict[str, Read] = {}
        self._named: list[tuple[Any, str]] = []  # not all types can be keys
        self._unions: list[tuple[str, list[Member]]] = []

    def whole(self, schema: Schema) -> Schema:
        """The schema of the top, with the definitions that it needs."""
        reference = schema.get("$ref")
        if reference is not None and reference not in references(self._definitions):
            rest = {key: part for key, part in schema.items() if key != "$ref"}
            schema = {**self._definitions.pop(reference.removeprefix(PREFIX)), **rest}
        return {**schema, "$defs": self._definitions} if self._definitions else schema

    def check_unions(self) -> None:
        """Refuse unions of classes that JSON can't tell apart.

        At the end: a class may be in a union that is one of its own fields.
        """
        for path, members in self._unions:
            schemas = [member.shape.schema for member in members]
            if pair := undecidable(schemas, self._definitions):
                first, second = (members[index].name for index in pair)
                raise LMStudioTypeError(
                    f"{path}: the same JSON may be {first} and {second};"
                    " give each a required field that the other does not have, or one"
                    ' with different Literals, such as kind: Literal["a"]'
                )

    def shape(self, kind: Any, path: str) -> Shape:
        """The shape of a type; `path` is where it stands."""
        hint = plain(kind)
        made = self._of_type(hint.kind, path)
        schema = constrained(made.schema, hint, path)
        if hint.description is not None:
            schema = {**schema, "description": hint.description}
        return Shape(schema, made.read)

    def _of_type(self, kind: Any, path: str) -> Shape:
        if kind is Any:
            return Shape({}, as_it_is)
        if kind is None:
            return SCALARS[type(None)]
        for known, name in self._named:
            if known is kind or known == kind:
                return self._named_shape(name)
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin is typing.Literal:
            return of_literal(kind, path)
        if origin in (typing.Union, types.UnionType):
            return self._union(arguments, path)
        if type(kind).__name__ == "TypeAliasType":  # `type X = ...` of Python 3.12
            name = self._new_name(kind)
            target = self.shape(kind.__value__, path)
            self._definitions[name] = target.schema
            self._readers[name] = target.read
            return self._named_shape(name)
        cls = origin or kind
        if not isinstance(cls, type):
            raise _unsupported(kind, path)
        if cls in SCALARS:
            return SCALARS[cls]
        if is_enumeration(cls):
            return of_enumeration(cls, path)
        if cls is tuple:
            is_bare = kind in (tuple, typing.Tuple)  # noqa: UP006
            return self._tuple((Any, ...) if is_bare else arguments, path)
        if cls in _ARRAYS:
            return self._array(_ARRAYS[cls], (*arguments, Any)[0], path)
        if cls in _OBJECTS:
            key, of = arguments or (str, Any)
            return self._dict(key, of, path)
        return self._foreign(kind, cls) or self._class(kind, cls, path)

    def _new_name(self, kind: Any) -> str:
        """A name for a type among the definitions, which it is known by from now on."""
        name = self._reserve(name_of(kind))
        self._named.append((kind, name))
        return name

    def _reserve(self, wish: str) -> str:
        wish = re.sub(r"\W+", "_", wish, flags=re.ASCII).strip("_") or "type"
        name, number = wish, 1
        while name in self._definitions:
            number += 1
            name = f"{wish}{number}"
        self._definitions[name] = {}  # keeps the place
        return name

    def _named_shape(self, name: str) -> Shape:
        # The reader is looked up late: it is made after what it is made of.
        return Shape({"$ref": PREFIX + name}, lambda value: self._readers[name](value))

    def _array(self, make: type, of: Any, path: str) -> Shape:
        items = self.shape(of, f"{path}[]")
        if make in (set, frozenset) and _is_unhashable(of):
            raise LMStudioTypeError(
                f"{path}: a {make.__name__} can't hold {name_of(of)}, which can change;"
                " use a list, or a frozen class"
            )
        # Sets don't ask for unique items: no grammar can hold a model to that.
        schema = {"type": "array", "items": items.schema}
        return Shape(schema, lambda found: make(read_each(items.read, found)))

    def _tuple(self, arguments: tuple[Any, ...], path: str) -> Shape:
        if arguments[1:] == (...,):
            return self._array(tuple, arguments[0], path)
        if arguments == ((),):  # tuple[()] on Python 3.10
            arguments = ()
        parts = [self.shape(of, f"{path}[{i}]") for i, of in enumerate(arguments)]
        reads = [partial(read_at, f"[{i}]", p.read) for i, p in enumerate(parts)]
        schema: Schema = {"type": "array"}
        if parts:
            schema["prefixItems"] = [part.schema for part in parts]
        schema.update(minItems=len(parts), maxItems=len(parts))

        def read_tuple(found: Any) -> Any:
            return tuple(read(value) for read, value in zip(reads, found, strict=True))

        return Shape(schema, read_tuple)

    def _dict(self, key: Any, of: Any, path: str) -> Shape:
        if plain(key).kind is not str:
            raise LMStudioTypeError(
                f"{path}: keys must be str, as JSON has them, not {name_of(key)}"
            )
        values = self.shape(of, f"{path}[...]")
        schema = {"type": "object", "additionalProperties": values.schema}
        return Shape(schema, partial(read_values, values.read))

    def _union(self, kinds: tuple[Any, ...], path: str) -> Shape:
        members = [Member(name_of(kind), self.shape(kind, path)) for kind in kinds]
        self._unions.append((path, members))
        schema = {"anyOf": [member.shape.schema for member in members]}
        return Shape(schema, partial(read_member, members, self._definitions))

    def _foreign(self, kind: Any, cls: Any) -> Shape | None:
        """A class that brings its own schema."""
        schema = own_schema(cls)
        if schema is None:
            return None
        read = own_reader(cls)
        if read is None:
            # Of the class's own fields only the reader is of use.
            has_fields = fields_of(kind) is not None
            read = _Walk()._class(kind, cls, "").read if has_fields else as_it_is
        name = self._adopted(schema, name_of(kind))
        self._named.append((kind, name))
        self._readers[name] = partial(make_instance, name_of(kind), read)
        return self._named_shape(name)

    def _adopted(self, schema: Schema, name: str) -> str:
        """Put a schema of another library among ours; returns its name there."""
        groups = ("$defs", "definitions")
        rest = {key: part for key, part in schema.items() if key not in groups}
        is_one_of_its_own = set(rest) == {"$ref"}  # as recursive models write it
        if not is_one_of_its_own:
            name = self._reserve(name)
        parts = {
            f"#/{group}/{inner}": part
            for group in groups
            for inner, part in schema.get(group, {}).items()
        }
        names = {old: self._reserve(old.rpartition("/")[2]) for old in parts}
        moves = {old: PREFIX + new for old, new in names.items()}
        if is_one_of_its_own:
            name = str(moved(rest, moves)["$ref"]).removeprefix(PREFIX)
        else:
            moves["#"] = PREFIX + name
            self._definitions[name] = moved(rest, moves)
        for old, part in parts.items():
            self._definitions[names[old]] = moved(part, moves)
        return name

    def _class(self, kind: Any, cls: Any, path: str) -> Shape:
        """A class that is read by its fields."""
        fields = fields_of(kind)
        if fields is None:
            raise _unsupported(kind, path)
        name = self._new_name(kind)
        shapes = {f.name: self.shape(f.hint, f"{path}.{f.name}") for f in fields}
        self._definitions[name] = _object(kind, cls, fields, shapes)
        reads = {name: shape.read for name, shape in shapes.items()}
        if is_typed_dict(cls):
            self._readers[name] = partial(read_fields, reads)
        else:
            make = partial(_instance, cls, reads)
            self._readers[name] = partial(make_instance, name_of(kind), make)
        return self._named_shape(name)


def _instance(cls: Any, reads: Mapping[str, Read], found: Mapping[str, Any]) -> Any:
    return cls(**read_fields(reads, found))


def _object(
    kind: Any, cls: Any, fields: list[ClassField], shapes: dict[str, Shape]
) -> Schema:
    """The schema of a class with these fields and no others."""
    schema: Schema = {"title": name_of(kind)}
    if (description := described(cls)) is not None:
        schema["description"] = description
    properties = {}
    for field in fields:
        part = dict(shapes[field.name].schema)
        if field.description is not None:
            part["description"] = field.description
        part.update(_default(field.default))
        properties[field.name] = part
    schema.update({"type": "object", "properties": properties})
    schema["required"] = [field.name for field in fields if field.required]
    schema["additionalProperties"] = False
    return schema


def _default(value: Any) -> dict[str, Any]:
    """A default as JSON schema says it: only what looks the same in JSON."""
    if isinstance(value, enum.Enum):
        value = value.value
    if type(value) is float and not math.isfinite(value):
        return {}
    is_plain = value is None or type(value) in (str, int, float, bool)
    return {"default": value} if is_plain else {}


def _is_unhashable(kind: Any) -> bool:
    """Whether values of a type can't be in a set."""
    kind = plain(kind).kind
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return any(map(_is_unhashable, typing.get_args(kind)))
    cls = typing.get_origin(kind) or kind
    return isinstance(cls, type) and cls.__hash__ is None


def _unsupported(kind: Any, path: str) -> LMStudioTypeError:
    where = "" if path == name_of(kind) else f" at {path}"
    what, why = name_of(kind), "has no JSON form"
    if isinstance(kind, typing.TypeVar):
        why = "is a type variable; say what it stands for, such as Box[int]"
    elif isinstance(kind, typing.ForwardRef | str):
        why = "is only a name; pass the type itself"
    elif not isinstance(kind, type) and typing.get_origin(kind) is None:
        what = f"{shown(kind)} of type {type(kind).__name__}"
        why = "is no type; pass a type, such as a class, and no instance of it"
    return LMStudioTypeError(f"{what}{where} {why}; {_SUPPORTED}")
