"""Writes a tiny projector: a vision model with random weights, which llama.cpp loads.

It turns every image into 16 vectors. They mean nothing to a language model, and are the
same for the same image only.
"""

from __future__ import annotations

import array
import math
import random
from pathlib import Path

from lmstudio.server.gguf_writer import Tensor, Value, gguf

#: Tokens of one image: the patches of 8 x 8 pixels in 32 x 32.
TOKENS = 16
_SIZE, _PATCH, _WIDTH, _INNER, _HIDDEN = 32, 8, 32, 64, 64


FIELDS: dict[str, Value] = {
    "general.architecture": "clip",
    "general.type": "mmproj",
    "clip.has_vision_encoder": True,
    "clip.projector_type": "mlp",
    "clip.use_gelu": True,
    "clip.vision.image_size": _SIZE,
    "clip.vision.patch_size": _PATCH,
    "clip.vision.embedding_length": _WIDTH,
    "clip.vision.feed_forward_length": _INNER,
    "clip.vision.block_count": 1,
    "clip.vision.attention.head_count": 2,
    "clip.vision.attention.layer_norm_epsilon": 1e-5,
    "clip.vision.image_mean": [0.5, 0.5, 0.5],
    "clip.vision.image_std": [0.5, 0.5, 0.5],
}


def projector(width: int) -> bytes:
    """A file of one layer, of the kind that LLaVA has.

    Args:
        width: Numbers in a vector of the language model.
    """
    fields: dict[str, Value] = {**FIELDS, "clip.vision.projection_dim": width}
    return b"".join(gguf(fields, _tensors(width)))


def _tensors(width: int) -> list[Tensor]:
    """The weights."""
    numbers = random.Random(1)

    def tensor(name: str, *shape: int, scale: float | None = None) -> Tensor:
        if scale is None:
            scale = shape[-1] ** -0.5
        count = math.prod(shape)
        values = array.array("f", (numbers.gauss(0, scale) for _ in range(count)))
        data = values.tobytes()
        return Tensor(name=name, shape=shape, kind=0, size=len(data), data=[data])

    def ones(name: str) -> Tensor:
        data = array.array("f", [1.0] * _WIDTH).tobytes()
        return Tensor(name=name, shape=[_WIDTH], kind=0, size=len(data), data=[data])

    layer = "v.blk.0."
    tensors = [
        tensor("v.class_embd", _WIDTH, scale=0.1),
        tensor("v.patch_embd.weight", _WIDTH, 3, _PATCH, _PATCH, scale=0.3),
        tensor("v.position_embd.weight", TOKENS + 1, _WIDTH, scale=0.1),
        ones(f"{layer}ln1.weight"),
        tensor(f"{layer}ln1.bias", _WIDTH, scale=0.0),
        ones(f"{layer}ln2.weight"),
        tensor(f"{layer}ln2.bias", _WIDTH, scale=0.0),
        tensor("mm.0.weight", _HIDDEN, _WIDTH),
        tensor("mm.0.bias", _HIDDEN, scale=0.1),
        tensor("mm.2.weight", width, _HIDDEN, scale=0.05),
        tensor("mm.2.bias", width, scale=0.05),
    ]
    for name, out, into in (
        *((f"attn_{which}", _WIDTH, _WIDTH) for which in ("q", "k", "v", "out")),
        ("ffn_up", _INNER, _WIDTH),
        ("ffn_down", _WIDTH, _INNER),
    ):
        tensors.append(tensor(f"{layer}{name}.weight", out, into))
        tensors.append(tensor(f"{layer}{name}.bias", out, scale=0.1))
    return tensors


def write_projector(path: Path, width: int) -> Path:
    """Write such a file; returns its path."""
    path.write_bytes(projector(width))
    return path
