"""LM Studio for synchronous Python: local language models without asyncio."""

from __future__ import annotations

from . import forks as _forks  # noqa: F401  # it holds up forks while we import
from ._version import __version__

# The module `typing` takes a twentieth of the time in which `lms --help` is done.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .act import ActRun
    from .actresult import ActResult, PredictionRoundResult, RoundFragment
    from .batch import Batch
    from .chat import Chat
    from .client import LMStudioClient
    from .compat import *  # noqa: F403  # at run time `__getattr__` finds them
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
    from .download import Download
    from .downloaded import DownloadedModel
    from .errors import (
        LMStudioAuthenticationError,
        LMStudioCancelledError,
        LMStudioChannelClosedError,
        LMStudioClientError,
        LMStudioConnectionError,
        LMStudioContextOverflowError,
        LMStudioDownloadError,
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
        LMStudioRealModelError,
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
    from .repository import AvailableModel, ModelDownloadOption
    from .result import Fragment, PredictionResult
    from .signals import Signal
    from .toolcalls import ToolCall
    from .wire.common import InstanceInfo, ModelInfo
    from .wire.files import FileHandle
    from .wire.llm import PredictionStats, ToolCallRequest
    from .wire.repository import DownloadProgress
    from .wire.usage import ResourcesUsage

    Client = LMStudioClient

__all__ = [
    "LLM",
    "ActResult",
    "ActRun",
    "AvailableModel",
    "Batch",
    "Chat",
    "Client",
    "Download",
    "DownloadProgress",
    "DownloadedModel",
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
    "LMStudioDownloadError",
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
    "LMStudioRealModelError",
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
    "ModelDownloadOption",
    "ModelInfo",
    "Prediction",
    "PredictionResult",
    "PredictionRoundResult",
    "PredictionStats",
    "ResourcesUsage",
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

#: Module -> the names that come from it when they are first used. So nothing but what
#: a program uses is imported, and `lms` starts in a third of the time.
_NAMES: dict[str, tuple[str, ...]] = {
    "act": ("ActRun",),
    "actresult": (
        "ActResult",
        "PredictionRoundResult",
        "RoundFragment",
    ),
    "batch": ("Batch",),
    "chat": ("Chat",),
    "client": ("LMStudioClient",),
    "default": (
        "configure_default_client",
        "embedding_model",
        "get_default_client",
        "list_downloaded_models",
        "list_loaded_models",
        "llm",
        "prepare_image",
    ),
    "diagnostics": (
        "LogEntry",
        "LogStream",
    ),
    "download": ("Download",),
    "downloaded": ("DownloadedModel",),
    "errors": (
        "LMStudioAuthenticationError",
        "LMStudioCancelledError",
        "LMStudioChannelClosedError",
        "LMStudioClientError",
        "LMStudioConnectionError",
        "LMStudioContextOverflowError",
        "LMStudioDownloadError",
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
        "LMStudioRealModelError",
        "LMStudioRuntimeError",
        "LMStudioServerError",
        "LMStudioTimeoutError",
        "LMStudioToolError",
        "LMStudioTypeError",
        "LMStudioUnknownMessageWarning",
        "LMStudioUnsupportedError",
        "LMStudioValueError",
        "LMStudioWebsocketError",
    ),
    "functions": ("ToolFunctionDef",),
    # For IPython, which looks for it here; nobody else needs it.
    "magic": ("load_ipython_extension",),
    "models": (
        "EmbeddingModel",
        "LLM",
    ),
    "prediction": ("Prediction",),
    "repository": (
        "AvailableModel",
        "ModelDownloadOption",
    ),
    "result": (
        "Fragment",
        "PredictionResult",
    ),
    "signals": ("Signal",),
    "toolcalls": ("ToolCall",),
    "wire.common": (
        "InstanceInfo",
        "ModelInfo",
    ),
    "wire.files": ("FileHandle",),
    "wire.llm": (
        "PredictionStats",
        "ToolCallRequest",
    ),
    "wire.repository": ("DownloadProgress",),
    "wire.usage": ("ResourcesUsage",),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    import importlib

    if name == "Client":
        name = "LMStudioClient"
    # Not `from . import ...`: that would ask here for the module.
    if name in _HOME:
        value = getattr(importlib.import_module(f"lmstudio.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    if not name.startswith("_"):
        module = f"lmstudio.{name}"
        try:  # first, since `from . import` of a module asks here before it looks
            return importlib.import_module(module)
        except ModuleNotFoundError as exc:
            if exc.name != module:
                raise
        # The names of the official SDK are found here as well, and are in the way of
        # nobody who looks around.
        compat = importlib.import_module("lmstudio.compat")
        if name in compat.__all__:
            return getattr(compat, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
