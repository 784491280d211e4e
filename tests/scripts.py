"""Programs of users, run in a process of their own against a scripted server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import lmstudio
from lmstudio.testing import FakeServer, Received

#: What every program begins with; its argument is the server's address.
HEAD = """
import sys
import lmstudio as lms
client = lms.LMStudioClient(sys.argv[1])
model = client.llm.get("any")
"""


#: Seconds that a program has for saying where it hangs.
LAST_WORDS = 10.0


def environment() -> dict[str, str]:
    """For programs that use this package, and say where they hang when `said` asks."""
    root = str(Path(lmstudio.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": root, "PYTHONFAULTHANDLER": "1"}


def start(body: str, server: FakeServer) -> subprocess.Popen[str]:
    """Start a program that has a ``client`` and a ``model``."""
    # Python warns of every fork with threads, ours or not; from 3.15 on `error` counts.
    warnings = ("-W", "error", "-W", "ignore:This process:DeprecationWarning")
    return subprocess.Popen(
        [sys.executable, *warnings, "-c", HEAD + body, server.host],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def run(body: str, server: FakeServer) -> tuple[int, str, str]:
    """Run such a program to its end: exit code, output, errors."""
    with start(body, server) as process:
        output, errors = said(process, 30)
    return process.returncode, output, errors


def said(
    process: subprocess.Popen[str], timeout: float, more: str | None = None
) -> tuple[str, str]:
    """What a program says until it ends: output, errors. One that hangs is ended.

    Args:
        timeout: Seconds until it counts as hanging.
        more: What is written to it before.

    Raises:
        AssertionError: It hangs. The message has what it said, and where its threads
            are, if it has an `environment` and can still be asked.
    """
    try:
        return process.communicate(more, timeout=timeout)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
    try:
        output, errors = process.communicate(timeout=LAST_WORDS)
    except subprocess.TimeoutExpired:
        process.kill()  # or the test that started it would wait for it
        output, errors = process.communicate()
    raise AssertionError(f"hangs after {timeout:g} s\n{output}\n{errors}")


def is_cancel(seen: Received) -> bool:
    """Whether a message asks to stop what runs on a channel."""
    message = seen.message
    return message.get("type") == "channelSend" and message["message"] == {
        "type": "cancel"
    }
