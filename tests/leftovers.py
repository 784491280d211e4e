"""Finds threads, processes, sockets and files that tests left behind."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import attrs

PROC = "/proc"
LINUX = os.path.isfile(f"{PROC}/self/stat")
#: Processes that Python starts for itself and keeps until it ends.
HELPERS = "from multiprocessing."
#: What `ctypes` stands on; it maps pages of its own file when it makes callbacks.
LIBFFI = "libffi.so"


@contextlib.contextmanager
def nothing_left(processes: Processes, patience: float) -> Iterator[None]:
    """Fail when the block leaves something running that did not run before.

    Args:
        patience: Seconds that a thread, and then the processes, may take to end.

    Raises:
        AssertionError: Something is left; processes were killed.
    """
    threads_before = set(threading.enumerate())
    processes_before = processes.running()
    yield
    threads = set(threading.enumerate()) - threads_before
    for thread in threads:
        thread.join(patience)
    names = sorted(thread.name for thread in threads if thread.is_alive())
    left = [f"thread {name}" for name in names]
    commands = processes.end_new(processes_before, patience)
    left += [f"process {command}" for command in commands]
    if left:
        raise AssertionError(f"left running: {', '.join(left)}")


@contextlib.contextmanager
def nothing_kept(folder: Path, patience: float) -> Iterator[None]:
    """Fail when the block keeps a file descriptor or a temporary file for itself.

    Args:
        folder: Where temporary files are made.
        patience: Seconds that what others close may take.

    Raises:
        AssertionError: Something is left; temporary files stay where they are.
    """
    open_before, files_before = open_files(), set(os.listdir(folder))
    yield
    if open_files() - open_before:
        gc.collect()  # what nobody holds is closed; seldom needed, and slow
    deadline = time.monotonic() + patience
    while new := open_files() - open_before:
        if time.monotonic() >= deadline:
            break
        time.sleep(0.01)  # a thread that ends closes its own
    left = sorted(f"{what} (file descriptor {number})" for number, what in new)
    files = set(os.listdir(folder)) - files_before
    left += sorted(f"temporary file {name}" for name in files)
    if left:
        raise AssertionError(f"left open or lying about: {', '.join(left)}")


def open_files() -> set[tuple[int, str]]:
    """Number and target of each file descriptor; nothing outside Linux.

    Without what a process opens once and keeps until it ends: the file of `LIBFFI`, and
    the pipe to the process of `HELPERS` that removes what others have forgotten.
    """
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    pipe = tracker and tracker._resource_tracker._fd
    folder = f"{PROC}/self/fd"
    found = set()
    for number in os.listdir(folder) if LINUX else ():
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            target = os.readlink(f"{folder}/{number}")
            if int(number) != pipe and not os.path.basename(target).startswith(LIBFFI):
                found.add((int(number), target))
    return found


@attrs.frozen
class Process:
    """A running process.

    Attributes:
        number: Its process id.
        started: When it started, in clock ticks: tells apart two with one id.
        parent: The id of its parent.
        command: Its command line.
    """

    number: int
    started: int
    parent: int = attrs.field(eq=False)  # changes when the parent ends
    command: str = attrs.field(eq=False)


class Processes:
    """The processes of one test run: our children, and all that carry its mark.

    Detached processes are found by their environment, which they inherit. Without
    ``/proc`` (outside Linux) nothing is found.
    """

    def __init__(self, mark: str) -> None:
        self._mark = mark.encode()
        self._started = int(_stat(os.getpid())[19]) if LINUX else 0
        # Names in /proc that are of no process of ours: what is older than the run,
        # what does not inherit its mark, what is no process. They need no second
        # look, which counts here: a number is given again only after all the others.
        self._foreign = {str(os.getpid())}

    def running(self) -> set[Process]:
        """Those that run at the moment, and those that nobody has waited for."""
        names = set(os.listdir(PROC)) if LINUX else set()
        self._foreign &= names
        found = [self._look(name) for name in names - self._foreign]
        return {process for process in found if process is not None}

    def end_new(self, before: set[Process], patience: float) -> list[str]:
        """Wait for the new ones to end, and kill those that don't.

        A new process below one that ran before belongs to that one: a server that
        several tests share starts and ends processes as it likes.

        Args:
            patience: How long to wait, in seconds.

        Returns:
            The command lines of those that had to be killed.
        """
        deadline = time.monotonic() + patience
        while (new := self._new(before)) and time.monotonic() < deadline:
            time.sleep(0.01)  # a process that is not our child can't be waited for
        for process in new:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(process.number, signal.SIGKILL)
                if process.parent == os.getpid():
                    os.waitpid(process.number, 0)
        return sorted(process.command for process in new)

    def _new(self, before: set[Process]) -> set[Process]:
        owners = {process.number for process in before}
        new = self.running() - before
        return {process for process in new if process.parent not in owners}

    def _look(self, name: str) -> Process | None:
        """What is known of a process; None when it ended or is not of this run."""
        if not name.isdigit():
            self._foreign.add(name)
            return None
        number = int(name)
        try:
            fields = _stat(number)
            parent, started = int(fields[1]), int(fields[19])
            if started < self._started:  # most are
                self._foreign.add(name)
                return None
            environment = _read(number, "environ")
            command = _read(number, "cmdline").replace(b"\0", b" ").decode()
        except (OSError, ValueError):  # it ended meanwhile, or is another user's
            return None
        if self._mark not in environment and parent != os.getpid():
            if environment:  # it has none while it turns into another program
                self._foreign.add(name)
            return None
        if HELPERS in command:
            return None
        return Process(number, started, parent, command.strip() or "(not waited for)")


def _stat(number: int) -> list[bytes]:
    """The fields of a process after its name: state, parent, ..., start time (19)."""
    return _read(number, "stat").rpartition(b")")[2].split()  # names may hold a )


def _read(number: int, name: str) -> bytes:
    """A file of a process, read in one go: this happens for each process and test."""
    with open(f"{PROC}/{number}/{name}", "rb", buffering=0) as file:
        return file.readall()
