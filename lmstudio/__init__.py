"""LM Studio for synchronous Python: local language models without asyncio."""

import importlib
import logging
from typing import TYPE_CHECKING, Any

from ._version import __version__
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
from .models import LLM, EmbeddingModel
from .prediction import Prediction
from .result import Fragment, PredictionResult
from .signals import Signal
from .wire.common import InstanceInfo, ModelInfo
from .wire.files import FileHandle
from .wire.llm import PredictionStats, ToolCallRequest

if TYPE_CHECKING:
    from .act import ActRun
    from .actresult import ActResult, PredictionRoundResult, RoundFragment
    from .batch import Batch
    from .chat import Chat
    from .compat import *  # noqa: F403  # at run time `__getattr__` finds them
    from .functions import ToolFunctionDef
    from .toolcalls import ToolCall

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


#: Names that are imported when they are first used, and where they are: programs that
#: do without them start quicker.
_LATER = {
    "ActResult": "actresult",
    "ActRun": "act",
    "Batch": "batch",
    "Chat": "chat",
    "PredictionRoundResult": "actresult",
    "RoundFragment": "actresult",
    "ToolCall": "toolcalls",
    "ToolFunctionDef": "functions",
}


def __getattr__(name: str) -> Any:
    # The names of the official SDK are found here as well, and are in the way of
    # nobody who looks around.
    if not name.startswith("_"):
        # Not `from . import compat`: that would ask here for `compat`.
        where = _LATER.get(name, "compat")
        module = importlib.import_module(f"lmstudio.{where}")
        if where != "compat" or name in module.__all__:
            value = getattr(module, name)
            if where != "compat":
                globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


logging.getLogger("lmstudio").addHandler(logging.NullHandler())
