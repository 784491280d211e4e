"""What a prediction says, gathered from its packets for every form of answer."""

from __future__ import annotations

import json
import secrets
from typing import Any

import attrs

from ..fragments import NONE, REASONING
from .errors import RestError

#: How a prediction's end is called by OpenAI; all others are a "stop".
#: Source: docs/wire/rest.md, "Why an answer ends".
_FINISHED = {
    "maxPredictedTokensReached": "length",
    "contextLengthReached": "length",
    "toolCalls": "tool_calls",
}

Packet = dict[str, Any]


@attrs.frozen(kw_only=True)
class Call:
    """A call that the model asks for.

    Attributes:
        id: Names it in the result.
        name: The tool.
        arguments: Its arguments by name.
    """

    id: str
    name: str
    arguments: dict[str, Any]

    @property
    def text(self) -> str:
        """The arguments as JSON text."""
        return json.dumps(self.arguments)


@attrs.frozen
class Change:
    """What a packet adds to an answer; one of the fields is set.

    Attributes:
        text: Text of the answer.
        reasoning: Text of the model's thoughts.
        call: A call of a tool, whole: its pieces need not be JSON.
        tokens: Tokens of the text.
        logprobs: Reported about them.
    """

    text: str | None = None
    reasoning: str | None = None
    call: Call | None = None
    tokens: int = 0
    logprobs: list[dict[str, Any]] | None = None


class Answer:
    """An answer as it grows.

    Attributes:
        texts: The pieces of its text.
        reasoning: The pieces of the model's thoughts.
        calls: Calls of tools.
        logprobs: What was reported about tokens, in order.
        reasoning_tokens: Tokens of the thoughts.
        stats: What was measured, once it has ended.
        cached_tokens: Tokens of the prompt that were not processed again.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.reasoning: list[str] = []
        self.calls: list[Call] = []
        self.logprobs: list[dict[str, Any]] = []
        self.reasoning_tokens = 0
        self.stats: dict[str, Any] = {}
        self.cached_tokens = 0

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.texts)

    def take(self, packet: Packet) -> Change | None:
        """Take a packet; returns what it adds.

        Raises:
            RestError: The prediction did not end as it should.
        """
        change = None
        if packet["type"] == "fragment":
            change = _fragment(packet["fragment"])
        elif packet["type"] == "toolCallGenerationEnd":
            change = Change(call=_call(packet["toolCallRequest"]))
        elif packet["type"] == "toolCallGenerationFailed":
            # What can't be read as a call is what the model said.
            change = Change(text=packet.get("rawContent") or None)
        elif packet["type"] == "promptProcessingProgress":
            self.cached_tokens = packet.get("details", {}).get("cachedTokenCount", 0)
        elif packet["type"] == "success":
            self._end(packet["stats"])
        if change is not None:
            self._keep(change)
        return change

    @property
    def finish_reason(self) -> str:
        """Why it ended, in OpenAI's words."""
        if self.calls:
            return "tool_calls"
        return _FINISHED.get(self.stats["stopReason"], "stop")

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return self.stats.get("promptTokensCount") or 0

    @property
    def completion_tokens(self) -> int:
        """Tokens that were generated."""
        return self.stats.get("predictedTokensCount") or 0

    def _keep(self, change: Change) -> None:
        if change.text is not None:
            self.texts.append(change.text)
        if change.call is not None:
            self.calls.append(change.call)
        if change.reasoning is not None:
            self.reasoning.append(change.reasoning)
            self.reasoning_tokens += change.tokens
        self.logprobs += change.logprobs or ()

    def _end(self, stats: dict[str, Any]) -> None:
        self.stats = stats
        if stats["stopReason"] == "modelUnloaded":
            raise RestError("The model was unloaded", status=503, code="model_unloaded")
        if stats["stopReason"] == "failed":
            raise RestError("The prediction failed", status=500, code="failed")


def new_id(prefix: str) -> str:
    """An id that nothing else has."""
    return f"{prefix}{secrets.token_hex(12)}"


def _fragment(fragment: dict[str, Any]) -> Change | None:
    """The tags around thoughts are left out."""
    kind, text = fragment.get("reasoningType", NONE), fragment["content"]
    tokens = fragment.get("tokensCount", 0)
    if kind == REASONING:
        return Change(reasoning=text, tokens=tokens)
    if kind != NONE:
        return None
    return Change(text=text, tokens=tokens, logprobs=fragment.get("tokens"))


def _call(request: dict[str, Any]) -> Call:
    call_id = request.get("id") or new_id("call_")
    return Call(
        id=str(call_id),
        name=request["name"],
        arguments=request.get("arguments") or {},
    )
