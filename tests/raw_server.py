"""A server of bare sockets: tests decide about every byte that a client gets."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import queue
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from typing import Any

#: How long a test waits for what must come, seconds.
PATIENCE = 5.0
TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(first: int, payload: bytes = b"", mask: bytes | None = None) -> bytes:
    """A frame as servers send it; with a mask, as clients do."""
    length, bit = len(payload), 0x80 if mask else 0
    if length < 126:
        head = bytes((first, bit | length))
    elif length < 65536:
        head = bytes((first, bit | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((first, bit | 127)) + length.to_bytes(8, "big")
    if mask is None:
        return head + payload
    return head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))


class RawPeer:
    """One connection of a client.

    Attributes:
        socket: Its socket.
        request: The head of its HTTP request.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.request = b""

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.socket.sendall(data)

    def text(self, message: Any) -> None:
        """Send JSON in a frame."""
        self.send(frame(TEXT, json.dumps(message).encode()))

    def exactly(self, count: int) -> bytes:
        """So many bytes; EOFError at the end."""
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise EOFError(f"the client ended after {len(data)} of {count} bytes")
            data += more
        return data

    def frame(self) -> tuple[int, bytes]:
        """The next frame: its first byte and what it carries."""
        first, second = self.exactly(2)
        assert second & 0x80, "clients must mask"
        length = second & 0x7F
        if length > 125:
            length = int.from_bytes(self.exactly(2 if length == 126 else 8), "big")
        mask, data = self.exactly(4), self.exactly(length)
        whole = (mask * (length // 4 + 1))[:length]
        number = int.from_bytes(data, "big") ^ int.from_bytes(whole, "big")
        return first, number.to_bytes(length, "big")

    def json(self) -> Any:
        """The next text frame, parsed; control frames are skipped."""
        while True:
            first, data = self.frame()
            if first == TEXT:
                return json.loads(data)

    def upgrade(self) -> None:
        """Answer the request that opens a websocket."""
        while b"\r\n\r\n" not in self.request:
            self.request += self.exactly(1)
        fields = dict(
            line.split(b": ", 1) for line in self.request.split(b"\r\n")[1:] if line
        )
        digest = hashlib.sha1(fields[b"Sec-WebSocket-Key"] + _MAGIC).digest()
        self.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Accept: "
            + base64.b64encode(digest)
            + b"\r\n\r\n"
        )

    def closed(self) -> bool:
        """Wait for the client to end the connection; False if it sends instead."""
        try:
            while data := self.socket.recv(65536):
                if data[:1] != bytes((CLOSE,)):
                    return False
        except ConnectionError:
            pass
        return True

    def reset(self) -> None:
        """End the connection with a reset."""
        linger = struct.pack("ii", 1, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.socket.close()

    def close(self) -> None:
        """End the connection."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)
        self.socket.close()


class RawServer:
    """Accepts connections on a loopback port and hands them to the test.

    Args:
        steps: What is done for a client before the test gets it: ``"auth"`` the
            upgrade and authentication, ``"upgrade"`` only that, ``""`` nothing.
        context: For TLS.
        small: Whether sockets hold as few bytes as possible.

    Attributes:
        port: The port.
        host: ``127.0.0.1:<port>``.
        auths: The first messages of clients.
    """

    def __init__(
        self,
        steps: str = "auth",
        *,
        context: ssl.SSLContext | None = None,
        small: bool = False,
        family: socket.AddressFamily = socket.AF_INET,
        port: int = 0,
    ) -> None:
        self._steps, self._context = steps, context
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if small:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        local = "127.0.0.1" if family == socket.AF_INET else "::1"
        self._listener.bind((local, port))
        self._listener.listen(128)
        self.port = self._listener.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"
        self.auths: list[Any] = []
        self._peers: queue.Queue[RawPeer | BaseException] = queue.Queue()
        self._all: list[RawPeer] = []
        self._thread = threading.Thread(target=self._accept, name="raw-server")
        self._thread.start()

    def __enter__(self) -> RawServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Close everything. Safe to repeat."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for peer in self._all:
            peer.close()

    def peer(self) -> RawPeer:
        """The next client; raises what went wrong with it."""
        peer = self._peers.get(timeout=PATIENCE)
        if isinstance(peer, BaseException):
            raise peer
        return peer

    @property
    def accepted(self) -> int:
        """How many connections came."""
        return len(self._all)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(PATIENCE)
            peer = RawPeer(sock)
            self._all.append(peer)
            try:
                self._prepare(peer)
            except (OSError, EOFError) as exc:
                self._peers.put(exc)
            else:
                self._peers.put(peer)

    def _prepare(self, peer: RawPeer) -> None:
        if self._context is not None:
            peer.socket = self._context.wrap_socket(peer.socket, server_side=True)
        if self._steps:
            peer.upgrade()
        if self._steps == "auth":
            self.auths.append(peer.json())
            peer.text({"success": True})


@contextlib.contextmanager
def http_server(answer: bytes, *, hold: bool = False) -> Iterator[int]:
    """A port that answers every request with the same bytes.

    Args:
        hold: Leaves the connection open after the answer.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held: list[socket.socket] = []

        def run() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                held.append(sock)
                sock.settimeout(PATIENCE)
                with contextlib.suppress(OSError):
                    sock.recv(65536)
                    sock.sendall(answer)
                    if not hold:
                        sock.shutdown(socket.SHUT_RDWR)
                        sock.close()

        thread = threading.Thread(target=run, name="http-server")
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            for sock in held:
                sock.close()
            thread.join()


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def open_files() -> int:
    """How many file descriptors this process has; 0 where that can't be told."""
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
