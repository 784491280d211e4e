"""A lock has one holder, whoever asks and however holders end."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lmstudio.server import locks
from lmstudio.server.locks import only_one

PATIENCE = 30.0  # seconds; only a test that fails waits as long

pytestmark = pytest.mark.skipif(os.name == "nt", reason="there are no such locks")


def never() -> None:
    """Called where nobody should wait."""
    raise AssertionError("it waits")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A lock in a folder that is not there yet."""
    return tmp_path / "folder" / "a.lock"


def test_alone(path: Path) -> None:
    """Nobody waits for a free lock, and nothing of it stays."""
    for _ in range(2):
        with only_one(path, never) as locked:
            assert locked
            assert path.exists()
        assert not path.exists()


def test_waiting(path: Path) -> None:
    """Who comes second waits until the first lets go."""
    waits = threading.Event()

    def second() -> bool:
        with only_one(path, waits.set) as locked:
            return locked

    with ThreadPoolExecutor(1, "lock") as pool:
        with only_one(path, never):
            future = pool.submit(second)
            assert waits.wait(PATIENCE)
            assert not future.done()
        assert future.result(PATIENCE)


def test_many(path: Path) -> None:
    """Of many at once never two hold it."""
    inside: list[int] = []

    def one(number: int) -> bool:
        with only_one(path, lambda: None):
            inside.append(number)
            alone = [number] == inside
            inside.remove(number)
            return alone

    with ThreadPoolExecutor(4, "lock") as pool:
        assert [True] * 8 == list(pool.map(one, range(8)))
    assert not path.exists()


def test_interrupted_wait(path: Path) -> None:
    """Raising while waiting gives up the wait and leaves the lock to its holder."""
    with only_one(path, never):
        with pytest.raises(AssertionError, match="it waits"), only_one(path, never):
            pass
        assert path.exists()
    assert not path.exists()


@pytest.mark.slow
def test_killed_holder(path: Path) -> None:
    """A killed process holds nothing any more."""
    code = (
        "import sys, pathlib; from lmstudio.server.locks import only_one\n"
        "with only_one(pathlib.Path(sys.argv[1]), print):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    root = str(Path(locks.__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
    ) as holder:
        assert holder.stdout is not None
        assert b"held\n" == holder.stdout.readline()
        with pytest.raises(AssertionError, match="it waits"), only_one(path, never):
            pass
        holder.kill()
    with only_one(path, never) as locked:
        assert locked


def test_removed_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock on a file that was removed meanwhile is none; another try follows."""
    original = locks.fcntl.flock
    tries: list[int] = []

    def removing(descriptor: int, how: int) -> None:
        if not tries:
            path.unlink()
        tries.append(descriptor)
        original(descriptor, how)

    monkeypatch.setattr(locks.fcntl, "flock", removing)
    with only_one(path, lambda: None) as locked:
        assert locked
        assert path.exists()
    assert 2 == len(tries)


def test_no_locks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system without locks the work goes on, and is told so."""

    def refusing(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refusing)
    with only_one(path, never) as locked:
        assert not locked
