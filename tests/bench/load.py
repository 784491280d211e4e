"""Many clients that stream at once, next to llama.cpp's own server asked by as many.

    PYTHON load.py [--seconds 120] [--clients 32]

Both ask one process of llama.cpp, in turns of some seconds, with the same settings. Ends
with code 1 when a prediction fails, a stream stalls, memory grows, or the share of the
tokens per second is too small. `LMSTUDIO_TEST_MODEL` names the model's file.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOKENS = 128
#: Tokens of context that each client has: all together what the model allows.
CONTEXT = 256
#: Seconds of one turn, at most.
TURN = 6.0
#: What is promised: the share of the tokens per second, seconds that a stream may stand
#: still longer than the slowest of llama.cpp's own, and growth of memory, bytes.
SHARE, STALL, GROWTH = 0.95, 2.0, 16 * 1024 * 1024

#: Numbers of prompts: none is asked twice, so that no cache helps.
numbers = itertools.count()
Pieces = Generator[int, None, None]  # tokens in each piece of a stream, as they come


def prompt(number: int) -> str:
    """Few tokens, as reading them is the engine's work; no other begins like it."""
    return f"{number} times upon a time"


def ours(model: object) -> Pieces:
    """One prediction through client and server."""
    prediction = model.complete(
        prompt(next(numbers)), max_tokens=TOKENS, temperature=0.0, repeat_penalty=1.3
    )
    with prediction:  # leaving it early cancels it
        for fragment in prediction:
            yield fragment.tokens_count


def direct(port: int, key: str) -> Pieces:
    """One prediction asked of the engine's process itself."""
    body = {
        "prompt": prompt(next(numbers)),
        "n_predict": TOKENS,
        "temperature": 0.0,
        "repeat_penalty": 1.3,
        "stream": True,
        "cache_prompt": True,
    }
    # By hand: the library's client takes as much time as the small model does.
    content = json.dumps(body).encode()
    head = (
        f"POST /completion HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    before, left = 0, b""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head.encode() + content)
        while piece := connection.recv(65536):
            *lines, left = (left + piece).split(b"\n")
            for line in lines:
                if line.startswith(b"HTTP/") and b" 200 " not in line:
                    raise OSError(f"llama.cpp answered {line!r}")
                if line.startswith(b"data: "):
                    event = json.loads(line[6:])
                    if event["content"]:
                        yield event["tokens_predicted"] - before
                        before = event["tokens_predicted"]


class Turn:
    """So many clients that ask one after the other until the time is over.

    Attributes:
        speed: Tokens per second, over all clients.
        stall: The longest time between two pieces of a stream, seconds.
        first: The longest time to a first piece, seconds.
        errors: What failed.
        streams: How many predictions there were; the last ones are broken off.
    """

    def __init__(self, asks: list[Callable[[], Pieces]], seconds: float) -> None:
        self.stall = self.first = 0.0
        self.errors: list[BaseException] = []
        self.streams = self._tokens = 0
        self._lock = threading.Lock()  # guards the figures above; held for sums only
        self._start = threading.Barrier(len(asks) + 1)
        threads = [threading.Thread(target=self._ask, args=(ask,)) for ask in asks]
        for thread in threads:
            thread.start()
        self._end = time.perf_counter() + seconds
        self._start.wait()
        for thread in threads:
            thread.join()
        self.speed = self._tokens / seconds

    def _ask(self, ask: Callable[[], Pieces]) -> None:
        self._start.wait()
        try:
            while time.perf_counter() < self._end:
                self._stream(ask)
        except BaseException as exc:
            with self._lock:
                self.errors.append(exc)

    def _stream(self, ask: Callable[[], Pieces]) -> None:
        began = last = time.perf_counter()
        first = stall = 0.0
        tokens = 0
        with contextlib.closing(ask()) as pieces:
            for count in pieces:
                now = time.perf_counter()
                if first:
                    stall = max(stall, now - last)
                else:
                    first = now - began
                last = now
                if now >= self._end:
                    break
                tokens += count
        with self._lock:
            self._tokens += tokens
            self.streams += 1
            self.stall = max(self.stall, stall)
            self.first = max(self.first, first)


def memory(process: int) -> int:
    """Bytes that a process has in memory; 0 where it can't be told."""
    try:
        with open(f"/proc/{process}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def measure(options: argparse.Namespace) -> bool:
    """Start everything, take turns, and say whether the promises hold."""
    import lmstudio

    file = Path(os.environ["LMSTUDIO_TEST_MODEL"])
    server = subprocess.Popen(
        [sys.executable, str(HERE / "engine_server.py"), str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    clients = []
    try:
        url = json.loads(server.stdout.readline())["url"]
        clients = [lmstudio.LMStudioClient(url) for _ in range(options.clients)]
        model = clients[0].llm.load(
            "/".join(file.parts[-3:]),
            config={
                "context_length": CONTEXT * options.clients,
                "max_parallel_predictions": options.clients,
            },
        )
        child = json.loads(server.stdout.readline())
        name = model.identifier
        handles = [client.llm.get(name) for client in clients]
        ask_ours = [lambda model=model: ours(model) for model in handles]
        ask_directly = [lambda: direct(child["port"], child["key"])] * options.clients
        return report(turns(server.pid, ask_ours, ask_directly, options.seconds))
    finally:
        for client in clients:
            client.close()
        server.stdin.close()
        server.wait(20)
        server.stdout.close()


def turns(
    process: int, ask_ours: list, ask_directly: list, seconds: float
) -> tuple[list[tuple[Turn, Turn]], list[int]]:
    """Turns of both in changing order, and the server's memory after each of ours."""
    Turn(ask_ours, 2.0), Turn(ask_directly, 2.0)  # these only warm up
    number = max(1, round(seconds / TURN))
    pairs, sizes = [], []
    for index in range(number):
        each = seconds / number
        if index % 2:
            one, other = Turn(ask_ours, each), None
            sizes.append(memory(process))
            other = Turn(ask_directly, each)
        else:
            other = Turn(ask_directly, each)
            one = Turn(ask_ours, each)
            sizes.append(memory(process))
        pairs.append((one, other))
        print(
            f"turn {index + 1} of {number}: {one.speed:7.1f} tokens/s through the"
            f" server, {other.speed:7.1f} directly, {sizes[-1] / 2**20:.1f} MiB",
            flush=True,
        )
    return pairs, sizes


def report(measured: tuple[list[tuple[Turn, Turn]], list[int]]) -> bool:
    """Print what came of it, and whether it is as promised."""
    pairs, sizes = measured
    mine, others = zip(*pairs, strict=True)
    errors = [error for turn in (*mine, *others) for error in turn.errors]
    # Neighbours in time are compared, so that what else the machine does matters less.
    share = statistics.median(one.speed / other.speed for one, other in pairs)
    growth = sizes[-1] - sizes[0]
    stall = max(t.stall for t in mine) - max(t.stall for t in others)
    wait = max(t.first for t in mine) - max(t.first for t in others)
    for error in errors[:5]:
        print(f"failed: {error!r}")
    rows = (
        ("predictions through the server", sum(t.streams for t in mine), None),
        ("failed", len(errors), not errors),
        ("longest stall, s", max(t.stall for t in mine), None),
        ("  more than directly, s", stall, stall <= STALL),
        ("longest wait for a first token, s", max(t.first for t in mine), None),
        ("  more than directly, s", wait, wait <= STALL),
        ("growth of memory, MiB", growth / 2**20, growth <= GROWTH),
        ("share of llama.cpp's tokens/s", share, share >= SHARE),
    )
    for label, value, kept in rows:
        verdict = "" if kept is None else ("  as promised" if kept else "  TOO MUCH")
        if label.startswith("share") and not kept:
            verdict = "  TOO LITTLE"
        shown = f"{value:12d}" if isinstance(value, int) else f"{value:12.3f}"
        print(f"{label:36}{shown}{verdict}")
    return all(kept is not False for _, _, kept in rows)


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--seconds", type=float, default=120.0, help="of streaming through the server"
    )
    parser.add_argument("--clients", type=int, default=32, help="that stream at once")
    return measure(parser.parse_args())


if __name__ == "__main__":
    sys.exit(not main())
