"""A model in memory, a load that runs, and how a client wants it."""

from __future__ import annotations

import asyncio
import copy
import itertools
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import attrs

from ..wire.common import KVConfig
from .engine import Draft, LoadedModel, LoadSettings, ModelFile
from .failures import Failure, domain_of
from .loading import effective, own_settings

#: Official Python clients give up after a minute of silence.
#: Source: docs/wire/messages.md.
SILENCE = 20.0


_orders = itertools.count(1)


class Use:
    """One request that keeps a model busy.

    Attributes:
        status: ``"processingPrompt"``, ``"generating"``, ``"computingEmbedding"``, or
            None for what is too short to be reported.
    """

    def __init__(self, status: str | None) -> None:
        self.status = status


@attrs.frozen(kw_only=True)
class Wanted:
    """How a client wants a model.

    Attributes:
        config: Settings as they travel, layers collapsed.
        operation: Settings of its predictions where nobody says otherwise.
        ttl: Seconds of idleness after which to unload it, None for never.
        owner: The client it goes with, None for nobody.
        on_demand: It gives way to the next that is loaded so.
    """

    config: KVConfig = attrs.field(factory=KVConfig)
    operation: KVConfig = attrs.field(factory=KVConfig)
    ttl: float | None = None
    owner: Any = None
    on_demand: bool = False


class Instance:
    """A model in memory, under the name that it was loaded as.

    Attributes:
        identifier: The name.
        reference: Opaque, and unique for each load.
        file: What was loaded.
        model: The engine's part.
        control_tokens: Texts that would steer the model.
        settings: How the engine was asked to load it.
        config: The load configuration as it came about.
        operation: Settings of predictions where nobody says otherwise.
        ttl: Seconds of idleness after which it is unloaded, None for never.
        owner: Whose it is: unloaded when this client is released. None for nobody's.
        on_demand: Whether it gives way to the next model that is loaded on demand.
        last_used: Unix time of the last use, seconds; None before the first.
    """

    def __init__(
        self,
        wanted: Wanted,
        identifier: str,
        file: ModelFile,
        model: LoadedModel,
        control_tokens: Sequence[str] = (),
        settings: LoadSettings | None = None,
    ) -> None:
        self.identifier = identifier
        self.reference = secrets.token_urlsafe(12)
        self.file = file
        self.model = model
        self.control_tokens = control_tokens
        self.settings = settings or LoadSettings()
        self.config = effective(file, wanted.config, model.context_length)
        own = own_settings(file, wanted.config)
        self.operation = KVConfig(fields=[*own, *wanted.operation.fields])
        self.ttl = wanted.ttl
        self.owner = wanted.owner
        self.on_demand = wanted.on_demand
        self.last_used: float | None = None
        self.order = 0  # of its last use, over all models: clocks are too coarse
        self.uses: list[Use] = []
        self.timer: asyncio.TimerHandle | None = None

    def with_draft(self, model: LoadedModel, draft: ModelFile) -> Instance:
        """The same instance for one prediction, run by a twin that drafts."""
        made = copy.copy(self)
        made.model = model
        made.settings = attrs.evolve(self.settings, draft=Draft(file=draft))
        return made

    @property
    def draft_key(self) -> str | None:
        """The key of the model that proposes tokens, None without one."""
        draft = self.settings.draft
        return None if draft is None else draft.file.key

    def touch(self) -> None:
        """It is used now."""
        self.order = next(_orders)
        self.last_used = time.time()

    @property
    def domain(self) -> str:
        """The namespace that serves it."""
        return domain_of(self.file)

    @property
    def status(self) -> tuple[str, int]:
        """What it does at the moment, and how many requests it has."""
        active = [use.status for use in self.uses if use.status is not None]
        for status in ("generating", "processingPrompt", "computingEmbedding"):
            if status in active:
                return status, len(active)
        return "idle", 0


class Load:
    """A load that runs; several requests may follow it.

    Attributes:
        file: What is loaded.
        candidates: All files that the name fits, when there are several.
        identifier: The name that the instance will get.
        owner: The client that it goes with, None for nobody.
        evicted: Other models that gave way to it.
        task: The load itself. It goes on when those who follow are gone.
    """

    def __init__(
        self,
        file: ModelFile,
        candidates: Sequence[ModelFile],
        identifier: str,
        owner: Any = None,
    ) -> None:
        self.file = file
        self.candidates = candidates
        self.identifier = identifier
        self.owner = owner
        self.followers = 0
        self.evicted: list[Instance] = []
        self.task: asyncio.Task[Instance]
        self._reported: list[float] = []
        self._changed = _future()

    def report(self, progress: float) -> None:
        """Take note of the progress, 0 to 1."""
        last = self._reported[-1] if self._reported else -1.0
        if min(1.0, progress) > last:
            self._reported.append(min(1.0, progress))
            self._wake()

    def finished(self, _: object) -> None:
        """Wake those who follow for the last time."""
        self._wake()

    async def follow(self, silence: float = SILENCE) -> AsyncGenerator[float, None]:
        """Yield progress as it changes, until the load has ended.

        Args:
            silence: Seconds after which the last value is yielded again: a client
                that hears nothing for a minute gives up.
        """
        at = max(0, len(self._reported) - 1)  # who comes late begins with the last
        while True:
            while at < len(self._reported):
                yield self._reported[at]
                at += 1
            if self.task.done():
                return
            changed, _ = await asyncio.wait([self._changed], timeout=silence)
            if not changed:
                at = max(0, at - 1)

    def _wake(self) -> None:
        changed, self._changed = self._changed, _future()
        changed.set_result(None)

    async def instance(self) -> Instance:
        """The loaded model.

        Raises:
            EngineError: It could not be loaded, or the load was cancelled.
        """
        await asyncio.wait([self.task])
        if self.task.cancelled():
            raise Failure(f"Loading {self.file.key} was cancelled")
        return self.task.result()


def _future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()
