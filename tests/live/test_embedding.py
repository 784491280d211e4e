"""Texts are embedded by llama.cpp, over the whole way from the client."""

from __future__ import annotations

import struct
import threading
from pathlib import Path

import pytest

import lmstudio
from gguf_files import packed, text, u32
from live.conftest import KEY

EMBEDDER = "text-embedding-starter"


def as_embedder(model: Path, target: Path) -> None:
    """Copy a model with one more field in its header: that it pools, and so embeds.

    What is put in has a length that keeps the weights aligned.
    """
    data = model.read_bytes()
    count = struct.unpack_from("<Q", data, 16)[0]
    pools = text("llama.pooling_type") + packed(u32(1))
    filler = text("general.filler")
    size = len(pools) + len(filler) + len(packed(""))
    added = pools + filler + packed("x" * (-size % 32))
    head = data[:16] + struct.pack("<Q", count + 2)
    target.parent.mkdir(parents=True)
    with target.open("wb") as file:
        file.writelines((head, added, memoryview(data)[24:]))


@pytest.fixture
def home(home: Path, model_file: Path) -> Path:
    """A home with the model, and the same as an embedding model."""
    target = home / "models" / "tests" / "starter-GGUF" / f"{EMBEDDER}.gguf"
    as_embedder(model_file, target)
    return home


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_embed(client, server):
    """Vectors have length 1 and are the same alone and among many, in order."""
    model = client.embedding.load(EMBEDDER, config={"context_length": 512})
    texts = [f"Number {n} is a number." for n in range(30)]
    alone = model.embed("Number 7 is a number.")
    many = model.embed(texts)

    assert 576 == len(alone)
    assert pytest.approx(1.0) == dot(alone, alone)
    assert pytest.approx(1.0, abs=1e-3) == dot(alone, many[7])
    assert max(range(30), key=lambda n: dot(alone, many[n])) == 7
    assert {576} == {len(vector) for vector in many}
    assert 512 == model.get_context_length()
    assert "embedding" == model.get_info().type
    assert [model.tokenize(one) for one in texts[:3]] == model.tokenize(texts[:3])
    assert 0 < model.count_tokens(texts[0]) < 20
    model.unload()
    assert [] == server.children()


def test_kinds_do_not_mix(client):
    """The text model does not embed, and the error says what it is."""
    with pytest.raises(lmstudio.LMStudioModelNotFoundError, match="of the kind 'llm'"):
        client.embedding.load(KEY)
    with pytest.raises(lmstudio.LMStudioModelNotFoundError, match="kind 'embedding'"):
        client.llm.load(EMBEDDER)


def test_what_it_does_can_be_seen(client):
    """Another thread sees that it embeds; afterwards it is idle."""
    model = client.embedding.load(EMBEDDER)
    states = []
    running = threading.Thread(target=model.embed, args=(["word " * 20] * 20,))
    running.start()
    while running.is_alive():
        states.append(model.get_processing_state().status)
    running.join()

    assert "computingEmbedding" in states
    assert ("idle", 0) == (
        model.get_processing_state().status,
        model.get_processing_state().queued,
    )


def test_prompts_and_answers_can_be_watched(client):
    """The log shows the prompt with its template, and what came of it."""
    model = client.llm.load(KEY)
    with client.diagnostics.stream_logs() as logs:
        result = model.respond("Say hello.", max_tokens=8).result(60)
        first, second = next(logs), next(logs)

    assert "Say hello." in first.data.input
    assert "<|im_start|>assistant" in first.data.input
    assert result.content == second.data.output
    assert result.stats == second.data.stats


def test_a_model_without_vision_says_so(client):
    """An image is not even sent."""
    model = client.llm.load(KEY)
    image = {"type": "image_url", "image_url": {"url": "data:,GIF89a%01"}}
    with pytest.raises(lmstudio.LMStudioValueError, match="takes no images"):
        model.respond([{"role": "user", "content": ["Look", image]}])
