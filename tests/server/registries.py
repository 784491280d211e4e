"""A registry on scripted models, for the tests of what it does."""

from __future__ import annotations

import asyncio
import functools
import inspect

from lmstudio.server.instances import Instance, Wanted
from lmstudio.server.memory import Policy
from lmstudio.server.registry import Registry
from lmstudio.testing.engine import (
    ScriptedEngine,
    ScriptedModels,
    Scripts,
    scripted_model,
)
from lmstudio.wire.common import ModelQuery, ModelSpecifier


class Bench:
    """A registry on scripted models, and short ways to use it.

    Attributes:
        available: Bytes of memory that there are; None for unknown.
    """

    def __init__(self, **policy):
        self.scripts = Scripts()
        self.engine = ScriptedEngine(self.scripts)
        self.available = None
        keys = ("a", "b", "text-embed")
        models = ScriptedModels([scripted_model(key) for key in keys])
        policy = Policy(available=self._left, **policy)
        self.registry = Registry(models, self.engine, policy=policy)

    def _left(self, mapped):
        return None if self.available is None else self.available - mapped

    async def load(self, key, identifier=None, domain="llm", **wanted):
        load = await self.registry.load(key, domain, Wanted(**wanted), identifier)
        return await load.instance()

    async def get(self, name, **wanted):
        found = await self.registry.get_or_load(name, "llm", Wanted(**wanted))
        return found if isinstance(found, Instance) else await found.instance()

    def find(self, **conditions):
        specifier = ModelSpecifier(query=ModelQuery(**conditions))
        return self.registry.find(specifier, "llm")

    def names(self, domain="llm"):
        return [instance.identifier for instance in self.registry.loaded(domain)]


def on_a_bench(test=None, **policy):
    """Run a coroutine function with a bench, and close the registry after it."""
    if test is None:
        return functools.partial(on_a_bench, **policy)

    @functools.wraps(test)
    def run(**arguments):
        async def main():
            bench = Bench(**policy)
            try:
                await asyncio.wait_for(test(bench, **arguments), 10)
            finally:
                await bench.registry.close()
            assert [] == bench.names() + bench.names("embedding")

        asyncio.run(main())

    # pytest looks at the names of the parameters, and `bench` is none of its own.
    signature = inspect.signature(test)
    rest = [p for name, p in signature.parameters.items() if name != "bench"]
    run.__signature__ = signature.replace(parameters=rest)
    return run
