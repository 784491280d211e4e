"""Issue 5: Ctrl-C while iterating, in `result()`, in a call, while loading.

The cancel reaches the server, KeyboardInterrupt is raised, nothing but Python's own
traceback is on stderr, and the partial text is kept: on a terminal, in a pipe, and in a
process without a terminal.
"""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import lmstudio
from lmstudio.testing import AWAIT_CANCEL, NEVER
from scripts import HEAD, is_cancel, said
from timing import quickest

PATIENCE = 10.0
#: Seconds from Ctrl-C to the server's having read the cancel.
LIMIT = 0.2

#: Says when the main thread waits for the server, which it does in one place only.
BEGIN = """
import lmstudio.mailbox, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
real = lmstudio.mailbox.Mailbox._wait
def wait(mailbox, *limits):
    if armed:
        armed.clear()
        print("waiting", flush=True)
    return real(mailbox, *limits)
lmstudio.mailbox.Mailbox._wait = wait
armed = []
partial = lambda: ""
try:
"""
END = """
except KeyboardInterrupt:
    print("interrupted", repr(partial()), flush=True)
    print(client.llm.get("any").count_tokens("one two"), flush=True)
    raise
"""
WAITS = {
    "iterate": """
    prediction = model.respond("x")
    partial = lambda: prediction.content
    for text in prediction:
        armed.append(1)
""",
    "result": """
    prediction = model.respond("x")
    partial = lambda: prediction.content
    next(iter(prediction))
    armed.append(1)
    prediction.result()
""",
    "act": """
    def tool() -> str:
        "Say something."
        return ""
    run = model.act("x", [tool], wait=False)
    next(iter(run))
    armed.append(1)
    run.result()
""",
    "load": """
    client.llm.load("other", on_progress=lambda share: armed.append(1))
""",
    "model": """
    client.llm.model("other", on_progress=lambda share: armed.append(1))
""",
}
#: What is there of the text afterwards.
KEPT = {"iterate": "text", "result": "text"}


def on_a_terminal(command):
    """A process that has a terminal, and how to interrupt it: by the key."""
    side, other = pty.openpty()
    begin = (
        "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
        " os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", begin, *command[1:]],
        stdin=other,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment(),
    )
    os.close(other)
    return process, lambda: os.write(side, b"\x03"), lambda: os.close(side)


def without_a_terminal(command):
    """A process of a session of its own, as a service has it."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment(),
    )
    return process, lambda: process.send_signal(signal.SIGINT), lambda: None


def environment():
    root = str(Path(lmstudio.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": root, "TERM": "dumb"}


@pytest.mark.slow
@pytest.mark.parametrize("start", [on_a_terminal, without_a_terminal])
@pytest.mark.parametrize("wait", WAITS)
def test_ctrl_c(fake, start, wait):
    """Whatever it waits for, and wherever it runs, Ctrl-C ends it cleanly."""

    def once():
        fake.reply(["text", AWAIT_CANCEL])
        fake.on_load([0.5, AWAIT_CANCEL])
        seen = len(fake.requests)
        program = HEAD + BEGIN + WAITS[wait] + END
        command = [sys.executable, "-W", "error", "-c", program, fake.host]
        process, interrupt, dispose = start(command)
        with process:
            assert "waiting\n" == process.stdout.readline()
            began = time.monotonic()
            interrupt()
            fake.wait_for(
                lambda request: is_cancel(request) and request in fake.requests[seen:]
            )
            took = time.monotonic() - began
            output, errors = said(process, PATIENCE)
        dispose()
        assert f"interrupted {KEPT.get(wait, '')!r}\n2\n" == output
        assert errors.startswith("Traceback (most recent call last):\n")
        assert errors.endswith("\nKeyboardInterrupt\n")
        assert 1 == errors.count("Traceback")
        assert -signal.SIGINT == process.returncode
        assert ["any"] == fake.loaded()
        return took

    quickest(LIMIT, once)


@pytest.mark.slow
def test_a_call(fake):
    """A plain call has nothing to cancel; it ends at once, and the next one works."""
    fake.before("listLoaded", NEVER)
    program = HEAD + BEGIN + "    armed.append(1)\n    client.llm.list_loaded()\n" + END
    process, interrupt, _ = without_a_terminal(
        [sys.executable, "-W", "error", "-c", program, fake.host]
    )
    with process:
        assert "waiting\n" == process.stdout.readline()
        interrupt()
        output, errors = said(process, PATIENCE)
    assert "interrupted ''\n2\n" == output
    assert errors.endswith("\nKeyboardInterrupt\n")
    assert 1 == errors.count("Traceback")


def test_here(fake, model):
    """In this very process: who waits is interrupted by a signal of another thread."""
    fake.reply(["text", AWAIT_CANCEL])
    prediction = model.respond("x")
    assert "text" == next(iter(prediction))
    main = threading.get_ident()

    def interrupt():
        while not prediction._arrivals._turn:  # until the main thread waits
            threading.Event().wait(0.001)
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        prediction.result()
    thread.join()
    assert fake.wait_for(is_cancel)
    assert "text" == prediction.content
    assert "userStopped" == prediction.stats.stop_reason
