"""LM Studio for synchronous Python: local language models without asyncio."""

import importlib
import logging
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .act import ActRun
from .actresult import ActResult, PredictionRoundResult, RoundFragment
from .batch import Batch
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

if TYPE_CHECKING:
    from .compat import *  # noqa: F403  # at run time `__getattr__` finds them

Client = LMStudioClient

__all__ = [
    "LLM",
    "ActResult",
    "ActRun",
    "Batch",
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


def __getattr__(name: str) -> Any:
    # The names of the official SDK cost nothing until one is used, and are in the way
    # of nobody who looks around.
    if not name.startswith("_"):
        # Not `from . import compat`: that would ask here for `compat`.
        compat = importlib.import_module("lmstudio.compat")
        if name in compat.__all__:
            return getattr(compat, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


logging.getLogger("lmstudio").addHandler(logging.NullHandler())
