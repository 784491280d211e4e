"""Models of the ``diagnostics`` namespace: what a server logs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from .llm import PredictionStats
from .model import model


@model(kw_only=True)
class StreamLogs:
    """Parameter of ``streamLogs``, for servers with the extension ``logKinds``.

    Attributes:
        kinds: The kinds of entries that the client wants.

    Source: docs/wire/diagnostics.md.
    """

    kinds: list[str]


@model(kw_only=True)
class PredictionInput:
    """A prediction begins.

    Attributes:
        model_path: The path of the model's file.
        model_identifier: The name that it was loaded under.
        input: The prompt, formatted.
    """

    model_path: str
    model_identifier: str
    input: str


@model(kw_only=True)
class PredictionOutput:
    """A prediction has ended.

    Attributes:
        model_identifier: The name that the model was loaded under.
        output: The text that came of it.
        stats: What was measured; None where the server did not say.
    """

    model_identifier: str
    output: str
    stats: PredictionStats | None = None


@model(kw_only=True)
class ServerLog:
    """A line of the server's own log.

    Attributes:
        content: The line.
        level: ``"debug"``, ``"info"``, ``"warn"`` or ``"error"``.
    """

    content: str
    level: str = "info"


@attrs.frozen
class OtherLog:
    """An entry of a kind that this package does not know.

    Attributes:
        raw: The whole object as the server sent it.
    """

    raw: Mapping[str, Any]


LogData = PredictionInput | PredictionOutput | ServerLog | OtherLog

#: Kinds of entries and their classes.
LOG_DATA: dict[str, type] = {
    "llm.prediction.input": PredictionInput,
    "llm.prediction.output": PredictionOutput,
    "server.log": ServerLog,
}


@model(kw_only=True)
class Log:
    """What a packet of ``streamLogs`` holds.

    Attributes:
        timestamp: Unix time, milliseconds.
        data: One of `LOG_DATA` by its ``type``, or something newer.
    """

    timestamp: float
    data: dict[str, Any]
