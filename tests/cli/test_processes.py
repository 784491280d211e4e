"""Processes by number: alive or not, what they run, how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from lmstudio.cli import processes

pytestmark = pytest.mark.slow

#: Says that it is ready, and then waits for a line that never comes.
WAITS = "import signal; print(); input()"
#: The same, and does not care for SIGTERM.
STUBBORN = "import signal; signal.signal(15, signal.SIG_IGN); print(); input()"


@pytest.fixture
def start():
    """Starts Python code and returns when it has printed a line."""
    started = []

    def run(code: str, *arguments: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        started.append(process)
        assert b"\n" == process.stdout.readline()
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_alive(start):
    """A process is alive until it ends, also when nobody has waited for it yet."""
    process = start(WAITS)
    assert processes.is_alive(process.pid)

    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not processes.is_alive(process.pid)

    process.wait()
    assert not processes.is_alive(process.pid)


def test_anothers_process():
    """A process of another user is alive, though we may not touch it."""
    assert processes.is_alive(1)


def test_command(start):
    """The command line has the words that the process was started with."""
    process = start(WAITS, "-m", "some.module")

    assert processes.command_of(process.pid).endswith("-m some.module")
    process.kill()
    process.wait()
    assert "" == processes.command_of(process.pid)


def test_ends_by_itself(start):
    """SIGTERM is asked first."""
    process = start(WAITS)

    assert processes.end(process.pid, 10)
    assert -signal.SIGTERM == process.wait()


def test_is_killed(start):
    """What does not end in time is killed."""
    process = start(STUBBORN)

    assert not processes.end(process.pid, 0.1)
    assert -signal.SIGKILL == process.wait()


def test_is_gone(start):
    """Ending what has ended is no error."""
    process = start(WAITS)
    process.kill()
    process.wait()

    assert processes.end(process.pid, 10)


def test_missing_tools():
    """A system without the command gives no output instead of an error."""
    assert "" == processes._output("no-such-command-anywhere")
