"""Models of the ``llm`` namespace: histories, predictions and their packets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

from .common import InstanceInfo, KVConfig, KVStack, ModelSpecifier
from .model import Plain, model


@model(kw_only=True)
class ToolCallRequest(Plain):
    """A call that the model asks for.

    Attributes:
        name: The tool.
        arguments: Its arguments by name.
        id: Names this call in the result; None on older servers.
        type: Always ``"function"`` so far.
    """

    name: str
    arguments: dict[str, Any] | None = None
    id: str | None = None
    type: str = "function"


@model(kw_only=True)
class Part:
    """A part of a message; which fields are set depends on `type`.

    Attributes:
        type: ``"text"``, ``"file"``, ``"toolCallRequest"`` or ``"toolCallResult"``.
        text: With ``"text"``.
        name: Of the file, or of the tool of a result.
        identifier: Of an uploaded file.
        size_bytes: Of the file, bytes.
        file_type: Of the file: ``"image"``, ``"text/plain"``, ...
        tool_call_request: With ``"toolCallRequest"``.
        content: With ``"toolCallResult"``, JSON text.
        tool_call_id: The request that a result answers.

    Source: docs/wire/predict.md.
    """

    type: str
    text: str | None = None
    name: str | None = None
    identifier: str | None = None
    size_bytes: int | None = None
    file_type: str | None = None
    tool_call_request: ToolCallRequest | None = None
    content: str | None = None
    tool_call_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The part as it travels; `lmstudio.Chat` reads it."""
        from .converter import unstructure  # takes its time, and few need it

        made: dict[str, Any] = unstructure(self)
        return made


def _as_tuple(parts: Iterable[Part]) -> tuple[Part, ...]:
    return tuple(parts)


@model(kw_only=True)
class Message:
    """One message: who says it, and its parts in order.

    Attributes:
        role: ``"system"``, ``"user"``, ``"assistant"`` or ``"tool"``.
        content: Its parts. They can't be changed: a message may belong to several
            conversations.
    """

    role: str
    content: tuple[Part, ...] = attrs.field(converter=_as_tuple)

    @property
    def text(self) -> str:
        """Its text: all parts that are text, with nothing between."""
        return "".join(part.text or "" for part in self.content if part.type == "text")

    @property
    def files(self) -> list[Part]:
        """The parts that show a file."""
        return [part for part in self.content if part.type == "file"]

    @property
    def tool_calls(self) -> list[ToolCallRequest]:
        """The calls of tools that the model asks for, in order."""
        requests = (part.tool_call_request for part in self.content)
        return [request for request in requests if request is not None]

    @property
    def tool_results(self) -> list[Part]:
        """The parts that hold the result of a tool."""
        return [part for part in self.content if part.type == "toolCallResult"]

    def to_dict(self) -> dict[str, Any]:
        """The message as it travels; `lmstudio.Chat` reads it."""
        return {
            "role": self.role,
            "content": [part.to_dict() for part in self.content],
        }

    def __repr__(self) -> str:
        try:
            text, said = self.text, []
            if text:
                said.append(repr(text if len(text) <= 60 else text[:59] + "…"))
            for name in ("files", "tool_calls", "tool_results"):
                if count := len(getattr(self, name)):
                    what = name.replace("_", " ")
                    said.append(f"{count} {what if count > 1 else what[:-1]}")
        except (AttributeError, TypeError):  # it was made of other things than parts
            said = [repr(self.content)]
        return f"<Message {self.role}: {', '.join(said) or repr('')}>"


@model(kw_only=True)
class History:
    """The messages that a prediction answers."""

    messages: list[Message]


@model(kw_only=True)
class Predict:
    """Parameter of ``predict``."""

    model_specifier: ModelSpecifier
    history: History
    prediction_config_stack: KVStack = attrs.field(factory=KVStack)
    fuzzy_preset_identifier: str | None = None
    ignore_server_session_config: bool | None = None


@model(kw_only=True)
class CompleteRawText:
    """Parameter of ``completeRawText``, which newer clients send for `complete`."""

    model_specifier: ModelSpecifier
    raw_prompt: str
    prediction_config_stack: KVStack = attrs.field(factory=KVStack)
    fuzzy_preset_identifier: str | None = None
    ignore_server_session_config: bool | None = None


@model(kw_only=True)
class TemplateOptions:
    """What `ApplyTemplate` leaves out of the text, and the tools that it shows."""

    omit_bos_token: bool | None = None
    omit_eos_token: bool | None = None
    tool_definitions: list[dict[str, Any]] | None = None


@model(kw_only=True)
class ApplyTemplate:
    """Parameter of ``applyPromptTemplate``."""

    specifier: ModelSpecifier
    history: History
    prediction_config_stack: KVStack = attrs.field(factory=KVStack)
    opts: TemplateOptions = attrs.field(factory=TemplateOptions)


@model(kw_only=True)
class Formatted:
    """Reply of ``applyPromptTemplate``."""

    formatted: str


@model(kw_only=True)
class ProcessingState(Plain):
    """Reply of ``getInstanceProcessingState``.

    Attributes:
        status: ``"idle"``, ``"processingPrompt"``, ``"generating"`` or
            ``"computingEmbedding"``.
        queued: Requests, the running one among them.
    """

    status: str
    queued: int


@model(kw_only=True)
class PredictionStats(Plain):
    """What the server measured. None where it did not say.

    Attributes:
        stop_reason: ``"eosFound"``, ``"stopStringFound"``, ``"userStopped"``,
            ``"maxPredictedTokensReached"``, ``"contextLengthReached"``,
            ``"toolCalls"``, ``"modelUnloaded"``, ``"failed"``, or one that a newer
            server knows.
        stop_string: The stop string that was found.
        tokens_per_second: Speed of the generation.
        num_gpu_layers: Layers on the GPU.
        time_to_first_token_sec: Seconds until the first token.
        total_time_sec: Seconds in all.
        prompt_tokens_count: Tokens of the prompt.
        predicted_tokens_count: Tokens generated.
        total_tokens_count: Both together.
        used_draft_model_key: Draft model of speculative decoding.
        total_draft_tokens_count: Tokens that it drafted.
        accepted_draft_tokens_count: Those that were taken.
        rejected_draft_tokens_count: Those that were not.
        ignored_draft_tokens_count: Those that nobody looked at.

    Source: docs/wire/predict.md.
    """

    stop_reason: str
    stop_string: str | None = None
    tokens_per_second: float | None = None
    num_gpu_layers: float | None = None
    time_to_first_token_sec: float | None = None
    total_time_sec: float | None = None
    prompt_tokens_count: int | None = None
    predicted_tokens_count: int | None = None
    total_tokens_count: int | None = None
    used_draft_model_key: str | None = None
    total_draft_tokens_count: int | None = None
    accepted_draft_tokens_count: int | None = None
    rejected_draft_tokens_count: int | None = None
    ignored_draft_tokens_count: int | None = None


@model(kw_only=True)
class PredictionSuccess:
    """The last packet of a prediction."""

    stats: PredictionStats
    model_info: InstanceInfo | None = None
    load_model_config: KVConfig = attrs.field(factory=KVConfig)
    prediction_config: KVConfig = attrs.field(factory=KVConfig)
