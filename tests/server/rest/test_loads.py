"""Models are loaded and unloaded by request."""

from __future__ import annotations

import pytest

from lmstudio.server.engine import LoadFailed

LOAD = "/api/v1/models/load"
UNLOAD = "/api/v1/models/unload"


def loaded(served, domain="llm"):
    """Identifiers of what is in memory."""
    return [i.identifier for i in served.scripted.services[0].registry.loaded(domain)]


def test_load(served):
    """Each load is a new instance, with its settings."""
    body = {"model": "any", "context_length": 512, "echo_load_config": True, "ttl": 9}
    made = served.ask(LOAD, body).json
    assert made.pop("load_time_seconds") >= 0
    assert {
        "type": "llm",
        "instance_id": "any",
        "status": "loaded",
        "load_config": {"context_length": 512},
    } == made
    again = served.ask(LOAD, {"model": "any", "config": {"flash_attention": True}}).json
    assert "any:2" == again["instance_id"]
    assert "load_config" not in again
    assert ["any", "any:2"] == loaded(served)
    settings = [settings for _, settings in served.scripted.engine.loads]
    assert [512, 4096] == [one.context_length for one in settings]
    assert [None, True] == [one.flash_attention for one in settings]
    first, second = served.scripted.services[0].registry.loaded("llm")
    assert (9, None) == (first.ttl, second.ttl)


def test_load_an_embedding_model(served):
    """The kind of the model is found out."""
    made = served.ask(LOAD, {"model": "any-embed"}).json
    assert ("embedding", "any-embed") == (made["type"], made["instance_id"])
    assert ["any-embed"] == loaded(served, "embedding")


@pytest.mark.parametrize("domain", ["llm", "embedding"])
def test_unload(served, domain):
    """An instance is unloaded by its name, whatever its kind."""
    name = "any" if domain == "llm" else "any-embed"
    served.ask(LOAD, {"model": name})
    assert {"instance_id": name} == served.ask(UNLOAD, {"instance_id": name}).json
    assert [] == loaded(served, domain)


@pytest.mark.parametrize(
    ("path", "body", "status", "kind", "param"),
    [
        (LOAD, {}, 400, "invalid_request", "model"),
        (LOAD, {"model": "none"}, 404, "model_not_found", "model"),
        (LOAD, {"model": "any", "ttl": -1}, 400, "invalid_request", "ttl"),
        (
            LOAD,
            {"model": "any", "context_length": "x"},
            400,
            "invalid_request",
            "context_length",
        ),
        (LOAD, {"model": "any", "config": 5}, 400, "invalid_request", "config"),
        (
            LOAD,
            {"model": "any-embed", "flash_attention": True},
            400,
            "invalid_request",
            "flash_attention",
        ),
        (UNLOAD, {}, 400, "invalid_request", "instance_id"),
        (UNLOAD, {"instance_id": "any"}, 404, "model_not_found", "instance_id"),
    ],
)
def test_what_is_refused(served, path, body, status, kind, param):
    """Wrong values are told with LM Studio's own types of errors."""
    answer = served.ask(path, body)
    error = answer.error
    assert (status, kind, param) == (answer.status, error["type"], error["param"])
    assert [] == loaded(served)


def test_a_load_that_fails(served):
    """An engine that can't load a model is told as such."""
    served.scripted.scripts.add_load([LoadFailed("The file is broken")])
    answer = served.ask(LOAD, {"model": "any"})
    assert (503, "model_load_failed") == (answer.status, answer.error["code"])
    assert "The file is broken" in answer.error["message"]
