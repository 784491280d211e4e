"""An engine that loads nothing and says what a script says."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from ..server.engine import (
    Done,
    Event,
    LoadSettings,
    ModelCrashed,
    ModelFile,
    Piece,
    PromptProgress,
    Request,
    Unloaded,
)
from ..server.infos import instance_info
from ..server.instances import Instance
from ..server.lookup import find
from ..wire.common import KVConfig
from ..wire.config import PREDICTION
from ..wire.converter import unstructure
from ..wire.llm import History, PredictionStats
from . import link
from .answers import tokens_of
from .script import (
    CLOSE,
    CRASH,
    EVICT,
    NEVER,
    SUCCESS,
    Asked,
    Pace,
    Reply,
    Step,
    all_text,
    last_text,
    perform,
)
from .scripting import Scripts

#: Seconds that a token takes in the figures: real time would differ from run to run.
TOKEN_TIME = 0.01

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


class ScriptedModel:
    """A loaded model of `ScriptedEngine`.

    Attributes:
        is_crashed: Whether its process has died.
        gone: Set when it is no longer loaded, for whatever reason.
    """

    def __init__(
        self, file: ModelFile, settings: LoadSettings, scripts: Scripts
    ) -> None:
        self.file = file
        self.context_length = settings.context_length
        self.gpu_layers = 0
        self.is_loaded = True
        self.is_crashed = False
        self.gone = asyncio.Event()
        self._scripts = scripts
        self._callbacks: list[Callable[[], None]] = []

    async def act(self, step: Step) -> None:
        """Do a step that says nothing.

        Raises:
            EngineError: The step is a failure.
        """
        if step is CRASH or step is EVICT:
            self.is_crashed = step is CRASH
            self._gone()
        await perform(step, link.request.get())

    async def predict(self, request: Request) -> AsyncIterator[Event]:
        """Generate what the script says; packets have no form here and are left out."""
        parts = [request.prompt] if isinstance(request.prompt, str) else request.prompt
        text = "".join(part for part in parts if isinstance(part, str))
        asked = Asked(text=text, history=None, config={}, identifier=self.file.key)
        reply = self._scripts.reply(asked)
        prompt_tokens = len(tokens_of(text))
        yield PromptProgress(prompt_tokens, 0, prompt_tokens)
        count = 0
        for step in _steps(reply):
            if isinstance(step, str):
                count += 1
                yield Piece(step)
            elif not isinstance(step, dict):
                await self.act(step)
            if not self.is_loaded:
                raise Unloaded("The model was unloaded")
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
        self.gone.set()
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
                await perform(step, link.request.get())
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
        instance: Instance,
        reply: Reply,
        config: KVConfig,
        input_text: str,
    ) -> None:
        assert isinstance(instance.model, ScriptedModel)
        self.input_text = input_text
        self._instance = instance
        self._model = instance.model
        self._reply = reply
        self._config = config
        self._prompt_tokens = len(tokens_of(input_text))
        self._cancelled = asyncio.Event()

    def cancel(self) -> None:
        """Stop at the next step; a gate opens."""
        self._cancelled.set()

    async def packets(self) -> AsyncIterator[dict[str, Any] | ScriptedEnd]:
        """Packets as they travel, the end last."""
        count, pace, is_said_well = 0, self._reply.pace, False
        for done in (0, self._prompt_tokens):
            yield _progress(done, self._prompt_tokens)
        for step in _steps(self._reply):
            is_said = isinstance(step, (str, dict))
            if is_said and pace is not None and not self._cancelled.is_set():
                await self._until_cancelled(_paced(pace))
            if step is NEVER or (not is_said and not self._cancelled.is_set()):
                await self._hold(step)
            if self._model.is_crashed:
                raise ModelCrashed("The model crashed", "Another request's script")
            if self._cancelled.is_set() or not self._model.is_loaded:
                break
            if isinstance(step, str):
                count += 1
                yield fragment(step)
            elif isinstance(step, dict):
                yield step
            elif step is SUCCESS:
                is_said_well = True
                yield self._success(count)
            await asyncio.sleep(0)  # a burst must not keep others waiting
        if is_said_well:  # it has been said, so that only the close is left
            await self._model.act(CLOSE)
        yield ScriptedEnd(self._stats(count), self._config)

    def _stats(self, count: int) -> PredictionStats:
        """The figures after so many fragments."""
        stop = self._reply.stop
        reason = _STOP_REASONS.get(stop, stop)
        if not self._model.is_loaded:
            reason = "modelUnloaded"
        total = count * TOKEN_TIME
        return PredictionStats(
            stop_reason="userStopped" if self._cancelled.is_set() else reason,
            tokens_per_second=1 / TOKEN_TIME if count else None,
            num_gpu_layers=0,
            time_to_first_token_sec=TOKEN_TIME if count else None,
            total_time_sec=total,
            prompt_tokens_count=self._prompt_tokens,
            predicted_tokens_count=count,
            total_tokens_count=self._prompt_tokens + count,
        )

    def _success(self, count: int) -> dict[str, Any]:
        """The last packet, as the server would send it now.

        Source: docs/wire/predict.md.
        """
        return {
            "type": "success",
            "stats": unstructure(self._stats(count)),
            "modelInfo": unstructure(instance_info(self._instance)),
            "loadModelConfig": unstructure(self._instance.config),
            "predictionConfig": unstructure(self._config),
        }

    async def _hold(self, step: Step) -> None:
        """Do a step; a cancel, or the end of the model, ends the wait for it."""
        if step is NEVER:
            await self._model.act(step)
        await self._until_cancelled(self._model.act(step))

    async def _until_cancelled(self, work: Coroutine[Any, Any, None]) -> None:
        doing = asyncio.ensure_future(work)
        others = (self._cancelled.wait(), self._model.gone.wait())
        waits = [doing, *map(asyncio.ensure_future, others)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                doing.result()
        finally:
            for waiting in waits:
                waiting.cancel()


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


def _steps(reply: Reply) -> Sequence[Step]:
    assert not callable(reply.steps)  # `Scripts.reply` has called it
    return reply.steps


async def _paced(pace: Pace | float) -> None:
    """Wait until the next fragment may go out."""
    if isinstance(pace, Pace):
        await pace.wait()
    else:
        await asyncio.sleep(pace)


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
    files: Mapping[str, Any] | None = None,
) -> ScriptedPrediction:
    """The scripted answer to a prediction; nobody looks at the files."""
    asked = Asked(
        text=raw_prompt if raw_prompt is not None else last_text(history),
        history=history,
        config=PREDICTION.decode(config),
        identifier=instance.identifier,
    )
    prompt = asked.text if history is None else all_text(history)
    return ScriptedPrediction(instance, scripts.reply(asked), config, prompt)
