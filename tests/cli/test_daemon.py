"""`lms daemon`: the background server under its other name."""

from __future__ import annotations

import json

import pytest

from lmstudio.cli import background, daemon, server


@pytest.fixture(autouse=True)
def usual_port(monkeypatch, closed_port):
    """A free port in place of the usual one, whatever this machine runs."""
    monkeypatch.setattr(server, "PORT", closed_port)
    monkeypatch.setattr(daemon, "PORT", 0)


@pytest.mark.slow
def test_up_and_down(lms, home):
    """Up starts one server, again finds it, status tells it, down ends it."""
    try:
        result = lms("daemon", "up", "--json")
        found = background.written_down()
        assert (0, "") == (result.exit_code, result.stderr)
        told = json.loads(result.stdout)
        assert ("running", found.pid, True) == (
            told["status"],
            told["pid"],
            told["isDaemon"],
        )
        assert told["version"]
        again = lms("daemon", "up").stdout
        assert f"The server is already running (process {found.pid})\n" == again
        state = json.loads(lms("daemon", "status", "--json").stdout)
        assert ("running", found.pid) == (state["status"], state["pid"])
    finally:
        result = lms("daemon", "down")
    assert (0, "The server is stopped\n") == (result.exit_code, result.stdout)
    assert background.written_down() is None


def test_not_running(lms, nobody):
    """Down of nothing is code 1, status an answer."""
    assert 1 == lms("daemon", "down").exit_code
    assert {"status": "not-running"} == json.loads(
        lms("daemon", "status", "--json").stdout
    )
    assert "The server is not running\n" == lms("daemon", "status").stdout


def test_a_foreign_server(lms, monkeypatch, fake):
    """A server of another program is left alone."""
    monkeypatch.setattr(server, "PORT", fake.port)
    result = lms("daemon", "down")

    assert (1, "") == (result.exit_code, result.stdout)
    assert "not one of `lms daemon up`" in result.stderr
