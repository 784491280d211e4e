"""Where the server is, who we are, and one connection for each namespace."""

from __future__ import annotations

import os
import re
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from . import discovery
from .address import Address
from .errors import (
    LMStudioConnectionError,
    LMStudioError,
    LMStudioRuntimeError,
    LMStudioTypeError,
    LMStudioValueError,
    LMStudioWebsocketError,
)
from .mailbox import Mailbox
from .protocol.client import Kind
from .wire.checks import encodable
from .worker import Worker, apart

if TYPE_CHECKING:
    from .connection import Connection

T = TypeVar("T")

#: Seconds for connecting and for the handshake.
CONNECT_TIME = 10.0
#: Seconds after which a thread that waits for a connection looks whether the client was
#: closed.
CLOSED_SLICE = 0.1
#: Variables that may hold an API token, in this order.
#: Source: docs/wire/connection.md.
TOKEN_VARIABLES = ("LM_API_TOKEN", "LMSTUDIO_API_TOKEN")

_TOKEN = re.compile(r"sk-lm-([A-Za-z0-9]{8}):([A-Za-z0-9]{20})")


def credentials(
    api_token: str | None, identifier: str | None, passkey: str | None
) -> tuple[str, str]:
    """The identifier and passkey of a client: given, from a token, or made up.

    Raises:
        LMStudioTypeError: One of them is no text.
        LMStudioValueError: One of a wrong form. None is repeated in the error.
    """
    if api_token is not None and not isinstance(api_token, str):
        raise LMStudioTypeError("api_token must be text")
    source = "api_token"
    if api_token is None and identifier is None and passkey is None:
        for name in TOKEN_VARIABLES:
            api_token, source = os.environ.get(name) or None, f"the variable {name}"
            if api_token:
                break
    if api_token:
        if identifier is not None or passkey is not None:
            raise LMStudioValueError(
                "api_token stands for client_identifier and client_passkey;"
                " give it, or these"
            )
        match = _TOKEN.fullmatch(api_token)
        if match is None:
            raise LMStudioValueError(
                f"{source} is no API token: one looks like"
                " sk-lm-<8 letters or digits>:<20 letters or digits>"
            )
        return match[1], match[2]
    for what, text in (("identifier", identifier), ("passkey", passkey)):
        if text is None:
            continue
        if not isinstance(text, str):
            raise LMStudioTypeError(f"client_{what} must be 1 to 256 characters")
        if not 0 < len(text) <= 256:
            raise LMStudioValueError(f"client_{what} must be 1 to 256 characters")
        if not encodable(text):
            raise LMStudioValueError(
                f"client_{what} holds a lone surrogate, which no encoding has"
            )
    return identifier or f"guest:{uuid.uuid4()}", passkey or str(uuid.uuid4())


@attrs.define
class _Opening:
    """The opening of one namespace's connection.

    Attributes:
        lock: Held while connecting, by one thread for all that want the connection.
        failed_at: When it failed last, `time.monotonic`.
        failure: How. For those only who waited for the lock then: each trying by
            itself, the last of many threads would wait for all their time limits.
    """

    lock: threading.Lock = attrs.field(factory=threading.Lock)
    failed_at: float = 0.0
    failure: LMStudioError | None = None


class Session:
    """Opens connections when they are first needed, and again after they broke.

    Attributes:
        worker: Does the small jobs of all connections.
    """

    def __init__(self, address: Address | None, identifier: str, passkey: str) -> None:
        self._given = address
        self._found: Address | None = None
        self._identifier = identifier
        self._passkey = passkey
        self._connections: dict[str, Connection] = {}
        self._closed = False
        # Guards changes of the maps and of `_closed`; looking needs no lock. Not held
        # while connecting.
        self._state = threading.Lock()
        # One for each namespace, so that it is opened once and slow connecting in
        # one does not hold up another.
        self._opening: dict[str, _Opening] = {}
        self.worker = Worker("lmstudio-worker")
        self._callbacks: Worker | None = None
        _sessions.add(self)

    @property
    def identifier(self) -> str:
        """Who we are for the server."""
        return self._identifier

    @property
    def callbacks(self) -> Worker | None:
        """Runs users' done callbacks, apart from all that must be quick.

        None when the client is closed: nobody would end it.
        """
        with self._state:
            if self._closed:
                return None
            if self._callbacks is None:
                self._callbacks = Worker("lmstudio-callbacks")
            self._callbacks.start()
            return self._callbacks

    @property
    def address(self) -> Address:
        """The server: as given, or found on this machine.

        Raises:
            LMStudioConnectionError: None was given, and none is found.
        """
        if self._given is not None:
            return self._given
        found = self._found  # another thread may forget it meanwhile
        if found is None:
            self._found = found = discovery.find_local()
        return found

    @property
    def known_address(self) -> str:
        """The address for messages; says so when it is not known yet."""
        known = self._given or self._found
        return known.url if known else "a local server"

    def shown_of(self, owner: object) -> str:
        """The line that shows what works by this session."""
        state = " closed" if self.is_closed else ""
        return f"<{type(owner).__name__} {self.known_address}{state}>"

    def connection(self, namespace: str) -> Connection:
        """The connection of a namespace, made now if there is no usable one.

        Raises:
            LMStudioConnectionError: The server can't be reached; the error says why.
            LMStudioAuthenticationError: It refused the credentials.
            LMStudioRuntimeError: The client is closed.
        """
        connection = self._connections.get(namespace)
        if connection is not None and connection.is_usable:
            return connection
        asked = time.monotonic()
        with self._state:
            opening = self._opening.setdefault(namespace, _Opening())
        with opening.lock:
            self._check_open()
            connection = self._connections.get(namespace)
            if connection is not None and connection.is_usable:
                return connection
            if opening.failure is not None and opening.failed_at >= asked:
                raise opening.failure.fresh()
            try:
                made = self._connect(namespace)
            except LMStudioError as exc:
                opening.failure = exc.fresh()
                opening.failure.__cause__ = None  # its traceback holds much alive
                opening.failed_at = time.monotonic()
                raise
            opening.failure = None
            with self._state:
                closed = self._closed
                if not closed:
                    self._connections[namespace] = made
        if closed:
            made.close()
            self._check_open()
        return made

    def _connect(self, namespace: str) -> Connection:
        """Connect on a thread of its own, for that of the caller can't be woken up.

        Raises:
            LMStudioRuntimeError: The client was closed meanwhile.
        """
        made: list[Connection | BaseException] = []
        is_made, is_given_up = threading.Event(), threading.Event()

        def work() -> None:
            try:
                made.append(self._reach(namespace))
            except BaseException as exc:  # raised where it is waited for
                made.append(exc)
            is_made.set()
            if is_given_up.is_set():
                _discard(made)

        self._begin(work)
        try:
            while not is_made.wait(CLOSED_SLICE):
                self._check_open()
        except BaseException:  # closed, or Ctrl-C
            is_given_up.set()
            _discard(made)  # whichever of us comes second finds it
            raise
        outcome = made.pop()
        try:
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome
        finally:
            del outcome  # its traceback holds this frame

    def _begin(self, work: Callable[[], object]) -> None:
        """Start the thread that connects.

        Raises:
            LMStudioConnectionError: The system has no more threads.
        """
        try:
            apart(work, "lmstudio-connect").start()
        except LMStudioRuntimeError as exc:
            where, why = self.known_address, f"{exc.__cause__}"
            error = LMStudioConnectionError(where, "resources", why, "")
            raise discovery.diagnosed(error) from exc

    def _reach(self, namespace: str) -> Connection:
        # Imported on first use: the websocket library brings ssl and takes its time.
        from .connection import Connection

        def attempt(address: Address) -> Connection:
            return Connection.open_to(
                address,
                namespace,
                identifier=self._identifier,
                passkey=self._passkey,
                worker=self.worker,
                timeout=CONNECT_TIME,
            )

        known = self._found
        try:
            try:
                return attempt(self.address)
            except LMStudioConnectionError:
                if self._given is not None or known is None:
                    raise
            # The server that was found is gone; perhaps it moved.
            self._found = None
            return attempt(self.address)
        except LMStudioConnectionError as exc:
            raise (exc if exc.hint else discovery.diagnosed(exc)) from exc.__cause__

    def open(
        self, namespace: str, kind: Kind, name: str, parameter: Any, mailbox: Mailbox
    ) -> tuple[Connection, int]:
        """Send a request over a working connection.

        A request that could not be sent whole is sent again over a new connection:
        the server has not seen it.
        """
        try:
            connection = self.connection(namespace)
            return connection, connection.open(kind, name, parameter, mailbox)
        except LMStudioConnectionError:
            raise
        except LMStudioWebsocketError:
            connection = self.connection(namespace)
            return connection, connection.open(kind, name, parameter, mailbox)

    def again(self, ask: Callable[[], T]) -> T:
        """Do something that only reads, and once more if the connection broke."""
        try:
            return ask()
        except LMStudioConnectionError:
            raise
        except LMStudioWebsocketError:
            self._check_open()
            return ask()

    def greeting(self) -> Mapping[str, object]:
        """What the server says of itself over HTTP; empty when it says nothing."""
        address = self.address
        return discovery.greet(address)

    @property
    def has_connections(self) -> bool:
        """Whether there is something to close."""
        return bool(self._connections)

    def pending(self) -> list[Any]:
        """What runs and wants to be waited for; see `Mailbox.pending`."""
        with self._state:
            connections = [*self._connections.values()]
        return [found for c in connections for found in c.pending()]

    def shadow(self) -> Session:
        """The same session as another object, for finalizers of this one.

        Holding it does not keep this one alive, and it works when this one is gone.
        """
        shadow = object.__new__(type(self))
        shadow.__dict__ = self.__dict__
        return shadow

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self) -> None:
        """Close all connections and end the threads. Safe to repeat."""
        with self._state:
            self._closed = True
            connections, self._connections = self._connections, {}
            callbacks, self._callbacks = self._callbacks, None
        for connection in connections.values():
            connection.close()
        self.worker.stop(wait=1.0)
        if callbacks is not None:
            callbacks.stop()

    def _check_open(self) -> None:
        if self._closed:
            raise LMStudioRuntimeError("the client was closed; make a new one")

    def after_fork(self) -> None:
        """Start afresh in a child process: threads and locks did not come along."""
        connections = self._connections
        self._connections, self._opening = {}, {}
        self._state = threading.Lock()
        self.worker, self._callbacks = Worker("lmstudio-worker"), None
        for connection in connections.values():
            connection.forsake()


def _discard(made: list[Connection | BaseException]) -> None:
    """Close a connection that nobody waits for any more."""
    while made:
        try:
            outcome = made.pop()
        except IndexError:  # the other thread has it
            return
        if not isinstance(outcome, BaseException):
            outcome.close()


_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def _after_fork() -> None:
    for session in list(_sessions):
        session.after_fork()


if hasattr(os, "register_at_fork"):  # pragma: no branch  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
