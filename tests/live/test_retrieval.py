"""A search with a real embedding model finds the passage that answers."""

from __future__ import annotations

import base64

import pytest

from lmstudio import LMStudioClient
from lmstudio.server.runner import serve
from rawclient import raw_client

TEXT = """Cats sleep most of the day.

The capital of France is Paris.

Python is a programming language."""


@pytest.fixture
def server(tmp_path, embedder_file):
    """A server with the embedding model loaded."""
    place = tmp_path / "models" / "acme" / "embedder"
    place.mkdir(parents=True)
    (place / embedder_file.name).symlink_to(embedder_file)
    with (
        serve(port=0, models_dir=tmp_path / "models") as running,
        LMStudioClient(running.url) as client,
    ):
        (found,) = client.list_downloaded_models()
        client.embedding.model(found.model_key)
        yield running


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("Which city is the French capital?", "The capital of France is Paris."),
        ("What do I write software in?", "Python is a programming language."),
    ],
)
def test_the_answer_is_found(server, query, answer):
    """The passage that answers a question comes first, with the line it stands in."""
    content = base64.b64encode(TEXT.encode()).decode()
    method = {"type": "recursive-v1", "chunkSize": 60, "chunkOverlap": 0}
    fields = [
        {"key": "retrieval.chunkingMethod", "value": method},
        {"key": "retrieval.limit", "value": 1},
    ]
    with raw_client(server.url, "files") as raw:
        upload = {"name": "notes.txt", "contentBase64": content}
        identifier = raw.call("uploadFileBase64", upload)["result"]["identifier"]
        parameter = {
            "query": query,
            "fileIdentifiers": [identifier],
            "config": {"fields": fields},
        }
        packets = raw.packets(raw.open("retrieve", parameter))

    (entry,) = packets[-2]["result"]["entries"]
    assert answer == entry["content"]
    assert TEXT.split("\n").index(answer) + 1 == entry["lineNumber"]
    assert 0.2 < entry["score"] <= 1.0
