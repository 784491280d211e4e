"""Twins: a loaded model once more, with a draft model for some of its predictions.

llama.cpp reads a draft model when it loads a model, and a prediction may name one. So a
model that was loaded without it is loaded again beside itself, and its twin answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs

from .engine import Draft, LoadedModel, ModelFile, Unloaded
from .failures import wrong_domain
from .instances import Instance
from .memory import estimate
from .registry import Registry
from .tasks import Tasks

log = logging.getLogger(__name__)

#: Seconds that a twin stays idle.
TTL = 300.0

_Key = tuple[str, str]  # reference of the instance, path of the draft model


@attrs.define(eq=False)
class _Twin:
    """A twin that is loaded or loads; `uses` counts the predictions that have it."""

    task: asyncio.Task[LoadedModel]
    uses: int = 0
    timer: asyncio.TimerHandle | None = None


class Twins:
    """The twins of all loaded models. Its methods belong to one event loop.

    Args:
        registry: The models.
        ttl: Seconds after which an idle twin is unloaded.
    """

    def __init__(self, registry: Registry, ttl: float = TTL) -> None:
        self._registry = registry
        self._ttl = ttl
        self._twins: dict[_Key, _Twin] = {}
        self._tasks = Tasks()

    @asynccontextmanager
    async def drafting(self, instance: Instance, name: str) -> AsyncIterator[Instance]:
        """The instance with a draft model: itself if it was loaded so, or its twin.

        Args:
            name: What the client calls the draft model.

        Raises:
            EngineError: There is no such model, it is of another vocabulary, or there
                is not enough memory for both.
        """
        draft, _ = await asyncio.to_thread(self._registry.models.find, name)
        if draft.is_embedding:
            raise wrong_domain(draft, "llm")
        own = instance.settings.draft
        if own is not None and own.file.relative_path == draft.relative_path:
            yield instance
            return
        key = instance.reference, draft.relative_path
        twin = self._twins.get(key)
        if twin is None:
            twin = _Twin(self._tasks.spawn(self._load(instance, draft)))
            self._twins[key] = twin
            instance.model.on_exit(lambda: self._drop(key))
        twin.uses += 1
        if twin.timer is not None:
            twin.timer.cancel()
        try:
            # A prediction that is cancelled leaves the load to the next.
            await asyncio.wait([twin.task])
            if twin.task.cancelled():
                raise Unloaded(f"The model {instance.file.key!r} was unloaded")
            yield instance.with_draft(twin.task.result(), draft)
        finally:
            twin.uses -= 1
            if twin.task.done() and not _is_good(twin.task):
                self._drop(key)
            elif not twin.uses and self._twins.get(key) is twin:
                loop = asyncio.get_running_loop()
                twin.timer = loop.call_later(self._ttl, self._drop, key)

    async def close(self) -> None:
        """Unload all of them. Safe to repeat."""
        for key in list(self._twins):
            self._drop(key)
        await self._tasks.join()

    async def _load(self, instance: Instance, draft: ModelFile) -> LoadedModel:
        settings = attrs.evolve(instance.settings, draft=Draft(file=draft))
        budget = self._registry.budget
        claim = object()
        made = await asyncio.to_thread(estimate, instance.file, settings)
        if not budget.claim(claim, made):
            refusal = budget.refusal
            raise await asyncio.to_thread(refusal, instance.file, settings, made)
        try:
            engine = self._registry.engine
            model = await engine.load(instance.file, settings, lambda _: None)
        finally:
            budget.free(claim)
        key = instance.reference, draft.relative_path
        budget.keep(key, made)
        model.on_exit(lambda: self._drop(key))
        log.info("loaded %s again, with %s to draft", instance.identifier, draft.key)
        return model

    def _drop(self, key: _Key) -> None:
        """Unload a twin; safe to repeat."""
        twin = self._twins.pop(key, None)
        if twin is None:
            return
        self._registry.budget.free(key)
        if twin.timer is not None:
            twin.timer.cancel()
        if not twin.task.done():
            twin.task.cancel()
        elif _is_good(twin.task):
            self._tasks.spawn(twin.task.result().unload())


def _is_good(task: asyncio.Task[LoadedModel]) -> bool:
    """Whether a load has come to its end."""
    return not task.cancelled() and task.exception() is None
