"""Predictions: iterator and future in one, over a real connection."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import logging
import queue
import threading
import weakref

import pytest

import lmstudio
from lmstudio import (
    LMStudioChannelClosedError,
    LMStudioClient,
    LMStudioModelCrashedError,
    LMStudioModelNotFoundError,
    LMStudioPredictionError,
    LMStudioProtocolError,
    LMStudioUnsupportedError,
    LMStudioWebsocketError,
    PredictionResult,
)
from lmstudio.server.failures import Failure
from lmstudio.testing import AWAIT_CANCEL, CRASH, DROP, NEVER, Await
from predictions import channel_of, close, in_threads, send, until_error

#: Longer than any test: what waits for it hangs.
FOREVER = 60.0


# --- iterating and waiting


def test_fragments_and_result(fake, model):
    """Iterating gives the pieces, and the result the whole with its stats."""
    fake.reply(["one ", "two"])

    prediction = model.respond("count")

    assert ["one ", "two"] == list(prediction)
    assert "one two" == prediction.content == str(prediction)
    assert "one two" == prediction.result().content == prediction.parsed
    assert "eosFound" == prediction.stats.stop_reason
    assert "any" == prediction.model_info.identifier
    assert isinstance(prediction.wait_for_result(), PredictionResult)
    assert prediction.result() is prediction.result()
    fake.assert_all_used()


def test_iterating_again_starts_over(fake, model):
    """A second iteration, also of an ended prediction, begins at the first piece."""
    fake.reply(["a", "b", "c"])

    prediction = model.respond("x")

    assert ["a", "b", "c"] == list(prediction) == list(prediction)


def test_iterators_stand_at_places_of_their_own(fake, model):
    """Two iterators of one thread don't take pieces away from each other."""
    fake.reply(["a", "b", "c"])
    prediction = model.respond("x")
    first, second = iter(prediction), iter(prediction)

    assert "a" == next(first)
    assert ["a", "b", "c"] == list(second)
    assert ["b", "c"] == list(first)


def test_many_threads_iterate_and_wait(fake, model):
    """Threads that iterate at once each get everything, in order."""
    pieces = [f"{n} " for n in range(200)]
    gate = Await()
    fake.reply([*pieces[:100], gate, *pieces[100:]])
    prediction = model.respond("x")

    def work():
        got = []
        for text in prediction:
            got.append(str(text))
            gate.open()
        return got, prediction.result().content

    assert [(pieces, "".join(pieces))] * 8 == in_threads(8, work)


def test_nobody_waits_for_the_others_to_wait(fake, model, monkeypatch):
    """A piece reaches all who iterate at once, whoever took it from the mailbox."""
    monkeypatch.setattr("lmstudio.turns.SLICE", FOREVER)
    gates = [Await() for _ in range(20)]
    steps = [step for n, gate in enumerate(gates) for step in (gate, f"{n} ")]
    fake.reply(["start ", *steps, AWAIT_CANCEL])
    seen = queue.SimpleQueue()

    with model.respond("x") as prediction:
        got = [queue.SimpleQueue() for _ in range(4)]

        def iterate(mine):
            for text in prediction:
                mine.put(str(text))

        threads = [threading.Thread(target=iterate, args=(mine,)) for mine in got]
        threads.append(
            threading.Thread(target=lambda: seen.put(prediction.result().content))
        )
        for thread in threads:
            thread.start()
        expected = ["start "] + [f"{n} " for n in range(20)]
        for n, text in enumerate(expected):
            assert [text] * 4 == [mine.get(timeout=10) for mine in got]
            if n < len(gates):
                gates[n].open()
        prediction.cancel()
        assert "".join(expected) == seen.get(timeout=10)
        for thread in threads:
            thread.join(10)


def test_it_goes_on_without_anybody(fake, model):
    """The prediction ends although nobody iterates or waits."""
    fake.reply(["a", "b"])

    prediction = model.respond("x")

    assert {prediction} == concurrent.futures.wait([prediction], timeout=5).done
    assert ["a", "b"] == list(prediction)


# --- a future


def test_it_is_a_future(fake, model):
    """Wait, as_completed and done callbacks know predictions."""
    gate = Await()
    fake.reply(["slow", gate], when="slow")
    fake.reply("quick", when="quick")
    slow, quick = model.respond("slow"), model.respond("quick")

    assert isinstance(quick, concurrent.futures.Future)
    finished = concurrent.futures.as_completed([slow, quick], timeout=5)
    assert quick is next(finished)
    assert not slow.done()
    assert slow.running()
    gate.open()
    assert slow is next(finished)
    assert slow.done()
    assert slow.exception(timeout=5) is None
    assert not slow.cancelled()
    done, left = concurrent.futures.wait(
        [slow, quick], return_when=concurrent.futures.FIRST_EXCEPTION
    )
    assert ({slow, quick}, set()) == (done, left)


def test_asyncio_can_wait_for_it(fake, model):
    """A program with an event loop wraps the prediction like any future."""
    fake.reply("text")

    async def ask():
        return await asyncio.wrap_future(model.respond("x"))

    assert "text" == asyncio.run(ask()).content


def test_asyncio_hears_of_a_failure(fake, model):
    """What is awaited raises the error, with the text so far."""
    fake.reply(["text", Failure("broken")])

    async def ask():
        return await asyncio.wrap_future(model.respond("x"))

    with pytest.raises(LMStudioPredictionError, match="broken") as caught:
        asyncio.run(ask())
    assert "text" == caught.value.partial


def test_done_callbacks_run_on_a_thread_of_their_own(fake, model):
    """They run once each, get the prediction, and one that raises harms nobody."""
    gate = Await()
    fake.reply(["a", gate])
    calls = queue.SimpleQueue()

    def call(done):
        calls.put((done, threading.current_thread().name))
        raise ValueError("of the user")

    prediction = model.respond("x")
    prediction.add_done_callback(call)
    prediction.add_done_callback(call)
    gate.open()

    expected = (prediction, "lmstudio-callbacks")
    assert [expected] * 2 == [calls.get(timeout=5) for _ in range(2)]
    prediction.add_done_callback(call)  # it has ended: at once
    for wrong in (5, None):
        with pytest.raises(TypeError, match="the done callback must be a function"):
            prediction.add_done_callback(wrong)
    assert expected == calls.get(timeout=5)


def test_a_callback_may_wait_for_other_predictions(fake, model):
    """Done callbacks may use the client, since the reader's thread is not theirs."""
    answers = queue.SimpleQueue()
    fake.reply("first", when="one")
    fake.reply("second", when="two")

    model.respond("one").add_done_callback(
        lambda done: answers.put(done.content + model.respond("two").content)
    )

    assert "firstsecond" == answers.get(timeout=5)


def test_done_callback_after_close(fake):
    """Of a client that was closed, the callback still runs, and leaves no thread."""
    fake.reply("text")
    with LMStudioClient(fake.host) as client:
        prediction = client.llm.get("any").respond("x")
        prediction.result()
    names = queue.SimpleQueue()

    for _ in range(2):
        prediction.add_done_callback(lambda done: names.put(done.content))

    assert ["text"] * 2 == [names.get(timeout=5) for _ in range(2)]


def test_callbacks_hear_of_a_closed_client(fake):
    """Closing the client ends what runs, and tells its done callbacks."""
    fake.reply(["text", AWAIT_CANCEL])
    errors = queue.SimpleQueue()
    with LMStudioClient(fake.host) as client:
        prediction = client.llm.get("any").respond("x")
        assert "text" == next(iter(prediction))
        prediction.add_done_callback(lambda done: errors.put(done.exception()))

    error = errors.get(timeout=5)
    assert "text" == error.partial
    assert f"lost the connection to {fake.url}: the client was closed" == str(error)


# --- failures


def test_the_server_drops(fake, model):
    """A lost connection fails what runs, with the text so far; the next call works."""
    fake.reply(["a", "b", DROP])
    prediction = model.respond("x")

    with pytest.raises(LMStudioWebsocketError) as caught:
        prediction.result()
    assert "ab" == caught.value.partial
    assert fake.url == caught.value.address
    assert ["a", "b"] == list(until_error(prediction))
    with pytest.raises(LMStudioWebsocketError):
        list(prediction)
    assert "again" == model.respond("again").content


def test_the_model_crashes(fake, model):
    """A crashed model is told apart, with the text so far."""
    fake.reply(["a", CRASH])

    with pytest.raises(LMStudioModelCrashedError) as caught:
        model.respond("x").result()

    assert "a" == caught.value.partial
    assert "predict: The model crashed. The script said so" == str(caught.value)


def test_the_model_is_not_loaded(client):
    """A handle of no model fails at the prediction."""
    with pytest.raises(LMStudioModelNotFoundError) as caught:
        client.llm.get("nobody").respond("x").result()

    assert "" == caught.value.partial


def test_the_server_refuses(fake, model):
    """A complaint that names the endpoint fails the prediction at once."""
    fake.reply(NEVER)
    prediction = model.respond("x")
    channel_of(fake)
    warning = "Received channelCreate for unknown endpoint, endpoint = predict"
    fake.send("llm", {"type": "communicationWarning", "warning": warning})

    with pytest.raises(LMStudioUnsupportedError) as caught:
        prediction.result(timeout=5)
    assert warning in str(caught.value)
    fake.drop_connections()


BAD = [
    "no object",
    7,
    None,
    {},
    {"type": "fragment"},
    {"type": "fragment", "fragment": None},
    {"type": "fragment", "fragment": "text"},
    {"type": "fragment", "fragment": {}},
    {"type": "fragment", "fragment": {"content": 1}},
]


@pytest.mark.parametrize("bad", BAD, ids=repr)
@pytest.mark.parametrize("is_ended", [False, True])
def test_malformed_packets(fake, model, bad, is_ended):
    """A hole in the text is an error, whether it is found before the end or after."""
    gate = Await()
    fake.reply(["a", gate, NEVER])
    prediction = model.respond("x")
    assert gate.reached.wait(5)
    if not is_ended:
        assert "a" == next(iter(prediction))
    send(fake, bad)
    send(fake, {"type": "fragment", "fragment": {"content": "b"}})
    if is_ended:
        send(fake, {"type": "success", "stats": {"stopReason": "eosFound"}})
        assert {prediction} == concurrent.futures.wait([prediction], timeout=5).done

    for _ in range(2):
        with pytest.raises(LMStudioProtocolError) as caught:
            prediction.result(timeout=5)
        assert "predict" == caught.value.where
        assert caught.value.partial in ("a", "ab")  # what came before is kept
    assert isinstance(prediction.exception(), LMStudioProtocolError)
    with pytest.raises(LMStudioProtocolError):
        list(prediction)
    fake.drop_connections()


GOOD = [
    {"type": "somethingNew", "x": 1},
    {"type": "promptProcessingProgress"},
    {"type": "promptProcessingProgress", "progress": "half"},
    {"type": "fragment", "fragment": {"content": "", "new": [1]}, "more": 2},
]


@pytest.mark.parametrize("good", GOOD, ids=repr)
def test_newer_servers(fake, model, good):
    """Unknown packets and fields are passed over, and odd progress with them."""
    fake.reply(["a", good, "b"])

    prediction = model.respond("x", on_prompt_progress=lambda _: None)

    assert "ab" == prediction.content


@pytest.mark.slow
def test_a_malformed_packet_before_a_limit(fake, model):
    """A limit that runs out behind a malformed packet tells of the packet."""
    fake.reply(["a", {"type": "fragment"}, NEVER])
    prediction = model.respond("x", timeout=0.4)
    assert {prediction} == concurrent.futures.wait([prediction], timeout=5).done

    assert isinstance(prediction.exception(), LMStudioProtocolError)


def test_success_without_a_close(fake, model):
    """The success is enough."""
    fake.reply(["a", NEVER])
    prediction = model.respond("x")
    assert "a" == next(iter(prediction))

    send(fake, {"type": "success", "stats": {"stopReason": "eosFound"}})

    assert "a" == prediction.result(timeout=5).content
    fake.drop_connections()


def test_packets_behind_the_success(fake, model):
    """What follows the success in the same read changes nothing."""
    fake.reply(["a", NEVER])
    prediction = model.respond("x")
    assert "a" == next(iter(prediction))
    inbox = prediction._inbox

    inbox.put(
        [
            {"type": "success", "stats": {"stopReason": "eosFound"}},
            {"type": "somethingNew"},
            7,
        ]
    )

    assert prediction.done()
    assert isinstance(prediction.exception(), LMStudioProtocolError)  # the 7
    fake.drop_connections()


@pytest.mark.parametrize("behind", [[], [{"type": "somethingNew"}]], ids=len)
def test_success_out_of_order(fake, model, behind):
    """A success in front of more text is none; the close says that it was missing."""
    fake.reply(["a", NEVER])
    prediction = model.respond("x")
    assert "a" == next(iter(prediction))
    more = {"type": "fragment", "fragment": {"content": "b"}}

    prediction._inbox.put([{"type": "success"}, more, *behind])
    assert not prediction.done()
    close(fake)

    assert isinstance(prediction.exception(timeout=5), LMStudioChannelClosedError)
    fake.drop_connections()


def test_close_without_a_success(fake, model):
    """A channel that just closes is an error, with the text so far."""
    fake.reply(["a", NEVER])
    prediction = model.respond("x")
    assert "a" == next(iter(prediction))

    close(fake)

    with pytest.raises(LMStudioChannelClosedError) as caught:
        prediction.result(timeout=5)
    assert "predict: the server closed the channel without a result" == str(
        caught.value
    )
    assert "a" == caught.value.partial
    fake.drop_connections()


def test_each_waiter_gets_its_own_exception(fake, model):
    """A shared exception would collect the tracebacks of all threads."""
    fake.reply(["a", Failure("went wrong")])
    prediction = model.respond("x")

    errors = in_threads(4, prediction.result)

    assert 4 == len({id(error) for error in errors})
    assert ["went wrong"] * 4 == [error.title for error in errors]
    assert prediction.exception() is not prediction.exception()


def test_a_failure_that_nobody_saw_is_logged_once(fake, model, caplog):
    """It is never lost in silence; one that somebody saw is not repeated."""
    caplog.set_level(logging.WARNING, "lmstudio")
    fake.reply(Failure("went wrong"), times=2)
    seen = model.respond("x")
    assert seen.exception() is not None
    unseen = model.respond("x")
    assert {unseen} == concurrent.futures.wait([unseen], timeout=5).done
    gone = threading.Event()
    weakref.finalize(unseen, gone.set)

    del seen, unseen

    assert gone.wait(5)
    done = threading.Event()
    model._session.worker.soon(done.set)
    assert done.wait(5)
    assert ["unseen failure: predict: went wrong"] == caplog.messages


def test_nobody_is_reached(fake, model):
    """A prediction that can't even begin raises at once."""
    fake.close()

    with pytest.raises(lmstudio.LMStudioConnectionError):
        model.respond("x")


def test_what_asyncio_asks_for_at_once(fake, model):
    """From Python 3.15 on: is it done, is it cancelled, its result and its error."""
    fake.reply(["a", NEVER])
    running = model.respond("x")
    assert (False, False, None, None) == running._get_snapshot()
    close(fake)
    assert isinstance(running.exception(timeout=5), LMStudioChannelClosedError)
    done, cancelled, result, error = running._get_snapshot()
    assert (True, False, None) == (done, cancelled, result)
    assert isinstance(error, LMStudioChannelClosedError)
    fake.reply("b")
    ended = model.respond("x")
    assert "b" == ended.content
    assert {ended} == concurrent.futures.wait([ended], timeout=5).done
    assert (True, False, ended.result(), None) == ended._get_snapshot()
    fake.drop_connections()


def test_after_a_fork(fake, model):
    """A child waits for no lock that a thread of its parent held, nor do its waiters.

    What a child would find is played in the parent.
    """
    gate, held, over = Await(), threading.Event(), threading.Event()
    fake.reply(["a", gate, "b"])
    prediction = model.respond("x")
    kinds = (concurrent.futures.FIRST_COMPLETED, concurrent.futures.ALL_COMPLETED)

    def hold():
        with prediction._settling, prediction._condition, contextlib.ExitStack() as all:
            for waiter in prediction._waiters:
                if hasattr(waiter, "lock"):
                    all.enter_context(waiter.lock)
            held.set()
            assert over.wait(5)

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        waiting = [
            pool.submit(concurrent.futures.wait, [prediction], FOREVER, kind)
            for kind in kinds
        ]
        while len(prediction._waiters) < 2:
            assert not any(one.done() for one in waiting)
        holding = pool.submit(hold)
        try:
            assert held.wait(5)
            prediction.after_fork()
            gate.open()
            assert "ab" == prediction.content
            assert [{prediction}] * 2 == [one.result(5).done for one in waiting]
            assert not prediction.cancel()
        finally:
            over.set()
        holding.result(5)


def test_a_fork_between_the_outcome_and_its_news(fake, model):
    """The child says that it is done: the thread that was about to is not there."""
    gate, settled = Await(), threading.Event()
    fake.reply([gate, "a"])
    prediction = model.respond("x")
    prediction._announce = lambda outcome: settled.set()
    gate.open()
    assert settled.wait(5)
    del prediction._announce

    assert not prediction.done()
    prediction.after_fork()
    assert prediction.done()
    assert "a" == prediction.content
    prediction.after_fork()
    assert prediction.done()


def test_formatting_waits(fake, model):
    """In an f-string it is its text, with what the format says."""
    fake.reply(["a", "b"])

    assert "   ab|ab" == f"{(done := model.respond('x')):>5}|{done}"


def test_repr_does_not_wait(fake, model):
    """The short form tells the state and nothing of the text."""
    gate = Await()
    fake.reply(["a", gate])
    prediction = model.respond("x")
    assert "a" == next(iter(prediction))

    assert "<Prediction running, 1 fragment so far>" == repr(prediction)
    gate.open()
    assert "a" == prediction.content
    assert "<Prediction done, 1 fragment so far>" == repr(prediction)


@pytest.mark.slow
def test_memory_over_many_predictions(fake, model):
    """Ended predictions leave nothing in the connection, the worker or the session."""
    fake.reply("a", times=None)
    alive = weakref.WeakSet()
    for _ in range(300):
        prediction = model.respond("x", timeout=100)
        alive.add(prediction)
        assert "a" == prediction.content
    del prediction
    gc.collect()

    assert [] == list(alive)
    model.count_tokens("x")  # its answer comes behind the last channel's close
    connection = model._session.connection("llm")
    assert {} == connection._mailboxes
