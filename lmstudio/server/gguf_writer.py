"""Writes GGUF files: fields, and tensors that come piece by piece.

Source: the GGUF specification of the ggml project, version 3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

ALIGNMENT = 32  # bytes; what readers take when the file does not say

_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9

#: What a field may hold. Numbers take 32 bits; lists hold one kind of things.
Value = bool | int | float | str | Sequence[str] | Sequence[int] | Sequence[float]


@attrs.frozen(kw_only=True)
class Tensor:
    """One tensor, as the head of the file names it.

    Attributes:
        name: Up to 64 bytes.
        shape: Sizes of the dimensions; along the last one, values stand side by side.
        kind: Number of the format: 0 is f32, 1 is f16.
        size: Bytes.
        data: Its bytes, in pieces; read once, when its turn comes.
    """

    name: str
    shape: Sequence[int]
    kind: int
    size: int
    data: Iterable[bytes]


def gguf(fields: Mapping[str, Value], tensors: Sequence[Tensor]) -> Iterator[bytes]:
    """The bytes of a file, in pieces. The same input gives the same bytes.

    Raises:
        ValueError: A tensor brought other bytes than it announced.
    """
    head = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(fields))]
    for name, value in fields.items():
        head += _text(name), _value(value)
    at = 0
    for tensor in tensors:
        head.append(_text(tensor.name) + struct.pack("<I", len(tensor.shape)))
        head += (struct.pack("<Q", size) for size in reversed(tensor.shape))
        head.append(struct.pack("<IQ", tensor.kind, at))
        at += tensor.size + _gap(tensor.size)
    start = b"".join(head)
    yield start + bytes(_gap(len(start)))
    for tensor in tensors:
        size = 0
        for piece in tensor.data:
            size += len(piece)
            yield piece
        if size != tensor.size:
            raise ValueError(f"{tensor.name} has {size} bytes, not {tensor.size}")
        yield bytes(_gap(size))


def _gap(size: int) -> int:
    """Bytes from an end to where the next thing may begin."""
    return -size % ALIGNMENT


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Value) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _text(value)
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", _UINT32, value)
    if isinstance(value, float):
        return struct.pack("<If", _FLOAT32, value)
    texts = [_text(item) for item in value if isinstance(item, str)]
    if texts:
        items, kind = b"".join(texts), _STRING
    elif any(isinstance(item, float) for item in value):
        items, kind = struct.pack(f"<{len(value)}f", *value), _FLOAT32
    else:
        items, kind = struct.pack(f"<{len(value)}i", *value), _INT32
    return struct.pack("<IIQ", _ARRAY, kind, len(value)) + items
