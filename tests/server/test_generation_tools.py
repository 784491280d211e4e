"""Predictions with tools and thoughts: what goes to the engine, and what comes out."""

from __future__ import annotations

import pytest

from lmstudio.server.engine import Piece
from lmstudio.server.generation import GenerationError
from lmstudio.server.prompt import CHATML
from server.scripted import ScriptedModel, config, done, history, make_file
from server.test_generation import checked, generation, run, stopped, text

ADD = {
    "type": "function",
    "function": {
        "name": "add <|im_end|>",
        "description": "Say <|im_end|>.",
        "parameters": {
            "type": "object",
            "properties": {"<|im_end|>": {"type": "integer"}},
        },
    },
}
PLAIN = {"type": "function", "function": {"name": "add"}}
#: A template that knows tools.
TOOLED = make_file(
    chat_template="{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.content }}{{ m.tool_calls | tojson if"
    " m.tool_calls }}<|im_end|>{% endfor %}<|im_start|>{# <tool_call> #}"
)
SPECIALS = ("<|im_start|>", "<|im_end|>")
CALL = '{"name": "add", "arguments": {"a": 1}}'


def tools(*definitions, **more):
    return {"tools": {"type": "toolArray", "tools": list(definitions)}, **more}


def required(*definitions, **more):
    return tools(
        *definitions, toolChoice={"type": "generic", "mode": "required"}, **more
    )


def calls(packets):
    return [
        (p["toolCallRequest"]["name"], p["toolCallRequest"]["arguments"])
        for p in packets
        if p["type"] == "toolCallGenerationEnd"
    ]


def test_a_call_in_the_models_own_form():
    """A call is told by packets, its text is in no fragment, and it is the reason."""
    model = ScriptedModel(["Wait. ", "<tool", "_call>\n", CALL, "\n</tool_call>"])
    packets, finished = run(model, config(**tools(PLAIN)), file=TOOLED)

    assert [
        *("promptProcessingProgress", "promptProcessingProgress", "fragment"),
        *("toolCallGenerationStart", "toolCallGenerationNameReceived"),
        "toolCallGenerationArgumentFragmentGenerated",
        "toolCallGenerationEnd",
    ] == [packet["type"] for packet in packets]
    assert "Wait. " == text(packets)
    assert [("add", {"a": 1})] == calls(packets)
    assert ("toolCalls", None) == stopped(finished)
    assert 5 == finished.stats.predicted_tokens_count
    assert {"<tool_call>", "</tool_call>", "<think>"} <= set(model.requests[0].visible)


def test_a_call_in_the_form_that_is_explained():
    """A model whose template knows no tools reads of them in the system prompt."""
    model = ScriptedModel(
        [
            f"[TOOL_REQUEST]{CALL}[END_TOOL_REQUEST]",
            done("word", stop_word="[TOOL_RESULT]"),
        ]
    )
    packets, finished = run(model, config(**tools(PLAIN)))

    assert [("add", {"a": 1})] == calls(packets)
    assert ("toolCalls", None) == stopped(finished)
    assert model.prompts[0].startswith("«<|im_start|>»system\n# Tools")
    assert '{"name": "add"}' in model.prompts[0]
    assert ("[TOOL_RESULT]",) == model.requests[0].stop


def test_a_call_that_cannot_be_read():
    """A call that is none is told with the reason; the prediction ends as it does."""
    model = ScriptedModel(["<tool_call>", "{nonsense}", "</tool_call>", "So."])
    packets, finished = run(model, config(**tools(PLAIN)), file=TOOLED)
    failed = [p for p in packets if p["type"] == "toolCallGenerationFailed"]

    assert ["{nonsense}</tool_call>"] == [packet["rawContent"] for packet in failed]
    assert "So." == text(packets)
    assert ("eosFound", None) == stopped(finished)


def test_a_call_that_is_cut_off():
    """A call at which the tokens ran out failed."""
    model = ScriptedModel(["<tool_call>", '{"name": "a', done("limit")])
    packets, finished = run(model, config(**tools(PLAIN)), file=TOOLED)

    assert ["toolCallGenerationStart", "toolCallGenerationFailed"] == [
        packet["type"] for packet in packets[2:]
    ]
    assert ("maxPredictedTokensReached", None) == stopped(finished)


def test_no_tools():
    """Without tools, or with the choice "none", text that looks like a call is text."""
    none = {"type": "generic", "mode": "none"}
    for settings in (config(), config(**tools(PLAIN, toolChoice=none))):
        said = f"<tool_call>{CALL}</tool_call>"
        packets, finished = run(ScriptedModel([said]), settings, file=TOOLED)

        assert said == text(packets)
        assert ("eosFound", None) == stopped(finished)


def test_a_forced_call():
    """The engine may write nothing but a call, behind the mark of its start."""
    model = ScriptedModel([CALL[:10], CALL[10:]])
    packets, finished = run(model, config(**required(PLAIN)), file=TOOLED)

    assert [("add", {"a": 1})] == calls(packets)
    assert ("toolCalls", None) == stopped(finished)
    assert model.prompts[0].endswith("«<|im_start|>»<tool_call>\n")
    schema = model.requests[0].json_schema
    assert {"const": "add"} == schema["properties"]["name"]


def test_one_forced_tool():
    """A tool that is named is the only one that may be called; others are seen."""
    other = {"type": "function", "function": {"name": "other"}}
    model = ScriptedModel(['{"name": "other", "arguments": {}}'])
    choice = {"type": "function", "function": {"name": "other"}}
    packets, _ = run(
        model, config(**tools(PLAIN, other, toolChoice=choice)), file=TOOLED
    )

    assert [("other", {})] == calls(packets)
    assert '"name": "add"' in model.prompts[0]
    schema = model.requests[0].json_schema
    assert {"const": "other"} == schema["properties"]["name"]


def test_an_engine_that_ignores_the_schema():
    """Free text where a call was forced is an error."""
    model = ScriptedModel(["I would rather not."])

    with pytest.raises(GenerationError, match="could not hold the output"):
        run(model, config(**required(PLAIN)), file=TOOLED)


def test_a_forced_call_ends_a_thought():
    """A thought that the template begins is over before the call."""
    file = make_file(chat_template="{{ tools }}{{ messages[0].content }}<think>\n")
    model = ScriptedModel([CALL])
    packets, _ = run(model, config(**required(PLAIN)), file=file)

    assert model.prompts[0].endswith("<think>\n</think>\n\n")
    assert [("add", {"a": 1})] == calls(packets)


def test_forced_calls_and_structure():
    """A forced call is structured output already."""
    settings = config(**required(PLAIN), structured={"type": "json"})

    with pytest.raises(GenerationError, match="cannot both be forced"):
        generation(ScriptedModel(), settings)


def test_structured_output_is_no_call():
    """With a schema for the answer, JSON that looks like a call is the answer."""
    settings = config(**tools(PLAIN), structured={"type": "json"})
    packets, finished = run(ScriptedModel([CALL]), settings, file=TOOLED)

    assert CALL == text(packets)
    assert ("eosFound", None) == stopped(finished)


@pytest.mark.parametrize(
    ("file", "messages"), [(TOOLED, 3), (make_file(chat_template=CHATML), 4)]
)
def test_control_tokens_stay_text(file, messages):
    """Control tokens in tools, in arguments and in results are text."""
    call = {
        "role": "assistant",
        "content": [
            {"type": "text", "text": ""},
            {
                "type": "toolCallRequest",
                "toolCallRequest": {
                    "type": "function",
                    "id": "1",
                    "name": "add <|im_end|>",
                    "arguments": {"<|im_end|>": "<|im_end|>"},
                },
            },
        ],
    }
    result = {
        "role": "tool",
        "content": [
            {"type": "toolCallResult", "content": "<|im_end|>", "toolCallId": "1"}
        ],
    }
    model = ScriptedModel(["x"])
    run(
        model,
        config(**tools(ADD, toolNaming="passThrough")),
        file=file,
        messages=history(("user", "Hi"), call, result),
        control_tokens=lambda: SPECIALS,
    )
    prompt = model.prompts[0]

    # Those of the template end each message, and all others are text.
    assert messages == prompt.count("«<|im_end|>»")
    assert messages + 7 == prompt.count("<|im_end|>")


def test_a_budget_of_thoughts():
    """Where the budget is used up the thought is ended, and the model goes on."""
    model = ScriptedModel(
        ["<think>", "one ", "two ", "three "], ["Answer.", done("eos", 9, 1)]
    )
    packets, finished = run(model, config(reasoning__budgetTokens=checked(3)))
    said = [
        (p["fragment"]["content"], p["fragment"]["reasoningType"])
        for p in packets
        if p["type"] == "fragment"
    ]

    assert [
        ("<think>", "reasoningStartTag"),
        ("one ", "reasoning"),
        ("two ", "reasoning"),
        ("\n", "reasoning"),
        ("</think>", "reasoningEndTag"),
        ("\n\n", "none"),
        ("Answer.", "none"),
    ] == said
    assert model.prompts[1] == model.prompts[0] + "<think>one two \n</think>\n\n"
    assert ("eosFound", None) == stopped(finished)
    assert 4 == finished.stats.predicted_tokens_count
    assert 2 == model.closed


def test_a_budget_and_a_limit():
    """When the limit of tokens is reached with the thought, nothing comes after it."""
    model = ScriptedModel(["<think>", Piece("a b c", 3)])
    settings = config(reasoning__budgetTokens=checked(2), maxPredictedTokens=checked(4))
    packets, finished = run(model, settings)

    assert text(packets).endswith("</think>\n\n")
    assert ("maxPredictedTokensReached", None) == stopped(finished)


def test_no_thoughts_at_all():
    """With a budget of 0 a thought that the template begins is over at once."""
    file = make_file(chat_template="{{ messages[0].content }}<think>")
    model = ScriptedModel(["Answer."])
    packets, _ = run(model, config(reasoning__budgetTokens=checked(0)), file=file)

    assert ["Hi<think>\n</think>\n\n"] == model.prompts
    assert ["none"] == [
        p["fragment"]["reasoningType"] for p in packets if p["type"] == "fragment"
    ]


def test_raw_text_has_no_budget():
    """Raw text has no place for thoughts to end."""
    settings = config(reasoning__budgetTokens=checked(2))

    with pytest.raises(GenerationError, match="takes no reasoning budget"):
        generation(ScriptedModel(), settings, raw="Once")
