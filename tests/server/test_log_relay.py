"""Clients that watch the server's log see its own lines."""

from __future__ import annotations

import asyncio
import logging

import pytest

from lmstudio.server.log_relay import KIND, relayed
from lmstudio.server.logs import Logs

log = logging.getLogger("lmstudio.server.somewhere")


@pytest.fixture(autouse=True)
def told(caplog):
    """Has the server log all that it can."""
    caplog.set_level(logging.DEBUG, "lmstudio.server")


def watch(act):
    """What a client is told while something happens, as (level, content)."""

    async def main():
        logs = Logs()
        with logs.listen([KIND]) as listener:
            with relayed(logs):
                await asyncio.to_thread(act)
                log.info("the last")
            told = []
            while not told or told[-1] != ("info", "the last"):
                entry = await asyncio.wait_for(listener.next(), 5)
                told.append((entry["data"]["level"], entry["data"]["content"]))
        return told[:-1]

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("method", "level"),
    [
        ("info", "info"),
        ("warning", "warn"),
        ("error", "error"),
        ("critical", "error"),
    ],
)
def test_lines(method, level):
    """A line of any thread is told, under the protocol's name of its level."""
    assert [(level, "line 1")] == watch(lambda: getattr(log, method)("line %d", 1))


def test_no_debug_lines():
    """Lines for debugging are not told: prompts may stand in them."""
    assert [] == watch(lambda: log.debug("a prompt"))


def test_after_the_end():
    """What is logged after the end harms nobody."""
    watch(lambda: None)
    handlers = logging.getLogger("lmstudio.server").handlers
    log.info("later")

    assert [] == [h for h in handlers if type(h).__name__ == "_Relay"]
