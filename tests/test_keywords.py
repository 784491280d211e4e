"""The keywords that type checkers know are those that predictions take."""

from __future__ import annotations

import inspect

import pytest

from lmstudio import LLM
from lmstudio.aliases import CALLBACKS
from lmstudio.keywords import (
    ActOptions,
    CompleteKeywords,
    MapKeywords,
    PredictionOptions,
    RespondKeywords,
)
from lmstudio.options import AFFIXES, PredictionSettings
from lmstudio.wire.config import PREDICTION_SETTINGS, RAW

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
