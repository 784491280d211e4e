"""The header of GGUF files: what a model is, read without its weights.

A header is read through a small window. No length in a file is believed before it was
compared with the size of the file, and no more than 64 MiB are read.

Source: the GGUF specification of the ggml project, versions 2 and 3.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import attrs

from .engine import EngineError
from .gguf_cursor import U32, U64, Cursor, Malformed
from .quantization import FILE_TYPES, TENSOR_TYPES

#: Arrays with more items are skipped, and so are texts of more than `LONG_TEXT` bytes.
SMALL_ARRAY = 64
LONG_TEXT = 1 << 20
# More than ten times what the largest models have.
_MOST_FIELDS = 1 << 16
_MOST_TENSORS = 1 << 17
_MOST_TEXTS = 1 << 22  # in one array

_STRIDE = 1024  # every so many strings of an array their place in the file is noted

_NUMBERS = {
    number: struct.Struct("<" + code) for number, code in enumerate("BbHhIif?")
} | {10: struct.Struct("<Q"), 11: struct.Struct("<q"), 12: struct.Struct("<d")}
_STRING, _ARRAY = 8, 9

_OTHER_SIGNS = {
    b"vers": "it is a Git LFS pointer, not the model itself",
    b"PK\x03\x04": "it is a zip archive",
    b"ggjt": "it is in the older GGML format",
    b"lmgg": "it is in the older GGML format",
    b"<!DO": "it is a web page",
    b"<htm": "it is a web page",
}
_EMBEDDER = re.compile(
    r"((modern-|nomic-|neo-|jina-|euro)?bert(-moe|-v\d)?|gemma-embedding|t5encoder)"
)
_CONTROL, _USER_DEFINED = 3, 4  # values of tokenizer.ggml.token_type

_T = TypeVar("_T")


class GGUFError(EngineError):
    """A model file can't be used: it is damaged, incomplete or unreadable.

    Attributes:
        path: The file.
        problem: What is wrong with it.
    """

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(
            f"{path} can't be used as a GGUF model", problem, "Download the file again"
        )
        self.path = path
        self.problem = problem

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.problem)


class NotGGUF(GGUFError):
    """A file has the name of a GGUF file and is something else."""


@attrs.frozen
class ArrayAt:
    """Where an array stands in its file.

    Attributes:
        kind: Type number of its items.
        count: How many it has.
        at: Byte where the first item begins.
        marks: Of strings, the byte where each 1024th item begins.
    """

    kind: int
    count: int
    at: int
    marks: tuple[int, ...] = ()


@attrs.frozen(kw_only=True)
class Header:
    """What the header of one GGUF file says.

    Attributes:
        version: Version of the format.
        size: Bytes of the file.
        values: The fields, without long texts and long arrays.
        arrays: Where each array stands, the long ones too.
        tensors: How many tensors the file has.
        params: Sum of the elements of all tensors.
        bos: Text of the token that begins a text, ``""`` without one.
        eos: Text of the token that ends a text, ``""`` without one.
    """

    version: int
    size: int
    values: dict[str, Any]
    arrays: dict[str, ArrayAt]
    tensors: int
    params: int
    bos: str = ""
    eos: str = ""

    def text(self, field: str) -> str | None:
        """A field that must be a text; None when it is missing or not one."""
        value = self.values.get(field)
        return value if isinstance(value, str) else None

    def integer(self, field: str) -> int | None:
        """A field that must be a whole number; None when it is missing or not one."""
        value = self.values.get(field)
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        return value if is_integer else None

    @property
    def architecture(self) -> str | None:
        """Such as ``"llama"``."""
        return self.text("general.architecture")

    @property
    def context_length(self) -> int | None:
        """Tokens that the model was trained for."""
        length = self.integer(f"{self.architecture}.context_length")
        return length if length is not None and length > 0 else None

    @property
    def chat_template(self) -> str | None:
        """The model's own jinja template."""
        return self.text("tokenizer.chat_template")

    @property
    def quantization(self) -> str | None:
        """Such as ``"Q4_K_M"``; None for one that this version does not know."""
        number = self.integer("general.file_type")
        return None if number is None else FILE_TYPES.get(number)

    @property
    def is_embedding(self) -> bool:
        """Whether the model embeds text and does not generate it."""
        pooling = self.integer(f"{self.architecture}.pooling_type")
        return bool(_EMBEDDER.fullmatch(self.architecture or "") or pooling)


def read_header(path: Path) -> Header:
    """Read the header of a GGUF file.

    Raises:
        NotGGUF: The file is something else.
        GGUFError: The file is damaged, incomplete or can't be read.
    """
    return _with_file(path, _header)


def read_array(path: Path, field: str) -> list[Any]:
    """All items of an array field, however many; ``[]`` without that field.

    Raises:
        GGUFError: As `read_header`.
    """

    def read(cursor: Cursor) -> list[Any]:
        array = _header(cursor).arrays.get(field)
        if array is None:
            return []
        cursor.restart(array.at)
        return _items(cursor, array)

    return _with_file(path, read)


def control_tokens(path: Path) -> list[str]:
    """Texts of the tokens that steer a model, in the order of their ids.

    These are what a vocabulary marks as control or as user-defined. Text of users that
    holds one must not be read as that token.

    Raises:
        GGUFError: As `read_header`.
    """

    def read(cursor: Cursor) -> list[str]:
        arrays = _header(cursor).arrays
        tokens = arrays.get("tokenizer.ggml.tokens")
        kinds = arrays.get("tokenizer.ggml.token_type")
        if tokens is None or kinds is None or tokens.kind != _STRING:
            return []
        cursor.restart(kinds.at)
        wanted = [
            number
            for number, kind in enumerate(_items(cursor, kinds))
            if kind in (_CONTROL, _USER_DEFINED)
        ]
        return [text for text in _strings(cursor, tokens, wanted) if text]

    return _with_file(path, read)


def _with_file(path: Path, read: Callable[[Cursor], _T]) -> _T:
    """Run a reader on a file, and say of every failure which file it was."""
    try:
        # Opening a pipe would wait for its other end.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise GGUFError(path, "it is not a regular file")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            magic = file.read(4)
            if magic != b"GGUF":
                problem = _OTHER_SIGNS.get(magic, f"it begins with {magic!r}")
                raise NotGGUF(path, problem if size else "it is empty")
            return read(Cursor(file, size))
    except Malformed as exc:
        raise GGUFError(path, str(exc)) from None
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        raise GGUFError(path, f"it can't be read: {exc}") from exc


def _header(cursor: Cursor) -> Header:
    cursor.skip(4)
    version = cursor.number(U32)
    if version not in (2, 3):
        big_endian = version and not version & 0xFFFF
        what = "is big-endian" if big_endian else f"has version {version} of the format"
        raise Malformed(f"it {what}; versions 2 and 3, little-endian, can be read")
    tensors = cursor.number(U64)
    fields = cursor.number(U64)
    if tensors > _MOST_TENSORS or fields > _MOST_FIELDS:
        raise Malformed(f"it claims to have {tensors} tensors and {fields} fields")
    values, arrays = _fields(cursor, fields)
    params = _tensors(cursor, tensors, values.get("general.alignment", 32))
    header = Header(
        version=version,
        size=cursor.size,
        values=values,
        arrays=arrays,
        tensors=tensors,
        params=params,
    )
    return attrs.evolve(
        header, bos=_token(cursor, header, "bos"), eos=_token(cursor, header, "eos")
    )


def _fields(cursor: Cursor, count: int) -> tuple[dict[str, Any], dict[str, ArrayAt]]:
    values: dict[str, Any] = {}
    arrays: dict[str, ArrayAt] = {}
    for _ in range(count):
        name = cursor.text()
        if name in values or name in arrays:
            raise Malformed(f"its field {name[:200]!r} occurs twice")
        kind = cursor.number(U32)
        if kind == _STRING:
            length = cursor.number(U64)
            if length > LONG_TEXT:
                cursor.skip(length)
            else:
                values[name] = cursor.bytes(length).decode("utf-8", "replace")
        elif kind == _ARRAY:
            arrays[name] = array = _array(cursor, name)
            if array.count <= SMALL_ARRAY:
                after = cursor.at
                values[name] = _items(cursor, array)
                cursor.at = after
        elif kind in _NUMBERS:
            values[name] = cursor.number(_NUMBERS[kind])
        else:
            raise Malformed(f"its field {name[:200]!r} has the unknown type {kind}")
    return values, arrays


def _array(cursor: Cursor, name: str) -> ArrayAt:
    """Skip an array; returns where it is."""
    kind = cursor.number(U32)
    count = cursor.number(U64)
    at = cursor.at
    if kind == _STRING:
        # Asked before a loop over them begins; each takes 8 bytes at least.
        if count > min(_MOST_TEXTS, (cursor.size - at) // 8):
            raise Malformed(
                f"it ends early or is damaged: its field {name[:200]!r} has {count} "
                f"texts, and {cursor.size - at} bytes follow"
            )
        return ArrayAt(kind, count, at, tuple(cursor.skip_strings(count, _STRIDE)))
    if kind not in _NUMBERS:
        raise Malformed(f"its field {name[:200]!r} is an array of the type {kind}")
    cursor.skip(count * _NUMBERS[kind].size)
    return ArrayAt(kind, count, at)


def _items(cursor: Cursor, array: ArrayAt) -> list[Any]:
    """Read an array that `_array` has found to lie within the file."""
    cursor.at = array.at
    if array.kind == _STRING:
        return [cursor.text() for _ in range(array.count)]
    form = _NUMBERS[array.kind]
    return [item for (item,) in form.iter_unpack(cursor.bytes(array.count * form.size))]


def _strings(cursor: Cursor, array: ArrayAt, wanted: Iterable[int]) -> list[str]:
    """Read some items of an array of texts, by their numbers."""
    cursor.restart(array.at)
    places = cursor.skip_strings(array.count, 1)
    cursor.restart(array.at)
    texts = []
    for number in wanted:
        if number < len(places):
            cursor.at = places[number]
            texts.append(cursor.text())
    return texts


def _tensors(cursor: Cursor, count: int, alignment: object) -> int:
    """Check that the weights are all there; returns how many they are."""
    params = end = 0
    for _ in range(count):
        cursor.skip(cursor.number(U64))  # the name
        dimensions = cursor.number(U32)
        if dimensions > 4:
            raise Malformed(f"a tensor claims to have {dimensions} dimensions")
        elements = 1
        for _ in range(dimensions):
            elements *= cursor.number(U64)
        block, size = TENSOR_TYPES.get(cursor.number(U32), (1, 0))
        end = max(end, cursor.number(U64) + -(-elements // block) * size)
        params += elements
    if not isinstance(alignment, int) or alignment <= 0:
        raise Malformed(f"its alignment is {alignment!r}")
    end += -(-cursor.at // alignment) * alignment
    if count and end > cursor.size:
        raise Malformed(f"it has {cursor.size} bytes, and its weights need {end}")
    return params


def _token(cursor: Cursor, header: Header, name: str) -> str:
    """Text of the token whose id stands in a field, ``""`` if there is none."""
    number = header.integer(f"tokenizer.ggml.{name}_token_id")
    tokens = header.arrays.get("tokenizer.ggml.tokens")
    if number is None or tokens is None or tokens.kind != _STRING:
        return ""
    if not 0 <= number < tokens.count:
        return ""
    cursor.restart(tokens.marks[number // _STRIDE])
    cursor.skip_strings(number % _STRIDE, _STRIDE)
    return cursor.text()
