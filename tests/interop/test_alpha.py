"""The client of the first README runs its examples against this server."""

from __future__ import annotations

import json

import pytest

import lmstudio
from interop import environments
from interop.clients import HERE, Client, embedded_server, log_file
from interop.conftest import MODEL, make_home

PRESET = {
    "identifier": "@local:my-chatml",
    "name": "My ChatML",
    "operation": {
        "fields": [
            {
                "key": "llm.prediction.maxPredictedTokens",
                "value": {"checked": True, "value": 7},
            }
        ]
    },
}
#: Examples whose answer is the model's own words, always the same.
EXAMPLES = ("usage", "text completion", "conversation")


@pytest.fixture(scope="module")
def run(tmp_path_factory, model_file):
    """What each example gave, and which models stay when the client has gone."""
    node, modules = environments.alpha()
    home = make_home(tmp_path_factory.mktemp("home-alpha"), model_file)
    presets = home / "config-presets"
    presets.mkdir()
    (presets / "My ChatML.preset.json").write_text(json.dumps(PRESET))
    words = [node, str(HERE / "alpha_client.mjs"), str(modules)]
    with embedded_server(home) as address:
        with Client([*words, address, MODEL]) as script:
            output, errors, code = script.rest()
        with lmstudio.LMStudioClient(address) as ours:
            staying = [model.identifier for model in ours.llm.list_loaded()]
    steps = [json.loads(line) for line in output.splitlines()]
    assert ("", 0) == (errors, code)
    made = {step["step"]: step for step in steps}
    made["staying"] = {"value": staying}
    made["log"] = {"value": log_file(home).read_text("utf-8")}
    return made


@pytest.fixture
def value(run):
    """Gives what an example printed."""

    def value(step):
        assert "failed" not in run[step], run[step]["failed"]
        return run[step]["value"]

    return value


def test_nothing_failed_and_nobody_complained(run):
    """Every example ends, and neither side misunderstands the other."""
    assert {} == {k: v["failed"] for k, v in run.items() if "failed" in v}
    assert [] == run["end"]["complaints"]
    assert [] == [line for line in run["log"]["value"].splitlines() if "WARN" in line]
    assert 30 == len(run)


@pytest.mark.parametrize("step", EXAMPLES)
def test_predictions(value, step, model_file):
    """Texts come one by one, and the result has them all, with what it knows."""
    got = value(step)
    stats = got["stats"]

    assert len(got["texts"]) > 3
    assert got["content"] == "".join(got["texts"]) != ""
    assert "maxPredictedTokensReached" == stats["stopReason"]
    total = stats["promptTokensCount"] + stats["predictedTokensCount"]
    assert total == stats["totalTokensCount"]
    assert {"identifier", "path"} == set(got["model"])
    assert f"{MODEL}/{model_file.name}" == got["model"]["path"]


def test_completions_take_the_text_as_it_is(value):
    """No template comes around a completion: the numbers go on."""
    assert value("usage")["content"].startswith(" 11, 12")
    assert value("any model")["content"] == value("text completion")["content"]


def test_names(value):
    """A model is found under its friendly name, and that can't be given twice."""
    assert "my-model" == value("a friendly name")["identifier"]
    assert "already exists" in value("a name that is taken")["text"]


def test_options_of_a_load(value):
    """A configuration is taken, and progress comes in order up to the end."""
    assert value("a custom configuration")["path"].startswith(f"{MODEL}/")
    progress = value("loading progress")["progress"]
    assert progress == sorted(progress)
    assert (0, 1) == (progress[0], progress[-1])


def test_presets(value):
    """A preset's options hold for the predictions of its model; others are errors."""
    assert 7 == value("a preset")["stats"]["predictedTokensCount"]
    assert "none such" in value("an unknown preset")["text"]


def test_listing(value):
    """What is listed can be loaded by its path."""
    got = value("listing what can be loaded")
    ((path, kind),) = [(model["path"], model["type"]) for model in got["models"]]
    assert ("llm", {"identifier": "by path", "path": path}) == (kind, got["loaded"])


def test_lookups(value):
    """Models are found by identifier, by either path, and any of them by nothing."""
    assert value("getting by identifier")["same"]
    paths = value("getting by path")
    assert paths["path"] == paths["any"] == paths["exact"]
    info = value("a model's info")
    assert ("my-model", None) == (info["info"]["identifier"], info["missing"])
    first = value("the first that is loaded")
    assert first["first"]["identifier"] == first["got"]


def test_unloading(value):
    """An unloaded model is gone, and a load that was aborted never comes."""
    assert {"before": True, "after": False} == value("unloading")
    assert "aborted" in value("canceling a load")["text"]


@pytest.mark.parametrize(
    ("step", "text"),
    [
        ("unloading what is not there", "satisfies all requirements"),
        ("loading what is not there", 'Cannot find an LLM with path "no/such-model"'),
        ("getting what is not there", "satisfies all requirements"),
    ],
)
def test_errors_have_the_old_codes(value, step, text):
    """The client's own texts for known codes come up: it understood them."""
    assert text in " ".join(value(step)["text"].replace("│", " ").split())


def test_options_of_a_prediction(value):
    """Stop strings and limits do what they say."""
    got = value("completion with options")
    assert "stopStringFound" == got["stats"]["stopReason"]
    assert "13" not in got["content"]
    got = value("conversation with options")
    assert "".join(got["texts"]) == got["content"]
    assert got["stats"]["predictedTokensCount"] <= 20


def test_json(value):
    """Structured output is JSON, and with a schema obeys it."""
    assert value("json")["content"].startswith("{")
    assert {"setup", "punchline"} == set(value("json with a schema")["parsed"])


def test_cancelling(value):
    """A cancelled prediction ends normally, and says so."""
    assert "userStopped" == value("canceling a prediction")["stats"]["stopReason"]


def test_logs(value):
    """The log has the prompts, in the form that the client knows."""
    got = value("the server's log")
    assert {"kind": "llm.prediction.input", "input": "Hello"} == got


def test_models_go_with_their_client(value):
    """When the client has gone only what was loaded to stay is there."""
    assert ["kept"] == value("staying")
