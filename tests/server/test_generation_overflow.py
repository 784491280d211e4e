"""A prediction that overruns its context goes on or ends, as its policy says."""

from __future__ import annotations

import attrs
import pytest

from lmstudio.server.engine import ContextOverflow, Image, PromptProgress
from lmstudio.server.generation import MAX_OVERRUNS
from server.scripted import ScriptedModel, config, done, history, read
from server.test_generation import checked, run, stopped, text

LONG = history(
    ("system", "S"), ("user", "first"), ("assistant", "x" * 90), ("user", "last")
)


def test_prompt_too_long_and_stop_at_limit():
    """With ``stopAtLimit`` a prompt that is too long ends the prediction."""
    model = ScriptedModel(context_length=60)
    packets, finished = run(
        model, config(contextOverflowPolicy="stopAtLimit"), messages=LONG
    )

    assert ("contextLengthReached", None) == stopped(finished)
    assert "" == text(packets)
    assert (model.lengths, 0) == (
        [finished.stats.prompt_tokens_count],
        finished.stats.predicted_tokens_count,
    )


@pytest.mark.parametrize("policy", ["truncateMiddle", "rollingWindow"])
def test_prompt_too_long(policy):
    """With the other policies the prompt is cut, and the answer comes."""
    model = ScriptedModel(["ok"], context_length=100)
    packets, finished = run(model, config(contextOverflowPolicy=policy), messages=LONG)
    sent = model.prompts[-1]

    assert "ok" == text(packets)
    assert ("eosFound", None) == stopped(finished)
    assert ("user\nfirst" in sent) == (policy == "truncateMiddle")
    assert "system\nS" in sent
    assert sent.endswith("user\nlast«<|im_end|>»\n«<|im_start|>»assistant\n")


def test_output_too_long_and_stop_at_limit():
    """With ``stopAtLimit`` the end of the context ends the prediction."""
    model = ScriptedModel(["a", done("context")])
    _, finished = run(model, config(contextOverflowPolicy="stopAtLimit"))

    assert ("contextLengthReached", None) == stopped(finished)
    assert 1 == len(model.requests)


@pytest.mark.parametrize("policy", ["truncateMiddle", "rollingWindow"])
def test_output_goes_on_past_the_context(policy):
    """The text goes on after the context is full, and is counted as one."""
    model = ScriptedModel(
        [PromptProgress(30, 0, 30), "a" * 40, done("context", 30, 40)],
        [PromptProgress(60, 0, 60), "b", done("eos", 60, 1)],
        context_length=64,
    )
    settings = config(contextOverflowPolicy=policy, maxPredictedTokens=checked(50))
    packets, finished = run(model, settings)

    assert "a" * 40 + "b" == text(packets)
    assert ("eosFound", 30, 41, 71) == attrs.astuple(
        finished.stats,
        filter=lambda field, _: (
            field.name.startswith(("stop_r", "prompt_t"))
            or field.name in ("predicted_tokens_count", "total_tokens_count")
        ),
    )
    assert [50, 10] == [request.max_tokens for request in model.requests]
    again = read(model.requests[1].prompt)
    assert again.endswith("a" * 20)
    assert len(model.requests[1].prompt) <= 64 - 10
    shares = [p["progress"] for p in packets if "progress" in p]
    assert [0.0, 1.0] == shares


def test_structured_output_ends_with_the_context():
    """Structured output can't go on in the middle: the end of the context ends it."""
    model = ScriptedModel(['{"a"', done("context")])
    _, finished = run(model, config(structured={"type": "json"}))

    assert ("contextLengthReached", None) == stopped(finished)


def test_model_that_never_ends():
    """Without a limit, a model that never ends is stopped after some contexts."""
    scripts = [["a", done("context", 10, 1)] for _ in range(MAX_OVERRUNS + 5)]
    model = ScriptedModel(*scripts)
    packets, finished = run(model)

    assert ("contextLengthReached", None) == stopped(finished)
    assert "a" * (MAX_OVERRUNS + 1) == text(packets)


def test_limit_and_end_of_the_context_at_once():
    """A limit that is reached as the context is full is the end."""
    model = ScriptedModel(["a", done("context", 10, 5)])
    _, finished = run(model, config(maxPredictedTokens=checked(5)))

    assert ("maxPredictedTokensReached", None) == stopped(finished)
    assert 1 == len(model.requests)


def test_rounds_that_get_nowhere():
    """A round without output is the last one."""
    model = ScriptedModel(["a", done("context", 10, 1)], [done("context", 10, 0)])
    _, finished = run(model, config(maxPredictedTokens=checked(100)))

    assert ("contextLengthReached", None) == stopped(finished)
    assert 2 == len(model.requests)


def test_engine_that_takes_no_prompt_at_all():
    """An engine to which every prompt is too long is an error, not a loop."""

    class Full(ScriptedModel):
        async def predict(self, request):
            self.requests.append(request)
            raise ContextOverflow(10, self.context_length)
            yield

    model = Full()
    with pytest.raises(ContextOverflow):
        run(model)
    assert 2 == len(model.requests)


def with_images(count):
    """A history of messages with an image each, and an answer between two."""
    messages = [("system", "S")]
    for number in range(count):
        image = {"type": "file", "fileType": "image", "identifier": str(number)}
        content = [image, {"type": "text", "text": f"number {number}"}]
        messages += [{"role": "user", "content": content}, ("assistant", "Yes.")]
    return {
        "messages": history(*messages[:-1]),
        "images": {str(n): Image(b"x" * 100) for n in range(count)},
    }


@pytest.mark.parametrize("policy", ["truncateMiddle", "rollingWindow"])
def test_images_that_do_not_fit(policy):
    """Whole messages go, the oldest first, until the engine takes the prompt."""
    model = ScriptedModel(["ok"], context_length=200)
    settings = config(contextOverflowPolicy=policy)
    packets, finished = run(model, settings, **with_images(3))

    assert "ok" == text(packets)
    assert [3, 2, 1] == [prompt.count("number") for prompt in model.prompts]
    assert "number 2" in model.prompts[-1]
    assert 100 == model.prompts[-1].count("▒")
    assert "system\nS" in model.prompts[-1]
    assert model.lengths[-1] == finished.stats.prompt_tokens_count


def test_one_message_with_images_that_does_not_fit():
    """The error tells how long the prompt is, and how much fits."""
    model = ScriptedModel(context_length=90)
    with pytest.raises(ContextOverflow, match="and the context 90"):
        run(model, **with_images(2))
    assert 2 == len(model.prompts)


def test_output_with_images_ends_with_the_context():
    """It is not cut and gone on with: all images would have to be read again."""
    model = ScriptedModel(["a", done("context")])
    _, finished = run(model, **with_images(1))
    assert ("contextLengthReached", None) == stopped(finished)
