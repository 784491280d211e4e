"""`lms load` loads a model that stays."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lmstudio.cli import load
from lmstudio.server.engine import LoadFailed
from lmstudio.testing import Await

ROOT = Path(__file__).parents[2]


def test_stays(lms, server):
    """The model is still loaded when the command has ended, and its name was said."""
    result = lms("load", "smol")

    assert (0, "") == (result.exit_code, result.stderr)
    assert re.fullmatch(
        r"Loaded smol in \d+\.\d s; its identifier is smol\n", result.stdout
    )
    assert ["smol"] == server.loaded()
    assert server.parameters("loadModel")[0]["noHup"] is True


def test_options(lms, server):
    """Every option arrives at the engine."""
    words = "--identifier writer -c 512 --gpu 0.5 --parallel 2 --ttl 1.5 -y"
    result = lms("load", "smol", *words.split())

    assert 0 == result.exit_code
    assert ["writer"] == server.loaded()
    assert 1500 == server.parameters("loadModel")[0]["ttlMs"]
    ((_, settings),) = server.engine.loads
    assert (512, 0.5, 2) == (
        settings.context_length,
        settings.gpu_ratio,
        settings.parallel,
    )


@pytest.mark.parametrize("text", ["max", "off", None])
def test_offload_by_word(text):
    """Words for the GPU share are taken as they are."""
    assert text is load.offload(None, None, text)


def test_progress(lms, server, monkeypatch):
    """The bar is told how far the load is."""
    shares = []

    class Bar:
        def __init__(self, title):
            shares.append(title)

        def __enter__(self):
            return shares.append

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(load, "progress_bar", Bar)
    server.on_load([0.0, 0.5, 1.0])

    assert 0 == lms("load", "smol").exit_code
    assert ["Loading smol", 0.0, 0.5, 1.0] == shares


def test_unknown_model(lms, server):
    """A key that no model has is code 4, and the line names it."""
    result = lms("load", "smoll")

    assert (4, "") == (result.exit_code, result.stdout)
    assert re.fullmatch(r"lms: .*'smoll'.*\n", result.stderr)


def test_failed_load(lms, server):
    """A model that can't be loaded is code 1, with the server's reason."""
    server.on_load([0.1, LoadFailed("Not a GGUF file", "the magic is wrong")])
    result = lms("load", "smol")

    assert (1, "") == (result.exit_code, result.stdout)
    assert re.fullmatch(
        r"lms: .*Not a GGUF file.*the magic is wrong.*\n", result.stderr
    )


def test_taken_identifier(lms, server):
    """An identifier that is in use is an error."""
    server.load("smol", identifier="writer")
    result = lms("load", "acme/big", "--identifier", "writer")

    assert 1 == result.exit_code
    assert re.fullmatch(r"lms: .*writer.*\n", result.stderr)
    assert ["writer"] == server.loaded()


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [(signal.SIGINT, 130, "lms: interrupted\n"), (signal.SIGTERM, 143, "")],
)
def test_interrupted(server, number, code, line):
    """Ctrl-C while a model loads cancels the load: nothing stays behind."""
    gate = Await()
    server.on_load([0.1, gate])
    command = [sys.executable, "-m", "lmstudio.cli.main", "load", "smol"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert gate.reached.wait(20)
        process.send_signal(number)
        out, err = process.communicate(timeout=20)

    assert (code, "", line) == (process.returncode, out, err)
    server.wait_for(lambda seen: seen.message.get("type") == "channelSend")
    assert [] == server.loaded()
