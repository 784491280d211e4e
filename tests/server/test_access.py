"""Requests are lines of the log: who, what, how it ended, and how long it took."""

from __future__ import annotations

import logging
import re

import pytest

from lmstudio.testing.script import Await
from rawclient import prediction
from server.benches import on_a_bench, reached

LOGGER = "lmstudio.server.access"


@pytest.fixture
def said(caplog):
    """Gives the lines so far, without their times."""
    caplog.set_level(logging.DEBUG, LOGGER)

    def lines():
        texts = [r.message for r in caplog.records if r.name == LOGGER]
        return [re.sub(r"\d+ ms$", "N ms", text) for text in texts]

    return lines


@on_a_bench
async def test_calls_and_channels(bench, said):
    """Calls and channels have a line each, also those that fail."""
    await bench.socket.load()
    await bench.socket.load(modelKey="nobody's secret")
    await bench.socket.call("unloadModel", {"identifier": "secret"})
    assert [
        "client me: llm/loadModel: done, N ms",
        "client me: llm/loadModel: failed (ModelNotOnDisk), N ms",
        "client me: llm/unloadModel: failed (Failure), N ms",
    ] == said()


@on_a_bench
async def test_a_client_that_goes(bench, said):
    """What a client has left is told from what failed."""
    socket = await bench.another(clientIdentifier="two\nlines")
    await socket.load()
    bench.reply("a", gate := Await())
    await socket.open("predict", prediction("hi"))
    await reached(gate)
    await socket.peer.ended()
    assert "client two%0Alines: llm/predict: gone, N ms" == said()[-1]


@on_a_bench
async def test_nothing_without_verbose(bench, caplog):
    """Without that level there are no lines."""
    caplog.set_level(logging.INFO, LOGGER)
    await bench.socket.call("listLoaded")
    assert [] == [r for r in caplog.records if r.name == LOGGER]
