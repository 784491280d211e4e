"""What the real model said is said again without it, fragment by fragment."""

from __future__ import annotations

import time

import lmstudio
from live.conftest import KEY, started
from lmstudio.testing import Cassette, forbid_real_models

PERSON = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 1, "maximum": 99}},
    "required": ["age"],
}


def program(client):
    """Loads, streams, calls a tool, cancels, tokenizes and fails."""
    said = []

    def add(a: int, b: int) -> int:
        """Add two whole numbers."""
        return a + b

    model = client.llm.load(KEY, identifier="mine", context_length=1024)
    options = {"temperature": 0, "max_tokens": 24}
    said.append([str(piece) for piece in model.respond("Count to five.", **options)])
    said.append(model.respond("A person.", structured=PERSON, max_tokens=40).parsed)
    run = model.act(
        "What is 1 plus 2?",
        [add],
        tool_choice="required",
        max_prediction_rounds=2,
        max_tokens=60,
        temperature=0,
    )
    messages = run.result().messages
    said.append(
        [(m.role, m.text, [c.arguments for c in m.tool_calls]) for m in messages]
    )
    with model.complete("1, 2, 3, 4,", temperature=0) as prediction:
        said.append(str(next(iter(prediction))))
    said.append(prediction.stats.stop_reason)
    said.append(model.tokenize("Hello, world!"))
    said.append(prediction.stats.to_dict())
    try:
        client.llm.load("no-such-model")
    except lmstudio.LMStudioModelNotFoundError as exc:
        said.append(str(exc))
    model.unload()
    return said


def test_record_and_replay(home, tmp_path):
    """A replay needs no server, says the same, and takes no time."""
    file = tmp_path / "tape.jsonl"
    with (
        started(home) as server,
        Cassette(file, "once", server=server.url) as tape,
        lmstudio.LMStudioClient(tape.host) as client,
    ):
        said = program(client)
    assert len(said[0]) > 5

    began = time.perf_counter()
    with (
        forbid_real_models(),
        Cassette(file, "none") as tape,
        lmstudio.LMStudioClient(tape.host) as client,
    ):
        assert said == program(client)
    assert time.perf_counter() - began < 5
    assert server.url.removeprefix("ws://") not in file.read_text("utf-8")
