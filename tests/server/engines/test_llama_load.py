"""A load is asked for, reported and explained."""

from __future__ import annotations

import asyncio
import json
import os
import sys

import attrs
import pytest

from lmstudio.server.engine import Draft, GPUSplit, LoadFailed, LoadSettings
from lmstudio.server.engines import llama_child
from lmstudio.server.engines.llama_load import (
    CACHE_MIB,
    Loading,
    check_file,
    child_config,
    hidden_folders,
    load_progress,
    usable_cores,
)
from server.engines.helpers import model


def config(tmp_path, settings=None, **fields):
    file = model(tmp_path / "m.gguf", **fields)
    return child_config(file, settings or LoadSettings(), "the key")


def test_folders_that_clients_are_not_told(tmp_path):
    """They see a model's path below the folder of the models, and no other folder."""
    path = tmp_path / "models" / "p" / "r" / "m.gguf"
    path.parent.mkdir(parents=True)
    file = attrs.evolve(model(path), relative_path="p/r/m.gguf")
    folders = hidden_folders(file)

    assert f"{tmp_path / 'models'}{os.sep}" == folders[0]
    assert f"{sys.prefix}{os.sep}" in folders
    assert "/" not in folders


def test_defaults(tmp_path):
    """One core stays free for others, and batches are small enough to cancel."""
    cores = usable_cores()
    asked = config(tmp_path)

    assert str(tmp_path / "m.gguf") == asked["path"]
    assert "the key" == asked["key"]
    assert (max(1, cores - 1), cores) == (asked["threads"], asked["batch_threads"])
    assert (4096, 4, 128) == (
        asked["context_length"],
        asked["parallel"],
        asked["batch_size"],
    )
    assert CACHE_MIB == asked["cache_mib"]
    assert not asked["embedding"]
    assert set(llama_child.Config.__annotations__) == set(asked)


def test_settings_are_passed_on(tmp_path):
    """What a user sets arrives at the child."""
    settings = LoadSettings(
        context_length=64,
        parallel=2,
        gpu_ratio=0.5,
        batch_size=256,
        seed=3,
        flash_attention=True,
        rope_base=1e6,
        rope_scale=0.5,
        k_cache_type="q8_0",
        v_cache_type="q4_0",
        mmap=False,
        lock_memory=True,
        threads=3,
        physical_batch_size=32,
        unified_cache=False,
        cache_on_gpu=False,
        direct_io=True,
        checkpoints=5,
    )
    asked = config(tmp_path, settings)

    assert 64 == asked["batch_size"]  # no larger than the context
    assert (3, None, None) == (
        asked["batch_threads"],
        asked["gpu_mode"],
        asked["draft"],
    )
    names = {field.name for field in attrs.fields(LoadSettings)}
    same = set(asked) & names - {"batch_size", "draft"}
    assert names - {"batch_size", "draft", "gpus"} == same
    for name in same:
        assert getattr(settings, name) == asked[name], name


def test_gpus_and_draft(tmp_path):
    """What is more than one value is spread over the child's settings."""
    draft = Draft(file=model(tmp_path / "d.gguf"), max_tokens=4, min_probability=0.5)
    gpus = GPUSplit(mode="none", main=1, shares=(0.0, 1.0))
    asked = config(tmp_path, LoadSettings(gpus=gpus, draft=draft))

    assert ("none", 1, [0.0, 1.0]) == (
        asked["gpu_mode"],
        asked["main_gpu"],
        asked["gpu_shares"],
    )
    assert {
        "path": str(tmp_path / "d.gguf"),
        "max_tokens": 4,
        "min_tokens": None,
        "min_probability": 0.5,
    } == asked["draft"]
    assert set(llama_child.DraftConfig.__annotations__) == set(asked["draft"])


@pytest.mark.parametrize(("physical", "expected"), [(None, 64), (32, 32), (256, 64)])
def test_physical_batch(tmp_path, physical, expected):
    """What is computed at once is a part of what is processed at once."""
    settings = LoadSettings(batch_size=64, physical_batch_size=physical)

    assert expected == config(tmp_path, settings)["physical_batch_size"]


def test_an_embedding_model_takes_a_text_in_one_batch(tmp_path):
    """Its context is one batch, and no longer than the model was trained for."""
    asked = config(
        tmp_path,
        LoadSettings(context_length=1000),
        is_embedding=True,
        max_context_length=2048,
    )
    assert [1000, 1000, 1, True] == [
        asked["context_length"],
        asked["batch_size"],
        asked["parallel"],
        asked["embedding"],
    ]

    asked = config(tmp_path, is_embedding=True, max_context_length=256)
    assert [256, 256] == [asked["context_length"], asked["batch_size"]]

    asked = config(
        tmp_path,
        LoadSettings(batch_size=1024),
        is_embedding=True,
        max_context_length=2048,
    )
    assert [1024, 1024] == [asked["context_length"], asked["batch_size"]]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has cgroups")
def test_a_containers_quota_counts(tmp_path):
    """Cores are those of the affinity, or of the quota when that is less."""
    everything = usable_cores(tmp_path / "missing")
    file = tmp_path / "cpu.max"
    counts = []
    for text in ("max 100000", "150000 100000", "10000 100000", "99999999 100", "x"):
        file.write_text(text)
        counts.append(usable_cores(file))

    assert everything >= 1
    assert [everything, min(2, everything), 1, everything, everything] == counts


def state(value, stages=("text_model",), current=None):
    payload = {"stages": stages, "current": current or stages[-1], "value": value}
    return {"state": "loading", "payload": payload}


def test_progress_is_mapped():
    """llama.cpp's value stands for the most part of the load; stages share it."""
    assert 0.05 == load_progress(state(0.0))
    assert pytest.approx(0.425) == load_progress(state(0.5))
    assert pytest.approx(0.8) == load_progress(state(1.0))
    assert pytest.approx(0.8) == load_progress(state(7.0))
    both = ("text_model", "spec_model")
    assert pytest.approx(0.2375) == load_progress(state(0.5, both, "text_model"))
    assert pytest.approx(0.6125) == load_progress(state(0.5, both))
    assert 0.95 == load_progress({"state": "ready", "payload": {"id": "x"}})


@pytest.mark.parametrize(
    "report",
    [None, [], "x", {}, {"payload": None}, state(None), state(1.0, [], "text_model")],
)
def test_progress_nobody_understands_is_the_beginning(report):
    """The report is undocumented, so any change in it does no harm."""
    assert 0.05 == load_progress(report)


def test_progress_never_goes_back():
    """Each value is reported once, and lower ones not at all."""

    async def run():
        seen = []
        loading = Loading(seen.append)
        for value in (0.0, 0.0, 0.5, 0.25, 1.0):
            loading.line(llama_child.STATE_PREFIX + json.dumps(state(value)))
        loading.line("noise")
        loading.line(llama_child.PREFIX + '{"event": "ready", "port": 1}')
        loading.line(llama_child.PREFIX + '{"event": "failed"}')  # too late
        return seen, await loading.ready

    seen, ready = asyncio.run(run())

    assert [0.0, 0.05, pytest.approx(0.425), pytest.approx(0.8)] == seen
    assert {"event": "ready", "port": 1} == ready


@pytest.mark.parametrize(
    "said",
    ["", "{", "[]", "{}", '{"event": "ready"}', '{"event": "ready", "port": "x"}'],
)
def test_a_child_that_says_nonsense_failed(said):
    """A line of the child's own that can't be read is a failure of the load."""

    async def run():
        loading = Loading(lambda progress: None)
        loading.line(llama_child.PREFIX + said)
        return await loading.ready

    assert {
        "event": "failed",
        "message": f"The child said {said!r}",
    } == asyncio.run(run())


def test_an_error_in_the_callback_ends_the_load():
    """What `on_progress` raises reaches the one who waits for the load."""

    def fail_later(progress):
        if progress > 0:
            raise RuntimeError("no more progress")

    async def run():
        loading = Loading(fail_later)
        loading.line(llama_child.STATE_PREFIX + json.dumps(state(0.5)))
        await loading.ready

    with pytest.raises(RuntimeError, match="no more progress"):
        asyncio.run(run())


def test_the_file_is_looked_at_first(tmp_path):
    """A missing file, a folder and a file of another kind each say what is wrong."""
    good, bad, empty = (tmp_path / name for name in ("good", "bad", "empty"))
    good.write_bytes(b"GGUF\x03\0\0\0")
    bad.write_bytes(b"PK\x03\x04")
    empty.write_bytes(b"")
    check_file(good)

    for path, word in (
        (tmp_path / "none", "can't be read. No such file"),
        (tmp_path, "can't be read"),
        (bad, "not a GGUF file"),
        (empty, "not a GGUF file"),
    ):
        with pytest.raises(LoadFailed, match=word) as caught:
            check_file(path)
        assert str(path) in caught.value.title
