"""LM Studio for synchronous Python: local language models without asyncio."""

import logging

from ._version import __version__
from .act import ActRun
from .actresult import ActResult, PredictionRoundResult, RoundFragment
from .chat import Chat
from .client import LMStudioClient
from .default import (
    configure_default_client,
    embedding_model,
    get_default_client,
    list_downloaded_models,
    list_loaded_models,
    llm,
    prepare_image,
)
from .diagnostics import LogEntry, LogStream
from .errors import (
    LMStudioAuthenticationError,
    LMStudioCancelledError,
    LMStudioChannelClosedError,
    LMStudioClientError,
    LMStudioConnectionError,
    LMStudioContextOverflowError,
    LMStudioError,
    LMStudioFileTooLargeError,
    LMStudioModelCrashedError,
    LMStudioModelLoadError,
    LMStudioModelNotFoundError,
    LMStudioOSError,
    LMStudioOutputError,
    LMStudioPredictionError,
    LMStudioPresetNotFoundError,
    LMStudioProtocolError,
    LMStudioRuntimeError,
    LMStudioServerError,
    LMStudioTimeoutError,
    LMStudioToolError,
    LMStudioTypeError,
    LMStudioUnknownMessageWarning,
    LMStudioUnsupportedError,
    LMStudioValueError,
    LMStudioWebsocketError,
)
from .functions import ToolFunctionDef
from .models import LLM, EmbeddingModel
from .prediction import Prediction
from .result import Fragment, PredictionResult
from .signals import Signal
from .toolcalls import ToolCall
from .wire.common import InstanceInfo, ModelInfo
from .wire.files import FileHandle
from .wire.llm import PredictionStats, ToolCallRequest

Client = LMStudioClient

__all__ = [
    "LLM",
    "ActResult",
    "ActRun",
    "Chat",
    "Client",
    "EmbeddingModel",
    "FileHandle",
    "Fragment",
    "InstanceInfo",
    "LMStudioAuthenticationError",
    "LMStudioCancelledError",
    "LMStudioChannelClosedError",
    "LMStudioClient",
    "LMStudioClientError",
    "LMStudioConnectionError",
    "LMStudioContextOverflowError",
    "LMStudioError",
    "LMStudioFileTooLargeError",
    "LMStudioModelCrashedError",
    "LMStudioModelLoadError",
    "LMStudioModelNotFoundError",
    "LMStudioOSError",
    "LMStudioOutputError",
    "LMStudioPredictionError",
    "LMStudioPresetNotFoundError",
    "LMStudioProtocolError",
    "LMStudioRuntimeError",
    "LMStudioServerError",
    "LMStudioTimeoutError",
    "LMStudioToolError",
    "LMStudioTypeError",
    "LMStudioUnknownMessageWarning",
    "LMStudioUnsupportedError",
    "LMStudioValueError",
    "LMStudioWebsocketError",
    "LogEntry",
    "LogStream",
    "ModelInfo",
    "Prediction",
    "PredictionResult",
    "PredictionRoundResult",
    "PredictionStats",
    "RoundFragment",
    "Signal",
    "ToolCall",
    "ToolCallRequest",
    "ToolFunctionDef",
    "__version__",
    "configure_default_client",
    "embedding_model",
    "get_default_client",
    "list_downloaded_models",
    "list_loaded_models",
    "llm",
    "prepare_image",
]

logging.getLogger("lmstudio").addHandler(logging.NullHandler())
