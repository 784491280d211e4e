"""Projectors: files beside a language model that let it see images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .engine import Projector
from .gguf import Header
from .quantization import split_suffix

#: Number formats of projectors, the one to take first in front. More precision than
#: F16 only costs memory, and engines compute F16 faster than BF16.
PREFERRED = ("F16", "BF16", "Q8_0", "F32")


def is_projector(path: Path, header: Header) -> bool:
    """Whether a file can turn images into what a language model reads.

    Source: llama.cpp's conventions: the name holds "mmproj", the architecture is
    "clip". Some see, some hear, some do both.
    """
    sees = header.values.get("clip.has_vision_encoder") is not False
    # Files older than the field can only see; newer ones that hear say that.
    hears_only = header.values.get("clip.has_audio_encoder") is True and (
        header.values.get("clip.has_vision_encoder") is not True
    )
    return named_so(path) and header.architecture == "clip" and sees and not hears_only


def named_so(path: Path) -> bool:
    """Whether a file has the name of a projector. Such a file is no model."""
    return "mmproj" in path.name.lower()


def choose(found: Iterable[tuple[Path, Header]]) -> Projector | None:
    """The projector that the models of a folder use; None without any.

    Args:
        found: All projectors of the folder.
    """

    def rank(one: tuple[Path, Header]) -> tuple[int, str]:
        path, header = one
        _, _, quantization = split_suffix(path.stem)
        name = (quantization or header.quantization or "").upper()
        known = PREFERRED.index(name) if name in PREFERRED else len(PREFERRED)
        return known, path.name

    ranked = sorted(found, key=rank)
    if not ranked:
        return None
    path, header = ranked[0]
    return Projector(path=path, size=header.size)
