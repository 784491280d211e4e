"""Texts are embedded by llama.cpp, over the whole way from the client."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

import lmstudio
from live.conftest import KEY

EMBEDDER = "text-embedding-all-minilm-l6-v2"
#: What the original made of some texts; minilm_original.py wrote it.
ORIGINAL = json.loads(Path(__file__).with_name("minilm.json").read_text("utf-8"))
LONGEST = 512  # tokens


@pytest.fixture
def home(home: Path, embedder_file: Path) -> Path:
    """A home with both models."""
    target = home / "models" / "tests" / "minilm-GGUF" / "all-MiniLM-L6-v2.F16.gguf"
    target.parent.mkdir(parents=True)
    target.symlink_to(embedder_file)
    return home


@pytest.fixture
def embedder(client):
    """The embedding model, loaded."""
    return client.embedding.load(EMBEDDER)


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_the_original(embedder):
    """Tokens are those of the original, and vectors point the same way (0.999)."""
    texts = [row["text"] for row in ORIGINAL]
    # The two that the model puts at the ends are among them.
    assert [row["tokens"] for row in ORIGINAL] == embedder.tokenize(texts)

    vectors = embedder.embed(texts)
    cosines = [dot(a, row["vector"]) for a, row in zip(vectors, ORIGINAL, strict=True)]
    assert [] == [cosine for cosine in cosines if not 0.999 <= cosine <= 1.0001]


def test_meaning(embedder):
    """Texts that mean the same are closer than texts that share words."""
    texts = [
        "The cat sleeps on the sofa.",
        "A kitten is napping on the couch.",
        "The bank sleeps on its interest rates.",
        "How do I reset my password?",
        "I forgot my login credentials.",
    ]
    cat, kitten, bank, password, login = embedder.embed(texts)

    assert dot(cat, kitten) > dot(cat, bank) + 0.2
    assert dot(password, login) > dot(password, cat) + 0.2
    assert dot(password, login) > dot(login, bank) + 0.2


def test_embed(embedder, server):
    """Vectors have length 1 and are the same alone and among many, in order."""
    texts = [f"Number {n} is a number." for n in range(30)]
    alone = embedder.embed("Number 7 is a number.")
    many = embedder.embed(texts)

    assert 384 == len(alone)
    assert pytest.approx(1.0) == dot(alone, alone)
    assert pytest.approx(1.0, abs=1e-3) == dot(alone, many[7])
    assert max(range(30), key=lambda n: dot(alone, many[n])) == 7
    assert {384} == {len(vector) for vector in many}
    assert LONGEST == embedder.get_context_length()
    assert "embedding" == embedder.get_info().type
    assert [embedder.tokenize(one) for one in texts[:3]] == embedder.tokenize(texts[:3])
    assert 0 < embedder.count_tokens(texts[0]) < 20
    embedder.unload()
    assert [] == server.children()


def test_long_text(embedder):
    """Of a text that is too long the beginning is embedded, to the last token."""
    # One token a word, and two at the ends.
    fits = "cat " * (LONGEST - 2)
    assert LONGEST - 2 == embedder.count_tokens(fits)
    longest, longer, other = embedder.embed([fits, fits + "dog " * 2000, "dog " * 600])

    assert dot(longest, longer) > 0.99999
    assert dot(longest, other) < 0.9
    assert dot(embedder.embed(""), longest) < 0.9  # an empty text is a text


def test_kinds_do_not_mix(client):
    """The text model does not embed, and the error says what it is."""
    with pytest.raises(lmstudio.LMStudioModelNotFoundError, match="of the kind 'llm'"):
        client.embedding.load(KEY)
    with pytest.raises(lmstudio.LMStudioModelNotFoundError, match="kind 'embedding'"):
        client.llm.load(EMBEDDER)


@pytest.mark.parametrize(
    "name", ["all-minilm-l6-v2", "All-MiniLM-L6-v2@F16", "tests/minilm-GGUF"]
)
def test_its_names(client, name):
    """It is found by its short name, with its quantization, and by its folder."""
    assert EMBEDDER == client.embedding.model(name).get_info().model_key


def test_what_it_does_can_be_seen(client, embedder):
    """Another thread sees that it embeds; afterwards it is idle."""
    states = []
    running = threading.Thread(target=embedder.embed, args=(["word " * 100] * 20,))
    running.start()
    while running.is_alive():
        states.append(embedder.get_processing_state().status)
    running.join()

    assert "computingEmbedding" in states
    assert ("idle", 0) == (
        embedder.get_processing_state().status,
        embedder.get_processing_state().queued,
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
