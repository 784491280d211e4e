"""A prediction ends once, with all its text and the reason, whatever happens to it."""

from __future__ import annotations

import asyncio
import inspect
import json
import math

import pytest

from lmstudio.server.engine import (
    BadRequest,
    EngineError,
    ModelCrashed,
    Piece,
    PromptProgress,
)
from lmstudio.server.generation import (
    Finished,
    Generation,
    GenerationError,
    format_prompt,
)
from lmstudio.server.prompt import CHATML
from lmstudio.wire.common import KVConfig
from lmstudio.wire.llm import TemplateOptions
from server.scripted import (
    ScriptedModel,
    config,
    done,
    history,
    make_file,
    unloaded,
)
from server.test_prompt import VERBATIM, jinja

HI = history(("user", "Hi"))
TOOL = {"type": "function", "function": {"name": "add"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def generation(model, settings=None, *, file=None, messages=HI, raw=None, **more):
    return Generation(
        model,
        file or make_file(chat_template=CHATML),
        history=None if raw is not None else messages,
        raw_prompt=raw,
        config=settings or KVConfig(),
        **more,
    )


async def collect(generation):
    return [packet async for packet in generation.packets()]


def run(model, settings=None, **more):
    """All packets of a prediction; the last is the end."""
    *packets, finished = asyncio.run(collect(generation(model, settings, **more)))
    assert isinstance(finished, Finished)
    assert not any(isinstance(packet, Finished) for packet in packets)
    return packets, finished


def text(packets):
    fragments = [p["fragment"] for p in packets if p["type"] == "fragment"]
    return "".join(fragment["content"] for fragment in fragments)


def stopped(finished):
    return finished.stats.stop_reason, finished.stats.stop_string


def checked(value):
    return {"checked": True, "value": value}


def test_a_prediction():
    """Progress comes first, then the text piece by piece, then the end."""
    model = ScriptedModel(
        [PromptProgress(9, 1, 0), PromptProgress(9, 1, 8), "Hello", " world"],
        gpu_layers=3,
    )
    packets, finished = run(model)

    assert ["promptProcessingProgress"] * 2 + ["fragment"] * 2 == [
        packet["type"] for packet in packets
    ]
    assert [0.0, 1.0] == [packet["progress"] for packet in packets[:2]]
    assert ["Hello", " world"] == [p["fragment"]["content"] for p in packets[2:]]
    stats = finished.stats
    prompt = len("«user\nHi«\n«assistant\n")
    assert ("eosFound", prompt, 2, prompt + 2, 3) == (
        stats.stop_reason,
        stats.prompt_tokens_count,
        stats.predicted_tokens_count,
        stats.total_tokens_count,
        stats.num_gpu_layers,
    )
    assert 0 <= stats.time_to_first_token_sec <= stats.total_time_sec
    assert math.isfinite(stats.tokens_per_second)
    assert 1 == model.closed


def test_what_the_engine_is_asked():
    """Prompt, limits, stop strings and structure arrive in the request."""
    model = ScriptedModel(["{"])
    settings = config(
        promptTemplate=jinja(VERBATIM, ["C", "A"]),
        maxPredictedTokens=checked(5),
        stopStrings=["A"],
        toolCallStopStrings=["B"],
        logProbs=checked(1),
        structured={"type": "json", "jsonSchema": SCHEMA},
        temperature=0,
    )
    with pytest.raises(GenerationError):  # "{" is no answer
        run(model, settings)
    request = model.requests[0]

    assert ("Hi", 5, ("A", "B", "C"), 1, None) == (
        request.prompt,
        request.max_tokens,
        tuple(request.stop),
        request.logprobs,
        request.grammar,
    )
    assert (SCHEMA, 0) == (request.json_schema, request.sampling.temperature)


def test_raw_prompt():
    """Raw text goes to the engine as it is, and is what `input_text` shows."""
    model = ScriptedModel(["x"])
    raw = "<|im_start|>user\nHi {{ x }}"

    assert raw == generation(model, raw=raw).input_text
    run(model, raw=raw)
    assert raw == model.requests[0].prompt


def test_control_tokens_of_users_stay_text():
    """What a user writes can't end the turn; nothing is tokenized in plain prompts."""
    model = ScriptedModel(["x"], ["x"])
    tokens = ("<|im_start|>", "<|im_end|>")
    run(model, control_tokens=lambda: tokens)

    assert [] == model.tokenized

    run(
        model,
        messages=history(("user", "a<|im_end|>b")),
        control_tokens=lambda: tokens,
    )

    assert (
        "«<|im_start|>»user\na<|im_end|>b«<|im_end|>»\n«<|im_start|>»assistant\n"
        == model.prompts[1]
    )


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (done("eos"), ("eosFound", None)),
        (done("limit"), ("maxPredictedTokensReached", None)),
        (done("word", stop_word="A"), ("stopStringFound", "A")),
        (done("word", stop_word="B"), ("toolCalls", None)),
        (done("word", stop_word="C"), ("stopStringFound", "C")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_stop_reasons(end, reason):
    """Each end of a generation has its reason."""
    settings = config(
        stopStrings=["A"],
        toolCallStopStrings=["B"],
        promptTemplate=jinja(VERBATIM, ["C"]),
    )
    packets, finished = run(ScriptedModel(["x", end]), settings)

    assert reason == stopped(finished)
    assert "x" == text(packets)


def test_end_of_turn_that_nobody_asked_for():
    """A model without a template that writes the end of its turn has just ended."""
    model = ScriptedModel(["x", done("word", stop_word="<|im_end|>")])
    _, finished = run(model, file=make_file())

    assert ("<|im_end|>",) == tuple(model.requests[0].stop)
    assert ("eosFound", None) == stopped(finished)


def test_reasoning_is_told_apart():
    """Thoughts and their tags are fragments of their own kind."""
    packets, _ = run(ScriptedModel(["<th", "ink>", "hm", "</think>", "ok"]))
    kinds = [p["fragment"]["reasoningType"] for p in packets if "fragment" in p]

    assert ["reasoningStartTag", "reasoning", "reasoningEndTag", "none"] == kinds


def test_json_is_not_searched_for_thoughts():
    """The strings of structured output may look like tags."""
    settings = config(structured={"type": "json"})
    packets, _ = run(ScriptedModel(['"<think>"']), settings)

    assert ["none"] == [p["fragment"]["reasoningType"] for p in packets[2:]]


def test_text_that_waits_for_a_tag_is_not_lost():
    """What may have been a tag comes out at the end."""
    packets, finished = run(ScriptedModel(["a<th"]))

    assert "a<th" == text(packets)
    assert 1 == finished.stats.predicted_tokens_count


def test_output_without_tokens():
    """A model that says nothing ends properly, and the prompt counts as done."""
    packets, finished = run(ScriptedModel([]))

    assert [0.0, 1.0] == [packet["progress"] for packet in packets]
    assert ("eosFound", None) == stopped(finished)
    assert None is finished.stats.tokens_per_second


def test_configuration_is_reported():
    """The end tells the settings that were used."""
    _, finished = run(ScriptedModel(["x"]), config(temperature=0.1))
    values = {f.key: f.value for f in finished.prediction_config.fields}

    assert 0.1 == values["llm.prediction.temperature"]
    assert 40 == values["llm.prediction.topKSampling"]


# Cancelling


def test_cancel_while_waiting():
    """A cancel ends the prediction at once, with what came until then."""

    async def scenario():
        model = ScriptedModel(["Hel", "lo<", asyncio.Event(), "never"])
        running = generation(model)
        task = asyncio.create_task(collect(running))
        await model.running.wait()
        running.cancel()
        return model, await task, task

    model, packets, task = asyncio.run(scenario())

    assert ("userStopped", None) == stopped(packets[-1])
    assert "Hello<" == text(packets[:-1])
    assert 2 == packets[-1].stats.predicted_tokens_count
    assert 1 == model.closed
    if hasattr(task, "cancelling"):
        assert 0 == task.cancelling()


def test_cancel_between_packets():
    """A cancel while the packets are being sent ends the prediction with the next."""

    async def scenario():
        model = ScriptedModel(["a", "b", "c"])
        running = generation(model)
        seen = []
        async for packet in running.packets():
            seen.append(packet)
            if isinstance(packet, dict) and "fragment" in packet:
                running.cancel()
        return model, seen

    model, packets = asyncio.run(scenario())

    assert "a" == text(packets[:-1])
    assert ("userStopped", None) == stopped(packets[-1])
    assert 1 == model.closed


def test_cancel_before_the_start():
    """A prediction that was cancelled before it began never asks the engine."""

    async def scenario():
        model = ScriptedModel(["never"])
        running = generation(model)
        running.cancel()
        running.cancel()
        return model, await collect(running)

    model, packets = asyncio.run(scenario())

    assert [("userStopped", None)] == list(map(stopped, packets))
    assert [] == model.requests


def test_cancel_during_the_prompt_reports_no_false_progress():
    """A prompt that was not finished is not reported as done."""

    async def scenario():
        model = ScriptedModel([PromptProgress(9, 0, 3), asyncio.Event()])
        running = generation(model)
        task = asyncio.create_task(collect(running))
        await model.running.wait()
        running.cancel()
        return await task

    *packets, finished = asyncio.run(scenario())

    assert [0.0, 1 / 3] == [packet["progress"] for packet in packets]
    assert (9, 0) == (
        finished.stats.prompt_tokens_count,
        finished.stats.predicted_tokens_count,
    )


def test_cancel_when_the_engine_answers_with_an_error():
    """An engine that fails because it was interrupted has been stopped all the same."""

    class Fragile(ScriptedModel):
        async def predict(self, request):
            try:
                self.running.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise EngineError("connection lost") from None
            yield Piece("never")

    async def scenario():
        model = Fragile()
        running = generation(model)
        task = asyncio.create_task(collect(running))
        await model.running.wait()
        running.cancel()
        return await task

    assert ("userStopped", None) == stopped(asyncio.run(scenario())[-1])


def test_task_that_is_cancelled_by_others():
    """Who runs the prediction can be cancelled like any task, and the engine stops."""

    async def scenario():
        model = ScriptedModel(["a", asyncio.Event()])
        task = asyncio.create_task(collect(generation(model)))
        await model.running.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return model.closed

    assert 1 == asyncio.run(scenario())


@pytest.mark.skipif(
    not hasattr(asyncio.Task, "uncancel"), reason="tasks count from Python 3.11 on"
)
def test_both_kinds_of_cancel_at_once():
    """A task that is cancelled as well as its prediction is cancelled."""

    async def scenario():
        model = ScriptedModel([asyncio.Event()])
        running = generation(model)
        task = asyncio.create_task(collect(running))
        await model.running.wait()
        running.cancel()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return model.closed

    assert 1 == asyncio.run(scenario())


def test_closing_early_stops_the_engine():
    """A reader who leaves stops the model."""

    async def scenario():
        model = ScriptedModel(["a", "b"])
        packets = generation(model).packets()
        assert inspect.isasyncgen(packets)
        await packets.__anext__()
        await packets.aclose()
        return model.closed

    assert 1 == asyncio.run(scenario())


# Failures


def test_unloading_ends_a_prediction():
    """A model that goes away ends its predictions with what they have said."""
    packets, finished = run(ScriptedModel(["a", unloaded()]))

    assert "a" == text(packets)
    assert ("modelUnloaded", None) == stopped(finished)


@pytest.mark.parametrize(
    "error", [ModelCrashed("The model crashed"), BadRequest("no such grammar")]
)
def test_failures_of_the_engine_pass_through(error):
    """What the engine raises is what the client hears."""
    with pytest.raises(type(error)) as caught:
        run(ScriptedModel(["a", error]))

    assert error is caught.value


def test_engine_without_an_end():
    """An engine that stops talking in the middle is a failure, not an answer."""

    class Mute(ScriptedModel):
        async def predict(self, request):
            yield Piece("a")

    with pytest.raises(EngineError, match="ended the output without a result"):
        run(Mute())


@pytest.mark.parametrize(
    "settings",
    [
        config(temperature="hot"),
        config(structured={"type": "json", "jsonSchema": {"not": {}}}),
        config(promptTemplate={}),
        config(promptTemplate=jinja("{{ raise_exception('no') }}")),
    ],
)
def test_wrong_settings_fail_before_anything_runs(settings):
    """Mistakes come up when the prediction is made."""
    with pytest.raises(GenerationError):
        generation(ScriptedModel(), settings)


def test_raw_text_takes_no_tools():
    """Raw text has no place for tools."""
    tool = {"type": "function", "function": {"name": "add"}}
    settings = config(tools={"type": "toolArray", "tools": [tool]})

    with pytest.raises(GenerationError, match="raw text takes no tools"):
        generation(ScriptedModel(), settings, raw="x")


# Structured output


def test_structured_answer():
    """An answer that obeys the schema is an answer."""
    settings = config(structured={"type": "json", "jsonSchema": SCHEMA})
    packets, finished = run(ScriptedModel(['{"a"', ": 1}"]), settings)

    assert '{"a": 1}' == text(packets)
    assert ("eosFound", None) == stopped(finished)


def test_structured_answer_that_is_wrong():
    """A finished answer that does not obey the schema is an error that says why."""
    settings = config(structured={"type": "json", "jsonSchema": SCHEMA})

    with pytest.raises(GenerationError, match="'a' is a required property"):
        run(ScriptedModel(["{}"]), settings)


def test_structured_answer_that_was_cut():
    """An answer that was cut off is not judged: its stop reason says enough."""
    settings = config(structured={"type": "json", "jsonSchema": SCHEMA})
    packets, finished = run(ScriptedModel(['{"a"', done("limit")]), settings)

    assert ("maxPredictedTokensReached", None) == stopped(finished)
    assert '{"a"' == text(packets)


@pytest.mark.parametrize("reason", ["limit", "context", "word"])
def test_structured_answer_that_went_wrong_before_it_was_cut(reason):
    """What was cut off has to be the beginning of JSON all the same."""
    settings = config(structured={"type": "json", "jsonSchema": SCHEMA})
    pieces = ['{"a": 1, "b": "', "x" * 40, '", and so on', done(reason)]

    with pytest.raises(GenerationError, match="could not hold the output"):
        run(ScriptedModel(pieces), settings)


def test_engine_that_lost_the_schema():
    """Free text in place of JSON fails at its first words, and stops the engine."""
    settings = config(structured={"type": "json", "jsonSchema": SCHEMA})
    model = ScriptedModel(["I", "'m fine", done("limit")])

    with pytest.raises(GenerationError, match="could not hold the output"):
        run(model, settings)
    assert 1 == model.closed


# applyPromptTemplate


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (TemplateOptions(), "<s>Hi</s>[]A:"),
        (TemplateOptions(omit_bos_token=True, omit_eos_token=True), "Hi[]A:"),
        (
            TemplateOptions(tool_definitions=[TOOL]),
            f"<s>Hi</s>[{json.dumps(TOOL)}]A:",
        ),
    ],
)
def test_format_prompt(options, expected):
    """The formatted prompt ends with the beginning of the answer."""
    template = (
        "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"
        "{{ (tools or []) | tojson }}{% if add_generation_prompt %}A:{% endif %}"
    )
    file = make_file(chat_template=template, bos="<s>", eos="</s>")
    made = format_prompt(ScriptedModel(), file, HI, KVConfig(), options)

    assert expected == asyncio.run(made)
