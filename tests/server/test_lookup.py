"""What a user writes names the model they mean, or they hear what is like it."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from lmstudio.server.engine import ModelFile
from lmstudio.server.lookup import ModelNotOnDisk, find, is_name


def model(path: str, key: str, variant: str) -> ModelFile:
    """A model with these names."""
    return ModelFile(
        key=key,
        path=Path("/models") / path,
        relative_path=path,
        publisher=path.partition("/")[0],
        display_name=key,
        size=1,
        variant=variant,
    )


SMALL = model("pub/Tiny-GGUF/Tiny.Q4_1.gguf", "tiny", "tiny@q4_1")
LARGE = model("pub/Tiny-GGUF/Tiny.Q8_0.gguf", "tiny", "tiny@q8_0")
OTHER = model("them/other/Other.gguf", "them/other", "them/other@f16")
EMBED = model("them/Embed-GGUF/x.gguf", "text-embedding-embed", "text-embedding-embed")
MODELS = [SMALL, LARGE, OTHER, EMBED]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tiny", [SMALL, LARGE]),
        ("TINY", [SMALL, LARGE]),
        ("tiny@q8_0", [LARGE]),
        ("Tiny@Q8_0", [LARGE]),
        ("pub/Tiny-GGUF/Tiny.Q8_0.gguf", [LARGE]),
        ("PUB/tiny-gguf/tiny.q8_0.gguf", [LARGE]),
        ("/models/pub/Tiny-GGUF/Tiny.Q8_0.gguf", [LARGE]),
        ("pub/Tiny-GGUF", [SMALL, LARGE]),
        ("pub/Tiny-GGUF/", [SMALL, LARGE]),
        ("pub/tiny-gguf", [SMALL, LARGE]),
        ("pub/Tiny-GGUF@q8_0", [LARGE]),
        ("pub/tiny", [SMALL, LARGE]),
        ("pub/tiny@q8_0", [LARGE]),
        ("them/embed", [EMBED]),
        ("Tiny.Q8_0.gguf", [LARGE]),
        ("Tiny.Q8_0", [LARGE]),
        ("other", [OTHER]),
        ("Other@F16", [OTHER]),
        ("them/other", [OTHER]),
        ("embed", [EMBED]),
    ],
)
def test_names(name: str, expected: list[ModelFile]) -> None:
    """Keys, variants, paths, parts of paths and file names name a model."""
    chosen, candidates = find(MODELS, name)
    assert expected[0] == chosen
    assert (expected if len(expected) > 1 else []) == candidates


@pytest.mark.parametrize(
    "name", ["tiny", "PUB/tiny-gguf/", "Pub/Tiny@q4_1", "tiny.q4_1"]
)
def test_one_model(name: str) -> None:
    """One model can be asked whether a name is one of its own."""
    assert is_name(SMALL, name)
    assert not is_name(OTHER, name)


def test_precedence() -> None:
    """An exact name of any kind goes before one that differs in case, keys first."""
    by_key = model("a/b/c.gguf", "X.gguf", "")
    by_file = model("a/b/X.gguf", "k", "")
    by_case = model("a/b/z.gguf", "x.GGUF", "")
    assert by_key == find([by_case, by_file, by_key], "X.gguf")[0]
    assert by_file == find([by_case, by_file], "X.gguf")[0]
    assert by_case == find([by_case], "X.gguf")[0]


def test_nothing_found() -> None:
    """The error names what is like it, and a sample of what there is."""
    with pytest.raises(ModelNotOnDisk) as caught:
        find(MODELS, "Tinny")
    error = caught.value
    assert "Tinny" == error.name
    assert "tiny" == error.nearest[0]
    assert ["tiny", "them/other", "text-embedding-embed"] == error.sample
    assert 4 == error.total
    assert "No model on disk is called 'Tinny'" == error.title
    assert "Did you mean 'tiny'" in str(error)
    assert str(error) == str(pickle.loads(pickle.dumps(error)))


@pytest.mark.parametrize("name", ["/etc/passwd", "../tiny", "~/tiny", "./tiny"])
def test_paths_elsewhere(name: str) -> None:
    """Who writes a path to somewhere else hears that it can't be loaded."""
    with pytest.raises(ModelNotOnDisk, match="Only files in the models folder"):
        find(MODELS, name)


def test_many_models_are_not_all_named() -> None:
    """An error stays short, however many models there are and however long a name."""
    many = [model(f"p/r{n}/m{n}.gguf", f"m{n}", "") for n in range(500)]
    with pytest.raises(ModelNotOnDisk) as caught:
        find(many, "?" * 10**6)
    assert 10 == len(caught.value.sample)
    assert 500 == caught.value.total
    assert len(str(caught.value)) < 600
    assert "m9, ..." in str(caught.value)


def test_no_models() -> None:
    """Without models the error says how to get one."""
    with pytest.raises(ModelNotOnDisk, match=r"There are no models on disk.*lms get"):
        find([], "tiny")
