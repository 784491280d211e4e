"""Tools, thoughts and samplers with the real model, as users call them."""

from __future__ import annotations

import pytest

import lmstudio
from live.conftest import KEY

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Add two numbers.",
            "parameters": {
                "type": "object",
                "properties": {
                    "a": {"type": "integer", "minimum": 0, "maximum": 999},
                    "b": {"type": "integer", "minimum": 0, "maximum": 999},
                },
                "required": ["a", "b"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "get weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"$ref": "#/$defs/City"}},
                "required": ["city"],
                "$defs": {"City": {"type": "string", "maxLength": 20}},
            },
        },
    },
]


@pytest.fixture
def model(client):
    """The model, loaded."""
    return client.llm.load(KEY)


def test_act(model):
    """The model calls a function of the program, and answers with its result."""
    called = []

    def add(a: int, b: int) -> int:
        """Add two whole numbers."""
        called.append((a, b))
        return a + b

    run = model.act(
        "What is 12 plus 30?",
        [add],
        tool_choice="required",
        max_prediction_rounds=2,
        max_tokens=60,
        temperature=0,
    )

    assert "42" in str(run)
    assert [(12, 30)] == called


def test_forced_calls(model):
    """A forced call always obeys the schema of a tool, at any temperature."""
    for seed in range(5):
        answer = model.respond(
            "What is 12 plus 30?",
            raw_tools={"type": "toolArray", "tools": TOOLS},
            tool_choice="required",
            temperature=1.5,
            seed=seed,
            max_tokens=200,
        ).result()
        (call,) = answer.tool_calls

        assert ("toolCalls", "") == (answer.stats.stop_reason, answer.content)
        if call.name == "add":
            assert {"a", "b"} == set(call.arguments)
            assert all(0 <= value <= 999 for value in call.arguments.values())
        else:
            assert "get weather" == call.name
            assert len(call.arguments["city"]) <= 20


def test_a_named_tool(model):
    """Of several tools the one that is named is called."""
    named = {"type": "function", "function": {"name": "get weather"}}
    answer = model.respond(
        "How is the weather in Bonn?",
        raw_tools={"type": "toolArray", "tools": TOOLS},
        raw={"llm.prediction.toolChoice": named},
        max_tokens=100,
    ).result()

    assert ["get weather"] == [call.name for call in answer.tool_calls]
    assert ["city"] == list(answer.tool_calls[0].arguments)


def test_control_tokens_in_tools(model):
    """Control tokens in tools and results are text: they take more tokens."""
    tool = {"type": "function", "function": {"name": "f", "description": "<|im_end|>"}}
    counts = []
    for description in ("<|im_end|>", ""):
        tool["function"]["description"] = description
        answer = model.respond(
            "Hi",
            raw_tools={"type": "toolArray", "tools": [tool]},
            max_tokens=1,
        ).result()
        counts.append(answer.stats.prompt_tokens_count)

    assert counts[0] - counts[1] > 3


def test_a_budget_of_thoughts(model):
    """After its budget a thought is ended, and the answer goes on from there."""
    begun = [
        {"role": "user", "content": "Tell me about the sea."},
        {"role": "assistant", "content": "<think>"},
    ]
    prediction = model.respond(begun, max_tokens=30, reasoning_budget=6, temperature=0)
    kinds = [fragment.reasoning_type for fragment in prediction]
    end = kinds.index("reasoningEndTag")

    assert {"reasoning"} == set(kinds[:end])
    assert {"none"} == set(kinds[end + 1 :])
    assert "maxPredictedTokensReached" == prediction.stats.stop_reason
    assert 30 == prediction.stats.predicted_tokens_count


@pytest.mark.parametrize(
    "settings",
    [
        {"mirostat_sampling": {"version": 2, "target_entropy": 1.0}},
        {"mirostat_sampling": {"version": 1}},
        {"locally_typical_sampling": 0.05},
        {"xtc_probability": 1.0, "xtc_threshold": 0.01},
        {"presence_penalty": 50.0},
        {"frequency_penalty": 50.0},
        {"min_p_sampling": 0.9},
        {"top_p_sampling": 0.01},
        {"top_k_sampling": 1},
        {"repeat_penalty": 5.0},
        {"temperature": 0.0},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_samplers(model, settings):
    """Each sampler changes the text of one seed: the engine knows its name."""
    free = {
        "top_k_sampling": -1,
        "top_p_sampling": False,
        "min_p_sampling": False,
        "repeat_penalty": False,
        "temperature": 1.0,
        "seed": 7,
        "max_tokens": 60,
    }
    plain = model.complete("The sea is", **free).result().content

    assert (
        plain != model.complete("The sea is", **{**free, **settings}).result().content
    )


def test_seeds_and_biases(model):
    """One seed gives one text; a token that is banned does not come."""
    first = model.complete("The sea is", seed=5, max_tokens=20).result().content
    again = model.complete("The sea is", seed=5, max_tokens=20).result().content
    greedy = model.complete("The sea is", temperature=0, max_tokens=1).result().content
    (token,) = model.tokenize(greedy)
    other = model.complete(
        "The sea is", temperature=0, max_tokens=1, logit_bias=[[token, "-inf"]]
    ).result()

    assert first == again
    assert greedy != other.content


def test_a_draft_model_that_is_not_there(model):
    """A draft model is looked for on the disk, before anything is generated."""
    with pytest.raises(lmstudio.LMStudioError, match="called 'small'"):
        model.complete("The sea is", draft_model="small").result()
