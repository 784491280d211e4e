"""A model that says what a script tells it, for tests of what uses one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmstudio.server.engine import (
    ContextOverflow,
    Done,
    Event,
    Image,
    ModelFile,
    Piece,
    PromptPart,
    Request,
    Unloaded,
)
from lmstudio.wire.common import KVConfig, KVField
from lmstudio.wire.converter import structure
from lmstudio.wire.llm import History

#: One step of a script: a text is a piece of one token, an exception is raised, and an
#: `asyncio.Event` is waited for.
Step = str | Event | BaseException | asyncio.Event

#: Texts that the scripted model reads as control tokens, and their ids. All other
#: characters are tokens of their own, whose id is their code point.
SPECIALS: Mapping[str, int] = {
    "<s>": 2_000_001,
    "</s>": 2_000_002,
    "<|im_start|>": 2_000_003,
    "<|im_end|>": 2_000_004,
}
#: Stands for an image as often as it has bytes.
IMAGE = ord("▒")


class ScriptedModel:
    """A `LoadedModel` without a model.

    Args:
        scripts: What each call of `predict` gives, in order; a script without `Done`
            ends with the reason ``"eos"``.
        adds_bos: Put ``<s>`` in front of prompts, like models that want it there.

    Attributes:
        requests: What was asked, in order.
        prompts: The prompts of the requests, as text that was read token by token:
            control tokens are in ``«»``.
        lengths: How many tokens these prompts had.
        tokenized: The texts that were given to `tokenize`.
        running: Set while a script waits for an event.
        closed: How many predictions were closed or ended.
    """

    def __init__(
        self,
        *scripts: Sequence[Step],
        context_length: int = 4096,
        gpu_layers: int = 0,
        adds_bos: bool = False,
    ) -> None:
        self.context_length = context_length
        self.gpu_layers = gpu_layers
        self.requests: list[Request] = []
        self.prompts: list[str] = []
        self.lengths: list[int] = []
        self.tokenized: list[str] = []
        self.running = asyncio.Event()
        self.closed = 0
        self._scripts = list(scripts)
        self._adds_bos = adds_bos
        self._callbacks: list[Callable[[], None]] = []

    async def predict(self, request: Request) -> AsyncIterator[Event]:
        """Play the next script."""
        self.requests.append(request)
        ids = self._prompt_ids(request.prompt)
        self.prompts.append(read(ids))
        self.lengths.append(len(ids))
        if len(ids) >= self.context_length:
            raise ContextOverflow(len(ids), self.context_length)
        predicted = 0
        try:
            for step in self._scripts.pop(0):
                if isinstance(step, asyncio.Event):
                    self.running.set()
                    await step.wait()
                elif isinstance(step, BaseException):
                    raise step
                else:
                    event = Piece(step) if isinstance(step, str) else step
                    predicted += event.tokens if isinstance(event, Piece) else 0
                    yield event
                    if isinstance(event, Done):
                        return
            yield done("eos", len(ids), predicted)
        finally:
            self.closed += 1

    async def tokenize(
        self, text: str, *, add_special: bool = False, parse_special: bool = False
    ) -> list[int]:
        """A token for each character, and for each control token."""
        self.tokenized.append(text)
        return self._ids(text, add_special, parse_special)

    async def embed(self, text: str) -> list[float]:
        """Not what tests of predictions need."""
        raise NotImplementedError(text)

    async def unload(self) -> None:
        """Tell those who want to know."""
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Call back at `unload`."""
        self._callbacks.append(callback)

    def _prompt_ids(self, prompt: str | Sequence[PromptPart]) -> list[int]:
        """Read a prompt as llama.cpp does: BOS goes only in front of a text."""
        parts = [prompt] if isinstance(prompt, str) else prompt
        made: list[int] = []
        for number, part in enumerate(parts):
            if isinstance(part, int):
                made.append(part)
            elif isinstance(part, Image):
                made += [IMAGE] * len(part.content)
            else:
                made += self._ids(part, number == 0, True)
        return made

    def _ids(self, text: str, add_special: bool, parse_special: bool) -> list[int]:
        pieces = [text]
        if parse_special:
            pieces = re.split(f"({'|'.join(map(re.escape, SPECIALS))})", text)
        made = [SPECIALS["<s>"]] if add_special and self._adds_bos else []
        for piece in pieces:
            if parse_special and piece in SPECIALS:
                made.append(SPECIALS[piece])
            else:
                made += map(ord, piece)
        return made


def read(ids: Sequence[int]) -> str:
    """Ids as text, control tokens in ``«»``."""
    names = {number: f"«{text}»" for text, number in SPECIALS.items()}
    return "".join(names.get(token) or chr(token) for token in ids)


def done(
    reason: Any, prompt_tokens: int = 1, predicted_tokens: int = 1, **more: Any
) -> Done:
    """The end of a script."""
    return Done(
        reason=reason,
        prompt_tokens=prompt_tokens,
        predicted_tokens=predicted_tokens,
        **more,
    )


def make_file(**fields: Any) -> ModelFile:
    """A model file that is not there."""
    basic: dict[str, Any] = {
        "key": "scripted",
        "path": Path("/models/acme/scripted/scripted.gguf"),
        "relative_path": "acme/scripted/scripted.gguf",
        "publisher": "acme",
        "display_name": "Scripted",
        "size": 1,
    }
    return ModelFile(**{**basic, **fields})


def history(*messages: tuple[str, str] | Mapping[str, Any]) -> History:
    """A history of pairs of role and text, or of messages in wire form."""
    made = [
        {"role": m[0], "content": [{"type": "text", "text": m[1]}]}
        if isinstance(m, tuple)
        else m
        for m in messages
    ]
    whole: History = structure({"messages": made}, History, "history")
    return whole


def config(**values: Any) -> KVConfig:
    """Settings by the last words of their keys: ``config(temperature=0.5)``.

    A dot is written as two underscores, and keys that do not begin with
    ``llm.prediction.`` can't be written so.
    """
    return KVConfig(
        fields=[
            KVField(key="llm.prediction." + name.replace("__", "."), value=value)
            for name, value in values.items()
        ]
    )


def unloaded() -> Unloaded:
    """What a prediction raises when its model goes away."""
    return Unloaded("The model was unloaded")
