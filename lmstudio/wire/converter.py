"""The one converter between attrs classes and parsed JSON, and its hooks.

It ignores unknown keys, reads ``null`` as missing where something may be missing,
never writes None unless the wire asks for ``null``, and turns whatever does not fit
into `LMStudioProtocolError` with the path to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import GenericAlias, NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import attrs
import cattrs
from cattrs.cols import list_structure_factory
from cattrs.fns import identity
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from ..errors import LMStudioProtocolError, shown
from .model import TAGGED, camel

T = TypeVar("T")

converter = cattrs.Converter(detailed_validation=True, forbid_extra_keys=False)


def wire_name(field: attrs.Attribute[Any]) -> str:
    """The name of a field on the wire: camelCase, or what its metadata says."""
    name: str = field.metadata.get("wire", camel(field.name))
    return name


def _strict(kind: type, accepts: tuple[type, ...]) -> Callable[[Any, Any], Any]:
    """A reader for a basic type that refuses what Python would quietly convert."""

    def read(value: Any, _: Any) -> Any:
        is_bool_for_number = isinstance(value, bool) and kind is not bool
        if is_bool_for_number or not isinstance(value, accepts):
            raise ValueError(f"expected {kind.__name__}, not {shown(value)}")
        return value

    return read


def _read_int(value: Any, _: Any) -> int:
    # Python clients write some integers as 3.0. Source: docs/wire/messages.md.
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f"expected int, not {shown(value)}")


converter.register_structure_hook(str, _strict(str, (str,)))
converter.register_structure_hook(bool, _strict(bool, (bool,)))
converter.register_structure_hook(float, _strict(float, (int, float)))
converter.register_structure_hook(int, _read_int)


#: Items that need no look at each: embeddings have hundreds, and come by the thousand.
_PLAIN: dict[Any, set[type]] = {float: {float, int}, int: {int}}


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is list


def _list_reader(kind: Any) -> Callable[[Any, Any], Any]:
    """A reader for lists that refuses what Python would iterate over as well."""
    read = list_structure_factory(kind, converter)
    plain = _PLAIN.get(get_args(kind)[0], set())

    def read_list(value: Any, _: Any) -> Any:
        if not isinstance(value, list):
            raise ValueError(f"expected a list, not {shown(value)}")
        if plain and plain.issuperset(map(type, value)):
            return value
        return read(value, kind)

    return read_list


def _is_tuple(kind: Any) -> bool:
    """Whether it is a tuple of one type and any length: a list that stays as it is."""
    return get_origin(kind) is tuple and get_args(kind)[1:] == (Ellipsis,)


def _tuple_reader(kind: Any) -> Callable[[Any, Any], Any]:
    inner: Any = GenericAlias(list, get_args(kind)[:1])
    return lambda value, _: tuple(converter.structure(value, inner))


def _tuple_writer(kind: Any) -> Callable[[Any], list[Any]]:
    inner = GenericAlias(list, get_args(kind)[:1])
    return lambda value: list(converter.unstructure(value, inner))


def _reader(cls: type) -> Callable[[Any, Any], Any]:
    """A reader that knows wire names, and gives ``raw`` the object as it came."""
    fields = attrs.fields(cls)
    names = {f.name: override(rename=wire_name(f)) for f in fields}
    keeps_raw = "raw" in names
    if keeps_raw:
        names["raw"] = override(omit=True)
    build: Any = make_dict_structure_fn(cls, converter, **names)  # type: ignore[arg-type]  # overrides by field name
    optional = {wire_name(f) for f in fields if f.default is not attrs.NOTHING}

    def read(value: Any, kind: Any) -> Any:
        if type(value) is not dict and not isinstance(value, Mapping):
            raise ValueError(f"expected an object, not {shown(value)}")
        given: Mapping[Any, Any] = value
        if None in value.values():
            given = {
                key: item
                for key, item in value.items()
                if item is not None or key not in optional
            }
        made = build(given, kind)
        if keeps_raw:
            object.__setattr__(made, "raw", value)
        return made

    return read


def _writer(cls: type) -> Callable[[Any], dict[str, Any]]:
    """A writer that leaves None out, except where the wire wants ``null``."""
    fields = attrs.fields(cls)
    names = {
        f.name: override(rename=wire_name(f), omit=f.name == "raw" or None)
        for f in fields
    }
    build: Any = make_dict_unstructure_fn(cls, converter, **names)  # type: ignore[arg-type]  # overrides by field name
    optional = [wire_name(f) for f in fields if not f.metadata.get("null")]

    def write(value: Any) -> dict[str, Any]:
        made: dict[str, Any] = build(value)
        for name in optional:
            if name in made and made[name] is None:
                del made[name]
        return made

    return write


def _is_optional_basic(kind: Any) -> bool:
    """Whether it is a basic type or None: written as it stands, without a look."""
    return get_origin(kind) in (Union, UnionType) and _BASIC.issuperset(get_args(kind))


_BASIC = {str, bool, int, float, NoneType}

converter.register_unstructure_hook_factory(_is_optional_basic, lambda kind: identity)
converter.register_structure_hook_factory(_is_list, _list_reader)
converter.register_structure_hook_factory(_is_tuple, _tuple_reader)
converter.register_unstructure_hook_factory(_is_tuple, _tuple_writer)
converter.register_structure_hook_factory(attrs.has, _reader)
converter.register_unstructure_hook_factory(attrs.has, _writer)


def _tagged_reader(union: Any) -> Callable[[Any, Any], Any]:
    """A reader for a union whose members are told apart by a field; see `tagged`."""
    field, variants, other = TAGGED[union]

    def read(value: Any, _: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError(f"expected an object, not {shown(value)}")
        tag = value.get(field)
        cls = variants.get(tag) if isinstance(tag, str) else None
        if cls is not None:
            return converter.structure(value, cls)
        if other is not None:
            return other(value)
        known = ", ".join(sorted(variants))
        raise ValueError(f"expected {field} to be one of {known}, not {shown(tag)}")

    return read


converter.register_structure_hook_factory(TAGGED.__contains__, _tagged_reader)


def structure(value: Any, kind: type[T] | Any, where: str) -> T:
    """Read parsed JSON as a type.

    Args:
        where: What the value belongs to, such as the endpoint, for the error.

    Raises:
        LMStudioProtocolError: The value does not fit; the error names the path.
    """
    try:
        made: T = converter.structure(value, kind)
        return made
    except Exception as exc:  # cattrs groups whatever the hooks raised
        problem, _, path = cattrs.transform_error(exc)[0].rpartition(" @ ")
        problem = problem.removeprefix("invalid value for type, expected ")
        at = f"{where}: {_wire_path(path)}" if path else where
        raise LMStudioProtocolError(at, _first_reason(exc) or problem) from exc


def _wire_path(path: str) -> str:
    """A path as people see it in the message: ``$.stats.tokensPerSecond``."""
    return ".".join(camel(part) for part in path.split("."))


def _first_reason(exc: BaseException) -> str | None:
    """The sentence of the innermost error that one of our own readers raised."""
    inner = getattr(exc, "exceptions", None)
    if inner:
        return _first_reason(inner[0])
    return str(exc) if isinstance(exc, ValueError) else None


def unstructure(value: Any) -> Any:
    """The parsed JSON of a value, as it travels."""
    return converter.unstructure(value)
