"""Settings of a prediction reach the engine checked, or are refused by their keys."""

from __future__ import annotations

import pytest

from lmstudio.server.engine import Sampling
from lmstudio.server.sampling import (
    GenerationError,
    ReasoningTags,
    draft_model_of,
    effective,
    read_options,
)
from lmstudio.wire.common import KVConfig
from server.scripted import config


def checked(value):
    return {"checked": True, "value": value}


def off(value=1):
    return {"checked": False, "value": value}


def test_defaults():
    """Without settings, sampling is what the application does by default."""
    options = read_options(KVConfig())

    assert Sampling(
        temperature=0.8, top_k=40, top_p=0.95, min_p=0.05, repeat_penalty=1.1
    ) == (options.sampling)
    assert None is options.max_tokens
    assert () == options.stop_strings
    assert "truncateMiddle" == options.overflow
    assert ReasoningTags(start="<think>", end="</think>") == options.reasoning


def test_everything_given():
    """Each setting arrives in its own field."""
    options = read_options(
        config(
            temperature=0,
            topKSampling=3,
            topPSampling=checked(0.5),
            minPSampling=checked(0.25),
            repeatPenalty=checked(1.5),
            seed=checked(7),
            logProbs=checked(2),
            maxPredictedTokens=checked(9.0),
            stopStrings=["a", "b"],
            toolCallStopStrings=["c"],
            contextOverflowPolicy="rollingWindow",
            systemPrompt="Be brief.",
            reasoning__enableThinking=False,
            llama__presencePenalty=checked(0.1),
            llama__frequencyPenalty=checked(0.2),
            llama__xtcProbability=checked(0.3),
            llama__xtcThreshold=checked(0.4),
            llama__logitBias=[[5, -1.5], [6, "-inf"]],
        )
    )

    assert (
        Sampling(
            temperature=0,
            top_k=3,
            top_p=0.5,
            min_p=0.25,
            repeat_penalty=1.5,
            presence_penalty=0.1,
            frequency_penalty=0.2,
            xtc_probability=0.3,
            xtc_threshold=0.4,
            seed=7,
            logit_bias={5: -1.5, 6: False},
        )
        == options.sampling
    )
    assert (9, 2) == (options.max_tokens, options.logprobs)
    assert (("a", "b"), ("c",)) == (
        options.stop_strings,
        options.tool_call_stop_strings,
    )
    assert "rollingWindow" == options.overflow
    assert ("Be brief.", False) == (options.system_prompt, options.enable_thinking)


@pytest.mark.parametrize("value", [off(0.5), checked(False)], ids=["js", "python"])
def test_off(value):
    """Both ways in which clients write "off" switch a setting off."""
    options = read_options(
        config(
            topPSampling=value,
            minPSampling=value,
            repeatPenalty=value,
            seed=value,
            logProbs=value,
            maxPredictedTokens=value,
            llama__presencePenalty=value,
            llama__xtcProbability=value,
        )
    )

    assert (1.0, 0.0, 1.0) == (
        options.sampling.top_p,
        options.sampling.min_p,
        options.sampling.repeat_penalty,
    )
    assert (0.0, 0.0) == (
        options.sampling.presence_penalty,
        options.sampling.xtc_probability,
    )
    assert (None, None, None) == (
        options.sampling.seed,
        options.logprobs,
        options.max_tokens,
    )


def test_no_limit_as_minus_one():
    """A limit of -1 tokens, as older clients write it, is no limit."""
    assert None is read_options(config(maxPredictedTokens=checked(-1))).max_tokens


def test_minus_one_elsewhere():
    """-1 means random for the seed, all for top-k and none for the repeat penalty."""
    sampling = read_options(
        config(seed=checked(-1), topKSampling=-1, repeatPenalty=checked(-1))
    ).sampling

    assert (None, 0, 1.0) == (sampling.seed, sampling.top_k, sampling.repeat_penalty)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"temperature": "hot"},
            "llm.prediction.temperature must be a number of at least 0, not 'hot'",
        ),
        (
            {"temperature": -1},
            "llm.prediction.temperature must be a number of at least 0, not -1",
        ),
        (
            {"temperature": float("nan")},
            "llm.prediction.temperature must be a number of at least 0, not nan",
        ),
        (
            {"topPSampling": checked(2)},
            "llm.prediction.topPSampling must be a number from 0 to 1, not 2",
        ),
        (
            {"topKSampling": 501},
            "llm.prediction.topKSampling must be a whole number from -1 to 500, "
            "not 501",
        ),
        (
            {"maxPredictedTokens": checked(0)},
            "llm.prediction.maxPredictedTokens must be a whole number of at least 1, "
            "not 0",
        ),
        (
            {"repeatPenalty": checked(0)},
            "llm.prediction.repeatPenalty must be a number above 0, or -1 for none, "
            "not 0",
        ),
        (
            {"seed": checked(2**32)},
            "llm.prediction.seed must be a whole number from -1 to 4294967295, "
            "not 4294967296",
        ),
        (
            {"llama__logitBias": [[2**31, 1]]},
            "llm.prediction.llama.logitBias must be pairs with a token id of at most "
            "2147483647, not 2147483648",
        ),
        (
            {"llama__logitBias": [[1, -2e6]]},
            "llm.prediction.llama.logitBias must be pairs with a bias no further from "
            "0 than 1000000, not -2000000.0",
        ),
        *(
            (
                {name: value},
                f"llm.prediction.{name.replace('__', '.')} must be a number no further "
                "from 0 than 1000000, not 10000000",
            )
            for name, value in {
                "temperature": 10**7,
                "repeatPenalty": checked(10**7),
                "llama__presencePenalty": checked(10**7),
                "llama__frequencyPenalty": checked(10**7),
            }.items()
        ),
        (
            {"stopStrings": ["a", ""]},
            "llm.prediction.stopStrings must be a list of non-empty strings, "
            "not ['a', '']",
        ),
        (
            {"contextOverflowPolicy": "explode"},
            "llm.prediction.contextOverflowPolicy must be one of 'stopAtLimit', "
            "'truncateMiddle', 'rollingWindow', not 'explode'",
        ),
        (
            {"llama__logitBias": [[-3, 1]]},
            "llm.prediction.llama.logitBias must be pairs of a token id and a number "
            "or '-inf', not [[-3, 1]]",
        ),
        (
            {
                "reasoning__parsing": {
                    "enabled": True,
                    "startString": "",
                    "endString": "x",
                }
            },
            "llm.prediction.reasoning.parsing must be an object with non-empty "
            "startString and endString, not {'enabled': True, 'startString': '', "
            "'endString': 'x'}",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_wrong_value(values, message):
    """A wrong value is refused, with its key and what would be right."""
    with pytest.raises(GenerationError) as caught:
        read_options(config(**values))

    assert message == caught.value.title
    assert "invalidSetting" == caught.value.code


@pytest.mark.parametrize(
    "values",
    [
        {"llama__tailFreeSampling": checked(0.5)},
    ],
    ids=lambda values: next(iter(values)),
)
def test_samplers_that_are_not_offered(values):
    """A sampler that nobody here knows is refused rather than left out in silence."""
    key = next(iter(values)).replace("__", ".")

    with pytest.raises(GenerationError, match=f"{key}: this server has no such"):
        read_options(config(**values))


def test_samplers_that_are_off():
    """Samplers that are not offered may be mentioned as long as they do nothing."""
    options = read_options(
        config(
            llama__tailFreeSampling=off(0.5),
            llama__locallyTypicalSampling=checked(1),
            llama__mirostatSampling={"version": 0},
        )
    )

    assert 40 == options.sampling.top_k


@pytest.mark.parametrize(
    "values",
    [
        {"contextPrefill": [{"type": "jsonFile", "absPath": "/etc/passwd"}]},
    ],
)
def test_settings_that_are_not_supported(values):
    """What was asked for and cannot be done is an error, never left out in silence."""
    key = next(iter(values)).replace("__", ".")

    with pytest.raises(GenerationError) as caught:
        read_options(config(**values))

    assert caught.value.title.startswith(f"llm.prediction.{key}: this server ")
    assert "unsupportedSetting" == caught.value.code


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"speculativeDecoding__draftModel": "small"}, "small"),
        ({"speculativeDecoding__draftModel": ""}, None),
        ({}, None),
    ],
)
def test_draft_model_of(values, expected):
    """A name asks for one, an empty name and none at all do not."""
    assert expected == draft_model_of(config(**values))


def test_a_draft_model_is_a_name():
    """Anything else is refused with the key."""
    with pytest.raises(GenerationError, match="draftModel must be a string"):
        draft_model_of(config(speculativeDecoding__draftModel=5))


def test_unsupported_settings_that_are_off():
    """The forms in which clients write "off" ask for nothing; speed is no promise."""
    options = read_options(
        config(
            speculativeDecoding__draftModel="",
            speculativeDecoding__numDraftTokensExact=2,
            reasoning__budgetTokens=off(1024),
            llama__cpuThreads=3,
        )
    )

    assert read_options(KVConfig()) == options


TOOL = {"type": "function", "function": {"name": "add"}}
TOOLS = {"type": "toolArray", "tools": [TOOL]}


@pytest.mark.parametrize(
    ("values", "tools"),
    [
        ({}, ()),
        ({"tools": {"type": "none"}}, ()),
        ({"tools": {"type": "toolArray"}}, ()),
        ({"tools": TOOLS}, (TOOL,)),
        ({"tools": TOOLS, "toolChoice": {"type": "generic", "mode": "auto"}}, (TOOL,)),
        ({"tools": TOOLS, "toolChoice": {"type": "generic", "mode": "none"}}, ()),
    ],
)
def test_tools(values, tools):
    """The model sees the tools that it is given and may choose."""
    assert tools == read_options(config(**values)).tools


def generic(mode):
    return {"type": "generic", "mode": mode}


OTHER = {"type": "function", "function": {"name": "other"}}
BOTH = {"type": "toolArray", "tools": [TOOL, OTHER]}
NAMED = {"type": "function", "function": {"name": "other"}}


@pytest.mark.parametrize(
    ("values", "forced"),
    [
        ({"tools": BOTH}, ()),
        ({"tools": BOTH, "toolChoice": generic("required")}, (TOOL, OTHER)),
        ({"tools": BOTH, "toolChoice": NAMED}, (OTHER,)),
        (
            {"tools": BOTH, "toolChoice": {"type": "function", "name": "other"}},
            (OTHER,),
        ),
        ({"tools": {**BOTH, "force": True}}, (TOOL, OTHER)),
        ({"tools": {**BOTH, "force": True}, "toolChoice": generic("none")}, ()),
        ({"tools": {"type": "none", "tools": []}}, ()),
        ({"tools": {"type": "none"}, "toolChoice": generic("required")}, ()),
        ({"toolChoice": generic("required")}, ()),
    ],
)
def test_forced_tools(values, forced):
    """A choice names the tools of which one has to be called."""
    assert forced == read_options(config(**values)).forced_tools


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (
            {
                "tools": {"type": "toolArray", "tools": []},
                "toolChoice": generic("required"),
            },
            "a call of a tool, and there is none",
        ),
        (
            {"tools": TOOLS, "toolChoice": NAMED},
            "a call of 'other', and there is none",
        ),
        (
            {"tools": TOOLS, "toolChoice": generic("maybe")},
            "must be {'type': 'generic'",
        ),
        ({"tools": TOOLS, "toolChoice": "auto"}, "must be {'type': 'generic'"),
        ({"tools": {"type": "toolArray", "tools": [TOOL, TOOL]}}, "different names"),
        (
            {"tools": {"type": "toolArray", "tools": [{"type": "function"}]}},
            "llm.prediction.tools must be",
        ),
        ({"tools": {"type": "magic"}}, "llm.prediction.tools must be"),
        (
            {
                "reasoning__budgetTokens": checked(5),
                "reasoning__parsing": {"enabled": False},
            },
            "needs the thoughts told apart",
        ),
    ],
)
def test_wrong_choices(values, problem):
    """A choice that nothing can fulfil, and tools that are none, are refused."""
    with pytest.raises(GenerationError, match=problem) as caught:
        read_options(config(**values))

    assert "invalidSetting" == caught.value.code


def test_fields_of_newer_clients():
    """Fields of an object that nobody here knows change nothing."""
    mirostat = {"version": 2, "targetEntropy": 4, "learningRate": 0.2, "new": 1}
    parsing = {"enabled": True, "startString": "<a>", "endString": "<b>", "new": 1}
    options = read_options(
        config(llama__mirostatSampling=mirostat, reasoning__parsing=parsing)
    )

    assert (2, 4, 0.2) == (
        options.sampling.mirostat,
        options.sampling.mirostat_tau,
        options.sampling.mirostat_eta,
    )
    assert ReasoningTags(start="<a>", end="<b>") == options.reasoning


def test_thoughts_and_typical_sampling():
    """A budget of 0 is one; the typical sampler has the value that was given."""
    options = read_options(
        config(
            reasoning__budgetTokens=checked(0),
            llama__locallyTypicalSampling=checked(0.5),
        )
    )
    assert (0, 0.5) == (options.reasoning_budget, options.sampling.typical_p)


def test_reasoning_tags():
    """Thoughts may have tags of their own, or not be told apart."""
    tags = {"enabled": True, "startString": "<a>", "endString": "<b>"}

    assert (
        ReasoningTags(start="<a>", end="<b>")
        == read_options(config(reasoning__parsing=tags)).reasoning
    )
    assert (
        None
        is read_options(config(reasoning__parsing={**tags, "enabled": False})).reasoning
    )


def test_effective_has_defaults_and_both_fields_of_checkboxes():
    """What is reported holds the defaults, and nothing that strict readers refuse."""
    made = effective(
        config(
            temperature=0.5,
            minPSampling=0.25,
            maxPredictedTokens=checked(False),
            unheardOf=[1],
            structured=None,
        )
    )

    assert {
        "llm.prediction.temperature": 0.5,
        "llm.prediction.topKSampling": 40,
        "llm.prediction.topPSampling": checked(0.95),
        "llm.prediction.minPSampling": checked(0.25),
        "llm.prediction.repeatPenalty": checked(1.1),
        "llm.prediction.contextOverflowPolicy": "truncateMiddle",
        "llm.prediction.maxPredictedTokens": off(1),
        "llm.prediction.unheardOf": [1],
    } == {field.key: field.value for field in made.fields}
