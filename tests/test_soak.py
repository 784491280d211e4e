"""Predictions and clients leave nothing behind: the short form of ``make soak``."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import tracemalloc

import pytest

import soak
from leftovers import LINUX

pytestmark = pytest.mark.skipif(not LINUX, reason="memory is read from /proc")

#: Seconds for the short form, on a busy machine.
PATIENCE = 170.0
#: So many predictions, other uses and clients are enough for 1 KB, 1 KB and 4 KB each.
SHORT = ("--predictions=160", "--others=32", "--clients=24")
#: Leaks where the package makes things, around the same program.
LEAKS = """
import sys
sys.path.insert(0, sys.argv[1])
import soak
from lmstudio import LMStudioClient
from lmstudio.arrivals import Arrivals
kept = []

def leak(owner, size):
    real = owner.__init__
    def init(self, *args, **kwargs):
        kept.append("x" * size + str(len(kept)))
        real(self, *args, **kwargs)
    owner.__init__ = init

leak(Arrivals, 1000)
leak(LMStudioClient, 3000)
sys.exit(soak.main(sys.argv[2:]))
"""


def outcome(*command):
    """What a soak says, in a process of its own: this one has things of other tests."""
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(soak.ROOT)},
        timeout=PATIENCE,
    )


@pytest.mark.slow
def test_nothing_grows():
    """All that a client does adds no bytes, objects, threads or files."""
    done = outcome(soak.__file__, *SHORT)

    assert (0, "") == (done.returncode, done.stderr), done.stdout
    assert done.stdout.endswith("\nNothing grew.\n")
    said = [line for line in done.stdout.splitlines() if "what one more adds" in line]
    others = [name.replace("_", " ") for name in soak.OTHERS]
    assert ["predictions", *others, "clients"] == [
        line.split(" in ")[0].partition(" ")[2] for line in said
    ]


@pytest.mark.slow
def test_leaks_of_a_kilobyte_are_found():
    """1 KB for each prediction is growth, and 4 KB for each client with one."""
    tests = str(soak.ROOT / "tests")
    done = outcome("-c", LEAKS, tests, SHORT[0], "--others=0", SHORT[2])

    assert (1, "") == (done.returncode, done.stderr), done.stdout
    found = [line for line in done.stdout.splitlines() if " bytes each, over " in line]
    assert ["predictions", "clients"] == [line.partition(":")[0] for line in found]
    assert 2 == done.stdout.count("  <string>:")  # where it was asked for


def part(keep, count):
    """Steps that leave something."""
    return soak.Part("steps", keep, count)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count", "left"),
    [
        ("bytes", 10_000, lambda: bytes(220)),  # with its place in a list: 250
        ("bytes", 160, lambda: bytes(1000)),
        ("objects", 160, list),
        ("threads", 24, None),
        ("files", 24, lambda: open(os.devnull)),  # noqa: SIM115
    ],
    ids=["250 bytes", "1 KB", "objects", "threads", "files"],
)
def test_a_leak_is_found(name, count, left, ended):
    """What each step leaves is growth: 250 bytes in the long form."""
    kept = []

    def step():
        kept.append(ended() if left is None else left())

    tracemalloc.start()
    try:
        found = soak.watched(part(step, count), time.monotonic() + PATIENCE)
    finally:
        tracemalloc.stop()
    for one in kept:
        if name == "files":
            one.close()

    assert any(f" {name} each, over " in line for line in found), found


@pytest.fixture
def ended():
    """Starts threads, which end after the test."""
    end, threads = threading.Event(), []

    def start():
        threads.append(threading.Thread(target=end.wait))
        threads[-1].start()

    yield start
    end.set()
    for thread in threads:
        thread.join()


def test_what_comes_and_goes_is_no_leak():
    """A cache that is filled once, and what is kept until the next time."""
    cache, last = {}, []

    def step():
        cache[len(last) % 10] = bytes(1000)
        last[:] = [bytes(1000)]

    tracemalloc.start()
    try:
        assert [] == soak.watched(part(step, 160), time.monotonic() + PATIENCE)
    finally:
        tracemalloc.stop()


def test_too_slow_is_no_success():
    """What is not done in time is said, and counts as a failure."""
    said = soak.watched(part(lambda: None, 5), deadline=0.0)
    assert ["only 0 of 5 steps in time"] == said
