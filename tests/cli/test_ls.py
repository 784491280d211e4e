"""`lms ls` lists what is on the disk of a server, or of this machine."""

from __future__ import annotations

import json
from collections import Counter

import pytest

import lmstudio
from gguf_files import write_gguf
from lmstudio.cli import ls


def test_table(lms, server):
    """The table says what each model is, how large, and whether it is loaded."""
    server.load("smol")
    server.load("smol")
    server.load("acme/big")
    result = lms("ls")

    assert (0, "") == (result.exit_code, result.stderr)
    assert [
        "MODEL TYPE PARAMS ARCHITECTURE QUANTIZATION SIZE",
        "text-embedding-a embedding 1M scripted Q4_K_M 1.0 MB",
        "acme/big llm 1M scripted Q4_K_M 1.0 MB loaded",
        "smol llm 1M scripted Q4_K_M 1.0 MB loaded 2 times",
    ] == [" ".join(line.split()) for line in result.stdout.splitlines()]


@pytest.mark.parametrize(
    ("flags", "keys"),
    [
        ([], ["smol", "acme/big", "text-embedding-a"]),
        (["--llm"], ["smol", "acme/big"]),
        (["--embedding"], ["text-embedding-a"]),
        (["--llm", "--embedding"], ["smol", "acme/big", "text-embedding-a"]),
    ],
    ids=str,
)
def test_json(lms, server, flags, keys):
    """JSON is the list of infos as they travel, of the kinds that were asked for."""
    result = lms("ls", "--json", *flags)
    models = json.loads(result.stdout)

    assert (0, "") == (result.exit_code, result.stderr)
    assert keys == [model["modelKey"] for model in models]
    assert {1_000_000} == {model["sizeBytes"] for model in models}


def test_none_of_a_kind(lms, server):
    """A filter that leaves nothing says so."""
    server._models.models.pop()
    result = lms("ls", "--embedding")

    assert "None of the 2 models on disk is of this kind\n" == result.stdout


def test_without_a_server(lms, home, nobody):
    """Without a server the folder itself is listed, in the same shape."""
    file = write_gguf(home / "models" / "acme" / "tiny" / "tiny.gguf")
    result = lms("ls", "--json")
    (model,) = json.loads(result.stdout)

    assert 0 == result.exit_code
    assert ("tiny", "acme/tiny/tiny.gguf") == (model["modelKey"], model["path"])
    assert file.stat().st_size == model["sizeBytes"]
    assert model["deviceIdentifier"] is None
    assert "raw" not in model
    assert "No server is running; these are the models in its folder\n" == result.stderr


def test_nothing_at_all(lms, nobody):
    """An empty folder gets a next step."""
    result = lms("ls")

    assert 0 == result.exit_code
    assert (
        "There are no models on disk; `lms get smollm2-135m-instruct` fetches one\n"
        == result.stdout
    )


@pytest.mark.parametrize("by_variable", [True, False])
def test_a_named_server_is_needed(lms, monkeypatch, closed_port, by_variable):
    """Who names a server wants its models, and not those of this machine."""
    address = f"127.0.0.1:{closed_port}"
    if by_variable:
        monkeypatch.setenv("LMSTUDIO_HOST", address)
    result = lms("ls", *([] if by_variable else ["--host", address]))

    assert (3, "") == (result.exit_code, result.stdout)
    assert 1 == result.stderr.count("\n")
    assert address in result.stderr
    assert "lms server start" in result.stderr


def test_one_model(lms, server):
    """With a key, all that is known of that model; also as JSON."""
    server.load("acme/big")
    lines = lms("ls", "acme/big").stdout.splitlines()

    assert "acme/big" == lines[0]
    known = [" ".join(line.split()) for line in lines]
    assert {"Type: llm", "Quantization: Q4_K_M, 4 bit", "Loaded: 1"} <= {*known}
    (model,) = json.loads(lms("ls", "acme/big", "--json").stdout)
    assert "acme/big" == model["modelKey"]


def test_detailed(lms, server):
    """--detailed says all of each model."""
    lines = lms("ls", "--detailed", "--llm").stdout.splitlines()

    assert ["smol", "acme/big"] == [line for line in lines if line[0] != " "]


def test_unknown_key(lms, server):
    """A key that no model has is code 4."""
    result = lms("ls", "nonsense")

    assert (4, "") == (result.exit_code, result.stdout)
    assert "no model on disk has the key 'nonsense'" in result.stderr


def test_variants(capsys):
    """--variants lists each quantization under its model."""
    model = lmstudio.ModelInfo(
        type="llm",
        model_key="a",
        path="a",
        variants=["a@q4", "a@q8"],
        selected_variant="a@q8",
    )
    ls._print([model], Counter(), True)

    assert ["a llm 0 B", "a@q4", "a@q8 by default"] == [
        " ".join(line.split()) for line in capsys.readouterr().out.splitlines()[1:]
    ]
