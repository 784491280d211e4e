"""A websocket as the reader and the senders use it; the only user of the library."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import websocket
from websocket._url import get_proxy_info

from .address import Address
from .dial import RESOURCES, NotReached, dial, left, secured, trusting
from .errors import shown
from .sender import CLOSE, DONT_WAIT, TEXT, Sender, TransportEnded, frame_of, wait

#: Bytes asked of the socket at once: some 300 fragments.
READ_SIZE = 65536
#: Bytes of a message that is received, at most: ten times what servers take. A length
#: beyond it is believed to be wrong, and nothing is kept for it.
LARGEST_RECEIVED = 1024**3

_FINAL = 0x80


class Redirected(websocket.WebSocketBadStatusException):
    """The server sends clients elsewhere, and may not decide that."""

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        where = shown(headers.get("location"))
        said = f"it redirects to {where} (HTTP status {status}), which is not followed"
        super().__init__(said, status)


class _WebSocket(websocket.WebSocket):
    """The library's socket with a read buffer, and with control frames handed out.

    Whole unfragmented text frames are cut out of the buffer by `cut`. Every other
    frame takes the library's way, which reads through the same buffer.
    """

    on_ping: Callable[[bytes], None] = staticmethod(lambda data: None)
    heard = 0.0  # time.monotonic of the last bytes, control frames included
    whole = 0.0  # the same of the bytes with which a frame ended last
    #: Set where reading and writing a TLS socket must take turns: OpenSSL can't do
    #: both at once. Held for calls that don't wait, and never longer.
    turns: threading.Lock | None = None
    #: `time.monotonic` when connecting ends, however often something comes; then None.
    deadline: float | None = None
    _buffer, _position = b"", 0
    _begun = 0  # bytes of a message of which more fragments will come

    def _more(self) -> bytes:
        # The library's own `_recv` would free the socket at its end, under the hands
        # of those who send.
        sock = self.sock
        assert sock is not None
        if self.deadline is not None:
            sock.settimeout(_before(self.deadline))
        data = sock.recv(READ_SIZE) if self.turns is None else self._from_tls(sock)
        if not data:
            raise websocket.WebSocketConnectionClosedException("end of the stream")
        self.heard = time.monotonic()
        return data

    def _from_tls(self, sock: socket.socket) -> bytes:
        assert self.turns is not None
        while True:
            try:
                with self.turns:
                    return sock.recv(READ_SIZE)
            except ssl.SSLWantReadError:
                wait(sock, selectors.EVENT_READ)
            except ssl.SSLWantWriteError:
                wait(sock, selectors.EVENT_WRITE)

    def _recv(self, bufsize: int) -> bytes:
        position = self._position
        data = self._buffer[position : position + bufsize]
        if not data:
            self._buffer, position = self._more(), 0
            data = self._buffer[:bufsize]
        self._position = position + len(data)
        return data

    def cut(self) -> list[bytes]:
        """Payloads of the next messages: all that one read brought, at least one."""
        buffer, position = self._buffer, self._position
        while True:
            payloads: list[bytes] = []
            add = payloads.append
            have = len(buffer)
            while have - position >= 2:
                length, start = buffer[position + 1], position + 2
                if buffer[position] != TEXT or length > 126:
                    self._buffer, self._position = buffer, position
                    if not payloads:
                        return [self._odd_frame()]
                    self.whole = self.heard
                    return payloads
                if length == 126:
                    if have - position < 4:
                        break
                    length = buffer[position + 2] << 8 | buffer[position + 3]
                    start = position + 4
                end = start + length
                if end > have:
                    break
                add(buffer[start:end])
                position = end
            # Kept before reading on, so that nothing is lost when the read fails.
            self._buffer, self._position = buffer, position
            if payloads:
                self.whole = self.heard
                return payloads
            chunk = self._more()
            buffer = buffer[position:] + chunk if position < have else chunk
            position = 0

    def _odd_frame(self) -> bytes:
        opcode, data = self.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            code = int.from_bytes(data[:2], "big") if len(data) >= 2 else 1005
            reason = data[2:].decode("utf-8", "replace")
            said = f"code {code}" + (f", {reason!r}" if reason else "")
            raise TransportEnded(f"the server closed the connection ({said})")
        if opcode == websocket.ABNF.OPCODE_BINARY:
            raise TransportEnded("the server sent a binary frame")
        payload: bytes = data
        return payload

    def recv_frame(self) -> Any:
        """The next frame, if its length can be meant."""
        first, size = self._header()
        is_control = bool(first & 0x08)  # it may come in the midst of a message
        size += 0 if is_control else self._begun
        if size > LARGEST_RECEIVED:
            raise TransportEnded(
                f"the server announced a message of {size} bytes; it may have"
                f" {LARGEST_RECEIVED}"
            )
        found = super().recv_frame()  # type: ignore[no-untyped-call]  # the library's
        self.whole = self.heard
        if not is_control:
            self._begun = 0 if first & _FINAL else size
        return found

    def _header(self) -> tuple[int, int]:
        """The first byte of the next frame, and its length; nothing is consumed."""
        self._have(2)
        first, length = self._buffer[self._position : self._position + 2]
        width = {126: 2, 127: 8}.get(length & 0x7F, 0)
        if not width:
            return first, length & 0x7F
        self._have(2 + width)
        start = self._position + 2
        return first, int.from_bytes(self._buffer[start : start + width], "big")

    def _have(self, count: int) -> None:
        while len(self._buffer) - self._position < count:
            more = self._more()
            self._buffer = self._buffer[self._position :] + more
            self._position = 0

    # The library would answer these from the reader's thread. It must never wait for
    # a sender, so the answer is left to `on_ping`; a close needs none, since the
    # socket is shut down next.

    def pong(self, payload: str | bytes = "") -> None:
        self.on_ping(payload if isinstance(payload, bytes) else payload.encode())

    def send_close(self, status: int = 1000, reason: str | bytes = b"") -> None:
        pass


class Transport(Sender):
    """A connected websocket: one thread reads, any thread sends or closes."""

    def __init__(self, ws: _WebSocket) -> None:
        assert ws.sock is not None  # it is connected
        super().__init__(ws.sock, explain)
        self._ws = ws
        # Guards `_closed` and the file descriptor while it is shut or freed; never
        # held across a wait. Reentrant for signal handlers.
        self._ending = threading.RLock()

    @classmethod
    def connect(cls, address: Address, namespace: str, timeout: float) -> Transport:
        """Open the socket of a namespace. Raises what `dial` and the library raise.

        Args:
            timeout: Seconds for connecting, for the handshake, and for all that is
                read until `ready` is called, together.
        """
        deadline = time.monotonic() + timeout
        is_proxied = has_proxy(address)
        ws = _WebSocket(
            enable_multithread=False,  # locking is done here
            skip_utf8_validation=True,  # decoding is strict anyway, and quick
            sslopt={"context": trusting()} if is_proxied and address.tls else None,
        )
        # The library gives up at the first address that fails in a way of its own, and
        # asks no proxy where it is handed a socket.
        sock = None if is_proxied else _direct(address, deadline)
        ws.settimeout(left(deadline))
        try:
            ws.connect(  # type: ignore[no-untyped-call]  # the library's
                address.socket_url(namespace),
                # The library's time limit is for each byte of the server's answer.
                socket=None if sock is None else _Timed(sock, deadline),
                suppress_origin=True,  # servers take an Origin for a browser
                redirect_limit=0,  # credentials go to nobody but who was named
            )
        except BaseException as exc:
            if sock is not None:
                sock.close()
            answer = ws.handshake_response
            if answer is not None and answer.status != _SWITCHING:
                raise Redirected(answer.status, answer.headers) from exc
            raise
        ws.sock, ws.deadline = sock or ws.sock, deadline
        return cls(ws)

    @property
    def heard(self) -> float:
        """`time.monotonic` of the last bytes that came, pongs included."""
        return self._ws.heard

    @property
    def is_mid_frame(self) -> bool:
        """Whether the last bytes that came did not end a frame."""
        return self._ws.heard > self._ws.whole

    def ready(
        self,
        on_ping: Callable[[bytes], None],
        on_rest: Callable[[], None] = lambda: None,
    ) -> None:
        """From now on reads wait for ever, and pings are handed to the callback.

        Args:
            on_rest: Called when something is left to be sent that nobody may wait for:
                `flush` is to be called until nothing is left.
        """
        self._ws.on_ping, self._on_rest, self._ws.deadline = on_ping, on_rest, None
        if self._is_tls:
            self._ws.turns = threading.Lock()
            self._turns = self._ws.turns
            self._ws.settimeout(0)
        else:
            self._ws.settimeout(None)

    def read(self) -> list[bytes]:
        """Wait for messages and return the payloads of all that are here.

        Raises:
            TransportEnded: The connection is over; the message says why.
        """
        try:
            return self._ws.cut()
        except TransportEnded:
            raise
        except Exception as exc:
            if self._closed:
                raise TransportEnded(self._why) from exc
            raise TransportEnded(explain(exc)) from exc

    def close(self) -> None:
        """Shut the socket down, which ends the reader. Any thread, any number of times.

        The file descriptor itself is freed by `dispose`: freeing it while another
        thread reads could hit a new file of the same number.
        """
        with self._ending:
            if self._closed:
                return
            self._closed = True
            # A farewell if it fits; no waiting for an answer. Not into the middle of
            # another frame, which it could complete with rubbish.
            if not self._is_tls and self._sending.acquire(blocking=False):
                try:
                    if not self._outbox:
                        farewell = frame_of(CLOSE, (1000).to_bytes(2, "big"))
                        self._sock.send(farewell, DONT_WAIT)
                except OSError:
                    pass
                finally:
                    self._sending.release()
            try:
                # Not the method of TLS sockets, after which writes would be in clear.
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
            except OSError:
                pass

    def forsake(self) -> None:
        """Free this process's copy of the socket without ending the connection."""
        super().forsake()
        self._ending = threading.RLock()

    def dispose(self) -> None:
        """Free the file descriptor. Only the reader calls it, at its end."""
        self.close()
        with self._sending, self._ending:  # nobody is in the middle of a send
            self._outbox.clear()
            self._ws.shutdown()  # type: ignore[no-untyped-call]  # the library's


_SWITCHING = 101  # the HTTP status with which a websocket begins


def explain(exc: BaseException) -> str:
    """One short sentence for what went wrong on a socket."""
    if isinstance(exc, websocket.WebSocketConnectionClosedException):
        return "the server ended the connection"
    if isinstance(exc, NotReached):
        return _explain_all(exc)
    if isinstance(exc, Redirected):
        return str(exc)
    if isinstance(exc, websocket.WebSocketBadStatusException):
        return f"it answers with HTTP status {exc.status_code}"
    if isinstance(exc, websocket.WebSocketException) and not _is_timeout(exc):
        return f"websocket error: {exc!s:.200}"
    if isinstance(exc, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(exc, ConnectionResetError):
        return "the server reset the connection"
    if _is_timeout(exc):
        return "no answer in time"
    if isinstance(exc, ssl.SSLError):  # its errno is not the system's
        said = getattr(exc, "verify_message", None) or getattr(exc, "reason", None)
        return f"TLS: {said or exc}"
    if isinstance(exc, socket.gaierror):  # nor is this one's
        return f"{exc.strerror or exc}"
    number = exc.errno if isinstance(exc, OSError) else None
    if number is not None and number in errno.errorcode:
        return f"{os.strerror(number)} ({errno.errorcode[number]})"
    return f"{type(exc).__name__}: {exc!s:.200}"


def _explain_all(exc: NotReached) -> str:
    """The same for a host with several addresses, which may have failed differently."""
    words = {where: explain(failure) for where, failure in exc.failures}
    if len(set(words.values())) == 1:
        return f"{explain(exc.failures[0][1])} at {' and '.join(words)}"
    return "; ".join(f"{said} at {where}" for where, said in words.items())


def _is_timeout(exc: BaseException) -> bool:
    return isinstance(exc, (TimeoutError, websocket.WebSocketTimeoutException))


def failure_kind(exc: BaseException, address: Address) -> str:
    """What kind of failure kept a connection from being made.

    Returns:
        ``"refused"``, ``"timeout"``, ``"name"``, ``"tls"``, ``"status"`` (an HTTP
        answer that is no websocket), ``"proxy"``, ``"resources"`` or ``"unreachable"``.
    """
    if isinstance(exc, NotReached):
        exc = exc.failures[0][1]
    foreign = (ssl.SSLError, socket.gaierror)  # whose numbers are not the system's
    is_systems = isinstance(exc, OSError) and not isinstance(exc, foreign)
    if is_systems and getattr(exc, "errno", None) in RESOURCES:
        return "resources"
    if isinstance(exc, ssl.SSLError) and not _is_timeout(exc):
        return "tls"
    if isinstance(exc, websocket.WebSocketProxyException):
        return "proxy"
    is_net = isinstance(exc, (OSError, websocket.WebSocketAddressException))
    if is_net and has_proxy(address):
        return "proxy"  # it is the proxy that was not reached
    if isinstance(exc, ConnectionRefusedError):
        return "refused"
    if _is_timeout(exc):
        return "timeout"
    names = (socket.gaierror, websocket.WebSocketAddressException, UnicodeError)
    if isinstance(exc, names):
        return "name"
    is_answer = isinstance(exc, ConnectionResetError) or not isinstance(exc, OSError)
    return "status" if is_answer else "unreachable"


def has_proxy(address: Address) -> bool:
    """Whether the variables of the environment name a proxy for an address."""
    if address.is_private:
        return False
    try:
        return bool(get_proxy_info(address.host, address.tls)[0])
    except ValueError as exc:
        raise websocket.WebSocketProxyException(f"wrong proxy variable: {exc}") from exc


def _before(deadline: float) -> float:
    """Seconds until then; raises when it is over."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("timed out")
    return seconds


class _Timed:
    """A socket whose waits all end at one deadline."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock, self._deadline = sock, deadline

    def recv(self, size: int) -> bytes:
        self._sock.settimeout(_before(self._deadline))
        return self._sock.recv(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def _direct(address: Address, deadline: float) -> socket.socket:
    """A socket to a server that no proxy is meant for."""
    sock = dial(address.host, address.port, deadline)
    return secured(sock, address.host, deadline) if address.tls else sock
