"""A real kernel of Jupyter: runs cells, and keeps what it says."""

from __future__ import annotations

import os
import queue
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

ROOT = Path(__file__).parents[1]
#: Seconds for what should come at once, on a machine that is busy.
PATIENCE = 60.0
#: Says that the kernel is in the middle of something, or not any more.
STATUS = "status"


def jupyter() -> Any:
    """The library that starts kernels. Skips without it; in CI that is a failure."""
    try:
        import ipykernel  # noqa: F401
        import jupyter_client
    except ImportError as exc:
        if os.environ.get("CI"):
            pytest.fail(f"{exc}, and CI is to run notebooks", pytrace=False)
        pytest.skip(f"{exc}; the extra dev brings it")
    return jupyter_client


def environment(home: Path) -> dict[str, str]:
    """What a kernel is to find in its environment: nothing of the user's settings."""
    folders = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR")
    places = {name: str(home / name) for name in folders}
    return {**places, "PYTHONPATH": str(ROOT)}


def close_loop() -> None:
    """Close the event loop that the library keeps for its next call."""
    from jupyter_core.utils import ensure_event_loop

    ensure_event_loop().close()


@attrs.define
class Cell:
    """What came of a cell, in order.

    Attributes:
        messages: Kind and content of each message, without those of `STATUS`.
        reply: What the kernel answered at the end.
    """

    messages: list[tuple[str, dict[str, Any]]] = attrs.field(factory=list)
    reply: dict[str, Any] = attrs.field(factory=dict)

    @property
    def kinds(self) -> list[str]:
        """The kinds of its output."""
        return [kind for kind, _ in self.messages if kind != "execute_input"]

    @property
    def displays(self) -> list[dict[str, str]]:
        """What its displays showed, one after the other."""
        shown = ("display_data", "update_display_data")
        return [c["data"] for kind, c in self.messages if kind in shown]

    @property
    def slots(self) -> set[str]:
        """The names of its displays."""
        contents = [content.get("transient", {}) for _, content in self.messages]
        return {content["display_id"] for content in contents if content}

    @property
    def printed(self) -> str:
        """What it printed, or wrote as an error."""
        return "".join(c["text"] for kind, c in self.messages if kind == "stream")


class Kernel:
    """A kernel in a process of its own; a context manager that ends it."""

    def __init__(self, home: Path) -> None:
        manager = jupyter().KernelManager
        # By default it looks for free ports, which other programs may take meanwhile.
        self._sockets = tempfile.TemporaryDirectory()
        place = str(Path(self._sockets.name) / "s")
        self._manager = (
            manager(transport="ipc", ip=place) if os.name == "posix" else manager()
        )
        self._env = {**os.environ, **environment(home)}
        self._client: Any = None
        self._cell = Cell()
        self._request = ""

    def __enter__(self) -> Kernel:
        self._manager.start_kernel(env=self._env)
        try:
            self._connect()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _connect(self) -> None:
        self._client = self._manager.blocking_client()
        self._client.start_channels()
        self._client.wait_for_ready(PATIENCE)

    def __exit__(self, *_: object) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)
        self._manager.cleanup_resources()
        self._client.context.destroy(linger=0)
        self._sockets.cleanup()
        close_loop()

    def restart(self) -> None:
        """Restart it as the button does."""
        self._client.stop_channels()
        self._manager.restart_kernel(env=self._env)
        self._connect()

    def begin(self, code: str) -> Cell:
        """Start a cell."""
        self._cell = Cell()
        self._request = self._client.execute(code)
        return self._cell

    def until(self, is_there: Callable[[Cell], object]) -> Cell:
        """Read what the cell says until something is there."""
        deadline = time.monotonic() + PATIENCE
        while not is_there(self._cell):
            assert self._read(deadline), f"the cell ended: {self._cell}"
        return self._cell

    def interrupt(self) -> None:
        """Press the stop button."""
        self._manager.interrupt_kernel()

    def end(self) -> Cell:
        """Read what the cell says until its end."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        while not self._cell.reply:
            message = self._client.get_shell_msg(timeout=PATIENCE)
            if message["parent_header"].get("msg_id") == self._request:
                self._cell.reply = message["content"]
        return self._cell

    def run(self, code: str) -> Cell:
        """Run a cell to its end."""
        self.begin(code)
        return self.end()

    def ok(self, code: str) -> Cell:
        """Run a cell that must not fail."""
        cell = self.run(code)
        assert "ok" == cell.reply["status"], cell
        return cell

    def _read(self, deadline: float) -> bool:
        """Take one message; False when the cell has ended."""
        while True:
            try:
                left = max(0.1, deadline - time.monotonic())
                message = self._client.get_iopub_msg(timeout=left)
            except queue.Empty:
                raise AssertionError(f"nothing more came: {self._cell}") from None
            if message["parent_header"].get("msg_id") != self._request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind != STATUS:
                self._cell.messages.append((kind, content))
                return True
            if content["execution_state"] == "idle":
                return False
