"""What is written as GGUF is read back as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmstudio.server.gguf import read_array, read_header
from lmstudio.server.gguf_writer import ALIGNMENT, Tensor, gguf

FIELDS = {
    "general.architecture": "bert",
    "text": "Ä\0ö",
    "number": 2**32 - 1,
    "fraction": 0.5,
    "yes": True,
    "no": False,
    "texts": ["a", "", "ü"],
    "numbers": [-1, 0, 2**31 - 1],
    "fractions": [0.5, -2.0],
    "none": [],
}


def tensor(name: str, size: int, *pieces: bytes) -> Tensor:
    """A row of 32-bit floats."""
    return Tensor(name=name, shape=(1, size // 4), kind=0, size=size, data=pieces)


def test_fields(tmp_path: Path) -> None:
    """Every kind of field is read as it was written."""
    path = tmp_path / "a.gguf"
    path.write_bytes(b"".join(gguf(FIELDS, [])))
    header = read_header(path)
    assert FIELDS == header.values
    assert FIELDS["numbers"] == read_array(path, "numbers")
    assert (3, 0, 0) == (header.version, header.tensors, header.params)


def test_tensors(tmp_path: Path) -> None:
    """Tensors stand one after another, each where readers look for it."""
    path = tmp_path / "a.gguf"
    first, second = tensor("first", 12, b"1234", b"56789abc"), tensor("b", 4, b"wxyz")
    data = b"".join(gguf({"general.architecture": "bert"}, [first, second]))
    path.write_bytes(data)
    header = read_header(path)
    assert (2, 4) == (header.tensors, header.params)
    assert 0 == len(data) % ALIGNMENT
    assert b"123456789abc" + bytes(20) + b"wxyz" + bytes(28) == data[-2 * ALIGNMENT :]


def test_shape() -> None:
    """The dimension whose neighbours stand side by side comes first in the file."""
    wide = Tensor(name="t", shape=(2, 3), kind=1, size=12, data=[bytes(12)])
    data = b"".join(gguf({}, [wide]))
    dimensions = (3).to_bytes(8, "little") + (2).to_bytes(8, "little")
    assert b"t" + (2).to_bytes(4, "little") + dimensions in data


@pytest.mark.parametrize("pieces", [[], [b"123"], [b"1234", b"5"]])
def test_wrong_size(pieces: list[bytes]) -> None:
    """A tensor that brings less or more than it announced is refused."""
    with pytest.raises(ValueError, match=r"t has \d bytes, not 4"):
        list(gguf({}, [tensor("t", 4, *pieces)]))
