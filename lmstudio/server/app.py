"""The ASGI shell: websockets and plain HTTP in front of the peers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from .access import logged_http
from .calls import version
from .guard import Guard, with_private_network
from .limits import Limits, Refusals
from .peer import Peer
from .rest import Rest
from .service import EXTENSIONS, NAMESPACES, Service
from .work import belongs_to

#: What `/lms-status` says this server is. Clients only log it.
PACKAGE = "lmstudio-python-server"
#: How long a slow client may hold up the end of the server, seconds.
STOPPING = 1.0


class App:
    """The ASGI application of one server.

    Args:
        service: What all connections share.
        cors: Let web pages of any origin in.
        hosts: Names of this machine, besides addresses and ``localhost``; None takes
            every name.
        limits: How much clients may ask for.

    Attributes:
        limits: The same.
        refusals: Logs who is refused, and why.
    """

    def __init__(
        self,
        service: Service,
        *,
        cors: bool = False,
        hosts: Sequence[str] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.service = service
        self.limits = limits or Limits()
        self.refusals = Refusals()
        self._guard = Guard(
            cors=cors,
            hosts=hosts,
            tokens=service.clients.tokens,
            limits=self.limits,
            refusals=self.refusals,
        )
        self._peers: set[Peer] = set()
        self._rest = Rest(service, self.limits)
        self._is_stopping = False
        anyone = ["*"]
        pages = [
            Middleware(with_private_network),
            Middleware(
                CORSMiddleware,
                allow_origins=anyone,
                allow_methods=anyone,
                allow_headers=anyone,
            ),
        ]
        self._asgi = Starlette(
            routes=[
                Route("/lmstudio-greeting", _greeting),
                Route("/lms-status", _status),
                *self._rest.routes,
                *(WebSocketRoute(f"/{n}", _Socket(self, n)) for n in NAMESPACES),
                WebSocketRoute("/{path:path}", _nowhere),
            ],
            middleware=[
                Middleware(logged_http),
                *(pages if cors else []),
                Middleware(self._guard.wrap),
            ],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or serve one socket to its end."""
        if scope["type"] == "http":
            belongs_to(self.service.workers.of(f"address {_address(scope)}"))
        await self._asgi(scope, receive, send)

    async def stop(self, reason: str) -> None:
        """Tell every client that the server ends, and why. Accept no more."""
        self._is_stopping = True
        stops = [asyncio.ensure_future(p.stop(reason)) for p in self._peers]
        stops.append(asyncio.ensure_future(self._rest.stop(reason)))
        _, late = await asyncio.wait(stops, timeout=STOPPING)
        for task in late:  # a client that does not read its end
            task.cancel()

    async def connected(
        self, namespace: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Serve one socket from its upgrade to its end."""
        await receive()  # websocket.connect
        problem = self._guard.page_problem(scope)
        if problem is not None:
            await _deny(send, 403, problem)
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

        refusals = self.refusals.of(_address(scope))
        peer = Peer(
            namespace,
            self.service,
            send_text,
            close,
            limits=self.limits,
            refusals=refusals,
        )
        self._peers.add(peer)
        peer.start()
        try:
            while (event := await receive())["type"] == "websocket.receive":
                await peer.receive(event.get("text") or event.get("bytes") or "")
        finally:
            is_open = False
            self._peers.discard(peer)
            await peer.ended()


def _address(scope: Scope) -> str:
    """Where a request comes from."""
    return str((scope.get("client") or ("",))[0])


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
