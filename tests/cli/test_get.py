"""`lms get` fetches a starter model."""

from __future__ import annotations

import json

import pytest

from lmstudio.cli import get
from lmstudio.server import starters

NAME = "smollm2-135m-instruct"


@pytest.fixture
def fetch(monkeypatch, home):
    """Stands in for the download; holds how far the bar was told to be."""
    shares = []

    class Bar:
        def __init__(self, title):
            shares.append(title)

        def __enter__(self):
            return shares.append

        def __exit__(self, *_):
            pass

    def fetched(name, models_dir, on_progress):
        assert (NAME, home / "models") == (name, models_dir)
        on_progress(25, 100)
        return models_dir / "model.gguf"

    monkeypatch.setattr(get, "progress_bar", Bar)
    monkeypatch.setattr(starters, "fetch", fetched)
    return shares


def test_fetches(lms, home, fetch):
    """The model goes into the models folder, with a bar, and the path is said."""
    result = lms("get", NAME, "-y")

    assert (0, "") == (result.exit_code, result.stderr)
    assert f"{NAME} is in {home / 'models' / 'model.gguf'}\n" == result.stdout
    assert [f"Fetching {NAME}", 0.25] == fetch


def test_json(lms, home, fetch):
    """As JSON: the model's key, and the path."""
    expected = {"modelKey": NAME, "path": str(home / "models" / "model.gguf")}

    assert expected == json.loads(lms("get", NAME, "--json").stdout)


def test_unknown(lms, home):
    """Another name is code 4, with the known ones and the way for other files."""
    result = lms("get", "llama")

    assert (4, "") == (result.exit_code, result.stdout)
    assert 1 == result.stderr.count("\n")
    assert NAME in result.stderr
    assert str(home / "models") in result.stderr


def test_no_name(lms):
    """Without a name, the known ones are listed."""
    result = lms("get")

    assert (2, "") == (result.exit_code, result.stdout)
    known = ", ".join(starters.STARTERS)
    assert f"lms: say which model to fetch: {known}\n" == result.stderr


def test_failure(lms, monkeypatch):
    """What went wrong with the download is one line, and code 1."""

    def failing(*_):
        raise starters.FetchError("No space", "needs 98 MB,\nhas 1", "Free some")

    monkeypatch.setattr(starters, "fetch", failing)
    result = lms("get", NAME)

    assert (1, "") == (result.exit_code, result.stdout)
    assert result.stderr.startswith("lms: No space")
    assert 1 == result.stderr.count("\n")
