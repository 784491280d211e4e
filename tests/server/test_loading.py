"""Load settings are read as every client writes them, and reported as all can read."""

from __future__ import annotations

import attrs
import pytest

from lmstudio.server.engine import BadRequest, LoadSettings
from lmstudio.server.loading import effective, load_settings
from lmstudio.testing.engine import scripted_model
from lmstudio.wire.common import KVConfig, KVField

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
