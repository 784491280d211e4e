"""A pytest plugin that ends a run in which a test hangs, with what all threads do.

The end is a hard one: by a signal whose handler, that of `faulthandler`, needs nothing
of Python, as a deadlock may have it all. What hangs fails the run ("Alarm clock");
pytest-xdist names the test, starts another process and goes on. The timer is the
system's, set anew for each test: a thread that waits would cost more than most tests.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from collections.abc import Generator

import pytest

#: Seconds that a test may take, and each its setup and teardown.
LIMIT = 180.0
#: The same for tests that wait for models.
LONG_LIMIT = 600.0


def _limit(seconds: float) -> None:
    """End the process after so many seconds, unless another limit is set by then.

    With 0, never.
    """
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _of(item: pytest.Item) -> float:
    is_long = any(item.get_closest_marker(name) for name in ("live", "interop"))
    return LONG_LIMIT if is_long else LIMIT


def begin() -> None:
    """Say what happens at a limit, and where; before tests are captured."""
    assert sys.__stderr__ is not None
    if not hasattr(signal, "setitimer"):
        return
    errors = os.dup(sys.__stderr__.fileno())
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # comes next, and ends the process
    faulthandler.register(signal.SIGALRM, file=errors, chain=True)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    """Begin a limit. Not one for all of a test: pytest ends it where one fails."""
    _limit(_of(item))
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Begin a limit."""
    _limit(_of(item))
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Begin a limit."""
    _limit(_of(item))
    return (yield)


def pytest_runtest_logfinish() -> None:
    """End the last one: who runs the tests may have to wait for others."""
    _limit(0)


def pytest_unconfigure() -> None:
    """Limit the end of the process too, which waits for threads that were left."""
    _limit(LIMIT)
