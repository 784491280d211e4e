"""What of a repository can be downloaded, and which of it a name means."""

from __future__ import annotations

import hypothesis
import pytest
from hypothesis import strategies

from lmstudio.server.hub import HubError, HubFile, HubRepo
from lmstudio.server.hub_options import Reference, choose, is_safe, options_of

GB = 10**9


def repo(*files, name="acme/Tiny-GGUF"):
    """A repository with files of a name and a size."""
    made = [
        HubFile(path=path, size=size)
        for path, size in (f if isinstance(f, tuple) else (f, 100) for f in files)
    ]
    return HubRepo(name=name, commit="c", files=tuple(made))


def error(function, *arguments):
    """The error that a call raises."""
    with pytest.raises(HubError) as caught:
        function(*arguments)
    return caught.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("acme/tiny", Reference(repo="acme/tiny")),
        (" acme/tiny/ ", Reference(repo="acme/tiny")),
        ("acme/tiny@Q4_K_M", Reference(repo="acme/tiny", quantization="Q4_K_M")),
        ("acme/tiny:Q8_0", Reference(repo="acme/tiny", quantization="Q8_0")),
        ("acme/t/a.gguf", Reference(repo="acme/t", file="a.gguf")),
        ("acme/t/q4/a.gguf", Reference(repo="acme/t", file="q4/a.gguf")),
        ("https://huggingface.co/acme/t", Reference(repo="acme/t")),
        ("https://hf.co/acme/t?x=1#y", Reference(repo="acme/t")),
        ("https://huggingface.co/acme/t/tree/main", Reference(repo="acme/t")),
        (
            "https://huggingface.co/acme/t/blob/main/q4/a.gguf",
            Reference(repo="acme/t", file="q4/a.gguf"),
        ),
        (
            "https://huggingface.co/acme/t/resolve/main/a%20b.gguf?download=true",
            Reference(repo="acme/t", file="a b.gguf"),
        ),
        ("http://mirror:8080/acme/t", Reference(repo="acme/t")),
    ],
)
def test_parse(text, expected):
    """A name, one with a quantization, a file and a URL are read."""
    assert expected == Reference.parse(text, "http://mirror:8080")


@pytest.mark.parametrize(
    "text",
    [
        *("", "tiny", "/", "acme/", "/tiny", "../tiny", "acme/..", "acme/.hidden"),
        *("acme/tiny@", "acme/tiny:", "acme/tiny/../../etc/passwd", "acme/t/.x.gguf"),
        *("acme\\tiny", "C:\\models\\x", "acme/t/a\\b.gguf", "acme/ti ny", "acme/t\nx"),
        *("https://example.org/acme/tiny", "ftp://x/y", "https://[/x", "acme/t/a@b"),
        "https://huggingface.co/acme/t/blob/main/%2e%2e/x.gguf",
        "acme/" + 200 * "x",
    ],
)
def test_parse_refuses(text):
    """Anything else is refused with what would be right."""
    raised = error(Reference.parse, text)

    assert ("hub.badName", True) == (raised.code, "owner/name@" in raised.suggestion)


@hypothesis.given(strategies.text())
def test_safe_paths_stay_inside(text):
    """Whatever passes has no part that leads elsewhere, on any system."""
    parts = text.replace("\\", "/").split("/")
    outside = any(part in ("", ".", "..") or ":" in part for part in parts)

    assert not (is_safe(text) and outside)


def test_options():
    """Each quantization is an option, the smallest first, one is recommended."""
    files = [("T.Q8_0.gguf", 80), ("T.Q4_K_M.gguf", 45), ("T.Q2_K.gguf", 25)]
    options = options_of(repo(*files, "README.md", ".gguf", "x/.hidden.gguf"), None)

    assert [
        ("acme/Tiny-GGUF@q2_k", "Q2_K", 25, False),
        ("acme/Tiny-GGUF@q4_k_m", "Q4_K_M", 45, True),
        ("acme/Tiny-GGUF@q8_0", "Q8_0", 80, False),
    ] == [(o.identifier, o.quantization, o.size, o.recommended) for o in options]
    assert {"T"} == {o.name for o in options}
    assert "acme/Tiny-GGUF/T.Q2_K.gguf" == options[0].relative_path


@pytest.mark.parametrize(
    ("memory", "recommended", "fits"),
    [(9 * GB, "q4_k_m", 3), (3 * GB, "q3_k_m", 1), (1 * GB, None, 0)],
)
def test_memory(memory, recommended, fits):
    """What does not fit the memory is not recommended, but the next smaller one."""
    files = [
        ("T-Q4_K_M.gguf", 4 * GB),
        ("T-Q3_K_M.gguf", 2 * GB),
        ("T-Q8_0.gguf", 8 * GB),
    ]
    options = options_of(repo(*files), memory)
    marked = [option.variant for option in options if option.recommended]

    assert ([recommended] if recommended else []) == marked
    assert fits == sum(option.fits for option in options)


def test_split_models():
    """The parts of a split model are one option; one that lacks a part is none."""
    parts = [(f"Q8_0/T-Q8_0-0000{n}-of-00003.gguf", n) for n in (3, 1, 2)]
    lacking = "T-Q4_0-00001-of-00002.gguf"
    (option,) = options_of(repo(*parts, lacking), None)

    assert ("acme/Tiny-GGUF@q8_0", 6) == (option.identifier, option.size)
    assert [1, 2, 3] == [file.size for file in option.files]
    assert "T-Q8_0-00001-of-00003.gguf" == option.names[0]


def test_projectors():
    """A vision model's projector comes along, that of 16 bits if there are several."""
    files = ["T-Q4_0.gguf", ("mmproj-F32.gguf", 9), ("mmproj-BF16.gguf", 5)]
    (option,) = options_of(repo(*files, ("sub/mmproj-F16.gguf", 6)), None)

    assert ("T-Q4_0.gguf", "mmproj-F16.gguf") == option.names
    assert 106 == option.size


def test_variants_and_names():
    """Files that no quantization tells apart are named by their paths."""
    files = ["a/T-Q4_0.gguf", "b/T-Q4_0.gguf", "T-UD-Q4_K_XL.gguf", "plain.gguf"]
    options = options_of(repo(*files, "T.imatrix.gguf"), None)

    assert {
        "acme/Tiny-GGUF/a/T-Q4_0.gguf": "a-T-Q4_0.gguf",
        "acme/Tiny-GGUF/b/T-Q4_0.gguf": "b-T-Q4_0.gguf",
        "acme/Tiny-GGUF@ud-q4_k_xl": "T-UD-Q4_K_XL.gguf",
        "acme/Tiny-GGUF/plain.gguf": "plain.gguf",
    } == {o.identifier: o.names[0] for o in options}
    for option in options:
        assert option is choose(options, Reference.parse(option.identifier))


@pytest.mark.parametrize(
    "wrong",
    [
        repo("README.md"),
        repo("mmproj-F16.gguf"),
        repo("../../T-Q4_0.gguf"),
        repo(("T-Q4_0.gguf", 0)),
        repo("T-Q4_0.gguf", name="../.."),
        repo("T-Q4_0.gguf", name="a/b/c"),
    ],
)
def test_nothing_to_download(wrong):
    """A repository without a whole model, or with a name that leads out, has none."""
    raised = error(options_of, wrong, None)

    assert ("hub.noModel", True) == (raised.code, "GGUF" in raised.suggestion)


def test_choose():
    """A quantization is found in any case, a file by its path, else the best."""
    options = options_of(repo("T-Q4_K_M.gguf", "T-Q8_0.gguf", "mmproj.gguf"), None)

    def chosen(**wanted):
        return choose(options, Reference(repo="acme/Tiny-GGUF", **wanted)).variant

    assert "q4_k_m" == chosen()
    assert "q8_0" == chosen(quantization="Q8_0")
    assert "q8_0" == chosen(file="T-Q8_0.gguf")
    for wrong in ({"quantization": "q5"}, {"file": "x.gguf"}, {"file": "mmproj.gguf"}):
        raised = error(choose, options, Reference(repo="acme/Tiny-GGUF", **wrong))
        assert ("hub.noModel", True) == (raised.code, "@q8_0" in raised.cause)


def test_choose_among_several():
    """A quantization of several files does not say which."""
    options = options_of(repo("T-Q4_0.gguf", "T-i1-Q4_0.gguf", "U-Q4_0.gguf"), None)
    wanted = Reference(repo="acme/Tiny-GGUF", quantization="q4_0")

    assert "several" in error(choose, options, wanted).title
