"""A model at work with tools: iterated over, waited for and cancelled."""

from __future__ import annotations

import concurrent.futures
import contextvars
import gc
import json
import pickle
import signal
import threading
import weakref

import pytest

from acting import FOREVER, STOPPED, add, asks, sum_first
from lmstudio import (
    LMStudioError,
    LMStudioPredictionError,
    LMStudioRuntimeError,
    LMStudioTimeoutError,
    PredictionRoundResult,
    RoundFragment,
    Signal,
    ToolCall,
    act,
)
from lmstudio.server.failures import Failure
from lmstudio.testing import AWAIT_CANCEL, Await, tool_call
from lmstudio.turns import TURN
from predictions import cancels, in_threads
from scripts import is_cancel, start

# --- what models ask for


def test_arguments_that_are_nested_too_deeply(fake, model):
    """What can't be sent back to the model ends the run with an error of ours."""
    deep = json.loads("[" * 800 + "]" * 800)
    fake.reply([tool_call("add", {"a": deep, "b": 1})])

    with (
        model.act("?", [add], wait=False) as run,
        pytest.raises(LMStudioError, match="nested too deeply"),
    ):
        run.result(FOREVER)


# --- what a result has, for short


def test_the_short_ways_to_what_a_result_has(fake, model):
    """Each gives what the result has; what came so far needs no waiting."""
    sum_first(fake)

    with model.act("?", [add], wait=False) as run:
        assert ((), ()) == (run.messages, run.calls)
        assert run.exception(FOREVER) is None
        result = run.result()

    for name in ("content", "rounds", "stats", "total_time_seconds", "text"):
        assert getattr(result, name) == getattr(run, name), name
    for name in ("predictions", "is_cancelled", "ended_by", "messages", "calls"):
        assert getattr(result, name) == getattr(run, name), name
    assert ("It is 3.", 2) == (str(run), run.rounds)
    assert result.to_dict() == run.to_dict()
    assert ["add"] == [call.request.name for call in run.calls]
    assert "<ActRun done, round 2, 1 call answered>" == repr(run)


def test_a_run_that_fails(fake, model):
    """Each who asks gets an error of its own, by raising or by return."""
    fake.reply(Failure("went wrong"))

    run = model.act("?", [add], wait=False)
    errors = [run.exception(FOREVER), run.exception()]
    for how in (run.result, lambda: list(run)):
        with pytest.raises(LMStudioPredictionError) as caught:
            how()
        errors.append(caught.value)

    assert ["predict: went wrong"] * 4 == [str(error) for error in errors]
    assert 4 == len(set(map(id, errors)))
    assert "<ActRun failed, round 1, 0 calls answered>" == repr(run)


def test_a_callback_that_raises(fake, model):
    """What it raises comes out where somebody waits, and the server is stopped."""

    def fail(*arguments):
        raise KeyError("mine")

    fake.reply(["a", AWAIT_CANCEL])
    run = model.act("?", [add], wait=False, on_prediction_fragment=fail)
    with pytest.raises(KeyError, match="mine"):
        run.result(FOREVER)

    assert fake.wait_for(is_cancel)
    assert run.result(FOREVER).is_cancelled


def test_a_wait_has_an_end(fake, model):
    """Whose time is over is told how far it was; the run can go on."""
    gate = Await()
    fake.reply(["a", gate, "b"])

    with model.act("?", [add], wait=False) as run:
        assert "a" == next(iter(run))
        for timeout in (0, 0.01):
            with pytest.raises(LMStudioTimeoutError) as caught:
                run.result(timeout)
            assert (
                f"the run has not ended within {timeout:g} s"
                " (round 1, 0 calls answered); it can go on"
            ) == str(caught.value)
            assert "a" == caught.value.partial
        gate.open()
        assert "ab" == run.content


@pytest.mark.parametrize("thread", ["this", "another"])
def test_after_a_fork(fake, model, thread):
    """A run that another thread worked on is over in the child; others go on.

    What a child would find is played in the parent.
    """
    gate = Await()
    fake.reply(["a", gate, "b"])

    with model.act("?", [add], wait=False) as run:
        assert "a" == next(iter(run))
        if thread == "another":
            run._rounds.turns.holder[TURN] = (-1,)  # of no thread here
        run.after_fork()
        gate.open()
        if thread == "another":
            with pytest.raises(LMStudioRuntimeError, match="the process was forked wh"):
                run.result(FOREVER)
        else:
            assert "ab" == run.content


# --- iterating


def test_text_of_all_rounds(fake, model):
    """Iterating gives the text as it comes; each piece knows its round."""
    gate = Await()
    fake.reply(["a", gate, "b", asks("add", a=1, b=2)])
    fake.reply(["c"])

    with model.act("?", [add], wait=False) as run:
        pieces = iter(run)
        assert "a" == next(pieces)
        assert not run.done()
        assert "<ActRun running, round 1, 0 calls answered>" == repr(run)
        gate.open()
        assert ["b", "c"] == list(pieces)
        assert ["a", "b", "c"] == list(run)

    assert [("a", 0), ("b", 0), ("c", 1)] == [(p, p.round_index) for p in run]
    piece = next(iter(run))
    assert isinstance(piece, RoundFragment)
    again = pickle.loads(pickle.dumps(piece))
    assert (piece, 0, "none") == (again, again.round_index, again.reasoning_type)


def test_events(fake, model):
    """A round's result comes before its calls are made, each answer before the next."""
    called = []

    def count(n: int) -> int:
        called.append(n)
        return n

    fake.reply(["a", asks("count", "1", n=1), asks("count", "2", n=2)])
    fake.reply("b")
    seen = []

    for event in model.act("?", [count], wait=False).events():
        seen.append((type(event), list(called)))

    assert [
        (RoundFragment, []),
        (PredictionRoundResult, []),
        (ToolCall, [1]),
        (ToolCall, [1, 2]),
        (RoundFragment, [1, 2]),
        (PredictionRoundResult, [1, 2]),
    ] == seen


def test_many_threads(fake, model):
    """Threads that iterate and wait at once get everything; tools are called once."""
    calls = []
    gate = Await()

    def note(n: int) -> int:
        calls.append(n)
        return n

    for n in range(5):
        fake.reply([f"{n} ", *([gate] if n == 0 else []), asks("note", n=n)])
    fake.reply("end")
    run = model.act("?", [note], wait=False)

    def work():
        gate.open()
        return list(run), run.result(FOREVER).content

    results = in_threads(6, work)

    expected = (["0 ", "1 ", "2 ", "3 ", "4 ", "end"], "end")
    assert [expected] * 6 == results
    assert [0, 1, 2, 3, 4] == calls


def test_another_thread_takes_over(fake, model):
    """Who waits goes on with the work when the thread that did it stops iterating."""
    gate = Await()
    fake.reply(["a", gate, "b", asks("add", a=1, b=2)])
    fake.reply("c")
    run = model.act("?", [add], wait=False)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pieces = iter(run)
        assert "a" == next(pieces)
        waiting = pool.submit(run.result, FOREVER)
        gate.open()

        assert "c" == waiting.result(FOREVER).content
        assert ["b", "c"] == list(pieces)


def test_waiting_inside_of_the_run(fake, model):
    """A tool or a callback that waits for its own run is told so, and does not hang."""
    found = []
    begun = threading.Event()

    def look(n: int) -> int:
        assert begun.wait(FOREVER)
        try:
            found[0].result()
        except LMStudioRuntimeError as exc:
            found.append(str(exc))
        return n

    fake.reply([asks("look", "1", n=1), asks("look", "2", n=2)])
    fake.reply([asks("look", "3", n=3)])
    fake.reply("end")

    run = model.act("?", [look], wait=False, max_parallel_tool_calls=2)
    found.append(run)
    begun.set()

    assert "end" == run.result(FOREVER).content
    message = "a tool or a callback of a run can't wait for that run"
    assert [run, message, message, message] == found


def test_a_context_that_outlives_its_run(fake, model, monkeypatch):
    """What a tool left behind, such as a task, may wait for later runs."""
    # As when the later run stands in the memory where the earlier one stood.
    monkeypatch.setattr(act, "id", lambda one: 1, raising=False)
    contexts = []

    def leave() -> int:
        contexts.append(contextvars.copy_context())
        return 1

    fake.reply([asks("leave")])
    fake.reply("a")
    assert "a" == model.act("?", [leave]).content

    fake.reply("b")
    run = model.act("?", [leave], wait=False)
    assert "b" == contexts[0].run(run.result, FOREVER).content


# --- cancelling


def test_cancel_while_the_model_speaks(fake, model):
    """The run ends as usual with what there is; the server is told to stop."""
    fake.reply(["a", asks("add", a=1, b=2), AWAIT_CANCEL])
    run = model.act("?", [add], wait=False)
    pieces = iter(run)
    assert "a" == next(pieces)
    fake.wait_for(lambda seen: seen.endpoint == "predict")

    assert run.cancel() is True

    assert [] == list(pieces)
    result = run.result()
    assert result.is_cancelled
    assert "userStopped" == result.stats[-1].stop_reason
    assert "a" == result.content
    assert run.cancel() is False
    assert 1 == len(cancels(fake))
    assert ["a"] == list(run)


def test_cancel_with_a_backlog(fake, model):
    """What had arrived but was not yielded yet is dropped by the iterator."""
    fake.reply(["a", "b", "c", AWAIT_CANCEL])
    with model.act("?", [add], wait=False) as run:
        first, second = iter(run), iter(run)
        assert ["a", "b", "c"] == [next(first), next(first), next(first)]
        assert "a" == next(second)
        run.cancel()

        assert [] == list(second)
        assert [] == list(first)


def test_cancel_from_another_thread_while_waiting(fake, model):
    """A thread that waits gets the result, whoever cancels."""
    gate = Await()
    fake.reply(["a", gate, AWAIT_CANCEL])
    run = model.act("?", [add], wait=False)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(run.result, FOREVER)
        assert gate.reached.wait(FOREVER)
        run.cancel()

        assert waiting.result(FOREVER).is_cancelled


def test_cancel_while_a_tool_runs(fake, model):
    """The tool that runs is waited for, no further one is called, no round begins."""
    inside, go_on, heard = threading.Event(), threading.Event(), []

    def slow(n: int) -> int:
        inside.set()
        assert go_on.wait(FOREVER)
        return n

    fake.reply([asks("slow", "1", n=1), asks("slow", "2", n=2)])
    run = model.act("?", [slow], wait=False, on_message=heard.append)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(run.result, FOREVER)
        assert inside.wait(FOREVER)
        assert run.cancel() is True
        go_on.set()
        result = waiting.result(FOREVER)

    assert result.is_cancelled
    assert ["1", STOPPED] == [call.content for call in result.calls]
    # Each request has an answer, so that the conversation can go on.
    assert ["assistant", "tool"] == [message.role for message in heard]
    assert ["1", "2"] == [part.tool_call_id for part in heard[1].content]
    assert 1 == len(fake.parameters("predict"))


def test_cancel_by_the_tool_itself(fake, model):
    """A tool may stop the run that it is called for."""
    runs = []

    def stop(n: int) -> int:
        runs[0].cancel()
        return n

    fake.reply([asks("stop", "1", n=1), asks("stop", "2", n=2)])
    runs.append(model.act("?", [stop], wait=False))

    assert ["1", STOPPED] == [call.content for call in runs[0].result().calls]


def test_cancel_between_two_rounds(fake, model):
    """A cancel while the next prediction is being opened stops that one at once."""
    runs = []

    def cancel(index):
        if index == 1:
            runs[0].cancel()

    fake.reply([asks("add", a=1, b=2)])
    fake.reply(["x", AWAIT_CANCEL])
    runs.append(model.act("?", [add], wait=False, on_round_start=cancel))

    assert runs[0].result(FOREVER).is_cancelled
    assert fake.wait_for(is_cancel)


def test_nothing_said_yet(fake, model):
    """A run that is cancelled before its first word adds no message."""
    fake.reply(AWAIT_CANCEL)
    heard = []

    with model.act("?", [add], wait=False, on_message=heard.append) as run:
        pass

    assert () == run.result().messages
    assert [] == heard
    assert "" == run.content


@pytest.mark.parametrize("kind", [Signal, threading.Event])
def test_signals(fake, model, kind):
    """A signal stops the model, and keeps further tools from being called."""
    event = kind()
    fake.reply(["a", AWAIT_CANCEL])
    run = model.act("?", [add], wait=False, signal=event)
    assert "a" == next(iter(run))
    event.set()
    assert run.result(FOREVER).is_cancelled

    event = kind()

    def stop(n: int) -> int:
        event.set()
        return n

    fake.reply([asks("stop", "1", n=1), asks("stop", "2", n=2)])
    result = model.act("?", [stop], signal=event).result()
    assert ["1", STOPPED] == [call.content for call in result.calls]
    assert result.is_cancelled


def test_a_run_that_nobody_holds(fake, model):
    """Leaving the loop and forgetting the run stops the model."""
    fake.reply(["a", AWAIT_CANCEL])

    for _ in model.act("?", [add], wait=False, on_prompt_processing_progress=print):
        break

    assert fake.wait_for(is_cancel)


def test_runs_are_freed_without_the_garbage_collector(fake, model):
    """Nothing in a run refers to it in circles."""
    sum_first(fake)
    gc.collect()
    gc.disable()
    try:
        run = model.act("?", [add], on_first_token=print)
        gone = weakref.ref(run)
        del run
        assert None is gone()
    finally:
        gc.enable()


PROGRAM = """
import threading
together = threading.Barrier({together})
def tool(n: int) -> int:
    if together.wait() == 0:
        told()
    threading.Event().wait()
def told(*_):
    print("ready", flush=True)
try:
    run = model.act("?", [tool], wait=False, {options})
    {wait}
except KeyboardInterrupt:
    result = run.result()
    print(result.is_cancelled, len(result.calls), repr(result.content))
    raise
"""
SPEAKS = "on_prediction_fragment=told"
AT_ONCE = "max_parallel_tool_calls=2"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "wait", "calls"),
    [
        (SPEAKS, "run.result()", 0),
        (SPEAKS, "for text in run: pass", 0),
        ("", "run.result()", 1),
        (AT_ONCE, "list(run.events())", 2),
    ],
)
def test_ctrl_c(fake, options, wait, calls):
    """Ctrl-C stops the run, whether the model speaks or tools run."""
    asked = [asks("tool", str(n), n=n) for n in range(calls)]
    fake.reply(["a", *(asked or [AWAIT_CANCEL])])
    program = PROGRAM.format(options=options, wait=wait, together=max(calls, 1))
    with start(program, fake) as process:
        assert "ready\n" == process.stdout.readline()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=FOREVER)

    assert f"True {calls} 'a'\n" == output
    assert errors.endswith("\nKeyboardInterrupt\n")
    assert -signal.SIGINT == process.returncode
    assert calls or fake.wait_for(is_cancel)


def test_ctrl_c_between_two_pieces(fake, model):
    """An interrupt that hits the iterator itself cancels as well."""
    fake.reply(["a", AWAIT_CANCEL])
    run = model.act("?", [add], wait=False)
    pieces = run.events()
    assert "a" == next(pieces)

    with pytest.raises(KeyboardInterrupt):
        pieces.throw(KeyboardInterrupt)

    assert run.result(FOREVER).is_cancelled
