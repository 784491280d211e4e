"""Parts that several forms of answers have in common."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from ..calls import version
from ..engine import ModelFile
from ..instances import Instance
from .answers import Answer

#: Stands for "impossible" where JSON knows no infinity, as OpenAI has it.
IMPOSSIBLE = -9999.0


def usage(answers: Sequence[Answer]) -> dict[str, Any]:
    """Tokens of a completion, of all its prompts together."""
    prompt = sum(answer.prompt_tokens for answer in answers)
    completion = sum(answer.completion_tokens for answer in answers)
    cached = sum(answer.cached_tokens for answer in answers)
    thoughts = sum(answer.reasoning_tokens for answer in answers)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": thoughts},
    }


def measured(answer: Answer, instance: Instance, engine: str) -> dict[str, Any]:
    """What ``/api/v0`` adds to a completion.

    Source: docs/wire/rest.md, "/api/v0".
    """
    stats = answer.stats
    total = stats.get("totalTimeSec") or 0.0
    first = stats.get("timeToFirstTokenSec") or 0.0
    return {
        "stats": {
            "tokens_per_second": stats.get("tokensPerSecond"),
            "time_to_first_token": stats.get("timeToFirstTokenSec"),
            "generation_time": max(0.0, total - first),
            "stop_reason": stats["stopReason"],
        },
        "model_info": {
            "arch": instance.file.architecture,
            "quant": instance.file.quantization,
            "format": "gguf",
            "context_length": instance.model.context_length,
        },
        "runtime": {
            "name": engine,
            "version": version(),
            "supported_formats": ["gguf"],
        },
    }


def chat_logprobs(tokens: Iterable[dict[str, Any]], count: int) -> dict[str, Any]:
    """Probabilities in the form of chat completions.

    Args:
        count: Candidates to show with each token.
    """
    content = [
        {
            **_candidate(token),
            "top_logprobs": [_candidate(one) for one in _candidates(token, count)],
        }
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def text_logprobs(
    tokens: Iterable[dict[str, Any]], count: int, offset: int
) -> dict[str, Any]:
    """Probabilities in the form of text completions.

    Args:
        offset: Characters of the answer in front of the tokens.
    """
    texts: list[str] = []
    chances: list[float] = []
    tops: list[dict[str, float]] = []
    offsets: list[int] = []
    for token in tokens:
        texts.append(token["text"])
        chances.append(_finite(token["logProb"]))
        best = _candidates(token, count)
        tops.append({one["text"]: _finite(one["logProb"]) for one in best})
        offsets.append(offset)
        offset += len(token["text"])
    return {
        "tokens": texts,
        "token_logprobs": chances,
        "top_logprobs": tops if count else None,
        "text_offset": offsets,
    }


def kind_of(file: ModelFile) -> str:
    """What ``/api/v0`` calls the type of a model."""
    if file.is_embedding:
        return "embeddings"
    return "vlm" if file.vision else "llm"


def _candidates(token: dict[str, Any], count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = token.get("candidates", [])[:count]
    return found


def _candidate(token: dict[str, Any]) -> dict[str, Any]:
    return {
        "token": token["text"],
        "logprob": _finite(token["logProb"]),
        "bytes": list(token["text"].encode(errors="surrogatepass")),
    }


def _finite(value: float) -> float:
    return value if math.isfinite(value) else IMPOSSIBLE
