"""Models are listed in three forms: those on disk, and those in memory."""

from __future__ import annotations

import attrs
import pytest

from server.rest.asking import HELLO
from server.rest.conftest import MODELS

CHAT = "/v1/chat/completions"
LIST = {"owned_by": "testing", "object": "model", "created": 0}


def test_openai(served):
    """Every name that a request may give is listed once."""
    served.ask(CHAT, {"model": "any", "messages": HELLO})
    listed = served.ask("/v1/models").json
    assert "list" == listed["object"]
    assert set(MODELS) == {model["id"] for model in listed["data"]}
    assert len(MODELS) == len(listed["data"])
    assert {"id": "any", **LIST} == served.ask("/v1/models/any").json


def test_created_is_the_time_of_the_file(served, tmp_path):
    """A file that is there says when it was made."""
    file = tmp_path / "file.gguf"
    file.write_bytes(b"x")
    models = served.scripted.services[0].registry.models
    models.models[0] = attrs.evolve(models.models[0], path=file)
    made = served.ask("/v1/models/any").json
    assert int(file.stat().st_mtime) == made["created"]


@pytest.mark.parametrize("path", ["/v1/models/none", "/api/v0/models/acme/none"])
def test_unknown_names(served, path):
    """A name that does not exist is a 404 that lists some that do."""
    answer = served.ask(path)
    assert (404, "model_not_found") == (answer.status, answer.error["code"])
    assert "any-embed" in answer.error["message"]


def test_v0(served):
    """LM Studio's older list tells kind, state and context."""
    served.ask(CHAT, {"model": "any", "messages": HELLO})
    loaded, *others = served.ask("/api/v0/models").json["data"]
    about = {
        "object": "model",
        "publisher": "testing",
        "arch": "scripted",
        "compatibility_type": "gguf",
        "quantization": "Q4_K_M",
        "max_context_length": 8192,
    }
    state = {"type": "llm", "state": "loaded", "loaded_context_length": 4096}
    assert {"id": "any", **state, **about} == loaded
    assert [("vlm", "not-loaded"), ("embeddings", "not-loaded")] == [
        (model["type"], model["state"]) for model in others
    ]
    assert others[0] == served.ask("/api/v0/models/acme/any-vision").json


def test_v1(served):
    """LM Studio's list has files, each with its instances."""
    served.ask("/api/v1/models/load", {"model": "any", "context_length": 512})
    served.ask("/api/v1/models/load", {"model": "any"})
    text, vision, embedding = served.ask("/api/v1/models").json["models"]
    assert [("any", 512), ("any:2", 4096)] == [
        (one["id"], one["config"]["context_length"])
        for one in text.pop("loaded_instances")
    ]
    assert {
        "type": "llm",
        "publisher": "testing",
        "key": "any",
        "display_name": "Any",
        "architecture": "scripted",
        "quantization": {"name": "Q4_K_M", "bits_per_weight": 4},
        "size_bytes": 1_000_000,
        "params_string": "1M",
        "max_context_length": 8192,
        "format": "gguf",
        "capabilities": {"vision": False, "trained_for_tool_use": False},
        "description": None,
    } == text
    assert vision["capabilities"]["vision"] is True
    assert ("embedding", []) == (embedding["type"], embedding["loaded_instances"])
    assert "capabilities" not in embedding
