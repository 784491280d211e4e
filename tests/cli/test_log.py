"""`lms log stream` shows what goes in and out."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lmstudio import LMStudioClient

ROOT = Path(__file__).parents[2]


@pytest.fixture
def watching(server):
    """Watches a server; gives a function that asks it something and reads lines."""
    server.load("smol")
    started: list[subprocess.Popen[str]] = []

    def watch(*words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "lmstudio.cli.entry", "log", "stream", *words]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        server.wait_for_call("streamLogs", 20)
        server.reply(["Hi ", "there"])
        with LMStudioClient(server.host) as client:
            client.llm.get("smol").respond("Hello").result()
        return process

    yield watch
    for process in started:
        process.kill()
        process.communicate()


def lines_of(process, count):
    """So many lines, and then Ctrl-C, which is how it ends."""
    lines = [process.stdout.readline() for _ in range(count)]
    while count > 1 and lines[0][0] != "{" and "\n" != lines[-1]:  # as text
        lines.append(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=20)
    assert (0, "") == (process.returncode, rest.strip())
    assert "Traceback" not in err
    return lines


@pytest.mark.slow
def test_json(watching):
    """As JSON each entry is a line, as it travels."""
    first, second = map(json.loads, lines_of(watching("--json"), 2))

    assert "llm.prediction.input" == first["data"]["type"]
    assert "smol" == first["data"]["modelIdentifier"]
    assert "Hello" in first["data"]["input"]
    assert ("llm.prediction.output", "Hi there") == (
        second["data"]["type"],
        second["data"]["output"],
    )
    assert "eosFound" == second["data"]["stats"]["stopReason"]
    assert isinstance(second["timestamp"], int)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["input", "output"])
def test_filter(watching, kind):
    """A filter leaves one direction."""
    (line,) = lines_of(watching("--json", "--filter", kind), 1)

    assert f"llm.prediction.{kind}" == json.loads(line)["data"]["type"]


@pytest.mark.slow
def test_text(watching):
    """For people: what, when, of which model, and with --stats what was measured."""
    lines = lines_of(watching("--filter", "output", "--stats"), 6)

    assert lines[0].startswith("timestamp: ")
    assert [
        "type: llm.prediction.output\n",
        "modelIdentifier: smol\n",
        "output:\n",
        "Hi there\n",
        "stopReason: eosFound\n",
    ] == lines[1:6]
    assert any(line.startswith("totalTimeSec: ") for line in lines[6:])


def test_no_server(lms, nobody):
    """Without a server it is code 3."""
    assert 3 == lms("log", "stream").exit_code
