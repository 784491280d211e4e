"""A pip that brings what a test prepared, and tells the test what it does.

It is a program of its own, run as pip would be. It connects to the test first, says its
process id and how it was called, and then does what the test answers. The test
thereby knows when it runs, and by the end of the connection when it has ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

PATIENCE = 30.0  # seconds; only a test that fails waits as long


@attrs.define
class Pip:
    """A running fake pip, as its test sees it.

    Attributes:
        number: Its process id.
        arguments: How it was called.
        environment: Its environment.
    """

    number: int
    arguments: list[str]
    environment: Mapping[str, str]
    _connection: socket.socket

    def put(self, source: Path, name: str) -> None:
        """Have it copy a file to its temporary folder, whole."""
        self._do({"copy": [str(source), name]})

    def end(self, *, wheel: Path | None = None, says: str = "", code: int = 0) -> None:
        """Have it copy a wheel to where it was told, say something and end."""
        self._do({"wheel": str(wheel) if wheel else "", "says": says, "code": code})

    def wait_for_end(self) -> None:
        """Return when it has ended, in whatever way."""
        assert b"" == self._connection.recv(1)

    def close(self) -> None:
        """Hang up; it ends if it still runs."""
        self._connection.close()

    def _do(self, order: dict[str, Any]) -> None:
        self._connection.sendall(json.dumps(order).encode() + b"\n")
        if "copy" in order:
            assert b"." == self._connection.recv(1)


class FakePip:
    """Waits for fake pips to be run, and answers them.

    Attributes:
        command: What to run instead of pip.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE)
        port = str(self._listener.getsockname()[1])
        self.command = [sys.executable, __file__, port]

    def started(self) -> Pip:
        """The next one that is run; waits for it."""
        connection, _ = self._listener.accept()
        connection.settimeout(PATIENCE)
        with connection.makefile("rb") as file:
            number, arguments, environment = json.loads(file.readline())
        return Pip(number, arguments, environment, connection)

    def waits(self) -> bool:
        """Whether one was run that nobody has asked for."""
        self._listener.settimeout(0)
        try:
            self._listener.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Accept no more."""
        self._listener.close()


@contextlib.contextmanager
def fake_pip() -> Iterator[FakePip]:
    """A fake pip for one test."""
    fake = FakePip()
    try:
        yield fake
    finally:
        fake.close()


def main(port: str, *arguments: str) -> int:
    """What the program does."""
    with socket.create_connection(("127.0.0.1", int(port))) as connection:
        hello = [os.getpid(), arguments, dict(os.environ)]
        connection.sendall(json.dumps(hello).encode() + b"\n")
        for line in connection.makefile("rb"):
            order = json.loads(line)
            if "copy" in order:
                source, name = order["copy"]
                shutil.copyfile(source, Path(os.environ["TMPDIR"]) / name)
                connection.sendall(b".")
                continue
            if order["wheel"]:
                folder = arguments[arguments.index("--dest") + 1]
                shutil.copy(order["wheel"], folder)
            print(order["says"])
            return int(order["code"])
    return 1  # the test has hung up


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
