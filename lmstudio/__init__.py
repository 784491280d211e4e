"""LM Studio for synchronous Python: local language models without asyncio."""

import logging

from ._version import __version__
from .client import LMStudioClient
from .default import (
    configure_default_client,
    get_default_client,
    list_downloaded_models,
    list_loaded_models,
    llm,
)
from .errors import (
    LMStudioAuthenticationError,
    LMStudioCancelledError,
    LMStudioChannelClosedError,
    LMStudioClientError,
    LMStudioConnectionError,
    LMStudioContextOverflowError,
    LMStudioError,
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
    LMStudioTypeError,
    LMStudioUnknownMessageWarning,
    LMStudioUnsupportedError,
    LMStudioValueError,
    LMStudioWebsocketError,
)
from .models import LLM
from .prediction import Prediction
from .result import Fragment, PredictionResult
from .signals import Signal
from .wire.common import InstanceInfo, ModelInfo
from .wire.llm import PredictionStats

Client = LMStudioClient

__all__ = [
    "LLM",
    "Client",
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
    "LMStudioTypeError",
    "LMStudioUnknownMessageWarning",
    "LMStudioUnsupportedError",
    "LMStudioValueError",
    "LMStudioWebsocketError",
    "ModelInfo",
    "Prediction",
    "PredictionResult",
    "PredictionStats",
    "Signal",
    "__version__",
    "configure_default_client",
    "get_default_client",
    "list_downloaded_models",
    "list_loaded_models",
    "llm",
]

logging.getLogger("lmstudio").addHandler(logging.NullHandler())
