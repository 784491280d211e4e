"""Users of the official clients get from this server what they know.

Each test looks at one step of one run per client; all of the run is checked by
`test_conversation.py`.
"""

from __future__ import annotations

import json

import pytest

from interop.conftest import MODEL

#: For what only one of the clients can do.
only_python = pytest.mark.parametrize("client", ["python"], indirect=True)
only_js = pytest.mark.parametrize("client", ["js"], indirect=True)


def test_downloaded(run, model_file):
    """The models on disk are listed, with their keys and paths."""
    ((key, path, kind),) = run["downloaded"]["models"]

    assert (f"{MODEL}/{model_file.name}", "llm") == (path, kind)
    assert [key] == run["downloaded llm"]["keys"]


def test_load(run):
    """A load reports its progress up to the end, and takes the identifier."""
    progress = run["load"]["progress"]

    assert "first" == run["load"]["identifier"]
    assert (0, 1) == (progress[0], progress[-1])
    assert sorted(progress) == progress
    assert len(progress) > 2


def test_loaded(run):
    """What is loaded is listed by its identifier."""
    assert {"identifiers": ["first"]} == run["loaded"]


def test_context_length(run):
    """The context has the length that was asked for."""
    assert {"tokens": 1024} == run["context length"]


@only_python
def test_load_config(run):
    """The configuration of a loaded model is the one of its load."""
    assert {"context_length": 1024, "seed": 7} == run["load config"]


def test_info(run):
    """A handle describes its model."""
    ((key, _, _),) = run["downloaded"]["models"]

    assert {
        "identifier": "first",
        "key": key,
        "format": "gguf",
        "context": 1024,
        "max_context": 8192,
        "vision": False,
    } == run["info"]


@pytest.mark.parametrize("name", ["get by identifier", "get by key", "get any"])
def test_get_what_is_loaded(run, name):
    """A loaded model is found by its identifier and key, and without a name."""
    assert {"identifier": "first"} == run[name]


@only_js
def test_version(run):
    """The server tells its version in three numbers."""
    assert 3 == len(run["version"]["version"].split("."))


@pytest.mark.parametrize("name", ["complete", "respond"])
def test_predict(run, name):
    """A whole answer has its text, its statistics and its model."""
    ((key, _, _),) = run["downloaded"]["models"]
    result = run[name]

    assert result["content"].strip()
    assert result["stop"] in ("maxPredictedTokensReached", "eosFound")
    assert 1 <= result["predicted"] <= 24
    assert result["prompt"] + result["predicted"] == result["total"]
    assert result["first"] > 0
    assert key == result["model"]


@pytest.mark.parametrize("name", ["complete", "respond"])
def test_stream(run, name):
    """Streamed, the same answer comes in pieces."""
    result = run[f"{name} streamed"]

    assert len(result["texts"]) > 2
    assert result["content"] == "".join(result["texts"])
    assert run[name]["content"] == result["content"]


def test_callbacks(run):
    """The prompt's progress goes from 0 to 1, and the first token comes once."""
    result = run["respond streamed"]

    assert (0, 1) == (result["progress"][0], result["progress"][-1])
    assert sorted(result["progress"]) == result["progress"]
    assert 1 == result["first_tokens"]


def test_temperature_0(run):
    """At temperature 0 the same prompt gives the same text."""
    assert run["complete"]["content"] == run["stop string"]["whole"]


def test_max_tokens(run):
    """A limit of tokens ends the text there."""
    result = run["max tokens"]

    assert ("maxPredictedTokensReached", 5) == (result["stop"], result["predicted"])


def test_stop_string(run):
    """A stop string ends the text in front of it."""
    result = run["stop string"]

    assert "stopStringFound" == result["stop"]
    assert result["whole"].partition(result["string"])[0] == result["content"]


def test_structured(run):
    """An answer obeys its schema, and the client parses it."""
    result = run["structured"]

    assert json.loads(result["content"]) == result["parsed"]
    assert {str, int} == {type(result["parsed"][name]) for name in ("name", "age")}
    assert 1 <= result["parsed"]["age"] <= 99


def test_two_at_once(run):
    """Two predictions on one connection both come to their end."""
    results = run["two at once"]["results"]

    assert [24, 24] == [result["predicted"] for result in results]


def test_cancel(run):
    """Cancelled predictions end at once, and leave their slots to the next one."""
    result = run["cancel"]

    assert ["userStopped"] * 6 == result["stops"]
    # They don't end by themselves before the context is full.
    assert max(result["predicted"]) < 200
    assert "maxPredictedTokensReached" == result["next"]
    assert result["seconds"] < 5


def test_tokenize(run):
    """Text becomes tokens, alone and in a batch, and their number."""
    result = run["tokenize"]

    assert all(isinstance(token, int) for token in result["one"])
    assert [result["one"], result["many"][1]] == result["many"]
    assert len(result["one"]) == result["count"]
    assert 1 == len(result["many"][1])


def test_template(run):
    """The model's template is applied, up to the header of the answer."""
    expected = (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert expected == run["template"]["text"]


#: Step, class in Python, what its text says, what the text says in JavaScript.
FAILURES = [
    (
        "load unknown key",
        "LMStudioServerError",
        "No model on disk is called 'no/such-model'",
        'Cannot find a model with path "no/such-model"',
    ),
    (
        "get unknown key",
        "LMStudioServerError",
        '"code": "generic.pathNotFound"',
        'Cannot find a model with path "no/such-model"',
    ),
    (
        "unknown identifier",
        "LMStudioModelNotFoundError",
        "No loaded model has identifier 'nobody'",
        'The identifier must be exactly "nobody"',
    ),
    (
        "unload unknown",
        "LMStudioModelNotFoundError",
        '"code": "generic.noModelMatchingQuery"',
        "No loaded model satisfies all requirements",
    ),
    (
        "identifier clash",
        "LMStudioServerError",
        "'first' already exists",
        "'first' already exists",
    ),
    (
        "wrong schema",
        "LMStudioServerError",
        "'no such type' is not valid under any of the given schemas",
        "'no such type' is not valid under any of the given schemas",
    ),
    (
        "unknown preset",
        "LMStudioPresetNotFoundError",
        "No preset is called 'none such'",
        'Cannot find a preset with identifier "none such"',
    ),
]


@pytest.mark.parametrize(
    ("name", "kind", "python", "js"), FAILURES, ids=[row[0] for row in FAILURES]
)
def test_failure(run, client, name, kind, python, js):
    """What goes wrong is an exception of the right class that says why."""
    expected = {"python": (kind, python), "js": ("Error", js)}[client.name]

    assert expected[0] == run[name]["type"]
    assert expected[1] in run[name]["text"]


def test_info_of_nobody(run, client):
    """There is no description of a model that is not loaded."""
    expected = {"python": "LMStudioModelNotFoundError", "js": None}[client.name]

    assert expected == run["unknown identifier's info"].get("type")


def test_unload(run):
    """An unloaded model is gone."""
    assert {"identifiers": []} == run["unload"]


@only_js
def test_use_unloaded(run):
    """A handle of an unloaded model says so."""
    assert "has already been unloaded" in run["use unloaded"]["text"]


@only_js
def test_abort_a_load(run):
    """An aborted load leaves nothing in memory."""
    expected = {
        "type": "AbortError",
        "text": "This operation was aborted",
        "identifiers": [],
    }
    assert expected == run["abort a load"]


def test_get_and_load(run):
    """A model that is not loaded is loaded under its key."""
    result = run["get and load"]

    assert result["key"] == result["identifier"]
    assert (0, 1) == (result["progress"][0], result["progress"][-1])


def test_load_a_second(run):
    """A second instance of a model gets a name of its own."""
    result = run["load a second"]

    assert f"{result['key']}:2" == result["identifier"]


def test_unload_all(run):
    """In the end nothing is loaded."""
    assert {"identifiers": []} == run["unload all"]
