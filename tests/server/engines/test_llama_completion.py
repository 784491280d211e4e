"""Requests and replies of completions are put into llama.cpp's words and ours."""

from __future__ import annotations

import json

import pytest

from lmstudio.server.engine import (
    BadRequest,
    ContextOverflow,
    Done,
    EngineError,
    Image,
    Piece,
    PromptProgress,
    Request,
    Sampling,
)
from lmstudio.server.engines.http import Refused
from lmstudio.server.engines.llama_completion import (
    GUIDANCE,
    Reading,
    completion,
    guided,
    parse,
    refusal,
    unit_mean,
)

TIMINGS = {"prompt_ms": 250.0, "predicted_ms": 500.0, "predicted_per_second": 8.0}


def read(*payloads, logprobs=None):
    reading = Reading(logprobs)
    return [event for payload in payloads for event in reading.events(payload)]


def text(content, predicted, **fields):
    return {
        "content": content,
        "tokens_predicted": predicted,
        "tokens_evaluated": 3,
        "stop": False,
        **fields,
    }


def end(predicted, stop_type, **fields):
    fields = {"timings": TIMINGS, "truncated": False, **fields}
    return text("", predicted, **{"stop": True, "stop_type": stop_type, **fields})


def test_a_bare_request_leaves_all_to_the_engine():
    """What is not asked for is not sent, and a stream is always asked for."""
    body = completion(Request(prompt="Hi"))
    del body["response_fields"]

    expected = {"prompt": "Hi", "stream": True, "return_progress": True}
    assert {**expected, "n_predict": -1, "stop": []} == body


def test_a_full_request_is_translated():
    """Every part of a request has its place in the body."""
    sampling = Sampling(
        temperature=0.0,
        top_k=1,
        top_p=0.5,
        min_p=0.1,
        repeat_penalty=1.1,
        presence_penalty=0.2,
        frequency_penalty=0.3,
        xtc_probability=0.4,
        xtc_threshold=0.6,
        seed=7,
        logit_bias={15: -1.5, 16: False},
    )
    body = completion(
        Request(
            prompt=["a", 5],
            sampling=sampling,
            max_tokens=9,
            stop=["", "x"],
            grammar="g",
            logprobs=0,
        )
    )
    del body["response_fields"]

    assert {
        "prompt": ["a", 5],
        "stream": True,
        "return_progress": True,
        "n_predict": 9,
        "stop": ["x"],
        "temperature": 0.0,
        "top_k": 1,
        "top_p": 0.5,
        "min_p": 0.1,
        "repeat_penalty": 1.1,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.3,
        "xtc_probability": 0.4,
        "xtc_threshold": 0.6,
        "seed": 7,
        "logit_bias": [[15, -1.5], [16, False]],
        "n_probs": 1,
        "grammar": "g",
    } == body


def test_rarer_parts_of_a_request():
    """Rarer samplers, and control tokens that are part of the output, are sent."""
    sampling = Sampling(typical_p=0.7, mirostat=2, mirostat_tau=4.0, mirostat_eta=0.2)
    body = completion(Request(prompt="a", sampling=sampling, visible=("<think>",)))

    assert {
        "typical_p": 0.7,
        "mirostat": 2,
        "mirostat_tau": 4.0,
        "mirostat_eta": 0.2,
        "preserved_tokens": ["<think>"],
    }.items() <= body.items()


@pytest.mark.parametrize(
    ("limit", "sent"), [(2**31 - 1, 2**31 - 1), (2**32 + 5, 2**31 - 1)]
)
def test_limits_that_llama_cpp_cannot_hold(limit, sent):
    """A limit of tokens beyond its numbers is its largest, not what is left of it."""
    assert sent == completion(Request(prompt="", max_tokens=limit))["n_predict"]


def test_schemas_get_our_spacing():
    """A schema carries how JSON is spaced, and any JSON is an object."""
    assert {"type": "object", "x-guidance": GUIDANCE} == guided({})
    assert {"type": "array", "x-guidance": GUIDANCE} == guided({"type": "array"})
    own = guided({"x-guidance": {"lenient": False}, "type": "array"})
    assert {**GUIDANCE, "lenient": False} == own["x-guidance"]
    body = completion(Request(prompt="", json_schema={"type": "array"}))
    assert guided({"type": "array"}) == body["json_schema"]


def test_tokens_without_text_count_with_the_text_they_belong_to():
    """The pieces' tokens add up, though some tokens arrive without text."""
    assert [
        Piece("a", 1),
        Piece("\N{GRINNING FACE}", 3),
        Piece(" b", 2),
        Done(
            reason="limit",
            prompt_tokens=3,
            predicted_tokens=6,
            prompt_seconds=0.25,
            predicted_seconds=0.5,
            tokens_per_second=8.0,
        ),
    ] == read(
        text("a", 1),
        text("\N{GRINNING FACE}", 4),
        text("", 5),
        text(" b", 6),
        end(6, "limit"),
    )


def test_text_in_the_last_event_is_not_lost():
    """Text that was held back for a stop string may come with the last event."""
    events = read(text("", 1), {**end(2, "limit"), "content": "ab"})

    assert Piece("ab", 2) == events[0]
    assert isinstance(events[1], Done)


@pytest.mark.parametrize(
    ("stop_type", "fields", "reason"),
    [
        ("eos", {}, "eos"),
        ("word", {"stopping_word": "\n"}, "word"),
        ("limit", {}, "limit"),
        ("limit", {"truncated": True}, "context"),
        ("none", {}, "eos"),
    ],
)
def test_reasons(stop_type, fields, reason):
    """Each way to stop has a reason of its own."""
    (done,) = read(end(4, stop_type, **fields))

    assert reason == done.reason
    assert fields.get("stopping_word") == done.stop_word


def test_no_time_is_no_speed():
    """Where nothing was generated there is no speed, not even zero."""
    timings = {"prompt_ms": 0.0, "predicted_ms": 0.0, "predicted_per_second": 0.0}
    (done,) = read(end(0, "none", timings=timings))

    assert None is done.tokens_per_second
    assert 0.0 == done.predicted_seconds
    (done,) = read(end(0, "none", timings=None))
    assert None is done.predicted_seconds


def test_drafts():
    """What a draft model proposed comes with the end, where there is one."""
    timings = {"predicted_ms": 1.0, "draft_n": 6, "draft_n_accepted": 4}
    (done,) = read(end(9, "eos", timings=timings))
    assert (6, 4) == (done.drafted, done.accepted)

    (done,) = read(end(9, "eos", timings={"predicted_ms": 1.0}))
    assert (None, None) == (done.drafted, done.accepted)


def test_progress_leaves_out_what_was_cached():
    """Cached tokens are no progress, and the dummy token is not counted."""
    progress = {"total": 14, "cache": 4, "processed": 10, "time_ms": 3}

    assert [PromptProgress(14, 4, 6), Piece("a", 1)] == read(
        text("", 0, tokens=[0], prompt_progress=progress), text("a", 1)
    )


def test_logprobs_of_each_token():
    """Each token is reported once, with the piece that has its text."""

    def probability(token, number):
        one = {"id": number, "token": token, "bytes": [], "logprob": -0.5}
        return {**one, "top_logprobs": [one, {**one, "id": 99}]}

    def expected(token, number, count):
        one = {"text": token, "id": number, "logProb": -0.5}
        return {**one, "candidates": [one, {**one, "id": 99}][:count]}

    payloads = [
        text("", 1, completion_probabilities=[probability("", 8)]),
        text("a", 2, completion_probabilities=[probability("a", 9)]),
        text("b", 3, completion_probabilities=[probability("b", 10)]),
    ]

    for count in (0, 1, 5):
        assert [
            Piece("a", 2, [expected("", 8, count), expected("a", 9, count)]),
            Piece("b", 1, [expected("b", 10, count)]),
        ] == read(*payloads, logprobs=count)
    assert [Piece("a", 2), Piece("b", 1)] == read(*payloads)


def test_a_context_that_others_filled_ends_the_text():
    """When all predictions together fill the context, it ends as a full context."""
    error = {"error": {"code": 500, "message": "Context size has been exceeded."}}

    assert [
        Piece("a", 1),
        Done(reason="context", prompt_tokens=3, predicted_tokens=1),
    ] == read(text("a", 1), error)


@pytest.mark.parametrize(
    ("before", "message"),
    [([], "Context size has been exceeded."), ([text("a", 1)], "out of luck")],
)
def test_other_errors_in_a_stream_are_errors(before, message):
    """An error in mid-stream is raised; so is a context full before the first token."""
    with pytest.raises(Refused, match=message):
        read(*before, {"error": {"code": 500, "message": message}})


def test_broken_characters_are_replaced():
    """A byte that is no UTF-8 becomes U+FFFD; what is no object is an error."""
    assert {"content": "a\N{REPLACEMENT CHARACTER}"} == parse(b'{"content":"a\xf0"}')
    for payload in (b"[1]", b"{", b"[DONE]", b"\xff"):
        with pytest.raises(ValueError):
            parse(payload)


def test_an_overlong_prompt_has_its_own_error():
    """The numbers of an overlong prompt are in the error's fields."""
    error = {"type": "exceed_context_size_error", "n_prompt_tokens": 401, "n_ctx": 256}
    found = refusal(Refused(400, error))

    assert isinstance(found, ContextOverflow)
    assert (401, 256) == (found.prompt_tokens, found.context_length)


@pytest.mark.parametrize(
    ("status", "message", "kind", "word"),
    [
        (400, "failed to parse grammar", BadRequest, "refused"),
        (501, "This server does not support embeddings", BadRequest, "refused"),
        (500, "Context size has been exceeded.", EngineError, "no context"),
        (500, "something else", EngineError, "failed"),
    ],
)
def test_refusals(status, message, kind, word):
    """Each kind of refusal has its error, and llama.cpp's words are the cause."""
    found = refusal(Refused(status, {"message": message}))

    assert kind is type(found)
    assert word in found.title
    assert message in str(found.cause)


def test_embeddings_have_length_one():
    """One vector, or the mean of one per token, comes out with length 1."""
    assert [0.6, 0.8] == unit_mean([[3.0, 4.0]])
    assert [0.6, 0.8] == unit_mean([3.0, 4.0])
    assert [1.0, 0.0] == unit_mean([[1.0, 1.0], [1.0, -1.0]])
    assert [0.0, 0.0] == unit_mean([[0.0, 0.0]])


def test_the_body_is_json():
    """A body can be sent as it is, mappings that are no dicts included."""
    request = Request(prompt=(1, "a"), json_schema={"enum": (1, 2)})

    assert [1, "a"] == json.loads(json.dumps(completion(request)))["prompt"]


def test_a_prompt_with_images():
    """Markers stand where the images are, which come apart, in their order."""
    parts = ["a", Image(b"1"), "b", Image(b"22"), "c"]
    body = completion(Request(prompt=parts), "MARK")
    assert {
        "prompt_string": "aMARKbMARKc",
        "multimodal_data": ["MQ==", "MjI="],
    } == body["prompt"]


def test_a_prompt_of_texts_is_one_text():
    """A list of texts would be several prompts."""
    assert "ab" == completion(Request(prompt=["a", "b"]))["prompt"]
