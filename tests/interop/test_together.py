"""Clients that share one model don't hold each other up, not even when killed."""

from __future__ import annotations

import json
import time

import pytest

from interop.clients import embedded_server
from interop.frames import Conversation
from interop.recorder import recording
from rawclient import query, raw_client

#: How soon the slot of a killed client must be free, seconds.
FREE = 1.0
IDLE = {"status": "idle", "queued": 0}


@pytest.fixture(scope="module")
def server(home):
    """A server with a loaded model."""
    with embedded_server(home) as address:
        with raw_client(f"ws://{address}", "system") as system:
            (model,) = system.call("listDownloadedModels")["result"]
        with raw_client(f"ws://{address}") as llm:
            field = {"key": "llm.load.contextLength", "value": 8192}
            layer = {"layerName": "apiOverride", "config": {"fields": [field]}}
            end = llm.load(model["modelKey"], loadConfigStack={"layers": [layer]})[-1]
            assert "channelClose" == end["type"]
        yield address


def state(llm):
    """What the model is doing."""
    parameter = {"specifier": query(), "throwIfNotFound": True}
    return llm.call("getInstanceProcessingState", parameter)["result"]


@pytest.mark.parametrize(
    "names", [("python", "python"), ("python", "js")], ids="+".join
)
def test_two_clients(server, clients, names, tmp_path):
    """Two clients stream from one model at the same time, and stop when told to."""
    one, other = (clients(name) for name in names)
    with (
        recording(server, tmp_path / "frames.jsonl") as recorder,
        one.start("stream", recorder.address) as first,
        other.start("stream", recorder.address) as second,
        raw_client(f"ws://{server}") as llm,
    ):
        first.fragments(3)
        second.fragments(3)
        # Neither has ended: their answers can't before they are cancelled.
        first.fragments(3)
        assert {"status": "generating", "queued": 2} == state(llm)
        for script in (first, second):
            assert "userStopped" == script.cancel()["stop"]
            output, errors, code = script.rest()
            assert {"step": "end"} == json.loads(output)
            assert ("", 0) == (errors, code)
        assert IDLE == state(llm)

    assert [] == Conversation(recorder.frames).faults


def test_killed_client(server, client):
    """The slot of a client that is killed in mid-stream is free within a second."""
    with client.start("stream", server) as script, raw_client(f"ws://{server}") as llm:
        script.fragments(3)
        assert {"status": "generating", "queued": 1} == state(llm)
        script.process.kill()
        killed = time.monotonic()
        while state(llm) != IDLE:
            assert time.monotonic() - killed < FREE
        assert time.monotonic() - killed < FREE
