"""`lms unload` frees one model or all."""

from __future__ import annotations

import re

import pytest


@pytest.fixture
def two(server):
    """A server with two loaded models."""
    server.load("smol", identifier="a")
    server.load("smol", identifier="b")
    return server


def test_one(lms, two):
    """The named model goes, the other stays."""
    result = lms("unload", "a")

    assert (0, "Unloaded a\n", "") == (result.exit_code, result.stdout, result.stderr)
    assert ["b"] == two.loaded()


@pytest.mark.parametrize("flag", ["--all", "-a"])
def test_all(lms, two, flag):
    """All go, each with a line."""
    result = lms("unload", flag)

    assert (0, "Unloaded a\nUnloaded b\n") == (result.exit_code, result.stdout)
    assert [] == two.loaded()


def test_the_only_one(lms, server):
    """Without a name the one that is loaded goes."""
    server.load("smol")

    assert "Unloaded smol\n" == lms("unload").stdout
    assert [] == server.loaded()


def test_which(lms, two):
    """Without a name and with several loaded, it says which there are."""
    result = lms("unload")

    assert (2, "") == (result.exit_code, result.stdout)
    assert (
        "lms: several models are loaded (a, b): name one of them, or say --all\n"
        == result.stderr
    )
    assert ["a", "b"] == two.loaded()


@pytest.mark.parametrize("words", [(), ("--all",)], ids=str)
def test_nothing_loaded(lms, server, words):
    """Nothing to unload is no error."""
    result = lms("unload", *words)

    assert (0, "No model is loaded\n") == (result.exit_code, result.stdout)


def test_unknown(lms, two):
    """A name that no loaded model has is code 4."""
    result = lms("unload", "c")

    assert (4, "") == (result.exit_code, result.stdout)
    assert re.fullmatch(r"lms: .*c.*\n", result.stderr)
