"""The keywords that type checkers know are those that predictions take."""

from __future__ import annotations

import inspect

import pytest

from lmstudio import LLM, LMStudioClient, LMStudioValueError
from lmstudio.aliases import CALLBACKS
from lmstudio.keywords import (
    ActOptions,
    CompleteKeywords,
    LoadOptions,
    MapKeywords,
    PredictionOptions,
    RespondKeywords,
)
from lmstudio.options import AFFIXES, PredictionSettings
from lmstudio.wire.config import (
    EMBEDDING_LOAD_SETTINGS,
    LOAD_SETTINGS,
    PREDICTION_SETTINGS,
    RAW,
)

#: What decides the type of the answer is in the overloads instead.
DECIDING = {"structured", "response_format"}
#: Options of one of the two that become other options.
TRANSLATED = {
    LLM.complete: {"pre_prompt"},
    LLM.respond: {"input_prefix", "input_suffix"},
}


def test_every_option_is_a_keyword():
    """The table of options and the keywords are the same, other names included."""
    names = {name for row in PREDICTION_SETTINGS for name in (row.name, *row.also)}

    assert {*names, RAW} - DECIDING == PredictionOptions.__annotations__.keys()


@pytest.mark.parametrize(
    ("method", "keywords"),
    [(LLM.complete, CompleteKeywords), (LLM.respond, RespondKeywords)],
    ids=["complete", "respond"],
)
def test_every_argument_is_a_keyword(method, keywords):
    """What the method itself takes is known as well, and nothing else is."""
    own = {
        name
        for name, parameter in inspect.signature(method).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    options = PredictionOptions.__annotations__.keys()

    known = set(keywords.__annotations__)
    assert own - DECIDING | options | set(CALLBACKS) | TRANSLATED[method] == known


@pytest.mark.parametrize("is_completion", [True, False])
def test_keywords_of_the_other_method(is_completion):
    """What is translated for one method is refused by the other."""
    mine, other = (TRANSLATED[LLM.complete], TRANSLATED[LLM.respond])
    wrong = other if is_completion else mine
    for name in sorted(wrong):
        with pytest.raises(ValueError, match=f"'{name}' is an option of"):
            PredictionSettings({name: "x"}, is_completion=is_completion)


def test_every_argument_of_act_is_a_keyword():
    """What `act` takes besides the arguments that it names: the options."""
    own = set(inspect.signature(LLM.act).parameters) - {"options"}

    known = set(ActOptions.__annotations__)
    assert {*PredictionOptions.__annotations__, *AFFIXES} == known
    assert set() == own & known


def test_map_takes_what_it_hands_on():
    """What `map` hands on is what `respond` or `complete` takes, but the progress."""
    known = {*RespondKeywords.__annotations__, *CompleteKeywords.__annotations__}

    assert known - {"progress"} | {"config"} == set(MapKeywords.__annotations__)


def test_every_load_option_is_a_keyword():
    """The tables of load options, of both kinds, and the keywords are the same."""
    rows = (*LOAD_SETTINGS, *EMBEDDING_LOAD_SETTINGS)
    names = {name for row in rows for name in (row.name, *row.also)}

    known = {name for name in LoadOptions.__annotations__ if name == name.lower()}
    snake = {name for name in names if name == name.lower()}
    assert snake | {RAW, "gpu", "gpu_offload"} == known


LOADS = {
    "load": lambda client: client.llm.load,
    "model": lambda client: client.llm.model,
    "load_new_instance": lambda client: client.llm.load_new_instance,
}


@pytest.mark.parametrize("name", LOADS)
@pytest.mark.parametrize(
    "options",
    [{"context_length": 512, "gpu": 0.5}, {"contextLength": 512, "gpuOffload": 0.5}],
    ids=["snake", "camel"],
)
def test_load_options_as_keywords(fake, client, name, options):
    """Load options are keywords, in both spellings, and travel as those in config."""
    LOADS[name](client)("any", **options)
    LOADS[name](client)("any", config={"context_length": 512, "gpu": {"ratio": 0.5}})

    method = "getOrLoad" if name == "model" else "loadModel"
    first, second = (p["loadConfigStack"] for p in fake.parameters(method))
    assert second == first
    [layer] = first["layers"]
    fields = {field["key"]: field["value"] for field in layer["config"]["fields"]}
    assert 512 == fields["llm.load.contextLength"]
    assert 0.5 == fields["llm.load.llama.acceleration.offloadRatio"]


def test_load_options_of_what_is_downloaded(fake, client):
    """The ways to load a downloaded model take them as well."""
    model = client.llm.list_downloaded()[0]
    model.model(context_length=512)
    model.load_new_instance(context_length=512)

    for method in ("getOrLoad", "loadModel"):
        [sent] = fake.parameters(method)
        fields = sent["loadConfigStack"]["layers"][0]["config"]["fields"]
        assert {"key": "llm.load.contextLength", "value": 512} in fields


@pytest.mark.parametrize("name", LOADS)
@pytest.mark.parametrize(
    ("options", "error"),
    [
        (
            {"contextLenght": 5},
            "unknown load option 'contextLenght'; did you mean 'context_length'?",
        ),
        (
            {"onLoadProgress": 5},
            "unknown load option 'onLoadProgress'; did you mean 'on_load_progress'?",
        ),
        (
            {"context_length": 5, "config": {"contextLength": 5}},
            "load option context_length is given twice, in config as 'contextLength'"
            " and as the keyword 'context_length'",
        ),
        (
            {"num_ctx": 5},
            "unknown load option 'num_ctx'; did you mean 'context_length'",
        ),
        ({"temperature": 1}, "'temperature' is a prediction option, not a load option"),
    ],
    ids=str,
)
def test_wrong_load_options(fake, client, name, options, error):
    """A wrong keyword names the right one; nothing is sent."""
    with pytest.raises(LMStudioValueError) as caught:
        LOADS[name](client)("any", **options)
    assert str(caught.value).startswith(error)
    assert [] == fake.requests


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (
            lambda c: c.llm.load("any", identifer="x"),
            "unknown load option 'identifer'; did you mean 'identifier'?",
        ),
        (
            lambda c: c.llm.load("any", noHup=True),
            "unknown load option 'noHup'; did you mean 'no_hup'?",
        ),
        (
            lambda c: c.llm.load("any", config={"identifier": "x"}),
            "'identifier' is an argument of load() itself, not a load option; give it"
            " as a keyword",
        ),
        (
            lambda c: c.llm.get(idntifier="x"),
            "get() takes no 'idntifier'; did you mean 'identifier'?",
        ),
        (
            lambda c: c.llm.get({"idntifier": "x"}),
            "unknown field 'idntifier' in a query; did you mean 'identifier'?; known"
            " are identifier, path, vision, domain",
        ),
        (
            lambda c: LMStudioClient(baseUrl="x"),
            "LMStudioClient() takes no 'baseUrl'; did you mean 'base_url'?",
        ),
        (
            lambda c: c.llm.get("any").apply_prompt_template("x", omit_bos=True),
            "apply_prompt_template() takes no 'omit_bos'; did you mean"
            " 'omit_bos_token'?",
        ),
    ],
)
def test_unknown_keywords(fake, client, call, error):
    """A keyword that a call does not take is an error of ours, and a TypeError."""
    with pytest.raises(LMStudioValueError) as caught:
        call(client)
    assert error == str(caught.value)
    assert [] == fake.requests
