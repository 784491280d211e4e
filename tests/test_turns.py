"""Of the threads that wait for the same thing one works, and none is left waiting."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from lmstudio.turns import TURN, Turns, never

#: Longer than any of this takes, seconds.
PATIENCE = 5.0
FOREVER = 60.0
THREADS = 8
STEPS = 200


class Counter:
    """Work that brings one number after the other, and must not overlap."""

    def __init__(self, most):
        self.turns, self.count, self.most = Turns(), 0, most
        self._inside = threading.Lock()

    def step(self):
        assert self._inside.acquire(blocking=False), "two work at once"
        self.count += 1
        self._inside.release()

    def wait_beyond(self, position):
        """As users of the class do it; False at the end."""

        def is_decided():
            return self.count > position or self.count == self.most

        while not is_decided():
            self.turns.work(self.step, None, is_decided)
        return self.count > position


@pytest.fixture(autouse=True)
def no_second_look(monkeypatch):
    """A thread that is not woken waits for longer than the tests do."""
    monkeypatch.setattr("lmstudio.turns.SLICE", FOREVER)


def started(*works):
    """Threads that run these."""
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    return threads


def joined(threads):
    """Whether all of them have ended."""
    until = time.monotonic() + PATIENCE
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)


def waiting(turns):
    """An event that is set when a thread is about to wait for news."""
    about, real = threading.Event(), turns.news.wait

    def wait(timeout=None):
        about.set()
        return real(timeout)

    turns.news.wait = wait
    return about


class Held:
    """A step that is held until it may go on, and the thread that does it."""

    def __init__(self, turns, do=lambda: None):
        self.inside, self.may_go = threading.Event(), threading.Event()
        self._turns, self._do = turns, do
        [self.thread] = started(lambda: turns.work(self._step, None, never))
        assert self.inside.wait(PATIENCE)

    def _step(self):
        self.inside.set()
        assert self.may_go.wait(PATIENCE)
        self._do()

    def end(self):
        self.may_go.set()
        assert joined([self.thread])


def test_one_thread():
    """A thread alone works until it has what it waits for; nothing is locked."""
    counter = Counter(3)
    taken = []
    counter.turns.news = None  # it would raise
    while counter.wait_beyond(len(taken)):
        taken.append(counter.count)
    assert [1, 2, 3] == taken
    assert {} == counter.turns.holder


def test_many_threads():
    """Each gets to the end, and no step is done twice, or by two at once."""
    counter = Counter(STEPS)
    together = threading.Barrier(THREADS)
    seen = []

    def iterate():
        together.wait(PATIENCE)
        position = 0
        while counter.wait_beyond(position):
            position += 1
        seen.append(position)

    assert joined(started(*[iterate] * THREADS))
    assert [STEPS] * THREADS == seen
    assert STEPS == counter.count
    assert (0, {}) == (counter.turns._waiting, counter.turns.holder)


def test_who_waits_gets_the_turn():
    """Somebody who waits works on, when who worked has had enough."""
    turns, done = Turns(), []
    about = waiting(turns)
    first = Held(turns)

    def wait():
        while not done:
            turns.work(lambda: done.append(threading.get_ident()), None, lambda: done)

    threads = started(wait, wait)
    assert about.wait(PATIENCE)
    first.end()
    assert joined(threads)
    assert 1 == len(done)
    assert done[0] in [thread.ident for thread in threads]


def test_news_before_the_end_of_a_step():
    """Who waits is woken by `tell`, while the work goes on."""
    turns, news = Turns(), []
    about = waiting(turns)
    first = Held(turns)
    [other] = started(lambda: turns.work(pytest.fail, None, lambda: bool(news)))
    assert about.wait(PATIENCE)
    news.append("news")
    turns.tell()
    assert joined([other])
    assert {TURN: (first.thread.ident,)} == turns.holder
    first.end()


def test_news_just_before_the_wait():
    """What was told after the look, and before the wait, is seen under the lock."""
    turns = Turns()
    first = Held(turns)
    looks = []

    def is_decided():
        looks.append(None)
        return True

    turns.work(pytest.fail, None, is_decided)
    assert 1 == len(looks)
    first.end()


def test_a_turn_that_was_given_back_before_the_wait():
    """Nobody is left who would wake the one who waits, so it does not."""
    turns = Turns()
    turns.news.wait = pytest.fail
    assert turns.wait(None)


def test_a_turn_that_comes_too_late():
    """Who gets the turn when all is decided does nothing with it."""
    turns = Turns()
    turns.work(pytest.fail, None, lambda: True)
    assert {} == turns.holder


@pytest.mark.parametrize("left", [0.01, 0, -1])
def test_a_time_limit(left):
    """It holds while another thread works; a limit that is over does not wait."""
    turns = Turns()
    first = Held(turns)
    assert not turns.wait(left)
    turns.work(pytest.fail, left, never)
    assert {TURN: (first.thread.ident,)} == turns.holder
    first.end()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_work_that_raises(error):
    """It comes out where it was done, and somebody else works on."""
    turns, done = Turns(), []
    about = waiting(turns)

    def fail():
        assert about.wait(PATIENCE)
        raise error

    def wait():
        assert inside.wait(PATIENCE)
        while not done:
            turns.work(lambda: done.append(1), None, lambda: bool(done))

    inside = threading.Event()
    [other] = started(wait)
    with pytest.raises(error):
        turns.work(lambda: inside.set() or fail(), None, never)
    assert joined([other])
    assert {} == turns.holder


def test_whose_turn_it_is():
    """A thread that works knows it, so that it need not wait for itself."""
    turns, said = Turns(), []
    assert not turns.is_mine
    turns.work(lambda: said.append(turns.is_mine), None, never)
    assert [True] == said
    first = Held(turns)
    assert not turns.is_mine
    first.end()


def test_ctrl_c_while_waiting():
    """Who is interrupted leaves the turn to whom it belongs."""
    turns = Turns()
    first = Held(turns)

    def interrupt(timeout=None):
        raise KeyboardInterrupt

    turns.news.wait, real = interrupt, turns.news.wait
    with pytest.raises(KeyboardInterrupt):
        turns.work(pytest.fail, None, never)
    turns.news.wait = real
    assert {TURN: (first.thread.ident,)} == turns.holder
    assert 0 == turns._waiting
    first.end()


def test_the_turn_of_a_thread_that_a_child_process_has_not():
    """It is given back there, and the lock is new; that of who forks is kept."""
    turns = Turns()
    other = Held(turns)
    with turns.news:  # as another thread of the parent
        assert turns.after_fork()
        [probe] = started(lambda: turns.work(turns.tell, None, never))
        assert joined([probe])
    other.end()

    mine = (threading.get_ident(),)
    turns.holder[TURN] = mine
    assert not turns.after_fork()
    assert {TURN: mine} == turns.holder
    turns.leave()
    assert not turns.after_fork()


@pytest.mark.parametrize("has_gil", [True, False])
def test_a_turn_that_its_thread_left_behind(monkeypatch, has_gil):
    """Others take it over after their first look, and the thread itself at once.

    Without the GIL others take it only from a thread that has ended.
    """
    monkeypatch.setattr("lmstudio.turns.SLICE", 0.001)
    monkeypatch.setattr("lmstudio.turns.HAS_GIL", has_gil)
    turns, done = Turns(), []
    turns.holder[TURN] = (threading.get_ident(),)
    if not has_gil:
        assert not turns.wait(None)
        assert not turns.is_mine

    def work():
        turns.wait(None)
        turns.work(lambda: done.append(turns.is_mine), None, never)

    [other] = started(work)
    assert joined([other])
    assert [True] == done

    turns.holder[TURN] = (threading.get_ident(),)
    assert not turns.is_mine
    assert {} == turns.holder

    turns.holder[TURN] = (other.ident,)  # it has ended
    assert not turns.wait(None)
    assert {} == turns.holder


def test_a_turn_that_changes_hands_meanwhile(monkeypatch):
    """Who looks after a turn leaves that of the next one alone."""
    monkeypatch.setattr("lmstudio.turns.SLICE", 0.001)
    turns, gone = Turns(), (0,)
    turns.holder[TURN] = gone

    def other(frames=sys._current_frames):
        turns.holder[TURN] = mine
        return frames()

    mine = (threading.get_ident(),)
    monkeypatch.setattr("lmstudio.turns.sys._current_frames", other)
    assert not turns.wait(None)
    assert mine is turns.holder.pop(TURN)


def test_a_turn_that_was_given_back_at_the_end_of_the_wait(monkeypatch):
    """Then there is nothing to look after."""
    turns = Turns()
    turns.holder[TURN] = (0,)
    turns.news.wait = lambda left: turns.holder.clear()
    assert not turns.wait(0)
