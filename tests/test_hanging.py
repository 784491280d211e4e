"""A test that hangs ends the run, and what all threads do is told."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PATIENCE = 60.0
CONFTEST = """
import hanging

def pytest_configure(config):
    hanging.LIMIT = 1.0
    hanging.begin()
    config.pluginmanager.register(hanging)
"""
#: Goes on with the file above: limits are told and not set.
TELL = """
import builtins, functools, sys
tell = builtins.tell = functools.partial(print, file=sys.stderr)
hanging.signal.setitimer = lambda _, seconds: tell("limit", seconds)
"""
HANGS = """
import threading

import pytest

def hang():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()

@pytest.fixture
def ends():
    yield
    hang()
"""
WHERE = {
    "in a test": "def test_it(): hang()",
    "in a teardown behind a failure": "def test_it(ends): assert False",
    "at the exit": "def test_it(): threading.Thread(target=hang).start()",
}


def run(folder, program, *options, tell=""):
    """Run a file of tests by itself; its process and what it said."""
    (folder / "conftest.py").write_text(CONFTEST + tell)
    (folder / "test_it.py").write_text(HANGS + program)
    (folder / "pytest.ini").write_text(f"[pytest]\npythonpath = {HERE}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, *options],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@pytest.mark.slow
@pytest.mark.parametrize("program", WHERE.values(), ids=WHERE)
def test_what_hangs_is_ended(tmp_path, program):
    """Wherever it does, also where a thread keeps the process from its end."""
    done = run(tmp_path, program)

    assert -signal.SIGALRM == done.returncode
    assert ", line 9 in hang\n" in done.stderr


@pytest.mark.slow
def test_others_go_on(tmp_path):
    """Where tests run in several processes, the one is named and the others run."""
    program = "def test_it(): hang()\n@pytest.mark.parametrize('n', range(9))\n"
    done = run(tmp_path, program + "def test_other(n): pass", "-n1")

    assert "crashed while running 'test_it.py::test_it'" in done.stdout
    assert "1 failed, 9 passed" in done.stdout
    assert ", line 9 in hang\n" in done.stderr


@pytest.mark.slow
def test_what_takes_its_time_goes_on(tmp_path):
    """Each part has a limit of its own, and nothing limits what is between tests."""
    program = "@pytest.mark.parametrize('n', range(2))\n"
    done = run(tmp_path, program + "def test_it(n): tell('test')", "-s", tell=TELL)

    each = ["limit 1.0", "limit 1.0", "test", "limit 1.0", "limit 0"]
    told = [*each, *each, "limit 1.0"]
    assert (0, told) == (done.returncode, done.stderr.splitlines())
