"""However a stream is cut into reads, its frames are the same, and the library's."""

from __future__ import annotations

import pytest
import websocket
from hypothesis import example, given
from hypothesis import strategies as st

from lmstudio import transport as module
from lmstudio.transport import TransportEnded, _WebSocket
from raw_server import BINARY, CLOSE, PING, PONG, TEXT, frame

MASK = b"\x01\x02\x03\x04"


class Chunks:
    """A socket that brings what it was given, piece by piece, and then ends."""

    def __init__(self, data, cuts):
        ends = [*sorted(c for c in cuts if c < len(data)), len(data)]
        starts = [0, *ends[:-1]]
        self._chunks = [data[a:b] for a, b in zip(starts, ends, strict=True) if a < b]

    def recv(self, size):
        if not self._chunks:
            return b""
        data, self._chunks[0] = self._chunks[0][:size], self._chunks[0][size:]
        if not self._chunks[0]:
            del self._chunks[0]
        return data

    def gettimeout(self):
        return None

    def close(self):
        pass

    def send(self, data):
        return len(data)


def read_by_us(data, cuts):
    """The messages and pings that our cutter finds, until the end."""
    ws = _WebSocket(skip_utf8_validation=True, enable_multithread=False)
    ws.sock = Chunks(data, cuts)
    pings, messages = [], []
    ws.on_ping = pings.append
    try:
        while True:
            messages += ws.cut()
    except (TransportEnded, websocket.WebSocketException):
        return messages, pings


def read_by_library(data, cuts):
    """The same by the library's own parser."""
    pings, messages = [], []

    class Plain(websocket.WebSocket):
        def pong(self, payload=""):
            pings.append(payload)

        def send_close(self, status=1000, reason=b""):
            pass

    ws = Plain(skip_utf8_validation=True)
    ws.sock = Chunks(data, cuts)
    try:
        while True:
            opcode, payload = ws.recv_data()
            if opcode != websocket.ABNF.OPCODE_TEXT:
                return messages, pings
            messages.append(payload)
    except websocket.WebSocketException:
        return messages, pings


small = st.binary(max_size=130)
long = st.integers(65530, 65540).map(lambda size: b"x" * size)
whole = st.builds(frame, st.just(TEXT), small | long)
masked = st.builds(frame, st.just(TEXT), small, st.just(MASK))
control = st.builds(frame, st.sampled_from((PING, PONG)), st.binary(max_size=125))


@st.composite
def fragmented(draw):
    """A text in fragments, with control frames between them."""
    parts = draw(st.lists(small, min_size=2, max_size=4))
    data = frame(0x01, parts[0])
    for part in parts[1:-1]:
        data += draw(control | st.just(b"")) + frame(0x00, part)
    return data + draw(control | st.just(b"")) + frame(0x80, parts[-1])


streams = st.lists(whole | masked | control | fragmented(), max_size=12).map(b"".join)
cuts = st.lists(st.integers(1, 70000), max_size=8)


@pytest.mark.slow
@given(streams, cuts)
@example(frame(TEXT, b"a" * 125) + frame(TEXT, b"b" * 126), [1, 2, 128, 129, 130, 131])
@example(frame(TEXT, b"a" * 65535) + frame(TEXT, b"b" * 65536), [3, 65539, 65541])
def test_every_split_gives_the_same_messages(data, cuts):
    """However the stream is cut into reads, our parser and the library's agree."""
    assert read_by_library(data, []) == read_by_us(data, cuts)


def stretched(payload, width):
    """A text whose length is written in 2 or 8 bytes, though fewer would do."""
    head = bytes((TEXT, 126 if width == 2 else 127))
    return head + len(payload).to_bytes(width, "big") + payload


closes = st.builds(
    lambda code, reason: frame(CLOSE, code.to_bytes(2, "big") + reason),
    st.sampled_from((1000, 1001, 1008, 1011, 4000)),
    st.sampled_from((b"", b"bye", "später".encode())),
) | st.just(frame(CLOSE))
odd = (
    closes
    | st.builds(stretched, small, st.sampled_from((2, 8)))
    | st.builds(frame, st.just(BINARY), small)
    | small.map(lambda part: frame(0x01, part))  # begun, and interrupted
    | small.map(lambda part: frame(0x80, part))  # ended, but not begun
)


@pytest.mark.slow
@given(st.lists(whole | control | fragmented() | odd, max_size=8), st.data(), cuts)
@example([stretched(b"x", 8), frame(TEXT, b"y"), frame(CLOSE)], None, [1, 2, 9, 10])
@example([frame(0x01, b"x"), frame(CLOSE, b"\x03\xe8"), frame(TEXT, b"y")], None, [4])
def test_ends_anywhere(frames, data, cuts):
    """A close, another frame, or the end of the stream, in the middle of anything."""
    stream = b"".join(frames)
    # Seldom a close: the end of the stream, also inside a header or a payload.
    end = len(stream) if data is None else data.draw(st.integers(0, len(stream)))

    assert read_by_library(stream[:end], []) == read_by_us(stream[:end], cuts)


@pytest.mark.slow
@given(st.sampled_from((1000, 1001, 1008, 4000)), st.text(max_size=30), cuts)
def test_a_close_says_why(code, reason, cuts):
    """The code and the reason of a close come out, wherever the stream is cut."""
    said = frame(CLOSE, code.to_bytes(2, "big") + reason.encode())
    ws = _WebSocket(skip_utf8_validation=True, enable_multithread=False)
    ws.sock = Chunks(frame(TEXT, b"{}") + said, [c % 40 + 1 for c in cuts])

    assert [b"{}"] == ws.cut()
    with pytest.raises(TransportEnded) as caught:
        ws.cut()
    expected = f"code {code}" + (f", {reason!r}" if reason else "")
    assert f"the server closed the connection ({expected})" == str(caught.value)


@pytest.mark.slow
@given(st.lists(st.binary(max_size=40) | whole | control).map(b"".join), cuts)
def test_rubbish_ends_where_the_library_ends(data, cuts):
    """Bytes that are no frames end the stream after the same messages."""
    assert read_by_library(data, []) == read_by_us(data, cuts)


def announced(first, size):
    """The head of a frame that says it has so many bytes."""
    return bytes((first, 127)) + size.to_bytes(8, "big")


ABSURD = (2**63 - 1, 2**64 - 1, 1024**3 + 1)


@pytest.mark.parametrize("size", ABSURD)
@pytest.mark.parametrize("first", [TEXT, BINARY, 0x01, PING, PONG, CLOSE])
def test_an_absurd_length_is_not_believed(first, size):
    """The connection ends at the length itself: nothing behind it is even read."""
    ws = _WebSocket(skip_utf8_validation=True, enable_multithread=False)
    ws.sock = Chunks(frame(TEXT, b"{}") + announced(first, size) + b"x" * 99, [3, 6])

    assert [b"{}"] == ws.cut()
    with pytest.raises(TransportEnded) as caught:
        ws.cut()
    assert (
        f"the server announced a message of {size} bytes; it may have {1024**3}"
    ) == str(caught.value)


def test_fragments_have_the_limit_together(monkeypatch):
    """Fragments count as one message, what comes between them does not."""
    monkeypatch.setattr(module, "LARGEST_RECEIVED", 100)
    whole = [frame(0x01, b"a" * 50), frame(PING, b"p" * 60), frame(0x80, b"b" * 50)]
    long = [frame(0x01, b"a" * 50), frame(0x00, b"b" * 50), frame(0x80, b"c")]

    assert ([b"a" * 50 + b"b" * 50] * 2, [b"p" * 60] * 2) == read_by_us(
        b"".join(whole * 2), []
    )
    ws = _WebSocket(skip_utf8_validation=True, enable_multithread=False)
    ws.sock = Chunks(b"".join(long), [])
    with pytest.raises(TransportEnded, match="a message of 101 bytes; it may have 100"):
        ws.cut()
