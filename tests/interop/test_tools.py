"""Functions of users of the official clients are called by this server's models."""

from __future__ import annotations

import json

import pytest

from interop.clients import embedded_server
from interop.conftest import make_home
from interop.frames import Conversation
from interop.recorder import recording

#: Official clients of today can't ask for a call; a preset can.
FORCED = {
    "identifier": "@local:forced",
    "name": "forced",
    "operation": {
        "fields": [
            {
                "key": "llm.prediction.toolChoice",
                "value": {"type": "generic", "mode": "required"},
            },
            {"key": "llm.prediction.temperature", "value": 0},
            {
                "key": "llm.prediction.maxPredictedTokens",
                "value": {"checked": True, "value": 60},
            },
        ]
    },
}


@pytest.fixture
def home(tmp_path, model_file):
    """A home with a model, and a preset that forces a call."""
    presets = tmp_path / "config-presets"
    presets.mkdir()
    (presets / "forced.preset.json").write_text(json.dumps(FORCED))
    return make_home(tmp_path, model_file)


def test_act(client, home):
    """The model calls the function once, reads the result, and answers in text."""
    with (
        embedded_server(home) as server,
        recording(server, home / "frames.jsonl") as recorder,
        client.start("tools", recorder.address) as script,
    ):
        output, errors, code = script.rest()
    assert ("", 0) == (errors, code)
    lines = [json.loads(line) for line in output.splitlines() if line[:1] == "{"]
    steps = {line.pop("step"): line for line in lines}
    act = steps["act"]

    assert [[12, 30]] == act["calls"]
    assert 2 == act["rounds"]
    assert "toolCalls" == act["stops"][0]
    assert ["assistant", "tool", "assistant"] == [m["role"] for m in act["messages"]]
    (result,) = act["messages"][1]["content"]
    assert "42" == result["content"]
    assert "[TOOL" not in json.dumps(act["messages"][2])
    assert act.get("packets") in (None, ["start", "add", "end"])
    assert [] == Conversation(recorder.frames).faults
