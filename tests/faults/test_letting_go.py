"""Issue 5: `break`, `with` left, the prediction garbage-collected.

Also inside a lock or a signal handler, the cancel reaches the server within 200 ms, and
nothing is ever stuck.
"""

from __future__ import annotations

import gc
import signal
import threading
import time

import pytest

from handlers import at_each_line
from lmstudio.testing import AWAIT_CANCEL
from scripts import is_cancel
from timing import quickest

PATIENCE = 5.0
#: Seconds until the server has read the cancel.
LIMIT = 0.2


def begun(model):
    """A prediction that has said something and goes on, and its channel."""
    prediction = model.respond("x")
    assert "text" == next(iter(prediction))
    return prediction, prediction._inbox.request[1]


def wait_for_cancel(fake, number):
    """Wait until the server is asked to stop a channel."""
    fake.wait_for(
        lambda seen: is_cancel(seen) and seen.message["channelId"] == number, PATIENCE
    )


def by_break(model):
    for _ in model.respond("x"):
        break


def by_with(model):
    with model.respond("x") as prediction:
        next(iter(prediction))


def by_error(model):
    with pytest.raises(ZeroDivisionError), model.respond("x") as prediction:
        next(iter(prediction))
        raise ZeroDivisionError


def by_del(model):
    prediction = model.respond("x")
    next(iter(prediction))
    del prediction


def by_collection(model):
    circle = [model.respond("x")]
    next(iter(circle[0]))
    circle.append(circle)
    del circle
    gc.collect()


def by_generator(model):
    def texts():
        yield from model.respond("x")

    pieces = texts()
    next(pieces)
    pieces.close()


def by_thread(model):
    thread = threading.Thread(target=by_del, args=[model])
    thread.start()
    thread.join()


@pytest.mark.parametrize(
    "let_go",
    [by_break, by_with, by_error, by_del, by_collection, by_generator, by_thread],
)
def test_the_server_hears_of_it(fake, model, let_go):
    """However a prediction is let go, its cancel is read within 200 ms."""
    fake.reply(["text", AWAIT_CANCEL], times=None)

    def once():
        fresh = len(fake.requests)
        let_go(model)
        began = time.monotonic()
        fake.wait_for(
            lambda seen: is_cancel(seen) and seen in fake.requests[fresh:], PATIENCE
        )
        return time.monotonic() - began

    quickest(LIMIT, once)


def test_in_a_signal_handler(fake, model):
    """A handler may drop the last reference, break out of a loop, or leave a block."""
    fake.reply(["text", AWAIT_CANCEL], times=None)
    before = signal.getsignal(signal.SIGUSR1)
    try:
        for let_go in (by_break, by_with, by_collection):
            signal.signal(signal.SIGUSR1, lambda *_, let_go=let_go: let_go(model))

            def once():
                fresh = len(fake.requests)
                signal.raise_signal(signal.SIGUSR1)
                began = time.monotonic()
                fake.wait_for(
                    lambda seen: is_cancel(seen) and seen in fake.requests[fresh:]
                )
                return time.monotonic() - began

            quickest(LIMIT, once)
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.slow
def test_cancelling_in_a_handler_what_the_thread_cancels(fake, model):
    """A handler may cancel the very prediction whose cancel it interrupts."""
    fake.reply(["text", AWAIT_CANCEL], times=None, when="x")
    at_work = []

    def prepare():
        at_work[:] = begun(model)
        return at_work[0].cancel, lambda where: wait_for_cancel(fake, at_work[1])

    at_each_line(lambda: at_work[0].cancel(), prepare, stride=1, least=5)


@pytest.mark.slow
@pytest.mark.parametrize("is_dropped", [True, False], ids=["drop", "cancel"])
def test_in_a_handler_at_any_line(fake, model, is_dropped):
    """Whatever the thread was at, with whatever locks, a handler may let one go."""
    fake.reply(["text", AWAIT_CANCEL], times=None, when="x")
    fake.reply("answer", times=None, when="work")

    def prepare():
        held = [begun(model)]
        number = held[0][1]
        let_go = held.clear if is_dropped else held[0][0].cancel
        return let_go, lambda where: wait_for_cancel(fake, number)

    def work():
        prediction = model.respond("work")
        assert "answer" == prediction.result().content
        with model.respond("work") as other:
            other.cancel()
        model.count_tokens("one two")

    at_each_line(work, prepare)
