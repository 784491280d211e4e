"""Official clients search, download, and read documents with our server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from gguf_files import write_gguf
from hub_server import Fault, model_bytes
from interop import environments
from lmstudio.server.runner import serve
from lmstudio.testing.engine import ScriptedEngine, Scripts

HERE = Path(__file__).parent
FILE = "Tiny.Q4_K_M.gguf"
SIZE = len(model_bytes(size=300_000))
#: How long a client may take, seconds.
LONGEST_RUN = 60.0


@pytest.fixture
def models(tmp_path, hub):
    """The models folder with an embedding model, and a hub."""
    quantizations = {
        FILE: model_bytes(size=300_000),
        "Tiny.Q8_0.gguf": model_bytes(size=400_000, file_type=7),
    }
    hub.add("acme/Tiny-GGUF", quantizations)
    hub.add("acme/Tiny-locked-GGUF", {"a.gguf": b"x"})
    hub.locked["acme/Tiny-locked-GGUF"] = 403
    folder = tmp_path / "models"
    write_gguf(folder / "acme" / "Seeker" / "seeker.gguf", architecture="bert")
    return folder


@pytest.fixture
def server(models):
    """A server whose embedding model tells texts with a needle from others."""
    scripts = Scripts()
    scripts.embed = lambda text: [1.0, 0.0] if "needle" in text else [0.0, 1.0]
    with serve(port=0, models_dir=models, engine=ScriptedEngine(scripts)) as running:
        yield running


#: What both clients see.
SEEN = {
    "names": ["acme/Tiny-GGUF", "acme/Tiny-locked-GGUF"],
    "options": [["Q4_K_M", "fitWithoutGPU", True], ["Q8_0", "fitWithoutGPU", False]],
    "key": "tiny",
    "finalizing": 1,
    "downloaded": ["text-embedding-seeker", "tiny"],
    "none": 0,
}
LAST = {"downloadedBytes": SIZE, "totalBytes": SIZE, "speedBytesPerSecond": 0}


def test_python(server):
    """The Python SDK finds a model, downloads it and can list it."""
    python = str(environments.python())
    address = f"127.0.0.1:{server.port}"
    done = subprocess.run(
        [python, "-I", "-W", "error", str(HERE / "download_client.py"), address],
        capture_output=True,
        text=True,
        timeout=LONGEST_RUN,
    )

    assert (0, "") == (done.returncode, done.stderr)
    seen = json.loads(done.stdout)
    assert "forbids us to read acme/Tiny-locked-GGUF" in seen.pop("refused")
    assert LAST == seen.pop("last")
    assert SEEN == seen


def test_javascript(server, hub):
    """The JavaScript SDK also cancels, goes on, and searches in documents."""
    hub.fail(FILE, Fault(after=100_000, stall=True))
    node, modules = environments.javascript()
    script = str(HERE / "download_client.mjs")
    with subprocess.Popen(
        [node, script, str(modules), f"127.0.0.1:{server.port}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert hub.stalled.wait(LONGEST_RUN)
            output, errors = process.communicate("stall\n", timeout=LONGEST_RUN)
        finally:
            process.kill()

    assert (0, "") == (process.returncode, errors)
    seen = json.loads(output.splitlines()[-1])
    assert "AbortError" == seen.pop("stopped")
    assert LAST == seen.pop("last")
    assert {
        **SEEN,
        "steps": [1, "loading", "chunking", "embedding", "searched"],
        "entries": [["needle", "notes.txt"]],
        "score": 1,
        "parsed": "hay\n\nneedle",
        "same": True,
    } == seen
    assert 2 == len(hub.fetched(FILE))
