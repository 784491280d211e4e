"""The look for leftovers finds what a test leaves running, and nothing else."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

from leftovers import LINUX, Processes, nothing_kept, nothing_left

pytestmark = pytest.mark.slow

#: Says that it runs, then waits until its standard input ends.
WAITER = "import sys; print('up', flush=True); sys.stdin.read()"
#: Starts a waiter that lives on, and ends.
DETACHER = (
    "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]],"
    " start_new_session=True)"
)
#: Starts a waiter without a mark and one with it, and is a waiter itself.
STRANGE_FAMILY = (
    "import subprocess, sys; what = [sys.executable, '-c', sys.argv[1]];"
    " pipe = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE);"
    " two = [subprocess.Popen(what, env={'MARK': mark}, **pipe)"
    " for mark in ('', sys.argv[2])];"
    " ups = [one.stdout.readline() for one in two];"
    " print('up', flush=True); print(two[0].pid, two[1].pid, flush=True);"
    " sys.stdin.read(); [one.communicate(b'') for one in two]"
)

#: Uses what stays open from its first use on: a callback, and a helper of Python.
OPENER = """
import sys
from pathlib import Path
from leftovers import nothing_kept
with nothing_kept(Path(sys.argv[1]), 0.0):
    import ctypes
    ctypes.CFUNCTYPE(None)(print)
    from multiprocessing import resource_tracker
    resource_tracker.ensure_running()
"""

linux = pytest.mark.skipif(not LINUX, reason="processes are found in /proc")


def start(*command: str, mark: str = "") -> subprocess.Popen[str]:
    """Start Python and wait until it says so."""
    child = subprocess.Popen(
        [sys.executable, "-c", *command],
        env={"MARK": mark},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert "up\n" == child.stdout.readline()
    return child


@linux
def test_a_child_is_found_and_ended():
    """A child that still runs is reported by its command line, and killed."""
    processes = Processes(uuid.uuid4().hex)
    before = processes.running()
    with start(WAITER) as child:
        assert [f"{sys.executable} -c {WAITER}"] == processes.end_new(before, 0.0)
    assert child.returncode is not None
    assert [] == processes.end_new(before, 0.0)


@linux
def test_a_detached_process_is_found():
    """A process whose parent has ended is known by what it inherited."""
    mark = uuid.uuid4().hex
    processes = Processes(mark)
    before = processes.running()
    with start(DETACHER, WAITER, mark=mark) as child:
        child.wait(10)
        assert [f"{sys.executable} -c {WAITER}"] == processes.end_new(before, 0.0)


@linux
def test_what_ran_before_is_left_alone():
    """A process that ran before, and what it starts, is not ended."""
    processes = Processes(uuid.uuid4().hex)
    with start(WAITER) as child:
        before = processes.running()
        assert [] == processes.end_new(before, 0.0)
        assert child.poll() is None
        child.communicate("")
    assert 0 == child.returncode


def test_a_thread_is_found():
    """A block that leaves a thread behind fails with the thread's name."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="forgotten")
    try:
        with (
            pytest.raises(AssertionError, match="left running: thread forgotten"),
            nothing_left(Processes("unused"), 0.0),
        ):
            thread.start()
    finally:
        end.set()
        thread.join()


def test_what_ends_is_nothing_left():
    """A block whose thread and process end in time passes."""
    end = threading.Event()
    with nothing_left(Processes(uuid.uuid4().hex), 10.0):
        threading.Thread(target=end.wait).start()
        child = start(WAITER)
        end.set()
        child.communicate("")


@linux
def test_a_process_is_found():
    """A block that leaves a process behind fails with its command line."""
    with (
        pytest.raises(AssertionError, match=r"left running: process .*stdin\.read"),
        nothing_left(Processes(uuid.uuid4().hex), 0.0),
    ):
        child = start(WAITER)
    with child:
        pass


@linux
def test_a_socket_is_found(tmp_path):
    """A block that keeps a socket fails with its number."""
    with (
        pytest.raises(AssertionError, match=r"socket:\[\d+\] \(file descr"),
        nothing_kept(tmp_path, 0.0),
    ):
        kept = socket.socket()
    kept.close()


@linux
def test_what_another_thread_closes_in_time_is_not_kept(tmp_path):
    """Sockets may be closed a moment after the block."""
    with nothing_kept(tmp_path, 10.0):
        opened = socket.socket()
        closer = threading.Timer(0.05, opened.close)
        closer.start()
    closer.join()


@linux
def test_what_python_opens_for_good_is_not_kept(tmp_path):
    """Callbacks of C and helpers of Python may be used first in any test."""
    done = subprocess.run(
        [sys.executable, "-c", OPENER, str(tmp_path)],
        env={"PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=60.0,
    )
    assert (0, "") == (done.returncode, done.stderr)


def test_a_temporary_file_is_found(tmp_path):
    """A block that leaves a temporary file behind fails with its name."""
    (tmp_path / "before").touch()
    with (
        pytest.raises(AssertionError, match=r"temporary file forgotten$"),
        nothing_kept(tmp_path, 0.0),
    ):
        (tmp_path / "forgotten").touch()


@linux
def test_older_processes_are_looked_at_once(monkeypatch):
    """What is older than the run needs no second look, and what is new gets one."""
    processes = Processes(uuid.uuid4().hex)
    processes.running()
    seen: list[str] = []
    look = processes._look
    monkeypatch.setattr(processes, "_look", lambda n: seen.append(n) or look(n))
    with start(WAITER) as child:
        processes.running()
        child.communicate("")

    assert str(child.pid) in seen
    assert "1" not in seen  # the parent may be of the same tick of the clock


@linux
def test_strangers_are_looked_at_once(monkeypatch):
    """What carries no mark of the run, and is not our child, needs no second look."""
    mark = uuid.uuid4().hex
    processes = Processes(mark)
    with start(STRANGE_FAMILY, WAITER, mark) as child:
        stranger, ours = child.stdout.readline().split()
        before = {process.number for process in processes.running()}
        seen: list[str] = []
        look = processes._look
        monkeypatch.setattr(processes, "_look", lambda n: seen.append(n) or look(n))
        after = {process.number for process in processes.running()}
        child.communicate("")

    assert {child.pid, int(ours)} == before == after
    assert stranger not in seen
    assert ours in seen
