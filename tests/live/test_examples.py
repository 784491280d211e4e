"""The examples in docs/examples run as they stand, and leave no model behind."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lmstudio
from live.conftest import MODEL_PATH, ROOT, Running, environment, started

EXAMPLES = ROOT / "docs/examples"
REPO, _, FILE = MODEL_PATH.rpartition("/")
PRESET = (EXAMPLES / "my-chatml.preset.json").read_text("utf-8")

#: What each prints, as a regular expression over all of its output.
PRINTS = {
    "loading_an_llm_and_predicting": r".*\w.*",
    "using_a_non_default_port": r"127\.0\.0\.1:\d+ has version \d+\.\d+\.\d+",
    "keeping_it_loaded": (
        r"while the client is there: \['stays', 'goes'\]\n"
        r"after it was closed: \['stays'\]\n"
        r"after it was killed: \['stays'\]"
    ),
    "friendly_name": r".*\w.*",
    "custom_configuration": r"1024 0\.5\n512 0\.25",
    "specific_preset": (
        r"context length: 1536\n"
        r"temperature: 0\.25\n"
        r"system prompt: You are a wise man\.\n"
        r".*No preset is called 'Your ChatML'.*My ChatML.*"
    ),
    "loading_progress": r"Progress: \d.*\nProgress: 100\.0%",
    "listing_downloaded": rf"smollm2-135m-instruct {re.escape(MODEL_PATH)} \d+ MB\n.*",
    "canceling_a_load": r"the load was cancelled at \d+%\nloaded: \[\]",
    "unloading": r"loaded: \[<LLM identifier='my-model'>\]\nloaded: \[\]",
    "using_a_loaded_model": (
        r"by identifier: maxPredictedTokensReached\n"
        r"by repo: my-model\n"
        r"by file: my-model\n"
        r"after unloading: None\n"
        r"after unloading: .*No loaded model has identifier 'my-model'.*\n"
        rf"path: {re.escape(MODEL_PATH)}\n"
        r"identifier: my-model\n"
        r"context length: 1024"
    ),
    "using_any_loaded_model": r".*\w.*\nthe-only-one",
    "listing_loaded": r"\['one', 'two'\]\n.*\w.*",
    "text_completion": r".*\w.*\n[^\n]* Paris.*",
    "conversation": r".*\w.*\n(eosFound|stopStringFound|maxPredictedTokensReached)",
    "prediction_stats": (
        r".*\w.*\n"
        r"after 0\.0 s more: maxPredictedTokensReached\n"
        r"20 tokens, \d+ a second,\n"
        r"the first after \d+ ms\n"
        r"maxPredictedTokensReached"
    ),
    "structured_output": (
        r"(any JSON|not JSON yet): .*\n"
        r"The setup is .*\n"
        r"The punchline is .*\n"
        r"cut off: \s*\{.* maxPredictedTokensReached"
    ),
    "canceling_a_prediction": r".*\w.*\nPrediction was canceled by the user",
}


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, model_file: Path
) -> Iterator[Running]:
    """One server for all examples, with the model and a preset."""
    home = tmp_path_factory.mktemp("home")
    place = home / "models" / MODEL_PATH
    place.parent.mkdir(parents=True)
    place.symlink_to(model_file)
    presets = home / "config-presets"
    presets.mkdir()
    (presets / "My ChatML.preset.json").write_text(PRESET)
    with started(home) as running:
        yield running


@pytest.mark.parametrize("name", PRINTS)
def test_example_runs(name, server, tmp_path):
    """It prints what it should, writes no error, and what it loaded is gone."""
    arguments = [sys.executable, str(EXAMPLES / f"{name}.py")]
    variables = {**environment(tmp_path), "LMSTUDIO_HOST": server.url}
    if name == "using_a_non_default_port":
        arguments.append(server.url.rpartition(":")[2])
        variables["LMSTUDIO_HOST"] = "ws://127.0.0.1:9"  # must not be asked

    done = subprocess.run(
        arguments, env=variables, capture_output=True, text=True, timeout=60
    )

    assert "" == done.stderr
    assert 0 == done.returncode
    assert re.fullmatch(PRINTS[name], done.stdout.strip(), re.DOTALL), done.stdout
    with lmstudio.LMStudioClient(server.url) as client:
        assert [] == client.llm.list_loaded()


def test_every_example_is_listed_and_tested():
    """The files, the table in the README beside them, and this test agree."""
    files = {path.stem for path in EXAMPLES.glob("*.py")} - {"demo"}
    table = re.findall(
        r"^\| .* \| \[(\w+)\.py\]", (EXAMPLES / "README.md").read_text(), re.M
    )

    assert sorted(files) == sorted(PRINTS)
    assert sorted(files) == sorted(table)
