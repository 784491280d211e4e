"""A signal cancels what listens, at once, and keeps nothing alive."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor

from lmstudio.signals import Signal

PATIENCE = 5.0


class Listener:
    def __init__(self):
        self.called = 0

    def cancel(self):
        self.called += 1


def test_setting_calls_every_listener():
    """All listeners hear of it before `set` returns."""
    signal, listeners = Signal(), [Listener(), Listener()]
    for listener in listeners:
        signal.listen(listener.cancel)
    assert not signal.is_set()

    signal.set()

    assert signal.is_set()
    assert [1, 1] == [listener.called for listener in listeners]


def test_listening_to_what_is_set():
    """Who comes late is called at once."""
    signal, listener = Signal(), Listener()
    signal.set()
    signal.listen(listener.cancel)
    assert 1 == listener.called


def test_listeners_are_not_kept_alive():
    """A signal that lives long forgets listeners with their objects."""
    signal, stays = Signal(), Listener()
    signal.listen(stays.cancel)
    for _ in range(10):
        signal.listen(Listener().cancel)
        gc.collect()
    signal.set()

    assert 1 == stays.called
    assert 2 == len(signal._listeners)  # the last to come is looked at next time


def test_it_is_an_event():
    """Waiting and clearing work as with any event."""
    signal = Signal()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(signal.wait, PATIENCE)
        signal.set()
        assert waiting.result(PATIENCE)
    signal.clear()
    assert isinstance(signal, threading.Event)
    assert not signal.is_set()


def test_a_signal_handler_may_set_it():
    """Setting in the middle of `listen`, on the same thread, does not hang."""
    signal, listener = Signal(), Listener()
    with signal._adding:
        signal.set()
        signal.listen(listener.cancel)
    assert 1 == listener.called


def test_setting_races_with_listening():
    """Whether `set` or `listen` comes first, the listener hears of it."""
    for _ in range(100):
        signal, listener, barrier = Signal(), Listener(), threading.Barrier(2)

        def set_it(signal=signal, barrier=barrier):
            barrier.wait(PATIENCE)
            signal.set()

        thread = threading.Thread(target=set_it)
        thread.start()
        barrier.wait(PATIENCE)
        signal.listen(listener.cancel)
        thread.join()
        assert listener.called in (1, 2)


def test_a_child_process_starts_with_a_new_lock():
    """What another thread held when the process forked is free in the child."""
    signal, heard = Signal(), []

    class Listener:
        def hear(self):
            heard.append(1)

    listener = Listener()
    with signal._adding:
        signal.after_fork()
        thread = threading.Thread(target=signal.listen, args=[listener.hear])
        thread.start()
        thread.join(5)
        assert not thread.is_alive()
    signal.set()
    assert [1] == heard
