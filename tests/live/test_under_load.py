"""A server that ends under load leaves no client waiting and no process behind."""

from __future__ import annotations

import time

import pytest

import lmstudio
from live.conftest import KEY
from live.test_end_to_end import LONG, alive, eventually

#: Clients at once, more than a model has slots; the others wait for their turn.
CLIENTS = 8


@pytest.fixture
def loaded(server):
    """Clients that all stream, or wait for it, and the engine's processes."""
    clients = [lmstudio.LMStudioClient(server.url) for _ in range(CLIENTS)]
    clients[0].llm.load(KEY, no_hup=True)
    clients[0].llm.load(KEY, identifier="second")
    predictions = [
        client.llm.get(name).respond(LONG)
        for client in clients
        for name in (KEY, "second")
    ]
    next(iter(predictions[0]))
    next(iter(predictions[1]))
    children = server.children()
    assert 2 == len(children)
    yield predictions, children
    for client in clients:
        client.close()


def test_sigterm(server, loaded):
    """Within five seconds all predictions end with an error and all processes end."""
    predictions, children = loaded
    began = time.monotonic()
    server.process.terminate()
    assert 0 == server.process.wait(5)
    assert time.monotonic() - began < 5
    for prediction in predictions:
        error = prediction.exception(5)
        assert isinstance(error, lmstudio.LMStudioServerError), error
        assert "shutting down" in str(error)
    assert not any(map(alive, children))


def test_sigkill(server, loaded):
    """A server that is killed leaves no process, and its clients get an error."""
    predictions, children = loaded
    server.process.kill()
    server.process.wait(5)
    for prediction in predictions:
        error = prediction.exception(5)
        assert isinstance(error, lmstudio.LMStudioWebsocketError), error
    assert eventually(lambda: not any(map(alive, children)), 2.0)
