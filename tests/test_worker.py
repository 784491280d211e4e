"""Jobs are done one after the other, on time, and whatever others do."""

from __future__ import annotations

import gc
import logging
import queue
import subprocess
import sys
import threading
import time
import weakref

import pytest

from lmstudio import worker as module
from lmstudio.errors import LMStudioRuntimeError
from lmstudio.worker import Worker, of_users

PATIENCE = 5.0


@pytest.fixture
def worker():
    made = Worker("lmstudio-test")
    yield made
    made.stop(wait=PATIENCE)


def done(worker):
    """Wait until all that was asked for so far is done."""
    passed = threading.Event()
    worker.soon(passed.set)
    assert passed.wait(PATIENCE)


def test_jobs_run_in_order_on_a_thread_of_their_own(worker):
    """Jobs wait for the start, and then run in order on one named daemon thread."""
    ran = []
    for number in range(3):
        worker.soon(lambda n=number: ran.append((n, threading.current_thread())))
    assert [] == ran

    worker.start()
    worker.start()
    done(worker)

    assert [0, 1, 2] == [number for number, _ in ran]
    assert {("lmstudio-test", True)} == {(t.name, t.daemon) for _, t in ran}


def test_timed_jobs_run_at_their_time(worker):
    """The earlier of two times comes first, and neither too early."""
    ran = queue.Queue()
    now = time.monotonic()
    worker.at(now + 0.06, lambda: ran.put((2, time.monotonic())))
    worker.at(now + 0.03, lambda: ran.put((1, time.monotonic())))
    worker.start()

    (first, one), (second, two) = ran.get(timeout=PATIENCE), ran.get(timeout=PATIENCE)

    assert (1, 2) == (first, second)
    assert one >= now + 0.03
    assert two >= now + 0.06


def test_a_new_job_does_not_wait_for_a_timed_one(worker):
    """What is due now is done while something far away waits, even for ever."""
    worker.at(float("inf"), lambda: None)
    worker.at(time.monotonic() + 3600, lambda: None)
    worker.start()
    done(worker)


def test_long_waits_are_cut(worker, monkeypatch):
    """A thread that waited for long looks again and goes on waiting."""
    monkeypatch.setattr(module, "LONGEST", 0.001)
    ran = threading.Event()
    worker.at(time.monotonic() + 0.02, ran.set)
    worker.start()
    assert ran.wait(PATIENCE)


@pytest.mark.parametrize("exc", [ValueError("oops"), SystemExit(3)], ids=repr)
def test_a_failing_job_does_not_end_the_others(worker, exc, caplog):
    """What a job raises is logged, SystemExit too, and the next one runs."""

    def fail():
        raise exc

    worker.start()
    with caplog.at_level(logging.ERROR, "lmstudio.worker"):
        worker.soon(fail)
        done(worker)

    assert ["error in a callback"] == [r.message for r in caplog.records]
    assert exc is caplog.records[0].exc_info[1]


def test_the_worker_knows_its_thread(worker):
    """`is_current` is true in a job, and nowhere else."""
    seen = []
    worker.start()
    worker.soon(lambda: seen.append(worker.is_current))
    done(worker)

    assert [True] == seen
    assert not worker.is_current


def test_stop_does_what_is_due_and_forgets_the_rest():
    """Jobs given before the stop are done, those for later are not."""
    worker = Worker("lmstudio-test")
    ran = []
    worker.soon(lambda: ran.append("due"))
    worker.at(time.monotonic() + 3600, lambda: ran.append("later"))
    worker.start()
    worker.stop(wait=PATIENCE)
    worker.stop(wait=PATIENCE)
    worker.soon(lambda: ran.append("after"))

    assert ["due"] == ran
    assert "lmstudio-test" not in [t.name for t in threading.enumerate()]


def test_stop_before_start_and_from_a_job():
    """A worker stopped before its start never starts; a job may stop its own."""
    never = Worker("lmstudio-never")
    never.stop(wait=PATIENCE)
    never.start()
    assert "lmstudio-never" not in [t.name for t in threading.enumerate()]

    own = Worker("lmstudio-own")
    stopped = threading.Event()
    own.soon(lambda: (own.stop(wait=PATIENCE), stopped.set()))
    own.start()
    assert stopped.wait(PATIENCE)


def test_stop_need_not_wait():
    """Without a time to wait, `stop` returns while a job still runs."""
    worker = Worker("lmstudio-test")
    gate, reached = threading.Event(), threading.Event()
    worker.soon(lambda: (reached.set(), gate.wait(PATIENCE)))
    worker.start()
    assert reached.wait(PATIENCE)
    worker.stop()
    worker.stop(wait=0.01)
    gate.set()
    worker.stop(wait=PATIENCE)
    assert "lmstudio-test" not in [t.name for t in threading.enumerate()]


def test_starting_from_many_threads_starts_one(worker):
    """However many threads call `start` at once, one thread is started."""
    barrier = threading.Barrier(16)
    threads = [
        threading.Thread(target=lambda: (barrier.wait(PATIENCE), worker.start()))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = [t.name for t in threading.enumerate()]
    assert 1 == names.count("lmstudio-test")


def test_start_looks_again_under_its_lock(worker):
    """A thread that was overtaken while it waited for the lock starts nothing."""
    with worker._starting:
        late = threading.Thread(target=worker.start)
        late.start()
        worker._thread = thread = threading.current_thread()
    late.join()
    assert worker._thread is thread
    worker._thread = None


def test_done_jobs_are_let_go(worker):
    """What a job worked on is not kept alive by the waiting thread."""

    class Thing:
        def work(self):
            pass

    thing = Thing()
    known = weakref.ref(thing)
    gone = threading.Event()
    weakref.finalize(thing, gone.set)
    worker.start()
    worker.soon(thing.work)
    del thing
    gc.collect()
    assert gone.wait(PATIENCE)
    assert known() is None


def test_finalizers_may_ask_for_jobs_anywhere(worker):
    """A garbage collection in the middle of our locks may leave a note."""

    class Leaving:
        def __init__(self):
            self.myself = self

        def __del__(self):
            worker.soon(notes.append(1) or (lambda: None))

    notes = []
    worker.start()
    for _ in range(5):
        Leaving()
        with worker._starting:
            gc.collect()
            worker.soon(lambda: None)
    done(worker)
    assert 5 == len(notes)


def test_settling():
    """It waits for the jobs of before, no longer than its limit, and not for itself."""
    worker, done, gate = Worker("test"), [], threading.Event()
    worker.settle(60)  # it was never started
    worker.start()
    worker.soon(lambda: done.append(1))
    worker.settle(5)
    assert [1] == done

    worker.soon(gate.wait)
    worker.settle(0.01)
    gate.set()
    worker.soon(lambda: worker.settle(60))
    worker.settle(5)
    worker.stop(wait=5)


def test_it_does_not_start_after_its_end(worker, monkeypatch):
    """Who starts it late gets no thread."""
    worker.stop(wait=PATIENCE)
    started = []
    monkeypatch.setattr(module, "apart", lambda *_: started.append(1))
    worker.start()
    assert [] == started


INHERITING = """
import contextvars, threading
from lmstudio import LMStudioClient
from lmstudio.testing import FakeServer
from lmstudio.worker import Worker, apart

mark = contextvars.ContextVar("mark", default="nobody's")
mark.set("the starter's")
seen = {}

def look(name):
    return lambda *_: seen.setdefault(name, mark.get())

plain = threading.Thread(target=look("plain"))
plain.start(), plain.join()
worker = Worker("test")
worker.start(), worker.soon(look("worker")), worker.settle(5), worker.stop(wait=5)
thread = apart(look("apart"), "test")
thread.start(), thread.join()
with FakeServer(models=["m"]) as fake, LMStudioClient(fake.host) as client:
    called = threading.Event()
    prediction = client.llm.model("m").respond("Hi")
    prediction.add_done_callback(look("callback"))
    prediction.add_done_callback(lambda _: called.set())
    prediction.result(5), called.wait(5)
print(seen)
"""


def test_users_jobs_end_with_the_program():
    """Until a deadline what is due is done; behind it nothing is begun."""
    worker = Worker("lmstudio-test", is_users=True)
    begun, go, ran = threading.Event(), threading.Event(), []
    worker.soon(begun.set)
    worker.soon(go.wait)
    worker.soon(lambda: ran.append("late"))
    assert worker not in of_users()
    worker.start()
    assert worker in of_users()
    assert begun.wait(PATIENCE)

    worker.end(time.monotonic())
    go.set()
    worker.stop(wait=PATIENCE)

    assert [] == ran
    assert worker not in of_users()


def test_users_jobs_that_are_due_are_waited_for():
    """The end comes when they are done, long before the deadline."""
    worker = Worker("lmstudio-test", is_users=True)
    ran = []
    worker.soon(lambda: ran.append(1))
    worker.start()
    worker.end(time.monotonic() + PATIENCE)
    assert [1] == ran
    assert worker not in of_users()


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 14), reason="no thread inherits there")
def test_threads_that_outlive_who_starts_them_take_no_context_of_it():
    """Other threads may inherit it; free-threaded Pythons have them do so."""
    command = [sys.executable, "-X", "thread_inherit_context=1", "-c", INHERITING]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert "" == done.stderr
    others = dict.fromkeys(("worker", "apart", "callback"), "nobody's")
    assert str({"plain": "the starter's", **others}) == done.stdout.strip()


def test_no_thread_left(monkeypatch):
    """Where the system has no more threads the error is ours, and later it works."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    worker, ran = Worker("lmstudio-test", is_users=True), threading.Event()
    worker.soon(ran.set)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(LMStudioRuntimeError, match=r"new thread\. Close"):
            worker.start()
    assert worker not in of_users()
    worker.start()
    assert ran.wait(PATIENCE)
    worker.stop(wait=PATIENCE)
