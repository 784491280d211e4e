"""The client: owns the connections, with one attribute for each namespace."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
import weakref
from _thread import start_new_thread
from functools import partial
from types import FrameType, TracebackType
from typing import Any, NoReturn

from .address import Address
from .arguments import checked_seconds
from .calls import CALL_TIME
from .catalog import EmbeddingModels, LLMs, System
from .diagnostics import Diagnostics
from .discovery import find_local, greet
from .downloaded import DownloadedModel, Loads
from .errors import LMStudioConnectionError, LMStudioValueError, shown
from .handles import LoadedModels
from .images import Files
from .models import LLM, EmbeddingModel
from .nearest import Asked
from .ownership import Owned
from .progress import Progress, checked_progress
from .repository import Repository
from .session import Session, credentials
from .wire.files import FileHandle
from .worker import apart, of_users

log = logging.getLogger("lmstudio.client")

#: Seconds that the end of the program waits in all: for models of all clients to be
#: unloaded, and for what is still to be sent, such as cancels.
EXIT_TIME = 0.5
#: Seconds that `close` waits until all is closed; what is left is done behind it.
CLOSE_TIME = 0.9
#: The same where a signal handler or finalizer that closes has interrupted what may
#: hold a lock that closing needs.
HELD_TIME = 0.2

#: Modules with locks of a client.
_LOCKING = {
    f"lmstudio.{name}"
    for name in (
        "protocol.client",
        "sender",
        "transport",
        "worker",
        "connection",
        "session",
        "ownership",
        "prediction",
    )
}


class LMStudioClient:
    """A client of an LM Studio server. Thread-safe; nothing is sent until first use.

    Attributes:
        llm: Text models: load, get, list, unload.
        embedding: The same for embedding models.
        files: Images for messages.
        repository: Models that the server can download.
        diagnostics: What the server does.
        system: The server as a whole: models on its disk, its version.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_host: str | None = None,
        api_token: str | None = None,
        client_identifier: str | None = None,
        client_passkey: str | None = None,
        timeout: float | None = None,
        idle_timeout: float | None = CALL_TIME,
        progress: Progress = None,
        **unknown: NoReturn,
    ) -> None:
        """Make a client.

        Args:
            base_url: The server: ``host``, ``host:port`` or a URL of http, https, ws
                or wss. None looks at the variable ``LMSTUDIO_HOST`` and then for a
                server on this machine.
            api_host: The same under the name of the official SDK.
            api_token: Token for servers that ask for one; None looks at the variables
                ``LM_API_TOKEN`` and ``LMSTUDIO_API_TOKEN``.
            client_identifier: Clients of one identifier and passkey share what they
                own on the server.
            client_passkey: The secret that goes with it.
            timeout: Seconds for a whole prediction; None for no limit.
            idle_timeout: Seconds to wait for calls that the server answers at once;
                None for no limit.
            progress: False shows no bars on a terminal while models load and prompts
                are processed; a function is called in their place, with 0 to 1.

        Raises:
            LMStudioValueError: An argument is wrong.
        """
        Asked(LMStudioClient).refuse(unknown)
        if base_url is not None and api_host is not None:
            raise LMStudioValueError("base_url and api_host name the same; give one")
        limit = checked_seconds(timeout, "timeout")
        call_time = checked_seconds(idle_timeout, "idle_timeout")
        identifier, passkey = credentials(api_token, client_identifier, client_passkey)
        self._settings: dict[str, Any] = {
            "base_url": base_url if base_url is not None else api_host,
            "api_token": api_token,
            "client_identifier": client_identifier,
            "client_passkey": client_passkey,
            "timeout": timeout,
            "idle_timeout": idle_timeout,
            "progress": checked_progress(progress),
        }
        address = _address(self._settings["base_url"])
        self._session = Session(address, identifier, passkey)
        self._ending = _Ending(self._session.shadow())
        shared = (self._session, self._ending.owned, limit, call_time, progress)
        self.llm = LLMs(*shared)
        self.embedding = EmbeddingModels(*shared)
        self.files = Files(self._session, call_time)
        self.repository = Repository(self._session, call_time, progress)
        self.diagnostics = Diagnostics(self._session)
        loads: dict[str, Loads[Any]] = {"llm": self.llm, "embedding": self.embedding}
        self.system = System(self._session, call_time, loads)
        # The session lives as long as the client, a handle or a prediction of it
        # does: in `LMStudioClient().llm.load(...)` nobody holds the client itself.
        closing = weakref.finalize(self._session, self._ending.come_soon)
        closing.atexit = False  # there is one for all, below

    @property
    def address(self) -> str:
        """The server's address, such as ``"ws://127.0.0.1:1234"``.

        Raises:
            LMStudioConnectionError: None was given, and none is found.
        """
        return self._session.address.url

    @property
    def api_host(self) -> str:
        """The server as ``host:port``."""
        return self._session.address.netloc

    def prepare_image(self, src: Any, name: str | None = None) -> FileHandle:
        """Hand an image to the server; see `Files.prepare_image`."""
        return self.files.prepare_image(src, name)

    def list_downloaded_models(
        self, namespace: str | None = None
    ) -> list[DownloadedModel[Any]]:
        """The models on the server's disk; see `System.list_downloaded_models`."""
        return self.system.list_downloaded_models(namespace)

    def list_loaded_models(
        self, namespace: str | None = None
    ) -> list[LLM | EmbeddingModel]:
        """Handles of the models in memory.

        Args:
            namespace: ``"llm"`` or ``"embedding"``; None lists both.
        """
        if namespace not in (None, "llm", "embedding"):
            raise LMStudioValueError(
                f"namespace must be 'llm', 'embedding' or None, not {shown(namespace)}"
            )
        loaded: LoadedModels[LLM | EmbeddingModel] = LoadedModels()
        if namespace != "embedding":
            loaded += self.llm.list_loaded()
        if namespace != "llm":
            loaded += self.embedding.list_loaded()
        return loaded

    def close(self) -> None:
        """Unload what this client loaded for itself, and close the connections.

        Whoever waits for something is released with an error. Safe to repeat, from any
        thread, and in a signal handler. It returns within a second; what takes longer
        is then done behind it. Leaving a ``with`` block closes too, and lets
        predictions end before that which are held and which nobody has iterated over
        or cancelled: their results can be read behind the block.
        """
        self._ending.come()

    @staticmethod
    def is_valid_api_host(api_host: str) -> bool:
        """Whether a server of LM Studio answers at an address."""
        try:
            return bool(greet(Address.parse(api_host)))
        except LMStudioValueError:
            return False

    @staticmethod
    def find_default_local_api_host() -> str | None:
        """The server on this machine as ``host:port``; None when there is none."""
        try:
            return find_local().netloc
        except LMStudioConnectionError:
            return None

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._session.is_closed

    def __enter__(self) -> LMStudioClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if exc is None:
                self._wait_for_predictions()
        finally:
            self.close()

    def _wait_for_predictions(self) -> None:
        """Let end what was asked for in the block and is read behind it.

        Not what somebody iterates, nor what was cancelled: who streams and leaves
        has had enough.
        """
        while not self.is_closed and (pending := self._session.pending()):
            for prediction in pending:
                prediction.settled()

    def __reduce__(self) -> tuple[Any, ...]:
        return _remake, (type(self), self._settings.copy())

    def __repr__(self) -> str:
        return self._session.shown_of(self)


def _remake(cls: type[LMStudioClient], settings: dict[str, Any]) -> LMStudioClient:
    return cls(**settings)


def _address(given: str | None) -> Address | None:
    given = given if given is not None else os.environ.get("LMSTUDIO_HOST") or None
    return None if given is None else Address.parse(given)


class _Ending:
    """The end of a client: its models are unloaded, its connections closed.

    It waits in `_endings` until it comes.

    Args:
        session: The shadow of the client's session: this must not keep that alive.
    """

    def __init__(self, session: Session) -> None:
        self.owned = Owned(session)
        self._session = session
        self._is_over = False
        self.after_fork()
        _endings.add(self)

    def after_fork(self) -> None:
        """Start anew in a child process: whoever was closing did not come along."""
        # Who closes: set by one operation of a dict, which neither a thread nor a
        # signal handler can split. A lock could be held by what the handler interrupts.
        self._closer: dict[str, object] = {}
        # Locked until all is closed. Nobody waits for it for ever.
        self._gate = threading.Lock()
        self._gate.acquire()

    def come(self) -> None:
        """Close, unless that was done, and wait until it is: `CLOSE_TIME` at most.

        A thread of its own closes. Who calls may be a signal handler or a finalizer
        in the middle of anything, and what it interrupted holds its locks until the
        call returns. What raises there, Ctrl-C too, interrupts the wait only.
        """
        if self._session.worker.is_current:
            # In a job, where nothing is interrupted; and unloading by the worker could
            # not begin while it waits here.
            self._close()
        elif not self._closer:
            try:
                start_new_thread(self._begin, ())  # takes no lock, as `Thread` does
            except RuntimeError:  # at the end of a program there are no new threads
                self._close()
        if not self._is_over and self._gate.acquire(timeout=_patience()):
            self._gate.release()

    def come_at_exit(self, deadline: float) -> None:
        """Unload what is owned, and have the last notes sent, until a deadline.

        The sockets are left to the end of the process. Closing them would fail what
        daemon threads wait for, and they would print it.
        """
        if not self._is_mine():
            left = max(0.0, deadline - time.monotonic())
            if not self._is_over and self._gate.acquire(timeout=left):
                self._gate.release()
            return
        try:
            _endings.discard(self)
            self.owned.release(deadline)
            self._session.worker.settle(max(0.0, deadline - time.monotonic()))
        finally:
            self._open()

    def come_soon(self) -> None:
        """The same from a finalizer: only leaves a note for the worker.

        A session that never connected has no worker, and nothing to close.
        """
        if self._session.has_connections:
            self._session.worker.soon(self._close)
        else:
            _endings.discard(self)

    def _begin(self) -> None:
        # The thread that runs this is unknown to `threading`.
        try:
            apart(self._close, "lmstudio-close").start()
        except RuntimeError:  # as above
            self._close()

    def _close(self) -> None:
        """Close, unless another thread is at it. Waits for no other thread of this."""
        if not self._is_mine():
            return
        try:
            try:
                self.owned.release()
            finally:
                self._session.close()
                _endings.discard(self)
        finally:
            self._open()

    def _is_mine(self) -> bool:
        """Whether the caller is the first, and so the one that closes."""
        me = object()
        return self._closer.setdefault("first", me) is me

    def _open(self) -> None:
        self._is_over = True
        self._gate.release()


def _patience() -> float:
    """Seconds that a call of `close` waits at most.

    What holds a lock of ours, below the call, has to go on soon: there is a time limit
    for unloading models.
    """
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        name = frame.f_globals.get("__name__")
        if name in _LOCKING:
            return HELD_TIME
        if isinstance(name, str) and name.startswith("lmstudio.") and name != __name__:
            break
        frame = frame.f_back
    return CLOSE_TIME


_endings: set[_Ending] = set()


@atexit.register
def _close_all() -> None:
    """At the end of the program: unload what clients own, all at once."""
    deadline = time.monotonic() + EXIT_TIME
    endings = list(_endings)
    for end in (
        # What is due from now on is too late.
        *[partial(worker.stop) for worker in of_users()],
        *[partial(ending.owned.begin_release, deadline) for ending in endings],
        *[partial(ending.come_at_exit, deadline) for ending in endings],
        partial(_end_callbacks, deadline),
    ):
        try:
            end()
        except KeyboardInterrupt:  # no more waiting, and no traceback either
            _end_callbacks(time.monotonic())
            return
        except Exception:  # nothing may be printed now, and the others have their turn
            log.debug("at exit", exc_info=True)


def _end_callbacks(deadline: float) -> None:
    for worker in of_users():
        worker.end(deadline)


def _after_fork() -> None:
    for ending in list(_endings):
        ending.after_fork()


if hasattr(os, "register_at_fork"):  # pragma: no branch  # Windows has none
    os.register_at_fork(after_in_child=_after_fork)
