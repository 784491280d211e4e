"""A pytest plugin that ends a run in which a test hangs, with what all threads do.

The end is a hard one: by a thread of `faulthandler` that needs nothing of Python, as a
deadlock may have it all. What hangs fails the run; pytest-xdist names the test, starts
another process and goes on.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Generator

import pytest

#: Seconds that a test may take, and each its setup and teardown.
LIMIT = 180.0
#: The same for tests that wait for models.
LONG_LIMIT = 600.0

# Standard error of the run; that of tests is captured.
_errors = -1


def _limit(seconds: float) -> None:
    """End the process after so many seconds, unless another limit is set by then."""
    faulthandler.dump_traceback_later(seconds, file=_errors, exit=True)


def _of(item: pytest.Item) -> float:
    is_long = any(item.get_closest_marker(name) for name in ("live", "interop"))
    return LONG_LIMIT if is_long else LIMIT


def begin() -> None:
    """Remember where to report; before tests are captured."""
    global _errors
    assert sys.__stderr__ is not None
    _errors = os.dup(sys.__stderr__.fileno())


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
    faulthandler.cancel_dump_traceback_later()


def pytest_unconfigure() -> None:
    """Limit the end of the process too, which waits for threads that were left."""
    _limit(LIMIT)
