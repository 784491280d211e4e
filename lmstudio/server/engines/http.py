"""A small HTTP/1.1 client for an engine on loopback: JSON calls and event streams.

A general client library costs several times the CPU per streamed token, and a token is
the unit of work here. So this one knows only what a local engine sends.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

READ_SIZE = 65536  # bytes; a token's event has about 150


class BadReply(ConnectionError):
    """The other side sent something that is not HTTP, or stopped in the middle."""


class Refused(Exception):
    """The engine answered with a status other than 200.

    Attributes:
        status: The HTTP status.
        error: The ``error`` object of the reply, ``{"message": text}`` without one.
    """

    def __init__(self, status: int, error: dict[str, Any]) -> None:
        super().__init__(status, error)
        self.status = status
        self.error = error

    @property
    def message(self) -> str:
        """What the engine says about it, in one line."""
        return str(self.error.get("message") or f"HTTP status {self.status}")

    def __str__(self) -> str:
        return f"{self.message} (status {self.status})"


class ChunkedDecoder:
    """Takes the chunks of a chunked body apart, however the bytes were cut.

    Attributes:
        done: True when the last chunk has arrived.
    """

    def __init__(self) -> None:
        self.done = False
        self._buffer = b""
        self._left = 0  # bytes of the current chunk still to come, its CRLF included

    def feed(self, data: bytes) -> bytes:
        """Add bytes from the wire; returns the body's bytes among them.

        Raises:
            BadReply: A chunk's length is not a hexadecimal number.
        """
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        body = []
        position, end = 0, len(data)
        while position < end and not self.done:
            if self._left > 0:
                # The last two of the bytes that are left are the chunk's CRLF.
                text_end = position + self._left - 2
                body.append(data[position : max(position, min(end, text_end))])
                taken = min(self._left, end - position)
                position += taken
                self._left -= taken
                continue
            line_end = data.find(b"\r\n", position)
            if line_end < 0:
                self._buffer = data[position:]
                if len(self._buffer) > 1024:
                    raise BadReply(f"not the start of a chunk: {data[:40]!r}")
                break
            size = _hexadecimal(data[position:line_end])
            position = line_end + 2
            self._left = size + 2
            self.done = size == 0
        return b"".join(body)


def _hexadecimal(line: bytes) -> int:
    try:
        return int(line.split(b";", 1)[0], 16)
    except ValueError:
        raise BadReply(f"not the length of a chunk: {line[:40]!r}") from None


class EventDecoder:
    """Cuts a stream of server-sent events into the data of each event."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Add bytes of the body; returns the data of the events they complete.

        Comments and events without data (keep-alives) are left out.
        """
        *events, self._buffer = (self._buffer + data).split(b"\n\n")
        found = []
        for event in events:
            if event.startswith(b"data: ") and b"\n" not in event:
                found.append(event[6:])
                continue
            lines = [line for line in event.split(b"\n") if line.startswith(b"data:")]
            if lines:
                found.append(b"\n".join(line[5:].strip() for line in lines))
        return found


class Stream:
    """A reply that arrives as events. Close it to tell the engine to stop."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._chunks = ChunkedDecoder()
        self._events = EventDecoder()

    async def read(self) -> list[bytes]:
        """Wait for events; returns the data of all that arrived, [] at the end.

        Raises:
            BadReply: The connection ended before the reply did.
            OSError: The connection failed.
        """
        while not self._chunks.done:
            data = await self._reader.read(READ_SIZE)
            if not data:
                raise BadReply("the engine closed the connection in mid-stream")
            events = self._events.feed(self._chunks.feed(data))
            if events:
                return events
        return []

    def close(self) -> None:
        """Drop the connection, at once. Safe to repeat."""
        self._writer.transport.abort()


class HTTPClient:
    """Talks to one engine on a loopback port.

    One idle connection is kept for calls: a new one costs more than a short call does.
    Each stream has its own, since dropping it is how a stream is cancelled.
    """

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._head = (
            f"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\n"
        ).encode()
        self._idle: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._closed = False

    async def call(self, path: str, parameter: Any = None) -> Any:
        """One request, a GET without a parameter; returns the parsed reply.

        Raises:
            Refused: The engine answered with an error.
            OSError: No connection, or it ended before the reply was complete.
        """
        idle, self._idle = self._idle, None
        if idle is not None:
            try:
                return await self._exchange(*idle, path, parameter)
            except OSError:
                pass  # the engine closes idle connections; a fresh one will do
        connection = await asyncio.open_connection("127.0.0.1", self._port)
        return await self._exchange(*connection, path, parameter)

    async def stream(self, path: str, parameter: Any) -> Stream:
        """Start a request whose reply is a stream of events.

        Raises:
            Refused: The engine answered with an error.
            OSError: No connection, or the reply is not a stream.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(self._request(path, parameter))
            status, headers = await _read_head(reader)
            if status != 200:
                raise Refused(status, _error(await _read_body(reader, headers)))
            if headers.get("transfer-encoding", "").lower() != "chunked":
                raise BadReply("the reply is not a stream")
        except BaseException:
            writer.transport.abort()
            raise
        return Stream(reader, writer)

    def close(self) -> None:
        """Drop the idle connection, and keep no other. Safe to repeat."""
        self._closed = True
        if self._idle is not None:
            self._idle[1].transport.abort()
            self._idle = None

    def _request(self, path: str, parameter: Any) -> bytes:
        if parameter is None:
            return b"GET %b HTTP/1.1\r\n%b\r\n" % (path.encode(), self._head)
        body = json.dumps(parameter, separators=(",", ":")).encode()
        return (
            b"POST %b HTTP/1.1\r\n%bContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % (path.encode(), self._head, len(body))
        ) + body

    async def _exchange(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        path: str,
        parameter: Any,
    ) -> Any:
        keep = False
        try:
            writer.write(self._request(path, parameter))
            status, headers = await _read_head(reader)
            body = await _read_body(reader, headers)
            whole = "content-length" in headers  # nothing of it is left to read
            keep = whole and headers.get("connection", "").lower() != "close"
        finally:
            if keep and self._idle is None and not self._closed:
                self._idle = reader, writer
            else:
                writer.transport.abort()
        if status != 200:
            raise Refused(status, _error(body))
        try:
            return json.loads(body)
        except ValueError as exc:
            raise BadReply(f"not JSON: {body[:200]!r}") from exc


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """The status and the headers (names in lower case) of a reply."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as exc:
        raise BadReply("the engine closed the connection without a reply") from exc
    except asyncio.LimitOverrunError as exc:
        raise BadReply("the head of the reply has no end") from exc
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
        raise BadReply(f"not a reply: {first[:200]!r}")
    pairs = (line.partition(":") for line in lines if line)
    return int(words[1]), {name.lower(): value.strip() for name, _, value in pairs}


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    """A whole body, of any of the three ways to say where it ends."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        decoder, parts = ChunkedDecoder(), []
        while not decoder.done:
            data = await reader.read(READ_SIZE)
            if not data:
                raise BadReply("the engine closed the connection in mid-reply")
            parts.append(decoder.feed(data))
        return b"".join(parts)
    length = headers.get("content-length")
    if length is None:
        return await reader.read()
    try:
        return await reader.readexactly(int(length))
    except ValueError as exc:
        raise BadReply(f"not a length: {length[:40]!r}") from exc
    except asyncio.IncompleteReadError as exc:
        raise BadReply("the engine closed the connection in mid-reply") from exc


def _error(body: bytes) -> dict[str, Any]:
    """The ``error`` object of a reply, whatever was sent instead of one."""
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        error = None
    if isinstance(error, dict):
        return error
    return {"message": body[:500].decode("utf-8", "replace").strip()}
