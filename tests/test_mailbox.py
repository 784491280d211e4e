"""What is delivered comes out in order, and no wait lasts longer than asked."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import pytest

from lmstudio import mailbox as module
from lmstudio.forks import FORKED
from lmstudio.mailbox import Mailbox
from lmstudio.protocol.client import End

PATIENCE = 5.0


def test_batches_come_out_in_order():
    """What waits comes out as one batch, in order; taking does not wait."""
    mailbox = Mailbox()
    mailbox.put([1])
    mailbox.put([2])

    assert [[1, 2], None] == [mailbox.get(0) for _ in range(2)]
    assert mailbox.get(-1.0) is None


def test_nobody_waits_for_what_is_no_prediction():
    """A client that is left waits for no request of this kind, whatever it got."""
    mailbox = Mailbox()
    assert mailbox.pending() is None
    mailbox.put([1])
    assert mailbox.pending() is None


def test_a_long_batch_comes_alone(monkeypatch):
    """A batch that is long enough does not keep its reader waiting for more."""
    monkeypatch.setattr(module, "ENOUGH", 2)
    mailbox = Mailbox()
    for batch in ([1, 2], [3], [4, 5, 6], [7]):
        mailbox.put(batch)

    assert [[1, 2], [3, 4, 5, 6], [7]] == [mailbox.get() for _ in range(3)]


@pytest.mark.parametrize("stolen", [0, 1])
def test_a_batch_that_another_thread_was_quicker_to_take(stolen):
    """Then the wait goes on, or what was taken so far is all."""

    class Stolen(deque):
        def popleft(self):
            nonlocal stolen
            stolen -= 1
            if stolen == -1:
                self.clear()
                mailbox.put([3])
                raise IndexError
            return super().popleft()

    mailbox = Mailbox()
    mailbox._batches = Stolen([[1], [2]])
    assert [[3], [1]][stolen] == mailbox.get(1)


def test_waiting_ends_with_a_delivery():
    """A waiting thread gets what another puts, with and without a limit."""
    for limit in (None, PATIENCE):
        mailbox = Mailbox()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(mailbox.get, limit)
            mailbox.put([1])
            assert [1] == waiting.result(PATIENCE)


def test_each_of_two_that_wait_gets_one():
    """A delivery wakes one of them, the next one the other."""
    mailbox = Mailbox()
    with ThreadPoolExecutor(2) as pool:
        waiting = {pool.submit(mailbox.get) for _ in range(2)}
        mailbox.put([1])
        done, waiting = wait(waiting, PATIENCE, FIRST_COMPLETED)
        mailbox.put([2])
        assert [[1], [2]] == [future.result(PATIENCE) for future in (*done, *waiting)]


def test_two_that_deliver_at_once():
    """The second one rings a bell that the first has rung already."""

    class Late:
        def locked(self):
            return True

        def release(self):
            raise RuntimeError("release unlocked lock")

    mailbox = Mailbox()
    mailbox._bell = Late()
    mailbox.put([1])
    assert [1] == mailbox.get(0)


def test_moving(monkeypatch):
    """Batches move as they are, oldest first, as many as are enough."""
    monkeypatch.setattr(module, "ENOUGH", 2)
    mailbox, taken = Mailbox(), []
    assert not mailbox.move(taken, 0)
    for batch in ([1], [2], [3, 4, 5], [6]):
        mailbox.put(batch)

    assert mailbox.move(taken)
    assert [[1], [2]] == taken
    assert mailbox.move(taken, 1)
    assert [[1], [2], [3, 4, 5]] == taken
    assert [6] == mailbox.get(0)


def test_waiting_ends_with_its_time(monkeypatch):
    """Without a delivery None comes at the limit, over several looks."""
    monkeypatch.setattr(module, "SLICE", 0.01)
    mailbox = Mailbox()
    before = time.monotonic()

    assert mailbox.get(0.05) is None
    assert 0.05 <= time.monotonic() - before


def test_the_last_sign_of_life_is_kept():
    """`heard` is the time of the creation, and then of the last delivery."""
    before = time.monotonic()
    mailbox = Mailbox()
    assert before <= mailbox.heard <= time.monotonic()

    mailbox.heard = 0.0
    mailbox.put([1])
    assert before <= mailbox.heard <= time.monotonic()


@pytest.mark.skipif(
    not hasattr(signal, "pthread_kill"), reason="this system can't signal a thread"
)
def test_ctrl_c_ends_a_wait(monkeypatch):
    """Ctrl-C comes out of a wait without a limit, and nothing is lost by it."""
    mailbox = Mailbox()
    here = threading.get_ident()

    class Bell:
        def __init__(self, bell):
            self.bell = bell

        def acquire(self, blocking, timeout):
            if not thread.ident:
                thread.start()
            return self.bell.acquire(blocking, timeout)

        def __getattr__(self, name):
            return getattr(self.bell, name)

    mailbox._bell = Bell(mailbox._bell)
    thread = threading.Thread(target=signal.pthread_kill, args=(here, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        mailbox.get()
    thread.join()
    mailbox.put([1])
    assert [1] == mailbox.get()


def test_a_forsaken_mailbox_ends():
    """What was there comes first, then the end; nobody waits at the bell of old."""
    mailbox = Mailbox()
    mailbox.put([1])
    bell = mailbox._bell
    mailbox.forsake()
    assert [1, End("lost", FORKED)] == mailbox.get()
    assert bell is not mailbox._bell
