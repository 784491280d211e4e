"""Where the server is, who we are, and one connection for each namespace."""

from __future__ import annotations

import os
import re
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from . import discovery
from .address import Address
from .errors import (
    LMStudioConnectionError,
    LMStudioError,
    LMStudioRuntimeError,
    LMStudioTimeoutError,
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

#: Seconds for connecting, for the handshake and for the credentials, together.
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


@attrs.define(eq=False)
class _Attempt:
    """A connection that is being made, for all who want it.

    Attributes:
        namespace: Whose it is.
        is_over: Set when it is made, or has failed.
        outcome: The connection, or why there is none; None when nobody tried.
    """

    namespace: str
    is_over: threading.Event = attrs.field(factory=threading.Event)
    outcome: Connection | BaseException | None = None

    def begin(self, session: Session) -> None:
        """Connect on a thread of its own: that of the caller can't be woken up.

        Raises:
            LMStudioConnectionError: The system has no more threads.
        """
        try:
            apart(partial(self._connect, session), "lmstudio-connect").start()
        except LMStudioRuntimeError as exc:
            where, why = session.known_address, f"{exc.__cause__}"
            error = LMStudioConnectionError(where, "resources", why, "")
            raise discovery.diagnosed(error) from exc

    def wait(self, session: Session, deadline: float | None) -> None:
        """Wait for its end, or that of the client, or for the deadline."""
        slice_ = CLOSED_SLICE
        while True:
            if deadline is not None:
                slice_ = min(CLOSED_SLICE, deadline - time.monotonic())
            if self.is_over.wait(max(0.0, slice_)):
                return
            session._check_open()
            if slice_ <= 0:
                where = session.known_address
                raise LMStudioTimeoutError(f"still connecting to {where}")

    def conclude(self, session: Session) -> None:
        """It is over: who comes from now on makes another one."""
        with session._state:
            if session._attempts.get(self.namespace) is self:
                del session._attempts[self.namespace]
        self.is_over.set()

    def _connect(self, session: Session) -> None:
        """Connect, and keep the connection: whoever asked for it may be gone."""
        namespace = self.namespace
        try:
            known = session._connections.get(namespace)  # made in the last moment
            if known is None or not known.is_usable:
                known = session._kept(namespace, session._reach(namespace))
            self.outcome = known
        except BaseException as exc:  # raised where it is waited for
            self.outcome = exc
        self.conclude(session)
        # Tracebacks hold their frames, and must not hold themselves by these.
        del self


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
        # By namespace, so that each is opened once and slow connecting in one does
        # not hold up another. Begun by a single operation of the dict.
        self._attempts: dict[str, _Attempt] = {}
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
                self._callbacks = Worker("lmstudio-callbacks", is_users=True)
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

    def connection(
        self,
        namespace: str,
        deadline: float | None = None,
        silence: float | None = None,
    ) -> Connection:
        """The connection of a namespace, made now if there is no usable one.

        Args:
            deadline: `time.monotonic` until which it is waited for. Connecting goes on
                then, for whoever wants it next.
            silence: Seconds that it is waited for.

        Raises:
            LMStudioConnectionError: The server can't be reached; the error says why.
            LMStudioAuthenticationError: It refused the credentials.
            LMStudioTimeoutError: The time is over; the message is for putting into
                another one.
            LMStudioRuntimeError: The client is closed.
        """
        connection = self._connections.get(namespace)
        if connection is not None and connection.is_usable:
            return connection
        if silence is not None:
            until = time.monotonic() + silence
            deadline = until if deadline is None else min(until, deadline)
        while True:
            self._check_open()
            mine = _Attempt(namespace)
            try:
                attempt = self._attempts.setdefault(namespace, mine)
                if attempt is mine:
                    mine.begin(self)
            except BaseException:  # no thread, or Ctrl-C: then others try themselves
                mine.conclude(self)
                raise
            attempt.wait(self, deadline)
            outcome = attempt.outcome
            try:
                if isinstance(outcome, LMStudioError) and attempt is not mine:
                    # Those who waited share the failure: each trying by itself, the
                    # last of many threads would wait for all their time limits.
                    raise outcome.fresh() from None
                if isinstance(outcome, BaseException):
                    raise outcome
                if outcome is not None:
                    return outcome
            finally:
                del attempt, mine, outcome

    def _kept(self, namespace: str, made: Connection) -> Connection:
        """Put a new connection into the map; the one to use.

        Raises:
            LMStudioRuntimeError: The client was closed meanwhile.
        """
        with self._state:
            known = self._connections.get(namespace)
            if not self._closed and (known is None or not known.is_usable):
                self._connections[namespace] = known = made
        if known is not made:  # it is too late, after Ctrl-C in its opening perhaps
            made.close()
        self._check_open()
        assert known is not None  # maps are emptied by closing only
        return known

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
        self,
        namespace: str,
        kind: Kind,
        name: str,
        parameter: Any,
        mailbox: Mailbox,
        deadline: float | None = None,
        silence: float | None = None,
    ) -> tuple[Connection, int]:
        """Send a request over a working connection.

        A request that could not be sent whole is sent again over a new connection:
        the server has not seen it.

        Args:
            deadline: `time.monotonic` until which it must be out.
            silence: Seconds of connecting, and of sending without a byte of it taken,
                after which it is given up.

        Raises:
            LMStudioTimeoutError: As `connection`. Where the mailbox has a request,
                part of it may be out, and it is to be given up.
        """
        limits = (deadline, silence)
        try:
            connection = self.connection(namespace, *limits)
            return connection, connection.open(kind, name, parameter, mailbox, *limits)
        except LMStudioConnectionError:
            raise
        except LMStudioWebsocketError:
            connection = self.connection(namespace, *limits)
            return connection, connection.open(kind, name, parameter, mailbox, *limits)

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
        self._connections, self._attempts = {}, {}
        self._state = threading.Lock()
        self.worker, self._callbacks = Worker("lmstudio-worker"), None
        for connection in connections.values():
            connection.forsake()


_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def _after_fork() -> None:
    for session in list(_sessions):
        session.after_fork()


if hasattr(os, "register_at_fork"):  # pragma: no branch  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
