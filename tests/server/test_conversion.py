"""A model of the BERT kind comes out as GGUF, and what is none is refused."""

from __future__ import annotations

import hashlib
import io
import json
import math
import struct
from pathlib import Path
from typing import Any

import attrs
import pytest

from lmstudio.server.conversion import ConversionError, Original, convert
from lmstudio.server.gguf import control_tokens, read_array, read_header

CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "num_hidden_layers": 1,
    "max_position_embeddings": 8,
    "hidden_size": 4,
    "intermediate_size": 6,
    "num_attention_heads": 2,
    "layer_norm_eps": 1e-12,
    "type_vocab_size": 2,
}
WORDS = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[", "cat", "##s"]
LAYER = "encoder.layer.0."
SHAPES = {
    "embeddings.word_embeddings.weight": [9, 4],
    "embeddings.position_embeddings.weight": [8, 4],
    "embeddings.token_type_embeddings.weight": [2, 4],
    "embeddings.LayerNorm.weight": [4],
    "embeddings.LayerNorm.bias": [4],
    LAYER + "attention.self.query.weight": [4, 4],
    LAYER + "attention.self.query.bias": [4],
    LAYER + "intermediate.dense.weight": [6, 4],
    LAYER + "output.dense.weight": [4, 6],
    LAYER + "output.LayerNorm.weight": [4],
    "pooler.dense.weight": [4, 4],
}
#: The names that they get, and whether they are rounded.
NAMES = {
    "token_embd.weight": True,
    "position_embd.weight": False,
    "token_types.weight": False,
    "token_embd_norm.weight": False,
    "token_embd_norm.bias": False,
    "blk.0.attn_q.weight": True,
    "blk.0.attn_q.bias": False,
    "blk.0.ffn_up.weight": True,
    "blk.0.ffn_down.weight": True,
    "blk.0.layer_output_norm.weight": False,
}


def safetensors(shapes: dict[str, list[int]], **changes: Any) -> bytes:
    """A file with these tensors; the numbers of each are 0, 1/8, 2/8 and so on."""
    ids = {"dtype": "I64", "shape": [1, 2], "data_offsets": [0, 16]}
    head: dict[str, Any] = {
        "__metadata__": {"format": "pt"},
        "embeddings.position_ids": ids,
    }
    data = bytes(16)
    for name, shape in shapes.items():
        count = math.prod(shape)
        new = struct.pack(f"<{count}f", *(n / 8 for n in range(count)))
        offsets = [len(data), len(data) + len(new)]
        head[name] = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
        data += new
    for name, change in changes.items():
        head.setdefault(name.replace("__", "."), {}).update(change)
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + data


def original(weights: bytes | None = None, **config: Any) -> Original:
    """A tiny model."""
    data = safetensors(SHAPES) if weights is None else weights
    return Original(
        name="Tiny",
        config=json.dumps({**CONFIG, **config}),
        vocabulary="\n".join(WORDS) + "\n",
        weights=lambda: io.BytesIO(data),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The tiny model as GGUF."""
    target = tmp_path / "tiny.gguf"
    target.write_bytes(b"".join(convert(original())))
    return target


def test_fields(path: Path) -> None:
    """The header says what llama.cpp has to know."""
    header = read_header(path)
    assert header.is_embedding
    assert ("bert", "F16", 8) == (
        header.architecture,
        header.quantization,
        header.context_length,
    )
    wanted = {
        "bert.block_count": 1,
        "bert.embedding_length": 4,
        "bert.feed_forward_length": 6,
        "bert.attention.head_count": 2,
        "bert.attention.causal": False,
        "bert.pooling_type": 1,
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.token_type_count": 2,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.unknown_token_id": 2,
        "tokenizer.ggml.bos_token_id": 3,
        "tokenizer.ggml.cls_token_id": 3,
        "tokenizer.ggml.eos_token_id": 4,
        "tokenizer.ggml.seperator_token_id": 4,
        "tokenizer.ggml.mask_token_id": 5,
    }
    assert wanted == {name: header.values[name] for name in wanted}
    assert 1e-12 == pytest.approx(header.values["bert.attention.layer_norm_epsilon"])


def test_vocabulary(path: Path) -> None:
    """Beginnings of words are marked, rests and special tokens are not."""
    assert [
        *("[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
        *("\u2581[", "\u2581cat", "s"),
    ] == read_array(path, "tokenizer.ggml.tokens")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert special == control_tokens(path)


def test_weights(path: Path) -> None:
    """All parts are there under their new names, large ones in 16 bits, in order."""
    data = path.read_bytes()
    header = read_header(path)
    assert len(NAMES) == header.tensors
    kept = [shape for name, shape in SHAPES.items() if not name.startswith("pooler")]
    assert sum(map(math.prod, kept)) == header.params
    at = 0
    bodies = b""
    for (name, is_rounded), shape in zip(NAMES.items(), kept, strict=True):
        place = struct.pack("<IQ", int(is_rounded), at)
        sizes = b"".join(struct.pack("<Q", size) for size in reversed(shape))
        count = struct.pack("<I", len(shape))
        assert name.encode() + count + sizes + place in data
        numbers = [n / 8 for n in range(math.prod(shape))]
        body = struct.pack(f"<{len(numbers)}{'e' if is_rounded else 'f'}", *numbers)
        bodies += body + bytes(-len(body) % 32)
        at = len(bodies)
    assert data.endswith(bodies)


def test_same_bytes(path: Path) -> None:
    """Converted again, it is the same file."""
    again = b"".join(convert(original()))
    assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(again).digest()


WHOLE = safetensors(SHAPES)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (original(model_type="llama"), "not describe a BERT"),
        (original(hidden_act="relu"), "not describe a BERT"),
        (original(num_hidden_layers=2), r"has no blk\.1\.ffn_down"),
        (original(num_hidden_layers="x"), "ValueError"),
        (original(b""), "end early"),
        (original(WHOLE[:-200]), "end early"),
        (original(b"\xff" * 8 + WHOLE), "claims to have"),
        (original(struct.pack("<Q", 2) + b"[]"), "no JSON object"),
        (original(safetensors({**SHAPES, "decoder.weight": [1]})), "no part of a BERT"),
        (original(safetensors({**SHAPES, "embeddings.LayerNorm.x": [1]})), "no part"),
        (
            original(safetensors(SHAPES, embeddings__LayerNorm__bias={"dtype": "F16"})),
            "not of 32-bit floats",
        ),
        (
            original(safetensors(SHAPES, embeddings__LayerNorm__bias={"shape": [5]})),
            "not of 32-bit floats",
        ),
        (
            original(
                safetensors(SHAPES, pooler__dense__weight={"data_offsets": [0, 8]})
            ),
            "begins at",
        ),
        (attrs.evolve(original(), config="{}"), "KeyError: 'model_type'"),
        (attrs.evolve(original(), config="no JSON"), "JSONDecodeError"),
        (attrs.evolve(original(), vocabulary="a\nb"), r"KeyError: '\[PAD\]'"),
    ],
)
def test_not_a_model(changed: Original, expected: str) -> None:
    """What can't be converted is one kind of error, whatever is wrong with it."""
    with pytest.raises(ConversionError, match=expected):
        list(convert(changed))
