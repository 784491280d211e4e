"""A client frees what it loaded for itself, and nothing else."""

from __future__ import annotations

import os
import threading
import time

import pytest

from lmstudio import LMStudioClient
from lmstudio.testing import DROP, NEVER, FakeServer
from lmstudio.transport import Transport
from scripts import run
from tcp_proxy import Proxy
from timing import quickest

PATIENCE = 10.0


def warnings(caplog):
    """What the log warns of."""
    return [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]


@pytest.fixture
def application():
    """A server that knows nothing of ownership, as the application does not."""
    with FakeServer(["any", "other"], loaded=["any"], extensions=()) as server:
        yield server


def test_freed_at_close(application):
    """What was loaded goes when the client closes; what was there stays."""
    with LMStudioClient(application.host) as client:
        client.llm.load("other")
        client.llm.load("other", identifier="second")
        assert ["any", "other", "second"] == application.loaded()

    assert ["any"] == application.loaded()


def test_loads_and_unloads_are_not_counted_up(application):
    """What a handle has unloaded is no longer asked for at the close."""
    with LMStudioClient(application.host) as client:
        for _ in range(3):
            client.llm.load("other").unload()
        client.llm.load("other")
        assert ["any", "other"] == application.loaded()

    assert ["any"] == application.loaded()
    assert 4 == len(application.parameters("unloadModel"))
    assert 1 == len(application.parameters("getModelInfo"))


@pytest.mark.parametrize("keeps", [{"no_hup": True}, {"ttl": 60}], ids=str)
def test_kept(application, keeps):
    """no_hup and ttl keep it loaded."""
    with LMStudioClient(application.host) as client:
        client.llm.load("other", **keeps)

    assert ["any", "other"] == application.loaded()


@pytest.mark.parametrize("name", ["model", "load_new_instance"])
def test_shared_models_stay(application, name):
    """The official verbs load for everybody."""
    with LMStudioClient(application.host) as client:
        getattr(client.llm, name)("other")

    assert ["any", "other"] == application.loaded()
    (parameter,) = application.parameters({"model": "getOrLoad"}.get(name, "loadModel"))
    assert 3_600_000 == parameter.get("ttlMs", parameter.get("loadTtlMs"))


def test_another_under_the_same_identifier(application):
    """The identifier was given to another model meanwhile: that one stays."""
    with LMStudioClient(application.host) as client:
        model = client.llm.load("other", identifier="mine")
        model.unload()
        application.load("other", identifier="mine")

    assert ["any", "mine"] == application.loaded()


def test_one_that_can_not_be_freed(application):
    """The others are freed all the same."""
    client = LMStudioClient(application.host)
    for name in "abc":
        client.llm.load("other", identifier=name)
    application.fail("unloadModel", "No")
    application.fail("getModelInfo", "gone", code="generic.noModelMatchingQuery")

    client.close()

    assert ["any", "a", "b"] == application.loaded()


def test_the_server_is_gone(application, caplog):
    """Closing does not fail, and the log says what was left."""
    client = LMStudioClient(application.host)
    for name in "abc":
        client.llm.load("other", identifier=name)
    for _ in range(6):  # they are asked for once more
        application.before("getModelInfo", DROP)

    client.close()

    assert ["any", "a", "b", "c"] == application.loaded()
    assert ["not unloaded, and maybe still in memory: a, b, c"] == warnings(caplog)


def test_nobody_listens_any_more(application, caplog, monkeypatch):
    """The way to the server was lost before, and there is no other."""
    attempts = []
    real = Transport.connect
    monkeypatch.setattr(
        Transport, "connect", lambda *args: attempts.append(args) or real(*args)
    )
    with Proxy(application.port) as proxy:
        client = LMStudioClient(proxy.host)
        for name in "abc":
            client.llm.load("other", identifier=name)
        proxy.refuse()
        proxy.link().close()
        client._session._connections["llm"]._reader.join()
        attempts.clear()

        client.close()

    assert 1 == len(attempts)
    assert ["any", "a", "b", "c"] == application.loaded()
    assert ["not unloaded, and maybe still in memory: a, b, c"] == warnings(caplog)


@pytest.mark.slow
def test_a_server_that_is_silent(application, caplog):
    """All are asked for together, and one limit holds for them together."""

    def once():
        with Proxy(application.port) as proxy:
            client = LMStudioClient(proxy.host)
            for name in "abc":
                client.llm.load("other", identifier=name)
            caplog.clear()
            for link in proxy.links:
                link.stall()
            began = time.monotonic()
            client.close()
            took = time.monotonic() - began
        assert ["not unloaded, and maybe still in memory: a, b, c"] == warnings(caplog)
        for name in "abc":
            application.unload(name)
        return took

    quickest(1.0, once)


@pytest.mark.slow
def test_the_answer_to_unloading_is_late(application, caplog):
    """Every request is out before any answer: what is slow still happens."""
    with LMStudioClient(application.host) as client:
        for name in "abc":
            client.llm.load("other", identifier=name)
        application.before("unloadModel", NEVER)

    assert ["any", "a"] == application.loaded()
    assert ["not unloaded, and maybe still in memory: a"] == warnings(caplog)


def test_closed_by_the_worker_itself(application):
    """Where the worker can't wait for itself, another thread unloads."""
    client = LMStudioClient(application.host)
    client.llm.load("other")
    done = threading.Event()

    def close():
        client.close()
        done.set()

    client._session.worker.soon(close)

    assert done.wait(PATIENCE)
    assert ["any"] == application.loaded()


def test_no_thread_can_be_started(application, monkeypatch, caplog):
    """At the end of a program no connection can be made; that is no error then."""
    with Proxy(application.port) as proxy:
        client = LMStudioClient(proxy.host)
        client.llm.load("other")
        proxy.link().close()
        client._session._connections["llm"]._reader.join()
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", lambda thread: 1 / 0)
            client._ending.owned.release()
        client.close()

    assert ["not unloaded, and maybe still in memory: other"] == warnings(caplog)


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        "model = client.llm.load('other')",
        "def main():\n    lms.LMStudioClient(sys.argv[1]).llm.load('other')\nmain()",
        "import threading\n"
        "t = threading.Thread(target=client.llm.load, args=['other'])\n"
        "t.start()\nt.join()\ndel client, model",
        "client.llm.load('other'); sys.exit()",
    ],
)
def test_freed_at_the_end_of_the_program(application, body):
    """However a program ends by itself, what it loaded goes with it."""
    assert (0, "", "") == run(body, application)
    assert ["any"] == application.loaded()


@pytest.mark.slow
def test_freed_after_an_exception(application):
    """Also a program that fails frees its models."""
    code, _, errors = run("client.llm.load('other')\n1 / 0", application)

    assert 1 == code
    assert errors.endswith("ZeroDivisionError: division by zero\n")
    assert ["any"] == application.loaded()


FORK = """
import os
mine = client.llm.load("other", identifier="mine")
child = os.fork()
if child == 0:
    with client:
        client.llm.load("other", identifier="child")
        print(*(m.identifier for m in client.llm.list_loaded()), flush=True)
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
print(*(m.identifier for m in client.llm.list_loaded()), flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_owns_nothing_of_its_parent(application):
    """A forked child frees what it loaded itself, and leaves its parent's models."""
    code, output, errors = run(FORK, application)

    assert (0, "") == (code, errors)
    assert "any mine child\nany mine\n" == output
    assert ["any"] == application.loaded()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_that_does_nothing(application):
    """A child that only ends leaves everything to its parent."""
    body = FORK.replace('        client.llm.load("other", identifier="child")\n', "")
    body = body.replace("    with client:\n", "    if False:\n")

    assert (0, "any mine\n", "") == run(body, application)
    assert ["any"] == application.loaded()


def test_another_process(application, monkeypatch):
    """Under another process id there is nothing to free, until something is loaded."""
    with LMStudioClient(application.host) as client:
        client.llm.load("other", identifier="parent's")
        with monkeypatch.context() as patch:
            patch.setattr("lmstudio.ownership.os.getpid", lambda: -1)
            client._ending.owned.release()
            assert ["any", "parent's"] == application.loaded()
            patch.setattr("lmstudio.ownership.os.getpid", lambda: -2)
            client.llm.load("other", identifier="child's")
            client._ending.owned.release()
    assert ["any", "parent's"] == application.loaded()
