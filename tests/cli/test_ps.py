"""`lms ps` lists what is in memory."""

from __future__ import annotations

import json

import attrs
import pytest

from lmstudio import InstanceInfo
from lmstudio.cli import ps


def test_table(lms, server):
    """The table has each model's identifier, size, context and time to live."""
    server.load("smol", identifier="writer", ttl=720)
    server.load("acme/big")
    result = lms("ps")

    assert (0, "") == (result.exit_code, result.stderr)
    assert [
        "IDENTIFIER MODEL SIZE CONTEXT UNLOADS AFTER STATUS",
        "acme/big acme/big 1.0 MB 4096 IDLE",
        "writer smol 1.0 MB 4096 12 min of 12 min IDLE",
    ] == [" ".join(line.split()) for line in result.stdout.splitlines()]


def test_json(lms, server):
    """JSON is the list of infos as they travel, and what each model does."""
    server.load("smol", identifier="writer", ttl=720)
    server.load("text-embedding-a")
    models = json.loads(lms("ps", "--json").stdout)

    names = ("identifier", "modelKey", "ttlMs", "status", "queued")
    assert [
        ("writer", "smol", 720_000, "idle", 0),
        ("text-embedding-a", "text-embedding-a", None, "idle", 0),
    ] == [tuple(model[name] for name in names) for model in models]
    assert "instanceReference" not in models[0]


def test_nothing_loaded(lms, server):
    """An empty list is an empty list in JSON, and a next step for people."""
    assert "[]\n" == lms("ps", "--json").stdout
    assert lms("ps").stdout.startswith("No model is loaded; `lms load KEY` loads one")


@pytest.mark.parametrize(
    ("ttl_ms", "used_ms", "text"),
    [
        (None, None, None),
        (60_000, None, "60 s of 60 s"),
        (60_000, 980_000, "40 s of 60 s"),
        (60_000, 100_000, "0 s of 60 s"),
    ],
)
def test_time_to_live(monkeypatch, capsys, ttl_ms, used_ms, text):
    """The time left counts from the last use, and is never negative."""
    monkeypatch.setattr(ps.time, "time", lambda: 1000.0)
    info = InstanceInfo(
        type="llm", model_key="a", path="a", identifier="a", instance_reference="r"
    )
    ps.print_loaded([attrs.evolve(info, ttl_ms=ttl_ms, last_used_time=used_ms)])
    row = capsys.readouterr().out.splitlines()[1]

    assert f"a a 0 B {text}".removesuffix(" None") == " ".join(row.split())


def test_no_server(lms, nobody):
    """Without a server there is one line that says how to start one, and code 3."""
    result = lms("ps", "--json")

    assert (3, "") == (result.exit_code, result.stdout)
    assert 1 == result.stderr.count("\n")
    assert result.stderr.startswith("lms: no LM Studio server at ")
    assert "lms server start" in result.stderr
