"""Signals that would end the process at once let it clean up first."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

import pytest

from lmstudio.server.unwinding import unwound_by_signals

pytestmark = pytest.mark.skipif(os.name == "nt", reason="there are no such signals")
SIGNALS = [signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", SIGNALS)
def test_signal(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal raises SystemExit inside, a second one does not disturb the end."""
    assert signal.SIG_DFL == signal.getsignal(number)
    cleaned = []
    with pytest.raises(SystemExit) as caught, unwound_by_signals():
        try:
            signal.raise_signal(number)
        finally:
            for each in SIGNALS:
                signal.raise_signal(each)
            cleaned.append(True)
    assert 128 + number == caught.value.code
    assert [True] == cleaned
    assert signal.SIG_DFL == signal.getsignal(number)


def test_handlers_of_the_program() -> None:
    """A handler that the program has set stays, and is called."""
    called: list[int] = []

    def handler(number: int, _: FrameType | None) -> None:
        called.append(number)

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with unwound_by_signals():
            signal.raise_signal(signal.SIGTERM)
        assert handler is signal.getsignal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [signal.SIGTERM] == called


def test_other_threads() -> None:
    """In another thread nothing is set, and nothing fails."""
    seen: list[object] = []

    def run() -> None:
        with unwound_by_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert [signal.SIG_DFL] == seen
