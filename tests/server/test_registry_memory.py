"""Models give way to others, and what does not fit the memory is refused."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from lmstudio.server import registry
from lmstudio.server.engine import BadRequest, EngineError
from lmstudio.server.instances import Wanted
from lmstudio.server.lookup import ModelNotOnDisk
from lmstudio.server.memory import Estimate, NotEnoughMemory
from lmstudio.testing.script import Await
from lmstudio.wire.common import KVConfig, KVField
from server.registries import on_a_bench


@on_a_bench
async def test_models_on_demand_give_way(bench):
    """A model that loads on demand unloads the idle others that did, of both kinds."""
    await bench.load("a", "kept")
    await bench.get("a")  # takes what is there
    embedder = await bench.registry.get_or_load("text-embed", "embedding", Wanted())
    assert [] == embedder.evicted
    embedding = await embedder.instance()
    load = await bench.registry.get_or_load("b", "llm", Wanted())
    assert ["text-embed"] == [other.identifier for other in load.evicted]
    assert [] == bench.names("embedding")  # its name is free at once
    await load.instance()
    assert ["kept", "b"] == bench.names()
    assert not embedding.model.is_loaded


@on_a_bench
async def test_busy_models_stay(bench):
    """What is in use gives way to nothing, and to the next once it is idle."""
    busy = await bench.get("a")
    with bench.registry.use(busy):
        await bench.get("b")
        assert ["a", "b"] == bench.names()
    await bench.registry.unload("b", "llm")
    await bench.get("b")
    assert ["b"] == bench.names()


@on_a_bench(auto_evict=False)
async def test_eviction_can_be_switched_off(bench):
    """Then models on demand stay beside each other."""
    await bench.get("a")
    await bench.get("b")
    assert ["a", "b"] == bench.names()


@on_a_bench
async def test_a_load_that_is_wrong_evicts_nothing(bench):
    """Settings are looked at before anything is unloaded."""
    await bench.get("a")
    wrong = KVConfig(fields=[KVField(key="llm.load.contextLength", value=0)])
    with pytest.raises(BadRequest):
        await bench.get("b", config=wrong)
    assert ["a"] == bench.names()


@on_a_bench
async def test_what_does_not_fit_is_refused(bench):
    """A model that is larger than the memory is not even begun."""
    bench.available = 999_999
    with pytest.raises(NotEnoughMemory) as caught:
        await bench.load("a")
    assert (1_000_000, 999_999) == (caught.value.needed, caught.value.available)
    assert [] == bench.names()
    bench.available = 1_000_000
    await bench.load("a")


@on_a_bench
async def test_loads_under_way_count(bench):
    """Two loads at a time don't both take the same memory."""
    bench.available = 1_500_000
    bench.scripts.add_load([0.5, gate := Await()])
    first = await bench.registry.load("a", "llm", Wanted())
    async with aclosing(first.follow()) as progress:
        await anext(progress)
    with pytest.raises(NotEnoughMemory, match=r"to load b"):
        await bench.load("b")
    gate.open()
    await first.instance()
    await bench.load("b")
    assert ["a", "b"] == bench.names()


@on_a_bench(guard=False)
async def test_the_guard_can_be_switched_off(bench):
    """Then everything is tried."""
    bench.available = 0
    await bench.load("a")
    _, passes = await bench.registry.estimate("a", "llm", Wanted())
    assert passes


@on_a_bench
async def test_estimates(bench):
    """What a load would take is told without loading it."""
    bench.available = 999_999
    made, passes = await bench.registry.estimate("a", "llm", Wanted())
    assert (1_000_000, False) == (made.certain, passes)
    with pytest.raises(ModelNotOnDisk):
        await bench.registry.estimate("c", "llm", Wanted())
    assert [] == bench.names()


@on_a_bench
async def test_what_can_not_fit_evicts_nothing(bench):
    """A model that is too large even for what others leave unloads none of them."""
    bench.available = 1_000_000
    await bench.get("a")
    bench.available = 900_000 - 1_000_000  # what is left once it is loaded
    with pytest.raises(NotEnoughMemory):
        await bench.get("b")
    assert ["a"] == bench.names()


@on_a_bench
async def test_what_leaves_counts_as_free(bench):
    """A model that fits once the others are gone is loaded in their place."""
    bench.available = 1_000_000
    first = await bench.get("a")
    bench.available = 0
    first.model.on_exit(lambda: setattr(bench, "available", 1_000_000))
    await bench.get("b")
    assert ["b"] == bench.names()


@on_a_bench
async def test_a_broken_file_evicts_nothing(bench, monkeypatch):
    """A file that can't be read fails before anything is unloaded."""

    def broken(file):
        raise EngineError(f"{file.key} is broken")

    await bench.get("a")
    monkeypatch.setattr(bench.registry, "_control_tokens_of", broken)
    with pytest.raises(EngineError, match="b is broken"):
        await bench.get("b")
    assert ["a"] == bench.names()


@on_a_bench
async def test_models_in_memory_count(bench, monkeypatch):
    """The mapped weights of what is loaded are taken, until it is unloaded."""

    def mapped(file, _):
        return Estimate(
            weights=10, cache=0, work=0, is_sure=True, mapped={file.path: 10}
        )

    monkeypatch.setattr(registry, "estimate", mapped)
    bench.available = 15
    await bench.load("a")
    with pytest.raises(NotEnoughMemory):
        await bench.load("b")
    await bench.registry.unload("a", "llm")
    await bench.load("b")
