"""Connections of the web server that keep to the limits before there is a request."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import (
    WebSocketsSansIOProtocol,
)

from .app import App

#: How long a connection too many may wait for its own first word, seconds.
SURPLUS_TIME = 1.0
#: What a client has to read in `Limits.write_time`, bytes: less only holds up others.
LEAST_READ = 16 * 1024
#: What the system keeps of an answer that is not read, bytes: by itself it takes some
#: megabytes, which are minutes of a prediction that nobody reads.
SEND_BUFFER = 128 * 1024
#: How long a client may take to answer the close of its socket, seconds.
CLOSE_TIME = 2.0


class HttpConnection(H11Protocol):
    """Counts connections, and gives a request and the reader of its answer time."""

    _head_timer: asyncio.TimerHandle | None = None
    _read_timer: asyncio.TimerHandle | None = None
    # Why there are too many, for one that is. It is told once it asks: an answer in
    # front of the question may be lost with the connection.
    _surplus: tuple[str, str] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Refuse it, or wait for the head of its request."""
        super().connection_made(transport)
        reach = transport.get_extra_info("socket")
        if reach is not None:
            reach.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        limits = self._app.limits
        theirs = _address(self)
        same = sum(_address(other) == theirs for other in self.connections)
        if len(self.connections) > limits.connections:
            self._surplus = ("connections", f"{limits.connections} are open")
        elif same > limits.connections_per_address:
            most = limits.connections_per_address
            self._surplus = ("address", f"{most} are open from {theirs}")
        if len(self.connections) > 2 * limits.connections:
            transport.abort()
        else:
            self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Watch how far the head of a request has come."""
        if self.transport.is_closing():
            return
        if self._surplus is not None:
            self._refuse(503, *self._surplus)
            return
        super().data_received(data)
        if self.transport.get_protocol() is not self:  # it became a websocket
            self._head_came()
        elif self.conn.their_state is h11.IDLE:
            self._expect_head()
        else:
            self._head_came()

    def pause_writing(self) -> None:
        """Wait until the client reads; the answer waits, too."""
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        """It does."""
        super().resume_writing()
        self._reads()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._head_came()
        self._reads()
        super().connection_lost(exc)

    @property
    def _app(self) -> App:
        app: App = self.config.app  # type: ignore[assignment]  # runner gives no other
        return app

    def _expect_head(self) -> None:
        if self._head_timer is None:
            limit = self._app.limits.header_time
            if self._surplus is not None:
                limit = min(limit, SURPLUS_TIME)
            self._head_timer = self.loop.call_later(limit, self._too_late)

    def _head_came(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _expect_reading(self) -> None:
        unread = self.transport.get_write_buffer_size()
        limit = self._app.limits.write_time
        self._reads()
        self._read_timer = self.loop.call_later(limit, self._check_reading, unread)

    def _reads(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _check_reading(self, unread: int) -> None:
        if unread - self.transport.get_write_buffer_size() >= LEAST_READ:
            self._expect_reading()  # slow, but it reads
            return
        limit = self._app.limits.write_time
        text = f"no part of the answer was read in {limit:g} seconds"
        theirs = _address(self)
        self._app.refusals.add("reading", f"closed a connection from {theirs}: {text}")
        self.transport.abort()

    def _too_late(self) -> None:
        self._head_timer = None
        limit = self._app.limits.header_time
        if self._surplus is not None:
            self._refuse(503, *self._surplus)
            return
        self._refuse(408, "head", f"no request came within {limit:g} seconds")

    def _refuse(self, status: int, kind: str, problem: str) -> None:
        """Answer before there is a request, and close."""
        theirs = _address(self)
        text = f"refused a connection from {theirs}: {problem}"
        self._app.refusals.add(kind, text)
        body = f"{problem[0].upper()}{problem[1:]}\n".encode()
        head = (
            f"HTTP/1.1 {status} {_PHRASES[status]}\r\n"
            "content-type: text/plain; charset=utf-8\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


class SocketConnection(WebSocketsSansIOProtocol):
    """Logs why a websocket was ended that broke the rules below the messages."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.close_timeout = CLOSE_TIME

    def handle_parser_exception(self) -> None:
        """Log the broken rule; the close says it to the client."""
        app: App = self.config.app  # type: ignore[assignment]  # runner gives no other
        problem = self.conn.parser_exc
        text = f"closed a websocket from {_address(self)}: {problem}"
        app.refusals.add("websocket", text)
        super().handle_parser_exception()

    def keepalive_timeout(self) -> None:
        """Log that the client is gone, and let go of it."""
        app: App = self.config.app  # type: ignore[assignment]  # runner gives no other
        text = f"closed a websocket from {_address(self)}: no answer to a ping"
        app.refusals.add("ping", text)
        super().keepalive_timeout()
        # What it did not read would keep the connection open for good.
        self.transport.abort()


_PHRASES = {408: "Request Timeout", 503: "Service Unavailable"}


def _address(connection: Any) -> str:
    """Where a connection comes from."""
    client = connection.client
    return str(client[0]) if client else ""
