"""A server process with the real model, for the tests of this folder."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

import lmstudio

ROOT = Path(__file__).parents[2]
#: Where the model stands below the models folder.
MODEL_PATH = "tests/smollm2-135m-instruct-GGUF/SmolLM2-135M-Instruct.Q4_1.gguf"
KEY = "smollm2-135m-instruct"


@attrs.frozen
class Running:
    """A server process: its address and how to reach into it."""

    process: subprocess.Popen[str]
    url: str

    def children(self) -> list[int]:
        """Process ids of the engine's children, over /proc."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has just ended
            if parent == self.process.pid:
                found.append(int(stat.parent.name))
        return found


def environment(home: Path) -> dict[str, str]:
    """Variables for a process that finds this package and this home."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "LMSTUDIO_HOME": str(home), "PYTHONPATH": path}


@pytest.fixture
def home(tmp_path: Path, model_file: Path) -> Path:
    """A home with the model in it, and two files that are no models."""
    place = tmp_path / "models" / MODEL_PATH
    place.parent.mkdir(parents=True)
    place.symlink_to(model_file)
    broken = tmp_path / "models" / "tests" / "broken"
    broken.mkdir()
    (broken / "not-a-model.gguf").write_bytes(b"This is no GGUF file. " * 100)
    with model_file.open("rb") as whole:
        (broken / "cut-off.gguf").write_bytes(whole.read(10_000_000))
    return tmp_path


@contextlib.contextmanager
def started(home: Path) -> Iterator[Running]:
    """A server process of its own, on a free port."""
    command = [sys.executable, "-m", "lmstudio.server", "--port=0"]
    process = subprocess.Popen(
        command,
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        yield Running(process, url)
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


@pytest.fixture
def server(home: Path) -> Iterator[Running]:
    """A server of the test's own."""
    with started(home) as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[lmstudio.LMStudioClient]:
    """A client of the server."""
    with lmstudio.LMStudioClient(server.url) as made:
        yield made
