"""What the signature of a function tells about it: name, parameters, hints."""

from __future__ import annotations

import inspect
import typing
from functools import partial
from typing import Any

from .errors import LMStudioTypeError, shown

_VARIADIC = {
    inspect.Parameter.VAR_POSITIONAL: "*",
    inspect.Parameter.VAR_KEYWORD: "**",
}


def called(f: Any) -> Any:
    """What a partial calls in the end."""
    while isinstance(f, partial):
        f = f.func
    return f


def _unwrapped(f: Any) -> Any:
    """The function that a partial or a callable object comes down to."""
    inner = called(f)
    if inspect.isroutine(inner) or isinstance(inner, type):
        return inner
    return type(inner).__call__


def name_of(f: Any) -> str:
    """The name of a function, of a partial's function, or of an object's class.

    Raises:
        LMStudioTypeError: It has none, or is no function.
    """
    if not callable(f):
        raise LMStudioTypeError(f"{shown(f)} is no function")
    inner = called(f)
    name = getattr(inner, "__name__", None) or type(inner).__name__
    if name == "<lambda>":
        raise LMStudioTypeError(
            "a lambda has no name that a model could call; use def, or"
            " ToolFunctionDef(name=..., parameters={...}, implementation=...)"
        )
    return str(name)


def docstring_of(f: Any) -> str | None:
    """The docstring of a function; of an object its method's, or its class's."""
    inner = called(f)
    if inspect.isroutine(inner) or isinstance(inner, type):
        return inspect.getdoc(inner)
    return type(inner).__call__.__doc__ or type(inner).__doc__


def check_sync(f: Any, name: str) -> None:
    """Refuse a function that has to be awaited.

    Raises:
        LMStudioTypeError: It has; the error says what to do.
    """
    for function in (f, _unwrapped(f)):
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(
            function
        ):
            raise LMStudioTypeError(
                f"tool {name} is async, and nothing here would await it; offer a plain"
                " function that calls asyncio.run(...), or hands it to your event loop"
                " with asyncio.run_coroutine_threadsafe(...).result()"
            )


def finished(value: Any, name: str) -> Any:
    """What a tool returned.

    Raises:
        LMStudioTypeError: It is a coroutine, which nobody awaits.
    """
    if inspect.iscoroutine(value):
        value.close()
        raise LMStudioTypeError(f"tool {name} returned a coroutine, and not its result")
    return value


def parameters_of(f: Any, name: str) -> list[inspect.Parameter]:
    """The parameters that are left to fill in.

    Raises:
        LMStudioTypeError: They can't be found out, or there are any number of them.
    """
    try:
        signature = inspect.signature(f)
    except (TypeError, ValueError) as exc:
        raise LMStudioTypeError(
            f"the parameters of tool {name} can't be found out ({exc}); write a"
            " function around it, with type hints"
        ) from None
    filled: set[str] = set()
    while isinstance(f, partial):
        filled |= set(f.keywords)
        f = f.func
    for parameter in signature.parameters.values():
        if parameter.kind in _VARIADIC:
            raise LMStudioTypeError(
                f"tool {name} has {_VARIADIC[parameter.kind]}{parameter.name}, and a"
                " model must be told each parameter by name and type; list them, or"
                " take one list or dict"
            )
    return [p for p in signature.parameters.values() if p.name not in filled]


def hints_of(f: Any, name: str) -> dict[str, Any]:
    """The type hints of a function by name, with all that Annotated holds.

    Raises:
        LMStudioTypeError: One can't be resolved.
    """
    inner = _unwrapped(f)
    if isinstance(inner, type):
        inner = inner.__init__  # type: ignore[misc]  # its hints are read, it is not called
    try:
        return typing.get_type_hints(inner, include_extras=True)
    except NameError as exc:
        raise LMStudioTypeError(
            f"a type hint of tool {name} can't be resolved: {exc}; what it names must"
            " stand at the top of the module, and not only for type checkers"
        ) from exc
    except Exception as exc:  # the hints are any code
        raise LMStudioTypeError(
            f"the type hints of tool {name} can't be read: {exc}"
        ) from exc
