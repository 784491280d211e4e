"""A TCP proxy that harms what passes it, at the message or byte that a test chooses.

No clock decides anything: a fault happens at its place in the stream, or when the test
asks for it.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import attrs

#: How long a test waits for what must come, seconds.
PATIENCE = 5.0

#: What a fault does with a message from its place on; returns what is still to be sent.
Action = Callable[["Flow", bytes], bytes]


class Hold:
    """Lets nothing pass until the test opens it: a delay; else a stall.

    What came meanwhile goes on in one piece.

    Attributes:
        reached: Set when something is held up.
    """

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._opened = threading.Event()

    def open(self) -> None:
        """Let everything pass."""
        self._opened.set()

    def __call__(self, flow: Flow, rest: bytes) -> bytes:
        flow.link.holds.append(self)
        self.reached.set()
        if not flow.link.is_over:  # else whoever ended it may have missed this one
            self._opened.wait()
        return rest


def drop(count: int | None = None) -> Action:
    """So many bytes are lost, or the rest of the message."""
    return lambda flow, rest: rest[len(rest) if count is None else count :]


def corrupt(data: bytes) -> Action:
    """Other bytes stand in place of those that came."""
    return lambda flow, rest: data + rest[len(data) :]


def insert(data: bytes) -> Action:
    """These bytes come before the others."""
    return lambda flow, rest: data + rest


def split(size: int) -> Action:
    """From here on each packet holds so many bytes at most."""

    def begin(flow: Flow, rest: bytes) -> bytes:
        flow.size = size
        return rest

    return begin


def join(count: int) -> Action:
    """So many messages, this one first, go out as one packet."""

    def begin(flow: Flow, rest: bytes) -> bytes:
        flow.gathering = count
        return rest

    return begin


def fin(flow: Flow, rest: bytes) -> bytes:
    """Both sides see an orderly end; the rest is lost."""
    flow.link.close()
    return b""


def reset(flow: Flow, rest: bytes) -> bytes:
    """The client sees a reset; the rest is lost."""
    flow.link.reset()
    return b""


@attrs.frozen
class Fault:
    """Something that happens at a place of a stream.

    Attributes:
        message: 0 is the HTTP head, 1 the first frame.
        byte: The place in that message.
        action: What happens.
    """

    message: int
    byte: int
    action: Action


class Flow:
    """One direction of a connection.

    Attributes:
        link: The connection.
        faults: What is still to happen.
        size: Bytes in a packet at most; None for as they come.
        gathering: Messages to be joined.
        passed: How many messages went through.
    """

    def __init__(self, link: Link, source: socket.socket, sink: socket.socket) -> None:
        self.link = link
        self.faults: list[Fault] = []
        self.size: int | None = None
        self.gathering = 0
        self.passed = 0
        self._source, self._sink = source, sink
        self._held: Hold | None = None
        self._gathered = b""

    def hold(self) -> Hold:
        """Hold up what has not passed yet, and everything after it, from now on."""
        self._held = Hold()
        return self._held

    def run(self) -> None:
        """Pass on what comes. Body of the direction's thread."""
        try:
            for message in self._messages():
                self._pass(message)
            self._sink.shutdown(socket.SHUT_WR)
        except ConnectionResetError:
            self.link.reset()
        except OSError:
            self.link.close()

    def _messages(self) -> Iterator[bytes]:
        """The HTTP head, each frame, and what is left at the end."""
        data, is_framed = bytearray(), True
        while chunk := self._source.recv(262144):
            held = self._held
            if held is not None:  # and no more is read: senders get stuck
                self._held = (
                    None  # only now: a hold that comes just here is for the next
                )
                held(self, chunk)
            data += chunk
            while is_framed and (size := _size(data, is_head=self.passed == 0)):
                message = bytes(data[:size])
                del data[:size]
                if self.passed == 0:
                    is_framed = b"upgrade: websocket" in message.lower()
                yield message
            if not is_framed and data:
                yield bytes(data)
                data.clear()
        if data:
            yield bytes(data)

    def _pass(self, message: bytes) -> None:
        if self.passed == 0 and self is self.link.up:
            self.link.introduce(message)
        done = 0
        here = [f for f in self.faults if f.message == self.passed]
        for fault in sorted(here, key=lambda fault: fault.byte):
            self.faults.remove(fault)
            place = max(0, fault.byte - done)
            if place:  # only when it cuts, so that one at the start can join
                self._send(message[:place])
            message = fault.action(self, message[place:])
            done = fault.byte
        self.passed += 1
        if self.gathering:
            self._gathered += message
            self.gathering -= 1
            if self.gathering:
                return
            message, self._gathered = self._gathered, b""
        self._send(message)

    def _send(self, data: bytes) -> None:
        size = self.size or len(data)
        for start in range(0, len(data), size or 1):
            self._sink.sendall(data[start : start + size])


def _size(data: bytearray, *, is_head: bool) -> int:
    """The length of the first message in the data; 0 when it is not whole."""
    if is_head:
        end = data.find(b"\r\n\r\n")
        return end + 4 if end >= 0 else 0
    if len(data) < 2:
        return 0
    length, start = data[1] & 0x7F, 2
    if length > 125:
        start = 4 if length == 126 else 10
        if len(data) < start:
            return 0
        length = int.from_bytes(data[2:start], "big")
    size = start + length + (4 if data[1] & 0x80 else 0)
    return size if len(data) >= size else 0


class Link:
    """One connection through the proxy.

    Attributes:
        up: What the client sends.
        down: What the server sends.
        path: The path that the client asked for, such as ``"/llm"``.
        tunnel: What a client of a forward proxy asked to be connected with.
        is_over: True once it was ended from here.
        holds: What holds it up.
    """

    def __init__(
        self, proxy: Proxy, client: socket.socket, server: socket.socket
    ) -> None:
        self.path = ""
        self.tunnel = ""
        self.is_over = False
        self.holds: list[Hold] = []
        self._proxy, self._client, self._server = proxy, client, server
        self.up, self.down = Flow(self, client, server), Flow(self, server, client)

    def introduce(self, head: bytes) -> None:
        """Take the faults that were planned for it, before the server hears of it."""
        self.path = head.split(b" ", 2)[1].decode()
        self._proxy.introduce(self)

    def stall(self) -> tuple[Hold, Hold]:
        """Nothing passes any more, up or down, and neither end is told."""
        return self.up.hold(), self.down.hold()

    def reset(self) -> None:
        """End it; the client sees a reset."""
        linger = struct.pack("ii", 1, 0)
        with contextlib.suppress(OSError):
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.is_over = True
        # It goes out when no thread is left that reads: both are woken.
        for sock, how in (
            (self._client, socket.SHUT_RD),
            (self._server, socket.SHUT_RDWR),
        ):
            with contextlib.suppress(OSError):
                sock.shutdown(how)
        self._client.close()
        self._release()

    def close(self) -> None:
        """End it; both sides see an orderly end. Safe to repeat."""
        self.is_over = True
        for sock in (self._client, self._server):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._release()

    def dispose(self) -> None:
        """Free the sockets, once both threads have ended."""
        self._client.close()
        self._server.close()

    def _release(self) -> None:
        for hold in self.holds:
            hold.open()


class Proxy:
    """Listens on a loopback port and passes on to another one.

    Args:
        target: The port of the server.
        tunnels: It is a forward proxy: clients begin with ``CONNECT``. They are
            connected with the target wherever they want to go.

    Attributes:
        host: ``127.0.0.1:<port>``.
        links: The connections so far.
    """

    def __init__(self, target: int, *, tunnels: bool = False) -> None:
        self.links: list[Link] = []
        self._target, self._tunnels = target, tunnels
        self._plans: list[tuple[str, str, Fault]] = []
        self._changed = threading.Condition()  # guards the lists above
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"
        self._start(self._accept, "proxy-accept")

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def plan(
        self,
        direction: str,
        message: int,
        action: Action,
        byte: int = 0,
        path: str = "/llm",
    ) -> None:
        """Harm the next connection that asks for a path.

        Args:
            direction: ``"up"`` to the server, ``"down"`` to the client.
            message: 0 is the HTTP head, 1 the first frame.
        """
        with self._changed:
            self._plans.append((path, direction, Fault(message, byte, action)))

    def link(self, number: int = 0, path: str = "/llm") -> Link:
        """The connection to a path of this number, 0 for the first; waits for it."""

        def found() -> list[Link]:
            return [link for link in self.links if link.path == path][number:]

        with self._changed:
            assert self._changed.wait_for(found, PATIENCE), f"no connection to {path}"
            return found()[0]

    def introduce(self, link: Link) -> None:
        """Hand a connection the faults that were planned for its path."""
        with self._changed:
            for plan in list(self._plans):
                path, direction, fault = plan
                if path == link.path:
                    self._plans.remove(plan)
                    getattr(link, direction).faults.append(fault)
            self._changed.notify_all()

    def refuse(self) -> None:
        """Take no connections any more; those that are open go on."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def stop(self) -> None:
        """End everything."""
        self.refuse()
        self._threads[0].join()
        for link in self.links:
            link.close()
        for thread in self._threads:
            thread.join()
        for link in self.links:
            link.dispose()

    def _start(self, work: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=work, name=name)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                link = self._linked(client)
            except OSError:
                client.close()
                continue
            with self._changed:
                self.links.append(link)
            self._start(link.up.run, "proxy-up")
            self._start(link.down.run, "proxy-down")

    def _linked(self, client: socket.socket) -> Link:
        tunnel = self._asked_tunnel(client) if self._tunnels else ""
        server = socket.create_connection(("127.0.0.1", self._target), PATIENCE)
        server.settimeout(None)
        for sock in (client, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = Link(self, client, server)
        link.tunnel = tunnel
        return link

    @staticmethod
    def _asked_tunnel(client: socket.socket) -> str:
        client.settimeout(PATIENCE)
        head = b""
        while b"\r\n\r\n" not in head:
            more = client.recv(1)
            if not more:
                raise ConnectionError("it asked for nothing")
            head += more
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        client.settimeout(None)
        verb, where, _ = head.decode().split(" ", 2)
        assert verb == "CONNECT"
        return where
