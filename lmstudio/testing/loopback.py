"""Serves peers on a loopback port, on a thread of its own, without a web server."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

from websockets.asyncio.server import Server as WebSockets
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request as Upgrade
from websockets.http11 import Response

from .. import permitted
from ..server.calls import version
from ..server.engine import EngineError
from ..server.peer import Peer
from ..server.service import NAMESPACES, Service
from .faults import AUTHENTICATE, Faults
from .link import Link, Request, link
from .script import Step, perform

T = TypeVar("T")

#: Bytes in one frame, as the application has it. Source: docs/wire/messages.md.
LARGEST_FRAME = 100 * 1024 * 1024
#: How long a client may take to close its side, seconds.
_CLOSING = 1.0


class Host:
    """Websockets on a loopback port, on a thread of their own. It runs from the start.

    Args:
        handle: Serves one socket to its end; on the loop.
        answer: Answers requests that are no websocket, by their path.
        port: 0 takes a free one.
        finish: Called on the loop at the end.

    Attributes:
        port: The port.
        sockets: Those that are open, and what they serve; the loop's own.
    """

    def __init__(
        self,
        handle: Callable[[ServerConnection, str], Coroutine[Any, Any, None]],
        answer: Callable[[str], Any],
        port: int,
        finish: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._handle = handle
        self._answer = answer
        self._finish = finish
        self.sockets: dict[ServerConnection, str] = {}
        self._started = threading.Event()
        self._problem: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        # Python's development mode is for loops of the user's own: in here it would
        # make each message twice as dear, and log what takes long as if it were theirs.
        self._loop.set_debug(False)
        self._stop = asyncio.Event()
        self._thread = threading.Thread(
            target=self._run, args=(port,), name="lmstudio-fake-server", daemon=True
        )
        self._thread.start()
        self._started.wait()
        self._check()

    def close(self) -> None:
        """Stop, and close what is open. Safe to repeat."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine function on the server's loop and wait for it.

        Raises:
            RuntimeError: The server is closed.
        """
        if not self._thread.is_alive():
            raise RuntimeError("the fake server is closed")
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result()

    def _check(self) -> None:
        """Raise what kept the thread from starting."""
        if self._problem is not None:
            self._thread.join()
            raise self._problem

    def _run(self, port: int) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._main(port))
        except BaseException as exc:
            self._problem = exc
        finally:
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()
            self._started.set()

    async def _main(self, port: int) -> None:
        async with serve(
            self._connected,
            "127.0.0.1",
            port,
            process_request=self._http,
            compression=None,
            max_size=LARGEST_FRAME,
            ping_interval=None,
            close_timeout=_CLOSING,
        ) as sockets:
            self.port = _port(sockets)
            permitted.add_stand_in(self.port)
            try:
                self._started.set()
                await self._stop.wait()
            finally:
                permitted.remove_stand_in(self.port)
        if self._finish is not None:
            await self._finish()

    def _http(self, _: ServerConnection, request: Upgrade) -> Response | None:
        """Answer what is no websocket; None goes on with the upgrade."""
        path = request.path.partition("?")[0]
        answer = self._answer(path)
        if answer is not None:
            return _json(answer)
        if path.removeprefix("/") not in NAMESPACES:
            return _json({"error": f"nothing is at {path}"}, HTTPStatus.NOT_FOUND)
        return None

    async def _connected(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        namespace = socket.request.path.partition("?")[0].removeprefix("/")
        self.sockets[socket] = namespace
        try:
            await self._handle(socket, namespace)
        except ConnectionClosed:
            return
        finally:
            del self.sockets[socket]


class Loopback(Host):
    """A running server of one service.

    Args:
        extensions: What the greeting announces.
        port: 0 takes a free one.
        faults: What a test has scripted about connections.
    """

    def __init__(
        self, service: Service, extensions: Sequence[str], port: int, faults: Faults
    ) -> None:
        self._service = service
        self._faults = faults
        answers = {
            "/lmstudio-greeting": {"lmstudio": True, "extensions": list(extensions)},
            "/lms-status": {"package": "lmstudio-fake", "version": version()},
        }
        super().__init__(self._serve, answers.get, port, service.close)

    async def send(self, namespace: str, text: str) -> None:
        """Send a text on every socket of a namespace; on the loop."""
        for socket, of in list(self.sockets.items()):
            if of == namespace:
                await socket.send(text)

    async def drop_connections(self) -> None:
        """Break every connection, without a word; on the loop."""
        for socket in list(self.sockets):
            socket.transport.abort()

    async def _serve(self, socket: ServerConnection, namespace: str) -> None:
        mine = Link(socket)
        link.set(mine)  # tasks of this connection inherit it

        async def close() -> None:
            await socket.close()

        first = await self._let_in(socket, mine, namespace)
        if first is None:
            return
        peer = Peer(namespace, self._service, mine.say, close)
        peer.start()
        try:
            if first:
                await peer.receive(first)
            async for frame in socket:
                if not await self._is_lacking(mine, namespace, frame):
                    await peer.receive(frame)
        finally:
            await peer.ended()

    async def _let_in(
        self, socket: ServerConnection, mine: Link, namespace: str
    ) -> str | bytes | None:
        """Do what is scripted in front of authentication.

        Returns:
            What the client has said meanwhile; None when the script was the end.
        """
        steps = self._faults.take(AUTHENTICATE)
        if not steps:
            return ""
        first = await socket.recv()
        doing = asyncio.ensure_future(_all_of(steps, Request(mine, 0)))
        ended = asyncio.ensure_future(socket.wait_closed())
        try:
            await asyncio.wait({doing, ended}, return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                doing.result()
                return first
        except EngineError as exc:
            await mine.send({"success": False, "error": exc.title})
            await socket.close()
        finally:
            doing.cancel()
            ended.cancel()
        self._observe(namespace, first)  # nobody else will
        return None

    async def _is_lacking(self, mine: Link, namespace: str, frame: str | bytes) -> bool:
        """Whether a call is for an endpoint that is not there; then it is said.

        Source: docs/wire/messages.md, "Warnings".
        """
        if self._faults.is_whole:
            return False
        message = _parsed(frame)
        name = message.get("endpoint") if isinstance(message, dict) else None
        if not self._faults.lacks(name):
            return False
        self._observe(namespace, frame)
        # Without a kind, as older servers say it.
        text = f"No such endpoint in namespace {namespace}, endpoint = {name}"
        await mine.send({"type": "communicationWarning", "warning": text})
        return True

    def _observe(self, namespace: str, frame: str | bytes) -> None:
        if self._service.observe is not None:
            self._service.observe(namespace, _parsed(frame))


def _parsed(frame: str | bytes) -> Any:
    """What a frame says; None when it is no JSON."""
    try:
        return json.loads(frame)
    except ValueError:
        return None


async def _all_of(steps: Sequence[Step], request: Request) -> None:
    for step in steps:
        await perform(step, request)


def _json(body: Any, status: HTTPStatus = HTTPStatus.OK) -> Response:
    content = json.dumps(body).encode()
    headers = Headers(
        {
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            "Connection": "close",
        }
    )
    return Response(status.value, status.phrase, headers, content)


def _port(sockets: WebSockets) -> int:
    port: int = next(iter(sockets.sockets)).getsockname()[1]
    return port
