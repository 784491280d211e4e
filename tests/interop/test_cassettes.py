"""Official clients do everything against a recording as they did against the server."""

from __future__ import annotations

import json

from interop.clients import embedded_server
from lmstudio.testing import Cassette, forbid_real_models

#: What a client measures itself.
MEASURED = {"seconds"}


def steps_of(client, cassette):
    """What a client prints when it does everything, by its steps."""
    with client.start("steps", cassette.host) as script:
        output, errors, code = script.rest()
    assert 0 == code, errors
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return {
        line.pop("step"): {k: v for k, v in line.items() if k not in MEASURED}
        for line in lines
    }


def test_replay_to_official_clients(client, home, tmp_path):
    """Every step is the same without the server: loads, texts, cancels, errors."""
    file = tmp_path / "steps.jsonl"
    with embedded_server(home) as server, Cassette(file, "all", server=server) as tape:
        said = steps_of(client, tape)
    assert not [step for step in said if step.endswith(" failed")]
    assert server not in file.read_text("utf-8")

    with forbid_real_models(), Cassette(file, "none") as tape:
        again = steps_of(client, tape)
    # Two equal requests at once: which gets which of the two recordings is not said.
    for steps in (said, again):
        steps["two at once"]["results"].sort(key=str)
    assert said == again
