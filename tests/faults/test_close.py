"""Issue 5: `close()` from another thread during anything; twice; during connect.

It returns within 1 s, and whoever waits is released.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from handlers import at_each_line
from lmstudio import LMStudioClient, LMStudioError
from lmstudio.testing import NEVER, Await, FakeServer
from raw_server import RawServer
from scripts import run as run_program
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


@pytest.mark.slow
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


@pytest.mark.slow
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


# --- from signal handlers


class Exits(BaseException):
    """What a handler raises that ends the program, as `SystemExit`."""


#: The threads of a client.
OURS = ("lmstudio-llm", "lmstudio-worker", "lmstudio-connect", "lmstudio-close")


def left_of(before):
    """Threads of a client that began after a moment and do not end."""
    deadline = time.monotonic() + PATIENCE
    while True:
        new = set(threading.enumerate()) - before
        ours = [thread for thread in new if thread.name in OURS]
        if not ours or time.monotonic() >= deadline:
            return [thread.name for thread in ours]
        time.sleep(0.005)


@pytest.fixture
def closing(fake):
    """For `at_each_line`: a handler that closes, and a look at what that left."""
    clients, times = [], []

    def prepare(exits=False):
        before = set(threading.enumerate())
        clients.append(LMStudioClient(fake.host))
        clients[-1].llm.load("other")

        def act():
            began = time.monotonic()
            clients[-1].close()
            times.append(time.monotonic() - began)
            if exits and threading.current_thread() is not threading.main_thread():
                raise Exits  # and not in the last call, which interrupts nothing

        def check(where):
            assert [] == left_of(before), where
            assert clients[-1].is_closed, where
            assert ["any"] == fake.loaded(), where

        return act, check

    return clients, times, prepare


@pytest.mark.slow
def test_in_a_handler_at_any_line(fake, closing):
    """Whatever it interrupts, a close too, `close` returns in time and closes all."""
    clients, times, prepare = closing
    fake.reply("answer", times=None)

    def work():
        try:
            model = clients[-1].llm.get("any")
            assert "answer" == model.respond("x").result().content
            model.count_tokens("x")
            clients[-1].close()
        except LMStudioError:
            pass

    at_each_line(work, prepare, stride=11)

    assert sorted(times)[-2] < LIMIT  # the machine may be busy once


@pytest.mark.slow
def test_a_handler_that_closes_and_exits_at_any_line_of_a_close(closing):
    """Nothing is left behind, no model either."""
    clients, _, prepare = closing

    def work():
        with contextlib.suppress(Exits):
            clients[-1].close()

    at_each_line(work, lambda: prepare(exits=True), stride=1, least=5)


@pytest.mark.slow
def test_in_a_handler_in_the_middle_of_shutting_a_socket(fake):
    """A sender that is interrupted where it shuts the broken socket may shut it."""
    clients = []

    def transport():
        return clients[-1]._session._connections["llm"]._transport

    def prepare():
        clients.append(LMStudioClient(fake.host))
        clients[-1].llm.list_loaded()

        def check(where):
            assert transport()._closed, where
            clients[-1].close()

        return transport().close, check

    at_each_line(lambda: transport().close(), prepare, stride=1, least=5)


def test_in_a_handler_while_models_are_unloaded(fake):
    """A handler in the middle of a close waits for that one, and all is done once."""
    gate = Await()
    fake.before("unloadModel", gate)
    client = LMStudioClient(fake.host)
    client.llm.load("other")
    closed = []

    def handle(*_):
        threading.Timer(0.1, gate.open).start()
        client.close()
        closed.append(client.is_closed)

    before = signal.signal(signal.SIGTERM, handle)
    try:
        main = threading.main_thread().ident

        def interrupt():
            assert gate.reached.wait(PATIENCE)
            signal.pthread_kill(main, signal.SIGTERM)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with client:
            pass
        thread.join()
    finally:
        signal.signal(signal.SIGTERM, before)

    assert [True] == closed
    assert ["any"] == fake.loaded()
    assert 1 == len(fake.parameters("unloadModel"))


EXITS = """
import signal, threading
client.llm.load("other")
model.respond("x")
def handle(*_):
    client.close()
    print("closed", client.is_closed, flush=True)
    sys.exit(3)
signal.signal(signal.{signal}, handle)
owned = client._ending.owned
release = owned.release
def interrupted():
    signal.pthread_kill(threading.main_thread().ident, signal.{signal})
    release()
owned.release = interrupted  # by the thread that closes
with client:
    pass
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_handler_that_exits_in_the_middle_of_a_close(fake, name):
    """The program ends with its code, its models are unloaded, nothing is printed."""
    fake.reply("answer", times=None)
    program = EXITS.replace("{signal}", name)

    assert (3, "closed True\n", "") == run_program(program, fake)
    assert ["any"] == fake.loaded()


CTRL_C = """
import os, signal, threading
client.llm.list_loaded()
client.llm.load("other")
def interrupt():
    while not client._ending._closer:
        pass
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
try:
    client.close()
    while True:
        pass
except KeyboardInterrupt:
    client.close()
    print(client.is_closed, threading.active_count() <= 2)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
def test_ctrl_c_in_the_middle_of_a_close(fake):
    """It interrupts the wait; the closing goes on, and a second close waits for it."""
    assert (0, "True True\n", "") == run_program(CTRL_C, fake)
    assert ["any"] == fake.loaded()


# --- connections that are made too late


@pytest.mark.parametrize("how", ["closed", "interrupted"])
def test_a_connection_made_when_nobody_waits_any_more(how):
    """After a close, or Ctrl-C and a close, it is closed as soon as it is there."""
    before = set(threading.enumerate())
    with FakeServer(["any"], extensions=()) as fake, Proxy(fake.port) as proxy:
        hold = Hold()
        proxy.plan("down", 0, hold)  # the answer to the handshake
        client = LMStudioClient(proxy.host)
        waiting = threading.Thread(target=released, args=[client.llm.list_loaded])
        if how == "closed":
            waiting.start()
            assert hold.reached.wait(PATIENCE)
            client.close()
            waiting.join(PATIENCE)
            assert not waiting.is_alive()
            hold.open()
        else:

            def interrupt():
                assert hold.reached.wait(PATIENCE)
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

            waiting = threading.Thread(target=interrupt)
            waiting.start()
            with pytest.raises(KeyboardInterrupt):
                client.llm.list_loaded()
            waiting.join(PATIENCE)
            hold.open()
            client.close()
        assert [] == left_of(before)
