"""What the official SDKs' own test suites call and expect holds for this server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from interop import environments
from interop.clients import embedded_server
from interop.frames import Conversation
from interop.recorder import recording

HERE = Path(__file__).parent
#: How long a client may take, seconds: many times what it needs.
LONGEST_RUN = 120.0
KEY = "some-1b-instruct"
EMBEDDER = "text-embedding-all-minilm-l6-v2"


@pytest.fixture(params=["python", "js"])
def command(request) -> list[str]:
    """What runs the calls with an official client; an address follows."""
    if request.param == "python":
        python = str(environments.python())
        return [python, "-I", "-W", "error", str(HERE / "suite_client.py")]
    node, modules = environments.javascript()
    return [node, str(HERE / "suite_client.mjs"), str(modules)]


@pytest.fixture
def home(tmp_path, model_file, embedder_file):
    """A home with two text models and one that embeds, in repos as on the hub."""
    for path, target in {
        "acme-quants/Some-1B-Instruct-Q8_0-GGUF/some-1b-instruct-q8_0": model_file,
        "acme-quants/Some-2B-Instruct-GGUF/Some-2B-Instruct-Q4_K_M": model_file,
        "acme/all-MiniLM-L6-v2-GGUF/all-MiniLM-L6-v2.F16": embedder_file,
    }.items():
        place = tmp_path / "models" / f"{path}.gguf"
        place.parent.mkdir(parents=True)
        place.symlink_to(target)
    return tmp_path


def test_calls_of_the_suites(command, home):
    """Names, clashes, uploads, templates with files, eviction, five at once, stops."""
    with (
        embedded_server(home) as server,
        recording(server, home / "frames.jsonl") as recorder,
    ):
        done = subprocess.run(
            [*command, recorder.address],
            capture_output=True,
            text=True,
            timeout=LONGEST_RUN,
        )
    assert ("", 0) == (done.stderr, done.returncode)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    steps = {line.pop("step"): line for line in lines}

    names = {"loaded": KEY, "found": KEY, "info": KEY, "embedder": EMBEDDER}
    assert names == steps["names"]
    assert f"identifier '{KEY}' already exists" in steps["taken"]["error"]
    assert f"{KEY}:2" == steps["another"]["identifier"]
    first, second = steps["images"]["identifiers"]
    assert first != second
    formatted = steps["template"]["formatted"]
    assert formatted.index("Be brief.") < formatted.index("Read this.")
    assert {
        "before": [EMBEDDER],
        "after": [],
        "texts": [KEY, "some-2b-instruct"],
    } == steps["evicted"]
    assert 5 == len(steps["together"]["predicted"])
    assert all(0 < count <= 8 for count in steps["together"]["predicted"])
    assert ["userStopped"] * 2 == steps["cancelled"]["stops"]
    assert "end" in steps
    assert [] == Conversation(recorder.frames).faults
