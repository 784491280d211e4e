"""A GGUF header is read quickly, and whatever else a file holds is one typed error."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gguf_files import (
    Typed,
    gguf_bytes,
    i32s,
    model_fields,
    packed,
    strings,
    text,
    u32,
    write_gguf,
)
from lmstudio.server.gguf import (
    GGUFError,
    Header,
    NotGGUF,
    control_tokens,
    read_array,
    read_header,
)
from lmstudio.server.gguf_cursor import U64, Cursor, Malformed

MANY = 3000  # items: more than are kept, and more than one stride of marks


def start(*, tensors: int = 0, fields: int = 1, version: int = 3) -> bytes:
    """The first bytes of a file."""
    return b"GGUF" + struct.pack("<IQQ", version, tensors, fields)


def problem_of(path: Path, data: bytes) -> str:
    """What is said to be wrong with a file of these bytes."""
    path.write_bytes(data)
    with pytest.raises(GGUFError) as caught:
        read_header(path)
    assert path == caught.value.path
    assert str(path) in caught.value.title
    return caught.value.problem


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test puts its file."""
    return tmp_path / "file.gguf"


def test_what_a_model_is(path: Path) -> None:
    """The header tells what the server must know of a model."""
    write_gguf(
        path, architecture="qwen2", context_length=4096, chat_template="{{ tools }}"
    )
    header = read_header(path)
    assert "qwen2" == header.architecture
    assert 4096 == header.context_length
    assert "{{ tools }}" == header.chat_template
    assert "Q4_1" == header.quantization
    assert 256 == header.params
    assert ("<s>", "</s>") == (header.bos, header.eos)
    assert not header.is_embedding
    assert path.stat().st_size == header.size


@pytest.mark.parametrize("version", [2, 3])
def test_versions(path: Path, version: int) -> None:
    """Both versions in use are read."""
    path.write_bytes(gguf_bytes(model_fields(), version=version))
    assert version == read_header(path).version


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (0, 255),
        (1, -128),
        (2, 65535),
        (3, -32768),
        (4, 2**32 - 1),
        (5, -(2**31)),
        (6, 1.5),
        (7, True),
        (8, "ein Täxt"),
        (10, 2**64 - 1),
        (11, -(2**63)),
        (12, 0.1),
    ],
)
def test_types(path: Path, kind: int, value: object) -> None:
    """Every type of the format is read, alone and in arrays short and long."""
    items = [value] * MANY
    fields = {
        "one": Typed(kind, value),
        "few": Typed(9, items[:64], kind),
        "many": Typed(9, items, kind),
        "last": Typed(kind, value),
    }
    path.write_bytes(gguf_bytes(fields))
    header = read_header(path)
    assert {"one": value, "few": items[:64], "last": value} == header.values
    assert MANY == header.arrays["many"].count
    assert items == read_array(path, "many")
    assert items[:64] == read_array(path, "few")
    assert [] == read_array(path, "none")


def test_tokens_of_a_large_vocabulary(path: Path) -> None:
    """Tokens are found by their id among thousands of different length."""
    tokens = [f"t{number}" * (number % 7) for number in range(MANY)]
    kinds = [3 if number % 1000 == 1 else 1 for number in range(MANY)]
    kinds[2047] = 4
    write_gguf(
        path,
        extra={
            "tokenizer.ggml.tokens": strings(tokens),
            "tokenizer.ggml.token_type": i32s(kinds),
            "tokenizer.ggml.bos_token_id": u32(1024),
            "tokenizer.ggml.eos_token_id": u32(2999),
        },
    )
    header = read_header(path)
    assert (tokens[1024], tokens[2999]) == (header.bos, header.eos)
    assert "" == tokens[1001], "an empty token can't be in a text, and is left out"
    assert [tokens[1], tokens[2001], tokens[2047]] == control_tokens(path)


def test_control_tokens(path: Path) -> None:
    """Control and user-defined tokens are listed, ordinary ones are not."""
    assert ["<s>", "</s>", "<tool>"] == control_tokens(write_gguf(path))


@pytest.mark.parametrize(
    "extra",
    [
        {"tokenizer.ggml.tokens": i32s([1, 2])},
        {"tokenizer.ggml.token_type": u32(3)},
        {"tokenizer.ggml.token_type": i32s([1] * 9), "tokenizer.ggml.tokens": "x"},
    ],
)
def test_no_usable_vocabulary(path: Path, extra: dict[str, object]) -> None:
    """Fields of another type than usual are as good as missing."""
    assert [] == control_tokens(write_gguf(path, extra=extra))


def test_more_types_than_tokens(path: Path) -> None:
    """A kind without a token is left out."""
    kinds = {"tokenizer.ggml.token_type": i32s([3] * 100)}
    assert ["<s>", "</s>", "<tool>", "a"] == control_tokens(
        write_gguf(path, extra=kinds)
    )


@pytest.mark.parametrize("number", [-1, 4, 2**31 - 1])
def test_token_id_out_of_range(path: Path, number: int) -> None:
    """An id that is no token's stands for no text."""
    write_gguf(path, extra={"tokenizer.ggml.bos_token_id": Typed(5, number)})
    assert "" == read_header(path).bos


@pytest.mark.parametrize(
    ("architecture", "extra", "expected"),
    [
        ("llama", {}, False),
        ("bert", {}, True),
        ("nomic-bert-moe", {}, True),
        ("jina-bert-v2", {}, True),
        ("albertina", {}, False),
        ("qwen3", {"qwen3.pooling_type": u32(3)}, True),
        ("qwen3", {"qwen3.pooling_type": u32(0)}, False),
    ],
)
def test_embedding_models(
    path: Path, architecture: str, extra: dict[str, object], expected: bool
) -> None:
    """Models that embed are told by their architecture or their pooling."""
    header = read_header(write_gguf(path, architecture=architecture, extra=extra))
    assert expected == header.is_embedding


def test_fields_of_the_wrong_type(path: Path) -> None:
    """A field of another type than usual counts as missing."""
    extra = {
        "general.architecture": u32(1),
        "general.file_type": "Q4_1",
        "tokenizer.chat_template": True,
        "tokenizer.ggml.bos_token_id": True,
    }
    header = read_header(write_gguf(path, extra=extra))
    assert (None, None, None) == (
        header.architecture,
        header.quantization,
        header.chat_template,
    )
    assert ("", "</s>") == (header.bos, header.eos)
    assert header.context_length is None


def test_unknown_file_type(path: Path) -> None:
    """A quantization of a later version has no name."""
    assert read_header(write_gguf(path, file_type=999)).quantization is None


def test_long_text_is_left_out(path: Path) -> None:
    """A text over a megabyte is skipped, and what follows it is read."""
    extra = {"tokenizer.huggingface.json": "x" * (1 << 20) + "x", "after": "it"}
    header = read_header(write_gguf(path, extra=extra))
    assert "tokenizer.huggingface.json" not in header.values
    assert "it" == header.values["after"]


def test_fields_that_cross_a_window(path: Path) -> None:
    """Nothing is lost where one read of the file ends and the next begins."""
    fields = {f"field{number}": "v" * 997 for number in range(2500)}
    path.write_bytes(gguf_bytes(fields))
    assert fields == read_header(path).values


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "it is empty"),
        (b"GG", "it begins with b'GG'"),
        (b"version https://git-lfs", "a Git LFS pointer"),
        (b"PK\x03\x04rest", "a zip archive"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"ggjt" + bytes(99), "the older GGML format"),
    ],
)
def test_something_else(path: Path, data: bytes, expected: str) -> None:
    """A file that is no GGUF file at all is told by its first bytes."""
    path.write_bytes(data)
    with pytest.raises(NotGGUF) as caught:
        read_header(path)
    assert expected in caught.value.problem


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (start(version=1), "version 1"),
        (start(version=4), "version 4"),
        (start(version=0), "version 0"),
        (start(version=3 << 24), "big-endian"),
        (start(fields=2**63), "claims to have"),
        (start(tensors=2**63), "claims to have"),
        (start() + struct.pack("<Q", 2**63), "ends early"),
        (start() + text("f") + struct.pack("<IQ", 8, 2**64 - 1), "ends early"),
        (start() + text("f") + struct.pack("<IQ", 8, 1 << 40), "ends early"),
        (start() + text("f") + struct.pack("<IIQ", 9, 8, 2**61), "texts"),
        (start() + text("f") + struct.pack("<IIQ", 9, 12, 2**61), "ends early"),
        (start() + text("f") + struct.pack("<IIQQ", 9, 8, 1, 2**63), "ends early"),
        (start() + text("f") + struct.pack("<IIQ", 9, 9, 1), "array of the type 9"),
        (start() + text("f") + struct.pack("<I", 13), "unknown type 13"),
        (start(fields=2) + 2 * (text("f") + packed(1)), "occurs twice"),
        (start(tensors=1, fields=0) + text("t") + struct.pack("<I", 5), "5 dimensions"),
        (
            start(tensors=1, fields=0) + text("t") + struct.pack("<IIQ", 0, 0, 0),
            "its weights need",
        ),
        (gguf_bytes({"general.alignment": u32(0)}), "alignment is 0"),
        (gguf_bytes({"general.alignment": "x"}), "alignment is 'x'"),
        (
            start(tensors=1, fields=0)
            + text("t")
            + struct.pack("<IQQIQ", 2, 2**64 - 1, 2**64 - 1, 0, 2**64 - 1),
            "its weights need",
        ),
        (gguf_bytes(model_fields())[:-1], "its weights need"),
    ],
)
def test_malformed(path: Path, data: bytes, expected: str) -> None:
    """Whatever a header claims, the error says what is wrong."""
    assert expected in problem_of(path, data)


def test_every_truncation(path: Path) -> None:
    """A file that ends anywhere too early is an error."""
    path.write_bytes(gguf_bytes({"few": i32s([1, 2]), "texts": strings(["a", "b"])}))
    read_header(path)
    for length in reversed(range(path.stat().st_size)):
        os.truncate(path, length)
        with pytest.raises(GGUFError):
            read_header(path)


def test_hostile_counts_cost_nothing(path: Path) -> None:
    """A file of 100 GB that claims billions of texts is refused at once."""
    path.write_bytes(start() + text("f") + struct.pack("<IIQ", 9, 8, 10**10))
    os.truncate(path, 100 * 10**9)  # a hole, no space on the disk
    with pytest.raises(GGUFError, match="has 10000000000 texts"):
        read_header(path)


def test_hostile_lengths_cost_little(path: Path) -> None:
    """A header that goes on for gigabytes is refused after few reads."""
    jump = 1 << 24
    with path.open("wb") as file:
        file.write(start() + text("f") + struct.pack("<IIQ", 9, 8, 1000))
        for number in range(1000):
            file.write(struct.pack("<Q", jump - 8))
            if number < 999:
                file.seek(jump - 8, os.SEEK_CUR)
        file.truncate(1000 * jump + 1024)
    tracemalloc.start()
    try:
        with pytest.raises(GGUFError, match="more than 67108864 bytes"):
            read_header(path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_large_weights_are_not_read(path: Path) -> None:
    """A header before 100 GB of weights is read as quickly as any."""
    elements = 25 * 10**9
    fields = {"general.architecture": "llama"}
    head = gguf_bytes(fields, {})
    tensor = text("w") + struct.pack("<IQIQ", 1, elements, 0, 0)
    count = struct.pack("<Q", 1)
    path.write_bytes(head[:8] + count + head[16:].rstrip(b"\0") + tensor)
    os.truncate(path, elements * 4 + 1024)
    assert elements == read_header(path).params


def test_not_a_file(tmp_path: Path) -> None:
    """A folder, a pipe, nothing at all: an error, and no waiting."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "none", Path("a\0b")):
        with pytest.raises(GGUFError) as caught:
            read_header(path)
        assert path == caught.value.path


def test_file_that_shrinks() -> None:
    """A file that becomes shorter while it is read is one that ends early."""
    cursor = Cursor(io.BytesIO(b"1234567"), 100)
    with pytest.raises(Malformed, match="ends early"):
        cursor.number(U64)


def test_errors_travel() -> None:
    """An error survives pickling, with its fields and its sentence."""
    error = NotGGUF(Path("x.gguf"), "it is empty")
    again = pickle.loads(pickle.dumps(error))
    assert (NotGGUF, error.path, error.problem, str(error)) == (
        type(again),
        again.path,
        again.problem,
        str(again),
    )


SEED = gguf_bytes(
    model_fields(
        chat_template="{{ messages }}",
        extra={
            "floats": Typed(9, [0.5] * 100, 6),
            "names": strings(["one", "two"] * 50),
            "flag": True,
        },
    )
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file that is written over and over."""
    return tmp_path_factory.mktemp("fuzz") / "file.gguf"


@pytest.mark.slow
@settings(max_examples=150, deadline=None, database=None)
@given(
    changes=st.lists(
        st.tuples(
            st.integers(4, len(SEED) - 1),
            st.one_of(
                st.binary(min_size=1, max_size=8),
                st.sampled_from([2**64 - 1, 2**63, 2**32, 2**31]).map(
                    lambda number: struct.pack("<Q", number)
                ),
            ),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_damaged_bytes(scratch: Path, changes: list[tuple[int, bytes]]) -> None:
    """Bytes changed anywhere give a header or the one error, nothing else."""
    data = bytearray(SEED)
    for at, replacement in changes:
        data[at : at + len(replacement)] = replacement
    scratch.write_bytes(data)
    for read in (read_header, control_tokens):
        try:
            value = read(scratch)
        except GGUFError as exc:
            assert exc.problem
        else:
            assert isinstance(value, Header | list)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, database=None)
@given(data=st.binary(max_size=200))
def test_any_bytes(scratch: Path, data: bytes) -> None:
    """Any bytes after the first four give a header or the one error."""
    scratch.write_bytes(b"GGUF\x03\0\0\0" + data)
    try:
        header = read_header(scratch)
    except GGUFError as exc:
        assert exc.problem
    else:
        assert scratch.stat().st_size == header.size
