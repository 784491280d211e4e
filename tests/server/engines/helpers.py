"""What the tests of the engines share: models, scripts for the fake child."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from lmstudio.server.engine import LoadSettings, ModelFile
from lmstudio.server.engines.llama_cpp import LlamaCppEngine, LlamaCppModel

FAKE = Path(__file__).with_name("fake_child.py")


def model(path: Path, **fields: Any) -> ModelFile:
    """A model file with what an engine needs to know of it."""
    return ModelFile(
        key="test-model",
        path=path,
        relative_path=f"test/test/{path.name}",
        publisher="test",
        display_name="Test",
        size=path.stat().st_size if path.exists() else 0,
        **fields,
    )


def fake_engine(load: str = "normal") -> LlamaCppEngine:
    """An engine whose children are fakes that load in one of the ways of `LOADS`."""
    return LlamaCppEngine([sys.executable, "-S", str(FAKE), load])


def ignore(progress: float) -> None:
    """Progress of no interest."""


@contextlib.asynccontextmanager
async def loaded(
    engine: LlamaCppEngine,
    path: Path,
    settings: LoadSettings | None = None,
    on_progress: Callable[[float], None] = ignore,
    **fields: Any,
) -> AsyncIterator[LlamaCppModel]:
    """A loaded model; the engine is closed at the end."""
    try:
        yield await engine.load(
            model(path, **fields), settings or LoadSettings(), on_progress
        )
    finally:
        await engine.close()


def event(text: str = "", predicted: int = 0, **fields: Any) -> bytes:
    """One event of a completion, as it stands in the body."""
    payload = {"content": text, "tokens_predicted": predicted, "tokens_evaluated": 7}
    return data({**payload, "stop": False, **fields})


def last(predicted: int, stop_type: str = "eos", **fields: Any) -> bytes:
    """The last event of a completion."""
    timings = {"prompt_ms": 250.0, "predicted_ms": 500.0, "predicted_per_second": 8.0}
    fields = {"stop_type": stop_type, "truncated": False, "timings": timings, **fields}
    return event("", predicted, **{"stop": True, **fields})


def data(payload: Any) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(payload, ensure_ascii=False).encode() + b"\n\n"


def chunked(*parts: bytes) -> bytes:
    """A chunked body, one chunk per part and the last one."""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [*parts, b""])


def script(
    *events: bytes, cut: int = 0, end: str = "close", head: bytes | None = None
) -> str:
    """A prompt that makes the fake child reply with these events.

    Args:
        cut: Send so many bytes at once; 0 sends all.
        end: ``"close"`` after a whole reply; ``"drop"`` before its end; ``"crash"``;
            ``"hold"`` waits for the client to close.
        head: Of the reply; None for that of a stream.
    """
    body = chunked(*events)
    if end != "close":
        body = body.removesuffix(b"0\r\n\r\n")
    stream = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    whole = (stream + body) if head is None else head + b"".join(events)
    return json.dumps({"data": whole.hex(), "cut": cut, "end": end})


def error_head(status: int, body: bytes) -> bytes:
    """The head of a reply with an error."""
    return b"HTTP/1.1 %d Error\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
