"""The whole command line and the demo, with the real server and a real model."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import lmstudio
from lmstudio.cli import background, processes
from lmstudio.server import starters

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
NAME = "smollm2-135m-instruct"


@pytest.fixture
def models(home, monkeypatch, model_file):
    """The models folder, with the model in the place where `lms get` puts it."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the demo stands in another folder
    place = home / "models" / starters.STARTERS[NAME].path
    place.parent.mkdir(parents=True)
    place.symlink_to(model_file)
    return home / "models"


@pytest.fixture
def running(models, lms):
    """A server in the background."""
    words = [sys.executable, "-m", "lmstudio.cli.main", "server", "start", "--port=0"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    found = background.written_down()
    yield found
    if found.is_in_background:
        background.stop(found)


@pytest.fixture
def key(models, lms):
    """The key of the model, as the folder is listed without a server."""
    return json.loads(lms("ls", "--json").stdout)[0]["modelKey"]


def test_a_session(lms, running, key):
    """Load, list, talk, unload: what the README's first screen says."""
    words = ["--identifier", "writer", "-c", "512", "--parallel", "2", "--ttl", "600"]
    result = lms("load", key, *words)
    assert (0, "") == (result.exit_code, result.stderr)

    (model,) = json.loads(lms("ps", "--json").stdout)
    assert ("writer", key, 512, 600_000) == (
        model["identifier"],
        model["modelKey"],
        model["contextLength"],
        model["ttlMs"],
    )
    with lmstudio.LMStudioClient() as client:
        answer = client.llm.get("writer").respond("Say hello.", max_tokens=5)
        assert 5 == answer.stats.predicted_tokens_count

    assert "Unloaded writer\n" == lms("unload").stdout
    assert [] == json.loads(lms("ps", "--json").stdout)
    assert f"Stopped the server at {running.address}\n" == lms("server", "stop").stdout


def test_chat(lms, running, key):
    """A prompt in a pipe is answered by a model that is loaded for it."""
    command = [sys.executable, "-m", "lmstudio.cli.entry", "chat", key, "--stats"]
    run = subprocess.run(
        command, input="Say hello.", capture_output=True, text=True, cwd=ROOT
    )

    assert 0 == run.returncode
    assert run.stdout.strip()
    assert "Answer tokens: " in run.stderr


def test_log_of_the_server(lms, running, key):
    """`lms log stream --source server` shows the server's own lines."""
    command = [sys.executable, "-m", "lmstudio.cli.entry", "log", "stream"]
    with subprocess.Popen(
        [*command, "--source", "server"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        try:
            assert process.stderr.readline().startswith("Watching ")
            assert 0 == lms("load", key).exit_code
            while f"loaded {key}" not in process.stdout.readline():
                assert process.poll() is None
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)
    assert 0 == process.returncode


def test_estimate(lms, running, key):
    """An estimate of the real server is at least the size of the file."""
    result = lms("load", key, "--estimate-only", "-c", "512")

    assert (0, "") == (result.exit_code, result.stderr)
    assert re.search(r"^Estimated total memory: 1\d\d\.\d MB$", result.stdout, re.M)
    assert [] == json.loads(lms("ps", "--json").stdout)


def test_a_file_that_is_no_model(lms, running, models):
    """A GGUF file that is none can't be loaded: one line, and the server lives."""
    broken = models / "acme" / "broken" / "broken.gguf"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"this is no model")
    result = lms("load", "acme/broken/broken.gguf")

    assert (1, "") == (result.exit_code, result.stdout)
    assert re.fullmatch(r"lms: .*broken\.gguf.*\n", result.stderr)
    assert running.answers


def test_stopping_with_a_loaded_model(lms, running, key):
    """The process of the model goes with the server, even when that is killed."""
    lms("load", key)
    lms("load", key)
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
    if not children.exists():
        pytest.skip("this system does not tell the children of a process")
    engines = [
        int(pid)
        for task in Path(f"/proc/{running.pid}/task").iterdir()
        for pid in (task / "children").read_text().split()
    ]
    assert 2 == len(engines)

    os.kill(running.pid, signal.SIGKILL)
    gone = processes.wait_for(
        lambda: not any(map(processes.is_alive, [running.pid, *engines])), 10
    )
    assert gone
    assert "The server is not running\n" == lms("server", "stop").stdout


def test_demo(models, model_file):
    """The demo runs to its end and shows what it promises."""
    if model_file.stat().st_size != starters.STARTERS[NAME].size:
        pytest.skip("the model of the tests is not the one that the demo takes")
    run = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "examples" / "demo.py")],
        capture_output=True,
        text=True,
    )

    assert (0, "") == (run.returncode, run.stderr)
    steps = re.findall(r"^== (\w+)", run.stdout, re.M)
    assert [
        "Fetching",
        "Starting",
        "Loading",
        "Completing",
        "Asking",
        "Asking",
        "Asking",
        "Stopping",
    ] == steps
    dragon = json.loads(re.search(r"^\{.*?^\}", run.stdout, re.M | re.S)[0])
    assert {"name", "color", "age"} == set(dragon)
    assert "userStopped]" in run.stdout
    assert run.stdout.endswith("Done.\n")
