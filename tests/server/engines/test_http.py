"""The HTTP client reads what an engine sends, however the bytes arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmstudio.server.engines.http import (
    BadReply,
    ChunkedDecoder,
    EventDecoder,
    HTTPClient,
    Refused,
)
from server.engines.helpers import chunked


class Cut(bytes):
    """A reply after which the server closes the connection."""


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
NO_WAY = b'{"error":{"message":"no way"}}'


def served(
    replies: list[bytes], use: Callable[[HTTPClient], Awaitable[Any]]
) -> tuple[Any, list[bytes], int]:
    """Run a client against a server that answers each request with the next reply.

    Returns what `use` returned, the requests and the number of connections.
    """
    requests: list[bytes] = []
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            while replies:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].split(b"\r")[0]
                requests.append(head + await reader.readexactly(int(length or 0)))
                reply = replies.pop(0)
                writer.write(reply)
                if isinstance(reply, Cut):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    async def run() -> Any:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        client = HTTPClient(server.sockets[0].getsockname()[1], "the key")
        try:
            return await asyncio.wait_for(use(client), 5)
        finally:
            client.close()
            server.close()
            for writer in writers:
                writer.transport.abort()
            await asyncio.gather(
                *(writer.wait_closed() for writer in writers), return_exceptions=True
            )

    return asyncio.run(run()), requests, len(writers)


@pytest.mark.slow
@given(st.lists(st.binary(min_size=1, max_size=40)), st.integers(1, 50))
def test_a_chunked_body_survives_any_cut(parts, cut):
    """The body is the same wherever the bytes on the wire are cut."""
    wire = chunked(*parts)
    decoder = ChunkedDecoder()
    pieces = [decoder.feed(wire[i : i + cut]) for i in range(0, len(wire), cut)]

    assert b"".join(parts) == b"".join(pieces)
    assert decoder.done


def test_a_chunk_may_have_an_extension():
    """What follows the length of a chunk behind a semicolon is left out."""
    assert b"abc" == ChunkedDecoder().feed(b"3;name=value\r\nabc\r\n")


@pytest.mark.parametrize("wire", [b"xyz\r\n", b"\r\n", b"a" * 2000])
def test_what_is_no_chunk_is_refused(wire):
    """A body that is not chunked ends in an error and is not read forever."""
    with pytest.raises(BadReply, match="chunk"):
        ChunkedDecoder().feed(wire)


@pytest.mark.parametrize("cut", range(1, 12))
def test_events_survive_any_cut(cut):
    """Events are found wherever the body is cut; comments are left out."""
    body = (
        b"data: one\n\n: ping\n\ndata:two\n\nevent: x\ndata: a\ndata: b\n\ndata: rest"
    )
    decoder = EventDecoder()
    found = [
        e for i in range(0, len(body), cut) for e in decoder.feed(body[i : i + cut])
    ]

    assert [b"one", b"two", b"a\nb"] == found


def test_a_call_carries_the_key_and_keeps_its_connection():
    """Two calls one after another share a connection, and both carry the key."""

    async def use(client):
        return [await client.call("/one"), await client.call("/two", {"ä": 1})]

    replies, requests, connections = served([OK, OK], use)

    assert [{}, {}] == replies
    assert 1 == connections
    assert requests[0].startswith(b"GET /one HTTP/1.1\r\n")
    assert requests[1].startswith(b"POST /two HTTP/1.1\r\n")
    assert all(b"\r\nAuthorization: Bearer the key\r\n" in r for r in requests)
    assert requests[1].endswith(b'\r\n\r\n{"\\u00e4":1}')


def test_a_stale_connection_is_replaced():
    """A call whose kept connection was closed meanwhile is sent on a new one."""

    async def use(client):
        return [await client.call("/one"), await client.call("/two")]

    replies, requests, connections = served([OK, Cut(), OK], use)

    assert [{}, {}] == replies
    assert 2 == connections
    assert [b"/one", b"/two", b"/two"] == [r.split(b" ")[1] for r in requests]


def test_calls_at_once_have_connections_of_their_own():
    """Two calls at the same time don't wait for each other, and one stays open."""

    async def use(client):
        await asyncio.gather(client.call("/one"), client.call("/two"))
        return await client.call("/three")

    _, _, connections = served([OK] * 3, use)

    assert 2 == connections


@pytest.mark.parametrize(
    ("reply", "status", "message"),
    [
        (
            b"HTTP/1.1 400 X\r\nContent-Length: %d\r\n\r\n%b" % (len(NO_WAY), NO_WAY),
            400,
            "no way",
        ),
        (b"HTTP/1.1 503 X\r\nContent-Length: 4\r\n\r\noops", 503, "oops"),
        (b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", 500, "HTTP status 500"),
    ],
)
def test_a_refusal_says_why(reply, status, message):
    """Any status but 200 raises, with the engine's own words if there are any."""
    for method in ("call", "stream"):

        async def use(client, method=method):
            with pytest.raises(Refused) as caught:
                await getattr(client, method)("/x", {})
            return caught.value

        refused, _, _ = served([reply], use)

        assert status == refused.status
        assert message == refused.message


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 two OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{not}",
        STREAM + b"5\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
    ],
)
def test_a_broken_reply_is_an_error(reply):
    """What is cut off, or not HTTP at all, is a `ConnectionError`."""

    async def use(client):
        with pytest.raises(ConnectionError):
            await client.call("/x")

    served([Cut(reply)], use)


def test_a_reply_may_come_in_chunks_or_end_with_its_connection():
    """A whole reply is read in each of the ways to say where it ends."""

    async def use(client):
        return [await client.call("/one"), await client.call("/two")]

    in_chunks = STREAM + chunked(b"[1,", b"2]")
    to_the_end = Cut(b"HTTP/1.1 200 OK\r\n\r\n[3]")
    replies, _, connections = served([in_chunks, to_the_end], use)

    assert [[1, 2], [3]] == replies
    assert 2 == connections


def test_a_closed_client_keeps_no_connection():
    """A call that ends after `close` leaves no connection behind."""

    async def use(client):
        client.close()
        return [await client.call("/one"), await client.call("/two")]

    _, _, connections = served([OK, OK], use)

    assert 2 == connections


def test_a_stream_gives_events_as_they_arrive():
    """Events come before the reply is complete, and nothing more after its end."""

    async def use(client):
        stream = await client.stream("/x", {})
        found = []
        while events := await stream.read():
            found.extend(events)
        stream.close()
        stream.close()
        return found

    body = chunked(b"data: on", b"e\n\ndata: two\n\n", b": ping\n\n")
    found, _, _ = served([STREAM + body], use)

    assert [b"one", b"two"] == found


def test_a_stream_that_breaks_off_is_an_error():
    """A connection that ends in mid-stream is told from the end of the stream."""

    async def use(client):
        stream = await client.stream("/x", {})
        assert [b"one"] == await stream.read()
        with pytest.raises(BadReply, match="mid-stream"):
            await stream.read()
        stream.close()

    served([Cut(STREAM + b"b\r\ndata: one\n\n\r\n")], use)


def test_a_reply_that_is_no_stream_is_an_error():
    """A whole reply where a stream was asked for is refused, not waited for."""

    async def use(client):
        with pytest.raises(BadReply, match="not a stream"):
            await client.stream("/x", {})

    served([OK], use)


def test_no_engine_is_a_connection_error():
    """Nobody listening is a `ConnectionError` as well."""

    async def use():
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        with pytest.raises(ConnectionError):
            await HTTPClient(port, "key").call("/x")

    asyncio.run(use())
