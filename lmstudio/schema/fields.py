"""Fields of the classes that users describe data with: what each is and must have."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

from ..errors import LMStudioTypeError

#: What stands for "no default", since None can be one.
NOTHING = object()

#: What `typing` wraps the hints of a TypedDict in, and whether the key must be there.
#: By name: on Python 3.10 they come from elsewhere.
_WRAPPERS = {"Required": True, "NotRequired": False, "ReadOnly": None}


@attrs.frozen(kw_only=True)
class ClassField:
    """One field of a class.

    Attributes:
        name: What the constructor calls it, and the JSON object as well.
        hint: Its type, with names resolved and type variables filled in.
        required: Whether it has no default.
        default: The default; `NOTHING` without one, or when it is made anew each time.
        description: What its author says it is, from ``metadata``; or None.
    """

    name: str
    hint: Any
    required: bool
    default: Any = NOTHING
    description: str | None = None


def fields_of(kind: Any) -> list[ClassField] | None:
    """The fields that a constructor takes, in order; None for a class without such.

    Args:
        kind: Any class, or a generic one with its arguments. Attrs classes,
            dataclasses, TypedDicts and NamedTuples have fields.

    Raises:
        LMStudioTypeError: A hint is missing, or a name in it can't be resolved.
    """
    cls = typing.get_origin(kind) or kind
    reader = next((read for fits, read in _KINDS if fits(cls)), None)
    if reader is None:
        return None
    hints, variables = _hints(cls), _variables(kind)
    found = []
    for field in reader(cls, hints):
        if field.hint is None:
            raise LMStudioTypeError(
                f"{cls.__name__}.{field.name} has no type hint; write one"
            )
        hint = _filled(field.hint, variables)
        found.append(attrs.evolve(field, hint=hint))
    return found


def described(cls: type) -> str | None:
    """What the author of a class wrote about it; None without a docstring."""
    text = vars(cls).get("__doc__")
    if not text or not isinstance(text, str):  # from 3.15 on that of a dataclass
        return None
    # Dataclasses and named tuples write their signature there themselves.
    if text.startswith(f"{cls.__name__}("):
        return None
    return inspect.cleandoc(text)


def is_typed_dict(cls: type) -> bool:
    """Whether a class is a TypedDict, also one of typing_extensions."""
    return issubclass(cls, dict) and hasattr(cls, "__required_keys__")


def _is_named_tuple(cls: type) -> bool:
    return issubclass(cls, tuple) and hasattr(cls, "_field_defaults")


def _of_attrs(cls: Any, hints: Mapping[str, Any]) -> Iterator[ClassField]:
    factory: Any = attrs.Factory  # a class, though typed as a function
    for field in attrs.fields(cls):
        is_made = field.default is attrs.NOTHING or isinstance(field.default, factory)
        if field.init:
            yield ClassField(
                name=field.alias or field.name,
                hint=hints.get(field.name),
                required=field.default is attrs.NOTHING,
                default=NOTHING if is_made else field.default,
                description=_description(field.metadata),
            )


def _of_dataclass(cls: Any, hints: Mapping[str, Any]) -> Iterator[ClassField]:
    for name, hint in hints.items():
        if isinstance(hint, dataclasses.InitVar):
            raise LMStudioTypeError(
                f"{cls.__name__}.{name} is an InitVar, of which nothing is kept;"
                " make it a field"
            )
    missing = dataclasses.MISSING
    for field in dataclasses.fields(cls):
        if field.init:
            plain = field.default is not missing
            yield ClassField(
                name=field.name,
                hint=hints.get(field.name),
                required=not plain and field.default_factory is missing,
                default=field.default if plain else NOTHING,
                description=_description(field.metadata),
            )


def _of_typed_dict(cls: Any, hints: Mapping[str, Any]) -> Iterator[ClassField]:
    for name, hint in hints.items():
        required = name in cls.__required_keys__
        while (wrapper := getattr(typing.get_origin(hint), "_name", "")) in _WRAPPERS:
            said = _WRAPPERS[wrapper]
            required = required if said is None else said
            hint = typing.get_args(hint)[0]
        yield ClassField(name=name, hint=hint, required=required)


def _of_named_tuple(cls: Any, hints: Mapping[str, Any]) -> Iterator[ClassField]:
    for name in cls._fields:
        yield ClassField(
            name=name,
            hint=hints.get(name),
            required=name not in cls._field_defaults,
            default=cls._field_defaults.get(name, NOTHING),
        )


#: Whether a class is of a kind, and what reads its fields.
_KINDS: tuple[tuple[Callable[[type], bool], Callable[..., Iterator[ClassField]]], ...]
_KINDS = (
    (attrs.has, _of_attrs),
    (dataclasses.is_dataclass, _of_dataclass),
    (is_typed_dict, _of_typed_dict),
    (_is_named_tuple, _of_named_tuple),
)


def _description(metadata: Mapping[Any, Any]) -> str | None:
    text = metadata.get("description")
    return text if isinstance(text, str) else None


def _hints(cls: type) -> dict[str, Any]:
    # A class that a function makes may refer to itself, though to nothing else there.
    known = {**vars(cls), cls.__name__: cls}
    try:
        return typing.get_type_hints(cls, localns=known, include_extras=True)
    except NameError as exc:
        raise LMStudioTypeError(
            f"a type hint of {cls.__name__} can't be resolved: {exc}; what it names"
            " must stand at the top of the module"
        ) from exc
    except Exception as exc:  # the hints are any code
        raise LMStudioTypeError(
            f"the type hints of {cls.__name__} can't be read: {exc}"
        ) from exc


def _variables(kind: Any) -> dict[Any, Any]:
    """What stands for each type variable in a class and in what it inherits from."""
    cls = typing.get_origin(kind) or kind
    names = getattr(cls, "__parameters__", ())
    found = dict(zip(names, typing.get_args(kind), strict=False))
    for base in getattr(cls, "__orig_bases__", ()):
        if typing.get_origin(base) not in (None, typing.Generic):
            inherited = _variables(_filled(base, found))
            found = {**inherited, **found}
    return found


def _filled(hint: Any, variables: Mapping[Any, Any]) -> Any:
    """A hint with types in place of type variables."""
    if isinstance(hint, typing.TypeVar):
        return variables.get(hint, hint)
    names = getattr(hint, "__parameters__", ())
    if typing.get_origin(hint) is None or not names:
        return hint  # a bare generic class: nobody filled its variables in
    return hint[tuple(variables.get(name, name) for name in names)]
