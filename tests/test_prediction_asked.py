"""What notebooks, clients and steppers ask of a prediction."""

from __future__ import annotations

import gc
import time

import pytest

from lmstudio import LMStudioPredictionError, notebook
from lmstudio.arrivals import Watch
from lmstudio.mailbox import Mailbox
from lmstudio.prediction import Prediction
from lmstudio.server.failures import Failure
from lmstudio.testing import AWAIT_CANCEL, Await, tool_call


def waiting(model):
    """The predictions that the client would wait for when its block is left."""
    return model._session.pending()


def test_what_a_client_waits_for(fake, model):
    """Predictions that run and that nobody reads or stopped, and nothing else."""
    gate = Await()
    fake.reply([gate, "x"], times=None)
    first, second, third = (model.respond("x") for _ in range(3))
    connection = model._session.connection("llm")
    connection.open("channel", "predict", None, Mailbox())
    assert [first, second, third] == waiting(model)

    second.cancel()
    assert first.beyond(0, deadline=time.monotonic()) is None
    assert [third] == waiting(model)
    gate.open()
    assert "x" == third.content
    assert [] == waiting(model)


def test_a_prediction_that_nobody_has_is_not_waited_for(fake, model):
    """It is about to be cancelled."""
    fake.reply(AWAIT_CANCEL)
    kept = model.respond("x")
    assert [kept] == waiting(model)
    del kept
    assert [] == waiting(model)


def test_beyond(fake, model):
    """Steps get what is new, nothing at the end, and None when the wait is over."""
    gate = Await()
    fake.reply(["a", gate, "b"])
    prediction = model.respond("x")

    assert ["a"] == list(prediction.beyond(0))
    assert prediction.beyond(1, deadline=time.monotonic()) is None
    assert prediction.beyond(1, is_over=lambda: True) is None
    gate.open()
    assert ["b"] == list(prediction.beyond(1))
    assert () == prediction.beyond(2)


def test_settled(fake, model):
    """Waiting for the end raises nothing; the result tells of the failure."""
    fake.reply(Failure("Boom"))
    prediction = model.respond("x")
    prediction.settled()

    assert prediction.done()
    with pytest.raises(LMStudioPredictionError, match="Boom"):
        prediction.result()


def test_tool_calls(fake, model):
    """Those that the model asked for are there at the end."""
    fake.reply(tool_call("add", {"a": 1}))

    assert ["add"] == [call.name for call in model.respond("x").tool_calls]


def test_the_last_value_of_a_cell(fake, model, monkeypatch):
    """IPython and marimo find what shows a prediction, and it outlives the client."""
    shown = []
    monkeypatch.setattr(notebook, "show", lambda p, is_json: shown.append((p, is_json)))
    fake.reply("[1]", times=None)
    said, parsed = model.respond("x"), model.respond("x", response_format=list[int])
    session = said._session
    for prediction in (said, parsed):
        prediction._ipython_display_()

    assert [(said, False), (parsed, True)] == shown
    assert said._session is not session
    assert "[1]" == said.content
    kind, text = said._mime_()
    assert "text/markdown" == kind
    assert "1" in text


def test_the_share_of_the_prompt(fake, model):
    """It is known to who shows it in place of the bar; None where none is wanted."""
    fake.reply([{"type": "promptProcessingProgress", "progress": 0.5}, AWAIT_CANCEL])
    prediction = model.respond("x")
    assert prediction.prompt_share() is None
    prediction.cancel()


def test_one_that_could_not_be_made(model):
    """A prediction without a channel has nothing to give up."""

    def fail(inbox):
        raise ValueError("no channel")

    with pytest.raises(ValueError, match="no channel"):
        Prediction(model._session, fail, Watch())
    gc.collect()  # what its finalizer raises would fail this test
