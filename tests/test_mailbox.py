"""What is delivered comes out in order, and no wait lasts longer than asked."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from queue import Empty

import pytest

from lmstudio import mailbox as module
from lmstudio.mailbox import Mailbox

PATIENCE = 5.0


def test_batches_come_out_in_order():
    """What waits comes out as one batch, in order; taking does not wait."""
    mailbox = Mailbox()
    mailbox.put([1])
    mailbox.put([2])

    assert [[1, 2], None] == [mailbox.get(0) for _ in range(2)]
    assert mailbox.get(-1.0) is None


def test_a_long_batch_comes_alone(monkeypatch):
    """A batch that is long enough does not keep its reader waiting for more."""
    monkeypatch.setattr(module, "ENOUGH", 2)
    mailbox = Mailbox()
    for batch in ([1, 2], [3], [4, 5, 6], [7]):
        mailbox.put(batch)

    assert [[1, 2], [3, 4, 5, 6], [7]] == [mailbox.get() for _ in range(3)]


def test_a_batch_that_another_thread_was_quicker_to_take():
    """Then there is nothing here, and the wait goes on to its limit."""

    class Stolen:
        def empty(self):
            return False

        def get_nowait(self):
            raise Empty

        def get(self, timeout):
            return ["late"]

    mailbox = Mailbox()
    mailbox._queue = Stolen()
    assert mailbox.get(0) is None
    assert ["late"] == mailbox.get(1)


def test_waiting_ends_with_a_delivery():
    """A waiting thread gets what another puts, with and without a limit."""
    mailbox = Mailbox()
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(mailbox.get), pool.submit(mailbox.get, PATIENCE)]
        mailbox.put([1])
        mailbox.put([2])
        assert [[1], [2]] == sorted(w.result(PATIENCE) for w in waiting)


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

    class Asked(module.SimpleQueue):
        def get(self, block=True, timeout=None):
            if not thread.ident:
                thread.start()
            return super().get(block, timeout)

    mailbox._queue = Asked()
    thread = threading.Thread(target=signal.pthread_kill, args=(here, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        mailbox.get()
    thread.join()
    mailbox.put([1])
    assert [1] == mailbox.get()
