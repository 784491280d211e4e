"""Twins: who gets one, and when it goes."""

from __future__ import annotations

import asyncio

import pytest

from lmstudio.server.engine import BadRequest, Unloaded
from lmstudio.server.failures import Failure
from lmstudio.server.lookup import ModelNotOnDisk
from lmstudio.server.memory import NotEnoughMemory
from lmstudio.server.twins import Twins
from lmstudio.testing.script import Await
from lmstudio.wire.common import KVConfig, KVField
from server.registries import on_a_bench

SPECULATIVE = "llm.load.llama.speculativeDecoding."


def drafting(key):
    """The settings of a load with a draft model."""
    values = {"draftSimple": True, "draftModel": key}
    return KVConfig(
        fields=[KVField(key=SPECULATIVE + k, value=v) for k, v in values.items()]
    )


@on_a_bench
async def test_a_twin_is_made_once(bench):
    """Predictions share it; it has the settings of the model, and the draft model."""
    one = await bench.load("a")
    twins = Twins(bench.registry)
    async with twins.drafting(one, "b") as first, twins.drafting(one, "b") as second:
        assert first.model is second.model is not one.model
        assert "b" == first.draft_key
        assert None is one.draft_key
        assert (one.identifier, one.file) == (first.identifier, first.file)
    async with twins.drafting(one, "b") as third:
        assert first.model is third.model
    files = [file.key for file, _ in bench.engine.loads]
    assert ["a", "a"] == files
    (_, own), (_, of_twin) = bench.engine.loads
    assert "b" == of_twin.draft.file.key
    assert own.context_length == of_twin.context_length
    assert ["a"] == bench.names()
    await twins.close()
    assert not first.model.is_loaded
    assert one.model.is_loaded


@on_a_bench
async def test_a_model_that_drafts_itself_needs_none(bench):
    """Loaded with that draft model, the model itself runs the prediction."""
    one = await bench.load("a", config=drafting("b"))
    twins = Twins(bench.registry)
    async with twins.drafting(one, "b") as working:
        assert one is working
    assert "b" == one.draft_key
    async with twins.drafting(one, "a") as working:
        assert "a" == working.draft_key
    await twins.close()


@on_a_bench
async def test_an_idle_twin_goes(bench):
    """After its time, and not while a prediction has it."""
    one = await bench.load("a")
    twins = Twins(bench.registry, ttl=0)
    gone = asyncio.Event()
    async with twins.drafting(one, "b") as first:
        first.model.on_exit(gone.set)
        async with twins.drafting(one, "b"):
            pass
        await asyncio.sleep(0)  # a timer would be due by now
        assert first.model.is_loaded
    await gone.wait()
    async with twins.drafting(one, "b") as second:
        assert first.model is not second.model
    await twins.close()


@on_a_bench
async def test_it_goes_with_its_model(bench):
    """Unloading the model unloads the twin, also one that is loading."""
    one = await bench.load("a")
    twins = Twins(bench.registry)
    gone, waits = asyncio.Event(), Await()
    async with twins.drafting(one, "b") as first:
        first.model.on_exit(gone.set)
        bench.scripts.add_load([waits])
        pending = asyncio.create_task(_use(twins, one, "a"))
        while len(bench.engine.loads) < 3:
            await asyncio.sleep(0)
        await bench.registry.unload("a", "llm")
        await gone.wait()
        with pytest.raises(Unloaded):
            await pending
    await twins.close()


async def _use(twins, instance, name):
    async with twins.drafting(instance, name):
        pass


@on_a_bench
async def test_what_can_not_be_loaded(bench):
    """The error is the prediction's, and the next one tries again."""
    one = await bench.load("a")
    twins = Twins(bench.registry)
    for name, expected in (("c", ModelNotOnDisk), ("text-embed", Failure)):
        with pytest.raises(expected):
            await _use(twins, one, name)
    bench.scripts.add_load([BadRequest("another vocabulary")])
    with pytest.raises(BadRequest):
        await _use(twins, one, "b")
    bench.available = 0
    with pytest.raises(NotEnoughMemory):
        await _use(twins, one, "b")
    bench.available = None
    await _use(twins, one, "b")
    await twins.close()


@on_a_bench
async def test_a_cancelled_prediction_leaves_the_load(bench):
    """The load goes on for the next prediction."""
    one = await bench.load("a")
    twins = Twins(bench.registry)
    waits = Await()
    bench.scripts.add_load([waits])
    first = asyncio.create_task(_use(twins, one, "b"))
    while len(bench.engine.loads) < 2:
        await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    waits.open()
    await _use(twins, one, "b")
    assert 2 == len(bench.engine.loads)
    await twins.close()
