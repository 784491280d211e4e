"""Predictions and clients leave nothing behind: the short form of ``make soak``."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import soak
from leftovers import LINUX

pytestmark = pytest.mark.skipif(not LINUX, reason="memory is read from /proc")

#: A program that keeps what it does, run in place of the real steps.
LEAK = """
import sys, time
sys.path.insert(0, sys.argv[1])
import soak
kept = []
deadline = time.monotonic() + 60
print(soak.watched("predictions", 400, lambda: kept.append([0]), deadline))
"""


@pytest.mark.slow
def test_nothing_grows():
    """Hundreds of predictions and clients add no object, thread or file."""
    # In a process of its own: what other tests left to the collector is no growth.
    done = subprocess.run(
        [sys.executable, soak.__file__, "--predictions=400", "--clients=80"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(soak.ROOT)},
        timeout=60,
    )
    assert (0, "") == (done.returncode, done.stderr), done.stdout
    assert done.stdout.endswith("Nothing grew.\n")


@pytest.mark.slow
def test_a_leak_is_found():
    """One kept list for each step is growth."""
    done = subprocess.run(
        [sys.executable, "-c", LEAK, str(soak.ROOT / "tests")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(soak.ROOT)},
        timeout=60,
    )
    assert "predictions: 1 objects each, more than 0.1" in done.stdout, done.stderr


def test_too_slow_is_no_success():
    """What is not done in time is said, and counts as a failure."""
    said = soak.watched("clients", 5, lambda: None, deadline=0.0)
    assert ["only 0 of 5 clients in time"] == said


def test_slope():
    """A straight line is found again, whatever is between the looks."""
    assert 0.0 == soak.slope([5, 5, 5, 5], 10)
    assert 0.5 == soak.slope([0, 5, 10, 15], 10)
