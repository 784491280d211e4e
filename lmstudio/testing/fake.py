"""A server for tests: the real peer behind a scripted engine, on a loopback port."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Any, TypeVar

import attrs
from websockets.asyncio.server import Server as WebSockets
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request as Upgrade
from websockets.http11 import Response

from ..server.calls import version
from ..server.engine import ModelFile
from ..server.failures import Failure
from ..server.instances import Instance, Wanted
from ..server.peer import Peer
from ..server.service import EXTENSIONS, NAMESPACES, Service
from ..wire.common import KVConfig
from ..wire.endpoints import Endpoint
from ..wire.llm import History, TemplateOptions
from .engine import (
    ScriptedEngine,
    ScriptedModels,
    ScriptedPrediction,
    Scripts,
    all_text,
    drop_connection,
    prediction_of,
    scripted_model,
)
from .script import Reply, Step, When, perform, steps_of

T = TypeVar("T")

#: Bytes in one frame, as the application has it. Source: docs/wire/messages.md.
LARGEST_FRAME = 100 * 1024 * 1024
#: How long a client may take to close its side, seconds.
_CLOSING = 1.0


@attrs.frozen
class Received:
    """A message that a client sent.

    Attributes:
        namespace: The socket that it came on.
        message: Parsed JSON.
    """

    namespace: str
    message: Any

    @property
    def endpoint(self) -> str | None:
        """Which endpoint it opens; None for packets and the like."""
        name = self.message.get("endpoint") if isinstance(self.message, dict) else None
        return name if isinstance(name, str) else None

    @property
    def parameter(self) -> Any:
        """What it opens the endpoint with, parsed JSON; None without."""
        if not isinstance(self.message, dict):
            return None
        return self.message.get("parameter", self.message.get("creationParameter"))


class FakeServer:
    """A server whose answers a test writes down.

    It runs on a thread of its own from the start. Use it as a context manager, from
    any number of threads. What nobody scripted is an echo of the user's last message.

    Args:
        models: Models on its disk: keys, or whole files. A key with ``embed`` in it is
            an embedding model.
        loaded: Those of them that are in memory from the start.
        extensions: What the greeting announces; ``()`` makes it look like the
            application.
        port: 0 takes a free one.

    Attributes:
        host: ``"127.0.0.1:<port>"``.
        url: The same with ``ws://`` in front.
        port: The port.
        engine: The scripted engine; its `loads` tell what was loaded, and how.
    """

    def __init__(
        self,
        models: Iterable[str | ModelFile] = ("any",),
        *,
        loaded: Iterable[str] = (),
        extensions: Sequence[str] = EXTENSIONS,
        port: int = 0,
    ) -> None:
        self._scripts = Scripts()
        self._extensions = list(extensions)
        self._models = ScriptedModels(
            [scripted_model(m) if isinstance(m, str) else m for m in models]
        )
        self.engine = ScriptedEngine(self._scripts)
        self._service = Service(
            self._models,
            self.engine,
            predict=self._predict,
            format_prompt=_format_prompt,
            control_tokens_of=lambda _: (),
        )
        self._service.observe = self._observe
        self._service.before = self._before
        self._lock = threading.Lock()  # guards the next two
        self._steps: dict[str, list[list[Step]]] = {}
        self._log: list[Received] = []
        self._logged = threading.Condition()  # guards the log
        self._sockets: dict[ServerConnection, str] = {}  # the loop's own
        self._started = threading.Event()
        self._problem: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(
            target=self._run, args=(port,), name="lmstudio-fake-server", daemon=True
        )
        self._thread.start()
        self._started.wait()
        self._check()
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"ws://{self.host}"
        for key in loaded:
            self.load(key)

    def __enter__(self) -> FakeServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def reply(
        self,
        steps: Step | Sequence[Step],
        stop: str = "eos",
        *,
        when: When = None,
        times: int | None = 1,
    ) -> Reply:
        """Say how the next prediction that fits is answered.

        Args:
            steps: One step or several; see `lmstudio.testing.script`.
            stop: Why it ends: ``"eos"``, ``"word"``, ``"limit"``, ``"context"``, or a
                stop reason as it travels.
            when: Only for predictions with this in their text, or for which this
                function of an `Asked` is true.
            times: How often; None for ever.
        """
        reply = Reply(steps_of(steps), stop, when, times)
        self._scripts.add_reply(reply)
        return reply

    def on_load(self, steps: Sequence[Step | float]) -> None:
        """Say what the next load does: progress from 0 to 1, gates, failures."""
        self._scripts.add_load(list(steps))

    def before(self, endpoint: str, steps: Step | Sequence[Step]) -> None:
        """Do these steps before the next call of an endpoint is looked at.

        A failure among them is the answer; after `NEVER` there is none.
        """
        with self._lock:
            self._steps.setdefault(endpoint, []).append(steps_of(steps))

    def fail(
        self, endpoint: str, title: str, *, code: str | None = None, **details: Any
    ) -> None:
        """Let the next call of an endpoint fail.

        Args:
            code: A ``displayData`` code; `details` are its fields.
        """
        display = {"code": code, **details} if code is not None else None
        self.before(endpoint, Failure(title, display=display))

    def load(
        self, key: str, *, identifier: str | None = None, ttl: float | None = None
    ) -> str:
        """Load a model on the server itself; returns its identifier.

        Args:
            ttl: Seconds of idleness after which it goes, None for never.
        """

        async def load() -> str:
            registry = self._service.registry
            file = self._models.find(key)[0]
            domain = "embedding" if file.is_embedding else "llm"
            running = await registry.load(key, domain, Wanted(ttl=ttl), identifier)
            return (await running.instance()).identifier

        return self._call(load)

    def loaded(self) -> list[str]:
        """Identifiers of what is in memory, first loaded first."""

        async def loaded() -> list[str]:
            registry = self._service.registry
            both = registry.loaded("llm") + registry.loaded("embedding")
            return [instance.identifier for instance in both]

        return self._call(loaded)

    def send(self, namespace: str, message: dict[str, Any] | str) -> None:
        """Send a message, or any text, on every socket of a namespace as it is."""
        text = message if isinstance(message, str) else json.dumps(message)

        async def send() -> None:
            for socket, of in list(self._sockets.items()):
                if of == namespace:
                    await socket.send(text)

        self._call(send)

    def drop_connections(self) -> None:
        """Break every connection, without a word. New ones are accepted."""

        async def drop() -> None:
            for socket in list(self._sockets):
                socket.transport.abort()

        self._call(drop)

    @property
    def requests(self) -> list[Received]:
        """Every message that arrived so far, in order."""
        with self._logged:
            return self._log.copy()

    def parameters(self, endpoint: str) -> list[Any]:
        """What an endpoint was called with so far, parsed JSON."""
        return [seen.parameter for seen in self.requests if seen.endpoint == endpoint]

    def wait_for(
        self, predicate: Callable[[Received], bool], timeout: float = 5.0
    ) -> Received:
        """The first message that fits, past ones included; waits for it if need be.

        Args:
            timeout: Seconds.

        Raises:
            TimeoutError: None came in time.
        """
        at = 0

        def found() -> Received | None:
            nonlocal at
            while at < len(self._log):
                at += 1
                if predicate(self._log[at - 1]):
                    return self._log[at - 1]
            return None

        with self._logged:
            seen = self._logged.wait_for(found, timeout)
        if seen is None:
            raise TimeoutError(
                f"no such message in {timeout} s: {self.requests!r:.500}"
            )
        return seen

    def wait_for_call(self, endpoint: str, timeout: float = 5.0) -> Received:
        """The first message that opens an endpoint; waits for it if need be."""
        return self.wait_for(lambda seen: seen.endpoint == endpoint, timeout)

    def assert_all_used(self) -> None:
        """Fail if a scripted answer was never asked for."""
        unused = self._scripts.unused()
        assert not unused, f"nobody asked for {unused!r}"

    def close(self) -> None:
        """Stop, and close what is open. Safe to repeat."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def _call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine function on the server's loop and wait for it."""
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
            self._started.set()
            await self._stop.wait()
        await self._service.close()

    def _http(self, _: ServerConnection, request: Upgrade) -> Response | None:
        """Answer what is no websocket; None goes on with the upgrade."""
        path = request.path.partition("?")[0]
        if path == "/lmstudio-greeting":
            return _json({"lmstudio": True, "extensions": self._extensions})
        if path == "/lms-status":
            return _json({"package": "lmstudio-fake", "version": version()})
        if path.removeprefix("/") not in NAMESPACES:
            return _json({"error": f"nothing is at {path}"}, HTTPStatus.NOT_FOUND)
        return None

    async def _connected(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        namespace = socket.request.path.partition("?")[0].removeprefix("/")
        # Tasks of this connection inherit it.
        drop_connection.set(socket.transport.abort)

        async def send(text: str) -> None:
            try:
                await socket.send(text)
            except ConnectionClosed:
                return  # what runs for this client ends when the socket has

        async def close() -> None:
            await socket.close()

        peer = Peer(namespace, self._service, send, close)
        self._sockets[socket] = namespace
        peer.start()
        try:
            async for frame in socket:
                await peer.receive(frame)
        except ConnectionClosed:
            return
        finally:
            del self._sockets[socket]
            await peer.ended()

    def _observe(self, namespace: str, message: Any) -> None:
        with self._logged:
            self._log.append(Received(namespace, message))
            self._logged.notify_all()

    async def _before(self, endpoint: Endpoint, _: Any) -> None:
        with self._lock:
            queued = self._steps.get(endpoint.name)
            steps = queued.pop(0) if queued else []
        for step in steps:
            await perform(step, drop_connection.get())

    async def _predict(
        self,
        instance: Instance,
        *,
        history: History | None,
        raw_prompt: str | None,
        config: KVConfig,
    ) -> ScriptedPrediction:
        return prediction_of(instance, self._scripts, history, raw_prompt, config)


async def _format_prompt(
    _: Instance, history: History, __: KVConfig, ___: TemplateOptions
) -> str:
    return all_text(history)


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
