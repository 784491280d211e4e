"""Uses the client for long and fails when it grows: ``make soak``.

Thousands of predictions run over one client, then thousands of clients are opened and
closed, against a scripted server in a process of its own. Memory, objects, threads and
file descriptors are looked at now and then. What counts is the slope of a straight line
through the last half of the looks (least squares): the first half fills caches.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lmstudio import LMStudioClient
from lmstudio.testing import FakeServer

ROOT = Path(__file__).parents[1]
#: Pieces of each answer.
PIECES = 20
#: How often the process is looked at in each part.
LOOKS = 40
#: What one more prediction or client may add on average: objects of the collector,
#: threads and files. A leak adds 1 or more.
AT_MOST = {"objects": 0.1, "threads": 0.01, "files": 0.01}
#: The same for bytes of resident memory; one that is kept has some 10,000 and more.
BYTES = {"predictions": 100.0, "clients": 1000.0}
#: Bytes that may come on top over the whole last half: pages come and go.
PAGES = 1 << 20


def look() -> dict[str, int]:
    """What this process holds, after the collector has run."""
    gc.collect()
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return {
        "bytes": pages * os.sysconf("SC_PAGE_SIZE"),
        "objects": len(gc.get_objects()),
        "threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")),
    }


def slope(values: Sequence[float], steps: float) -> float:
    """What one step adds: the straight line through values that are steps apart."""
    middle, mean = (len(values) - 1) / 2, sum(values) / len(values)
    rise = sum((x - middle) * (y - mean) for x, y in enumerate(values))
    return rise / sum((x - middle) ** 2 for x in range(len(values))) / steps


def watched(
    what: str, count: int, step: Callable[[], object], deadline: float
) -> list[str]:
    """Do something many times, print what was seen, and say what grew too much.

    Args:
        what: ``"predictions"`` or ``"clients"``.
        deadline: Time of `time.monotonic` at which it must be done.
    """
    each = max(1, count // LOOKS)
    # Columns of numbers: rows would be objects that are counted themselves.
    looks: dict[str, list[float]] = {"bytes": [], **{name: [] for name in AT_MOST}}
    begun = time.monotonic()
    for number in range(count):
        if time.monotonic() > deadline:
            return [f"only {number} of {count} {what} in time"]
        step()
        if (number + 1) % each == 0:
            for name, value in look().items():
                looks[name].append(value)
    took, problems = time.monotonic() - begun, []
    limits = {"bytes": BYTES[what] + PAGES / (count / 2), **AT_MOST}
    print(f"{count} {what} in {took:.1f} s; what one more adds, over the last half:")
    for name, most in limits.items():
        seen = looks[name]
        grows = slope(seen[len(seen) // 2 :], each)
        print(f"  {name:8} {grows:10.3f} (at most {most:g}); {seen[0]} -> {seen[-1]}")
        if grows > most:
            problems.append(f"{what}: {grows:.3g} {name} each, more than {most:g}")
    return problems


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
    with FakeServer(["any"], loaded=["any"]) as fake:
        fake.reply([f"piece{n} " for n in range(PIECES)], times=None)
        print(fake.host, flush=True)
        sys.stdin.read()


def soak(predictions: int, clients: int, seconds: float) -> list[str]:
    """Both parts; what grew, in words."""
    deadline = time.monotonic() + seconds
    with server() as host:
        with LMStudioClient(host) as client:
            model = client.llm.get("any")

            def predict() -> None:
                pieces = list(model.respond("x"))
                assert PIECES == len(pieces)

            problems = watched("predictions", predictions, predict, deadline)

        def open_and_close() -> None:
            with LMStudioClient(host) as one:
                assert one.llm.list_loaded()
                assert one.llm.get("any").respond("x").content

        return problems + watched("clients", clients, open_and_close, deadline)


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak, print the figures, and say whether nothing grew."""
    parser = argparse.ArgumentParser(
        description="Nothing grows over thousands of uses."
    )
    parser.add_argument("--predictions", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=1_000)
    parser.add_argument("--minutes", type=float, default=10.0, help="at most")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.serve:
        serve()
        return 0
    problems = soak(given.predictions, given.clients, given.minutes * 60)
    print(*(problems or ["Nothing grew."]), sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
