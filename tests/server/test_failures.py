"""Whatever fails, the client gets an error object with the code that it knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmstudio.errors import LMStudioValueError
from lmstudio.server.engine import (
    BadRequest,
    ContextOverflow,
    LoadFailed,
    ModelCrashed,
)
from lmstudio.server.failures import (
    Failure,
    error_object,
    instance_gone,
    no_match,
    no_preset,
    wrong_domain,
)
from lmstudio.server.gguf import NotGGUF
from lmstudio.server.lookup import ModelNotOnDisk
from lmstudio.server.sampling import GenerationError
from lmstudio.testing.engine import scripted_model
from lmstudio.wire.common import ModelQuery
from schema import problems


@pytest.mark.parametrize(
    ("exc", "data"),
    [
        (LoadFailed("no"), {"code": "engine.loadFailed"}),
        (NotGGUF(Path("x"), "no"), {"code": "engine.loadFailed"}),
        (ModelCrashed("no"), {"code": "engine.modelCrashed"}),
        (
            ContextOverflow(9, 5),
            {
                "code": "engine.contextOverflow",
                "promptTokens": 9,
                "contextLength": 5,
            },
        ),
        (GenerationError("no", code="invalidSetting"), {"code": "invalidSetting"}),
        (GenerationError("no"), None),
        (BadRequest("no"), None),
        (Failure("no", data={"code": "x"}), {"code": "x"}),
    ],
)
def test_our_own_codes(exc, data):
    """Errors of the engine have codes that our client knows."""
    made = error_object(exc)
    assert data == made.get("errorData")
    assert exc.title == made["title"] == made["rootTitle"]
    assert [] == problems("serializedLMSExtendedError", made)


def test_causes_and_suggestions_travel():
    """Each field of an error has one on the wire, and none is null."""
    made = error_object(LoadFailed("title", "cause", "suggestion"))
    assert ("cause", "suggestion") == (made["cause"], made["suggestion"])
    assert {"title": "no", "rootTitle": "no"} == error_object(BadRequest("no"))


@pytest.mark.parametrize(
    ("exc", "display"),
    [
        (
            ModelNotOnDisk("x", ["y"], ["y", "z"], 12),
            {
                "code": "generic.pathNotFound",
                "path": "x",
                "availablePathsSample": ["y", "z"],
                "totalModels": 12,
            },
        ),
        (
            no_match(ModelQuery(identifier="x"), [str(n) for n in range(12)]),
            {
                "code": "generic.noModelMatchingQuery",
                "query": {"identifier": "x"},
                "loadedModelsSample": [str(n) for n in range(10)],
                "totalLoadedModels": 12,
            },
        ),
        (instance_gone("x"), {"code": "generic.specificModelUnloaded"}),
        (
            wrong_domain(scripted_model("any"), "embedding"),
            {
                "code": "generic.domainMismatch",
                "path": "testing/any-GGUF/any-Q4_K_M.gguf",
                "actualDomain": "llm",
                "expectedDomain": "embedding",
            },
        ),
        (
            no_preset("x"),
            {
                "code": "generic.presetNotFound",
                "specifiedFuzzyPresetIdentifier": "x",
                "availablePresetsSample": [],
                "totalAvailablePresets": 0,
            },
        ),
    ],
)
def test_codes_of_the_protocol(exc, display):
    """Each code of the protocol comes with all of its fields."""
    assert display == error_object(exc)["displayData"]


@pytest.mark.parametrize(
    ("query", "loaded", "text"),
    [
        ({}, [], "No model is loaded. Load a model first"),
        (
            {"identifier": "x"},
            ["a", "b"],
            "No loaded model has identifier 'x'. These are loaded: a, b",
        ),
        (
            {"path": "p"},
            [],
            "No loaded model has path 'p'. No model is loaded. Load a model first",
        ),
    ],
)
def test_what_people_read(query, loaded, text):
    """The text says what was asked for and what there is."""
    assert text == str(no_match(ModelQuery(**query), loaded))


def test_what_was_not_foreseen(caplog):
    """Errors of our own package keep their text; any other is logged in full."""
    assert "oops" == error_object(LMStudioValueError("oops"))["title"]
    assert [] == caplog.records
    made = error_object(KeyError("oops"))
    assert ("The server failed", "KeyError: 'oops'") == (made["title"], made["cause"])
    (record,) = caplog.records
    assert record.exc_info is not None


def test_refusals_are_logged(caplog):
    """The server's log has what was refused, by its title."""
    with caplog.at_level("INFO"):
        error_object(BadRequest("No such model", "a cause"))

    assert ["refused or failed: No such model"] == [r.message for r in caplog.records]
