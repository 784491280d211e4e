"""A command on a terminal of its own, for tests that type."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATIENCE = 20.0
#: Makes standard input the controlling terminal, so that Ctrl-C is a signal there.
_BEGIN = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Terminal:
    """Runs `lms` on a pseudo-terminal; a context manager that ends it.

    Attributes:
        seen: All that it has printed.
    """

    def __init__(self, *words: str) -> None:
        self._side, other = pty.openpty()
        self.seen = ""
        self._looked = 0
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BEGIN, "-m", "lmstudio.cli.entry", *words],
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
            cwd=ROOT,
            env={**os.environ, "TERM": "dumb", "PYTHONPATH": str(ROOT)},
        )
        os.close(other)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._side)

    def type(self, keys: str) -> None:
        """Type; ``\\x03`` is Ctrl-C, ``\\x04`` is Ctrl-D."""
        os.write(self._side, keys.encode())

    def until(self, text: str) -> str:
        """Wait until a text is printed; returns what was printed since the last."""
        deadline = time.monotonic() + PATIENCE
        while (place := self.seen.find(text, self._looked)) < 0:
            assert self._read(deadline), f"{text!r} never came: {self.seen!r}"
        begin, self._looked = self._looked, place + len(text)
        return self.seen[begin : self._looked]

    def until_it_waits(self) -> None:
        """Wait until the command sleeps, where the system tells: it waits for keys.

        A Ctrl-C between the prompt and the wait is seen with the next key only, as
        Python's readline looks for signals when its wait is interrupted.
        """
        stat = Path(f"/proc/{self._process.pid}/stat")
        deadline = time.monotonic() + PATIENCE
        while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "S":
            assert time.monotonic() < deadline

    def end(self) -> int:
        """Wait for the end; returns the exit code."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        return self._process.wait(PATIENCE)

    def _read(self, deadline: float) -> bool:
        """Read something; False at the end."""
        ready, _, _ = select.select([self._side], [], [], deadline - time.monotonic())
        assert ready, f"nothing came any more: {self.seen!r}"
        try:
            data = os.read(self._side, 65536)
        except OSError:  # Linux says so at the end
            return False
        self.seen += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)
