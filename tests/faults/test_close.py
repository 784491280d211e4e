"""Issue 5: `close()` from another thread during anything; twice; during connect.

It returns within 1 s, and whoever waits is released.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lmstudio import LMStudioClient, LMStudioError
from lmstudio.testing import NEVER, FakeServer
from raw_server import RawServer
from tcp_proxy import Hold, Proxy
from timing import quickest

PATIENCE = 15.0
#: Seconds for `close` and for the release of whoever waits.
LIMIT = 1.0


def tool() -> str:
    """Say something."""
    return "something"


def load(client, fake, ready):
    fake.on_load([0.5, NEVER])
    client.llm.load("other", on_progress=lambda share: ready())


def stream(client, fake, ready):
    for _ in client.llm.get("any").respond("x"):
        ready()


def result(client, fake, ready):
    prediction = client.llm.get("any").respond("x")
    next(iter(prediction))
    ready()
    prediction.result()


def call(client, fake, ready):
    fake.before("countTokens", NEVER)
    ready()
    client.llm.get("any").count_tokens("x")


def run(client, fake, ready):
    going = client.llm.get("any").act("x", [tool], wait=False)
    next(iter(going))
    ready()
    going.result()


def log(client, fake, ready):
    stream = client.diagnostics.stream_logs()
    ready()
    for _ in stream:
        pass


def released(work, *arguments):
    """The error that released it, and when."""
    try:
        work(*arguments)
    except LMStudioError as exc:
        return exc, time.monotonic()
    return None, time.monotonic()


def closed(client, works, *, times=1, before=lambda: None):
    """Close while these run: what released them, and seconds until all is done.

    Args:
        works: Functions that call what they get when they are about to wait.
        times: How many threads close at once.
        before: Called when all of them wait.
    """
    ready = threading.Semaphore(0)
    with ThreadPoolExecutor(len(works) + times) as pool:
        running = [pool.submit(released, work, ready.release) for work in works]
        for _ in works:
            assert ready.acquire(timeout=PATIENCE)
        before()
        began = time.monotonic()
        for done in [pool.submit(client.close) for _ in range(times)]:
            done.result(PATIENCE)
        returned = time.monotonic()
        ends = [one.result(PATIENCE) for one in running]
    client.close()
    return [error for error, _ in ends], max(returned, *[e for _, e in ends]) - began


@pytest.mark.parametrize("times", [1, 8], ids=["once", "from eight threads"])
@pytest.mark.parametrize("stalled", [False, True], ids=["alive", "stalled"])
def test_during_anything(times, stalled):
    """Loads, streams, results, calls, runs and logs, all at once; a dead peer too."""
    works = [load, stream, result, call, run, log]

    def once():
        with FakeServer(["any", "other"], loaded=["any"]) as fake:
            fake.reply(["text", NEVER], times=None)
            with Proxy(fake.port) as proxy:
                client = LMStudioClient(proxy.host)
                many = [
                    lambda ready, work=work: work(client, fake, ready) for work in works
                ]

                def stall():
                    for link in proxy.links if stalled else ():
                        link.stall()

                errors, took = closed(client, many, times=times, before=stall)
                assert None not in errors[:-1]
                assert errors[-1] is None  # a log just ends
        return took

    quickest(LIMIT, once)


@pytest.mark.parametrize("steps", ["", "upgrade"], ids=["greeting", "credentials"])
def test_while_connecting(steps):
    """Who waits for a server that accepts and says nothing is released as quickly."""

    def once():
        with RawServer(steps) as server:
            client = LMStudioClient(server.host)

            def connect(ready):
                ready()
                client.llm.list_loaded()

            def accepted():
                deadline = time.monotonic() + PATIENCE
                while not server.accepted:
                    assert time.monotonic() < deadline

            errors, took = closed(client, [connect] * 8, before=accepted)
            assert None not in errors
            return took

    quickest(LIMIT, once)


def test_with_models_of_its_own(fake):
    """A client that owns models unloads them, and is closed as soon."""

    def once():
        client = LMStudioClient(fake.host)
        client.llm.load("other")
        client.llm.load("any")
        began = time.monotonic()
        client.close()
        assert ["any"] == fake.loaded()
        return time.monotonic() - began

    quickest(LIMIT, once)


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "in a long prompt"])
def test_with_models_of_its_own_and_a_silent_server(busy):
    """It is tried for all of them together, also where a sender is stuck."""

    def once():
        with (
            FakeServer(["any", "other"], extensions=()) as fake,
            Proxy(fake.port) as proxy,
            ThreadPoolExecutor(1) as pool,
        ):
            client = LMStudioClient(proxy.host)
            models = [client.llm.load(name) for name in ("any", "other", "any")]
            up, _ = proxy.link().stall()
            if busy:
                stuck = pool.submit(released, models[0].respond, "x" * 8_000_000)
                assert up.reached.wait(PATIENCE)
            began = time.monotonic()
            client.close()
            took = time.monotonic() - began
            if busy:
                error, _ = stuck.result(PATIENCE)
                assert "closed" in str(error)
        return took

    quickest(LIMIT, once)


def test_with_models_of_its_own_and_nobody_who_answers():
    """Where it must connect again to unload, that takes no longer either."""

    def once():
        with FakeServer(["any"], extensions=()) as fake, Proxy(fake.port) as proxy:
            client = LMStudioClient(proxy.host)
            client.llm.load("any")
            hold = Hold()
            proxy.plan("down", 0, hold)  # the answer to the handshake
            proxy.link().close()
            client._session._connections["llm"]._reader.join(PATIENCE)
            began = time.monotonic()
            client.close()
            took = time.monotonic() - began
            assert hold.reached.wait(PATIENCE)
            hold.open()
        return took

    quickest(LIMIT, once)
