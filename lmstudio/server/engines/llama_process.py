"""A child process: its pipes, the end of its log, its end. No llama.cpp in here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

log = logging.getLogger("lmstudio.server.engines.llama")

TAIL_SIZE = 8192  # bytes of stderr that are kept
LINE_SIZE = 1 << 20  # bytes; a longer line on stdout is dropped
TERM_SECONDS = 1.5  # how long SIGTERM may take before SIGKILL follows
KILL_SECONDS = 0.5
#: Variables that an engine has no use for, and that it must not be made to tell.
SECRETS = (
    *("LMSTUDIO_SERVER_API_TOKEN", "LMSTUDIO_API_TOKEN", "LM_API_TOKEN"),
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
)


class Child:
    """One child process. It ends when this process does, however that happens.

    All methods belong to the event loop that started it.

    Attributes:
        returncode: None while it runs; negative for a signal, as in `subprocess`.
        folders: Beginnings of paths that clients are not told.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        on_line: Callable[[str], None],
    ) -> None:
        self._process = process
        self._on_line = on_line
        self._tail = b""
        self._callbacks: list[Callable[[], None]] = []
        self._exited = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None
        self.returncode: int | None = None
        self.folders: tuple[str, ...] = ()
        self._watching = asyncio.create_task(self._watch())

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        config: Mapping[str, Any],
        on_line: Callable[[str], None],
    ) -> Child:
        """Start a process, and hand it its config as the first line of stdin.

        Args:
            on_line: Called on the loop with each line of its stdout. It must not raise.

        Raises:
            OSError: The command could not be started.
        """
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={k: v for k, v in os.environ.items() if k not in SECRETS},
            # Ctrl-C in a terminal goes to the whole group; ending the child is our job.
            start_new_session=sys.platform != "win32",
        )
        child = cls(process, on_line)
        assert process.stdin is not None
        # Not drained: it fits the pipe, and a child that is gone is noticed elsewhere.
        process.stdin.write(json.dumps(config).encode() + b"\n")
        return child

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def tail(self) -> str:
        """The end of what it wrote to stderr."""
        text = self._tail.decode("utf-8", "replace").strip()
        text = text.partition("\n")[2] if len(self._tail) == TAIL_SIZE else text
        return self.without_folders(text)

    def without_folders(self, text: str) -> str:
        """A text for clients: where on the disk things are is left out."""
        for folder in self.folders:
            text = text.replace(folder, "")
        return text

    def how_it_ended(self) -> str:
        """``"exit code 1"`` or ``"signal 9, SIGKILL"``; only after its end."""
        code = self.returncode
        if code is None or code >= 0:
            return f"exit code {code}"
        with contextlib.suppress(ValueError):
            return f"signal {-code}, {signal.Signals(-code).name}"
        return f"signal {-code}"

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Call back on the loop when it has ended, at once when it already has."""
        if self._exited.is_set():
            asyncio.get_running_loop().call_soon(callback)
        else:
            self._callbacks.append(callback)

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait for its end and the last of its output; False when that takes longer.

        Args:
            timeout: Seconds; None waits for as long as it runs.
        """
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._exited.wait(), timeout)
        return self._exited.is_set()

    async def stop(self) -> None:
        """End it within two seconds. Safe to repeat; goes on when cancelled."""
        if self._stopping is None:
            self._signal(self._process.terminate)
            self._stopping = asyncio.create_task(self._stop())
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        # Nothing in the child is worth finishing: SIGTERM ends it in a few milliseconds
        # and the system frees its memory, whatever its threads are doing.
        if not await self.wait(TERM_SECONDS):
            self._signal(self._process.kill)
            if not await self.wait(KILL_SECONDS):
                log.warning("process %d does not end, even by SIGKILL", self.pid)

    def _signal(self, send: Callable[[], None]) -> None:
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                send()

    async def _watch(self) -> None:
        """Read both pipes to their ends, then collect the exit code."""
        await asyncio.gather(self._read_lines(), self._read_log())
        self.returncode = await self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        log.debug("process %d ended: %s", self.pid, self.how_it_ended())
        for callback in self._callbacks:  # before those who wait go on
            asyncio.get_running_loop().call_soon(callback)
        self._callbacks.clear()
        self._exited.set()

    async def _read_lines(self) -> None:
        assert self._process.stdout is not None
        rest = b""
        while data := await self._process.stdout.read(65536):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._on_line(line.decode("utf-8", "replace"))
            if len(rest) > LINE_SIZE:
                rest = b""

    async def _read_log(self) -> None:
        assert self._process.stderr is not None
        while data := await self._process.stderr.read(65536):
            self._tail = (self._tail + data)[-TAIL_SIZE:]
