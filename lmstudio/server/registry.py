"""Models in memory: their names, who asked for them, and when they go."""

from __future__ import annotations

import asyncio
import logging
from collections import ChainMap
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import attrs

from ..wire.common import ModelQuery, ModelSpecifier
from .engine import BadRequest, Engine, EngineError, LoadSettings, ModelFile
from .failures import Failure, domain_of, instance_gone, no_match, wrong_domain
from .instances import Instance, Load, Use, Wanted
from .loading import draft_key, load_settings
from .lookup import is_name
from .memory import Budget, Estimate, Policy, estimate
from .tasks import Tasks

log = logging.getLogger(__name__)

#: Longest identifier that clients accept, characters. Source: docs/wire/models.md.
LONGEST_NAME = 1024


_Files = list[ModelFile]  # within the class, `list` is the method


class Models(Protocol):
    """Models on disk, as `Store` finds them."""

    def list(self) -> _Files:
        """All that can be loaded."""
        ...

    def find(self, name: str) -> tuple[ModelFile, _Files]:
        """The one that a name means, and all that it fits if there are several."""
        ...


def _none(_: ModelFile) -> Sequence[str]:
    return ()


@attrs.frozen
class Ready:
    """What is known of a model before it is loaded.

    Attributes:
        made: What it would take.
        tokens: Its control tokens.
    """

    made: Estimate
    tokens: Sequence[str]


class Registry:
    """All models in memory. Its methods belong to one event loop.

    Args:
        models: Models on disk.
        engine: What loads them.
        control_tokens_of: Reads a file's control tokens; may take a while.
        policy: What it does by itself about its memory.

    Attributes:
        models: As given.
        engine: As given.
        budget: The memory that loads may take.
    """

    def __init__(
        self,
        models: Models,
        engine: Engine,
        control_tokens_of: Callable[[ModelFile], Sequence[str]] = _none,
        policy: Policy | None = None,
    ) -> None:
        self.models = models
        self.engine = engine
        self._control_tokens_of = control_tokens_of
        self._policy = policy or Policy()
        self.budget = Budget(self._policy)
        self._instances: dict[str, Instance] = {}
        self._loads: dict[str, Load] = {}  # by identifier
        self._taken = ChainMap[str, Any](self._instances, self._loads)
        self._shared: dict[str, Load] = {}  # by path: loads of `get_or_load`
        self._tasks = Tasks()

    async def downloaded(self) -> list[ModelFile]:
        """All models on disk that can be loaded."""
        return await asyncio.to_thread(self.models.list)

    def loaded(self, domain: str) -> list[Instance]:
        """What is in memory, first loaded first."""
        return [i for i in self._instances.values() if i.domain == domain]

    def find(self, specifier: ModelSpecifier, domain: str) -> Instance:
        """The instance that is meant; of several the most recently used.

        Raises:
            Failure: Nothing fits.
        """
        reference = specifier.instance_reference
        if specifier.type in ("instanceReference", "sessionIdentifier") and reference:
            for instance in self.loaded(domain):
                if instance.reference == reference:
                    return instance
            raise instance_gone(reference)
        query = specifier.query
        if specifier.type != "query" or query is None:
            raise BadRequest(
                "The specifier has neither a query nor an instance reference"
            )
        names = [instance.identifier for instance in self.loaded(domain)]
        others = [
            instance
            for instance in self.loaded(domain)
            if query.domain in (None, domain)
            and query.path in (None, *_paths(instance.file))
            and query.vision in (None, instance.file.vision)
        ]
        wanted = query.identifier
        fits = [i for i in others if wanted in (None, i.identifier)]
        if not fits and wanted is not None:
            fits = [i for i in others if _is_default(i) and is_name(i.file, wanted)]
        if not fits:
            raise no_match(query, names)
        return max(fits, key=lambda instance: instance.order)

    async def load(
        self, name: str, domain: str, wanted: Wanted, identifier: str | None = None
    ) -> Load:
        """Begin to load a new instance.

        Args:
            name: What the user wrote: a key, a path, or part of one.
            identifier: The name to load it as; by default its key, or ``key:2``.

        Raises:
            EngineError: No such model, of the other kind, the identifier is taken, or
                a setting is wrong.
        """
        if identifier is not None:
            _check_name(identifier)
            _check_free(identifier, self._taken)
        file, candidates = await self._resolve(name, domain)
        draft = await _draft(self.models, file, wanted)
        if identifier is None:
            identifier = _free(file.key, self._taken)
        else:
            _check_free(identifier, self._taken)  # the disk was read meanwhile
        load = Load(file, candidates, identifier, wanted.owner)
        self._begin(load, wanted, load_settings(file, wanted.config, draft))
        return load

    async def get_or_load(
        self, name: str, domain: str, wanted: Wanted
    ) -> Instance | Load:
        """What fits the name in memory, or a load that simultaneous askers share.

        What else was loaded so and is idle is unloaded first, of either domain, unless
        the policy has it stay.

        Raises:
            EngineError: As `load`; or the file is broken, or too large even for the
                memory that the others leave.
        """
        instance = self._instances.get(name)
        if instance is not None and instance.domain == domain:
            return instance
        file, candidates = await self._resolve(name, domain)
        draft = await _draft(self.models, file, wanted)
        found = _there(file, self.loaded(domain), self._shared)
        if found is not None:
            return found
        settings = load_settings(file, wanted.config, draft)
        ready = await _prepare(file, settings, self._control_tokens_of)
        found = _there(
            file, self.loaded(domain), self._shared
        )  # others may have asked meanwhile
        if found is not None:
            return found
        load = Load(file, candidates, _free(file.key, self._taken))
        leaving = [
            other
            for other in self._instances.values()
            if self._policy.auto_evict and other.on_demand and not other.uses
        ]
        # Nothing is unloaded for a model that can't be loaded all the same.
        if not self.budget.claim(load, ready.made, leaving):
            refusal = self.budget.refusal
            raise await asyncio.to_thread(refusal, file, settings, ready.made, leaving)
        load.evicted = leaving
        self._begin(load, attrs.evolve(wanted, on_demand=True), settings, ready)
        self._shared[file.relative_path] = load
        return load

    async def estimate(
        self, name: str, domain: str, wanted: Wanted
    ) -> tuple[Estimate, bool]:
        """What a load would take, and whether it would be let pass.

        Raises:
            EngineError: As `load`.
        """
        file, _ = await self._resolve(name, domain)
        draft = await _draft(self.models, file, wanted)
        settings = load_settings(file, wanted.config, draft)
        made = await asyncio.to_thread(estimate, file, settings)
        return made, self.budget.fits(made)

    async def unload(self, identifier: str, domain: str) -> None:
        """Unload the instance of a name.

        Raises:
            Failure: Nothing is loaded under this name.
        """
        instance = self._instances.get(identifier)
        if instance is None or instance.domain != domain:
            names = [instance.identifier for instance in self.loaded(domain)]
            raise no_match(ModelQuery(identifier=identifier), names)
        await self._remove(instance)

    async def leave(self, load: Load) -> None:
        """One request gives up a load; the last one stops it and frees everything."""
        load.followers -= 1
        if load.followers > 0:
            return
        self._abandon(load)
        with suppress(EngineError):  # a load that had failed already
            await self._remove(await load.instance())  # it was quicker than the cancel

    @contextmanager
    def use(self, instance: Instance, status: str | None = None) -> Iterator[Use]:
        """Keep a model from expiring while a request runs on it."""
        use = Use(status)
        if instance.timer is not None:
            instance.timer.cancel()
        instance.uses.append(use)
        instance.touch()
        try:
            yield use
        finally:
            instance.uses.remove(use)
            instance.touch()
            self._arm(instance)

    def release(self, owner: Any) -> None:
        """A client is gone: unload what it owns, stop what is loaded for it."""
        for load in list(self._loads.values()):
            if load.owner is owner:
                self._abandon(load)
        for instance in list(self._instances.values()):
            if instance.owner is owner:
                log.info("unloading %s: its client is gone", instance.identifier)
                self._forget(instance)  # at once: the client may come back and load
                self._tasks.spawn(self._remove(instance))

    async def close(self) -> None:
        """Stop all loads and unload everything. Safe to repeat."""
        for load in list(self._loads.values()):
            load.task.cancel()
        for instance in list(self._instances.values()):
            self._tasks.spawn(self._remove(instance))
        await self._tasks.join()
        await self.engine.close()

    async def _resolve(
        self, name: str, domain: str
    ) -> tuple[ModelFile, list[ModelFile]]:
        _check_name(name)
        file, candidates = await asyncio.to_thread(self.models.find, name)
        fits = [candidate for candidate in candidates if domain_of(candidate) == domain]
        if domain_of(file) != domain:
            if not fits:
                raise wrong_domain(file, domain)
            file = fits[0]
        return file, fits if len(fits) > 1 else []

    def _begin(
        self,
        load: Load,
        wanted: Wanted,
        settings: LoadSettings,
        prepared: Ready | None = None,
    ) -> None:
        leaving = [self._tasks.spawn(self._remove(i)) for i in load.evicted]
        for other in load.evicted:
            log.info("unloading %s to make room", other.identifier)
            self._forget(other)

        async def run() -> Instance:
            await asyncio.gather(*leaving)
            read = self._control_tokens_of
            ready = prepared or await _prepare(load.file, settings, read)
            made = ready.made
            if not self.budget.claim(load, made):
                refusal = self.budget.refusal
                raise await asyncio.to_thread(refusal, load.file, settings, made)
            model = await self.engine.load(load.file, settings, load.report)
            if self._loads.get(load.identifier) is not load:
                await model.unload()  # quicker than the cancel; the name is another's
                raise asyncio.CancelledError
            load.report(1.0)
            instance = Instance(
                wanted, load.identifier, load.file, model, ready.tokens, settings
            )
            self._instances[load.identifier] = instance
            self.budget.keep(instance, made)
            model.on_exit(lambda: self._gone(instance))
            self._arm(instance)
            log.info("loaded %s", load.identifier)
            return instance

        def ended(task: asyncio.Task[Instance]) -> None:
            self._drop(load)
            self.budget.free(load)
            load.finished(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                log.info("loading %s failed: %s", load.file.key, error)

        load.followers = 1
        self._loads[load.identifier] = load
        load.task = self._tasks.spawn(run())
        load.task.add_done_callback(ended)

    def _abandon(self, load: Load) -> None:
        """Stop a load. It ends later, but nobody joins it, and its name is free."""
        self._drop(load)
        load.task.cancel()

    def _drop(self, load: Load) -> None:
        if self._loads.get(load.identifier) is load:
            del self._loads[load.identifier]
        if self._shared.get(load.file.relative_path) is load:
            del self._shared[load.file.relative_path]

    async def _remove(self, instance: Instance) -> None:
        """Unload; the name is free at once."""
        self._forget(instance)
        await instance.model.unload()
        log.info("unloaded %s", instance.identifier)

    def _gone(self, instance: Instance) -> None:
        """The engine says that a model is no more."""
        if self._instances.get(instance.identifier) is instance:
            log.warning("%s ended by itself", instance.identifier)
        self._forget(instance)

    def _forget(self, instance: Instance) -> None:
        if instance.timer is not None:
            instance.timer.cancel()
        self.budget.free(instance)
        if self._instances.get(instance.identifier) is instance:
            del self._instances[instance.identifier]

    def _arm(self, instance: Instance) -> None:
        """Start the time to live once nothing uses the model."""
        is_loaded = self._instances.get(instance.identifier) is instance
        if instance.ttl is None or instance.uses or not is_loaded:
            return

        def expire() -> None:
            log.info("unloading %s: idle for %s s", instance.identifier, instance.ttl)
            self._tasks.spawn(self._remove(instance))

        loop = asyncio.get_running_loop()
        instance.timer = loop.call_later(instance.ttl, expire)


async def _draft(models: Models, file: ModelFile, wanted: Wanted) -> ModelFile | None:
    """The model that is to propose tokens, if the settings name one."""
    key = draft_key(file, wanted.config)
    if key is None:
        return None
    draft, _ = await asyncio.to_thread(models.find, key)
    if draft.is_embedding:
        raise wrong_domain(draft, "llm")
    return draft


def _there(
    file: ModelFile, loaded: Sequence[Instance], shared: Mapping[str, Load]
) -> Instance | Load | None:
    """A file in memory, or a load of it that can be joined, which it then is."""
    path = file.relative_path
    fits = [instance for instance in loaded if instance.file.relative_path == path]
    if fits:
        return max(fits, key=lambda instance: instance.order)
    load = shared.get(path)
    if load is not None:
        load.followers += 1
    return load


async def _prepare(
    file: ModelFile,
    settings: LoadSettings,
    control_tokens_of: Callable[[ModelFile], Sequence[str]],
) -> Ready:
    """Read a file's head.

    Raises:
        EngineError: It is broken.
    """
    made = await asyncio.to_thread(estimate, file, settings)
    return Ready(made, await asyncio.to_thread(control_tokens_of, file))


def _check_free(identifier: str, taken: Container[str]) -> None:
    if identifier in taken:
        # Official test suites look for "already exists" in the first line, and the
        # official Python SDK has one line only when nothing but a title comes.
        raise Failure(
            f"A model with identifier {identifier!r} already exists: unload it first,"
            " or choose another identifier"
        )


def _free(key: str, taken: Container[str]) -> str:
    """The key, or ``key:2`` and so on when it is taken."""
    identifier, number = key, 1
    while identifier in taken:
        number += 1
        identifier = f"{key}:{number}"
    return identifier


def _is_default(instance: Instance) -> bool:
    """Whether nobody chose its identifier. Then it answers to any name of its model."""
    return instance.identifier.rpartition(":")[0] == instance.file.key or (
        instance.identifier == instance.file.key
    )


def _paths(file: ModelFile) -> tuple[str, str]:
    """What a query may give as a model's path: the file, or its repo."""
    return file.relative_path, file.relative_path.rpartition("/")[0]


def _check_name(name: str) -> None:
    """Refuse what no client may send as a key.

    Source: docs/wire/messages.md, "Sizes".
    """
    is_clean = name.isprintable() or all(ord(c) > 31 and ord(c) != 127 for c in name)
    if not 1 <= len(name) <= LONGEST_NAME or not is_clean or name == "__proto__":
        raise BadRequest(
            f"{name[:100]!r} can't be the name of a model",
            f"Names have 1 to {LONGEST_NAME} characters and no control characters",
        )
