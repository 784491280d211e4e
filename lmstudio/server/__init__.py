"""A server of our own: the application's websocket API in front of llama.cpp."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .runner import Server, serve

__all__ = ["serve", "Server"]


def __getattr__(name: str) -> Any:
    # Loaded at first use: the web server behind them is an extra, and the client half
    # of the tests imports modules of this package without it.
    if name in __all__:
        from . import runner

        return getattr(runner, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
