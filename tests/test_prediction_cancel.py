"""Predictions that are cancelled, let go, or stopped by a callback."""

from __future__ import annotations

import concurrent.futures
import gc
import queue
import signal
import threading
import time
import weakref

import pytest

import lmstudio
from lmstudio import (
    LMStudioPredictionError,
    LMStudioTimeoutError,
    Prediction,
    Signal,
)
from lmstudio.server.failures import Failure
from lmstudio.testing import AWAIT_CANCEL, NEVER, Await
from predictions import cancels, in_threads, send
from scripts import is_cancel, run, said, start
from timing import quickest

#: Longer than any test: what waits for it hangs.
FOREVER = 60.0


# --- cancel


def notes_are_done(model):
    """Wait until the worker has done what it was asked for so far."""
    done = threading.Event()
    model._session.worker.soon(done.set)
    assert done.wait(5)


@pytest.mark.parametrize("step", [AWAIT_CANCEL, NEVER], ids=repr)
def test_cancel_and_let_go(fake, model, step):
    """Cancelled and dropped, the server is asked once, and nothing is expected.

    Also of a server that never ends it.
    """
    fake.reply(["a", step])

    model.respond("x").cancel()
    notes_are_done(model)  # that of the finalizer is one

    assert "y" == model.respond("y").content
    assert 1 == len(cancels(fake))
    assert 1 not in model._session.connection("llm")._mailboxes
    fake.drop_connections()


def test_cancel_keeps_what_was_generated(fake, model):
    """A cancelled prediction ends normally, with the text generated so far."""
    fake.reply(["one ", AWAIT_CANCEL, "never"])
    prediction = model.respond("count")
    assert "one " == next(iter(prediction))

    assert prediction.cancel()
    prediction.cancel()  # again is no error

    assert "one " == prediction.result().content
    assert "userStopped" == prediction.stats.stop_reason
    assert not prediction.cancelled()
    assert prediction.exception() is None
    assert ["one "] == list(prediction)
    assert 1 == len(cancels(fake))


def test_cancel_before_anything_arrives(fake, model):
    """Cancelled at once, it ends with no text."""
    fake.reply([AWAIT_CANCEL, "never"])
    prediction = model.respond("x")

    prediction.close()  # the official name

    assert "" == prediction.content
    assert "userStopped" == prediction.stats.stop_reason


def test_cancel_after_the_end(fake, model):
    """Cancelling what has ended does nothing, and says so."""
    fake.reply("all")
    prediction = model.respond("x")
    assert "all" == prediction.content

    assert not prediction.cancel()
    assert "eosFound" == prediction.stats.stop_reason
    assert [] == cancels(fake)


@pytest.mark.parametrize("step", [AWAIT_CANCEL, NEVER], ids=repr)
def test_cancel_ends_every_iteration(fake, model, monkeypatch, step):
    """All who iterate stop at once, whatever the server does about it."""
    monkeypatch.setattr("lmstudio.turns.SLICE", FOREVER)
    fake.reply(["a", step])
    prediction = model.respond("x")
    started = threading.Barrier(6)

    def iterate():
        texts = iter(prediction)
        got = [next(texts)]
        started.wait()
        return got + list(texts)

    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        iterating = [pool.submit(iterate) for _ in range(5)]
        started.wait()
        prediction.cancel()
        assert [["a"]] * 5 == [thread.result(timeout=10) for thread in iterating]
    fake.drop_connections()  # the server that never answers


@pytest.mark.slow
def test_cancel_with_a_backlog(fake, model):
    """Iterating ends in under 100 ms behind megabytes; the result has them all."""
    pieces = [f"{n:05} " + "x" * 994 for n in range(5000)]
    assert 5_000_000 <= sum(map(len, pieces))

    def once():
        gate = Await()
        fake.reply([*pieces, gate, AWAIT_CANCEL])
        prediction = model.respond("x")
        texts = iter(prediction)
        assert pieces[0] == next(texts)
        assert gate.reached.wait(20)
        deadline = time.monotonic() + 20
        while not prediction._inbox._batches and time.monotonic() < deadline:
            time.sleep(0.001)
        started = time.perf_counter()
        prediction.cancel()
        late = len(list(texts))
        took = time.perf_counter() - started

        assert 0 == late
        assert "userStopped" == prediction.stats.stop_reason
        whole = prediction.content
        assert "".join(pieces).startswith(whole)
        assert list(prediction.result().fragments) == pieces[: len(whole) // 1000]
        return took

    quickest(0.1, once)


def test_cancel_among_pieces_that_have_arrived(fake, model):
    """Also what one read brought is not yielded any more."""
    fake.reply(["a", NEVER])
    prediction = model.respond("x")
    assert "a" == next(iter(prediction))
    more = [{"type": "fragment", "fragment": {"content": text}} for text in "bc"]
    prediction._inbox.put(more)
    texts = iter(prediction)
    assert ["a", "b"] == [next(texts), next(texts)]

    prediction.cancel()

    assert [] == list(texts)
    fake.drop_connections()


def test_ctrl_c_between_two_pieces(fake, model):
    """An interrupt that hits the iterator itself cancels as well."""
    fake.reply(["a", AWAIT_CANCEL])
    prediction = model.respond("x")
    texts = iter(prediction)
    assert "a" == next(texts)

    with pytest.raises(KeyboardInterrupt):
        texts.throw(KeyboardInterrupt)

    assert "a" == prediction.content
    assert "userStopped" == prediction.stats.stop_reason


PROGRAM = """
import threading, time
def tell():
    while not prediction._arrivals._turn:  # until the main thread waits
        time.sleep(0.001)
    print("ready", flush=True)
threading.Thread(target=tell).start()
try:
    {wait}
except KeyboardInterrupt:
    print("partial", prediction.content, prediction.stats.stop_reason, flush=True)
    raise
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "wait",
    ["for text in prediction: pass", "prediction.result()", "prediction.content"],
)
def test_ctrl_c(fake, wait):
    """Ctrl-C cancels on the server, keeps the text, and prints what Python prints."""
    fake.reply(["text", AWAIT_CANCEL])
    program = 'prediction = model.respond("x")\nnext(iter(prediction))'
    with start(program + PROGRAM.format(wait=wait), fake) as process:
        assert "ready\n" == process.stdout.readline()
        process.send_signal(signal.SIGINT)
        output, errors = said(process, 10)

    assert fake.wait_for(is_cancel)
    assert "partial text userStopped\n" == output
    assert errors.startswith("Traceback (most recent call last):\n")
    assert errors.endswith("\nKeyboardInterrupt\n")
    assert 1 == errors.count("Traceback")
    assert -signal.SIGINT == process.returncode


@pytest.mark.slow
@pytest.mark.parametrize(
    "ending",
    [
        "",
        "threading.Thread(target=list, args=[prediction], daemon=True).start()",
        "lms.other = model.respond('y')",
        "client = None",
        "client = model = prediction = None",
        "raise SystemExit(0)",
    ],
)
def test_the_program_ends_while_it_streams(fake, ending):
    """A program that just ends, ends at once and prints nothing."""
    fake.reply(["text", AWAIT_CANCEL], times=None)
    program = (
        """
import threading, time
prediction = model.respond("x")
next(iter(prediction))
"""
        + ending
        + "\nprint(time.time())"
    )
    if ending.startswith("raise"):
        program = program.replace(ending, f"print(time.time()); {ending}")
        program = program.rpartition("\n")[0]

    def once():
        code, output, errors = run(program, fake)
        ended = time.time()
        assert (0, "") == (code, errors)
        return ended - float(output)

    quickest(1.0, once)


def test_late_fragments_are_dropped(fake, model):
    """What the server sends after the cancel is in no answer, and nobody complains."""
    gate = Await()
    fake.reply(["a", NEVER])
    prediction = model.respond("x")
    assert "a" == next(iter(prediction))

    prediction.cancel()
    send(fake, {"type": "fragment", "fragment": {"content": "late"}})
    send(fake, {"type": "fragment"})  # malformed, and late as well
    send(fake, {"type": "success", "stats": {"stopReason": "userStopped"}})

    assert "a" == prediction.result(timeout=5).content
    gate.open()


def test_with_cancels(fake, model):
    """Leaving the block stops the server, whether by its end or by an error."""
    fake.reply(["a", AWAIT_CANCEL], times=2)
    with model.respond("x") as prediction:
        assert "a" == next(iter(prediction))
    assert "userStopped" == prediction.stats.stop_reason

    with pytest.raises(ZeroDivisionError), model.respond("x") as prediction:
        1 / 0  # noqa: B018
    assert "userStopped" == prediction.stats.stop_reason


def test_cancel_from_many_threads(fake, model):
    """However many cancel at once, the server is asked once."""
    fake.reply(["a", NEVER])
    prediction = model.respond("x")
    assert "a" == next(iter(prediction))

    assert [True] * 8 == in_threads(8, prediction.cancel)

    notes_are_done(model)  # who cancels leaves the sending to the worker
    assert "y" == model.respond("y").content  # what was sent before it has arrived
    assert 1 == len(cancels(fake))
    fake.drop_connections()


# --- nobody holds it any more


def test_break_out_of_an_unnamed_prediction(fake, model):
    """Nobody holds it after the loop, so the server is told to stop."""
    fake.reply(["a", AWAIT_CANCEL])

    for text in model.respond("x"):
        assert "a" == text
        break

    assert fake.wait_for(is_cancel)


def test_a_note_is_all_that_the_finalizer_leaves(fake, client, model):
    """A prediction may be collected while any lock is held, in any thread."""
    fake.reply(["a", AWAIT_CANCEL], times=None)
    keeper = model.respond("keep")
    assert "a" == next(iter(keeper))
    session = client._session
    connection = session.connection("llm")
    locks = [
        session._state,
        connection._state,
        connection._transport._sending,
        keeper._settling,
        keeper._condition,
        keeper._arrivals._turns.news,
        session.worker._starting,
    ]
    for lock in locks:
        cycle = [model.respond("drop")]
        assert "a" == next(iter(cycle[0]))
        number = cycle[0]._inbox.request[1]
        cycle.append(cycle)

        def collect(lock=lock):
            with lock:
                gc.collect()

        del cycle
        thread = threading.Thread(target=collect, daemon=True)
        thread.start()
        thread.join(5)
        assert not thread.is_alive(), lock
        fake.wait_for(
            lambda seen, number=number: (
                is_cancel(seen) and seen.message["channelId"] == number
            )
        )
    keeper.cancel()
    assert "a" == keeper.content


def test_collecting_out_of_a_queue_put(fake, client, model):
    """A finalizer that runs inside the worker's own queue does not hang."""
    fake.reply(["a", AWAIT_CANCEL])
    prediction = model.respond("x")
    assert "a" == next(iter(prediction))
    jobs = client._session.worker._jobs
    held = [prediction]
    del prediction

    class Last:
        def __init__(self):
            self.cycle = self

        def __del__(self):
            held.clear()

    Last()
    jobs.put((0.0, gc.collect))  # runs the finalizers on the worker itself

    assert fake.wait_for(is_cancel)


def test_a_done_callback_keeps_it(fake, client, model):
    """With a callback the prediction goes on unheld, and is freed after it."""
    gate = Await()
    fake.reply(["a", gate, "b"])
    texts = queue.SimpleQueue()
    prediction = model.respond("x")
    held = weakref.ref(prediction)
    prediction.add_done_callback(lambda done: texts.put(done.content))
    gone = threading.Event()
    weakref.finalize(prediction, gone.set)

    del prediction
    gc.collect()
    assert held() is not None
    gate.open()

    assert "ab" == texts.get(timeout=5)
    deadline = time.monotonic() + 5
    # Without the GIL a thread frees what it made: the reader must not sleep for ever.
    while not gone.wait(0.01):
        client.llm.list_loaded()
        assert time.monotonic() < deadline
    assert [] == cancels(fake)


def unlooked(model):
    return model.respond("ends")


def whole(model):
    prediction = model.respond("ends")
    assert "ab" == prediction.content == prediction.result().content
    assert ["a", "b"] == list(prediction)
    return prediction


def stopped(model):
    prediction = model.respond("runs", timeout=50, signal=Signal())
    assert "a" == next(iter(prediction))
    prediction.cancel()
    assert ["a"] == list(prediction)
    assert "a" == prediction.content
    return prediction


def failed(model):
    prediction = model.respond("fails")
    with pytest.raises(LMStudioPredictionError):
        prediction.result()
    with pytest.raises(LMStudioPredictionError):
        list(prediction)
    assert prediction.exception() is not None
    return prediction


def late(model):
    prediction = model.respond("runs", timeout=0.4)
    with pytest.raises(LMStudioTimeoutError):
        prediction.result()
    return prediction


def raised(model):
    prediction = model.respond("ends", on_fragment=[].index)
    with pytest.raises(ValueError, match="not in list"):
        prediction.result()
    return prediction


@pytest.mark.slow
@pytest.mark.parametrize("make", [unlooked, whole, stopped, failed, late, raised])
def test_no_cycles(fake, model, make):
    """Reference counting alone frees a prediction, however it ended."""
    fake.reply(["a", "b"], when="ends", times=None)
    fake.reply(["a", AWAIT_CANCEL], when="runs", times=None)
    fake.reply(["a", Failure("no")], when="fails", times=None)
    gc.collect()
    gc.disable()
    try:
        prediction = make(model)
        gone = threading.Event()
        weakref.finalize(prediction, gone.set)
        del prediction
        # The reader or the worker may hold it for a moment more.
        assert gone.wait(5)
    finally:
        gc.enable()


# --- callbacks in the waiting thread


def test_callbacks_run_in_the_waiting_thread(fake, model):
    """Progress, the first token and fragments are told in order, each in our thread."""
    fake.reply(["a", "b"])
    told = []

    def tell(*what):
        told.append((threading.current_thread(), *what))

    prediction = model.respond(
        "x",
        on_first_token=lambda: tell("first"),
        on_fragment=tell,
        on_prompt_progress=tell,
    )
    assert [] == told
    assert "ab" == prediction.content
    assert "ab" == prediction.content  # and only once

    me = threading.current_thread()
    assert [(me, 0.0), (me, 1.0), (me, "first"), (me, "a"), (me, "b")] == told


@pytest.mark.parametrize(
    "name", ["on_first_token", "on_fragment", "on_prompt_progress"]
)
@pytest.mark.parametrize("wait", [list, Prediction.result])
def test_a_callback_that_raises(fake, model, name, wait):
    """It cancels, its exception comes out once, and the text stays readable."""
    fake.reply(["a", AWAIT_CANCEL])
    calls = []

    def fail(*_):
        calls.append(name)
        raise ZeroDivisionError("of the user")

    prediction = model.respond("x", **{name: fail})

    with pytest.raises(ZeroDivisionError, match="of the user"):
        wait(prediction)
    assert fake.wait_for(is_cancel)
    assert prediction.content in ("", "a")
    assert "userStopped" == prediction.stats.stop_reason
    assert [name] == calls


@pytest.mark.parametrize("wait", [Prediction.result, list, str])
def test_a_callback_can_not_wait_for_its_own_prediction(fake, model, wait):
    """That would never end, so it is an error."""
    fake.reply(["a", AWAIT_CANCEL])
    prediction = model.respond("x", on_fragment=lambda _: wait(prediction))

    with pytest.raises(lmstudio.LMStudioRuntimeError) as caught:
        prediction.result()
    assert "a callback of a prediction can't wait for that prediction" == str(
        caught.value
    )


def test_a_callback_may_cancel(fake, model):
    """Cancelling from a callback is no special case."""
    fake.reply(["a", AWAIT_CANCEL])
    prediction = model.respond("x", on_fragment=lambda _: prediction.cancel())

    assert "a" == prediction.result().content
    assert "userStopped" == prediction.stats.stop_reason


def test_slow_callbacks_hold_nobody_up(fake, model, monkeypatch):
    """While a callback runs, other threads get what has arrived."""
    monkeypatch.setattr("lmstudio.turns.SLICE", FOREVER)
    go, called = threading.Event(), threading.Event()
    gate = Await()
    fake.reply([gate, "a", AWAIT_CANCEL])

    def hold(_):
        called.set()
        assert go.wait(10)

    prediction = model.respond("x", on_fragment=hold)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        threads = [pool.submit(next, iter(prediction)) for _ in range(2)]
        gate.open()
        assert called.wait(5)
        done = concurrent.futures.wait(
            threads, 5, return_when=concurrent.futures.FIRST_COMPLETED
        ).done
        assert ["a"] == [thread.result() for thread in done]
        go.set()
        assert ["a", "a"] == [thread.result(5) for thread in threads]
    prediction.cancel()


def test_a_second_ctrl_c_in_the_midst_of_cancel(fake, model, monkeypatch):
    """What the first one did not come to is done by the next cancel."""
    fake.reply(["a", AWAIT_CANCEL])
    prediction = model.respond("x")
    assert "a" == next(iter(prediction))
    put, calls = prediction._inbox.put, []

    def interrupted(batch):
        calls.append(batch)
        if len(calls) == 1:
            raise KeyboardInterrupt
        put(batch)

    prediction._inbox.put = interrupted
    with pytest.raises(KeyboardInterrupt):
        prediction.cancel()
    assert prediction.cancel()
    assert "a" == prediction.result(5).content
    assert fake.wait_for(is_cancel)
