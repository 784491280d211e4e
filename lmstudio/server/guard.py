"""Who may come in over HTTP: hosts, origins, tokens, and the size of what they send."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from .limits import Limits, Refusals
from .origins import is_foreign, is_ours
from .tokens import Tokens, needed_at

# As ASGI has them.
Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Answered to everyone: clients ask these before they say who they are.
OPEN_PATHS = ("/lmstudio-greeting", "/lms-status")


class _Refused(Exception):
    """The request goes no further."""

    def __init__(self, status: int, code: str, text: str) -> None:
        self.status = status
        self.code = code
        self.text = text
        super().__init__(text)


class Guard:
    """Lets in what may come in, and answers the rest.

    Args:
        cors: Whether pages of any origin may come in.
        hosts: Names in the ``Host`` header that are ours, besides addresses and
            ``localhost``; None takes every name.
        tokens: Who may come in, None for everyone.
        limits: How much they may send.
        refusals: Where it is logged.
    """

    def __init__(
        self,
        *,
        cors: bool,
        hosts: Sequence[str] | None,
        tokens: Tokens | None,
        limits: Limits,
        refusals: Refusals,
    ) -> None:
        self._cors = cors
        self._hosts = None if hosts is None else {host.lower() for host in hosts}
        self._tokens = tokens
        self._limits = limits
        self._refusals = refusals

    def wrap(self, app: Application) -> Application:
        """The application behind the guard; for the list of Starlette's middleware."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                await self._http(app, scope, receive, send)
            else:
                await app(scope, receive, send)

        return guarded

    def page_problem(self, scope: Scope) -> str | None:
        """Why a request of a web page is refused; None when it is not, or is none."""
        origin, host = header(scope, b"origin"), header(scope, b"host")
        if self._cors:
            return None
        refusals = self._refusals.of(str((scope.get("client") or ("",))[0]))
        if is_foreign(origin, host):
            refusals.add("page", f"refused a web page of {origin:.200}")
            return "Web pages may connect only with CORS switched on"
        if self._hosts is not None and not is_ours(host, self._hosts):
            refusals.add("host", f"refused a request to the host {host!r:.200}")
            return (
                "This server answers to addresses and to localhost only: any other"
                " name may be one that a web page has pointed at this machine"
            )
        return None

    async def _http(
        self, app: Application, scope: Scope, receive: Receive, send: Send
    ) -> None:
        is_started = False

        async def say(message: Event) -> None:
            nonlocal is_started
            is_started = is_started or message["type"] == "http.response.start"
            await send(message)

        try:
            self._check(scope)
            body = _Body(receive, self._limits)
            await app(scope, body.receive, say)
        except _Refused as exc:
            if exc.code != "page":
                where = f"{scope['method']} {scope['path']:.200}"
                refusals = self._refusals.of(str((scope.get("client") or ("",))[0]))
                refusals.add(exc.code, f"refused {where}: {exc.text}")
            if not is_started:
                is_native = scope["path"].startswith("/api/v1/")
                await answer(send, exc.status, exc.code, exc.text, is_native=is_native)

    def _check(self, scope: Scope) -> None:
        """Raise what is wrong with the head of a request."""
        if scope["path"] in OPEN_PATHS:
            return
        problem = self.page_problem(scope)
        if problem is not None:
            raise _Refused(403, "page", problem)
        if self._tokens is not None:
            token = self._tokens.find_bearer(header(scope, b"authorization"))
            if token is None:
                raise _Refused(
                    401,
                    "invalid_api_key",
                    "This server needs one of its API tokens, as"
                    " `Authorization: Bearer sk-lm-...`",
                )
            permission = needed_at(scope["method"], scope["path"])
            if permission not in token.permissions:
                text = f"The token {token.identifier} does not allow {permission!r}"
                raise _Refused(403, "permission_denied", text)
        length = header(scope, b"content-length") or "0"
        if length.isascii() and length.isdigit():
            _check_size(int(length[:20]), self._limits)


class _Body:
    """The body of a request, as long as it keeps within the limits."""

    def __init__(self, receive: Receive, limits: Limits) -> None:
        self._receive = receive
        self._limits = limits
        self._size = 0
        self._is_complete = False
        self._deadline: float | None = None

    async def receive(self) -> Event:
        """The next part.

        Raises:
            _Refused: It is too large, or comes too slowly.
        """
        if self._is_complete:
            return await self._receive()  # waits for the end of the connection
        now = asyncio.get_running_loop().time()
        if self._deadline is None:
            self._deadline = now + self._limits.body_time
        try:
            left = max(0.0, self._deadline - now)
            event = await asyncio.wait_for(self._receive(), left)
        except asyncio.TimeoutError:
            text = f"The body took more than {self._limits.body_time:g} seconds"
            raise _Refused(408, "body_too_slow", text) from None
        self._size += len(event.get("body", b""))
        self._is_complete = not event.get("more_body", False)
        _check_size(self._size, self._limits)
        return event


def _check_size(size: int, limits: Limits) -> None:
    if size > limits.body_bytes:
        text = f"The body has more than {limits.body_bytes} bytes"
        raise _Refused(413, "body_too_large", text)


async def answer(
    send: Send, status: int, code: str, text: str, *, is_native: bool = False
) -> None:
    """Answer an HTTP request with an error as OpenAI's clients read it.

    Args:
        is_native: Name its type as LM Studio's own interface does.
    """
    error = {
        "message": text,
        "type": "invalid_request" if is_native else "invalid_request_error",
        "param": None,
        "code": code,
    }
    headers = [
        (b"content-type", b"application/json"),
        (b"x-request-id", new_request_id().encode()),
        (b"connection", b"close"),
    ]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    start = {"type": "http.response.start", "status": status, "headers": headers}
    await send(start)
    body = json.dumps({"error": error}).encode()
    await send({"type": "http.response.body", "body": body})


def new_request_id() -> str:
    """What names a request in logs and in its answer."""
    return f"req_{secrets.token_hex(12)}"


def with_private_network(app: Application) -> Application:
    """Answer what browsers ask before a page of the internet reaches this machine.

    Older versions of Starlette don't know the question, and newer ones refuse it unless
    they are told not to; so it never gets there.
    """
    asked = b"access-control-request-private-network"

    async def asking(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or header(scope, asked) != "true":
            await app(scope, receive, send)
            return

        async def say(message: Event) -> None:
            if message["type"] == "http.response.start":
                allowed = (b"access-control-allow-private-network", b"true")
                message = {**message, "headers": [*message["headers"], allowed]}
            await send(message)

        rest = [pair for pair in scope["headers"] if pair[0] != asked]
        await app({**scope, "headers": rest}, receive, say)

    return asking


def header(scope: Scope, name: bytes) -> str | None:
    """A header of a request; None without it."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None
