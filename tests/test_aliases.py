"""Predictions take the official SDK's names of methods and callbacks."""

from __future__ import annotations

import pytest

from lmstudio import LLM, LMStudioTypeError, LMStudioValueError
from lmstudio.aliases import CALLBACKS, callbacks


@pytest.mark.parametrize("verb", ["complete", "respond"])
def test_streams_are_the_same_call(verb):
    """`respond_stream` and `complete_stream` are second names."""
    assert getattr(LLM, f"{verb}_stream") is getattr(LLM, verb)


@pytest.mark.parametrize("verb", ["complete", "respond"])
def test_callbacks_under_official_names(fake, model, verb):
    """Fragments, the progress of the prompt, and at the end the message."""
    fake.reply(["one ", "two"])
    fragments, shares, messages = [], [], []
    prediction = getattr(model, verb)(
        "x",
        on_prediction_fragment=fragments.append,
        on_prompt_processing_progress=shares.append,
        on_message=messages.append,
    )

    assert "one two" == prediction.content
    assert ["one ", "two"] == [fragment.content for fragment in fragments]
    assert 1.0 == shares[-1]
    ((role, text),) = [(message.role, message.text) for message in messages]
    assert ("assistant", "one two") == (role, text)
    prediction.result()
    assert 1 == len(messages)


@pytest.mark.parametrize(("theirs", "ours"), CALLBACKS.items())
def test_one_callback_under_both_names(model, theirs, ours):
    """It is not clear which is meant, so it is an error; None is no callback."""
    with pytest.raises(LMStudioValueError, match=f"{ours} and {theirs} name the same"):
        model.respond("x", **{theirs: print, ours: print})
    assert "x" == model.respond("x", **{theirs: None, ours: None}).content


@pytest.mark.parametrize("name", [*CALLBACKS, "on_message"])
def test_callbacks_that_can_not_be_called(fake, model, name):
    """They are refused before anything is sent."""
    with pytest.raises(LMStudioTypeError, match="must be a function, not 7"):
        model.respond("x", **{name: 7})
    assert [] == fake.parameters("predict")


def test_callbacks_are_taken_out_of_the_options():
    """What is left are options of the prediction."""
    options = {"on_prediction_fragment": print, "temperature": 0}

    assert callbacks(options, on_fragment=None)["on_fragment"] is print
    assert {"temperature": 0} == options


def test_the_message_of_a_model_that_raises_in_a_callback(fake, model):
    """Its error comes out where the prediction is waited for."""
    fake.reply("one")

    def fail(_):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        model.respond("x", on_message=fail).result()
