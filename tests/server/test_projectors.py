"""Projectors beside models: which files are one, and which of several is taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from gguf_files import write_gguf
from lmstudio.server.engine import LoadSettings
from lmstudio.server.gguf import read_header
from lmstudio.server.memory import estimate
from lmstudio.server.projectors import choose, is_projector
from lmstudio.server.store import Store


def write(path: Path, **fields: object) -> Path:
    """A projector's file."""
    extra = {"clip.has_vision_encoder": True, **fields}
    return write_gguf(path, architecture="clip", file_type=None, extra=extra)


def test_a_model_with_a_projector_sees(tmp_path):
    """So do all language models of its folder; no other, and none that embeds."""
    folder = tmp_path / "pub/vision-GGUF"
    seeing = write(folder / "mmproj-F16.gguf")
    write_gguf(folder / "vision-Q4_0.gguf")
    write_gguf(folder / "vision-Q8_0.gguf")
    write_gguf(folder / "embed.gguf", architecture="bert")
    write_gguf(tmp_path / "pub/blind-GGUF/blind.gguf")

    store = Store(tmp_path)
    found = {model.path.name: model for model in store.list()}

    assert [] == store.broken()
    sees = {name: model.vision for name, model in found.items()}
    assert {
        "blind.gguf": False,
        "embed.gguf": False,
        "vision-Q4_0.gguf": True,
        "vision-Q8_0.gguf": True,
    } == sees
    projector = found["vision-Q4_0.gguf"].projector
    assert projector is not None
    assert (seeing, seeing.stat().st_size) == (projector.path, projector.size)
    assert found["blind.gguf"].projector is None


def test_a_projector_takes_memory(tmp_path):
    """The estimate has it."""
    write_gguf(tmp_path / "pub/a/a.gguf")
    (blind,) = Store(tmp_path).list()
    projector = write(tmp_path / "pub/a/mmproj.gguf")
    (seeing,) = Store(tmp_path).list()

    less, more = (estimate(model, LoadSettings()) for model in (blind, seeing))

    assert less.weights + projector.stat().st_size == more.weights


def test_a_broken_projector_is_told(tmp_path):
    """Its model is there, and does not see."""
    write_gguf(tmp_path / "pub/a/a.gguf")
    (tmp_path / "pub/a/mmproj-F16.gguf").write_bytes(b"GGUF and no more")
    store = Store(tmp_path)
    assert [False] == [model.vision for model in store.list()]
    assert ["pub/a/mmproj-F16.gguf"] == [file.relative_path for file in store.broken()]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["mmproj-F32", "mmproj-BF16", "mmproj-F16"], "mmproj-F16"),
        (["mmproj-F32", "mmproj-Q8_0"], "mmproj-Q8_0"),
        (["mmproj-BF16", "mmproj-Q8_0"], "mmproj-BF16"),
        (["mmproj-Q4_K_M", "mmproj-F32"], "mmproj-F32"),
        (["mmproj-b", "mmproj-a"], "mmproj-a"),
    ],
)
def test_choose(tmp_path, names, expected):
    """Sixteen bits are enough, and known formats come first."""
    paths = [write(tmp_path / f"{name}.gguf") for name in names]
    chosen = choose((path, read_header(path)) for path in paths)
    assert chosen is not None
    assert expected == chosen.path.stem


def test_choose_nothing():
    """Without any there is none."""
    assert choose([]) is None


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("mmproj.gguf", {}, True),
        ("Model.MMPROJ-f16.gguf", {}, True),
        ("vision.gguf", {}, False),
        ("mmproj.gguf", {"clip.has_vision_encoder": False}, False),
        ("mmproj.gguf", {"clip.has_audio_encoder": True}, True),
    ],
)
def test_is_projector(tmp_path, name, fields, expected):
    """The name and the header say it; one that only hears does not count."""
    path = write(tmp_path / name, **fields)
    assert expected == is_projector(path, read_header(path))


def test_one_that_only_hears(tmp_path):
    """Older files do not say that they see, those that only hear say that."""
    extra = {"clip.has_audio_encoder": True}
    path = write_gguf(tmp_path / "mmproj.gguf", architecture="clip", extra=extra)
    assert not is_projector(path, read_header(path))
