"""The child turns a config into llama.cpp's parameters."""

from __future__ import annotations

import enum
import json
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import attrs
import pytest

from lmstudio.server.engine import Draft, GPUSplit, LoadSettings, Projector
from lmstudio.server.engines import llama_child
from lmstudio.server.engines.llama_load import child_config
from lmstudio.wire.config import CACHE_TYPES
from server.engines.helpers import model

DRAFT = Draft(
    file=model(Path("d.gguf")), max_tokens=5, min_tokens=2, min_probability=0.5
)

Flash = enum.Enum(
    "Flash",
    {
        "LLAMA_FLASH_ATTN_TYPE_AUTO": -1,
        "LLAMA_FLASH_ATTN_TYPE_DISABLED": 0,
        "LLAMA_FLASH_ATTN_TYPE_ENABLED": 1,
    },
)
Mode = enum.Enum(
    "Mode",
    [f"LLAMA_LOAD_MODE_{n}" for n in ("AUTO", "NONE", "MMAP", "MLOCK", "MMAP_MLOCK")],
)
Type = enum.Enum("Type", ["GGML_TYPE_F16", "GGML_TYPE_Q8_0"])
Device = enum.Enum(
    "Device", ["GGML_BACKEND_DEVICE_TYPE_CPU", "GGML_BACKEND_DEVICE_TYPE_GPU"]
)


def library(gpu=False):
    """Those names of xllamacpp that the child uses."""

    def common_params():
        names = ("model", "mmproj", "cpuparams", "cpuparams_batch", "sampling")
        return SimpleNamespace(**{name: SimpleNamespace() for name in names})

    devices = list(Device)[: 2 if gpu else 1]
    return SimpleNamespace(
        CommonParams=common_params,
        llama_flash_attn_type=Flash,
        llama_load_mode=Mode,
        ggml_type=Type,
        get_device_info=lambda: [{"type": device} for device in devices],
    )


def parameters(settings=None, gpu=False, path=Path("m.gguf"), **fields):
    config = child_config(model(path, **fields), settings or LoadSettings(), "the key")
    return llama_child.parameters(library(gpu), config)


def test_defaults():
    """Nothing is reachable without the key, and nothing grows without bounds."""
    params, layers = parameters()

    assert "m.gguf" == params.model.path
    assert ["the key"] == params.api_keys
    assert 0 == params.port
    assert (4096, 4, True) == (params.n_ctx, params.n_parallel, params.kv_unified)
    assert (128, 128) == (params.n_batch, params.n_ubatch)
    assert 512 == params.cache_ram_mib
    assert not (params.ui or params.fit_params or params.ctx_shift or params.embedding)
    assert params.cpuparams_batch.n_threads >= params.cpuparams.n_threads >= 1
    assert Mode.LLAMA_LOAD_MODE_AUTO is params.load_mode
    assert 0 == layers == params.n_gpu_layers
    for untouched in ("rope_freq_base", "flash_attn_type", "cache_type_k"):
        assert not hasattr(params, untouched)


def test_a_projector():
    """It goes to the GPU unless none may be used, and its images fit one batch."""
    seeing = Projector(path=Path("mmproj.gguf"), size=1)
    params, _ = parameters(projector=seeing)
    assert ("mmproj.gguf", True) == (params.mmproj.path, params.mmproj_use_gpu)
    assert (1024, 1024) == (params.n_batch, params.n_ubatch)
    params, _ = parameters(LoadSettings(gpu_ratio=0), projector=seeing)
    assert not params.mmproj_use_gpu
    assert not hasattr(parameters()[0].mmproj, "path")


def test_settings():
    """Each setting has its parameter."""
    params, _ = parameters(
        LoadSettings(
            seed=-1,
            flash_attention=False,
            rope_base=1e6,
            rope_scale=0.5,
            k_cache_type="q8_0",
            v_cache_type="f16",
            mmap=True,
        ),
        is_embedding=True,
    )

    assert 2**32 - 1 == params.sampling.seed
    assert Flash.LLAMA_FLASH_ATTN_TYPE_DISABLED is params.flash_attn_type
    assert (1e6, 0.5) == (params.rope_freq_base, params.rope_freq_scale)
    assert Type.GGML_TYPE_Q8_0 is params.cache_type_k
    assert Type.GGML_TYPE_F16 is params.cache_type_v
    assert Mode.LLAMA_LOAD_MODE_MMAP is params.load_mode
    assert params.embedding


def test_an_unknown_number_format_lists_the_known_ones():
    """A wrong name says which ones are right."""
    with pytest.raises(ValueError, match="'Q9' is none of F16, Q8_0"):
        parameters(LoadSettings(k_cache_type="q9"))


@pytest.mark.parametrize(
    ("mmap", "lock", "mode"),
    [
        (None, None, "AUTO"),
        (True, False, "MMAP"),
        (False, None, "NONE"),
        (None, True, "MMAP_MLOCK"),
        (True, True, "MMAP_MLOCK"),
        (False, True, "MLOCK"),
    ],
)
def test_load_modes(mmap, lock, mode):
    """Mapping and locking are one parameter in llama.cpp."""
    assert mode == llama_child.load_mode(mmap, lock)
    assert "DIRECT_IO" == llama_child.load_mode(mmap, lock, True)


def test_layers_on_a_gpu(tmp_path):
    """A ratio is one of all layers; without a GPU nothing goes there."""
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + b"llama.block_count" + struct.pack("<II", 4, 29))
    ratios = (None, 0.0, 0.5, 1.0)

    def layers(gpu):
        asked = [LoadSettings(gpu_ratio=ratio) for ratio in ratios]
        return [parameters(one, gpu, path)[1] for one in asked]

    assert [0, 0, 0, 0] == layers(gpu=False)
    assert [-1, 0, 15, -1] == layers(gpu=True)
    path.write_bytes(b"GGUF")
    with pytest.raises(ValueError, match="how many layers"):
        parameters(LoadSettings(gpu_ratio=0.5), True, path)


#: A setting, and what becomes of it: a parameter of xllamacpp and its value.
IN_THE_LIBRARY = [
    ({"context_length": 1024}, "n_ctx", 1024),
    ({"parallel": 2}, "n_parallel", 2),
    ({"batch_size": 64}, "n_batch", 64),
    ({"batch_size": 64}, "n_ubatch", 64),
    ({"batch_size": 64, "physical_batch_size": 32}, "n_ubatch", 32),
    ({"seed": 7}, "sampling.seed", 7),
    (
        {"flash_attention": True},
        "flash_attn_type.name",
        "LLAMA_FLASH_ATTN_TYPE_ENABLED",
    ),
    ({"rope_base": 5000.0}, "rope_freq_base", 5000.0),
    ({"rope_scale": 0.5}, "rope_freq_scale", 0.5),
    *(
        ({"k_cache_type": name}, "cache_type_k.name", f"GGML_TYPE_{name.upper()}")
        for name in CACHE_TYPES
    ),
    *(
        ({"v_cache_type": name}, "cache_type_v.name", f"GGML_TYPE_{name.upper()}")
        for name in CACHE_TYPES
    ),
    ({"mmap": False}, "load_mode.name", "LLAMA_LOAD_MODE_NONE"),
    ({"lock_memory": True}, "load_mode.name", "LLAMA_LOAD_MODE_MMAP_MLOCK"),
    ({"direct_io": True}, "load_mode.name", "LLAMA_LOAD_MODE_DIRECT_IO"),
    ({"threads": 3}, "cpuparams.n_threads", 3),
    ({"threads": 3}, "cpuparams_batch.n_threads", 3),
    ({"unified_cache": True}, "kv_unified", True),
    ({"unified_cache": False}, "kv_unified", False),
    ({"unified_cache": False, "context_length": 512, "parallel": 3}, "n_ctx", 1536),
    ({"cache_on_gpu": False}, "no_kv_offload", True),
    ({"checkpoints": 5}, "n_ctx_checkpoints", 5),
    (
        {"gpus": GPUSplit(mode="none", main=1)},
        "split_mode.name",
        "LLAMA_SPLIT_MODE_NONE",
    ),
    ({"gpus": GPUSplit(mode="none", main=1)}, "main_gpu", 1),
    ({"gpus": GPUSplit(mode="tensor")}, "split_mode.name", "LLAMA_SPLIT_MODE_TENSOR"),
    (
        {"gpus": GPUSplit(shares=(0.25, 0.75))},
        "tensor_split",
        [0.25, 0.75] + [0.0] * 126,
    ),
    ({"draft": DRAFT}, "speculative.draft.mparams.path", "d.gguf"),
    ({"draft": DRAFT}, "speculative.draft.n_max", 5),
    ({"draft": DRAFT}, "speculative.draft.n_min", 2),
    ({"draft": DRAFT}, "speculative.draft.p_min", 0.5),
]


@pytest.mark.parametrize(("settings", "name", "expected"), IN_THE_LIBRARY)
def test_each_setting_in_the_real_library(settings, name, expected):
    """A setting arrives in its parameter of the real xllamacpp."""
    xllamacpp = pytest.importorskip("xllamacpp")
    config = child_config(model(Path("m.gguf")), LoadSettings(**settings), "the key")
    found, _ = llama_child.parameters(xllamacpp, config)
    for part in name.split("."):
        found = getattr(found, part)

    assert expected == found


def test_all_settings_are_tried():
    """No setting is missing in the table above."""
    tried = {name for settings, _, _ in IN_THE_LIBRARY for name in settings}
    # How many layers that is has a test of its own, with a GPU.
    assert {field.name for field in attrs.fields(LoadSettings)} - {"gpu_ratio"} == tried


def test_the_real_names_exist():
    """What the child asks of xllamacpp is there, by the same names."""
    xllamacpp = pytest.importorskip("xllamacpp")
    config = child_config(
        model(Path("m.gguf")),
        LoadSettings(
            seed=1,
            flash_attention=True,
            rope_base=1.0,
            rope_scale=1.0,
            k_cache_type="q8_0",
            v_cache_type="f16",
            mmap=False,
        ),
        "the key",
    )
    params, layers = llama_child.parameters(xllamacpp, config)

    assert ["the key"] == params.api_keys
    assert (128, 0) == (params.n_ubatch, layers)
    assert xllamacpp.ggml_type.GGML_TYPE_Q8_0 == params.cache_type_k


def start_child(*options):
    return subprocess.Popen(
        [sys.executable, *options, llama_child.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.slow
def test_without_a_parent_it_ends():
    """A child whose parent is gone before it said anything ends quietly."""
    for stdin in (b"", b'{"path"', b"{}\n"):
        with start_child() as child:
            said = child.communicate(stdin)

        assert (0, b"", b"") == (child.returncode, *said)


@pytest.mark.slow
def test_without_llama_cpp_it_says_so():
    """A missing package is told from a model that can't be loaded."""
    with start_child("-S") as child:  # without site-packages there is none
        child.stdin.write(b"{}\n")
        child.stdin.flush()
        said = child.stdout.read().decode().removeprefix(llama_child.PREFIX)

    assert 1 == child.returncode
    assert {
        "event": "missing",
        "message": "No module named 'xllamacpp'",
    } == json.loads(said)


@pytest.mark.slow
def test_a_load_that_fails_says_so(tmp_path):
    """A failure is one line on stdout; llama.cpp's words about it are on stderr."""
    pytest.importorskip("xllamacpp")
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + b"\xff" * 100)
    config = child_config(model(path), LoadSettings(), "the key")
    with start_child() as child:
        child.stdin.write(json.dumps(config).encode() + b"\n")
        child.stdin.flush()
        said, log = child.stdout.read(), child.stderr.read()

    assert 1 == child.returncode
    assert b'"event": "failed"' in said
    assert b"failed to load model" in log
