"""The official Python SDK's names for what this package has under names of its own.

Each is the same object as the one that it stands for, or does the same. What is left
out, and why: docs/coming-from.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypedDict, runtime_checkable

import attrs

from . import default
from .downloaded import DownloadedModel
from .errors import LMStudioTypeError, shown
from .functions import ToolLike
from .handles import ModelHandle
from .keywords import PredictionOptions
from .prediction import Prediction
from .result import Fragment
from .wire.common import ErrorData, InstanceInfo, ModelInfo, ModelQuery, ModelSpecifier
from .wire.files import FileHandle
from .wire.llm import History, Message, Part, PredictionStats
from .wire.repository import DownloadProgress

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Callable[[type], type]:
        """What type checkers read is nothing at run time."""
        return lambda kind: kind


#: What `lmstudio` has of this module.
__all__ = [
    "AnyChatMessage",
    "AnyChatMessageDict",
    "AnyDownloadedModel",
    "AnyModelSpecifier",
    "AssistantResponse",
    "AssistantResponseContent",
    "BaseModel",
    "ChatHistoryData",
    "ChatHistoryDataDict",
    "DictObject",
    "DictSchema",
    "DownloadFinalizedCallback",
    "DownloadProgressCallback",
    "DownloadProgressUpdate",
    "DownloadedEmbeddingModel",
    "DownloadedLlm",
    "EmbeddingLoadModelConfig",
    "EmbeddingLoadModelConfigDict",
    "EmbeddingModelInfo",
    "EmbeddingModelInstanceInfo",
    "FileHandleDict",
    "FileHandleInput",
    "LlmInfo",
    "LlmInstanceInfo",
    "LlmLoadModelConfig",
    "LlmLoadModelConfigDict",
    "LlmPredictionConfig",
    "LlmPredictionConfigDict",
    "LlmPredictionFragment",
    "LlmPredictionStats",
    "ModelInstanceInfo",
    "ModelQuery",
    "ModelQueryDict",
    "ModelSchema",
    "ModelSpecifier",
    "ModelSpecifierDict",
    "PredictionFirstTokenCallback",
    "PredictionFragmentCallback",
    "PredictionMessageCallback",
    "PredictionStream",
    "PromptProcessingCallback",
    "ResponseSchema",
    "SerializedLMSExtendedError",
    "SyncModelHandle",
    "SystemPrompt",
    "SystemPromptContent",
    "TextData",
    "TextDataDict",
    "ToolCallResultData",
    "ToolDefinition",
    "ToolFunctionDefDict",
    "ToolResultMessage",
    "UserMessage",
    "UserMessageContent",
    "UserMessageDict",
    "get_sync_api_timeout",
    "set_sync_api_timeout",
]

#: Same as `Prediction`, which is stream and result in one.
PredictionStream = Prediction
#: Same as `Fragment`.
LlmPredictionFragment = Fragment
#: Same as `PredictionStats`.
LlmPredictionStats = PredictionStats
#: Same as `ModelInfo`: a model on the server's disk.
LlmInfo = EmbeddingModelInfo = ModelInfo
#: Same as `DownloadedModel`, which has its methods.
DownloadedLlm = DownloadedEmbeddingModel = AnyDownloadedModel = DownloadedModel
#: Same as `InstanceInfo`: a model in memory.
LlmInstanceInfo = EmbeddingModelInstanceInfo = ModelInstanceInfo = InstanceInfo
#: Same as `ModelHandle`, the base of `LLM` and `EmbeddingModel`.
SyncModelHandle = ModelHandle
AnyModelSpecifier = ModelSpecifier | ModelQuery | str
#: Same as `Message`, whoever speaks.
AnyChatMessage = Message
#: Same as `History`: a conversation as it travels.
ChatHistoryData = History
#: Same as `ToolLike`: what `act` takes as a tool.
ToolDefinition = ToolLike
#: Same as `ErrorData`: an error as it travels.
SerializedLMSExtendedError = ErrorData
#: Same as `DownloadProgress`.
DownloadProgressUpdate = DownloadProgress

DictObject = Mapping[str, Any]
DictSchema = dict[str, Any]
#: What `response_format` takes; it takes more.
ResponseSchema = Any
ChatHistoryDataDict = UserMessageDict = AnyChatMessageDict = Mapping[str, Any]
TextDataDict = FileHandleDict = ModelQueryDict = ModelSpecifierDict = Mapping[str, Any]
FileHandleInput = FileHandle | Mapping[str, Any]
UserMessageContent = str | Part | FileHandle
SystemPromptContent = AssistantResponseContent = str | Part

PredictionFirstTokenCallback = Callable[[], Any]
PredictionFragmentCallback = Callable[[Fragment], Any]
PredictionMessageCallback = Callable[[Message], Any]
PromptProcessingCallback = Callable[[float], Any]
DownloadProgressCallback = Callable[[DownloadProgress], Any]
DownloadFinalizedCallback = Callable[[], Any]

#: Options of predictions: makes a mapping for ``config=``.
LlmPredictionConfig = PredictionOptions
#: The same in either spelling.
LlmPredictionConfigDict = Mapping[str, Any]
LlmLoadModelConfigDict = EmbeddingLoadModelConfigDict = Mapping[str, Any]


class _PartKind(type):
    """A name for parts of one type: makes them, and tells them from others."""

    part_type: str

    def __call__(cls, **fields: Any) -> Part:
        """A part of this type, with these fields."""
        return Part(type=cls.part_type, **fields)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, Part) and instance.type == cls.part_type


if TYPE_CHECKING:

    class TextData(Part):
        """A `Part` that is text."""

        def __init__(self, *, text: str) -> None: ...

    class ToolCallResultData(Part):
        """A `Part` that is what a tool returned."""

        def __init__(
            self, *, content: str, tool_call_id: str | None = None
        ) -> None: ...

else:

    class TextData(metaclass=_PartKind):
        """Makes a `Part` that is text; ``isinstance`` knows such parts.

        Args:
            text: What it says.
        """

        part_type = "text"

    class ToolCallResultData(metaclass=_PartKind):
        """Makes a `Part` that is what a tool returned; ``isinstance`` knows such parts.

        Args:
            content: What it returned, as JSON text.
            tool_call_id: The request that it answers.
        """

        part_type = "toolCallResult"


class _MessageKind(type):
    """A name for messages of one role: makes them, and tells them from others."""

    role: str

    def __call__(cls, *, content: Any, **fields: Any) -> Message:
        """A message of this role.

        Args:
            content: Its parts; a text is one.
        """
        parts = [content] if isinstance(content, (str, Part)) else content
        texts = [Part(type="text", text=p) if isinstance(p, str) else p for p in parts]
        return Message(role=cls.role, content=texts, **fields)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, Message) and instance.role == cls.role


if TYPE_CHECKING:

    class _OfRole(Message):
        def __init__(self, *, content: str | Part | Iterable[str | Part]) -> None: ...

    class UserMessage(_OfRole):
        """A `Message` of the user."""

    class SystemPrompt(_OfRole):
        """A `Message` of the system."""

    class AssistantResponse(_OfRole):
        """A `Message` of the model."""

    class ToolResultMessage(_OfRole):
        """A `Message` with what tools returned."""

else:

    class UserMessage(metaclass=_MessageKind):
        """Makes a `Message` of the user; ``isinstance`` knows such messages."""

        role = "user"

    class SystemPrompt(metaclass=_MessageKind):
        """Makes a `Message` of the system; ``isinstance`` knows such messages."""

        role = "system"

    class AssistantResponse(metaclass=_MessageKind):
        """Makes a `Message` of the model; ``isinstance`` knows such messages."""

        role = "assistant"

    class ToolResultMessage(metaclass=_MessageKind):
        """Makes a `Message` with what tools returned; ``isinstance`` knows them."""

        role = "tool"


class EmbeddingLoadModelConfig(TypedDict, total=False):
    """Options of loading an embedding model: makes a mapping for ``config=``."""

    context_length: int | None
    seed: int | bool | None
    gpu: Any
    gpu_ratio: float | str | None
    gpu_split: Mapping[str, Any] | None
    eval_batch_size: int | None
    rope_frequency_base: float | bool | None
    rope_frequency_scale: float | bool | None
    keep_model_in_memory: bool | None
    try_mmap: bool | None


class LlmLoadModelConfig(EmbeddingLoadModelConfig, total=False):
    """Options of loading a text model: makes a mapping for ``config=``."""

    auto_fit_min_context_length: int | None
    num_experts: int | None
    prompt_template: Mapping[str, Any] | str | None
    offload_kv_cache_to_gpu: bool | None
    num_cpu_expert_layers_ratio: float | str | None
    max_parallel_predictions: int | None
    use_unified_kv_cache: bool | None
    auto_fit: bool | None
    cpu_thread_pool_size: int | None
    physical_batch_size: int | None
    flash_attention: bool | None
    context_checkpoints: int | None
    reasoning_budget_message: str | None
    use_fp16_for_kv_cache: bool | None
    try_direct_io: bool | None
    llama_k_cache_quantization_type: str | bool | None
    llama_v_cache_quantization_type: str | bool | None
    speculative_draft_mtp: bool | None
    speculative_draft_simple: bool | None
    speculative_draft_model: str | None
    speculative_draft_max_tokens: int | None
    speculative_draft_min_tokens: int | None
    speculative_draft_min_continue_probability: float | None
    speculative_draft_dflash_sidecar: bool | None
    speculative_draft_dspark_sidecar: bool | None
    speculative_draft_mtp_sidecar: bool | None
    llama_cpp_arguments_override: Mapping[str, Any] | bool | None
    mlx_disk_cache: bool | None
    mlx_kv_cache_quantization: Mapping[str, Any] | bool | None
    gpu_strict_vram_cap: bool | None
    vllm_gpu_memory_utilization: float | None
    vllm_reasoning_parser: str | None
    vllm_tool_call_parser: str | None
    env_vars: Mapping[str, str] | None


class ToolFunctionDefDict(TypedDict):
    """A tool as a mapping; same as the arguments of `ToolFunctionDef`."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    implementation: Callable[..., Any]


@runtime_checkable
class ModelSchema(Protocol):
    """A class that makes a JSON schema of itself: what `response_format` takes."""

    @classmethod
    def model_json_schema(cls) -> DictSchema:
        """The schema."""
        ...


@dataclass_transform(kw_only_default=True)
class BaseModel:
    """Base of classes that say what an answer is to look like.

    Fields are annotations, with defaults if they may be missing. `result.parsed` is an
    instance; its fields can be read as items too, as in the official SDK, where it is a
    mapping. Instances are made with keywords.

    Raises:
        LMStudioTypeError: The class can't be used so: an annotation is no type, ...
    """

    __attrs_attrs__: ClassVar[Any]
    #: Tells `lmstudio.schema` to look at the fields.
    __lmstudio_fields__: ClassVar[bool] = True

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        attrs.define(cls, slots=False, kw_only=True)

    @classmethod
    def model_json_schema(cls) -> DictSchema:
        """The JSON schema that an instance obeys."""
        from .schema import shape_of

        return dict(shape_of(cls).schema)

    def __getitem__(self, name: str) -> Any:
        if not isinstance(name, str):
            raise LMStudioTypeError(f"a field is named by a text, not {shown(name)}")
        if name not in {field.name for field in attrs.fields(type(self))}:
            raise KeyError(name)
        return getattr(self, name)


def set_sync_api_timeout(timeout: float | None) -> None:
    """Say how long the module-level functions wait for what is answered at once.

    Same as `idle_timeout` of the client that they share. Predictions and loads have no
    such limit: they end when the server does not answer pings any more.

    Args:
        timeout: Seconds, None for no limit.

    Raises:
        LMStudioRuntimeError: The shared client is already in use.
        LMStudioValueError: It is no number above 0.
    """
    default.set_idle_timeout(timeout)


def get_sync_api_timeout() -> float | None:
    """What `set_sync_api_timeout` has set, seconds."""
    return default.get_idle_timeout()
