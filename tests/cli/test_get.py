"""`lms get` fetches starter models, and models of the hub."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from hub_server import Fault, model_bytes, temporary
from lmstudio.cli import get
from lmstudio.server import starters
from lmstudio.server.runner import serve
from lmstudio.testing.engine import ScriptedEngine, Scripts

FILE = "Tiny.Q4_K_M.gguf"
NAME = "smollm2-135m-instruct"


@pytest.fixture
def fetch(monkeypatch, home):
    """Stands in for the download; holds how far the bar was told to be."""
    shares = []

    class Bar:
        def __init__(self, title):
            shares.append(title)

        def __enter__(self):
            return shares.append

        def __exit__(self, *_):
            pass

    def fetched(name, models_dir, on_progress):
        assert (NAME, home / "models") == (name, models_dir)
        on_progress(25, 100)
        return models_dir / "model.gguf"

    monkeypatch.setattr(get, "progress_bar", Bar)
    monkeypatch.setattr(starters, "fetch", fetched)
    return shares


def test_fetches(lms, home, fetch):
    """The model goes into the models folder, with a bar, and the path is said."""
    result = lms("get", NAME, "-y")

    assert (0, "") == (result.exit_code, result.stderr)
    assert f"{NAME} is in {home / 'models' / 'model.gguf'}\n" == result.stdout
    assert [f"Fetching {NAME}", 0.25] == fetch


def test_json(lms, home, fetch):
    """As JSON: the model's key, and the path."""
    expected = {"modelKey": NAME, "path": str(home / "models" / "model.gguf")}

    assert expected == json.loads(lms("get", NAME, "--json").stdout)


def test_no_name(lms):
    """Without a name, the known ones are listed."""
    result = lms("get")

    assert (2, "") == (result.exit_code, result.stdout)
    known = ", ".join(starters.STARTERS)
    expected = f"lms: say which model to fetch: {known}, or owner/name\n"
    assert expected == result.stderr


def test_failure(lms, monkeypatch):
    """What went wrong with the download is one line, and code 1."""

    def failing(*_):
        raise starters.FetchError("No space", "needs 98 MB,\nhas 1", "Free some")

    monkeypatch.setattr(starters, "fetch", failing)
    result = lms("get", NAME)

    assert (1, "") == (result.exit_code, result.stdout)
    assert result.stderr.startswith("lms: No space")
    assert 1 == result.stderr.count("\n")


@pytest.fixture
def acme(hub, nobody):
    """A hub with a model in two quantizations, and no server on this machine."""
    quantizations = {
        FILE: model_bytes(size=300_000),
        "Tiny.Q8_0.gguf": model_bytes(size=400_000, file_type=7),
    }
    hub.add("acme/Tiny-GGUF", quantizations)
    return hub


@pytest.fixture
def running(acme, home, monkeypatch):
    """A server that downloads into the home folder, which every command finds."""
    folder = home / "models"
    with serve(port=0, models_dir=folder, engine=ScriptedEngine(Scripts())) as server:
        monkeypatch.setenv("LMSTUDIO_HOST", server.url)
        yield server


@pytest.fixture(params=["alone", "through a server"])
def either(request, acme):
    """With a server and without one."""
    if request.param != "alone":
        request.getfixturevalue("running")
    return acme


def files(home):
    """Names of the models in the home folder."""
    return sorted(path.name for path in (home / "models").rglob("*.gguf"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("acme/Tiny-GGUF", FILE),
        ("acme/Tiny-GGUF@q8_0", "Tiny.Q8_0.gguf"),
        ("acme/Tiny-GGUF:Q8_0", "Tiny.Q8_0.gguf"),
        ("{url}/acme/Tiny-GGUF/blob/main/Tiny.Q8_0.gguf", "Tiny.Q8_0.gguf"),
    ],
)
def test_hub(lms, home, either, name, file):
    """A model of the hub goes into the models folder, with a server and without."""
    result = lms("get", name.format(url=either.url), "--gguf")

    path = f"acme/Tiny-GGUF/{file}"
    assert (0, "") == (result.exit_code, result.stderr)
    assert f"tiny is in {path}; try: lms load tiny\n" == result.stdout
    assert [file] == files(home)


@pytest.mark.slow
def test_hub_as_json(lms, either):
    """As JSON: the model's key, and where it is below the models folder."""
    result = lms("get", "acme/Tiny-GGUF", "--json")

    assert {
        "modelKey": "tiny",
        "indexedModelIdentifier": f"acme/Tiny-GGUF/{FILE}",
    } == json.loads(result.stdout)


def test_bar(lms, either, monkeypatch):
    """A bar shows how far it is, with the name and the size."""
    shares = []

    class Bar:
        def __init__(self, title):
            shares.append(title)

        def __enter__(self):
            return shares.append

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(get, "progress_bar", Bar)
    lms("get", "acme/Tiny-GGUF")

    assert "Downloading acme/Tiny-GGUF@q4_k_m (300.4 kB)" == shares[0]
    assert 1.0 == shares[-1]


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("acme/none", 4, "has no acme/none"),
        ("acme/Empty", 4, "no model that llama.cpp can load"),
        ("acme/Tiny-GGUF@q5", 4, "has no q5; there are acme/Tiny-GGUF@q4_k_m"),
        ("acme/Tiny-GGUF/x.gguf", 4, "has no x.gguf"),
        ("../x", 2, "names no model of the hub"),
        ("https://example.org/a/b", 2, "names no model of the hub"),
        ("acme/Locked", 1, "Accept the model's terms"),
        ("nix", 4, "the hub has no GGUF model called 'nix'"),
        ("tiny", 4, "on the hub there are acme/Tiny-GGUF"),
    ],
)
def test_hub_refuses(lms, home, either, name, code, text):
    """What can't be downloaded is one line, with a code and what there is."""
    either.add("acme/Empty", {"README.md": b"x"})
    either.add("acme/Locked", {"locked-x.gguf": b"x"})
    either.locked["acme/Locked"] = 403
    result = lms("get", name)

    assert (code, "") == (result.exit_code, result.stdout)
    assert 1 == result.stderr.count("\n")
    assert text in result.stderr
    assert [] == files(home)


@pytest.mark.slow
def test_broken_download(lms, acme, home):
    """A download that the hub refuses in the middle is code 1; it can be continued."""
    acme.fail(FILE, Fault(after=1000), Fault(status=429))
    result = lms("get", "acme/Tiny-GGUF")

    assert (1, "") == (result.exit_code, result.stdout)
    assert "has had too many requests" in result.stderr
    assert 1 == len(temporary(home))
    assert 0 == lms("get", "acme/Tiny-GGUF").exit_code
    assert "bytes=1000-" == acme.fetched(FILE)[-1]


@pytest.mark.slow
def test_words_and_yes(lms, home, either):
    """With --yes words mean the first result."""
    assert 0 == lms("get", "tiny", "--yes").exit_code
    assert [FILE] == files(home)


def test_select(lms, home, either, monkeypatch):
    """With --select the user chooses a result and a file."""
    answers = iter([1, 2])
    monkeypatch.setattr("click.prompt", lambda *_, **__: next(answers))
    result = lms("get", "tiny", "--select")

    assert 0 == result.exit_code
    assert "1   Q4_K_M   300.4 kB            recommended" in result.stdout
    assert ["Tiny.Q8_0.gguf"] == files(home)


def test_too_large(lms, acme, monkeypatch):
    """A model that does not fit is downloaded when it is named, with a warning."""
    monkeypatch.setattr("lmstudio.server.downloads.total_memory", lambda: 1000)
    result = lms("get", "acme/Tiny-GGUF@q8_0")

    assert 0 == result.exit_code
    assert "may not fit into the memory" in result.stderr
    assert "no file that fits the memory" in lms("get", "acme/Tiny-GGUF").stderr


@pytest.mark.parametrize(
    ("options", "text"),
    [(["--mlx"], "MLX can't be run"), (["--select", "-y"], "not both")],
)
def test_refused_options(lms, options, text):
    """What can't be meant is code 2."""
    result = lms("get", "acme/Tiny-GGUF", *options)

    assert (2, True) == (result.exit_code, text in result.stderr)


@pytest.mark.slow
def test_interrupted(acme, home):
    """Ctrl-C leaves what came, says how to go on, and is code 130."""
    acme.fail(FILE, Fault(after=100_000, stall=True))
    command = [sys.executable, "-m", "lmstudio.cli.entry", "get", "acme/Tiny-GGUF"]
    environment = {**os.environ, "LMSTUDIO_HOST": ""}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert acme.stalled.wait(10)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=10)

    assert (130, b"") == (process.returncode, output)
    assert b"`lms get acme/Tiny-GGUF@q4_k_m` continues it" in errors
    assert 1 == len(temporary(home))
    assert [] == files(home)
