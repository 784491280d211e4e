"""The sending half of a socket: frames go out whole, and nobody waits who must not."""

from __future__ import annotations

import abc
import os
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable

from .dial import Selector
from .errors import LMStudioClientError

#: Seconds without a single byte taken by the server before a send is given up.
SEND_STALL = 60.0
#: The same when nothing is heard from it either: no ping can go out in mid-frame.
SEND_SILENT = 25.0
#: Seconds that a stalled sender waits before it looks whether it should stop.
SLICE = 0.2
#: Times that the socket is offered something before others have a turn.
OFFERS = 64
#: Bytes that one TLS record holds at most.
TLS_RECORD = 16384

TEXT = 0x81  # a whole text frame: FIN and opcode 1
CLOSE, PING, PONG = 0x88, 0x89, 0x8A
DONT_WAIT = getattr(socket, "MSG_DONTWAIT", 0)

_MASKED = 0x80
_NOT_NOW = (
    BlockingIOError,
    InterruptedError,
    ssl.SSLWantReadError,
    ssl.SSLWantWriteError,
)


class TransportEnded(LMStudioClientError):
    """The socket is at its end; the message says why."""


class Unsent(LMStudioClientError):
    """The time for sending a message is over, and the connection goes on.

    Attributes:
        is_begun: Part of the message is out, and the rest will follow; else nothing of
            it ever will.
    """

    def __init__(self, *, is_begun: bool) -> None:
        super().__init__("the server does not take the message")
        self.is_begun = is_begun


class _Rest:
    """A frame, or what is left of it, that the socket has still to take.

    Attributes:
        view: The bytes; empty once all are out.
        is_begun: Nothing else may come before them any more.
        moved: `time.monotonic` when it came, or when some of it was taken last.
    """

    __slots__ = ("is_begun", "moved", "view")

    def __init__(self, view: memoryview, *, is_begun: bool) -> None:
        self.view = view
        self.is_begun = is_begun
        self.moved = time.monotonic()


class Sender(abc.ABC):
    """Sends over a socket, from any thread; `Transport` is the whole."""

    def __init__(
        self, sock: socket.socket, explain: Callable[[BaseException], str]
    ) -> None:
        self._sock = sock
        self._is_tls = isinstance(sock, ssl.SSLSocket)
        #: Where threads share a TLS socket: see `_WebSocket.turns`.
        self._turns: threading.Lock | None = None
        self._explain = explain
        # Keeps each frame whole on the wire, and guards the four below. Held for
        # calls that don't wait for the server, and never longer.
        self._sending = threading.Lock()
        # Frames that the socket has still to take, in their order: they come before
        # everything else. Who waits for one sends what stands before it, too.
        self._outbox: deque[_Rest] = deque()
        self._moved = 0.0  # when the outbox came to be, or the socket took some of it
        self._is_told = False  # somebody will call `flush`
        self._pong: _Rest | None = None  # the last one that had to wait
        self._on_rest: Callable[[], None] = lambda: None
        self._closed = False
        self._why = "the client was closed"

    @property
    @abc.abstractmethod
    def heard(self) -> float:
        """`time.monotonic` of the last bytes that came, pongs included."""

    @abc.abstractmethod
    def close(self) -> None:
        """Shut the socket down."""

    def forsake(self) -> None:
        """Free this process's copy of the socket without ending the connection."""
        self._closed = True
        self._sending = threading.Lock()
        self._outbox = deque()
        self._sock.close()

    def send(
        self,
        payload: bytes,
        deadline: float | None = None,
        silence: float | None = None,
    ) -> float:
        """Send one message, whole: JSON text in UTF-8.

        Args:
            deadline: `time.monotonic` after which it is not waited for any more.
            silence: Seconds after which it isn't either, if none of it was taken.

        Returns:
            When the last of it was taken, by `time.monotonic`; 0 when nothing had to
            be waited for.

        Raises:
            Unsent: It was not taken in time.
            TransportEnded: The connection is over, or the server took nothing for
                `SEND_STALL` seconds, or `SEND_SILENT` if it says nothing either.
        """
        rest = self._offer(frame_of(TEXT, payload))
        return 0.0 if rest is None else self._wait_for(rest, deadline, silence)

    def post(self, payload: bytes) -> None:
        """Send one message without waiting: what does not go at once goes later.

        Raises:
            TransportEnded: The connection is over.
        """
        self._offer(frame_of(TEXT, payload))

    def flush(self) -> bool:
        """Send what is left, as far as it goes without waiting; True if that is all.

        Raises:
            TransportEnded: As for `send`.
        """
        with self._sending:
            self._go_on()
            self._is_told = bool(self._outbox)
            return not self._outbox

    def _offer(self, frame: bytes) -> _Rest | None:
        """Send what goes without waiting; what is left is put into the outbox."""
        view = memoryview(frame)
        with self._sending:
            try:
                if self._closed:
                    raise TransportEnded("the connection is closed")
                sent, is_first = 0, not self._outbox or self._drain()
                if is_first:
                    sent = self._send_some(view)
                    if sent == len(view):  # nearly always
                        return None
                # What TLS did not take at once counts as begun: see `_send_some`.
                is_begun = bool(sent) or (is_first and self._is_tls)
                rest = _Rest(view[sent:], is_begun=is_begun)
                if is_first:
                    self._moved = rest.moved
                self._outbox.append(rest)
                if not self._is_told:
                    self._is_told = True
                    self._on_rest()
                return rest
            except BaseException as exc:
                self._fail(exc)
                raise

    def _wait_for(
        self, rest: _Rest, deadline: float | None, silence: float | None
    ) -> float:
        """Wait until a frame is out, and send it and what stands before it."""
        while True:
            with self._sending:
                if rest.view:
                    self._go_on()
                if not rest.view:
                    return rest.moved
                until = rest.moved + silence if silence is not None else None
                if deadline is not None:
                    until = deadline if until is None else min(until, deadline)
                patience = SLICE
                if until is not None:
                    patience = min(SLICE, until - time.monotonic())
                if patience <= 0:
                    if not rest.is_begun:
                        self._outbox.remove(rest)
                    raise Unsent(is_begun=rest.is_begun)
            # Ctrl-C may come here: what is known of the outbox is true, and it stays.
            # Short waits, so that a close from another thread is noticed. The file may
            # be freed meanwhile; what is waited for then is wrong, and looked at anew.
            try:
                wait(self._sock, selectors.EVENT_WRITE, patience)
            except (OSError, ValueError):
                pass

    def _go_on(self) -> None:
        """Send from the outbox, and end the connection when it has not moved for long.

        Only for who holds the lock.
        """
        try:
            if self._closed:
                raise TransportEnded("the connection is closed")
            if self._drain():
                return
            now = time.monotonic()
            if now - self._moved > SEND_STALL:
                raise TransportEnded(f"the server read nothing for {SEND_STALL:g} s")
            if now - max(self._moved, self.heard) > SEND_SILENT:
                raise TransportEnded(f"no sign of life for {SEND_SILENT:g} s")
        except BaseException as exc:
            self._fail(exc)
            raise

    def _drain(self) -> bool:
        """Send from the outbox what goes without waiting; True when it is empty."""
        outbox = self._outbox
        for _ in range(OFFERS):
            if not outbox:
                break
            rest = outbox[0]
            sent = self._send_some(rest.view)
            rest.is_begun = rest.is_begun or bool(sent) or self._is_tls
            if not sent:
                break
            self._moved = rest.moved = time.monotonic()
            rest.view = rest.view[sent:]
            if not rest.view:
                outbox.popleft()
        return not outbox

    def _fail(self, exc: BaseException) -> None:
        """End the connection: half a frame may be out, so nothing can follow it.

        Also after Ctrl-C, since nobody knows whether it came before or after what was
        sent was taken down.

        Raises:
            TransportEnded: In place of what a broken socket raised.
        """
        is_broken = isinstance(exc, (OSError, ValueError))
        if not self._closed and (is_broken or isinstance(exc, TransportEnded)):
            self._why = self._explain(exc) if is_broken else str(exc)
        self.close()
        if is_broken:
            raise TransportEnded(self._explain(exc)) from exc

    def _send_some(self, view: memoryview) -> int:
        """Send what fits now. TLS takes all of a record or none of it.

        What TLS did not take must be offered again before anything else.
        """
        try:
            if not self._is_tls:
                return self._sock.send(view, DONT_WAIT)
            if self._turns is None:  # one thread has it for itself so far
                return self._sock.send(view[:TLS_RECORD])
            with self._turns:
                return self._sock.send(view[:TLS_RECORD])
        except _NOT_NOW:
            return 0

    def ping(self) -> bool:
        """Send a ping unless something is still to be sent; False when it is not out.

        Raises:
            TransportEnded: The connection is over.
        """
        return not self._outbox and self._offer(frame_of(PING, b"")) is None

    def pong(self, data: bytes) -> None:
        """Answer a ping, as soon as that goes; of several that wait the last one.

        Only for one thread at a time.

        Raises:
            TransportEnded: The connection is over.
        """
        frame = frame_of(PONG, data)
        with self._sending:
            waits = self._pong
            if waits is not None and waits.view and not waits.is_begun:
                waits.view = memoryview(frame)
                return
        self._pong = self._offer(frame)


def wait(sock: socket.socket, event: int, limit: float | None = None) -> bool:
    """Wait until a socket can be read or written; False when the time is over."""
    with Selector() as selector:
        selector.register(sock, event)
        return bool(selector.select(limit))


def frame_of(first: int, payload: bytes) -> bytes:
    """A whole masked frame, as clients must send it."""
    length = len(payload)
    key = os.urandom(4)
    if length < 126:
        head = bytes((first, _MASKED | length))
    elif length < 65536:
        head = bytes((first, _MASKED | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((first, _MASKED | 127)) + length.to_bytes(8, "big")
    pad = (key * (length // 4 + 1))[:length]
    masked = int.from_bytes(payload, "little") ^ int.from_bytes(pad, "little")
    return head + key + masked.to_bytes(length, "little")
