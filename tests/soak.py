"""Uses the client for long and fails when it grows: ``make soak``.

All that a client does is done again and again against a scripted server in a process of
its own: first predictions, most of all, over one client; then everything else; then
whole clients. Now and then it is looked at what this process holds: the bytes that
Python's allocator gave out (`tracemalloc`, exact), resident memory, objects, threads
and file descriptors. What counts is the median of what the stretches between the looks
add: a leak adds to all of them, and a cache that grows now and then to few.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import statistics
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import attrs

import lmstudio
from lmstudio import Chat, LMStudioClient, Prediction, Signal, connection, prediction
from lmstudio.testing import AWAIT_CANCEL, DROP, Failure, FakeServer

ROOT = Path(__file__).parents[1]
#: Pieces of each answer.
PIECES = 20
#: A stretch that fills caches, and is not looked at, and those that are.
STRETCHES = 1 + 3
#: What one more step may add: objects of the collector, threads and files. A leak adds
#: 1 or more.
AT_MOST = {"objects": 0.5, "threads": 0.1, "files": 0.1}
#: Bytes that a step may keep, and those that may come on top in a whole stretch: what
#: is kept for good is some hundreds at least, and a list or dict that grows some
#: thousands at once.
BYTES, ROOM = 100.0, 6000
#: The same for resident memory: pages come and go.
RESIDENT, PAGES = 1000.0, 1 << 20
#: Seconds that what has a time waits at most, in place of ten: a connection that ended
#: and a prediction that is over are let go at their next look at limits.
SOON = 0.02
#: Looks at one moment, at most: the least counts, since other threads end what they do.
LOOKS = 8

SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}}
IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(100)


def look() -> dict[str, int]:
    """What this process holds, after the collector has run and all is quiet."""
    least: dict[str, int] = {}
    for _ in range(LOOKS):
        gc.collect()
        seen = {
            "bytes": tracemalloc.get_traced_memory()[0],
            "resident": resident(),
            "objects": len(gc.get_objects()),
            "threads": threading.active_count(),
            "files": len(os.listdir("/proc/self/fd")),
        }
        lower = {name: min(seen[name], least.get(name, seen[name])) for name in seen}
        if least and lower == {**lower, **{n: least[n] for n in ("bytes", "threads")}}:
            return lower
        least = lower
        time.sleep(2 * SOON)
    return least


def resident() -> int:
    """Bytes of memory that this process has."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@attrs.frozen
class Part:
    """One thing that is done again and again.

    Attributes:
        name: What it is, in the plural.
        step: Does it once, and checks that it was done.
        count: How often.
        last: Done before each look: readers keep what they read last, which should be
            the same each time.
    """

    name: str
    step: Callable[[], object]
    count: int
    last: Callable[[], object] = lambda: None


def watched(part: Part, deadline: float) -> list[str]:
    """Do something many times, print what was seen, and say what grew too much.

    Args:
        deadline: Time of `time.monotonic` at which it must be done.
    """
    each = max(1, part.count // STRETCHES)
    begun, looks = time.monotonic(), []
    for stretch in range(STRETCHES):
        for number in range(each):
            if time.monotonic() > deadline:
                done = stretch * each + number
                return [f"only {done} of {part.count} {part.name} in time"]
            part.step()
        part.last()
        looks.append(look())
    took = time.monotonic() - begun
    limits = {
        "bytes": BYTES + ROOM / each,
        "resident": RESIDENT + PAGES / each,
        **AT_MOST,
    }
    print(f"{STRETCHES * each} {part.name} in {took:.1f} s; what one more adds:")
    problems = []
    for name, most in limits.items():
        adds = [(b[name] - a[name]) / each for a, b in pairwise(looks)]
        grows = statistics.median(adds)
        each_stretch = [round(one, 1) for one in adds]
        print(f"  {name:8} {grows:10.2f} (at most {most:.6g})", each_stretch)
        if grows > most:
            problems.append(f"{part.name}: {grows:.3g} {name} each, over {most:.3g}")
    if any("bytes" in problem for problem in problems):
        problems += culprits(part, each)
    return problems


def culprits(part: Part, count: int) -> list[str]:
    """Where the memory was asked for that stays, when it is done some more times."""
    before = tracemalloc.take_snapshot()
    for _ in range(count):
        part.step()
    gc.collect()
    grown = tracemalloc.take_snapshot().compare_to(before, "lineno")
    return [f"  {one}" for one in grown[:5]]


@contextlib.contextmanager
def server() -> Iterator[str]:
    """A scripted server in another process; gives its address."""
    command = [sys.executable, __file__, "--serve"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            yield child.stdout.readline().strip()
        finally:
            child.stdin.close()  # ends it


def serve() -> None:
    """Be that server until standard input ends."""
    with FakeServer(["any", "vision", "embed"], loaded=["any"]) as fake:
        pieces = [f"piece{n} " for n in range(PIECES)]
        fake.reply(pieces, when="answer", times=None)
        fake.reply(["text", AWAIT_CANCEL], when="wait", times=None)
        fake.reply(["text", Failure("no")], when="fail", times=None)
        fake.reply(["text", DROP], when="drop", times=None)
        print(fake.host, flush=True)
        sys.stdin.read()


def add(a: int) -> int:
    """Add."""
    return a + 1


class Uses:
    """What a client can be used for, one step each."""

    def __init__(self, client: LMStudioClient) -> None:
        self._client = client
        self._model = client.llm.get("any")
        self._sees = client.llm.get(client.llm.load("vision").identifier)
        self._embeds = client.embedding.get(client.embedding.load("embed").identifier)

    def predictions(self) -> None:
        pieces = list(self._model.respond("answer"))
        assert PIECES == len(pieces)

    def _begun(self, **options: object) -> Prediction[str]:
        begun = self._model.respond("wait", **options)  # type: ignore[arg-type]
        assert "text" == next(iter(begun))
        return begun

    def cancels(self) -> None:
        begun = self._begun()
        begun.cancel()
        assert "userStopped" == begun.result().stats.stop_reason

    def dropped_predictions(self) -> None:
        for text in self._model.respond("wait"):
            assert "text" == text
            break

    def signals(self) -> None:
        signal = Signal()
        begun = self._begun(signal=signal, timeout=60, idle_timeout=60)
        signal.set()
        assert "text" == begun.content

    def errors(self) -> None:
        with contextlib.suppress(lmstudio.LMStudioPredictionError):
            self._model.respond("fail").result()
            raise AssertionError("no error")

    def time_limits(self) -> None:
        with contextlib.suppress(lmstudio.LMStudioTimeoutError):
            self._model.respond("wait", timeout=0.01).result()
            raise AssertionError("no error")

    def done_callbacks(self) -> None:
        called = threading.Event()
        self._model.respond("answer").add_done_callback(lambda _: called.set())
        assert called.wait(60)

    def callbacks(self) -> None:
        seen: list[str] = []
        assert self._model.respond("answer", on_fragment=seen.append).content
        assert PIECES == len(seen)

    def runs_with_tools(self) -> None:
        run = self._model.act("what is 1 + 1?", [add])
        assert 2 == run.rounds

    def structured_outputs(self) -> None:
        made = self._model.respond("an object", response_format=SCHEMA)
        assert "name" in made.result().parsed

    def images(self) -> None:
        chat = Chat()
        chat.add_user_message("look", images=[self._client.prepare_image(IMAGE)])
        assert self._sees.respond(chat).content

    def embeddings(self) -> None:
        assert 3 == len(self._embeds.embed(["one", "two", "three"]))

    def calls(self) -> None:
        assert self._model.count_tokens("some text")
        assert self._client.llm.list_loaded()

    def loads(self) -> None:
        loaded = self._client.llm.load("any")
        loaded.unload()

    def reconnects(self) -> None:
        with contextlib.suppress(lmstudio.LMStudioWebsocketError):
            self._model.respond("drop").result()
            raise AssertionError("no error")


#: Uses beside predictions, which come first and much more often.
OTHERS = (
    "cancels",
    "dropped_predictions",
    "signals",
    "errors",
    "time_limits",
    "done_callbacks",
    "callbacks",
    "runs_with_tools",
    "structured_outputs",
    "images",
    "embeddings",
    "calls",
    "loads",
    "reconnects",
)


def soak(predictions: int, others: int, clients: int, seconds: float) -> list[str]:
    """All parts; what grew, in words."""
    deadline = time.monotonic() + seconds
    # What is silent or limited is looked at again soon; nothing here takes its time.
    connection.PING_AFTER = prediction.LOOK_AGAIN = SOON
    problems: list[str] = []
    gc.collect()
    gc.freeze()  # what is there already needs no look
    tracemalloc.start()
    try:
        with server() as host:
            with LMStudioClient(host) as client:
                uses = Uses(client)
                for name in ("predictions", *(OTHERS if others else ())):
                    count = predictions if name == "predictions" else others
                    step = getattr(uses, name)
                    part = Part(name.replace("_", " "), step, count, uses.calls)
                    problems += watched(part, deadline)

            def open_and_close() -> None:
                with LMStudioClient(host) as one:
                    assert one.llm.list_loaded()
                    assert one.llm.get("any").respond("answer").content

            whole = Part("clients", open_and_close, clients)
            return problems + watched(whole, deadline)
    finally:
        tracemalloc.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak, print the figures, and say whether nothing grew."""
    parser = argparse.ArgumentParser(
        description="Nothing grows over thousands of uses."
    )
    parser.add_argument("--predictions", type=int, default=10_000)
    parser.add_argument("--others", type=int, default=600, help="of each other use")
    parser.add_argument("--clients", type=int, default=1_000)
    parser.add_argument("--minutes", type=float, default=10.0, help="at most")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.serve:
        serve()
        return 0
    problems = soak(given.predictions, given.others, given.clients, given.minutes * 60)
    print(*(problems or ["Nothing grew."]), sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
