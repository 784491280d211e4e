"""Users of the official clients get vectors of texts from this server."""

from __future__ import annotations

import json

import pytest

from interop.clients import embedded_server
from interop.conftest import make_home
from interop.frames import Conversation
from interop.recorder import recording

KEY = "text-embedding-all-minilm-l6-v2"
TEXTS = [
    "The cat sleeps on the sofa.",
    "A kitten is napping on the couch.",
    "Interest rates rose by half a percent.",
]


@pytest.fixture
def home(tmp_path, model_file, embedder_file):
    """A home with a text model and an embedding model."""
    place = tmp_path / "models" / "interop-tests" / "minilm-GGUF"
    place.mkdir(parents=True)
    (place / "all-MiniLM-L6-v2.F16.gguf").symlink_to(embedder_file)
    return make_home(tmp_path, model_file)


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_embedding(client, home):
    """The model is listed by its kind, loads by its short name, and embeds in order."""
    with (
        embedded_server(home) as server,
        recording(server, home / "frames.jsonl") as recorder,
        client.start("embed", recorder.address) as script,
    ):
        script.tell(TEXTS)
        output, errors, code = script.rest()
    assert ("", 0) == (errors, code)
    lines = [json.loads(line) for line in output.splitlines() if line[:1] == "{"]
    steps = {line.pop("step"): line for line in lines}

    assert [KEY] == steps["downloaded"]["keys"]
    assert {"llm", "embedding"} == {kind for _, kind in steps["downloaded"]["models"]}
    (alone,) = steps["alone"]["vectors"]
    cat, kitten, rates = steps["together"]["vectors"]
    assert {384} == {len(vector) for vector in (alone, cat, kitten, rates)}
    assert dot(alone, cat) > 0.9999
    assert dot(cat, kitten) > dot(cat, rates) + 0.3
    # The two tokens at the ends are the model's own.
    assert (7, 9) == (steps["tokens"]["count"], len(steps["tokens"]["ids"]))
    assert {"key": KEY, "type": "embedding", "context": 512} == steps["info"]
    assert [] == Conversation(recorder.frames).faults
