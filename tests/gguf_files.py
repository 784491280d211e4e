"""Writes small GGUF files for tests."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

CONTROL, USER_DEFINED, NORMAL = 3, 4, 1


@attrs.frozen
class Typed:
    """A value with the number of its type in the file, and for arrays of its items."""

    kind: int
    value: Any
    item_kind: int = 0


_FORMS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}


def u32(value: int) -> Typed:
    """A number as most whole numbers in real files are."""
    return Typed(4, value)


def strings(items: Sequence[str]) -> Typed:
    """An array of texts."""
    return Typed(9, items, 8)


def i32s(items: Sequence[int]) -> Typed:
    """An array of whole numbers."""
    return Typed(9, items, 5)


def text(value: str | bytes) -> bytes:
    """A text as it stands in a file."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def packed(field: Any) -> bytes:
    """A field's type and value as they stand in a file."""
    if isinstance(field, str):
        field = Typed(8, field)
    if isinstance(field, bool):
        field = Typed(7, field)
    if isinstance(field, int):
        field = Typed(4, field)
    if isinstance(field, float):
        field = Typed(6, field)
    return struct.pack("<I", field.kind) + _packed(field)


def _packed(field: Typed) -> bytes:
    if field.kind == 8:
        return text(field.value)
    if field.kind == 9:
        items = [_packed(Typed(field.item_kind, item)) for item in field.value]
        return struct.pack("<IQ", field.item_kind, len(items)) + b"".join(items)
    return struct.pack(_FORMS[field.kind], field.value)


def gguf_bytes(
    fields: Mapping[str, Any],
    tensors: Mapping[str, Sequence[int]] | None = None,
    *,
    version: int = 3,
) -> bytes:
    """A whole file: any fields, and tensors of 4-byte zeros with these dimensions."""
    tensors = {"output.weight": [32, 8]} if tensors is None else tensors
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(fields))
    head += b"".join(text(name) + packed(value) for name, value in fields.items())
    weights = 0
    for name, dimensions in tensors.items():
        head += text(name) + struct.pack("<I", len(dimensions))
        head += b"".join(struct.pack("<Q", size) for size in dimensions)
        head += struct.pack("<IQ", 0, weights)
        elements = 1
        for size in dimensions:
            elements *= size
        weights += -(-elements * 4 // 32) * 32
    return head + bytes(-len(head) % 32) + bytes(weights)


def model_fields(
    *,
    name: str = "Tiny",
    architecture: str = "llama",
    context_length: int = 2048,
    chat_template: str | None = None,
    file_type: int | None = 3,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The fields of a model with four tokens, ``<s>`` and ``</s>`` among them."""
    fields: dict[str, Any] = {
        "general.architecture": architecture,
        "general.name": name,
        f"{architecture}.context_length": u32(context_length),
        "tokenizer.ggml.tokens": strings(["<s>", "</s>", "<tool>", "a"]),
        "tokenizer.ggml.token_type": i32s([CONTROL, CONTROL, USER_DEFINED, NORMAL]),
        "tokenizer.ggml.bos_token_id": u32(0),
        "tokenizer.ggml.eos_token_id": u32(1),
    }
    if file_type is not None:
        fields["general.file_type"] = u32(file_type)
    if chat_template is not None:
        fields["tokenizer.chat_template"] = chat_template
    return {**fields, **(extra or {})}


def write_gguf(
    path: Path,
    *,
    name: str = "Tiny",
    architecture: str = "llama",
    context_length: int = 2048,
    chat_template: str | None = None,
    file_type: int | None = 3,
    extra: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Sequence[int]] | None = None,
) -> Path:
    """Write a file with a correct header and zeros for weights; returns its path.

    The folders above it are made. No engine can load it.

    Args:
        context_length: Tokens.
        file_type: Number of the quantization: 3 is Q4_1, 15 is Q4_K_M.
        extra: More fields: text, bool, int, float, or a `Typed`.
        tensors: Names and dimensions; one with 256 elements when not given.
    """
    fields = model_fields(
        name=name,
        architecture=architecture,
        context_length=context_length,
        chat_template=chat_template,
        file_type=file_type,
        extra=extra,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gguf_bytes(fields, tensors))
    return path
