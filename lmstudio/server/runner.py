"""Runs the server on a thread of this process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

import uvicorn

from .. import paths
from ..wire.ports import DEFAULT_PORT
from .app import App
from .downloads import Downloads
from .engine import Engine
from .limits import Limits
from .log_relay import relayed
from .memory import Policy
from .ports import (
    bound_address,
    is_loopback,
    listen,
    listen_for_discovery,
    reachable,
)
from .presets import PresetFolder
from .service import Service
from .store import Store
from .tokens import Tokens, chosen
from .web import HttpConnection, SocketConnection

log = logging.getLogger(__name__)

#: How long connections and models may take to end, seconds each.
CLOSING = 1.5
#: Seconds between two looks at the clock, for the dates of answers.
_TICK = 1.0
#: How many looks in a second uvicorn counts on.
_TICKS = 10
#: Seconds that connections may take to end by themselves, and between looks at them.
_GRACE, _LOOK_AGAIN = 1.0, 0.005


class Server:
    """A running server; `serve` makes one. Use it as a context manager.

    Attributes:
        host: Where it listens.
        port: The port.
        url: For clients: ``ws://<host>:<port>``.
        tokens: The API tokens that it accepts, None when it asks for none.
    """

    def __init__(
        self,
        socks: Sequence[socket.socket],
        service_of: Callable[[], Service],
        cors: bool,
        *,
        tokens: Tokens | None = None,
        hosts: Sequence[str] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.tokens = tokens
        self._hosts = hosts
        self._limits = limits or Limits()
        self.host, self.port = socks[0].getsockname()[:2]
        name = reachable(self.host)
        name = f"[{name}]" if ":" in name else name
        self.url = f"ws://{name}:{self.port}"
        self._socks = list(socks)
        self._service_of = service_of
        self._cors = cors
        self._started = threading.Event()
        self._problem: BaseException | None = None
        self._web: _Uvicorn | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(
            target=self._run, name="lmstudio-server", daemon=True
        )
        self._thread.start()
        self._started.wait()
        self._check()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "" if self._thread.is_alive() else " (closed)"
        return f"<Server {self.url}{state}>"

    def close(self) -> None:
        """Tell the clients, unload everything and stop. Safe to repeat."""
        if self._web is not None:
            assert self._loop is not None
            self._web.should_exit = True
            with contextlib.suppress(RuntimeError):  # the loop has ended already
                self._loop.call_soon_threadsafe(self._web.ending.set)
        self._thread.join()

    def _check(self) -> None:
        """Raise what kept the thread from starting."""
        if self._problem is not None:
            self._thread.join()
            raise self._problem

    def _run(self) -> None:
        """Body of the thread."""
        try:
            asyncio.run(self._main())
        except BaseException as exc:
            if self._started.is_set():
                log.exception("the server failed")
            self._problem = exc
        finally:
            for sock in self._socks:
                sock.close()
            self._started.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        service = self._service_of()
        service.port, service.cors = self.port, self._cors
        app = App(service, cors=self._cors, hosts=self._hosts, limits=self._limits)
        config = uvicorn.Config(
            app,
            lifespan="off",
            loop="asyncio",
            http=HttpConnection,
            ws=SocketConnection,
            ws_max_size=self._limits.message_bytes,
            ws_ping_interval=20.0,
            ws_ping_timeout=20.0,
            ws_per_message_deflate=False,
            log_config=None,
            access_log=False,
            server_header=False,
        )
        logging.getLogger("uvicorn.error").addFilter(
            _is_news
        )  # only once, as it is one
        self._web = _Uvicorn(config, app, self._started)
        try:
            with relayed(service.logs):
                await self._web.serve(self._socks)
        finally:
            try:
                await asyncio.wait_for(service.close(), CLOSING)
            except asyncio.TimeoutError:
                log.warning("gave up waiting for models to unload")


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a record of uvicorn is no complaint about sockets that we refuse."""
    return "without completing handshake" not in record.getMessage()


class _Uvicorn(uvicorn.Server):
    """Says when it is up, ends at once, and lets the peers say goodbye.

    Attributes:
        ending: Set, on the loop, when `should_exit` is.
    """

    def __init__(
        self, config: uvicorn.Config, app: App, started: threading.Event
    ) -> None:
        super().__init__(config)
        self._app = app
        self._is_up = started
        self.ending = asyncio.Event()

    async def main_loop(self) -> None:
        # Not before: a server that is to end in `startup` ends without `shutdown`.
        self._is_up.set()
        seconds = 0
        while not await self.on_tick(seconds * _TICKS):
            seconds += 1
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.ending.wait(), _TICK)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        # uvicorn would cut the connections in the middle of what they were doing.
        await self._app.stop("The server is shutting down")
        # From here on as uvicorn does it, which takes at least a tenth of a second.
        for connection in list(self.server_state.connections):
            connection.shutdown()
        now = asyncio.get_running_loop().time
        latest = now() + _GRACE
        while self._has_work() and now() < latest:
            await asyncio.sleep(_LOOK_AGAIN)
        for task in self.server_state.tasks:
            task.cancel()
        for connection in list(self.server_state.connections):
            transport = connection.transport
            if transport is not None:
                transport.abort()  # a client that has not read for all that time
        await asyncio.sleep(0)  # so that the transports are closed before the loop

    def _has_work(self) -> bool:
        return bool(self.server_state.connections or self.server_state.tasks)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the program."""
        yield


def serve(
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    *,
    cors: bool = False,
    api_token: str | Sequence[str] | bool | None = None,
    tokens_file: str | os.PathLike[str] | None = None,
    hosts: Sequence[str] = (),
    limits: Limits | None = None,
    discoverable: bool = False,
    models_dir: str | os.PathLike[str] | None = None,
    presets_dir: str | os.PathLike[str] | None = None,
    engine: Engine | None = None,
    shutdown: Callable[[], None] | None = None,
    memory: Policy | None = None,
) -> Server:
    """Start a server on a thread of its own and return once it answers.

    Args:
        host: An address of this machine; the default is reached only from it.
        port: 0 takes a free one, see `Server.port`.
        cors: Let web pages of any origin in.
        api_token: A token (or several) that clients must have; True takes those of
            the tokens file, and makes one up if there is none; False asks for none.
            None is False where only this machine reaches the server, else True.
        tokens_file: Where the tokens are; by default in the application's folder.
        hosts: Names under which clients reach a server that listens on loopback only,
            besides addresses and ``localhost``. Others are refused: a web page may
            have pointed them here.
        limits: How much clients may ask for.
        discoverable: Listen on one of the loopback ports as well where the official
            SDKs look for a server, if one is free.
        models_dir: The folder of the models, by default the application's own.
        presets_dir: The folder of the presets, likewise.
        engine: What runs the models, by default llama.cpp.
        shutdown: Called when a client asks the server to end; without it such
            requests are refused.
        memory: What the server does by itself about its memory; by default it refuses
            what does not fit, and unloads what was loaded on demand.

    Raises:
        PortUnavailable: The port is taken, or the host is not this machine.
        LMStudioValueError: `api_token` has another form than a token has.
        TokensUnusable: The tokens file can't be read or written.
    """
    is_open = not is_loopback(bound_address(host))
    file = Path(tokens_file) if tokens_file is not None else None
    tokens = chosen(api_token, is_open=is_open, file=file)
    folder = Path(models_dir) if models_dir is not None else paths.models()
    presets = Path(presets_dir) if presets_dir is not None else paths.presets()

    def service() -> Service:
        store = Store(folder)
        return Service(
            store,
            engine if engine is not None else _llama_cpp(),
            shutdown=shutdown,
            presets=PresetFolder(presets),
            downloads=Downloads(store, folder),
            tokens=tokens,
            memory=memory,
        )

    socks = [listen(host, port)]
    found_at = listen_for_discovery() if discoverable else None
    if found_at is not None:
        socks.append(found_at)
    return Server(
        socks,
        service,
        cors,
        tokens=tokens,
        # A page that may come in anyway needs no other name for this machine.
        hosts=None if is_open or cors else hosts,
        limits=limits,
    )


def _llama_cpp() -> Engine:
    # Imported here: whoever brings an engine of their own need not have this one.
    from .engines.llama_cpp import LlamaCppEngine

    return LlamaCppEngine()
