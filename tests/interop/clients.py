"""Runs the official clients and the embedded server, each as a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import attrs

from interop import environments
from interop.recorder import Frame, recording

HERE = Path(__file__).parent
#: A client that takes longer hangs: many times what it needs, seconds.
LONGEST_RUN = 60.0
#: How long a server may take to end, seconds.
SERVER_END = 15.0

Line = dict[str, Any]


@attrs.frozen
class Official:
    """One of the official clients.

    Attributes:
        name: ``"python"`` or ``"js"``.
        command: What runs its script; a mode and an address follow.
    """

    name: str
    command: tuple[str, ...]

    def start(self, mode: str, *address: str) -> Client:
        """Start its script.

        Args:
            mode: What the script is to do.
            address: ``host:port``; without it the client looks for a server.
        """
        return Client([*self.command, mode, *address])


def official(name: str) -> Official:
    """A client by its name; makes its environment if need be."""
    if name == "python":
        script = str(HERE / "python_client.py")
        # Isolated from this clone, and with warnings as errors.
        return Official(name, (str(environments.python()), "-I", "-W", "error", script))
    node, modules = environments.javascript()
    return Official(name, (node, str(HERE / "js_client.mjs"), str(modules)))


class Client:
    """A running script; use it as a context manager, which kills what hangs."""

    def __init__(self, command: list[str]) -> None:
        # The official Python SDK would ask a proxy even for this machine.
        local = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            env=os.environ | local,
        )
        self._watchdog = threading.Timer(LONGEST_RUN, self.process.kill)
        self._watchdog.start()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._watchdog.cancel()
        self._watchdog.join()
        self.process.kill()
        self.process.communicate()
        self._errors.close()

    def line(self) -> Line:
        """The next line that it prints."""
        assert self.process.stdout is not None
        text = self.process.stdout.readline()
        assert text, f"the client printed no more, and this: {self.rest()[1]}"
        line: Line = json.loads(text)
        return line

    def tell(self, value: Any) -> None:
        """Give it a line of JSON to read."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(value) + "\n")
        self.process.stdin.flush()

    def fragments(self, number: int) -> None:
        """Wait until so many fragments have come."""
        for _ in range(number):
            assert "fragment" == self.line()["step"]

    def cancel(self) -> Line:
        """Make it cancel its prediction; returns the result."""
        assert self.process.stdin is not None
        self.process.stdin.write("cancel\n")
        self.process.stdin.flush()
        while (line := self.line())["step"] == "fragment":
            pass
        return line

    def rest(self) -> tuple[str, str, int]:
        """Wait for its end: what else it prints, its errors, and the exit code."""
        assert self.process.stdout is not None
        # Not by communicate(): that would miss what came together with a line before.
        output = self.process.stdout.read()
        code = self.process.wait()
        self._errors.seek(0)
        return output, self._errors.read(), code


@attrs.frozen
class Run:
    """What came of all steps of a client.

    Attributes:
        steps: What each step printed, by its name.
        noise: Lines on its standard output that no step printed.
        errors: What it wrote to standard error.
        code: Its exit code; negative when it had to be killed.
        frames: What was said on its connections.
        log: What the server wrote to its log.
    """

    steps: dict[str, Line]
    noise: list[str]
    errors: str
    code: int
    frames: list[Frame]
    log: str

    def __getitem__(self, step: str) -> Line:
        assert step in self.steps, f"only {self.steps} and this: {self.errors}"
        return self.steps[step]


def run_steps(client: Official, home: Path) -> Run:
    """Let a client do everything against a server of its own.

    Args:
        home: The home folder of the server, with a model in it.
    """
    with (
        embedded_server(home) as server,
        recording(server, home / "frames.jsonl") as recorder,
        client.start("steps", recorder.address) as script,
    ):
        output, errors, code = script.rest()
    lines = output.splitlines()
    steps = [json.loads(line) for line in lines if line.startswith("{")]
    return Run(
        steps={step.pop("step"): step for step in steps},
        noise=[line for line in lines if not line.startswith("{")],
        errors=errors,
        code=code,
        frames=recorder.frames,
        log=log_file(home).read_text("utf-8"),
    )


def log_file(home: Path) -> Path:
    """The log of the server with this home folder."""
    return home / "server.log"


@contextlib.contextmanager
def embedded_server(
    home: Path, port: int = 0, *, cors: bool = False, api_token: str = ""
) -> Iterator[str]:
    """The embedded server; yields its ``host:port``."""
    words = ["-W", "error", "-m", "lmstudio.server", "--port", str(port)]
    words += ["--cors"] if cors else []
    words += ["--api-token", api_token] if api_token else []
    with (
        log_file(home).open("w") as log,
        subprocess.Popen(
            [sys.executable, *words],
            env=os.environ | {"LMSTUDIO_HOME": str(home)},
            cwd=environments.ROOT,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as server,
    ):
        try:
            assert server.stdout is not None
            _, at, address = server.stdout.readline().rstrip().partition("ws://")
            assert at, log_file(home).read_text("utf-8")
            yield address
            server.terminate()
            assert 0 == server.wait(SERVER_END)
        finally:
            server.kill()
