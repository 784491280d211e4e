"""Options in all spellings become settings, and none is dropped in silence."""

from __future__ import annotations

import pytest

from lmstudio import LMStudioTypeError, LMStudioValueError
from lmstudio.options import PredictionSettings, load_stack, merged

NAN, INF = float("nan"), float("inf")


def load(config=None, acceleration=None, **more):
    """The settings of a load, by the server's keys."""
    (layer,) = load_stack(config, acceleration, **more).layers
    assert "apiOverride" == layer.layer_name
    return {field.key: field.value for field in layer.config.fields}


def prediction(is_completion=False, **options):
    """The settings of a prediction, by the server's keys."""
    settings = PredictionSettings(options, is_completion=is_completion)
    layer = settings.stack.layers[0]
    assert "apiOverride" == layer.layer_name
    return {field.key: field.value for field in layer.config.fields}


L, LL, P = "llm.load.", "llm.load.llama.", "llm.prediction."
OFFLOAD = LL + "acceleration.offloadRatio"
DRAFT = LL + "speculativeDecoding.draft"
BY_HAND = dict.fromkeys((LL + "autoFit", L + "mlx.autoFit", L + "yuzu.autoFit"), False)


def split(**more):
    even = {"strategy": "evenly", "disabledGpus": [], "priority": [], "customRatio": []}
    return {"load.gpuSplitConfig": {**even, **more}}


def test_merging():
    """Options from a mapping and from keywords are one."""
    assert {"a": 1} == merged(None, {"a": 1}, "load")
    assert {"a": 1, "b": 2} == merged({"b": 2}, {"a": 1}, "load")
    with pytest.raises(LMStudioTypeError) as caught:
        merged([1], {}, "load")
    assert "config must be a mapping of load options, not [1]" == str(caught.value)
    with pytest.raises(LMStudioValueError) as caught:
        merged({"a": 1}, {"a": 1}, "load")
    assert "load option a is given twice, in config and as a keyword" == str(
        caught.value
    )


@pytest.mark.parametrize(
    ("config", "acceleration", "expected"),
    [
        (None, None, {}),
        ({}, {}, {}),
        ({"seed": 7}, None, {L + "seed": {"checked": True, "value": 7}}),
        ({"contextLength": 1024}, None, {L + "contextLength": 1024, **BY_HAND}),
        ({"context_length": 1024}, None, {L + "contextLength": 1024, **BY_HAND}),
        (None, {"offload": 0.5}, {OFFLOAD: 0.5, **BY_HAND}),
        (None, {"acceleration": {"offload": 0.5}}, {OFFLOAD: 0.5, **BY_HAND}),
        ({"acceleration": {"offload": "max"}}, None, {OFFLOAD: "max", **BY_HAND}),
        (None, 0.5, {OFFLOAD: 0.5, **BY_HAND}),
        (None, "auto", {}),
        (None, {"offload": "auto"}, {}),
        ({"gpuOffload": "off"}, None, {OFFLOAD: "off", **BY_HAND}),
        ({"gpu_offload": 1}, None, {OFFLOAD: 1, **BY_HAND}),
        ({"gpu_offload": None, "gpu": None}, None, {}),
        ({"gpu": 0.25}, None, {OFFLOAD: 0.25, **BY_HAND}),
        ({"gpu": {"ratio": 0.25}}, None, {OFFLOAD: 0.25, **BY_HAND}),
        ({"gpu": {"ratio": "auto"}}, None, {}),
        ({"gpu_ratio": 0.25}, None, {OFFLOAD: 0.25, **BY_HAND}),
        (
            {"gpu": {"mainGpu": 0}},
            None,
            {**split(priority=[0]), **BY_HAND},
        ),
        (
            {"gpu": {"main_gpu": 1, "splitStrategy": "favorMainGpu"}},
            None,
            {**split(priority=[1], strategy="priorityOrder"), **BY_HAND},
        ),
        (
            {"gpu": {"split_strategy": "favor_main_gpu", "mainGpu": None}},
            None,
            {**split(strategy="priorityOrder"), **BY_HAND},
        ),
        (
            {"gpu": {"disabledGpus": (1, 2), "split_strategy": "evenly"}},
            None,
            {**split(disabledGpus=[1, 2]), **BY_HAND},
        ),
        (
            {"gpu": {"numCpuExpertLayersRatio": "off", "ratio": 1}},
            None,
            {OFFLOAD: 1, L + "numCpuExpertLayersRatio": "off", **BY_HAND},
        ),
        (
            {"autoFit": True, "contextLength": 9},
            None,
            {L + "contextLength": 9, **dict.fromkeys(BY_HAND, True)},
        ),
        ({"auto_fit": False}, None, BY_HAND),
        (
            {"speculativeDraftModel": "a", "speculative_draft_mtp_sidecar": True},
            None,
            {
                DRAFT + "Model": "a",
                DRAFT + "MtpSidecar": True,
                DRAFT + "DflashSidecar": False,
                DRAFT + "DsparkSidecar": False,
            },
        ),
        (
            {"llamaKCacheQuantizationType": "q8_0", "tryMmap": False},
            None,
            {
                LL + "kCacheQuantizationType": {"checked": True, "value": "q8_0"},
                LL + "tryMmap": False,
            },
        ),
    ],
    ids=str,
)
def test_load_options(config, acceleration, expected):
    """Every spelling of a load option; placement by hand switches fitting off."""
    assert expected == load(config, acceleration)


def test_embedding_models():
    """Their options have keys of their own, and no fitting."""
    assert {
        "embedding.load.contextLength": 512,
        "embedding.load.llama.acceleration.offloadRatio": "max",
    } == load({"contextLength": 512, "gpu": "max"}, embedding=True)


@pytest.mark.parametrize(
    ("config", "acceleration", "error"),
    [
        ([], None, "config must be a mapping of load options, not []"),
        ({"contextLenght": 1}, None, "unknown load option 'contextLenght'; did you"),
        ({"temperature": 1}, None, "'temperature' is a prediction option, not a load"),
        ({1: 2}, None, "unknown load option 1"),
        ({"context_length": 0}, None, "load option context_length must be a whole"),
        ({"context_length": NAN}, None, "load option context_length must be a whole"),
        ({"context_length": "9"}, None, "load option context_length must be a whole"),
        ({"context_length": True}, None, "load option context_length must be a whole"),
        ({"context_length": 1, "contextLength": 1}, None, "load option context_length"),
        ({"gpu": NAN}, None, "load option gpu_ratio must be a number from 0 to 1"),
        ({"gpu": 1.5}, None, "load option gpu_ratio must be a number from 0 to 1"),
        ({"gpu": True}, None, "load option gpu_ratio must be a number from 0 to 1"),
        ({"gpu": "some"}, None, "load option gpu_ratio must be a number from 0 to 1"),
        ({"gpu": [1]}, None, "load option gpu_ratio must be a number from 0 to 1"),
        (
            {"gpu": {"rato": 1}},
            None,
            "unknown gpu option 'rato'; known are offload (alone), ratio, main_gpu,",
        ),
        (None, {"offlod": 1}, "unknown acceleration option 'offlod'; known are offl"),
        (
            {"gpu": {"splitStrategy": "best"}},
            None,
            "split_strategy must be 'evenly' or 'favorMainGpu', not 'best'",
        ),
        (
            {"gpu": {"mainGpu": -1}},
            None,
            "main_gpu takes numbers of GPUs from 0, not -1",
        ),
        (
            {"gpu": {"mainGpu": True}},
            None,
            "main_gpu takes numbers of GPUs from 0, not True",
        ),
        (
            {"gpu": {"disabledGpus": 1}},
            None,
            "disabled_gpus takes numbers of GPUs from 0, not 1",
        ),
        (
            {"gpu": {"disabledGpus": ["a"]}},
            None,
            "disabled_gpus takes numbers of GPUs from 0, not ['a']",
        ),
        ({"gpu": 1}, {"offload": 1}, "load option gpu_ratio is given twice, also by"),
        (
            {"acceleration": 1},
            {"offload": 1},
            "load option gpu_ratio is given twice, also by acceleration",
        ),
        (
            {"gpuOffload": 1, "gpu_offload": 1},
            None,
            "load option gpu_ratio is given twice, also by gpuOffload",
        ),
        (
            {"gpu_ratio": 1, "gpu": 0.5},
            None,
            "load option gpu_ratio is given twice, also by gpu",
        ),
    ],
    ids=str,
)
def test_wrong_load_options(config, acceleration, error):
    """Nothing is dropped in silence, and nothing wrong is sent."""
    with pytest.raises(LMStudioValueError) as caught:
        load(config, acceleration)
    assert str(caught.value).startswith(error), str(caught.value)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {}),
        ({"temperature": 0.7}, {P + "temperature": 0.7}),
        (
            {"maxPredictedTokens": 100},
            {P + "maxPredictedTokens": {"checked": True, "value": 100}},
        ),
        (
            {"max_predicted_tokens": 100},
            {P + "maxPredictedTokens": {"checked": True, "value": 100}},
        ),
        (
            {"max_tokens": False},
            {P + "maxPredictedTokens": {"checked": False, "value": 1}},
        ),
        (
            {"maxTokens": -1},
            {P + "maxPredictedTokens": {"checked": False, "value": 1}},
        ),
        ({"stopStrings": ["\n"]}, {P + "stopStrings": ["\n"]}),
        ({"stop_strings": []}, {P + "stopStrings": []}),
        ({"stop": "\n"}, {P + "stopStrings": ["\n"]}),
        (
            {"contextOverflowPolicy": "stopAtLimit"},
            {P + "contextOverflowPolicy": "stopAtLimit"},
        ),
        (
            {"context_overflow_policy": "rolling_window"},
            {P + "contextOverflowPolicy": "rollingWindow"},
        ),
        ({"temperature": None, "stop_strings": None}, {}),
        ({"input_prefix": None, "prePrompt": None}, {}),
        ({"stop": ["x" * 1_000_000]}, {P + "stopStrings": ["x" * 1_000_000]}),
    ],
    ids=lambda value: str(value)[:60],
)
def test_prediction_options(options, expected):
    """Every spelling of an option of respond()."""
    assert expected == prediction(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"input_prefix": "Q: ", "input_suffix": "\nA:"},
        {"inputPrefix": "Q: ", "inputSuffix": "\nA:"},
        {"inputPrefix": "Q: ", "input_suffix": "\nA:", "promptTemplate": None},
    ],
    ids=str,
)
def test_affixes(options):
    """The README's prefix and suffix become a template around the user's messages."""
    template = prediction(**options)[P + "promptTemplate"]

    assert "manual" == template["type"]
    assert [] == template["stopStrings"]
    assert {
        "beforeSystem": "",
        "afterSystem": "",
        "beforeUser": "Q: ",
        "afterUser": "\nA:",
        "beforeAssistant": "",
        "afterAssistant": "",
    } == template["manualPromptTemplate"]


def test_one_affix():
    """The other one is empty then."""
    template = prediction(input_suffix="!")[P + "promptTemplate"]
    assert "" == template["manualPromptTemplate"]["beforeUser"]
    assert "!" == template["manualPromptTemplate"]["afterUser"]


def test_completions():
    """Raw text: a template of nothing, no stop strings of a preset, and pre_prompt."""
    settings = PredictionSettings({"prePrompt": "Once "}, is_completion=True)

    assert "Once " == settings.pre_prompt
    override, formatting = settings.stack.layers
    assert [(P + "stopStrings", [])] == [
        (field.key, field.value) for field in override.config.fields
    ]
    assert "completeModeFormatting" == formatting.layer_name
    (field,) = formatting.config.fields
    assert P + "promptTemplate" == field.key
    assert "jinja" == field.value["type"]


def test_stop_strings_of_completions():
    """Those that are given stay; None counts as not given."""
    key = P + "stopStrings"
    assert {key: ["\n"]} == prediction(True, stopStrings=["\n"])
    assert {key: ["\n"]} == prediction(True, stop="\n")
    assert {key: []} == prediction(True, stop_strings=None)


def test_structure():
    """It is asked for by either name, or inside the config."""
    wish = {"type": "json"}
    for given in (
        {"structured": wish},
        {"response_format": wish},
        {"options": {"structured": wish}},
    ):
        options = given.pop("options", {})
        settings = PredictionSettings(options, is_completion=False, **given)
        (field,) = settings.stack.layers[0].config.fields
        assert (P + "structured", wish) == (field.key, field.value)
        assert settings.parse is not None
    assert PredictionSettings({}, is_completion=False).parse is None


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"temprature": 1}, "unknown prediction option 'temprature'; did you mean 'te"),
        ({"context_length": 9}, "'context_length' is a load option, not a prediction"),
        ({"temperature": "hot"}, "prediction option temperature must be a number of"),
        ({"temperature": NAN}, "prediction option temperature must be a number of"),
        ({"temperature": INF}, "prediction option temperature must be a number of"),
        ({"temperature": -1}, "prediction option temperature must be a number of"),
        ({"temperature": True}, "prediction option temperature must be a number of"),
        ({"max_tokens": 0}, "prediction option max_tokens must be a whole number of"),
        ({"max_tokens": -2}, "prediction option max_tokens must be a whole number of"),
        ({"max_tokens": 1.5}, "prediction option max_tokens must be a whole number of"),
        ({"max_tokens": 1, "maxPredictedTokens": 2}, "prediction option max_tokens is"),
        ({"stop_strings": [""]}, "prediction option stop_strings must be a list of no"),
        ({"stop_strings": 7}, "prediction option stop_strings must be a list of non-"),
        ({"stop_strings": ["\ud800"]}, "prediction option stop_strings must be a lis"),
        ({"draft_model": "\ud800"}, "prediction option draft_model must be a string w"),
        ({"context_overflow_policy": "x"}, "prediction option context_overflow_polic"),
        ({"pre_prompt": "x"}, "'pre_prompt' is an option of complete(); in respond()"),
        ({"prePrompt": "x"}, "'prePrompt' is an option of complete(); in respond()"),
        ({"input_prefix": 7}, "input_prefix must be text, not 7"),
        ({"inputSuffix": "\ud800"}, "inputSuffix holds a lone surrogate"),
        (
            {"input_prefix": "a", "inputPrefix": "b"},
            "prediction option input_prefix is given twice, also as 'inputPrefix'",
        ),
        (
            {"input_prefix": "a", "prompt_template": {}},
            "input_prefix and input_suffix make a prompt_template; give one",
        ),
        ({"structured": "json"}, "structured output can't be made of 'json'"),
    ],
    ids=lambda value: str(value)[:60].encode("ascii", "replace").decode(),
)
def test_wrong_options_of_respond(options, error):
    """A wrong option is an error that says what would be right."""
    with pytest.raises(LMStudioValueError) as caught:
        prediction(**options)
    assert str(caught.value).startswith(error), str(caught.value)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"input_prefix": "x"}, "'input_prefix' is an option of respond(); complete()"),
        ({"inputSuffix": "x"}, "'inputSuffix' is an option of respond(); complete()"),
        ({"promptTemplate": {}}, "'promptTemplate' is an option of respond(); compl"),
        ({"raw_tools": []}, "'raw_tools' is an option of respond(); complete() offers"),
        ({"rawTools": []}, "'rawTools' is an option of respond(); complete() offers n"),
        ({"tools": []}, "'tools' is an option of respond(); complete() offers no tool"),
        ({"on_tool_call": print}, "'on_tool_call' is an option of respond(); complet"),
        ({"toolChoice": "auto"}, "'toolChoice' is an option of respond(); complete()"),
        ({"tool_naming": "x"}, "'tool_naming' is an option of respond(); complete() "),
        ({"systemPrompt": ""}, "'systemPrompt' is an option of respond(); complete()"),
        ({"pre_prompt": 7}, "pre_prompt must be text, not 7"),
        (
            {"pre_prompt": "a", "prePrompt": "b"},
            "prediction option pre_prompt is given twice, also as 'prePrompt'",
        ),
    ],
    ids=str,
)
def test_wrong_options_of_complete(options, error):
    """The options of one call don't belong to the other."""
    with pytest.raises(LMStudioValueError) as caught:
        prediction(True, **options)
    assert str(caught.value).startswith(error), str(caught.value)


def test_options_of_the_other_call_may_be_none():
    """None is not given, so it is no mistake either."""
    assert [] == prediction(True, input_prefix=None)[P + "stopStrings"]


def test_two_structures():
    """Both names ask for the same thing."""
    wish = {"type": "json"}
    with pytest.raises(LMStudioValueError) as caught:
        PredictionSettings(
            {}, structured=wish, response_format=wish, is_completion=False
        )
    assert ("structured and response_format ask for the same thing; give one") == str(
        caught.value
    )


@pytest.mark.parametrize(
    "options",
    [
        {"tool_choice": "required"},
        {"toolChoice": {"type": "generic", "mode": "required"}, "raw_tools": []},
        {"tool_choice": "required", "rawTools": {"type": "none"}},
    ],
)
def test_a_call_is_required_and_there_is_no_tool(options):
    """A model can't be made to call what there is not."""
    with pytest.raises(LMStudioValueError, match="and there is none; give tools="):
        PredictionSettings(options, is_completion=False)
    tools = {"type": "toolArray", "tools": [{"type": "function", "function": {}}]}
    assert PredictionSettings(
        {"tool_choice": "required", "raw": {"llm.prediction.tools": tools}},
        is_completion=False,
    ).stack
