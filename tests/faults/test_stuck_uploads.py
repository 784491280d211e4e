"""Issue 5: one upload that is stuck, or connecting that is, holds up nobody else.

Time limits, cancels and signals of the others hold, and the connection goes on.
"""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lmstudio import LMStudioClient, LMStudioTimeoutError
from lmstudio.testing import AWAIT_CANCEL, FakeServer
from raw_server import RawServer
from scripts import is_cancel
from tcp_proxy import Proxy

PATIENCE = 15.0
#: Seconds of a limit that must hold, and how late it may be noticed.
LIMIT, SLACK = 0.3, 5.0
#: More than the sockets between client and server hold.
LONG = "x" * 8_000_000


@pytest.fixture
def stuck():
    """A model whose server reads nothing, and the way to let it read again."""
    with (
        FakeServer(["any"], loaded=["any"]) as fake,
        Proxy(fake.port) as proxy,
        ThreadPoolExecutor(1) as pool,
        LMStudioClient(proxy.host) as client,
    ):
        model = client.llm.get("any")
        fake.reply(["text", AWAIT_CANCEL], times=None)
        running = model.respond("x")
        assert "text" == next(iter(running))
        hold = proxy.link().up.hold()
        upload = pool.submit(model.respond, LONG)
        outbox = client._session.connection("llm")._transport._outbox
        until = time.monotonic() + PATIENCE
        while not outbox:
            assert time.monotonic() < until
        assert hold.reached.wait(PATIENCE)
        try:
            yield fake, client, model, running, hold, upload
        finally:
            hold.open()
            with contextlib.suppress(Exception):
                upload.result(PATIENCE).cancel()


def late(work):
    """The error of a time limit, and the seconds until it came."""
    began = time.monotonic()
    with pytest.raises(LMStudioTimeoutError) as caught:
        work()
    took = time.monotonic() - began
    assert LIMIT <= took < LIMIT + SLACK
    return str(caught.value)


@pytest.mark.slow
def test_limits_of_what_comes_behind_it(stuck):
    """Nobody waits longer than allowed, and what was not sent never is."""
    fake, client, model, _, hold, upload = stuck
    where = f"(still sending to {client.address})"
    seen = len(fake.parameters("predict"))

    assert f"prediction: not finished within {LIMIT:g} s {where}" == late(
        lambda: model.respond("late", timeout=LIMIT)
    )
    assert f"prediction: no news from the server for {LIMIT:g} s {where}" == late(
        lambda: model.respond("late", idle_timeout=LIMIT)
    )
    model._call_time = LIMIT
    assert f"countTokens: no answer within {LIMIT:g} s {where}" == late(
        lambda: model.count_tokens("late")
    )
    assert f"loadModel: not loaded within {LIMIT:g} s {where}" == late(
        lambda: client.llm.load("any", timeout=LIMIT)
    )
    assert not upload.done()

    hold.open()
    assert "text" == next(iter(upload.result(PATIENCE)))
    assert 0 < model.count_tokens("x")
    assert seen + 1 == len(fake.parameters("predict"))
    assert 1 == len(fake.parameters("countTokens"))


@pytest.mark.slow
def test_what_runs_already_need_not_wait(stuck):
    """The worker is free: it sees signals and limits, and a cancel follows later."""
    fake, _, model, running, hold, upload = stuck
    cancelled, free = threading.Event(), threading.Event()
    running.add_done_callback(lambda _: cancelled.set())
    assert running.cancel()
    model._session.worker.soon(free.set)
    assert free.wait(SLACK)
    assert not upload.done()
    assert not cancelled.is_set()

    hold.open()
    assert fake.wait_for(is_cancel)
    assert "text" == running.result(PATIENCE).content
    assert cancelled.wait(PATIENCE)


@pytest.mark.slow
def test_the_limit_of_the_upload_itself():
    """Half of it is out: the rest follows, its cancel behind it, and others go on."""
    with FakeServer(["any"], loaded=["any"]) as fake, Proxy(fake.port) as proxy:
        fake.reply([AWAIT_CANCEL], times=None)
        with LMStudioClient(proxy.host) as client:
            model = client.llm.get("any")
            assert 0 < model.count_tokens("x")
            hold = proxy.link().up.hold()
            late(lambda: model.respond(LONG, timeout=LIMIT))
            hold.open()
            assert fake.wait_for(is_cancel)
            assert 0 < model.count_tokens("x")
            assert 1 == len(fake.parameters("predict"))
        assert 1 == len(proxy.links)


@pytest.mark.slow
@pytest.mark.parametrize("option", ["timeout", "idle_timeout"])
def test_limits_while_connecting(option):
    """A limit holds against a server that accepts and says nothing."""
    with RawServer("") as server, LMStudioClient(server.host) as client:
        model = client.llm.get("any")
        text = late(lambda: model.respond("x", **{option: LIMIT}))
        assert text.endswith(f" (still connecting to {client.address})")
        with LMStudioClient(server.host, idle_timeout=LIMIT) as other:
            text = late(other.llm.list_loaded)
        assert text == (
            f"listLoaded: no answer within {LIMIT:g} s"
            f" (still connecting to {client.address})"
        )
