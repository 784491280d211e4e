"""One line of the log for each request: who, what, how it ended, and how long it took.

Written at the level DEBUG, which ``--verbose`` switches on. Nothing of what is said in
a request gets into it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import quote

from .caller import Caller

log = logging.getLogger(__name__)

#: Longest path that is shown, characters.
_LONGEST_PATH = 200

_Message = MutableMapping[str, Any]
_Send = Callable[[_Message], Awaitable[None]]
_Application = Callable[..., Awaitable[None]]
_C = TypeVar("_C", bound=Caller)
_E = TypeVar("_E")


def logged_call(
    name: str, handler: Callable[[_C, Any], Awaitable[Any]]
) -> Callable[[_C, Any], Awaitable[Any]]:
    """The handler of a call that also says so in the log."""

    async def call(caller: _C, parameter: Any) -> Any:
        if not log.isEnabledFor(logging.DEBUG):
            return await handler(caller, parameter)
        with _timed(caller, name):
            return await handler(caller, parameter)

    return call


def logged_channel(
    name: str, handler: Callable[[_C, Any, _E], Awaitable[None]]
) -> Callable[[_C, Any, _E], Awaitable[None]]:
    """The handler of a channel that also says so in the log."""

    async def serve(caller: _C, parameter: Any, end: _E) -> None:
        if not log.isEnabledFor(logging.DEBUG):
            await handler(caller, parameter, end)
            return
        with _timed(caller, name):
            await handler(caller, parameter, end)

    return serve


@contextmanager
def _timed(caller: Caller, name: str) -> Iterator[None]:
    began, outcome = time.monotonic(), "done"
    try:
        yield
    except asyncio.CancelledError:
        outcome = "gone"  # the client is, or the server ends
        raise
    except Exception as exc:
        outcome = f"failed ({type(exc).__name__})"
        raise
    finally:
        _log(f"client {quote(caller.client.identifier)}", name, outcome, began)


def logged_http(app: _Application) -> _Application:
    """An application of which each request over HTTP is in the log."""

    async def serve(scope: _Message, receive: Any, send: _Send) -> None:
        if scope["type"] != "http" or not log.isEnabledFor(logging.DEBUG):
            await app(scope, receive, send)
            return
        began, outcome = time.monotonic(), "no answer"

        async def say(message: _Message) -> None:
            nonlocal outcome
            if message["type"] == "http.response.start":
                outcome = str(message["status"])
            await send(message)

        try:
            await app(scope, receive, say)
        finally:
            client = scope.get("client")
            what = f"{scope['method']} {quote(scope['path'][:_LONGEST_PATH])}"
            _log(str(client[0]) if client else "somebody", what, outcome, began)

    return serve


def _log(who: str, what: str, outcome: str, began: float) -> None:
    taken = (time.monotonic() - began) * 1000
    log.debug("%s: %s: %s, %.0f ms", who, what, outcome, taken)
