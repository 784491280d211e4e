"""Loaded models have one name each, are shared, and go when they should."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import attrs
import pytest

from lmstudio.server.engine import BadRequest, EngineError, LoadFailed
from lmstudio.server.failures import Failure
from lmstudio.server.instances import Wanted
from lmstudio.server.lookup import ModelNotOnDisk
from lmstudio.testing.engine import (
    ScriptedModels,
    scripted_model,
)
from lmstudio.testing.script import NEVER, Await
from lmstudio.wire.common import KVConfig, KVField, ModelSpecifier
from server.registries import on_a_bench


@on_a_bench
async def test_names_of_their_own(bench):
    """Instances of one model are called after its key, and numbered from 2."""
    for _ in range(3):
        await bench.load("a")
    assert ["a", "a:2", "a:3"] == bench.names()
    await bench.registry.unload("a:2", "llm")
    await bench.load("a")
    assert ["a", "a:3", "a:2"] == bench.names()
    references = {instance.reference for instance in bench.registry.loaded("llm")}
    assert 3 == len(references)


@on_a_bench
async def test_a_name_is_used_once(bench):
    """An identifier that is loaded, or being loaded, is refused for a second."""
    bench.scripts.add_load([gate := Await()])
    first = await bench.registry.load("a", "llm", Wanted(), "mine")
    with pytest.raises(Failure, match="already exists"):
        await bench.registry.load("b", "llm", Wanted(), "mine")
    gate.open()
    await first.instance()
    with pytest.raises(Failure, match="already exists"):
        await bench.registry.load("b", "llm", Wanted(), "mine")
    assert ["mine"] == bench.names()


@on_a_bench
async def test_a_name_that_loads_counts_as_taken(bench):
    """Two loads of one key at a time get two names."""
    bench.scripts.add_load([gate := Await()])
    loads = [await bench.registry.load("a", "llm", Wanted()) for _ in range(2)]
    assert ["a", "a:2"] == [load.identifier for load in loads]
    gate.open()
    for load in loads:
        await load.instance()


@pytest.mark.parametrize("name", ["", "x" * 1025, "a\nb", "__proto__", "\x7f"])
@on_a_bench
async def test_impossible_names_are_refused(bench, name):
    """What clients may not use as a name is refused as key and as identifier."""
    with pytest.raises(BadRequest):
        await bench.registry.load(name, "llm", Wanted())
    with pytest.raises(BadRequest):
        await bench.registry.load("a", "llm", Wanted(), name)


@on_a_bench
async def test_the_most_recently_used_answers(bench):
    """Of several that fit a query the last used is meant; the first before any use."""
    first, second = await bench.load("a"), await bench.load("b")
    assert first is bench.find()
    with bench.registry.use(second):
        pass
    assert second is bench.find()
    with bench.registry.use(first):
        pass
    assert first is bench.find()
    assert first.last_used is not None


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"identifier": "x"}, "x"),
        ({"identifier": "testing/A"}, "a"),
        ({"identifier": "a@q4_k_m"}, "a"),
        ({"path": "testing/b-GGUF"}, "x"),
        ({"path": "testing/b-GGUF/b-Q4_K_M.gguf"}, "x"),
        ({"domain": "llm", "path": "testing/a-GGUF"}, "a"),
        ({"vision": False}, "a"),
        ({"vision": True}, None),
        ({"identifier": "b"}, None),
        ({"identifier": "testing/b-GGUF"}, None),
        ({"path": "testing/b"}, None),
        ({"domain": "embedding"}, None),
        ({"identifier": "x", "path": "testing/a-GGUF"}, None),
    ],
)
@on_a_bench
async def test_queries(bench, conditions, expected):
    """All conditions of a query hold for what it finds.

    Under its default name a model also answers to the other names it has.
    """
    await bench.load("a")
    await bench.load("b", "x")
    if expected is not None:
        assert expected == bench.find(**conditions).identifier
        return
    with pytest.raises(Failure) as caught:
        bench.find(**conditions)
    assert {
        "code": "generic.noModelMatchingQuery",
        "query": conditions,
        "loadedModelsSample": ["a", "x"],
        "totalLoadedModels": 2,
    } == caught.value.display


@on_a_bench
async def test_a_reference_means_one_load(bench):
    """An instance reference finds its instance until that is unloaded."""
    instance = await bench.load("a")
    for kind in ("instanceReference", "sessionIdentifier"):
        specifier = ModelSpecifier(type=kind, instance_reference=instance.reference)
        assert instance is bench.registry.find(specifier, "llm")
    await bench.registry.unload("a", "llm")
    await bench.load("a")
    with pytest.raises(Failure) as caught:
        bench.registry.find(specifier, "llm")
    assert {"code": "generic.specificModelUnloaded"} == caught.value.display


@pytest.mark.parametrize("kind", ["query", "instanceReference", "nonsense"])
@on_a_bench
async def test_a_specifier_without_its_field(bench, kind):
    """A specifier that names nothing is refused."""
    with pytest.raises(BadRequest):
        bench.registry.find(ModelSpecifier(type=kind), "llm")


@on_a_bench
async def test_get_or_load_takes_what_is_there(bench):
    """An identifier, a key and a path find the loaded instance; nothing is loaded."""
    instance = await bench.load("a", "mine")
    for name in ("mine", "a", "a@q4_k_m", "testing/a-GGUF"):
        assert instance is await bench.get(name)
    assert 1 == len(bench.engine.loads)
    assert instance is not await bench.get("b")


@on_a_bench
async def test_askers_share_a_load(bench):
    """Clients that ask for one model at a time get one instance, loaded once."""
    bench.scripts.add_load([gate := Await()])
    askers = [asyncio.create_task(bench.get(name)) for name in ("a", "A", "a", "a")]
    while not gate.reached.is_set():
        await asyncio.sleep(0)
    gate.open()
    instances = set(await asyncio.gather(*askers))
    assert 1 == len(instances) == len(bench.engine.loads)
    assert ["a"] == bench.names()


@on_a_bench
async def test_a_shared_load_goes_on_for_the_others(bench):
    """One asker's cancel is its own affair; the last one's stops the load."""
    bench.scripts.add_load([gate := Await()])
    loads = [await bench.registry.get_or_load("a", "llm", Wanted()) for _ in range(2)]
    assert loads[0] is loads[1]
    await bench.registry.leave(loads[0])
    gate.open()
    assert "a" == (await loads[1].instance()).identifier

    bench.scripts.add_load([held := Await()])
    load = await bench.registry.get_or_load("b", "llm", Wanted())
    while not held.reached.is_set():
        await asyncio.sleep(0)
    await bench.registry.leave(load)
    with pytest.raises(Failure, match="Loading b was cancelled"):
        await load.instance()
    assert "b" == (await bench.get("b")).identifier


def slow_to_stop(engine, monkeypatch):
    """Make the engine's next load take its time to end when it is cancelled."""
    began, may_end = asyncio.Event(), asyncio.Event()
    load = engine.load

    async def slow(*arguments):
        monkeypatch.setattr(engine, "load", load)
        try:
            began.set()
            await asyncio.Event().wait()
        finally:
            await may_end.wait()

    monkeypatch.setattr(engine, "load", slow)
    return began, may_end


@on_a_bench
async def test_nobody_joins_a_load_that_is_being_stopped(bench, monkeypatch):
    """While a load ends after its cancel, its model and its name are free."""
    began, may_end = slow_to_stop(bench.engine, monkeypatch)
    given_up = await bench.registry.get_or_load("a", "llm", Wanted())
    await began.wait()
    leaving = asyncio.create_task(bench.registry.leave(given_up))
    await asyncio.sleep(0)
    assert "a" == (await bench.get("a")).identifier
    assert not leaving.done()
    may_end.set()
    await leaving
    assert ["a"] == bench.names()
    assert (await bench.get("a")) is bench.find(identifier="a")


@on_a_bench
async def test_the_name_of_a_released_load_is_free(bench, monkeypatch):
    """A client that is gone and comes back can load under the same name at once."""
    began, may_end = slow_to_stop(bench.engine, monkeypatch)
    owner = object()
    load = await bench.registry.load("a", "llm", Wanted(owner=owner), "mine")
    await began.wait()
    bench.registry.release(owner)
    assert "mine" == (await bench.load("b", "mine")).identifier
    may_end.set()
    with pytest.raises(Failure, match="cancelled"):
        await load.instance()
    assert "b" == bench.find(identifier="mine").file.key


@on_a_bench
async def test_a_model_that_came_in_spite_of_the_cancel(bench, monkeypatch):
    """An engine that finishes a cancelled load leaves nothing in memory."""
    began, load, models = asyncio.Event(), bench.engine.load, []

    async def deaf(*arguments):
        models.append(await load(*arguments))
        began.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return models[0]

    monkeypatch.setattr(bench.engine, "load", deaf)
    owner = object()
    given_up = await bench.registry.load("a", "llm", Wanted(owner=owner))
    await began.wait()
    bench.registry.release(owner)
    with pytest.raises(Failure, match="cancelled"):
        await given_up.instance()
    assert [] == bench.names()
    assert not models[0].is_loaded


@on_a_bench
async def test_a_cancel_that_comes_too_late_unloads(bench):
    """A load that was quicker than its cancel leaves nothing loaded behind."""
    load = await bench.registry.load("a", "llm", Wanted())
    await load.instance()
    await bench.registry.leave(load)
    assert [] == bench.names()


@on_a_bench
async def test_progress(bench):
    """Followers see all progress, and late ones begin with the last."""
    gate = Await()
    bench.scripts.add_load([0.0, 0.25, 0.2, 0.5, gate, 0.75])
    load = await bench.registry.load("a", "llm", Wanted())

    async def follow():
        return [progress async for progress in load.follow()]

    early = asyncio.create_task(follow())
    while not gate.reached.is_set():
        await asyncio.sleep(0)
    late = asyncio.create_task(follow())
    await asyncio.sleep(0)
    gate.open()
    assert [0.0, 0.25, 0.5, 0.75, 1.0] == await early
    assert [0.5, 0.75, 1.0] == await late


@on_a_bench
async def test_silence_is_broken(bench):
    """A load that says nothing for long repeats its progress."""
    gate = Await()
    bench.scripts.add_load([0.5, gate])
    load = await bench.registry.load("a", "llm", Wanted())
    seen = []
    async for progress in load.follow(silence=0.01):
        seen.append(progress)
        if len(seen) == 3:
            gate.open()
    assert [0.5] * 3 == seen[:3]
    assert 1.0 == seen[-1]


@on_a_bench
async def test_a_failed_load_leaves_nothing(bench):
    """A failure reaches who asked, and the name is free again."""
    bench.scripts.add_load([LoadFailed("no")])
    with pytest.raises(LoadFailed, match="no"):
        await bench.load("a")
    assert "a" == (await bench.load("a")).identifier


@on_a_bench
async def test_wrong_settings_are_refused_before_the_load(bench):
    """A value out of range is an error that names the option; nothing loads."""
    field = KVField(key="llm.load.contextLength", value=0)
    with pytest.raises(BadRequest, match="context_length must be a whole number"):
        await bench.load("a", config=KVConfig(fields=[field]))
    assert [] == bench.engine.loads
    assert "a" == (await bench.load("a")).identifier


@on_a_bench
async def test_models_that_are_not_there(bench):
    """An unknown key, and a model of the other kind, are errors of their own."""
    with pytest.raises(ModelNotOnDisk):
        await bench.load("nonsense")
    with pytest.raises(Failure) as caught:
        await bench.load("text-embed")
    assert {
        "code": "generic.domainMismatch",
        "path": "testing/text-embed-GGUF/text-embed-Q4_K_M.gguf",
        "actualDomain": "embedding",
        "expectedDomain": "llm",
    } == caught.value.display
    await bench.load("text-embed", domain="embedding")
    assert ["text-embed"] == bench.names("embedding")
    assert [] == bench.names("llm")


@on_a_bench
async def test_a_name_that_fits_both_kinds(bench):
    """Of several files that a name fits those of the right kind count."""
    embedder = scripted_model("text-embed")
    path = "testing/a-GGUF/embed.gguf"
    both = [attrs.evolve(embedder, relative_path=path), scripted_model("a")]
    bench.registry.models = ScriptedModels(both)
    load = await bench.registry.load("testing/a-GGUF", "llm", Wanted())
    assert "a" == load.file.key
    assert [] == load.candidates
    await load.instance()


@on_a_bench
async def test_idle_models_expire(bench):
    """A model with a time to live goes when nobody has used it for so long."""
    instance = await bench.load("a", ttl=0.01)
    gone = asyncio.Event()
    instance.model.on_exit(gone.set)
    await gone.wait()
    assert [] == bench.names()


@on_a_bench
async def test_a_use_starts_the_time_to_live_again(bench):
    """While a request runs a model can't expire; its end starts the time anew."""
    instance = await bench.load("a", ttl=100.0)
    before = instance.timer
    with bench.registry.use(instance), bench.registry.use(instance):
        assert before.cancelled()
    assert not instance.timer.cancelled()
    assert instance.timer.when() > before.when()
    other = await bench.load("b")
    with bench.registry.use(other):
        pass
    assert other.timer is None


@on_a_bench
async def test_status(bench):
    """The state of an instance is that of the requests that run on it."""
    instance = await bench.load("a")
    use = bench.registry.use
    assert ("idle", 0) == instance.status
    with use(instance), use(instance, "processingPrompt") as prompt:
        assert ("processingPrompt", 1) == instance.status
        with use(instance, "processingPrompt"):
            prompt.status = "generating"
            assert ("generating", 2) == instance.status
    assert ("idle", 0) == instance.status


@on_a_bench
async def test_a_crash_removes_the_model(bench, caplog):
    """A model that ended by itself is no longer listed, and its name is free."""
    instance = await bench.load("a", ttl=100.0)
    await instance.model.unload()  # what a crash looks like from here
    assert [] == bench.names()
    assert ["a ended by itself"] == caplog.messages
    assert instance.timer.cancelled()
    again = await bench.load("a")
    assert "a" == again.identifier


@on_a_bench
async def test_a_client_takes_its_models_along(bench):
    """A released client's models are unloaded and its loads stopped, no others."""
    owner, other = object(), object()
    await bench.load("a", "mine", owner=owner)
    await bench.load("a", "theirs", owner=other)
    await bench.load("a", "nobody's")
    bench.scripts.add_load([NEVER])
    load = await bench.registry.load("b", "llm", Wanted(owner=owner))
    bench.registry.release(owner)
    with pytest.raises(Failure, match="cancelled"):
        await load.instance()
    assert ["theirs", "nobody's"] == bench.names()


@on_a_bench
async def test_unloading_what_is_not_there(bench):
    """An unknown identifier is an error that lists what is loaded."""
    await bench.load("a")
    with pytest.raises(Failure) as caught:
        await bench.registry.unload("b", "llm")
    assert "generic.noModelMatchingQuery" == caught.value.display["code"]
    assert ["a"] == caught.value.display["loadedModelsSample"]
    with pytest.raises(Failure):
        await bench.registry.unload("a", "embedding")
    with pytest.raises(Failure, match="'testing/a'"):  # a name is not enough for this
        await bench.registry.unload("testing/a", "llm")


@on_a_bench
async def test_closing_stops_loads(bench):
    """Closing ends running loads as well; it may be repeated."""
    await bench.load("a")
    bench.scripts.add_load([NEVER])
    load = await bench.registry.load("b", "llm", Wanted())
    await bench.registry.close()
    with pytest.raises(EngineError):
        await load.instance()
    await bench.registry.close()


@on_a_bench
async def test_draft_models(bench):
    """A draft model is found by its key, and has to be a text model."""
    speculative = "llm.load.llama.speculativeDecoding."

    def config(key):
        values = {"draftSimple": True, "draftModel": key}
        fields = [KVField(key=speculative + k, value=v) for k, v in values.items()]
        return KVConfig(fields=fields)

    await bench.load("a", config=config("b"))
    await bench.get("b", config=config("a@q4_k_m"))
    for name, expected in (("c", ModelNotOnDisk), ("text-embed", Failure)):
        with pytest.raises(expected):
            await bench.load("a", config=config(name))
        with pytest.raises(expected):
            await bench.registry.estimate("a", "llm", Wanted(config=config(name)))
    assert ["a", "b"] == bench.names()


@on_a_bench
async def test_a_template_of_the_load(bench):
    """A template given at load is one of all predictions with the model."""
    template = {"type": "jinja", "jinjaPromptTemplate": {"template": "x"}}
    field = KVField(key="llm.load.promptTemplate", value=template)
    instance = await bench.load("a", config=KVConfig(fields=[field]))
    keys = [field.key for field in instance.operation.fields]
    assert ["llm.prediction.promptTemplate"] == keys
