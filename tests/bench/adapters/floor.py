"""A yardstick, not a client: the least work that a thread-backed client on
websocket-client can do.  One reader thread, batches to the waiting threads, a
slotted attrs object per fragment; no validation, no reconnection, no errors.
"""

IMPORTS = ["websocket", "attrs", "json", "queue", "threading"]

import itertools
import json
import socket
import threading
from queue import SimpleQueue

import attrs
import websocket

from adapters.base import SyncAdapter

_scan = json.JSONDecoder().scan_once


def fast(websocket):
    class FastWebSocket(websocket.WebSocket):
        """websocket-client, but whole unfragmented text frames are cut out of
        one large read here; all else (control frames, fragments, 64-bit
        lengths, frames with reserved bits) takes websocket-client's own path,
        which reads through the same buffer.
        """

        _buf, _pos = b"", 0

        def _recv(self, n):
            pos = self._pos
            data = self._buf[pos : pos + n]
            if not data:
                self._buf, pos = super()._recv(65536), 0
                data = self._buf[:n]
            self._pos = pos + len(data)
            return data

        def read(self):
            """Block for at least one message; return all that are here, as bytes."""
            buf, pos = self._buf, self._pos
            while True:
                out, have = [], len(buf)
                add = out.append
                while have - pos >= 2:  # an empty ping is two bytes
                    n, start = buf[pos + 1], pos + 2
                    if buf[pos] != 0x81 or n > 126:
                        if not out:
                            self._buf, self._pos = buf, pos
                            return [self.recv_data()[1]]
                        break
                    if n == 126:
                        if have - pos < 4:
                            break
                        n, start = buf[pos + 2] << 8 | buf[pos + 3], pos + 4
                    end = start + n
                    if end > have:
                        break
                    add(buf[start:end])
                    pos = end
                if out:
                    self._buf, self._pos = buf, pos
                    return out
                self._buf, self._pos = buf, pos  # as it is, should the read time out
                chunk = super()._recv(65536)
                buf = buf[pos:] + chunk if pos < have else chunk
                pos = 0

    return FastWebSocket


@attrs.define
class Fragment:
    content: str
    tokens_count: int
    contains_drafted: bool
    reasoning_type: str
    is_structural: bool
    tokens: object = None


class Stream:
    def __init__(self, adapter, prompt):
        self._a, self._q = adapter, SimpleQueue()
        self._id = next(adapter.ids)
        adapter.channels[self._id] = self._q.put
        adapter.send(
            {
                "type": "channelCreate",
                "endpoint": "predict",
                "channelId": self._id,
                "creationParameter": {
                    "modelSpecifier": {
                        "type": "query",
                        "query": {"identifier": "mock-1b"},
                    },
                    "history": {
                        "messages": [
                            {
                                "role": "user",
                                "content": [{"type": "text", "text": prompt}],
                            }
                        ]
                    },
                    "predictionConfigStack": {"layers": []},
                },
            }
        )

    def cancel(self):
        self._a.send(
            {
                "type": "channelSend",
                "channelId": self._id,
                "message": {"type": "cancel"},
            }
        )

    def __iter__(self):
        get = self._q.get
        while True:
            for m in get(True, 60):
                if m["type"] == "channelSend":
                    body = m["message"]
                    if body["type"] == "fragment":
                        f = body["fragment"]
                        yield Fragment(
                            f["content"],
                            f["tokensCount"],
                            f["containsDrafted"],
                            f["reasoningType"],
                            f["isStructural"],
                            f.get("tokens"),
                        )
                elif m["type"] == "channelClose":
                    del self._a.channels[self._id]
                    return
                else:
                    raise RuntimeError(m)


class Adapter(SyncAdapter):
    def open(self, host):
        self.ids, self.channels, self.calls = itertools.count(), {}, {}
        self.ws = websocket.create_connection(
            f"ws://{host}/llm",
            class_=fast(websocket),
            skip_utf8_validation=True,
            timeout=10,
            sockopt=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )
        self.send(
            {"authVersion": 1, "clientIdentifier": "bench", "clientPasskey": "bench"}
        )
        assert json.loads(self.ws.recv())["success"]
        self.ws.settimeout(None)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def send(self, message):
        self.ws.send(json.dumps(message))

    def _read(self):
        channels, calls, read = self.channels, self.calls, self.ws.read
        try:
            while True:
                groups = {}
                for payload in read():
                    m = _scan(payload.decode(), 0)[0]
                    c = m.get("channelId")
                    if c is None:
                        calls.pop(m["callId"])(m)
                    elif c in groups:
                        groups[c].append(m)
                    else:
                        groups[c] = [m]
                for c, group in groups.items():
                    channels[c](group)
        except (
            OSError,
            websocket.WebSocketException,
            TypeError,
            IndexError,
            StopIteration,
        ):
            pass

    def close(self):
        self.ws.sock.shutdown(
            socket.SHUT_RDWR
        )  # close() alone would not wake the reader
        self.thread.join()
        self.ws.shutdown()

    def count_tokens(self, text):
        slot, call = SimpleQueue(), next(self.ids)
        self.calls[call] = slot.put
        self.send(
            {
                "type": "rpcCall",
                "endpoint": "countTokens",
                "callId": call,
                "parameter": {
                    "specifier": {"type": "query", "query": {"identifier": "mock-1b"}},
                    "inputString": text,
                },
            }
        )
        return slot.get(True, 60)["result"]["tokenCount"]

    def stream(self, prompt):
        return Stream(self, prompt)

    def respond(self, prompt):
        return "".join([f.content for f in Stream(self, prompt)])
