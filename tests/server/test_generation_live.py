"""A context that is too small, with the real model: what stays and what goes."""

from __future__ import annotations

import asyncio
import sys

import pytest

from lmstudio.server.engine import LoadSettings
from lmstudio.server.engines.llama_cpp import LlamaCppEngine
from lmstudio.server.generation import Generation
from lmstudio.server.gguf import control_tokens
from lmstudio.server.prompt import CHATML
from server.engines.helpers import loaded, model
from server.scripted import config, history
from server.test_generation import checked, stopped

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(sys.platform == "win32", reason="signals"),
]

CONTEXT = 256
SYSTEM = "You are the harbour master of Bremerhaven."
FIRST = "My ship is called Blue Heron."
LAST = "Where do I moor my ship?"
#: Twelve rounds of about 25 tokens each: more than the context.
LONG = history(
    ("system", SYSTEM),
    ("user", FIRST),
    *[
        message
        for number in range(12)
        for message in (
            ("assistant", f"Number {number} is noted in the big book of all ships."),
            ("user", f"And number {number + 1}, please, in the same book again?"),
        )
    ],
    ("assistant", "Noted."),
    ("user", LAST),
)


class Recorder:
    """A loaded model that remembers its prompts as token ids."""

    def __init__(self, inner):
        self._inner = inner
        self.prompts = []

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def predict(self, request):
        self.prompts.append(request.prompt)
        return self._inner.predict(request)


def run(model_file, messages=LONG, **settings):
    """The end of a prediction, the ids of its last prompt, and a function of ids."""

    async def inner():
        small = LoadSettings(context_length=CONTEXT, parallel=1)
        async with loaded(LlamaCppEngine(), model_file, small) as one:
            recorder = Recorder(one)
            generation = Generation(
                recorder,
                model(model_file, chat_template=CHATML),
                history=messages,
                config=config(temperature=0, **settings),
                control_tokens=lambda: control_tokens(model_file),
            )
            *_, finished = [packet async for packet in generation.packets()]
            texts = {text: await one.tokenize(text) for text in (SYSTEM, FIRST, LAST)}
            return finished, recorder.prompts, texts

    return asyncio.run(inner())


def holds(ids, part):
    """Whether ids stand somewhere in others, one behind the other."""
    return any(ids[at : at + len(part)] == part for at in range(len(ids)))


def test_truncate_middle(model_file):
    """The system prompt, the first message and the last stay; the middle goes."""
    finished, prompts, texts = run(
        model_file,
        contextOverflowPolicy="truncateMiddle",
        maxPredictedTokens=checked(20),
    )

    assert holds(prompts[-1], texts[SYSTEM])
    assert holds(prompts[-1], texts[FIRST])
    assert holds(prompts[-1], texts[LAST])
    assert len(prompts[-1]) + 20 < CONTEXT
    assert 20 == finished.stats.predicted_tokens_count or (
        "eosFound" == finished.stats.stop_reason
    )


def test_rolling_window(model_file):
    """The oldest messages go, and the system prompt and the last message stay."""
    _, prompts, texts = run(
        model_file,
        contextOverflowPolicy="rollingWindow",
        maxPredictedTokens=checked(20),
    )

    assert holds(prompts[-1], texts[SYSTEM])
    assert not holds(prompts[-1], texts[FIRST])
    assert holds(prompts[-1], texts[LAST])


def test_stop_at_limit(model_file):
    """Nothing is left out: the prediction ends before it begins."""
    finished, _, _ = run(model_file, contextOverflowPolicy="stopAtLimit")

    assert ("contextLengthReached", None) == stopped(finished)
    assert finished.stats.prompt_tokens_count > CONTEXT
    assert 0 == finished.stats.predicted_tokens_count


@pytest.mark.parametrize("policy", ["truncateMiddle", "rollingWindow"])
def test_output_past_the_context(model_file, policy):
    """Output goes on where the context ends; the system prompt stays."""
    short = history(("system", SYSTEM), ("user", "Count from 1 to 500, each number."))
    biased = {"llama__logitBias": [[2, "-inf"]]}  # the end of a turn
    finished, prompts, texts = run(
        model_file,
        short,
        contextOverflowPolicy=policy,
        maxPredictedTokens=checked(CONTEXT + 40),
        **biased,
    )

    assert ("maxPredictedTokensReached", None) == stopped(finished)
    assert CONTEXT + 40 == finished.stats.predicted_tokens_count
    assert len(prompts) > 1
    assert holds(prompts[-1], texts[SYSTEM])


def test_output_stops_at_the_context(model_file):
    """With stopAtLimit output ends where the context does."""
    short = history(("system", SYSTEM), ("user", "Count from 1 to 500, each number."))
    finished, _, _ = run(
        model_file,
        short,
        contextOverflowPolicy="stopAtLimit",
        llama__logitBias=[[2, "-inf"]],
    )

    assert ("contextLengthReached", None) == stopped(finished)
    assert CONTEXT - 1 <= finished.stats.total_tokens_count <= CONTEXT
