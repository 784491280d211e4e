"""Texts become vectors, as floats or packed."""

from __future__ import annotations

import asyncio
import base64
import struct

import pytest

from lmstudio.testing.answers import vector_of
from lmstudio.testing.engine import ScriptedModel

PATH = "/v1/embeddings"
MODEL = "any-embed"


@pytest.mark.parametrize("path", [PATH, "/api/v0/embeddings"])
def test_floats(served, path):
    """Each text has its vector, in order, and tokens are counted."""
    made = served.ask(path, {"model": MODEL, "input": ["a b", "c"]}).json
    assert ("list", MODEL) == (made["object"], made["model"])
    assert [
        {"object": "embedding", "index": 0, "embedding": vector_of("a b")},
        {"object": "embedding", "index": 1, "embedding": vector_of("c")},
    ] == made["data"]
    # The scripted model puts one token in front of each text.
    assert {"prompt_tokens": 5, "total_tokens": 5} == made["usage"]


def test_only_what_was_embedded_counts(served):
    """Of a text longer than the context the beginning counts, and no more."""
    served.ask(PATH, {"model": MODEL, "input": "a"})
    (instance,) = served.scripted.services[0].registry.loaded("embedding")
    longest = instance.settings.context_length
    texts = ["a " * (longest + 9), "a"]
    made = served.ask(PATH, {"model": MODEL, "input": texts}).json
    assert longest + 2 == made["usage"]["prompt_tokens"]


def test_one_text(served):
    """A text alone is a list of one."""
    made = served.ask(PATH, {"model": MODEL, "input": "a"}).json
    assert [vector_of("a")] == [item["embedding"] for item in made["data"]]


def test_packed(served):
    """Base64 holds the same numbers, in 32 bits each."""
    body = {"model": MODEL, "input": "a", "encoding_format": "base64"}
    (item,) = served.ask(PATH, body).json["data"]
    numbers = struct.unpack("<2f", base64.b64decode(item["embedding"]))
    assert vector_of("a") == pytest.approx(numbers)


def test_the_time_to_live(served):
    """The model is loaded with the time to live of the request."""
    served.ask(PATH, {"model": MODEL, "input": "a", "ttl": 5})
    (instance,) = served.scripted.services[0].registry.loaded("embedding")
    assert (5, ("idle", 0)) == (instance.ttl, instance.status)


def test_texts_run_at_once(served, monkeypatch):
    """Texts of a request do not wait for each other, and stay in order."""
    waiting, embed = [], ScriptedModel.embed

    async def meet(model, text):
        waiting.append(text)
        while len(waiting) < 3:
            await asyncio.sleep(0.001)
        return await embed(model, text)

    monkeypatch.setattr(ScriptedModel, "embed", meet)
    texts = ["a", "b", "c"]
    made = served.ask(PATH, {"model": MODEL, "input": texts}).json
    assert [*map(vector_of, texts)] == [item["embedding"] for item in made["data"]]


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": 5}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": [1, 2]}, "input[0]"),
        ({"input": [[1, 2]]}, "input[0]"),
        ({"input": ["a", None]}, "input[1]"),
        ({"input": ""}, "input"),
        ({"input": "a", "dimensions": 5}, "dimensions"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a", "model": "any"}, "model"),
    ],
)
def test_what_is_refused(served, more, param):
    """Wrong values are told with their places."""
    answer = served.ask(PATH, {"model": MODEL, **more})
    assert (400, param) == (answer.status, answer.error["param"])
