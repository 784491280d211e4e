"""For tests of programs that use this package: servers that say what they are told."""

from __future__ import annotations

# Everything is imported when it is first asked for: the pytest plugin is in here, and
# pytest imports it in every project where this package is installed.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..server.failures import Failure
    from .cassette import StaleCassetteError
    from .fake import FakeServer
    from .guard import forbid_real_models
    from .log import Received
    from .matching import UnmatchedRequestError
    from .recorder import Cassette
    from .script import (
        AWAIT_CANCEL,
        CLOSE,
        CRASH,
        DROP,
        EVICT,
        NEVER,
        SUCCESS,
        Asked,
        Await,
        Frame,
        Pace,
        Reply,
        tool_call,
    )

__all__ = [
    "FakeServer",
    "Cassette",
    "Await",
    "AWAIT_CANCEL",
    "CLOSE",
    "CRASH",
    "DROP",
    "EVICT",
    "NEVER",
    "SUCCESS",
    "Asked",
    "Failure",
    "Frame",
    "Pace",
    "Received",
    "Reply",
    "StaleCassetteError",
    "UnmatchedRequestError",
    "forbid_real_models",
    "tool_call",
]

#: Name -> the module that has it; every other name is in `script`.
_HOME = {
    "FakeServer": "fake",
    "Cassette": "recorder",
    "StaleCassetteError": "cassette",
    "Failure": "..server.failures",
    "Received": "log",
    "UnmatchedRequestError": "matching",
    "forbid_real_models": "guard",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOME.get(name, "script")
    home = home if home.startswith(".") else f".{home}"
    module = importlib.import_module(home, __name__)
    value = globals()[name] = getattr(module, name)
    return value
