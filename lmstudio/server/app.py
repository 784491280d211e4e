"""The ASGI shell: websockets and plain HTTP in front of the peers."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from .calls import version
from .peer import Peer
from .service import EXTENSIONS, NAMESPACES, Service

log = logging.getLogger(__name__)

#: What `/lms-status` says this server is. Clients only log it.
PACKAGE = "lmstudio-python-server"
#: How long a slow client may hold up the end of the server, seconds.
STOPPING = 1.0


class App:
    """The ASGI application of one server.

    Args:
        service: What all connections share.
        cors: Let web pages of any origin in.
    """

    def __init__(self, service: Service, *, cors: bool = False) -> None:
        self.service = service
        self._cors = cors
        self._peers: set[Peer] = set()
        self._is_stopping = False
        anyone = ["*"]
        pages = Middleware(
            CORSMiddleware,
            allow_origins=anyone,
            allow_methods=anyone,
            allow_headers=anyone,
        )
        self._asgi = Starlette(
            routes=[
                Route("/lmstudio-greeting", _greeting),
                Route("/lms-status", _status),
                *(WebSocketRoute(f"/{n}", _Socket(self, n)) for n in NAMESPACES),
                WebSocketRoute("/{path:path}", _nowhere),
            ],
            middleware=[pages] if cors else [],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or serve one socket to its end."""
        await self._asgi(scope, receive, send)

    async def stop(self, reason: str) -> None:
        """Tell every client that the server ends, and why. Accept no more."""
        self._is_stopping = True
        if self._peers:
            stops = [asyncio.ensure_future(p.stop(reason)) for p in self._peers]
            _, late = await asyncio.wait(stops, timeout=STOPPING)
            for task in late:  # a client that does not read its end
                task.cancel()

    async def connected(
        self, namespace: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Serve one socket from its upgrade to its end."""
        await receive()  # websocket.connect
        headers = Headers(scope=scope)
        if not self._cors and is_foreign(headers.get("origin"), headers.get("host")):
            log.warning("refused a web page of %s", headers.get("origin"))
            await _deny(send, 403, "Web pages may connect only with CORS switched on")
            return
        if self._is_stopping:
            await _deny(send, 503, "The server is shutting down")
            return
        await send({"type": "websocket.accept"})
        is_open = True

        async def say(message: dict[str, Any]) -> None:
            nonlocal is_open
            if is_open:
                is_open = message["type"] != "websocket.close"
                try:
                    await send(message)
                except (OSError, RuntimeError):  # it ended while we were saying it
                    is_open = False

        async def send_text(text: str) -> None:
            await say({"type": "websocket.send", "text": text})

        async def close() -> None:
            await say({"type": "websocket.close", "code": 1000})

        peer = Peer(namespace, self.service, send_text, close)
        self._peers.add(peer)
        peer.start()
        try:
            while (event := await receive())["type"] == "websocket.receive":
                await peer.receive(event.get("text") or event.get("bytes") or "")
        finally:
            is_open = False
            self._peers.discard(peer)
            await peer.ended()


class _Socket:
    """The ASGI application of one namespace."""

    def __init__(self, app: App, namespace: str) -> None:
        self._app = app
        self._namespace = namespace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app.connected(self._namespace, scope, receive, send)


class _Nowhere:
    """Refuses sockets for paths that are no namespace."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        known = ", ".join(f"/{name}" for name in NAMESPACES)
        await _deny(send, 404, f"No namespace has this path; there are {known}")


_nowhere = _Nowhere()


async def _deny(send: Send, status: int, text: str) -> None:
    """Answer an upgrade with an HTTP status."""
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    start = "websocket.http.response.start"
    await send({"type": start, "status": status, "headers": headers})
    body = "websocket.http.response.body"
    await send({"type": body, "body": text.encode()})


async def _greeting(_: Request) -> JSONResponse:
    return JSONResponse({"lmstudio": True, "extensions": list(EXTENSIONS)})


async def _status(_: Request) -> JSONResponse:
    return JSONResponse({"package": PACKAGE, "version": version()})


def is_foreign(origin: str | None, host: str | None) -> bool:
    """Whether an upgrade comes from a web page that is not ours.

    A page under a name that its owner points at this machine has the same origin and
    host, so a name counts as ours only if it is ``localhost`` or an address.

    Args:
        origin: The ``Origin`` header; programs other than browsers send none.
        host: The ``Host`` header.
    """
    if origin is None:
        return False
    try:
        theirs, ours = urlsplit(origin), urlsplit(f"//{host or ''}")
        same = theirs.netloc.lower() == ours.netloc.lower() and theirs.netloc != ""
        name = ours.hostname or ""
    except ValueError:
        return True
    return not (same and _is_fixed(name))


def _is_fixed(name: str) -> bool:
    """Whether nobody else can make a name mean this machine."""
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
