"""Pip is run for one wheel, and is gone when the call is over."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fake_pip import FakePip, fake_pip
from lmstudio.server.pip_download import FetchError, download

PATIENCE = 30.0  # seconds; only a test that fails waits as long


@pytest.fixture
def pip() -> Iterator[FakePip]:
    """A fake pip."""
    with fake_pip() as fake:
        yield fake


def nothing(_: int) -> None:
    """Progress that nobody looks at."""


def run(pip: FakePip, folder: Path, **answer: object) -> Path:
    """Download with a pip that does one thing and ends."""
    with ThreadPoolExecutor(1, "download") as pool:
        future = pool.submit(download, "a==1", folder, pip.command, nothing)
        started = pip.started()
        try:
            started.end(**answer)  # type: ignore[arg-type] # as the tests call it
            return future.result(PATIENCE)
        finally:
            started.close()


@pytest.mark.slow
def test_wheel(tmp_path: Path, pip: FakePip) -> None:
    """The wheel that pip has brought is what is returned."""
    wheel = tmp_path / "made" / "a-1-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.write_bytes(b"wheel")
    assert tmp_path / wheel.name == run(pip, tmp_path, wheel=wheel)


@pytest.mark.slow
def test_failure(tmp_path: Path, pip: FakePip) -> None:
    """The error holds the last lines that pip said, however many there were."""
    says = "\n".join(f"line {number}" for number in range(1000))
    with pytest.raises(FetchError) as caught:
        run(pip, tmp_path, says=says, code=2)
    assert "pip could not download a==1" == caught.value.title
    assert "line 996; line 997; line 998; line 999" == caught.value.cause


@pytest.mark.slow
def test_silent_failure(tmp_path: Path, pip: FakePip) -> None:
    """A pip that says nothing is told by how it ended."""
    with pytest.raises(FetchError, match="pip ended with 3"):
        run(pip, tmp_path, code=3)


@pytest.mark.slow
def test_no_wheel(tmp_path: Path, pip: FakePip) -> None:
    """A pip that succeeds and brings nothing has failed."""
    with pytest.raises(FetchError, match="Saved nothing"):
        run(pip, tmp_path, says="Saved nothing")


@pytest.mark.slow
def test_python_without_pip(tmp_path: Path, pip: FakePip) -> None:
    """A Python without pip is told apart, with the way to install it."""
    with pytest.raises(FetchError) as caught:
        run(pip, tmp_path, says="/bin/python: No module named pip", code=1)
    assert "pip is needed to download a==1, and is missing" == caught.value.title
    expected = f"Install it: {sys.executable} -m ensurepip --upgrade"
    assert expected == caught.value.suggestion


def test_no_command(tmp_path: Path) -> None:
    """So is a Python that is not there."""
    with pytest.raises(FetchError, match="No such file") as caught:
        download("a==1", tmp_path, [str(tmp_path / "none")], nothing)
    assert "pip is needed to download a==1, and is missing" == caught.value.title


@pytest.mark.slow
def test_bytes_that_are_here(tmp_path: Path, pip: FakePip) -> None:
    """What is told is the size of the largest file that pip has written."""
    part = tmp_path / "source"
    folder = tmp_path / "work"
    folder.mkdir()
    told: list[int] = []
    stop = LookupError("enough")

    def on_bytes(size: int) -> None:
        told.append(size)
        if len(told) == 1:
            started = pip.started()
            try:
                for number, name in ((30, "small"), (500, "large"), (40, "other")):
                    part.write_bytes(bytes(number))
                    started.put(part, name)
            finally:
                opened.append(started)
        if len(told) == 2:
            raise stop

    opened: list = []  # type: ignore[type-arg] # of the fake pips
    with pytest.raises(LookupError) as caught:
        download("a==1", folder, pip.command, on_bytes)
    assert stop is caught.value
    assert [0, 500] == told
    opened[0].wait_for_end()
    opened[0].close()
