"""Options that are objects are taken as users write them, and checked in parts."""

from __future__ import annotations

import math

import pytest

from ids import stable
from lmstudio.wire import shapes
from lmstudio.wire.checks import integer, string

PAIR = shapes.Shape(firstName=string, age=(integer(0), 5), note=(string, None))
OPEN = shapes.Shape(others=True, name=string)
JINJA = {"type": "jinja", "jinjaPromptTemplate": {"template": "{{ x }}"}}
TOOL = {"type": "function", "function": {"name": "f"}}
EMPTY = dict.fromkeys(
    (
        "beforeSystem",
        "afterSystem",
        "beforeUser",
        "afterUser",
        "beforeAssistant",
        "afterAssistant",
    ),
    "",
)
SPLIT = {"strategy": "evenly", "disabledGpus": [], "priority": [], "customRatio": []}
CACHE = {"enabled": True, "bits": 8, "groupSize": 64, "quantizedStart": 5000}
ARGUMENTS = {
    "enabled": True,
    "disabledParameters": [],
    "overrideParameters": [],
    "excludeAllConfig": False,
}
THINK = {"enabled": True, "startString": "<think>", "endString": "</think>"}
MIROSTAT = {"version": 2, "learningRate": 0.1, "targetEntropy": 5}


@pytest.mark.parametrize(
    ("check", "value", "expected"),
    [
        (PAIR, {"firstName": "a"}, {"firstName": "a", "age": 5}),
        (PAIR, {"first_name": "a", "age": None}, {"firstName": "a", "age": 5}),
        (
            PAIR,
            {"first_name": "a", "note": "b", "age": 1},
            {"firstName": "a", "age": 1, "note": "b"},
        ),
        (OPEN, {"name": "a", "more": (1,)}, {"name": "a", "more": [1]}),
        (shapes.gpu_split, {}, SPLIT),
        (
            shapes.gpu_split,
            {"strategy": "priority_order", "priority": (1, 0)},
            {**SPLIT, "strategy": "priorityOrder", "priority": [1, 0]},
        ),
        (
            shapes.gpu_split,
            {"strategy": "custom", "custom_ratio": [1, 0.5]},
            {**SPLIT, "strategy": "custom", "customRatio": [1, 0.5]},
        ),
        (shapes.mlx_kv_cache_quantization, {"bits": 4}, {**CACHE, "bits": 4}),
        (shapes.mlx_kv_cache_quantization, True, CACHE),
        (shapes.mlx_kv_cache_quantization, False, {**CACHE, "enabled": False}),
        (
            shapes.llama_cpp_arguments_override,
            {"override_parameters": {"--mlock": True, "-ub": 8}},
            {
                **ARGUMENTS,
                "overrideParameters": [
                    {"key": "--mlock", "value": True},
                    {"key": "-ub", "value": 8},
                ],
            },
        ),
        (
            shapes.llama_cpp_arguments_override,
            {"disabledParameters": "-ub", "overrideParameters": []},
            {**ARGUMENTS, "disabledParameters": ["-ub"]},
        ),
        (
            shapes.llama_cpp_arguments_override,
            False,
            {**ARGUMENTS, "enabled": False},
        ),
        (shapes.reasoning_parsing, {"start_string": "<a>", "endString": "</a>"}, None),
        (shapes.reasoning_parsing, True, THINK),
        (shapes.reasoning_parsing, False, {**THINK, "enabled": False}),
        (shapes.mirostat_sampling, 2, MIROSTAT),
        (shapes.mirostat_sampling, False, {**MIROSTAT, "version": 0}),
        (
            shapes.mirostat_sampling,
            {"version": 2, "learning_rate": 0.2},
            {**MIROSTAT, "learningRate": 0.2},
        ),
        (shapes.prompt_template, "{{ x }}", {**JINJA, "stopStrings": []}),
        (
            shapes.prompt_template,
            {
                "type": "jinja",
                "jinja_prompt_template": {"template": "{{ x }}", "bosToken": ""},
                "stop_strings": ["a"],
            },
            {
                "type": "jinja",
                "jinjaPromptTemplate": {"template": "{{ x }}", "bosToken": ""},
                "stopStrings": ["a"],
            },
        ),
        (
            shapes.prompt_template,
            {"type": "manual", "manual_prompt_template": {"before_user": "Q: "}},
            {
                "type": "manual",
                "manualPromptTemplate": {**EMPTY, "beforeUser": "Q: "},
                "stopStrings": [],
            },
        ),
        (shapes.load_prompt_template, "{{ x }}", JINJA),
        (shapes.load_prompt_template, JINJA, JINJA),
        (shapes.raw_tools, {"type": "none"}, {"type": "none"}),
        (shapes.raw_tools, [TOOL], {"type": "toolArray", "tools": [TOOL]}),
        (shapes.raw_tools, {"type": "toolArray"}, {"type": "toolArray", "tools": []}),
        (
            shapes.raw_tools,
            [{"function": {"name": "f", "parameters": {"required": ["a"]}}}],
            {
                "type": "toolArray",
                "tools": [
                    {
                        "type": "function",
                        "function": {
                            "name": "f",
                            "parameters": {
                                "type": "object",
                                "properties": {},
                                "required": ["a"],
                            },
                        },
                    }
                ],
            },
        ),
        (shapes.tool_choice, "auto", {"type": "generic", "mode": "auto"}),
        (shapes.tool_choice, {"mode": "none"}, {"type": "generic", "mode": "none"}),
        (
            shapes.context_prefill,
            [{"type": "json_file", "abs_path": "/a"}],
            [{"type": "jsonFile", "absPath": "/a"}],
        ),
    ],
    ids=stable,
)
def test_right_values(check, value, expected):
    """Either spelling, parts left out and short forms become the whole."""
    if expected is None:
        expected = {"enabled": True, "startString": "<a>", "endString": "</a>"}
    assert expected == check(value)


NOT_A_TEMPLATE = (
    "a Jinja template, or a mapping with the type 'jinja' and a jinja_prompt_template,"
    " or 'manual' and a manual_prompt_template"
)
TOOLS = 'a list of tools, {"type": "toolArray", "tools": [...]} or {"type": "none"}'
IN_TOOLS = "a mapping whose tools is a list of tools, each a mapping "


@pytest.mark.parametrize(
    ("check", "value", "right"),
    [
        (PAIR, 5, "a mapping with first_name"),
        (PAIR, {}, "a mapping with first_name"),
        (PAIR, {"firstName": None}, "a mapping with first_name"),
        (PAIR, {1: 2}, "a mapping with first_name, each once"),
        (PAIR, {"age": 1, "firstName": "", "first_name": ""}, None),
        (
            PAIR,
            {"firstName": "", "ages": 1},
            "a mapping with first_name, age, note and nothing else",
        ),
        (
            PAIR,
            {"firstName": "", "age": -1},
            "a mapping whose age is a whole number of at least 0",
        ),
        (
            OPEN,
            {"name": "", "x": math.nan},
            "a mapping whose x is JSON: texts, finite numbers, True, False, None,"
            " lists, mappings",
        ),
        (
            shapes.gpu_split,
            {"priority": 1},
            "a mapping whose priority is a list of numbers of GPUs",
        ),
        (
            shapes.gpu_split,
            {"priority": [-1]},
            "a mapping whose priority is a list of numbers of GPUs, each a whole number"
            " of at least 0",
        ),
        (
            shapes.mlx_kv_cache_quantization,
            {"bits": 5},
            "a mapping whose bits is one of 8, 6, 4, 3, 2",
        ),
        (
            shapes.mlx_kv_cache_quantization,
            8,
            "True, False, or a mapping with enabled, bits, group_size, quantized_start",
        ),
        (
            shapes.llama_cpp_arguments_override,
            {"overrideParameters": {"a": None}},
            "a mapping whose override_parameters is a list of keys and values, each a"
            " mapping with key, value",
        ),
        (
            shapes.llama_cpp_arguments_override,
            {"overrideParameters": {"a": []}},
            "a mapping whose override_parameters is a list of keys and values, each a"
            " mapping whose value is a text, a number, True or False",
        ),
        (shapes.mirostat_sampling, 3, "a mapping whose version is one of 0, 1, 2"),
        (shapes.mirostat_sampling, True, "a mapping with version"),
        (shapes.mirostat_sampling, "2", "0, 1, 2, or a mapping with version"),
        (shapes.prompt_template, 5, NOT_A_TEMPLATE),
        (shapes.prompt_template, {}, NOT_A_TEMPLATE),
        (shapes.prompt_template, {"type": []}, NOT_A_TEMPLATE),
        (
            shapes.prompt_template,
            {"type": "jinja"},
            "a mapping with type, jinja_prompt_template",
        ),
        (
            shapes.prompt_template,
            {"type": "manual", "manualPromptTemplate": {"beforeUsers": ""}},
            "a mapping whose manual_prompt_template is a mapping with before_system,"
            " after_system, before_user, after_user, before_assistant, after_assistant"
            " and nothing else",
        ),
        (
            shapes.load_prompt_template,
            {"type": "manual", "jinjaPromptTemplate": {"template": ""}},
            "a mapping whose type is one of 'jinja'",
        ),
        (shapes.raw_tools, {}, TOOLS),
        (shapes.raw_tools, "f", TOOLS),
        (shapes.raw_tools, {"type": "none", "tools": []}, TOOLS),
        (shapes.raw_tools, ["f"], IN_TOOLS + "with function"),
        (
            shapes.raw_tools,
            [{"function": {}}],
            IN_TOOLS + "whose function is a mapping with name",
        ),
        (
            shapes.raw_tools,
            [{"function": {"name": "f", "parameters": {"type": "string"}}}],
            IN_TOOLS + "whose function is a mapping whose parameters is a mapping whose"
            " type is one of 'object'",
        ),
        (
            shapes.tool_choice,
            {"type": "function", "function": {"name": "f"}},
            "'none', 'auto', 'required', or {\"type\": \"generic\", \"mode\": one of"
            " these}; a tool can't be chosen by name",
        ),
        (shapes.context_prefill, {"type": "jsonFile"}, "a list of files"),
    ],
    ids=stable,
)
def test_wrong_values(check, value, right):
    """The error says which field is wrong, and what would be right."""
    with pytest.raises(ValueError) as caught:
        check(value)
    assert (right or "a mapping with first_name, each once") == str(caught.value)


def test_what_is_taken_is_a_copy():
    """What a caller changes later is not changed in what is sent."""
    given = {"function": {"name": "f", "parameters": {"properties": {}}}}
    made = shapes.raw_tools([given])
    given["function"]["parameters"]["properties"]["a"] = {}
    function = made["tools"][0]["function"]
    assert {} == function["parameters"]["properties"]
    function["parameters"]["properties"]["b"] = {}
    made = shapes.raw_tools([{"function": {"name": "f", "parameters": {}}}])
    assert {} == made["tools"][0]["function"]["parameters"]["properties"]
