"""Many prompts: in order, a few at a time, and stopped as one."""

from __future__ import annotations

import concurrent.futures
import gc
import itertools
import signal
import threading

import pytest

from lmstudio import (
    LMStudioError,
    LMStudioPredictionError,
    LMStudioTypeError,
    LMStudioValueError,
    PredictionResult,
    Signal,
)
from lmstudio.server.engine import EngineError
from lmstudio.testing import AWAIT_CANCEL, Await


def texts(results):
    return [result.content for result in results]


def asked(fake):
    """The prompts that the server has seen, in order."""
    return [
        parameter["history"]["messages"][-1]["content"][0]["text"]
        for parameter in fake.parameters("predict")
    ]


def cancelled(fake, count):
    """Wait until so many predictions were cancelled, or dropped."""
    seen = set()

    def is_cancel(received):
        if received.message.get("message", {}).get("type") == "cancel":
            seen.add(received.message["channelId"])
        return len(seen) == count

    fake.wait_for(is_cancel)
    return True


@pytest.mark.parametrize("workers", [1, 3, 20])
def test_results_come_in_order(fake, model, workers):
    """Each is the result of its prompt, whoever ends first."""
    prompts = [f"prompt {n}" for n in range(12)]

    results = list(model.map(prompts, workers=workers))

    assert prompts == texts(results)
    assert all(isinstance(result, PredictionResult) for result in results)
    assert sorted(prompts) == sorted(asked(fake))


def test_a_slow_one_does_not_hold_up_the_others(fake, model):
    """The first is waited for while all that come later are done."""
    fake.reply([held := Await(), "slow"], when="slow")
    done = []

    def progress(share):
        done.append(share)
        if share == 0.75:
            held.open()

    results = model.map(["slow", "b", "c", "d"], workers=2, progress=progress)

    assert ["slow", "b", "c", "d"] == texts(results)
    assert sorted(done) == done
    assert 1.0 == done[-1]


def test_no_more_than_workers_run(fake, model):
    """The next one starts only when one has ended."""
    gates = [Await() for _ in range(4)]
    for number, gate in enumerate(gates):
        fake.reply([gate, "x"], when=f"p{number}")
    results = model.map([f"p{n}" for n in range(4)], workers=2)
    reader = threading.Thread(target=lambda: list(results))
    reader.start()
    fake.wait_for(lambda seen: "p1" in str(seen.parameter))
    assert {"p0", "p1"} == set(asked(fake))
    gates[1].open()
    fake.wait_for(lambda seen: "p2" in str(seen.parameter))
    assert {"p0", "p1", "p2"} == set(asked(fake))
    for gate in gates:
        gate.open()
    reader.join()


def test_prompts_are_read_as_they_are_needed(model):
    """By the thread that iterates, and not to the end: there may be none."""
    readers = []

    def endless():
        for number in itertools.count():
            readers.append(threading.get_ident())
            yield f"{number}"

    results = model.map(endless(), workers=2)
    assert [] == readers
    assert ["0", "1", "2"] == texts(itertools.islice(results, 3))
    assert {threading.get_ident()} == set(readers)
    assert len(readers) < 60
    results.close()
    assert [] == list(results)


def test_complete_and_options(fake, model):
    """Raw text on request; all options go to each of them."""
    first, second = model.map(["a", "b"], complete=True, temperature=0.5, max_tokens=9)

    assert "ab" == first.content + second.content
    assert 0.5 == second.prediction_config["temperature"]
    for parameter in fake.parameters("predict"):
        layers = parameter["predictionConfigStack"]["layers"]
        assert "completeModeFormatting" == layers[-1]["layerName"]


def test_structured_results(fake, model):
    """`parsed` is what was asked for."""
    fake.reply("[1, 2]", times=2)
    results = model.map(["a", "b"], response_format=list[int])
    assert [[1, 2], [1, 2]] == [result.parsed for result in results]


def test_an_error_stops_all(fake, model):
    """It comes out at once, with the number of its prompt; the others are cancelled."""
    fake.reply(["x", AWAIT_CANCEL], when="slow", times=2)
    fake.reply([held := Await(), EngineError("broken")], when="bad")
    results = model.map(["slow 0", "bad", "slow 2", "never"], workers=3)

    def fail():
        fake.wait_for(lambda seen: "slow 2" in str(seen.parameter))
        held.open()

    helper = threading.Thread(target=fail)
    helper.start()
    with pytest.raises(LMStudioPredictionError, match=r"input 1: .*broken") as caught:
        next(results)
    helper.join()

    assert 1 == caught.value.index
    assert cancelled(fake, 2)
    assert [] == list(results)
    assert "never" not in asked(fake)


def test_errors_as_results(fake, model):
    """They stand in their places, also those of prompts that can't be sent."""
    fake.reply(EngineError("broken"), when="bad")
    good, bad, odd, last = model.map(["good", "bad", 7, "last"], on_error="return")

    assert ("good", "last") == (good.content, last.content)
    assert isinstance(bad, LMStudioError)
    assert (1, 2) == (bad.index, odd.index)
    assert "input 2: a history can't be read from 7" in str(odd)


def test_an_error_of_the_prompts(fake, model):
    """What the iterable raises comes out, and nothing goes on."""
    fake.reply(["x", AWAIT_CANCEL])

    def broken():
        yield "first"
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        next(model.map(broken(), on_error="return"))
    assert cancelled(fake, 1)


def test_leaving_a_block_cancels(fake, model):
    """What runs is stopped, what waits is not begun."""
    fake.reply(["x", AWAIT_CANCEL], when="slow", times=2)
    with model.map(["a", "slow 1", "slow 2", "b"], workers=2) as results:
        assert "a" == next(results).content
        fake.wait_for(lambda seen: "slow 1" in str(seen.parameter))
    assert cancelled(fake, 1)
    assert [] == list(results)
    assert "b" not in asked(fake)


def test_dropping_it_cancels(fake, model):
    """`break` out of a loop over it stops the model."""
    fake.reply(["x", AWAIT_CANCEL], when="slow", times=2)
    for result in model.map(["a", "slow 1", "slow 2"], workers=3):
        assert "a" == result.content
        break
    gc.collect()
    assert cancelled(fake, 2)


@pytest.mark.slow
def test_ctrl_c_cancels(fake, model, monkeypatch):
    """It is raised where the results are waited for, and all is stopped."""
    fake.reply(["x", AWAIT_CANCEL], times=2)

    is_waiting = threading.Event()

    def wait(*arguments, **keywords):
        is_waiting.set()
        return really_wait(*arguments, **keywords)

    really_wait = concurrent.futures.wait
    monkeypatch.setattr("lmstudio.batch.concurrent.futures.wait", wait)

    def interrupt():
        is_waiting.wait(5)
        signal.raise_signal(signal.SIGINT)

    def interrupted(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupted)
    helper = threading.Thread(target=interrupt)
    try:
        results = model.map(["one", "two", "three"], workers=2)
        helper.start()
        with pytest.raises(KeyboardInterrupt):
            next(results)
    finally:
        helper.join()
        signal.signal(signal.SIGINT, before)
    assert cancelled(fake, 2)
    assert [] == list(results)


def test_a_signal_ends_it(fake, model):
    """What runs ends with the text so far, and no more is begun."""
    stop = Signal()
    fake.reply(["so far", AWAIT_CANCEL], when="slow")
    results = model.map(
        ["slow", "a", "b"],
        workers=1,
        signal=stop,
        on_fragment=lambda _: None,
    )
    waiter = threading.Thread(
        target=lambda: (
            fake.wait_for(lambda seen: "slow" in str(seen.parameter)),
            stop.set(),
        )
    )
    waiter.start()
    (only,) = results
    waiter.join()

    assert "userStopped" == only.stats.stop_reason
    assert ["slow"] == asked(fake)


def test_progress(model):
    """A function is told the share; without a length there is none."""
    shares = []
    list(model.map(["a", "b", "c", "d"], workers=1, progress=shares.append))
    assert sorted(set(shares)) == shares
    assert {1.0} <= set(shares) <= {0.25, 0.5, 0.75, 1.0}
    shares.clear()
    list(model.map(iter(["a", "b"]), progress=shares.append))
    assert [] == list(model.map([], progress=shares.append))
    assert [] == shares


def test_what_it_shows(fake, model):
    """Its repr says how far it is, and never waits."""
    fake.reply(["x", AWAIT_CANCEL], when="b")
    results = model.map(["a", "b"])
    assert "<Batch 0 of 2 results taken, 0 running>" == repr(results)
    next(results)
    assert "<Batch 1 of 2 results taken, 1 running>" == repr(results)
    results.close()
    assert "<Batch 0 results taken, 0 running>" == repr(model.map(iter("ab")))


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"prompts": "one"}, LMStudioTypeError, "several prompts, such as a list"),
        ({"prompts": {"messages": []}}, LMStudioTypeError, "several prompts"),
        ({"prompts": 7}, LMStudioTypeError, "several prompts"),
        ({"workers": 0}, LMStudioValueError, "workers must be at least 1, not 0"),
        ({"workers": True}, LMStudioTypeError, "workers must be a whole number"),
        ({"on_error": "skip"}, LMStudioValueError, "'raise' or 'return', not 'skip'"),
        ({"complete": 1}, LMStudioTypeError, "complete must be True or False, not 1"),
        ({"progress": 1}, LMStudioTypeError, "progress must be True, False or a"),
        ({"signal": 1}, LMStudioTypeError, "signal must be"),
    ],
)
def test_wrong_arguments(fake, model, arguments, error, text):
    """They are refused at once; nothing was sent."""
    with pytest.raises(error, match=text):
        model.map(**{"prompts": ["x"]} | arguments)
    assert [] == fake.parameters("predict")


def test_wrong_options(fake, model):
    """Names are checked at once, values with the first prompt."""
    for name, right in {
        "temprature": "temperature",
        "workrs": "workers",
        "on_eror": "on_error",
        "response_fromat": "response_format",
    }.items():
        with pytest.raises(TypeError) as caught:
            model.map(["x"], **{name: 1})
        assert f"unknown prediction option {name!r}; did you mean {right!r}?" == str(
            caught.value
        )
    with pytest.raises(LMStudioValueError, match="input 0: prediction option tempera"):
        next(model.map(["x"], temperature="hot"))
    assert [] == fake.requests


def test_options_in_every_spelling(fake, model):
    """What `respond` and `complete` take under other names goes through as well."""
    for options in (
        {"maxTokens": 5, "inputPrefix": "> ", "on_prediction_fragment": print},
        {"raw": {"llm.prediction.seed": 7}, "complete": True, "prePrompt": "Once "},
    ):
        fake.reply("a")
        assert ["a"] == [result.content for result in model.map(["x"], **options)]


def test_nothing_is_begun_after_a_prompt_that_can_not_be_sent(fake, model):
    """The error is known before the next prompt is read."""
    fake.reply(["x", AWAIT_CANCEL])
    with pytest.raises(LMStudioTypeError, match="input 1: a history can't be read"):
        next(model.map(["first", 7, "third"]))
    assert cancelled(fake, 1)
    assert ["first"] == asked(fake)
