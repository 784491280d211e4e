"""What a prediction gives: fragments that are texts, and a result that is the whole."""

from __future__ import annotations

import copy
import pickle

import pytest

from lmstudio import LMStudioProtocolError
from lmstudio.result import PredictionResult, fragment_from_wire

PIECE = {
    "content": "a",
    "tokensCount": 2,
    "reasoningType": "reasoning",
    "containsDrafted": True,
    "isStructural": True,
    "tokens": [{"text": "a"}],
}
SUCCESS = {
    "type": "success",
    "stats": {"stopReason": "eosFound", "tokensPerSecond": 7},
    "modelInfo": {
        "type": "llm",
        "modelKey": "any",
        "path": "a/b",
        "identifier": "any",
        "instanceReference": "r",
    },
    "loadModelConfig": {"fields": [{"key": "llm.load.contextLength", "value": 2048}]},
    "predictionConfig": {
        "fields": [
            {"key": "llm.prediction.temperature", "value": 0.5},
            {
                "key": "llm.prediction.topPSampling",
                "value": {"checked": False, "value": 1},
            },
            {"key": "new.key", "value": 1},
        ]
    },
}


def piece(text, kind="none", structural=False):
    return fragment_from_wire(
        {"content": text, "reasoningType": kind, "isStructural": structural}
    )


def test_fragments():
    """A fragment is a text that knows more."""
    fragment = fragment_from_wire(PIECE)

    assert "a" == fragment
    assert str is type(fragment.content)
    assert (2, "reasoning", True, True, [{"text": "a"}]) == (
        fragment.tokens_count,
        fragment.reasoning_type,
        fragment.contains_drafted,
        fragment.is_structural,
        fragment.tokens,
    )


def test_fragments_of_older_servers():
    """Only the text has to be there."""
    fragment = fragment_from_wire({"content": "a"})

    assert (1, "none", False, False, None) == (
        fragment.tokens_count,
        fragment.reasoning_type,
        fragment.contains_drafted,
        fragment.is_structural,
        fragment.tokens,
    )


@pytest.mark.parametrize(
    "wrong", [None, [], "a", {}, {"content": 1}, {"content": None}]
)
def test_what_is_no_fragment(wrong):
    """Anything else is an error of these kinds."""
    with pytest.raises((KeyError, TypeError)):
        fragment_from_wire(wrong)


@pytest.mark.parametrize("again", [copy.copy, lambda f: pickle.loads(pickle.dumps(f))])
def test_fragments_are_copied_whole(again):
    """Copies and pickles keep what a fragment knows."""
    fragment = again(fragment_from_wire(PIECE))

    assert "a" == fragment
    assert 2 == fragment.tokens_count
    assert [{"text": "a"}] == fragment.tokens


def test_results():
    """A result is its text, and what the server said of it."""
    result = PredictionResult([piece("a"), piece("b")], SUCCESS, None)

    assert "ab" == result.content == str(result) == result.parsed
    assert not result.structured
    assert "eosFound" == result.stats.stop_reason
    assert 7 == result.stats.tokens_per_second
    assert "any" == result.model_info.identifier
    assert {"context_length": 2048} == result.load_config
    assert {
        "temperature": 0.5,
        "top_p_sampling": False,
        "new.key": 1,
    } == result.prediction_config
    assert "<PredictionResult 'ab' stop_reason='eosFound'>" == repr(result)


def test_reasoning():
    """Thoughts and answer are told apart, without the tags around them."""
    result = PredictionResult(
        [
            piece("<think>", "reasoningStartTag", True),
            piece("hm", "reasoning"),
            piece("</think>", "reasoningEndTag", True),
            piece("<x>", "none", True),
            piece("42"),
        ],
        SUCCESS,
        lambda text, reason: (text, reason),
    )

    assert "<think>hm</think><x>42" == result.content
    assert "hm" == result.reasoning_content
    assert "42" == result.non_reasoning_content
    assert ("42", "eosFound") == result.parsed
    assert result.structured


def test_parsed_is_computed_once_and_late():
    """Nothing is parsed before it is asked for, and nothing twice."""
    calls = []

    def parse(text, reason):
        calls.append(text)
        return object()

    result = PredictionResult([piece("a")], SUCCESS, parse)

    assert [] == calls
    assert result.parsed is result.parsed
    assert ["a"] == calls


@pytest.mark.parametrize("stats", [None, "x", 7])
def test_malformed_stats(stats):
    """The text is there whatever the server says; its stats are an error when asked."""
    result = PredictionResult([piece("a")], {"type": "success", "stats": stats}, None)

    assert "a" == result.content == result.parsed
    assert "<PredictionResult 'a' stop_reason=None>" == repr(result)
    with pytest.raises(LMStudioProtocolError, match="predict"):
        _ = result.stats


def test_a_long_text_is_cut_in_the_repr():
    """The short form is one line."""
    result = PredictionResult([piece("x" * 100)], SUCCESS, None)

    assert f"<PredictionResult '{'x' * 59}…' stop_reason='eosFound'>" == repr(result)


def test_fragments_of_a_result_do_not_change():
    """The result keeps what it was made of."""
    pieces = [piece("a")]
    result = PredictionResult(pieces, SUCCESS, None)

    pieces.append(piece("b"))

    assert ("a",) == result.fragments
    assert "a" == pickle.loads(pickle.dumps(result)).content
