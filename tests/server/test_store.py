"""The store lists what is in the models folder, and finds nothing outside it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

import lmstudio.server.store as store_module
from gguf_files import gguf_bytes, model_fields, u32, write_gguf
from lmstudio.server.gguf import GGUFError, Header, NotGGUF
from lmstudio.server.infos import on_disk
from lmstudio.server.lookup import ModelNotOnDisk
from lmstudio.server.store import Store

STARTER = "HuggingFaceTB/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty models folder."""
    return tmp_path / "models"


@pytest.fixture
def store(folder: Path) -> Store:
    """A store of it."""
    return Store(folder)


def keys(store: Store) -> list[str]:
    """Keys of all models, in the order of the list."""
    return [model.key for model in store.list()]


def variants(store: Store) -> list[str]:
    """Variants of all models, in the order of the list."""
    return [model.variant for model in store.list()]


def test_all_about_a_model(folder: Path, store: Store) -> None:
    """A model is described by its header and its name."""
    path = write_gguf(
        folder / STARTER,
        context_length=8192,
        chat_template="{{ tools }}",
        extra={"general.size_label": "135M"},
    )
    [model] = store.list()
    assert "smollm2-135m-instruct" == model.key
    assert "smollm2-135m-instruct@q4_1" == model.variant
    assert path == model.path
    assert STARTER == model.relative_path
    assert "HuggingFaceTB" == model.publisher
    assert "SmolLM2 135M Instruct" == model.display_name
    assert path.stat().st_size == model.size
    assert "llama" == model.architecture
    assert "135M" == model.params
    assert ("Q4_1", 4) == (model.quantization, model.bits)
    assert 8192 == model.max_context_length
    assert ("<s>", "</s>") == (model.bos, model.eos)
    assert model.trained_for_tools
    assert not model.is_embedding


def test_no_folder(store: Store) -> None:
    """Without a models folder there are no models, and that is no error."""
    assert [] == store.list()
    assert [] == store.broken()
    with pytest.raises(ModelNotOnDisk, match="no models on disk"):
        store.find("any")


def test_relative_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths of models are absolute, also when the folder's was not."""
    path = write_gguf(folder / STARTER)
    monkeypatch.chdir(tmp_path)
    store = Store(Path("models"))
    monkeypatch.chdir("/")
    assert [path] == [model.path for model in store.list()]


def test_what_is_no_model(folder: Path, store: Store) -> None:
    """Projectors, adapters, hidden files and other folders are left out."""
    for name in (
        "loose.gguf",
        "pub/loose.gguf",
        "pub/repo/deeper/x.gguf",
        "pub/repo/mmproj-F16.gguf",
        "pub/repo/x.mmproj-f16.gguf",
        "pub/repo/.part.gguf",
        ".hidden/repo/x.gguf",
        "pub/.hidden/x.gguf",
        "pub/repo/x.bin",
    ):
        write_gguf(folder / name)
    write_gguf(folder / "pub/repo/vision.gguf", architecture="clip")
    write_gguf(folder / "pub/repo/lora.gguf", extra={"general.type": "adapter"})
    (folder / "pub/repo/folder.gguf").mkdir()
    assert [] == store.list()
    assert [] == store.broken()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("p/Llama-3.2-1B-GGUF/Llama-3.2-1B-Q4_K_M.gguf", "llama-3.2-1b@q4_k_m"),
        ("p/r/qwen2.5-0.5b-instruct-q8_0.gguf", "qwen2.5-0.5b-instruct@q8_0"),
        ("p/r/Qwen3-4B-UD-Q4_K_XL.gguf", "qwen3-4b@ud-q4_k_xl"),
        ("p/r/phi.IQ2_XXS.GGUF", "phi@iq2_xxs"),
        ("p/r/gpt-oss-20b-MXFP4.gguf", "gpt-oss-20b@mxfp4"),
        ("p/r/tiny-f16.gguf", "tiny@f16"),
        ("p/r/no-suffix.gguf", "no-suffix@q4_1"),
        ("p/My-Model-GGUF/model.gguf", "my-model@q4_1"),
        ("p/My-Model-GGUF/ggml-model-q4_0.gguf", "my-model@q4_0"),
        ("p/My-Model.Q8_0.gguf/Q8_0.gguf", "my-model@q8_0"),
    ],
)
def test_keys(folder: Path, store: Store, path: str, expected: str) -> None:
    """A key is the name without quantization, in lower case; the variant has it."""
    write_gguf(folder / path)
    assert [expected] == variants(store)
    assert [expected.partition("@")[0]] == keys(store)


def test_unknown_quantization(folder: Path, store: Store) -> None:
    """A model whose quantization nobody tells has its key for a variant."""
    write_gguf(folder / "p/r/odd.gguf", file_type=None)
    [model] = store.list()
    assert ("odd", None, None) == (model.variant, model.quantization, model.bits)


def test_embedding_model(folder: Path, store: Store) -> None:
    """Models that embed have a key that says so, once."""
    for name in ("nomic-embed-text-v1.5.Q8_0", "text-embedding-tiny"):
        write_gguf(folder / f"p/r/{name}.gguf", architecture="nomic-bert")
    assert ["text-embedding-nomic-embed-text-v1.5", "text-embedding-tiny"] == keys(
        store
    )
    assert all(model.is_embedding for model in store.list())


def test_several_quantizations(folder: Path, store: Store) -> None:
    """Quantizations of one model share its key; the first in the alphabet is chosen."""
    for name in ("m-Q8_0.gguf", "m-Q4_K_M.gguf", "other-Q4_0.gguf"):
        write_gguf(folder / "p/r" / name)
    chosen, candidates = store.find("m")
    assert "m@q4_k_m" == chosen.variant
    assert ["m@q4_k_m", "m@q8_0"] == [model.variant for model in candidates]
    assert ("m@q8_0", []) == (store.find("m@q8_0")[0].variant, store.find("m@q8_0")[1])


def test_one_name_of_two_publishers(folder: Path, store: Store) -> None:
    """Models of one name are told apart by publisher; the bare name fits them all."""
    for publisher in ("Bob", "alice"):
        write_gguf(folder / publisher / "M-GGUF" / "M.Q4_0.gguf")
    assert ["alice/m", "bob/m"] == keys(store)
    chosen, candidates = store.find("m")
    assert "alice/m" == chosen.key
    assert ["alice/m", "bob/m"] == [model.key for model in candidates]
    assert "bob/m@q4_0" == store.find("bob/m@q4_0")[0].variant
    assert "bob/m" == store.find("Bob/M-GGUF")[0].key


def test_one_name_twice_with_one_publisher(folder: Path, store: Store) -> None:
    """Two repos of one publisher with a model of one name have different keys."""
    for repo in ("m-v1", "m-v2"):
        write_gguf(folder / "p" / repo / "m.Q4_0.gguf")
    assert ["p/m-v1/m", "p/m-v2/m"] == keys(store)
    assert "p/m-v2/m" == store.find("p/m-v2/m")[0].key


def test_split_model(folder: Path, store: Store) -> None:
    """The parts of a split model are one model, of their common size."""
    tensors = {"w": [1000, 1000]}
    paths = [
        write_gguf(folder / f"p/r/big-Q4_0-{part:05}-of-00003.gguf", tensors=tensors)
        for part in (1, 2, 3)
    ]
    [model] = store.list()
    assert "big@q4_0" == model.variant
    assert paths[0] == model.path
    assert sum(path.stat().st_size for path in paths) == model.size
    assert "3M" == model.params
    assert model == store.find("big-Q4_0-00001-of-00003.gguf")[0]


def test_incomplete_split_model(folder: Path, store: Store) -> None:
    """A split model without all of its parts is broken, and says what it lacks."""
    write_gguf(folder / "p/r/big-00002-of-00009.gguf")
    assert [] == store.list()
    [broken] = store.broken()
    assert "p/r/big-00002-of-00009.gguf" == broken.relative_path
    assert "1, 3, 4, 5, 6, ..." in broken.error.problem


@pytest.mark.parametrize("name", ["a-00000-of-00002", "a-00003-of-00002"])
def test_impossible_part_numbers(folder: Path, store: Store, name: str) -> None:
    """Numbers that count no parts are an ordinary name."""
    write_gguf(folder / f"p/r/{name}.gguf")
    assert [name] == keys(store)


def test_broken_files(
    folder: Path, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Broken files are left out, reported, and warned of once."""
    write_gguf(folder / "p/r/good.gguf")
    whole = gguf_bytes(model_fields())
    (folder / "p/r/short.gguf").write_bytes(whole[:-1])
    (folder / "p/r/text.gguf").write_text("hello")
    write_gguf(folder / "p/r/nameless.gguf", extra={"general.architecture": ""})
    (folder / "p/r/link.gguf").symlink_to(folder / "gone.gguf")
    with caplog.at_level(logging.WARNING, "lmstudio.server.store"):
        assert ["good"] == keys(store)
        assert ["good"] == keys(store)
    assert 4 == len(caplog.records)
    assert [
        ("p/r/link.gguf", GGUFError),
        ("p/r/nameless.gguf", GGUFError),
        ("p/r/short.gguf", GGUFError),
        ("p/r/text.gguf", NotGGUF),
    ] == [(file.relative_path, type(file.error)) for file in store.broken()]


@pytest.mark.parametrize(
    "name", ["p/r/Bad.Q4_0.gguf", "Bad.Q4_0.gguf", "bad.q4_0", "bad", "p/r"]
)
def test_asking_for_a_broken_file(folder: Path, store: Store, name: str) -> None:
    """Who asks for a broken file hears what is wrong with it."""
    write_gguf(folder / "p/r/Bad.Q4_0.gguf").write_bytes(b"<html>")
    with pytest.raises(NotGGUF, match="web page"):
        store.find(name)
    with pytest.raises(ModelNotOnDisk):
        store.find("other")


def test_each_caller_has_its_own_error(folder: Path, store: Store) -> None:
    """The same file's error is another instance each time."""
    write_gguf(folder / "p/r/bad.gguf").write_bytes(b"")
    assert store.broken()[0].error is not store.broken()[0].error


def test_second_scan_reads_nothing(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A header is read once, and again when the file changes."""
    reads: list[str] = []
    original = store_module.read_header

    def counting(path: Path) -> Header:
        reads.append(path.name)
        return original(path)

    monkeypatch.setattr(store_module, "read_header", counting)
    one = write_gguf(folder / "p/r/one.gguf")
    write_gguf(folder / "p/r/two.gguf")
    (folder / "p/r/zero.gguf").write_bytes(b"")
    before = store.list()
    assert ["one.gguf", "two.gguf", "zero.gguf"] == sorted(reads)

    reads.clear()
    assert before == store.list()
    assert [] == reads

    write_gguf(one, context_length=77)
    status = one.stat()
    os.utime(one, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert 77 == store.list()[0].max_context_length
    assert ["one.gguf"] == reads

    one.unlink()
    assert ["two"] == keys(store)


def test_links_to_files(folder: Path, tmp_path: Path, store: Store) -> None:
    """A link in the folder to a file elsewhere is a model like any other."""
    target = write_gguf(tmp_path / "elsewhere.gguf")
    link = folder / "p/r/linked.gguf"
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    [model] = store.list()
    assert ("linked", link) == (model.key, model.path)
    assert target.stat().st_size == model.size


def test_links_in_a_circle(folder: Path, store: Store) -> None:
    """Links that lead to themselves do no harm."""
    write_gguf(folder / "p/r/x.gguf")
    (folder / "p/up").symlink_to(folder)
    (folder / "p/r/self.gguf").symlink_to("self.gguf")
    assert ["x"] == keys(store)
    assert ["p/r/self.gguf"] == [file.relative_path for file in store.broken()]


def test_no_way_out_of_the_folder(folder: Path, tmp_path: Path, store: Store) -> None:
    """No name reaches a file outside the models folder."""
    write_gguf(folder / "p/r/in.gguf")
    out = write_gguf(tmp_path / "out/r/out.gguf")
    for name in (
        str(out),
        "../out/r/out.gguf",
        "p/r/../../../out/r/out.gguf",
        "p/r/./in.gguf",
        "p//r/in.gguf",
        "~/out.gguf",
        "",
        "/",
        ".",
        "p",
        "in.gguf\0",
        "*",
        "x" * 10**6,
    ):
        with pytest.raises(ModelNotOnDisk):
            store.find(name)
    assert "in" == store.find(str(folder / "p/r/in.gguf"))[0].key


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_names_that_are_not_text(folder: Path, store: Store) -> None:
    """A file whose name is not UTF-8 is left out: it could not be sent to anyone."""
    write_gguf(folder / "p/r/good.gguf")
    write_gguf(Path(os.fsdecode(os.fsencode(folder / "p/r/b") + b"\xff.gguf")))
    assert ["good"] == keys(store)
    assert [] == store.broken()


def test_unreadable_folder(
    folder: Path,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A folder that may not be read is warned of, and the others are listed."""
    write_gguf(folder / "a/r/x.gguf")
    write_gguf(folder / "b/r/y.gguf")
    listdir = os.listdir

    def refusing(path: Path) -> list[str]:
        if path == folder / "a":
            raise PermissionError(13, "Permission denied", str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refusing)
    assert ["y"] == keys(store)
    assert "Permission denied" in caplog.text


@pytest.mark.parametrize(
    ("extra", "elements", "expected"),
    [
        ({"general.size_label": "8x7B"}, 10, "8x7B"),
        ({"general.size_label": "30B-A3B"}, 10, "30B-A3B"),
        ({"general.size_label": "<b>big</b>"}, 10, "10"),
        ({"general.size_label": u32(1)}, 1000, "1K"),
        ({}, 134_500_000, "134M"),
        ({}, 7_240_000_000, "7.2B"),
        ({}, 1_000_000_000_000, "1T"),
        ({}, 0, None),
    ],
)
def test_number_of_parameters(
    folder: Path,
    store: Store,
    extra: dict[str, object],
    elements: int,
    expected: str | None,
) -> None:
    """The size is the header's own word if it is one, else it is counted."""
    path = write_gguf(folder / "p/r/x.gguf", extra=extra, tensors={"w": [0]})
    data = path.read_bytes()
    at = data.index(b"\x01\0\0\0\0\0\0\0w\x01\0\0\0") + 13
    path.write_bytes(data[:at] + elements.to_bytes(8, "little") + data[at + 8 :])
    os.truncate(path, len(data) + 4 * elements + 64)  # a hole, no space on the disk
    assert [expected] == [model.params for model in store.list()]


def test_absurd_context_length(folder: Path, store: Store) -> None:
    """A context length is one that an engine can count to."""
    write_gguf(folder / "p/r/a.gguf", context_length=2**32 - 1)
    write_gguf(folder / "p/r/b.gguf", context_length=0)
    lengths = [model.max_context_length for model in store.list()]
    assert [2**31 - 1, 2048] == lengths


def test_variants(tmp_path: Path) -> None:
    """Each file of a key knows all of them; the key alone means the one in front."""
    for name in ("Tiny.Q8_0.gguf", "Tiny.Q4_1.gguf"):
        write_gguf(tmp_path / "pub" / "Tiny-GGUF" / name)
    write_gguf(tmp_path / "pub" / "Other-GGUF" / "Other.gguf", file_type=None)
    store = Store(tmp_path)
    found = {model.variant: model.variants for model in store.list()}
    both = ("tiny@q4_1", "tiny@q8_0")
    assert {"other": ("other",), both[0]: both, both[1]: both} == found
    assert both[0] == store.find("tiny")[0].variant
    keys = [info.model_key for info in on_disk(tmp_path)]
    assert ["other", "tiny", "tiny@q8_0"] == keys
    for key in keys:
        assert key in (store.find(key)[0].variant, store.find(key)[0].key)
