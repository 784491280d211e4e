"""Issue 5: the server dies in mid-stream.

Every waiter is released within 100 ms, with `LMStudioWebsocketError` that holds the
partial text.
"""

from __future__ import annotations

import concurrent.futures
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import lmstudio
from lmstudio import LMStudioClient, LMStudioWebsocketError
from lmstudio.testing import NEVER, Await, FakeServer
from tcp_proxy import Proxy, fin, reset
from timing import quickest

PATIENCE = 5.0
#: Seconds from the death to the last waiter's release.
LIMIT = 0.1
PARTIAL = "Once upon a time"


def tool() -> str:
    """Say something."""
    return "something"


def released(work):
    """Run in a thread: what was raised, and when."""
    try:
        work()
    except LMStudioWebsocketError as exc:
        return exc, time.monotonic()
    return None, time.monotonic()


def deaths(waits, die):
    """Let waiters wait, and the server die: seconds until the last one was released.

    Args:
        waits: Each a function that says when it is about to wait, and then waits.
        die: Lets the server die.
    """
    ready = threading.Barrier(len(waits) + 1)
    with concurrent.futures.ThreadPoolExecutor(len(waits)) as pool:
        done = [pool.submit(released, lambda w=w: w(ready.wait)) for w in waits]
        ready.wait(PATIENCE)
        began = time.monotonic()
        die()
        ends = [one.result(PATIENCE) for one in done]
    return [error for error, _ in ends], max(when for _, when in ends) - began


def prediction_waits(model):
    """Every way to wait for one prediction, and for another of the same socket."""
    prediction = model.respond("x")
    assert PARTIAL == next(iter(prediction))

    def iterate(ready):
        texts = iter(prediction)
        next(texts)
        ready()
        next(texts)

    def result(ready):
        ready()
        prediction.result()

    def content(ready):
        ready()
        str(prediction)

    def exception(ready):
        ready()
        raise prediction.exception()

    def wait(ready):
        ready()
        concurrent.futures.wait([prediction])
        prediction.result()

    def call_back(ready):
        called = threading.Event()
        prediction.add_done_callback(lambda _: called.set())
        ready()
        assert called.wait(PATIENCE)
        prediction.result()

    def limited(ready):
        ready()
        prediction.result(timeout=60)

    def other(ready):
        second = model.respond("x")
        texts = iter(second)
        next(texts)
        ready()
        next(texts)

    return [iterate, result, content, exception, wait, call_back, limited, other] * 2


@pytest.mark.parametrize("how", ["fin", "reset", "server closes"])
def test_every_way_to_wait_for_a_prediction(how):
    """All who wait are released within 100 ms, and each error holds the text."""

    def once():
        with FakeServer(["any"], loaded=["any"]) as fake, Proxy(fake.port) as proxy:
            fake.reply([PARTIAL, NEVER], times=None)
            with LMStudioClient(proxy.host) as client:
                waits = prediction_waits(client.llm.get("any"))
                link = proxy.link()
                die = {"fin": link.close, "reset": link.reset}.get(how)
                errors, took = deaths(waits, die or fake.drop_connections)
        assert [PARTIAL] * len(waits) == [error.partial for error in errors]
        assert len(waits) == len({id(error) for error in errors})
        return took

    quickest(LIMIT, once)


@pytest.mark.parametrize("action", [fin, reset], ids=["fin", "reset"])
@pytest.mark.parametrize(
    "byte", [0, 1, 2, 30], ids=["before", "head", "payload", "text"]
)
def test_in_the_middle_of_a_frame(action, byte):
    """Half a fragment is no text, and the half that came holds nobody up."""

    def once():
        gate = Await()
        with FakeServer(["any"], loaded=["any"]) as fake, Proxy(fake.port) as proxy:
            fake.reply([PARTIAL, gate, " there was", NEVER])
            # 0 is the HTTP head, 1 the answer to the credentials, 2 and 3 the progress
            # of the prompt, 4 the first fragment.
            proxy.plan("down", 5, action, byte)
            with LMStudioClient(proxy.host) as client:
                prediction = client.llm.get("any").respond("x")
                assert PARTIAL == next(iter(prediction))
                began = time.monotonic()
                gate.open()
                with pytest.raises(LMStudioWebsocketError) as caught:
                    prediction.result()
                took = time.monotonic() - began
        assert PARTIAL == caught.value.partial
        return took

    quickest(LIMIT, once)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_loads_runs_and_logs(fake, how):
    """What else waits for packets of a channel is released as quickly."""

    def once():
        fake.on_load([0.5, NEVER])
        fake.reply([PARTIAL, NEVER])
        with Proxy(fake.port) as proxy, LMStudioClient(proxy.host) as client:
            model = client.llm.get("any")

            def load(ready):
                begun = []

                def progress(share):
                    if not begun:
                        begun.append(share)
                        ready()

                client.llm.load("other", on_progress=progress)

            def act(ready):
                run = model.act("x", [tool], wait=False)
                texts = iter(run)
                assert PARTIAL == next(texts)
                ready()
                next(texts)

            def logs(ready):
                stream = client.diagnostics.stream_logs()
                fake.wait_for_call("streamLogs")
                ready()
                for _ in stream:
                    pass

            def die():
                for link in list(proxy.links):
                    getattr(link, how)()

            errors, took = deaths([load, act, logs], die)
        assert None not in errors
        assert PARTIAL == errors[1].partial
        return took

    quickest(LIMIT, once)


SERVER = f"""
from lmstudio.testing import NEVER, FakeServer
server = FakeServer(["any"], loaded=["any"])
server.reply([{PARTIAL!r}, NEVER], times=None)
server.before("countTokens", NEVER)
print(server.host, flush=True)
input()
"""


@pytest.mark.slow
def test_the_process_is_killed():
    """A server that is killed releases all at once, also those of plain calls."""
    root = str(Path(lmstudio.__file__).parents[1])

    def once():
        command = [sys.executable, "-c", SERVER]
        with (
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=root,
                text=True,
            ) as server,
            LMStudioClient(server.stdout.readline().strip()) as client,
        ):
            model = client.llm.get("any")
            waits = prediction_waits(model)

            def call(ready):
                ready()
                model.count_tokens("x")

            errors, took = deaths([*waits, call], server.kill)
        assert [PARTIAL] * len(waits) + [""] == [error.partial for error in errors]
        return took

    quickest(LIMIT, once)
