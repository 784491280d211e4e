"""`lms load` loads a model that stays."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from lmstudio.catalog import Models
from lmstudio.cli import load
from lmstudio.server.engine import LoadFailed
from lmstudio.server.infos import model_info
from lmstudio.testing import Await
from lmstudio.wire.usage import MemoryUsage, ResourcesUsage
from terminals import Terminal

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


def test_a_draft(lms, server):
    """A model that drafts is named by its key, and how it drafts arrives with it."""
    words = "model acme/big max-tokens 8 min-tokens 2 min-continue-probability 0.5"
    names = words.split()
    names[::2] = [f"--speculative-draft-{name}" for name in names[::2]]
    result = lms("load", "smol", *names)

    assert (0, "") == (result.exit_code, result.stderr)
    ((_, settings),) = server.engine.loads
    draft = settings.draft
    assert ("acme/big", 8, 2, 0.5) == (
        draft.file.key,
        draft.max_tokens,
        draft.min_tokens,
        draft.min_probability,
    )


@pytest.mark.parametrize("option", ["simple", "max-tokens=3"])
def test_a_draft_without_a_model(lms, server, option):
    """How to draft without a model that drafts is a wrong command line."""
    result = lms("load", "smol", f"--speculative-draft-{option}")

    assert (2, "") == (result.exit_code, result.stdout)
    assert "--speculative-draft-model" in result.stderr
    assert [] == server.loaded()


def test_options_that_embedding_models_have_not(lms, server):
    """They are left out for an embedding model, as --parallel is."""
    words = ("--parallel", "2", "--speculative-draft-model", "smol")
    result = lms("load", "text-embedding-a", *words)

    assert (0, "") == (result.exit_code, result.stderr)
    ((_, settings),) = server.engine.loads
    assert settings.draft is None


def test_local(lms, server, monkeypatch):
    """With --local models of other machines are not taken."""

    def info_of(file):
        info = model_info(file)
        is_far = file.key == "smol"
        return attrs.evolve(info, device_identifier="abcd") if is_far else info

    monkeypatch.setattr("lmstudio.server.calls.model_info", info_of)
    result = lms("load", "smol", "--local")

    assert (4, "") == (result.exit_code, result.stdout)
    assert "no model of the server's machine fits 'smol'" in result.stderr
    assert [] == server.loaded()
    assert 0 == lms("load", "acme/big", "--local").exit_code
    assert 0 == lms("load", "smol").exit_code


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


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["big"], "acme/big"),
        (["BIG"], "acme/big"),
        (["acme/big", "--exact"], "acme/big"),
        (["c", "--yes"], "acme/big"),
        (["--yes"], "smol"),
    ],
    ids=str,
)
def test_parts_of_names(lms, server, words, key):
    """A part of a name will do where one model has it, or with --yes."""
    result = lms("load", *words)

    assert 0 == result.exit_code
    assert [key] == server.loaded()


def test_several_fit(lms, server):
    """A part that several have is code 4, with their names; nothing is loaded."""
    result = lms("load", "e")

    assert (4, "") == (result.exit_code, result.stdout)
    assert result.stderr.startswith("lms: several models fit 'e': name one of ")
    assert [] == server.loaded()


def test_exact(lms, server):
    """With --exact a part will not do."""
    result = lms("load", "big", "--exact")

    assert (4, "") == (result.exit_code, result.stdout)
    assert "no model on disk has exactly the key or path 'big'" in result.stderr


def test_embedding_model(lms, server):
    """An embedding model is loaded as one, and listed and unloaded too."""
    assert (
        0 == lms("load", "text-embedding-a", "-c", "128", "--parallel", "2").exit_code
    )
    assert ["text-embedding-a"] == server.loaded()
    assert "Unloaded text-embedding-a\n" == lms("unload", "text-embedding-a").stdout
    assert [] == server.loaded()


@pytest.mark.slow
def test_asks(server):
    """On a terminal it asks which model, and shows their sizes."""
    with Terminal("load") as terminal:
        terminal.until("acme/big  (1.0 MB)")
        terminal.until("Which one")
        terminal.type("2\n")
        terminal.until("its identifier is acme/big")
        assert 0 == terminal.end()


def test_estimate_only(lms, server, monkeypatch):
    """--estimate-only says what the model would take, and loads nothing."""
    usage = ResourcesUsage(
        memory=MemoryUsage(
            confidence="low",
            model_vram_bytes=0,
            context_vram_bytes=0,
            total_vram_bytes=0,
            model_bytes=1e9,
            context_bytes=5e8,
            total_bytes=1.5e9,
        ),
        passes_guardrails=False,
    )
    asked = []

    def estimate(_, key, config):
        asked.append((key, config))
        return usage

    monkeypatch.setattr(Models, "estimate_resources_usage", estimate)
    result = lms("load", "smol", "--estimate-only", "-c", "512", "--gpu", "max")

    assert (0, "") == (result.exit_code, result.stderr)
    assert [("smol", {"context_length": 512, "gpu": {"ratio": "max"}})] == asked
    assert [
        "Model: smol",
        "Context length: 512",
        "GPU offload: max",
        "Estimated GPU memory:   0 B",
        "Estimated total memory: 1.5 GB",
        "Confidence: low",
        "The model can't be loaded with what is free now",
    ] == result.stdout.splitlines()
    assert [] == server.loaded()
