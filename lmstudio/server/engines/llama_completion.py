"""Completions in llama.cpp's words: the request's body, and the stream of its reply."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from typing import Any, Literal

import attrs

from lmstudio.server.engine import (
    BadRequest,
    ContextOverflow,
    Done,
    EngineError,
    Event,
    Image,
    Piece,
    PromptPart,
    PromptProgress,
    Request,
)
from lmstudio.server.engines.http import Refused

#: Fields of the last event. By default it repeats the whole prompt.
FINAL_FIELDS = [
    "content",
    "stop",
    "stop_type",
    "stopping_word",
    "truncated",
    "tokens_predicted",
    "tokens_evaluated",
    "timings",
]

#: How JSON is spaced, put into every schema. Free spacing lets a model write spaces
#: until its limit. Without ``lenient`` a keyword that the grammar does not know would
#: switch the whole grammar off, in silence.
GUIDANCE = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "lenient": True,
}

#: llama.cpp's stop types; ``none`` is an empty prompt, with nothing to go on from.
REASONS: dict[str, Literal["eos", "word", "limit"]] = {
    "eos": "eos",
    "word": "word",
    "limit": "limit",
    "none": "eos",
}


#: llama.cpp keeps the limit of tokens in so many bits: of a larger one it takes the
#: lowest bits, and ends the text there.
MAX_TOKENS = 2**31 - 1


def parse(payload: bytes) -> dict[str, Any]:
    """One event's JSON. A broken character becomes U+FFFD instead of an error.

    Raises:
        ValueError: It is not a JSON object.
    """
    try:
        event = json.loads(payload)
    except UnicodeDecodeError:
        event = json.loads(payload.decode("utf-8", "replace"))
    if not isinstance(event, dict):
        raise ValueError(f"not a JSON object: {payload[:200]!r}")
    return event


class Reading:
    """Turns the events of one completion into ours.

    Attributes:
        done: True after the last event.
    """

    def __init__(self, logprobs: int | None = None) -> None:
        self.done = False
        self._logprobs = logprobs
        self._counted = 0  # tokens that pieces stand for
        self._generated = 0
        self._prompt_tokens = 0
        self._waiting: list[dict[str, Any]] = []  # logprobs whose text is still to come

    def events(self, payload: dict[str, Any]) -> list[Event]:
        """What one event of the stream means; often nothing.

        Raises:
            Refused: The engine gave up.
        """
        if "error" in payload:
            return [self._failed(payload["error"])]
        if "prompt_progress" in payload:
            progress = payload["prompt_progress"]
            cached = progress["cache"]
            done = progress["processed"] - cached
            return [PromptProgress(progress["total"], cached, done)]
        self._generated = payload.get("tokens_predicted", self._generated)
        self._prompt_tokens = payload.get("tokens_evaluated", self._prompt_tokens)
        if self._logprobs is not None:
            for token in payload.get("completion_probabilities") or ():
                self._waiting.append(logprob(token, self._logprobs))
        events: list[Event] = []
        text = payload.get("content")
        if text:
            # Events without text (half a character, a possible stop string) are counted
            # with the one that brings their text.
            tokens = self._generated - self._counted
            self._counted = self._generated
            logprobs = None if self._logprobs is None else self._waiting
            self._waiting = []
            events.append(Piece(text, tokens, logprobs))
        if payload.get("stop"):
            events.append(self._done(payload))
        return events

    def _done(self, payload: dict[str, Any]) -> Done:
        self.done = True
        reason = REASONS.get(payload.get("stop_type", "none"), "eos")
        full = reason == "limit" and payload.get("truncated")
        timings = payload.get("timings") or {}
        predicted_ms = timings.get("predicted_ms")
        return Done(
            reason="context" if full else reason,
            stop_word=payload.get("stopping_word") or None,
            prompt_tokens=self._prompt_tokens,
            predicted_tokens=self._generated,
            prompt_seconds=_seconds(timings.get("prompt_ms")),
            predicted_seconds=_seconds(predicted_ms),
            tokens_per_second=timings.get("predicted_per_second")
            if predicted_ms
            else None,
            drafted=timings.get("draft_n"),
            accepted=timings.get("draft_n_accepted"),
        )

    def _failed(self, error: dict[str, Any]) -> Done:
        """All running predictions share one context: it can fill up in mid-text."""
        if not self._generated or "Context size" not in str(error.get("message")):
            raise Refused(int(error.get("code", 500)), error)
        self.done = True
        return Done(
            reason="context",
            prompt_tokens=self._prompt_tokens,
            predicted_tokens=self._generated,
        )


def prompt_of(parts: str | Sequence[PromptPart], media_marker: str) -> Any:
    """A prompt in llama.cpp's form; with images it is one text and the images apart.

    Args:
        media_marker: Stands where an image is.
    """
    if isinstance(parts, str):
        return parts
    images = [part.content for part in parts if isinstance(part, Image)]
    if not images:  # a list of texts alone would be several prompts
        is_text = all(isinstance(part, str) for part in parts)
        return "".join(map(str, parts)) if is_text else list(parts)
    texts = [media_marker if isinstance(part, Image) else part for part in parts]
    assert all(isinstance(text, str) for text in texts), "llama.cpp takes no ids here"
    return {
        "prompt_string": "".join(map(str, texts)),
        "multimodal_data": [base64.b64encode(image).decode() for image in images],
    }


def completion(request: Request, media_marker: str = "") -> dict[str, Any]:
    """The body of a completion request.

    Args:
        media_marker: Stands in the prompt where an image is.
    """
    body: dict[str, Any] = {
        "prompt": prompt_of(request.prompt, media_marker),
        "stream": True,  # only a stream can be cancelled
        "return_progress": True,
        "response_fields": FINAL_FIELDS,
        "n_predict": _limit(request.max_tokens),
        "stop": [word for word in request.stop if word],  # "" would stop at once
    }
    sampling = attrs.asdict(request.sampling, filter=lambda _, value: value is not None)
    bias = sampling.pop("logit_bias")
    if bias:
        body["logit_bias"] = [[token, value] for token, value in bias.items()]
    body.update(sampling)  # llama.cpp has the same names
    if request.logprobs is not None:
        body["n_probs"] = max(1, request.logprobs)  # 0 would switch the report off
    if request.visible:
        body["preserved_tokens"] = list(request.visible)
    if request.grammar is not None:
        body["grammar"] = request.grammar
    elif request.json_schema is not None:
        body["json_schema"] = guided(request.json_schema)
    return body


def _limit(max_tokens: int | None) -> int:
    """A limit of tokens in llama.cpp's form; no context is as long as the largest."""
    return -1 if max_tokens is None else min(max_tokens, MAX_TOKENS)


def guided(schema: Any) -> dict[str, Any]:
    """A schema with our spacing; of "any JSON" an object, the rest being of no use."""
    guidance = {**GUIDANCE, **schema.get("x-guidance", {})}
    return {**(schema or {"type": "object"}), "x-guidance": guidance}


def logprob(token: dict[str, Any], count: int) -> dict[str, Any]:
    """llama.cpp's report of one token, in the words of `Piece.logprobs`."""
    candidates = token.get("top_logprobs", ())[:count]
    return {**_candidate(token), "candidates": [_candidate(one) for one in candidates]}


def _candidate(token: dict[str, Any]) -> dict[str, Any]:
    return {"text": token["token"], "id": token["id"], "logProb": token["logprob"]}


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def unit_mean(embedding: Any) -> list[float]:
    """One vector of length 1 from one vector, or from one per token."""
    rows = embedding if isinstance(embedding[0], list) else [embedding]
    mean = (
        [math.fsum(column) for column in zip(*rows, strict=True)]
        if len(rows) > 1
        else rows[0]
    )
    length = math.sqrt(math.fsum(value * value for value in mean))
    return [value / length for value in mean] if length > 0 else list(mean)


def refusal(exc: Refused) -> EngineError:
    """Our error for one of llama.cpp's."""
    if exc.error.get("type") == "exceed_context_size_error":
        return ContextOverflow(
            int(exc.error.get("n_prompt_tokens", 0)), int(exc.error.get("n_ctx", 0))
        )
    if "Context size" in exc.message:
        return EngineError(
            "The predictions that run at once left no context for this one",
            exc.message,
            "Load the model with a larger context_length, or run fewer at once",
        )
    if exc.status in (400, 501):
        return BadRequest("llama.cpp refused the request", exc.message)
    return EngineError("llama.cpp failed", str(exc))
