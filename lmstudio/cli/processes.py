"""Processes by their number: whether they live, what they run, how they are ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

#: How often a condition is looked at, in seconds; processes that are not our children
#: can't be waited for.
INTERVAL = 0.03


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until a condition holds; False when the time was not enough."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(INTERVAL)
    return True


def is_alive(pid: int) -> bool:
    """Whether a process runs. One that ended and was not waited for does not."""
    if os.name == "nt":
        return str(pid) in _output("tasklist", "/FI", f"PID eq {pid}", "/NH")
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs, and is another user's
        return True
    with contextlib.suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        return stat.rpartition(")")[2].split()[0] not in "ZX"
    return not _output("ps", "-o", "stat=", "-p", str(pid)).startswith("Z")


def command_of(pid: int) -> str:
    """The command line of a process, ``""`` when it can't be told."""
    with contextlib.suppress(OSError):
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
        return raw.replace(b"\0", b" ").decode(errors="replace").strip()
    return "" if os.name == "nt" else _output("ps", "-o", "command=", "-p", str(pid))


def end(pid: int, patience: float) -> bool:
    """Ask a process to end; kill it when it did not after so many seconds.

    Returns:
        Whether it ended by itself.

    Raises:
        PermissionError: It is another user's.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    if wait_for(lambda: not is_alive(pid), patience):
        return True
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    wait_for(lambda: not is_alive(pid), patience)
    return False


def _output(*command: str) -> str:
    """What a system command prints; ``""`` where it fails or is missing."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return run.stdout.strip()
