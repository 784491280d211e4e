"""Load settings are read as every client writes them, and reported as all can read."""

from __future__ import annotations

import attrs
import pytest

from lmstudio.server import loading
from lmstudio.server.engine import BadRequest, Draft, GPUSplit, LoadSettings
from lmstudio.server.loading import (
    draft_key,
    effective,
    load_settings,
    own_settings,
)
from lmstudio.testing.engine import scripted_model
from lmstudio.wire.common import KVConfig, KVField
from lmstudio.wire.config import EMBEDDING_LOAD, LOAD

LLM = scripted_model("any")
EMBEDDER = scripted_model("text-embed")


def config(**values):
    """A configuration; ``__`` stands for a dot."""
    return KVConfig(
        fields=[KVField(key=k.replace("__", "."), value=v) for k, v in values.items()]
    )


def test_defaults():
    """Without settings the context is 4096, or what the model was trained for."""
    assert LoadSettings(context_length=4096) == load_settings(LLM, KVConfig())
    small = scripted_model("any")
    object.__setattr__(small, "max_context_length", 512)
    assert LoadSettings(context_length=512) == load_settings(small, KVConfig())


def test_all_settings():
    """Every setting that the engine knows reaches it."""
    given = config(
        llm__load__contextLength=2048.0,
        llm__load__numParallelSessions=2,
        llm__load__seed={"checked": True, "value": 7},
        llm__load__llama__acceleration__offloadRatio=0.5,
        llm__load__llama__evalBatchSize=64,
        llm__load__llama__flashAttention=True,
        llm__load__llama__ropeFrequencyBase={"checked": True, "value": 10000},
        llm__load__llama__ropeFrequencyScale={"checked": True, "value": 0.5},
        llm__load__llama__kCacheQuantizationType={"checked": True, "value": "q8_0"},
        llm__load__llama__vCacheQuantizationType={"checked": True, "value": "f16"},
        llm__load__llama__tryMmap=False,
        llm__load__llama__keepModelInMemory=True,
        llm__load__numExperts=2,
        load__gpuSplitConfig={"strategy": "evenly"},
        unknown=1,
    )
    assert LoadSettings(
        context_length=2048,
        parallel=2,
        gpu_ratio=0.5,
        batch_size=64,
        seed=7,
        flash_attention=True,
        rope_base=10000,
        rope_scale=0.5,
        k_cache_type="q8_0",
        v_cache_type="f16",
        mmap=False,
        lock_memory=True,
    ) == load_settings(LLM, given)


@pytest.mark.parametrize(
    ("ratio", "expected"), [("max", 1.0), ("off", 0.0), (0, 0), (None, None)]
)
def test_gpu_ratio(ratio, expected):
    """The words for all and nothing become shares."""
    given = config(llm__load__llama__acceleration__offloadRatio=ratio)
    assert expected == load_settings(LLM, given).gpu_ratio


@pytest.mark.parametrize(
    "value",
    [
        {"checked": False, "value": 5},
        {"checked": True, "value": False},
        {"checked": True, "value": -1},
        False,
        None,
    ],
)
def test_off(value):
    """Each way to write off leaves the choice to the engine."""
    assert load_settings(LLM, config(llm__load__seed=value)).seed is None


def test_embedding_models_have_keys_of_their_own():
    """An embedding model reads its own keys only."""
    given = config(embedding__load__contextLength=256, llm__load__contextLength=512)
    assert 256 == load_settings(EMBEDDER, given).context_length
    assert 512 == load_settings(LLM, given).context_length


@pytest.mark.parametrize(
    ("longest", "embeds", "expected"),
    [(8192, False, 4096), (8192, True, 2048), (512, True, 512), (512, False, 512)],
)
def test_the_context_when_nobody_says(longest, embeds, expected):
    """It is the usual one of the kind, and no longer than the model's."""
    file = attrs.evolve(LLM, max_context_length=longest, is_embedding=embeds)
    assert expected == load_settings(file, KVConfig()).context_length


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("llm__load__contextLength", "x", "context_length must be a whole number"),
        ("llm__load__contextLength", True, "context_length must be a whole number"),
        ("llm__load__contextLength", 10**30, "context_length must be a whole"),
        ("llm__load__contextLength", 8193, "at most 8192 for any, not 8193"),
        ("llm__load__seed", 2**32, "seed must be at most 4294967295, not 4294967296"),
        ("llm__load__llama__ropeFrequencyBase", 1e13, "rope_frequency_base must be at"),
        ("llm__load__numParallelSessions", 2000, "max_parallel_predictions must be"),
        ("llm__load__numParallelSessions", 257, "must be at most 256, not 257"),
        ("llm__load__numParallelSessions", 129, "eval_batch_size must be at least 129"),
        ("llm__load__contextLength", 3, "context_length must be at least 4, which is"),
        ("llm__load__llama__evalBatchSize", 3, "eval_batch_size must be at least 4"),
        ("llm__load__llama__kCacheQuantizationType", "q9", "must be one of 'f32'"),
        ("llm__load__llama__acceleration__offloadRatio", 2, "gpu_ratio must be"),
    ],
)
def test_wrong_values(key, value, problem):
    """A value out of range names the option and what would be right."""
    with pytest.raises(BadRequest, match=problem):
        load_settings(LLM, config(**{key: value}))


def test_stretched_context():
    """With RoPE settings a context may be longer than the model was trained for."""
    scale = {"llm__load__llama__ropeFrequencyScale": 0.5}
    given = config(llm__load__contextLength=16384, **scale)
    assert 16384 == load_settings(LLM, given).context_length
    with pytest.raises(BadRequest, match="at most 2147483647 for any"):
        load_settings(LLM, config(llm__load__contextLength=2**31, **scale))


def test_what_clients_read_back():
    """The real context comes first, off is off, and the rest is as it was sent."""
    given = config(
        llm__load__seed={"checked": True, "value": False},
        llm__load__contextLength=4096,
        llm__load__llama__tryMmap=True,
        unknown=[1],
    )
    assert config(
        llm__load__contextLength=2048,
        llm__load__seed={"checked": False, "value": 0},
        llm__load__llama__tryMmap=True,
        unknown=[1],
    ) == effective(LLM, given, 2048)
    context = config(embedding__load__contextLength=64)
    assert context == effective(EMBEDDER, KVConfig(), 64)


@pytest.mark.parametrize("table", [LOAD, EMBEDDING_LOAD], ids=["llm", "embedding"])
def test_each_setting_is_used_or_ignored_for_a_reason(table):
    """Of every setting of the protocol it is decided what becomes of it."""
    for row in table.settings:
        places = (loading._USED, loading._READ, loading.IGNORED)
        assert 1 == sum(row.name in place for place in places), row.name
    fields = {field.name for field in attrs.fields(LoadSettings)}
    assert fields - {"gpus", "draft"} == set(loading._USED.values())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llm.load.llama.autoFit", True),
        ("llm.load.numExperts", 2),
        ("llm.load.numCpuExpertLayersRatio", 0.5),
        ("llm.load.llama.speculativeDecoding.draftMtp", True),
        ("llm.load.llama.argumentsOverride", {"enabled": True}),
        ("llm.load.mlx.diskCache", True),
        ("envVars", {"A": "b"}),
    ],
)
def test_why_a_setting_is_ignored_is_logged(caplog, key, value):
    """The log says which and why, and nothing of what is off anyway."""
    off = {dict: {"enabled": False}, float: "off", int: 0, bool: False}[type(value)]
    name = LOAD.by_key(key).name
    with caplog.at_level("INFO", "lmstudio.server.loading"):
        fields = [KVField(key=key, value=off)]
        assert plain(load_settings(LLM, KVConfig(fields=fields)))
        assert "" == caplog.text
        fields = [KVField(key=key, value=value)]
        assert plain(load_settings(LLM, KVConfig(fields=fields)))
    assert f"{name} is ignored: {loading.IGNORED[name]}" in caplog.text


def plain(settings):
    """Whether nothing was asked for."""
    return settings == LoadSettings(context_length=4096)


def test_more_settings():
    """The settings of newer clients reach the engine too."""
    given = config(
        llm__load__llama__cpuThreadPoolSize=3,
        llm__load__llama__physicalBatchSize=32,
        llm__load__useUnifiedKvCache=False,
        llm__load__offloadKVCacheToGpu=False,
        llm__load__llama__tryDirectIO=True,
        llm__load__llama__contextCheckpoints=4,
        llm__load__llama__useFp16ForKVCache=False,
        llm__load__llama__vCacheQuantizationType={"checked": True, "value": "q8_0"},
    )
    assert LoadSettings(
        threads=3,
        physical_batch_size=32,
        unified_cache=False,
        cache_on_gpu=False,
        direct_io=True,
        checkpoints=4,
        k_cache_type="f32",
        v_cache_type="q8_0",
    ) == load_settings(LLM, given)


def split(strategy, *, disabled=(), priority=(), ratio=()):
    """What becomes of a setting of the GPUs."""
    value = {
        "strategy": strategy,
        "disabledGpus": list(disabled),
        "priority": list(priority),
        "customRatio": list(ratio),
    }
    return load_settings(LLM, config(load__gpuSplitConfig=value)).gpus


def test_gpus():
    """Which GPUs take how much is said as clients say it."""
    assert split("evenly") is None
    assert GPUSplit(main=1) == split("evenly", priority=[1])
    assert GPUSplit(mode="none", main=2) == split("priorityOrder", priority=[2, 0])
    assert split("priorityOrder") is None
    assert GPUSplit(mode="tensor") == split("tensor")
    assert GPUSplit(shares=(0.25, 0.75)) == split("custom", ratio=[0.25, 0.75])
    rest = (1.0,) * (loading.MOST_GPUS - 2)
    assert GPUSplit(main=1, shares=(0.0, 1.0, *rest)) == split(
        "evenly", disabled=[0], priority=[0, 1]
    )


SIMPLE = {"llm__load__llama__speculativeDecoding__draftSimple": True}
NAMED = {"llm__load__llama__speculativeDecoding__draftModel": "small"}


def test_draft():
    """A draft model is named by its key, and comes with its limits."""
    assert "small" == draft_key(LLM, config(**SIMPLE, **NAMED))
    for nothing in ({}, NAMED):
        assert draft_key(LLM, config(**nothing)) is None
    with pytest.raises(BadRequest, match="needs speculative_draft_model"):
        draft_key(LLM, config(**SIMPLE))
    limits = {
        "llm__load__llama__speculativeDecoding__draftMaxTokens": 5,
        "llm__load__llama__speculativeDecoding__draftMinTokens": 2,
        "llm__load__llama__speculativeDecoding__draftMinContinueProbability": 0.5,
    }
    expected = Draft(file=EMBEDDER, max_tokens=5, min_tokens=2, min_probability=0.5)
    given = config(**SIMPLE, **NAMED, **limits)
    assert expected == load_settings(LLM, given, EMBEDDER).draft


def test_template():
    """A template of the load is one of all predictions, unless they have their own."""
    template = {"type": "jinja", "jinjaPromptTemplate": {"template": "x"}}
    (field,) = own_settings(LLM, config(llm__load__promptTemplate=template))
    assert "llm.prediction.promptTemplate" == field.key
    assert {"stopStrings": [], **template} == field.value
    assert [] == own_settings(LLM, KVConfig())
