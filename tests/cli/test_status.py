"""`lms status` shows the server and what it has loaded."""

from __future__ import annotations

import json


def test_running(lms, server):
    """The address, and the table of loaded models."""
    server.load("smol")
    result = lms("status")
    lines = result.stdout.splitlines()

    assert 0 == result.exit_code
    assert f"The server is running at {server.url}" == lines[0]
    assert ["IDENTIFIER", "smol"] == [line.split()[0] for line in lines[1:]]


def test_json(lms, server):
    """The same as an object."""
    server.load("smol")
    found = json.loads(lms("status", "--json").stdout)

    assert (True, server.url) == (found["running"], found["address"])
    assert ["smol"] == [model["identifier"] for model in found["loaded"]]


def test_not_running(lms, nobody):
    """No server is an answer and no error."""
    result = lms("status")

    assert (0, "") == (result.exit_code, result.stderr)
    assert "The server is not running; `lms server start` starts it\n" == result.stdout
    assert {"running": False, "address": None, "loaded": []} == json.loads(
        lms("status", "--json").stdout
    )


def test_not_running_where_it_was_named(lms, closed_port):
    """A server that was named and is not there is an error."""
    result = lms("status", "--port", str(closed_port))

    assert (3, "") == (result.exit_code, result.stdout)
    assert f"127.0.0.1:{closed_port}" in result.stderr
