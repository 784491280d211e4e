"""Turns embedding models of the BERT kind, as Hugging Face has them, into GGUF.

The weights are rounded to 16 bits, all that is small stays as it is. What comes out
depends on the input alone, byte for byte, so that a checksum can be known beforehand.

Source: the safetensors format, and llama.cpp's names for the parts of BERT.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

import attrs

from .gguf_writer import Tensor, Value, gguf

_LONGEST_HEAD = 8 << 20  # bytes of JSON
_CHUNK = 1 << 20  # bytes
_F32, _F16 = 0, 1
_MEAN = 1  # llama.cpp's number for this kind of pooling
_CONTROL, _NORMAL = 3, 1  # values of tokenizer.ggml.token_type

#: Names in the original (without layer) -> names of llama.cpp, and whether the weights
#: are rounded.
_NAMES = {
    "embeddings.word_embeddings": ("token_embd", True),
    "embeddings.position_embeddings": ("position_embd", False),
    "embeddings.token_type_embeddings": ("token_types", False),
    "embeddings.LayerNorm": ("token_embd_norm", False),
    "attention.self.query": ("attn_q", True),
    "attention.self.key": ("attn_k", True),
    "attention.self.value": ("attn_v", True),
    "attention.output.dense": ("attn_output", True),
    "attention.output.LayerNorm": ("attn_output_norm", False),
    "intermediate.dense": ("ffn_up", True),
    "output.dense": ("ffn_down", True),
    "output.LayerNorm": ("layer_output_norm", False),
}
_LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)")
#: What the original has and llama.cpp does without.
_LEFT_OUT = re.compile(r"embeddings\.position_ids|pooler\..+")

#: Special tokens, and the fields that name their ids. The one name is misspelt by all.
_SPECIAL = {
    "[PAD]": ("padding",),
    "[UNK]": ("unknown",),
    "[CLS]": ("bos", "cls"),
    "[SEP]": ("eos", "seperator"),
    "[MASK]": ("mask",),
}


class ConversionError(ValueError):
    """A model is not of the kind that can be converted, or is damaged."""


@attrs.frozen(kw_only=True)
class Original:
    """The files of a model.

    Attributes:
        name: What the model is called.
        config: ``config.json``, as text.
        vocabulary: ``vocab.txt``, as text.
        weights: Opens ``model.safetensors``; it is read from beginning to end.
    """

    name: str
    config: str
    vocabulary: str
    weights: Callable[[], IO[bytes]]


def convert(original: Original) -> Iterator[bytes]:
    """The bytes of the GGUF file, in pieces.

    Raises:
        ConversionError: The model is of another kind, or its files don't fit together.
    """
    try:
        with original.weights() as file:
            tensors = list(_tensors(file))
            fields = _fields(original, {tensor.name for tensor in tensors})
            yield from gguf(fields, tensors)
    except ConversionError:
        raise
    # What is missing, or of another type than it should be, shows in any of these.
    except (KeyError, TypeError, ValueError, OverflowError, struct.error) as exc:
        raise ConversionError(f"{type(exc).__name__}: {exc}") from exc


def _fields(original: Original, tensors: set[str]) -> dict[str, Value]:
    config: dict[str, Any] = json.loads(original.config)
    if config["model_type"] != "bert" or config["hidden_act"] != "gelu":
        raise ConversionError("its config.json does not describe a BERT model")
    layers = int(config["num_hidden_layers"])
    missing = {
        *(f"blk.{layer}.ffn_down.weight" for layer in range(layers)),
        "token_embd.weight",
    } - tensors
    if missing:
        raise ConversionError(f"it has no {min(missing)}")
    return {
        "general.architecture": "bert",
        "general.type": "model",
        "general.name": original.name,
        "general.file_type": _F16,
        "bert.block_count": layers,
        "bert.context_length": int(config["max_position_embeddings"]),
        "bert.embedding_length": int(config["hidden_size"]),
        "bert.feed_forward_length": int(config["intermediate_size"]),
        "bert.attention.head_count": int(config["num_attention_heads"]),
        "bert.attention.layer_norm_epsilon": float(config["layer_norm_eps"]),
        "bert.attention.causal": False,
        "bert.pooling_type": _MEAN,
        **_vocabulary(original.vocabulary),
        "tokenizer.ggml.token_type_count": int(config["type_vocab_size"]),
    }


def _vocabulary(text: str) -> dict[str, Value]:
    """The tokens as llama.cpp writes them: the mark is on words, not on their rests."""
    words = text.split("\n")
    words = words[:-1] if not words[-1] else words
    ids = {word: number for number, word in enumerate(words)}
    fields: dict[str, Value] = {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [_token(word) for word in words],
        "tokenizer.ggml.token_type": [
            _CONTROL if word in _SPECIAL else _NORMAL for word in words
        ],
    }
    for word, names in _SPECIAL.items():
        for name in names:
            fields[f"tokenizer.ggml.{name}_token_id"] = ids[word]
    return fields


def _token(word: str) -> str:
    if word.startswith("##"):
        return word[2:]
    is_special = word.startswith("[") and word.endswith("]")
    return word if is_special else "\N{LOWER ONE EIGHTH BLOCK}" + word


def _tensors(file: IO[bytes]) -> Iterator[Tensor]:
    """The tensors in the order in which their bytes stand in the file."""
    (length,) = struct.unpack("<Q", _read(file, 8))
    if length > _LONGEST_HEAD:
        raise ConversionError(f"its head claims to have {length} bytes")
    head = json.loads(_read(file, length))
    if not isinstance(head, dict):
        raise ConversionError("its head is no JSON object")
    head.pop("__metadata__", None)
    end = skipped = 0
    for name, entry in sorted(head.items(), key=lambda row: _offsets(row[1])):
        start, stop = _offsets(entry)
        if start != end:
            raise ConversionError(f"{name} begins at {start} and not at {end}")
        end = stop
        if _LEFT_OUT.fullmatch(name):
            skipped += stop - start
        else:
            yield _tensor(
                name, entry, stop - start, _pieces(file, skipped, stop - start)
            )
            skipped = 0


def _tensor(
    name: str, entry: dict[str, Any], size: int, pieces: Iterator[bytes]
) -> Tensor:
    new, is_rounded = _new_name(name)
    shape: Sequence[int] = [int(length) for length in entry["shape"]]
    if entry["dtype"] != "F32" or size != 4 * math.prod(shape):
        raise ConversionError(f"{name} is not of 32-bit floats")
    is_rounded = is_rounded and len(shape) > 1
    return Tensor(
        name=new,
        shape=shape,
        kind=_F16 if is_rounded else _F32,
        size=size // 2 if is_rounded else size,
        data=map(_rounded, pieces) if is_rounded else pieces,
    )


def _offsets(entry: dict[str, Any]) -> tuple[int, int]:
    start, stop = entry["data_offsets"]
    return int(start), int(stop)


def _new_name(name: str) -> tuple[str, bool]:
    part, _, kind = name.rpartition(".")
    layer = _LAYER.fullmatch(part)
    prefix, part = (f"blk.{layer[1]}.", layer[2]) if layer else ("", part)
    if part not in _NAMES or kind not in ("weight", "bias"):
        raise ConversionError(f"{name} is no part of a BERT model")
    new, is_rounded = _NAMES[part]
    return f"{prefix}{new}.{kind}", is_rounded


def _pieces(file: IO[bytes], skipped: int, size: int) -> Iterator[bytes]:
    """The next bytes of a file, after some that nobody wants."""
    for at in range(0, skipped, _CHUNK):
        _read(file, min(_CHUNK, skipped - at))
    for at in range(0, size, _CHUNK):
        yield _read(file, min(_CHUNK, size - at))


def _read(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise ConversionError("its weights end early")
    return data


def _rounded(data: bytes) -> bytes:
    count = len(data) // 4
    return struct.pack(f"<{count}e", *struct.unpack(f"<{count}f", data))
