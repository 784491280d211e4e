#!/usr/bin/env python3
"""A fast mock of the LM Studio v1 websocket API, for client benchmarks.

Standard library only (uvloop is used if it can be imported).  Fragment frames
are pre-encoded and written in large chunks, so that a Python or Node client is
the bottleneck, not this process.

The prompt of a prediction (text of the last user message) steers it.  It is a
JSON object; every key is optional:

  n            number of fragments (default 100)
  rate         fragments per second; 0 means as fast as possible (default 0)
  ts           put this host's CLOCK_MONOTONIC in ns into each fragment's
               content, as "<ns> " (default false; implies one write per frame)
  burst        consecutive frames of one channel before the next one's turn
               (default 4)
  chunk        bytes gathered per socket write (default 65536; 1 means one
               write per frame)
  size         pad each fragment's content to this many characters (default 0)
  silentAfter  send no more after this many fragments, and do not finish
  dropAfter    abort the TCP connection after this many fragments
  exitAfter    end this process at once after this many fragments
  together     as-fast-as-possible predictions only: send nothing until this
               many of them are open on the connection
  tag          copied to this prediction's events

`countTokens` of a text that starts with "SILENT" is never answered.

HTTP control: GET /_bench/events (JSON list of what happened, with
CLOCK_MONOTONIC ns), GET /_bench/reset (clears it).
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import os
import socket
import sys
import time
from collections import deque

from mock_messages import (
    LOAD_CONFIG,
    MODEL_INFO,
    TOKENS,
    dumps,
    fragment_frame,
    frame,
    success_frames,
)

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

events: list[dict] = []


def note(kind: str, **detail) -> None:
    events.append({"t": time.monotonic_ns(), "kind": kind, **detail})


class Blast:
    """One as-fast-as-possible prediction: a cyclic supply of encoded frames."""

    __slots__ = (
        "burst",
        "bursts",
        "cancelled",
        "channel",
        "frames",
        "n",
        "pos",
        "sent",
        "spec",
        "started",
        "stop_at",
    )

    def __init__(self, channel: int, spec: dict) -> None:
        self.channel, self.spec = channel, spec
        self.n = int(spec.get("n", 100))
        self.sent = 0
        limits = [
            spec[k] for k in ("silentAfter", "dropAfter", "exitAfter") if k in spec
        ]
        self.stop_at = min([self.n, *limits])
        self.started = time.monotonic()
        self.cancelled = False
        self.burst = max(1, int(spec.get("burst", 4)))
        size = int(spec.get("size", 0))
        frames = [fragment_frame(channel, t.ljust(size, "x")) for t in TOKENS]
        self.frames = frames
        cycle = frames * (1 + self.burst // len(frames)) * 2
        self.bursts = [b"".join(cycle[i : i + self.burst]) for i in range(len(frames))]
        self.pos = 0

    def take(self) -> bytes:
        left = self.stop_at - self.sent
        if left >= self.burst:
            data = self.bursts[self.pos]
            k = self.burst
        else:
            k = left
            data = b"".join(
                self.frames[(self.pos + i) % len(self.frames)] for i in range(k)
            )
        self.pos = (self.pos + k) % len(self.frames)
        self.sent += k
        return data


class Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.buf = bytearray()
        self.ws = False
        self.path = ""
        self.authed = False
        self.blasts: deque[Blast] = deque()
        self.pump_task: asyncio.Task | None = None
        self.channels: dict[int, object] = {}
        self.writable = asyncio.Event()
        self.writable.set()
        self.closed = False
        self.closing_frame = False
        self.fragments_parts: list[bytes] = []

    # -- transport callbacks -------------------------------------------------
    def connection_made(self, transport) -> None:
        self.transport = transport
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.set_write_buffer_limits(high=262144)

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def connection_lost(self, exc) -> None:
        self.closed = True
        self.writable.set()
        if self.ws:
            note(
                "disconnected",
                path=self.path,
                clean=self.closing_frame,
                open_channels=len(self.channels),
                error=repr(exc) if exc else None,
            )
        for stream in self.channels.values():
            if isinstance(stream, Paced):
                stream.task.cancel()

    def data_received(self, data: bytes) -> None:
        self.buf += data
        if not self.ws:
            end = self.buf.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self.buf[:end])
            del self.buf[: end + 4]
            self.http(head)
            if not self.ws:
                return
        self.frames_in()

    # -- HTTP ----------------------------------------------------------------
    def http(self, head: bytes) -> None:
        lines = head.decode("latin-1").split("\r\n")
        self.path = lines[0].split(" ")[1]
        headers = {
            k.strip().lower(): v.strip()
            for k, _, v in (line.partition(":") for line in lines[1:])
        }
        if headers.get("upgrade", "").lower() == "websocket":
            key = headers["sec-websocket-key"].encode()
            accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
            self.transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
            )
            self.ws = True
            note("connected", path=self.path)
            return
        status = b"200 OK"
        if self.path == "/lmstudio-greeting":
            body = b'{"lmstudio":true}'
        elif self.path == "/_bench/events":
            body = dumps(events)
        elif self.path == "/_bench/reset":
            events.clear()
            body = b"{}"
        else:
            status, body = b"404 Not Found", b'{"error":"no such path"}'
        self.transport.write(
            b"HTTP/1.1 "
            + status
            + b"\r\nContent-Type: application/json\r\nConnection: close\r\n"
            b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
        )
        self.transport.close()

    # -- websocket frames ----------------------------------------------------
    def frames_in(self) -> None:
        buf = self.buf
        while len(buf) >= 2:
            opcode, n, pos = buf[0] & 15, buf[1] & 127, 2
            masked = buf[1] & 128
            if n == 126:
                if len(buf) < 4:
                    return
                n, pos = int.from_bytes(buf[2:4], "big"), 4
            elif n == 127:
                if len(buf) < 10:
                    return
                n, pos = int.from_bytes(buf[2:10], "big"), 10
            end = pos + (4 if masked else 0) + n
            if len(buf) < end:
                return
            payload = bytes(buf[end - n : end])
            if masked and n:
                key = bytes(buf[pos : pos + 4])
                pad = (key * (n // 4 + 1))[:n]
                payload = (
                    int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")
                ).to_bytes(n, "big")
            fin = buf[0] & 128
            del buf[:end]
            if opcode in (0, 1, 2):
                self.fragments_parts.append(payload)
                if fin:
                    whole = b"".join(self.fragments_parts)
                    self.fragments_parts.clear()
                    self.message(json.loads(whole))
            elif opcode == 9:
                self.transport.write(frame(payload, 10))
            elif opcode == 8:
                self.closing_frame = True
                note("close_frame", path=self.path, open_channels=len(self.channels))
                self.transport.write(frame(payload, 8))
                self.transport.close()
                return

    def reply(self, obj) -> None:
        if not self.closed:
            self.transport.write(frame(dumps(obj)))

    # -- protocol messages ---------------------------------------------------
    def message(self, m: dict) -> None:
        if not self.authed:
            ok = m.get("authVersion") == 1
            self.authed = ok
            self.reply(
                {"success": True}
                if ok
                else {"success": False, "error": "bad auth packet"}
            )
            return
        kind = m["type"]
        if kind == "rpcCall":
            self.rpc(m)
        elif kind == "channelCreate":
            self.channel_create(m)
        elif kind == "channelSend":
            if (m.get("message") or {}).get("type") == "cancel":
                self.cancel(m["channelId"])
            else:
                note("odd", message=m)
            if "ackId" in m:
                self.reply(
                    {
                        "type": "channelAck",
                        "channelId": m["channelId"],
                        "ackId": m["ackId"],
                    }
                )
        elif kind == "keepAlive":
            self.reply({"type": "keepAliveAck"})
        elif kind == "communicationWarning":
            note("warning", warning=m.get("warning"))
        else:
            note("odd", message=m)

    def rpc(self, m: dict) -> None:
        endpoint, param = m["endpoint"], m.get("parameter")
        if endpoint == "countTokens":
            text = param["inputString"]
            if text.startswith("SILENT"):
                note("silent_rpc")
                return
            result = {"tokenCount": len(text)}
        elif endpoint == "tokenize":
            result = {"tokens": list(range(len(param["inputString"])))}
        elif endpoint == "listLoaded":
            result = [MODEL_INFO]
        elif endpoint == "getModelInfo":
            result = MODEL_INFO
        elif endpoint in ("getLoadConfig", "getBasePredictionConfig"):
            result = LOAD_CONFIG
        elif endpoint == "listDownloadedModels":
            result = []
        elif endpoint == "version":
            result = {"version": "0.4.0", "build": 1}
        elif endpoint == "applyPromptTemplate":
            result = {"formatted": "formatted"}
        else:
            self.reply(
                {
                    "type": "rpcError",
                    "callId": m["callId"],
                    "error": {"title": f"mock has no endpoint {endpoint}"},
                }
            )
            return
        self.reply({"type": "rpcResult", "callId": m["callId"], "result": result})

    def channel_create(self, m: dict) -> None:
        endpoint, channel = m["endpoint"], m["channelId"]
        if endpoint in ("getOrLoad", "loadModel"):
            kind = "alreadyLoaded" if endpoint == "getOrLoad" else "success"
            self.reply(
                {
                    "type": "channelSend",
                    "channelId": channel,
                    "message": {"type": kind, "info": MODEL_INFO},
                }
            )
            self.reply({"type": "channelClose", "channelId": channel})
            return
        if endpoint != "predict":
            self.reply(
                {
                    "type": "channelError",
                    "channelId": channel,
                    "error": {"title": f"mock has no endpoint {endpoint}"},
                }
            )
            return
        spec = self.spec_of(m["creationParameter"])
        note("predict", channel=channel, tag=spec.get("tag"))
        if spec.get("rate") or spec.get("ts"):
            self.channels[channel] = Paced(self, channel, spec)
        else:
            blast = Blast(channel, spec)
            self.channels[channel] = blast
            self.blasts.append(blast)
            if len(self.blasts) < int(spec.get("together", 1)):
                return
            if self.pump_task is None or self.pump_task.done():
                self.pump_task = asyncio.ensure_future(self.pump())

    @staticmethod
    def spec_of(param: dict) -> dict:
        text = "{}"
        for message in param["history"]["messages"]:
            if message["role"] == "user":
                text = "".join(
                    p["text"] for p in message["content"] if p["type"] == "text"
                )
        try:
            spec = json.loads(text)
        except ValueError:
            spec = {}
        return spec if isinstance(spec, dict) else {}

    def cancel(self, channel: int) -> None:
        stream = self.channels.get(channel)
        note(
            "cancel",
            channel=channel,
            known=stream is not None,
            tag=getattr(stream, "spec", {}).get("tag"),
            sent=getattr(stream, "sent", None),
        )
        if stream is not None:
            stream.cancelled = True
            if isinstance(stream, Paced):
                stream.wake.set()
            elif stream not in self.blasts:  # silent: nothing pumps it any more
                self.finish(stream)

    def finish(self, stream) -> None:
        """Send what ends a prediction, or do what the spec asks for instead."""
        spec = stream.spec
        if not stream.cancelled:
            if "exitAfter" in spec:
                os._exit(0)
            if "dropAfter" in spec:
                self.transport.abort()
                return
            if "silentAfter" in spec:
                note("silent", channel=stream.channel)
                return
        self.channels.pop(stream.channel, None)
        reason = "userStopped" if stream.cancelled else "eosFound"
        if not self.closed:
            self.transport.write(
                success_frames(stream.channel, stream.sent, reason, stream.started)
            )
        note(
            "finished",
            channel=stream.channel,
            sent=stream.sent,
            reason=reason,
            tag=spec.get("tag"),
        )

    async def pump(self) -> None:
        """Round-robin over the as-fast-as-possible predictions of this connection."""
        blasts = self.blasts
        while blasts and not self.closed:
            out, size, done = [], 0, []
            limit = min(int(b.spec.get("chunk", 65536)) for b in blasts)
            while blasts and size < limit:
                b = blasts.popleft()
                if b.cancelled or b.sent >= b.stop_at:
                    done.append(b)
                    break
                data = b.take()
                out.append(data)
                size += len(data)
                blasts.append(b)
            if out:
                self.transport.write(b"".join(out))
            for b in done:
                self.finish(b)
            await asyncio.sleep(0)  # let incoming messages (cancel) through
            if not self.writable.is_set():
                await self.writable.wait()


class Paced:
    """A prediction at a given rate, one socket write per fragment."""

    def __init__(self, conn: Connection, channel: int, spec: dict) -> None:
        self.conn, self.channel, self.spec = conn, channel, spec
        self.cancelled, self.sent, self.started = False, 0, time.monotonic()
        self.wake = asyncio.Event()
        self.task = asyncio.ensure_future(self.run())

    async def run(self) -> None:
        spec, conn = self.spec, self.conn
        limits = [
            spec[k] for k in ("silentAfter", "dropAfter", "exitAfter") if k in spec
        ]
        stop_at = min([int(spec.get("n", 100)), *limits])
        period = 1.0 / spec["rate"] if spec.get("rate") else 0.0
        ts = bool(spec.get("ts"))
        due = time.monotonic()
        while self.sent < stop_at and not self.cancelled and not conn.closed:
            if period:
                due += period
                delay = due - time.monotonic()
                if delay > 0:
                    try:
                        await asyncio.wait_for(self.wake.wait(), delay)
                        break
                    except asyncio.TimeoutError:
                        pass
            if not conn.writable.is_set():
                await conn.writable.wait()
            content = (
                f"{time.monotonic_ns()} " if ts else TOKENS[self.sent % len(TOKENS)]
            )
            conn.transport.write(fragment_frame(self.channel, content))
            self.sent += 1
        if "silentAfter" in spec and not self.cancelled and not conn.closed:
            note("silent", channel=self.channel)
            await self.wake.wait()
        conn.finish(self)


async def serve(host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        Connection, host, port, reuse_address=True, backlog=512
    )
    print(
        json.dumps(
            {
                "host": host,
                "port": server.sockets[0].getsockname()[1],
                "pid": os.getpid(),
                "loop": type(loop).__module__,
            }
        ),
        flush=True,
    )
    async with server:
        await server.serve_forever()


def main() -> None:
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ap.add_argument("--host", default="127.0.0.1")
    ap.add_argument(
        "--port", type=int, default=0, help="0 picks a free one; it is printed as JSON"
    )
    ap.add_argument("--no-uvloop", action="store_true")
    args = ap.parse_args()
    if not args.no_uvloop:
        try:
            import uvloop

            asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
        except ImportError:
            pass
    try:
        asyncio.run(serve(args.host, args.port))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
