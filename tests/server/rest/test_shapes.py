"""Figures and probabilities have the shapes that clients know."""

from __future__ import annotations

import math

import attrs

from lmstudio.server.rest import shapes
from lmstudio.server.rest.answers import Answer
from lmstudio.testing.engine import scripted_model

ONE = {"text": "a", "id": 1, "logProb": -1.0}
TWO = {"text": "é", "id": 2, "logProb": -math.inf}


def test_usage():
    """Tokens of prompts and answers are added up."""
    answer = Answer()
    answer.stats = {"promptTokensCount": 3, "predictedTokensCount": 4}
    answer.reasoning_tokens, answer.cached_tokens = 2, 1
    assert {
        "prompt_tokens": 6,
        "completion_tokens": 8,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 4},
    } == shapes.usage([answer, answer])


def test_chat_logprobs():
    """Tokens come with their bytes; the impossible has a number, too."""
    made = shapes.chat_logprobs([{**ONE, "candidates": [ONE, TWO]}], 2)
    (token,) = made["content"]
    assert ("a", [97], -1.0) == (token["token"], token["bytes"], token["logprob"])
    assert [-1.0, shapes.IMPOSSIBLE] == [
        one["logprob"] for one in token["top_logprobs"]
    ]
    assert [195, 169] == token["top_logprobs"][1]["bytes"]


def test_fewer_candidates_than_the_engine_reports():
    """As many candidates are shown as were asked for."""
    tokens = [{**ONE, "candidates": [ONE, TWO]}]
    assert [] == shapes.chat_logprobs(tokens, 0)["content"][0]["top_logprobs"]
    assert shapes.text_logprobs(tokens, 0, 0)["top_logprobs"] is None


def test_text_logprobs():
    """Offsets are counted from the beginning of the answer."""
    made = shapes.text_logprobs([{**ONE, "candidates": [ONE]}, ONE, TWO], 1, 5)
    assert [5, 6, 7] == made["text_offset"]
    assert [-1.0, -1.0, shapes.IMPOSSIBLE] == made["token_logprobs"]
    assert [{"a": -1.0}, {}, {}] == made["top_logprobs"]


def test_kinds():
    """Models that take images, embed, or neither, are told apart."""
    text = scripted_model("any")
    seeing = attrs.evolve(text, vision=True)
    embedding = attrs.evolve(text, is_embedding=True)
    assert ["llm", "vlm", "embeddings"] == [
        shapes.kind_of(file) for file in (text, seeing, embedding)
    ]
