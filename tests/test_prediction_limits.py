"""Time limits and signals of predictions."""

from __future__ import annotations

import concurrent.futures
import gc
import queue
import threading
import time
import weakref

import pytest

from lmstudio import (
    LMStudioClient,
    LMStudioProtocolError,
    LMStudioRuntimeError,
    LMStudioTimeoutError,
    LMStudioTypeError,
    LMStudioValueError,
    Signal,
)
from lmstudio.testing import AWAIT_CANCEL, NEVER, Await
from predictions import cancels, until_error, waits
from raw_server import RawServer
from scripts import is_cancel

#: Longer than any test: what waits for it hangs.
FOREVER = 60.0


# --- time limits


@pytest.mark.parametrize("wait", ["result", "exception"])
def test_wrong_limits_of_a_wait(model, wait):
    """What is no time is refused, also of a prediction that has ended."""
    prediction = model.respond("x")
    assert "x" == prediction.content
    for wrong in ("x", [], True):
        with pytest.raises(LMStudioTypeError, match="timeout must be a number of sec"):
            getattr(prediction, wait)(wrong)
    with pytest.raises(LMStudioValueError, match=r"seconds from 0, or None, not -1$"):
        getattr(prediction, wait)(-1)
    getattr(prediction, wait)(0)


def test_result_with_a_limit(fake, model):
    """result(timeout) gives up waiting, and the prediction goes on."""
    gate = Await()
    fake.reply(["a", gate, "b"])
    prediction = model.respond("x")
    assert "a" == next(iter(prediction))

    for wait in (prediction.result, prediction.exception):
        with pytest.raises(LMStudioTimeoutError) as caught:
            wait(timeout=0.05)
        assert (
            "the prediction has not ended within 0.05 s (1 fragment so far); it goes on"
        ) == str(caught.value)
        assert "a" == caught.value.partial
    with pytest.raises(TimeoutError):
        prediction.result(0)

    gate.open()
    assert "ab" == prediction.result(timeout=5).content
    assert [] == cancels(fake)


def test_result_limit_while_another_takes(fake, model, monkeypatch):
    """The limit holds as well for who waits behind another thread."""
    monkeypatch.setattr("lmstudio.turns.SLICE", FOREVER)
    fake.reply(["a", AWAIT_CANCEL])
    with model.respond("x") as prediction:
        assert "a" == next(iter(prediction))
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            holds = waits(prediction._inbox, "move")
            taking = pool.submit(list, prediction)
            assert holds.wait(5)
            started = time.monotonic()
            with pytest.raises(LMStudioTimeoutError):
                prediction.result(timeout=0.1)
            assert time.monotonic() - started < 5
            prediction.cancel()
            assert ["a"] == taking.result(timeout=5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "steps", "text", "partial"),
    [
        (
            {"timeout": 0.4},
            ["a", "b", NEVER],
            "prediction: not finished within 0.4 s (2 fragments so far)",
            "ab",
        ),
        (
            {"idle_timeout": 0.4},
            ["a", NEVER],
            "prediction: no news from the server for 0.4 s (1 fragment so far)",
            "a",
        ),
        (
            {"idle_timeout": 0.4, "timeout": 50, "signal": Signal()},
            [NEVER],
            "prediction: no news from the server for 0.4 s"
            " (100% of the prompt processed)",
            "",
        ),
    ],
)
def test_limits_of_a_prediction(fake, model, options, steps, text, partial):
    """A limit ends the prediction on both sides, and says how far it came."""
    fake.reply(steps)

    prediction = model.respond("x", **options)

    with pytest.raises(LMStudioTimeoutError) as caught:
        prediction.result()
    assert text == str(caught.value)
    assert partial == caught.value.partial
    assert partial == "".join(until_error(prediction))
    assert fake.wait_for(is_cancel)
    assert prediction.done()
    assert not prediction.cancel()
    assert "failed" in repr(prediction)


@pytest.mark.slow
def test_limit_without_any_news(fake, model):
    """A server that does not even begin is told apart."""
    fake.before("predict", NEVER)

    with pytest.raises(LMStudioTimeoutError) as caught:
        model.respond("x", timeout=0.4).result()

    assert "prediction: not finished within 0.4 s (nothing has arrived)" == str(
        caught.value
    )


def test_client_wide_limit(fake):
    """The client's limit holds for predictions that have none of their own."""
    fake.reply(NEVER, times=None)
    with LMStudioClient(fake.host, timeout=0.05) as client:
        model = client.llm.get("any")
        with pytest.raises(LMStudioTimeoutError, match=r"within 0\.05 s"):
            model.respond("x").result()
        with pytest.raises(LMStudioTimeoutError, match=r"within 0\.06 s"):
            model.respond("x", timeout=0.06).result()


def test_a_limit_that_is_not_reached(fake, model):
    """Limits don't touch a prediction that keeps them, and messages count as life."""
    fake.reply(["a", "b"])
    assert "ab" == model.respond("x", timeout=60, idle_timeout=60).content

    assert [] == cancels(fake)


def test_news_put_the_idle_limit_off(fake, model):
    """`idle_timeout` counts from the last news, and not from the start."""
    gate = Await()
    fake.reply(["a", gate, "b", AWAIT_CANCEL])
    with model.respond("x", idle_timeout=FOREVER) as prediction:
        texts = iter(prediction)
        assert "a" == next(texts)
        model._session.worker.settle(5)  # its first look, which is at once, is over
        prediction._inbox.heard -= 2 * FOREVER  # as if that had been long ago
        gate.open()
        assert "b" == next(texts)
        prediction._guard._look()

        assert not prediction.done()


@pytest.mark.slow
def test_a_malformed_packet_that_only_the_limit_finds(fake, model):
    """Nobody waited when it came: the limit takes it, and the hole is the error."""
    gate = Await()
    fake.reply(["a", {"type": "fragment"}, gate, NEVER])

    prediction = model.respond("x", timeout=0.5)
    assert gate.reached.wait(5)

    assert {prediction} == concurrent.futures.wait([prediction], timeout=5).done
    with pytest.raises(LMStudioProtocolError) as caught:
        prediction.result()
    assert "a" == caught.value.partial


@pytest.mark.slow
def test_a_limit_while_another_waits(fake, model):
    """Who waits takes all; the limit only ends it."""
    fake.reply(["a", NEVER])
    prediction = model.respond("x", timeout=0.5)
    assert "a" == next(iter(prediction))

    with pytest.raises(LMStudioTimeoutError) as caught:
        prediction.result()
    assert "a" == caught.value.partial


def test_a_long_limit_holds_nothing(fake, model, monkeypatch):
    """What watches a limit lets the prediction go, and ends soon after it."""
    monkeypatch.setattr("lmstudio.prediction.LOOK_AGAIN", 0.01)
    fake.reply(["a", AWAIT_CANCEL])
    held = []
    prediction = model.respond("x", timeout=1e12, on_fragment=held.append)
    gone = threading.Event()
    guard = weakref.ref(prediction._guard, lambda _: gone.set())
    held.append(prediction)  # a cycle of the user, as in classes with callbacks
    assert "a" == next(iter(prediction))

    del held, prediction
    gc.collect()

    assert fake.wait_for(is_cancel)
    assert gone.wait(5)  # the worker looks again by itself
    assert guard() is None


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"timeout": 0.02}, "not finished within 0.02 s"),
        ({"idle_timeout": 0.02}, "no news from the server for 0.02 s"),
        ({"idle_timeout": 0.02, "timeout": 50}, "no news from the server for 0.02 s"),
        ({"idle_timeout": 50, "timeout": 0.02}, "not finished within 0.02 s"),
    ],
)
def test_limits_while_connecting(options, what):
    """They begin with the call, and say what it was at."""
    with RawServer("") as server, LMStudioClient(server.host) as client:
        with pytest.raises(LMStudioTimeoutError) as caught:
            client.llm.get("any").respond("x", **options)
        expected = f"prediction: {what} (still connecting to {client.address})"
        assert expected == str(caught.value)


# --- signals


class Polled:
    """A signal of the user's own make."""

    value = False

    def is_set(self):
        return self.value

    def set(self):
        self.value = True


@pytest.mark.slow
@pytest.mark.parametrize("kind", [threading.Event, Polled, None])
def test_foreign_signals_are_looked_at_ten_times_a_second(
    fake, model, monkeypatch, kind
):
    """And the look at a long limit is soon enough to let go of what is gone."""
    assert "x" == model.respond("x").content  # connects, which asks for looks as well
    fake.reply([AWAIT_CANCEL])  # what has ended is looked at no more
    looks = queue.SimpleQueue()
    at = model._session.worker.at

    def asked(when, job):
        looks.put((when, time.monotonic()))
        at(when, job)

    monkeypatch.setattr(model._session.worker, "at", asked)
    began = time.monotonic()
    options = {"signal": kind()} if kind else {"timeout": 1e12}
    with model.respond("x", **options):
        when, now = looks.get(timeout=5)

    assert began < when <= now + (0.1 if kind else 10.0)


@pytest.mark.parametrize("kind", [Signal, threading.Event, Polled])
def test_signal_set_later(fake, model, kind):
    """Setting the signal in another thread cancels."""
    fake.reply(["a", AWAIT_CANCEL])
    signal = kind()
    prediction = model.respond("x", signal=signal)
    assert "a" == next(iter(prediction))

    threading.Thread(target=signal.set).start()

    assert "a" == prediction.result(timeout=5).content
    assert "userStopped" == prediction.stats.stop_reason
    assert 1 == len(cancels(fake))


@pytest.mark.parametrize("kind", [Signal, threading.Event, Polled])
def test_signal_already_set(fake, model, kind):
    """A signal that is set before cancels at once."""
    fake.reply([AWAIT_CANCEL])
    signal = kind()
    signal.set()

    prediction = model.respond("x", signal=signal)

    assert "" == prediction.result(timeout=5).content
    assert "userStopped" == prediction.stats.stop_reason


def test_our_signal_is_quick(fake, model, monkeypatch):
    """Nobody has to look at our own signal."""
    monkeypatch.setattr("lmstudio.prediction.SIGNAL_SLICE", FOREVER)
    fake.reply(["a", AWAIT_CANCEL])
    signal = Signal()
    prediction = model.respond("x", signal=signal)
    assert "a" == next(iter(prediction))

    signal.set()

    assert "a" == prediction.result(timeout=5).content


def test_a_signal_does_not_end_the_limits(fake, model):
    """A server that ignores the cancel still meets the time limit."""
    fake.reply(NEVER)
    signal = threading.Event()
    signal.set()

    with pytest.raises(LMStudioTimeoutError):
        model.respond("x", signal=signal, timeout=0.2).result(timeout=5)


@pytest.mark.slow
def test_one_signal_for_a_thousand_predictions(fake, model):
    """A signal forgets the predictions that are gone."""
    signal = Signal()
    fake.reply("a", times=None)
    for _ in range(1000):
        assert "a" == model.respond("x", signal=signal).content
    done = threading.Event()
    model._session.worker.soon(done.set)  # behind what it has still to look at
    assert done.wait(30)
    signal.listen(done.set)

    assert len(signal._listeners) < 5


@pytest.mark.parametrize("limit", [None, 60])
def test_a_signal_that_raises(fake, model, limit):
    """It ends the prediction with an error that names what it raised, and the text."""

    class Broken:
        def is_set(self):
            raise ZeroDivisionError("division by zero")

    fake.reply(["a", AWAIT_CANCEL])
    prediction = model.respond("x", signal=Broken(), timeout=limit)
    with pytest.raises(LMStudioRuntimeError, match=r"is_set.*ZeroDiv") as caught:
        prediction.result(5)

    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert fake.wait_for(is_cancel)
    fake.reply("b")
    assert "b" == model.respond("y").content
