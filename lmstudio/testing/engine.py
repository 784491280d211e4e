"""An engine that loads nothing and says what a script says."""

from __future__ import annotations

import asyncio
import contextvars
import re
import threading
import time
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from ..server.engine import (
    Done,
    Event,
    LoadSettings,
    ModelFile,
    Piece,
    PromptProgress,
    Request,
    Unloaded,
)
from ..server.instances import Instance
from ..server.lookup import find
from ..wire.common import KVConfig
from ..wire.config import PREDICTION
from ..wire.llm import History, Message, PredictionStats
from .script import CRASH, NEVER, Asked, Reply, Step, perform

#: Breaks the connection that the running request came on; the fake server sets it.
drop_connection: contextvars.ContextVar[Callable[[], None]] = contextvars.ContextVar(
    "drop_connection"
)

_STOP_REASONS = {
    "eos": "eosFound",
    "word": "stopStringFound",
    "limit": "maxPredictedTokensReached",
    "context": "contextLengthReached",
}


def scripted_model(key: str) -> ModelFile:
    """A model that exists nowhere, made from its key.

    A key with ``embed`` in it is an embedding model, one with ``vision`` takes images.
    """
    publisher, _, name = key.rpartition("/")
    publisher = publisher.partition("/")[0] or "testing"
    path = f"{publisher}/{name}-GGUF/{name}-Q4_K_M.gguf"
    return ModelFile(
        key=key,
        path=Path("/nowhere", path),
        relative_path=path,
        publisher=publisher,
        display_name=name.replace("-", " ").title(),
        size=1_000_000,
        architecture="scripted",
        params="1M",
        quantization="Q4_K_M",
        bits=4,
        max_context_length=8192,
        is_embedding="embed" in key,
        vision="vision" in key,
        variant=f"{key}@q4_k_m",
    )


_Files = list[ModelFile]  # within the class, `list` is the method


class ScriptedModels:
    """Models on a disk that is a list."""

    def __init__(self, models: Sequence[ModelFile]) -> None:
        self.models = list(models)

    def list(self) -> _Files:
        """All of them."""
        return self.models.copy()

    def find(self, name: str) -> tuple[ModelFile, _Files]:
        """The one that a name means, by the rules of the real store."""
        file, candidates = find(self.models, name)
        return file, [*candidates]


def tokens_of(text: str) -> list[str]:
    """The tokens of every scripted model: words with the blanks before them."""
    return re.findall(r"\s*\S+|\s+", text)


def vector_of(text: str) -> list[float]:
    """A vector of two dimensions and length 1, the same for the same text."""
    share = zlib.crc32(text.encode()) % 1000 / 1000
    return [share, (1.0 - share**2) ** 0.5]


class Scripts:
    """Answers and loads that wait for their request. Use it from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards both
        self._replies: list[Reply] = []
        self._loads: deque[list[Step | float]] = deque()
        #: Embeds texts for every scripted model.
        self.embed: Callable[[str], Sequence[float]] = vector_of

    def add_reply(self, reply: Reply) -> None:
        """Queue an answer."""
        with self._lock:
            self._replies.append(reply)

    def add_load(self, steps: list[Step | float]) -> None:
        """Queue what the next load does."""
        with self._lock:
            self._loads.append(steps)

    def reply(self, asked: Asked) -> Reply:
        """The first answer that fits; without one, an echo of the text."""
        with self._lock:
            for reply in self._replies:
                if reply.fits(asked):
                    reply.used += 1
                    return reply
        return Reply(tokens_of(asked.text))

    def load(self) -> list[Step | float]:
        """What this load does."""
        with self._lock:
            return self._loads.popleft() if self._loads else [0.0, 1.0]

    def unused(self) -> list[Reply]:
        """Answers that nobody asked for."""
        with self._lock:
            return [reply for reply in self._replies if not reply.used]


class ScriptedModel:
    """A loaded model of `ScriptedEngine`."""

    def __init__(
        self, file: ModelFile, settings: LoadSettings, scripts: Scripts
    ) -> None:
        self.file = file
        self.context_length = settings.context_length
        self.gpu_layers = 0
        self.is_loaded = True
        self._scripts = scripts
        self._callbacks: list[Callable[[], None]] = []

    async def act(self, step: Step) -> None:
        """Do a step that says nothing.

        Raises:
            EngineError: The step is a failure.
        """
        if step is CRASH:
            self._gone()
        await perform(step, drop_connection.get(_nothing))

    async def predict(self, request: Request) -> AsyncIterator[Event]:
        """Generate what the script says; packets have no form here and are left out."""
        parts = [request.prompt] if isinstance(request.prompt, str) else request.prompt
        text = "".join(part for part in parts if isinstance(part, str))
        asked = Asked(text=text, history=None, config={}, identifier=self.file.key)
        reply = self._scripts.reply(asked)
        prompt_tokens = len(tokens_of(text))
        yield PromptProgress(prompt_tokens, 0, prompt_tokens)
        count = 0
        for step in reply.steps:
            if isinstance(step, str):
                count += 1
                yield Piece(step)
            elif not isinstance(step, dict):
                await self.act(step)
        reason: Any = reply.stop if reply.stop in _STOP_REASONS else "eos"
        yield Done(reason=reason, prompt_tokens=prompt_tokens, predicted_tokens=count)

    async def tokenize(
        self, text: str, *, add_special: bool = False, parse_special: bool = False
    ) -> list[int]:
        """One id per word, the same for the same word."""
        first = [1] if add_special else []
        words = tokens_of(text)
        return first + [10 + zlib.crc32(word.encode()) % 50_000 for word in words]

    async def embed(self, text: str) -> list[float]:
        """What the script says, by default `vector_of` it."""
        return [float(x) for x in self._scripts.embed(text)]

    async def unload(self) -> None:
        """End it."""
        self._gone()

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Call back when it is gone."""
        self._callbacks.append(callback)

    def _gone(self) -> None:
        self.is_loaded = False
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


class ScriptedEngine:
    """Loads at once, or as a script says."""

    name = "scripted"

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts
        self.loads: list[tuple[ModelFile, LoadSettings]] = []

    async def load(
        self,
        model: ModelFile,
        settings: LoadSettings,
        on_progress: Callable[[float], None],
    ) -> ScriptedModel:
        """Report progress and do steps as the script says."""
        self.loads.append((model, settings))
        for step in self._scripts.load():
            if isinstance(step, (int, float)):
                on_progress(step)
                await asyncio.sleep(0)  # so that those who follow see each of them
            else:
                await perform(step, drop_connection.get(_nothing))
        return ScriptedModel(model, settings, self._scripts)

    async def close(self) -> None:
        """Nothing is left to free: each model is unloaded by who loaded it."""


@attrs.frozen
class ScriptedEnd:
    """The last that a scripted prediction yields."""

    stats: PredictionStats
    prediction_config: KVConfig


class ScriptedPrediction:
    """A prediction whose packets are the script's own words.

    Attributes:
        input_text: The prompt, one message a line.
    """

    def __init__(
        self,
        model: ScriptedModel,
        reply: Reply,
        config: KVConfig,
        input_text: str,
    ) -> None:
        self.input_text = input_text
        self._model = model
        self._reply = reply
        self._config = config
        self._prompt_tokens = len(tokens_of(input_text))
        self._cancelled = asyncio.Event()

    def cancel(self) -> None:
        """Stop at the next step; a gate opens."""
        self._cancelled.set()

    async def packets(self) -> AsyncIterator[dict[str, Any] | ScriptedEnd]:
        """Packets as they travel, the end last."""
        started, first, count = time.perf_counter(), None, 0
        for done in (0, self._prompt_tokens):
            yield _progress(done, self._prompt_tokens)
        for step in self._reply.steps:
            is_wait = not isinstance(step, (str, dict))
            if step is NEVER or (is_wait and not self._cancelled.is_set()):
                await self._hold(step)
            if self._cancelled.is_set():
                break
            if not self._model.is_loaded:
                raise Unloaded("The model was unloaded")
            if first is None:
                first = time.perf_counter() - started
            if isinstance(step, str):
                count += 1
                yield fragment(step)
            elif isinstance(step, dict):
                yield step
            await asyncio.sleep(0)  # a burst must not keep others waiting
        stop = self._reply.stop
        reason = _STOP_REASONS.get(stop, stop)
        total = time.perf_counter() - started
        stats = PredictionStats(
            stop_reason="userStopped" if self._cancelled.is_set() else reason,
            tokens_per_second=count / total if total else None,
            num_gpu_layers=0,
            time_to_first_token_sec=first,
            total_time_sec=total,
            prompt_tokens_count=self._prompt_tokens,
            predicted_tokens_count=count,
            total_tokens_count=self._prompt_tokens + count,
        )
        yield ScriptedEnd(stats, self._config)

    async def _hold(self, step: Step) -> None:
        """Do a step; a cancel ends the wait for it."""
        if step is NEVER:
            await self._model.act(step)
        doing = asyncio.ensure_future(self._model.act(step))
        cancelled = asyncio.ensure_future(self._cancelled.wait())
        try:
            await asyncio.wait([doing, cancelled], return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                doing.result()
        finally:
            doing.cancel()
            cancelled.cancel()


def fragment(
    text: str, tokens: int = 1, reasoning_type: str = "none"
) -> dict[str, Any]:
    """The packet of a piece of text.

    Source: docs/wire/predict.md.
    """
    made = {
        "content": text,
        "tokensCount": tokens,
        "containsDrafted": False,
        "reasoningType": reasoning_type,
        "isStructural": False,
    }
    return {"type": "fragment", "fragment": made}


def _progress(done: int, total: int) -> dict[str, Any]:
    details = {
        "cachedTokenCount": 0,
        "totalPromptTokenCount": total,
        "processedPromptTokenCount": done,
        "unprocessedPromptTokenCount": total - done,
    }
    share = done / total if total else 1.0
    return {"type": "promptProcessingProgress", "progress": share, "details": details}


def prediction_of(
    instance: Instance,
    scripts: Scripts,
    history: History | None,
    raw_prompt: str | None,
    config: KVConfig,
) -> ScriptedPrediction:
    """The scripted answer to a prediction."""
    model = instance.model
    assert isinstance(model, ScriptedModel)
    asked = Asked(
        text=raw_prompt if raw_prompt is not None else last_text(history),
        history=history,
        config=PREDICTION.decode(config),
        identifier=instance.identifier,
    )
    prompt = asked.text if history is None else all_text(history)
    return ScriptedPrediction(model, scripts.reply(asked), config, prompt)


def all_text(history: History) -> str:
    """All messages, one a line."""
    return "\n".join(_text(message) for message in history.messages)


def last_text(history: History | None) -> str:
    """The last message of the user; ``""`` without one."""
    for message in reversed(history.messages if history is not None else []):
        if message.role == "user":
            return _text(message)
    return ""


def _text(message: Message) -> str:
    return "".join(part.text or part.content or "" for part in message.content)


def _nothing() -> None:
    """What breaks no connection, where there is none."""
