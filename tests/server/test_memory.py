"""What a model takes is known before it is loaded, and what does not fit is refused."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import attrs
import pytest

from gguf_files import Typed, i32s, write_gguf
from lmstudio.server import memory
from lmstudio.server.engine import LoadSettings, ModelFile
from lmstudio.server.memory import (
    CACHE_BYTES,
    Budget,
    Estimate,
    NotEnoughMemory,
    Policy,
    estimate,
)
from lmstudio.wire.config import CACHE_TYPES

MIB = 1 << 20
#: 4 layers, 8 heads of 64 numbers, 2 of them cached: 2 KiB a token at 16 bits.
FIELDS = {
    "llama.block_count": 4,
    "llama.embedding_length": 512,
    "llama.feed_forward_length": 1024,
    "llama.attention.head_count": 8,
    "llama.attention.head_count_kv": 2,
}
PER_TOKEN = 4 * 2 * 2 * 64 * 2


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """The machine has none."""
    monkeypatch.setattr(memory, "has_gpu", lambda: False)


def model(folder: Path, *, is_embedding: bool = False, **changes: object) -> ModelFile:
    """A file with these fields; None leaves one out."""
    named = {key.replace("__", "."): value for key, value in changes.items()}
    fields = {key: v for key, v in {**FIELDS, **named}.items() if v is not None}
    path = write_gguf(folder / "m.gguf", extra=fields)
    return ModelFile(
        key="m",
        path=path,
        relative_path="a/b/m.gguf",
        publisher="a",
        display_name="m",
        size=100 * MIB,
        max_context_length=512,
        is_embedding=is_embedding,
    )


@pytest.mark.parametrize(
    ("changes", "settings", "per_token"),
    [
        ({}, {}, PER_TOKEN),
        ({}, {"k_cache_type": "f32"}, PER_TOKEN * 1.5),
        ({}, {"k_cache_type": "q8_0", "v_cache_type": "q8_0"}, PER_TOKEN * 0.53125),
        ({"llama__attention__head_count_kv": None}, {}, PER_TOKEN * 4),
        ({"llama__attention__head_count_kv": i32s([2, 0, 2, 0])}, {}, PER_TOKEN / 2),
        ({"llama__attention__key_length": 16}, {}, 4 * 2 * (16 + 16) * 2),
        (
            {"llama__attention__key_length": 16, "llama__attention__value_length": 4},
            {},
            4 * 2 * (16 + 4) * 2,
        ),
    ],
)
def test_cache(tmp_path, changes, settings, per_token):
    """The cache is layers times heads times context, in the format of the settings."""
    for context, rounded in ((1024, 1024), (1000, 1024), (1, 256)):
        made = estimate(
            model(tmp_path, **changes), LoadSettings(context_length=context, **settings)
        )
        assert rounded * per_token == made.cache
        assert made.is_sure


def test_all_cache_types_have_a_size():
    """Each format that clients may ask for is known here."""
    assert set(CACHE_TYPES) == set(CACHE_BYTES)


@pytest.mark.parametrize(
    "changes",
    [
        {"llama__attention__sliding_window": 512},
        {"llama__attention__kv_lora_rank": 512},
        {"llama__ssm__state_size": 16},
        {"llama__block_count": None},
        {"llama__attention__head_count": None},
        {"llama__attention__head_count_kv": i32s([2, 2])},
        {"llama__attention__head_count_kv": Typed(9, ["2"] * 4, 8)},
    ],
)
def test_unsure(tmp_path, changes):
    """Of other kinds of models only the weights are certain."""
    made = estimate(model(tmp_path, **changes), LoadSettings())
    assert not made.is_sure
    assert made.weights == made.certain
    assert 100 * MIB <= made.weights <= 130 * MIB


def test_work(tmp_path):
    """A batch takes more the larger it is, and without flash attention the context."""
    file = model(tmp_path)
    usual = estimate(file, LoadSettings()).work
    assert 4 * usual == estimate(file, LoadSettings(batch_size=512)).work
    scores = estimate(file, LoadSettings(flash_attention=False)).work - usual
    assert 4 * 128 * 3 * 8 * 4096 == scores


def test_embedding(tmp_path):
    """An embedding model has no cache; its context ends where its training did."""
    file = model(tmp_path, is_embedding=True)
    made = estimate(file, LoadSettings(context_length=10**6))
    assert (0, True) == (made.cache, made.is_sure)
    assert estimate(file, LoadSettings(context_length=512)) == made


def test_unreadable_file(tmp_path):
    """A file that can't be read is as large as it is; its load says what is wrong."""
    file = attrs.evolve(model(tmp_path), path=tmp_path / "none")
    expected = Estimate(weights=100 * MIB, cache=0, work=0, is_sure=False)
    assert expected == estimate(file, LoadSettings())


def test_gpu(tmp_path, monkeypatch):
    """What may go to a GPU is never refused, unless the settings keep it here."""
    monkeypatch.setattr(memory, "has_gpu", lambda: True)
    file = model(tmp_path)
    made = estimate(file, LoadSettings(gpu_ratio=None))
    assert (0, False) == (made.certain, made.is_sure)
    assert made.total == estimate(file, LoadSettings(gpu_ratio=0.0)).certain


@pytest.mark.skipif(sys.platform == "win32", reason="it does not tell")
def test_has_gpu(tmp_path, monkeypatch):
    """The devices of CUDA and ROCm are looked for."""
    monkeypatch.undo()
    assert not memory.has_gpu(tmp_path)
    (tmp_path / "kfd").touch()
    assert memory.has_gpu(tmp_path)


def budget(left: int | None, **policy: bool) -> Budget:
    """A budget of a machine with so many bytes."""
    return Budget(
        Policy(
            available=lambda mapped: None if left is None else left - mapped, **policy
        )
    )


def test_fits():
    """What is needed is compared with what there is; unknown is enough."""
    made = Estimate(weights=100, cache=20, work=3, is_sure=True)
    assert (23, 123, 123) == (made.context, made.total, made.certain)
    assert budget(123).fits(made)
    assert not budget(122).fits(made)
    assert budget(None).fits(made)
    assert budget(0, guard=False).fits(made)


def test_claims():
    """Loads under way count until they end."""
    made = Estimate(weights=100, cache=0, work=0, is_sure=True)
    both = budget(150)
    assert both.claim("one", made)
    assert not both.claim("two", made)
    both.free("one")
    assert both.claim("two", made)
    both.free("two")
    both.free("two")


def refusal(file: ModelFile, left: int, **settings: object) -> NotEnoughMemory:
    """The error for a model that does not fit."""
    asked = LoadSettings(**settings)
    return budget(left).refusal(file, asked, estimate(file, asked))


def test_refusal(tmp_path):
    """The error names what is needed, what there is, and what would fit."""
    file = model(tmp_path)
    base = estimate(file, LoadSettings(context_length=256))
    left = base.total + 10 * 256 * PER_TOKEN
    error = refusal(file, left, context_length=4096)
    assert left == error.available
    assert estimate(file, LoadSettings(context_length=4096)).total == error.needed
    assert 11 * 256 == error.fits_context
    assert error.fits_quantized
    assert "to load m. It needs 0.1" in str(error)
    assert "It would fit with a context_length of at most 2816, or with 'q8_0'" in str(
        error
    )
    assert str(error) == str(pickle.loads(pickle.dumps(error)))
    fitting = LoadSettings(context_length=error.fits_context)
    assert estimate(file, fitting).total <= left
    assert estimate(file, attrs.evolve(fitting, context_length=3072)).total > left


@pytest.mark.parametrize(
    ("left", "settings", "is_embedding"),
    [
        (50 * MIB, {"context_length": 4096}, False),
        (0, {}, False),
        (-5, {}, False),
        (50 * MIB, {}, True),
    ],
)
def test_nothing_would_fit(tmp_path, left, settings, is_embedding):
    """Where not even the weights fit, the error promises nothing."""
    error = refusal(model(tmp_path, is_embedding=is_embedding), left, **settings)
    assert (None, False) == (error.fits_context, error.fits_quantized)
    assert error.suggestion.startswith("Unload other models")
    assert max(0, left) == error.available


def test_a_quantized_cache_does_not_help(tmp_path):
    """What is quantized already is not proposed."""
    small = {"k_cache_type": "q4_0", "v_cache_type": "q4_0"}
    error = refusal(model(tmp_path), 140 * MIB, context_length=65536, **small)
    assert error.fits_context is not None
    assert not error.fits_quantized


def cgroups(folder: Path, text: str, files: dict[str, str]) -> list[int]:
    """What limits leave, with this /proc/self/cgroup and these files."""
    (folder / "cgroup").write_text(text)
    for name, content in files.items():
        path = folder / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return list(memory._containers(folder / "cgroup", folder / "root"))


def test_cgroups_2(tmp_path):
    """Each limit above this process counts; files that were read can be dropped."""
    files = {
        "memory.max": "max",
        "memory.current": "900",
        "a/memory.max": "1000",
        "a/memory.current": "700",
        "a/memory.stat": "anon 500\ninactive_file 150\nactive_file 50",
        "a/b/memory.max": "800",
        "a/b/memory.current": "600",
    }
    assert [200, 450] == cgroups(tmp_path, "0::/a/b\n", files)


def test_cgroups_1(tmp_path):
    """The older version has other names, and a huge number for no limit."""
    files = {
        "memory/memory.limit_in_bytes": str(2**63 - 4096),
        "memory/memory.usage_in_bytes": "5",
        "memory/x/memory.limit_in_bytes": "1000",
        "memory/x/memory.usage_in_bytes": "700",
        "memory/x/memory.stat": "inactive_file 1\ntotal_inactive_file 100",
    }
    text = "9:cpu,cpuacct:/x\n4:memory:/x\n0::/\n"
    assert [400] == cgroups(tmp_path, text, files)


def test_cgroups_of_a_container(tmp_path):
    """In a container its own folder is the root, and the path is of outside."""
    files = {"memory.max": "1000", "memory.current": "300"}
    assert [700] == cgroups(tmp_path, "0::/docker/abc/../x\n", files)
    assert [] == list(memory._containers(tmp_path / "none"))
    assert [] == cgroups(tmp_path, "strange\n", {"memory.max": "many"})


def test_available(monkeypatch):
    """The least that anyone leaves is what there is."""
    monkeypatch.setattr(memory, "_system", lambda: 1000)
    monkeypatch.setattr(memory, "_containers", lambda mapped: iter([700, 800]))
    assert 700 == memory.available()
    monkeypatch.setattr(memory, "_containers", lambda mapped: iter([-5]))
    assert 0 == memory.available()
    monkeypatch.setattr(memory, "_system", lambda: None)
    monkeypatch.setattr(memory, "_containers", lambda mapped: iter([]))
    assert memory.available() is None


def test_of_this_machine():
    """There is some memory, and less than the largest machines have."""
    found = memory.available()
    assert found is not None
    assert 0 < found < 2**50


def held(left: int) -> Budget:
    """A budget with a model in memory: 100 bytes of one file, 20 of a cache."""
    made = Estimate(
        weights=100, cache=20, work=0, is_sure=True, mapped={Path("a"): 100}
    )
    both = budget(left)
    both.keep("one", made)
    return both


def test_mapped_weights_count():
    """The system calls them available; they are not until the model is gone."""
    other = Estimate(weights=60, cache=0, work=0, is_sure=True, mapped={Path("b"): 60})
    both = held(150)
    assert not both.fits(other)
    both.free("one")
    assert both.fits(other)


def test_a_file_that_is_mapped_twice_counts_once():
    """Two models of one file share its pages."""
    same = Estimate(weights=100, cache=9, work=0, is_sure=True, mapped={Path("a"): 100})
    both = held(109)
    assert both.claim("two", same)
    both.free("two")
    both.keep("two", same)
    both.free("one")
    assert not both.fits(Estimate(weights=10, cache=0, work=0, is_sure=True))


def test_what_leaves_makes_room():
    """A claim counts what others leave; of their mapped files nothing was taken."""
    large = Estimate(weights=165, cache=0, work=0, is_sure=True, mapped={})
    both = held(150)
    assert both.claim("two", large, ["one"]) is True  # 150 and the cache of 20
    assert not both.claim("two", large)
    assert not both.claim("three", large, ["one", "nobody"])


def test_mapped_files(tmp_path, monkeypatch):
    """Files are mapped unless they are read, locked, or on a GPU."""
    file = model(tmp_path)
    assert {file.path: 100 * MIB} == estimate(file, LoadSettings()).mapped
    for option in ({"mmap": False}, {"lock_memory": True}, {"direct_io": True}):
        assert {} == estimate(file, LoadSettings(**option)).mapped
    monkeypatch.setattr(memory, "has_gpu", lambda: True)
    assert {} == estimate(file, LoadSettings()).mapped


def test_mapped_files_of_a_container(tmp_path):
    """Of its active files nothing was thought available; of the others it was."""
    stat = "inactive_file 150\nactive_file 50"
    cgroups(
        tmp_path,
        "0::/\n",
        {"memory.max": "1000", "memory.current": "700", "memory.stat": stat},
    )
    folders = tmp_path / "cgroup", tmp_path / "root"
    found = [next(memory._containers(*folders, mapped=m)) for m in (0, 50, 90, 999)]
    assert [450, 450, 410, 300] == found


def test_available_beside_mapped_files(monkeypatch):
    """What the system has left is told without them."""
    monkeypatch.setattr(memory, "_system", lambda: 1000)
    monkeypatch.setattr(memory, "_containers", lambda mapped: iter([]))
    assert 700 == memory.available(300)
