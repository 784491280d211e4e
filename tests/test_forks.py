"""A fork waits for imports of the package, so that its child can use it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest

from lmstudio import forks
from scripts import run

PATIENCE = 10.0

#: The first import of a module stops in the middle, until the fork waits for it.
FORK = """
import importlib.abc, importlib.machinery, os, signal, threading, warnings
from lmstudio import forks
warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
NAME, WHEN = {name!r}, {when!r}
reached, opened = threading.Event(), threading.Event()

def halt():
    reached.set()
    assert opened.wait(20)

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != NAME:
            return None
        sys.meta_path.remove(self)
        if WHEN == "found":
            halt()
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module
        def halted(module):
            if WHEN == "begun":
                halt()
            execute(module)
            if WHEN == "run":
                halt()
        spec.loader.exec_module = halted
        return spec

assert NAME not in sys.modules
sys.meta_path.insert(0, Finder())

def use():
    assert "hello" == model.respond("hello").content
    assert 2 == model.count_tokens("one two")

user = threading.Thread(target=use)
user.start()
assert reached.wait(20)
sleep = forks.time.sleep
def look(seconds):
    if seconds:  # the fork waits
        opened.set()
    sleep(seconds)
forks.time = type(sys)("time")
forks.time.monotonic, forks.time.sleep = __import__("time").monotonic, look
child = os.fork()
if child == 0:
    signal.alarm(10)  # ends a child that hangs
    assert opened.is_set()
    use()
    client.close()
    os._exit(0)
opened.set()
user.join()
assert 0 == os.waitpid(child, 0)[1]
print("done")
"""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


@pytest.mark.slow
@needs_fork
@pytest.mark.parametrize("when", ["found", "begun", "run"])
@pytest.mark.parametrize("name", ["lmstudio.connection", "websocket"])
def test_a_fork_in_the_middle_of_an_import(fake, name, when):
    """Wherever the import stands, of ours or of what we need, the child works."""
    assert (0, "done\n", "") == run(FORK.format(name=name, when=when), fake)


@pytest.fixture
def halted(tmp_path, monkeypatch):
    """Imports a module that stops in the middle, from code that belongs to a module."""
    threads = []
    gate = threading.Event()
    reached = threading.Event()
    monkeypatch.setitem(
        sys.modules, "halting_gate", types.SimpleNamespace(gate=gate, reached=reached)
    )
    program = "from halting_gate import gate, reached\nreached.set()\ngate.wait(20)\n"
    (tmp_path / "halting.py").write_text(program)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "halting", raising=False)

    def begin(importer):
        code = "def work():\n    import halting\n"
        space = {"__name__": importer}
        exec(code, space)
        threads.append(threading.Thread(target=space["work"]))
        threads[-1].start()
        assert reached.wait(PATIENCE)

    yield begin
    gate.set()
    for thread in threads:
        thread.join(PATIENCE)
    sys.modules.pop("halting", None)


def looks(monkeypatch, longest=PATIENCE):
    """How often a fork would pause now, three times at most."""
    pauses = []

    def sleep(seconds):
        if seconds:
            pauses.append(seconds)
        if len(pauses) == 3:
            monkeypatch.setattr(forks, "LONGEST", 0.0)
            clock[0] = longest + 1

    clock = [0.0]
    monkeypatch.setattr(forks, "LONGEST", longest)
    fake_time = types.SimpleNamespace(sleep=sleep, monotonic=lambda: clock[0])
    monkeypatch.setattr(forks, "time", fake_time)
    forks.wait_for_imports()
    return len(pauses)


def test_nobody_imports(monkeypatch):
    """Then a fork is not held up."""
    assert 0 == looks(monkeypatch)


@pytest.mark.parametrize(
    ("importer", "pauses"),
    [("lmstudio.functions", 3), ("lmstudio", 3), ("lmstudious", 0), ("theirs", 0)],
)
def test_whose_import_it_is(halted, monkeypatch, importer, pauses):
    """Imports that our code began are waited for, until the limit; others are not."""
    halted(importer)

    assert pauses == looks(monkeypatch)


def test_who_forks_may_import(monkeypatch):
    """The thread that forks does not wait for itself."""
    code = "import sys\nresult = look()\n"
    space = {"__name__": "lmstudio.x", "look": lambda: looks(monkeypatch)}
    exec(compile(code, "x", "exec"), space)

    assert 0 == space["result"]


class Locking:
    """Something with locks; it counts how often they are made anew."""

    def __init__(self):
        self.renewed = 0
        forks.renew_locks(self)

    def after_fork(self):
        self.renewed += 1


def test_locks_are_made_anew_for_what_lives(monkeypatch):
    """It is done for each object once; those that are gone are forgotten."""
    monkeypatch.setattr(forks, "_locking", {})
    kept, dropped = Locking(), Locking()
    del dropped
    assert 1 == len(forks._locking)

    forks.after_fork()

    assert 1 == kept.renewed


def test_an_object_that_goes_meanwhile(monkeypatch):
    """Its reference may be empty when its turn comes."""
    monkeypatch.setattr(forks, "_locking", {})
    kept = Locking()
    forks._locking[0] = lambda: None

    forks.after_fork()

    assert 1 == kept.renewed


ORDER = """
import os, sys
done = []
os.register_at_fork = lambda **hooks: done.append(hooks)
import lmstudio, logging, lmstudio.errors
befores = [hooks["before"] for hooks in done if "before" in hooks]
from lmstudio import forks
forks.wait_for_imports = lambda: print("waits")
for before in reversed(befores):
    print(before.__module__)
    before()
"""


@pytest.mark.slow
@needs_fork
def test_it_comes_before_the_lock_of_logging():
    """An import may need what other preparations take: who waits comes before them."""
    root = str(Path(forks.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-S", "-c", ORDER],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
        timeout=PATIENCE,
    )
    assert "" == done.stderr
    assert [
        "lmstudio.forks",
        "waits",
        "logging",
        "lmstudio.forks",
    ] == done.stdout.splitlines()
