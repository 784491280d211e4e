"""What each step of a fragment and of a call costs on our side of the wire.

    python tests/bench/steps.py

One thread does one step after another, so that nothing waits and nobody wakes anybody:
what `run.py` measures beyond the sum is the system's (sending, receiving, waking a
thread) and what cold caches cost. Medians of many rounds; CPU time of the thread.
"""

from __future__ import annotations

import json
import socket
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lmstudio.arrivals import Arrivals, Watch
from lmstudio.calls import structure, unstructure
from lmstudio.connection import _encode, parsed
from lmstudio.mailbox import Mailbox
from lmstudio.protocol.client import ClientProtocol
from lmstudio.sender import frame_of
from lmstudio.transport import Transport, _WebSocket
from lmstudio.wire.common import ModelQuery, ModelSpecifier, SpecifiedText
from lmstudio.wire.endpoints import endpoint

ROUNDS = 400
#: Fragments that one read of 64 KiB brings.
BATCH = 320

FRAGMENT = {
    "content": " word",
    "tokensCount": 1,
    "containsDrafted": False,
    "reasoningType": "none",
    "isStructural": False,
}
Step = tuple[str, Callable[[], object]]


def framed(message: object) -> bytes:
    """A message as servers send it: one text frame, not masked."""
    payload = json.dumps(message).encode()
    if len(payload) < 126:
        return bytes((0x81, len(payload))) + payload
    return b"\x81\x7e" + len(payload).to_bytes(2, "big") + payload


class Steps:
    """Each step works on what the one before it left."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.ws = _WebSocket()
        self.ws.sock = self.near
        self.transport = Transport(self.ws)
        self.protocol = ClientProtocol()
        self.mailbox = Mailbox()
        packet = {"type": "fragment", "fragment": FRAGMENT}
        self.number, _ = self.protocol.open("channel", "predict", {})
        message = {"type": "channelSend", "channelId": self.number, "message": packet}
        self.stream = framed(message) * BATCH
        self.row = endpoint("llm", "countTokens")
        query = ModelQuery(identifier="some-model-1b")
        self.specifier = ModelSpecifier(type="query", query=query)

    def close(self) -> None:
        self.near.close()
        self.far.close()

    def decode(self) -> None:
        """Parse what was read last."""
        self.messages = parsed(self.payloads)

    def route(self) -> None:
        """Find who waits for it."""
        self.received = self.protocol.receive(self.messages)

    def fragment(self) -> list[Step]:
        """The way of a batch of fragments, from the socket to the loop of the user."""

        def bring() -> None:
            self.ws._buffer, self.ws._position = self.stream, 0

        def cut() -> None:
            self.payloads = self.ws.cut()

        def hand_over() -> None:
            self.mailbox.put(self.received.batches[self.number])

        def take() -> None:
            self.arrivals = Arrivals(self.mailbox, Watch())
            self.arrivals.wait_beyond(0)

        def loop() -> None:
            for text in self.arrivals.fragments[:]:
                len(text)

        return [
            ("", bring),
            ("cut the frames", cut),
            ("decode UTF-8 and JSON", self.decode),
            ("sort by request", self.route),
            ("hand over", hand_over),
            ("make the fragments", take),
            ("run the user's loop", loop),
        ]

    def question(self) -> list[Step]:
        """The way of one call to the server."""

        def build() -> None:
            self.asked = SpecifiedText(
                specifier=self.specifier, input_string="hello world"
            )

        def write() -> None:
            self.body = unstructure(self.asked)

        def open_it() -> None:
            self.id, self.message = self.protocol.open("rpc", "countTokens", self.body)

        def encode() -> None:
            self.payload = _encode(self.message).encode()

        def mask() -> None:
            frame_of(0x81, self.payload)

        def send() -> None:
            self.transport.send(self.payload)

        return [
            ("check and build", build),
            ("write as JSON values", write),
            ("number it", open_it),
            ("encode", encode),
            ("(mask, alone)", mask),
            ("mask and send", send),
        ]

    def answer(self) -> list[Step]:
        """The way of its answer back."""

        def arrive() -> None:
            self.far.recv(65536)
            result = {"tokenCount": 2}
            done = {"type": "rpcResult", "callId": self.id, "result": result}
            self.far.send(framed(done))

        def receive() -> None:
            self.payloads = self.ws.cut()

        def hand_over() -> None:
            self.mailbox.put(self.received.batches[self.id])
            self.end = self.mailbox.get(1)[-1]

        def read() -> None:
            structure(self.end.body, self.row.result, "countTokens")

        return [
            ("", arrive),
            ("receive", receive),
            ("decode UTF-8 and JSON", self.decode),
            ("find who waits", self.route),
            ("hand over and take", hand_over),
            ("read into a type", read),
        ]


def measure(steps: list[Step], share: int) -> dict[str, float]:
    """Median µs of CPU of each step, divided by `share`; those without name left out."""
    spent: dict[str, list[int]] = {name: [] for name, _ in steps}
    for _ in range(ROUNDS):
        for name, step in steps:
            before = time.thread_time_ns()
            step()
            spent[name].append(time.thread_time_ns() - before)
    own = min(_nothing() for _ in range(1000))  # what looking at the clock costs
    return {
        name: max(0.0, statistics.median(times) - own) / 1e3 / share
        for name, times in spent.items()
        if name
    }


def _nothing() -> int:
    before = time.thread_time_ns()
    return time.thread_time_ns() - before


def show(title: str, costs: dict[str, float]) -> None:
    """Print a table in the form of the docs."""
    counted = {n: cost for n, cost in costs.items() if not n.startswith("(")}
    total = sum(counted.values())
    print(f"| {title} | µs | share |\n|---|---|---|")
    for name, cost in costs.items():
        part = f"{cost / total:.0%}" if name in counted else ""
        print(f"| {name} | {cost:.2f} | {part} |")
    print(f"| **sum** | {total:.2f} | |\n")


def main() -> None:
    steps = Steps()
    try:
        measure(steps.fragment(), BATCH)  # warm
        show("a fragment", measure(steps.fragment(), BATCH))
        call = [*steps.question(), *steps.answer()]
        measure(call, 1)
        show("a call", measure(call, 1))
    finally:
        steps.close()


if __name__ == "__main__":
    main()
