"""The client: settings, closing, copies, forks, and the end of the program."""

from __future__ import annotations

import concurrent.futures
import contextlib
import copy
import gc
import os
import pickle
import threading
import time
import weakref

import pytest

import lmstudio.client
from lmstudio import (
    Client,
    LMStudioClient,
    LMStudioRuntimeError,
    LMStudioTimeoutError,
    LMStudioValueError,
    LMStudioWebsocketError,
)
from lmstudio.testing import AWAIT_CANCEL, DROP, NEVER, Await
from scripts import is_cancel, run

TOKEN = "sk-lm-abcdefgh:abcdefghijklmnopqrst"


@pytest.mark.parametrize("spelling", ["{}", "ws://{}", "http://{}/", " {} "])
def test_spellings(fake, spelling):
    """The server's address in any spelling, under any of its names."""
    given = spelling.format(fake.host)
    for client in (
        LMStudioClient(given),
        LMStudioClient(base_url=given),
        Client(api_host=given),
    ):
        with client:
            assert fake.url == client.address
            assert fake.host == client.api_host
            assert 1 == len(client.llm.list_loaded())


def test_the_variable(fake, monkeypatch):
    """LMSTUDIO_HOST names the server unless the program does."""
    monkeypatch.setenv("LMSTUDIO_HOST", fake.host)
    with LMStudioClient() as client:
        assert fake.url == client.address
        assert f"<LMStudioClient {fake.url}>" == repr(client)
    with LMStudioClient("elsewhere:1") as client:
        assert "ws://elsewhere:1" == client.address


def test_nothing_is_sent_until_first_use(fake):
    """Making a client, and handles, needs no server."""
    with LMStudioClient(fake.host) as client:
        client.llm.get("any")
        assert [] == fake.requests
    monkeyless = LMStudioClient("127.0.0.1:1")
    monkeyless.llm.get("any")
    monkeyless.close()


def test_the_address_is_looked_for(monkeypatch):
    """Without one the local server is found at first use, not before."""
    monkeypatch.delenv("LMSTUDIO_HOST", raising=False)
    with LMStudioClient() as client:
        assert "<LMStudioClient a local server>" == repr(client)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"base_url": "a", "api_host": "b"}, "base_url and api_host name the same; gi"),
        ({"base_url": 7}, "a server address is text, not 7"),
        ({"base_url": ""}, "'' is no server address: "),
        ({"base_url": "ftp://x"}, "'ftp://x' is no server address: the scheme"),
        ({"timeout": 0}, "timeout must be a number of seconds above 0, or None, not 0"),
        ({"timeout": "x"}, "timeout must be a number of seconds above 0, or None, no"),
        ({"idle_timeout": -1}, "idle_timeout must be a number of seconds above 0, or"),
        ({"api_token": "secret"}, "api_token is no API token: one looks like"),
        ({"client_identifier": ""}, "client_identifier must be 1 to 256 characters"),
        ({"client_passkey": 7}, "client_passkey must be 1 to 256 characters"),
    ],
    ids=str,
)
def test_wrong_arguments(arguments, error):
    """A wrong setting is found at once."""
    with pytest.raises(LMStudioValueError) as caught:
        LMStudioClient(**arguments)
    assert str(caught.value).startswith(error), str(caught.value)


def test_secrets_are_not_shown():
    """Neither the short form nor an error repeats a token."""
    with LMStudioClient("host", api_token=TOKEN, client_passkey=None) as client:
        assert "abcdefgh" not in repr(client)
    with pytest.raises(LMStudioValueError) as caught:
        LMStudioClient("host", api_token=TOKEN + "x")
    assert "abcdefgh" not in str(caught.value)


@pytest.mark.slow
def test_the_limit_of_calls(fake):
    """idle_timeout is how long a call that is answered at once may take."""
    fake.before("listLoaded", NEVER)
    with LMStudioClient(fake.host, idle_timeout=0.4) as client:
        client._session.connection("llm")  # which would count
        with pytest.raises(LMStudioTimeoutError) as caught:
            client.llm.list_loaded()
        assert f"listLoaded: no answer from {fake.url} within 0.4 s" == str(
            caught.value
        )
        assert 1 == len(client.llm.list_loaded())


# --- closing


def test_close(fake):
    """Closed, it says so, and can't be used any more; closing again is no error."""
    with LMStudioClient(fake.host) as client:
        model = client.llm.get("any")
        assert "x" == model.respond("x").content
        assert not client.is_closed
    client.close()

    assert client.is_closed
    assert f"<LMStudioClient {fake.url} closed>" == repr(client)
    for use in (client.llm.list_loaded, lambda: model.respond("x")):
        with pytest.raises(LMStudioRuntimeError) as caught:
            use()
        assert "the client was closed; make a new one" == str(caught.value)


def test_close_releases_who_waits(fake):
    """Threads that wait for something get an error at once."""
    fake.reply(["a", AWAIT_CANCEL])
    fake.on_load([AWAIT_CANCEL])
    gate = Await()
    fake.before("countTokens", [gate, NEVER])
    client = LMStudioClient(fake.host)
    model = client.llm.get("any")
    prediction = model.respond("x")
    assert "a" == next(iter(prediction))
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        waiting = [
            pool.submit(prediction.result),
            pool.submit(client.llm.load, "other"),
            pool.submit(model.count_tokens, "x"),
        ]
        fake.wait_for_call("loadModel")
        assert gate.reached.wait(5)

        client.close()

        errors = [done.exception(timeout=5) for done in waiting]
    lost = [error for error in errors if isinstance(error, LMStudioWebsocketError)]
    assert ["the client was closed"] * 2 == [error.reason for error in lost]
    # What only reads would have been asked again, if that were possible.
    assert isinstance(errors[2], LMStudioRuntimeError)


def test_results_are_read_behind_the_block(fake):
    """Its end waits for what was asked for in it and is held."""
    gate = Await()
    fake.reply(["a", gate, "b"])
    released = []
    with LMStudioClient(fake.host) as client:
        prediction = client.llm.get("any").respond("x")
        assert gate.reached.wait(5)
        watcher = threading.Thread(
            target=lambda: (waits_in_exit(prediction), released.append(1), gate.open())
        )
        watcher.start()

    watcher.join(5)
    assert [1] == released
    assert "ab" == prediction.content


def waits_in_exit(prediction):
    """Return when the main thread waits for a prediction."""
    main = threading.main_thread().ident
    while prediction._arrivals._turn.get("taker") != (main,):
        pass


def test_failures_are_told_behind_the_block(fake):
    """What went wrong is told to who asks for the result, not by the block's end."""
    gate = Await()
    fake.reply(["a", gate, DROP])
    with LMStudioClient(fake.host) as client:
        prediction = client.llm.get("any").respond("x")
        assert gate.reached.wait(5)
        gate.open()

    with pytest.raises(LMStudioWebsocketError):
        prediction.result()


@pytest.mark.parametrize(
    "leave",
    [
        lambda prediction: next(iter(prediction)),
        lambda prediction: prediction.cancel(),
        lambda prediction: 1 / 0,
    ],
    ids=["iterated", "cancelled", "exception"],
)
def test_what_is_not_waited_for(fake, leave):
    """Who streams, cancels, or leaves with an exception has had enough."""
    fake.reply(["a", NEVER])
    with contextlib.suppress(ZeroDivisionError), LMStudioClient(fake.host) as client:
        prediction = client.llm.get("any").respond("x")
        fake.wait_for_call("predict")
        leave(prediction)

    assert client.is_closed


def test_closed_inside_its_block(fake):
    """A block whose client is closed has nothing to wait for."""
    fake.reply(["a", NEVER])
    with LMStudioClient(fake.host) as client:
        prediction = client.llm.get("any").respond("x")
        client.close()

    with pytest.raises(LMStudioWebsocketError):
        prediction.result()


def test_close_from_many_threads(fake):
    """Whoever closes second returns when it is done."""
    client = LMStudioClient(fake.host)
    client.llm.load("other")
    together = threading.Barrier(8)

    def close():
        together.wait()
        client.close()
        return fake.loaded()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        closing = [pool.submit(close) for _ in range(8)]
        assert [["any"]] * 8 == [done.result(timeout=10) for done in closing]


def test_first_use_from_many_threads(fake):
    """They share one connection."""
    with LMStudioClient(fake.host) as client:
        together = threading.Barrier(8)

        def ask():
            together.wait()
            return client.llm.get("any").count_tokens("x")

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            asking = [pool.submit(ask) for _ in range(8)]
            assert [1] * 8 == [done.result(timeout=10) for done in asking]
    assert 1 == sum(seen.message.get("authVersion") == 1 for seen in fake.requests)


# --- a client that nobody holds


def client_threads():
    """The readers and workers; a scripted server has threads of its own."""
    names = ("lmstudio-llm", "lmstudio-system", "lmstudio-worker")
    return {thread for thread in threading.enumerate() if thread.name in names}


def wait_until_gone(threads):
    for thread in threads:
        thread.join(5)
    return [thread for thread in threads if thread.is_alive()]


def test_a_dropped_client_closes(fake):
    """Its threads end, and its models are freed."""
    before = client_threads()
    client = LMStudioClient(fake.host)
    client.llm.load("other")
    threads = client_threads() - before

    del client

    assert [] == wait_until_gone(threads)
    assert ["any"] == fake.loaded()


def test_a_dropped_client_that_did_nothing():
    """There is nothing to close."""
    before = len(lmstudio.client._endings)
    client = LMStudioClient("localhost")
    assert before + 1 == len(lmstudio.client._endings)

    del client

    assert before == len(lmstudio.client._endings)


@pytest.mark.parametrize(
    "hold",
    [
        lambda client: client.llm,
        lambda client: client.llm.get("any"),
        lambda client: client.llm.get("any").respond("x"),
        lambda client: client.llm.list_loaded()[0],
        lambda client: client.system,
    ],
)
def test_what_it_made_keeps_it(fake, hold):
    """Handles, predictions and namespaces hold the connections for themselves."""
    gate = Await()
    fake.reply(["x", gate])
    before = client_threads()
    held = hold(LMStudioClient(fake.host))
    gc.collect()
    gate.open()

    if hasattr(held, "list_loaded"):
        assert 1 == len(held.list_loaded())
    elif hasattr(held, "get_info"):
        assert "any" == held.get_info().identifier
    elif hasattr(held, "get_version"):
        assert held.get_version()
    else:
        assert "x" == held.content

    threads = client_threads() - before
    assert 0 < len(threads)
    del held
    assert [] == wait_until_gone(threads)


def test_a_client_is_freed_without_the_collector(fake):
    """There are no cycles between a client and what it made."""
    gc.collect()
    gc.disable()
    try:
        client = LMStudioClient(fake.host)
        gone = weakref.ref(client)
        client.llm.list_loaded()
        client.close()
        del client
        assert gone() is None
    finally:
        gc.enable()


# --- copies


@pytest.mark.parametrize("again", [copy.copy, lambda c: pickle.loads(pickle.dumps(c))])
def test_copies(fake, again):
    """A client is copied and pickled as its settings."""
    with (
        LMStudioClient(
            fake.host, client_identifier="me", client_passkey="secret", timeout=7
        ) as client,
        again(client) as first,
        again(client) as second,
    ):
        assert fake.url == first.address == second.address
        assert "me" == first._session.identifier
        assert 1 == len(first.llm.list_loaded())
        assert 1 == len(second.llm.list_loaded())
        assert first._settings == client._settings


class Mine(LMStudioClient):
    """A user's own kind of client."""


def test_copies_of_other_classes(fake):
    """A copy has the class of the original."""
    with Mine(fake.host) as client, copy.copy(client) as again:
        assert Mine is type(again)


# --- processes

FORK = """
import os
prediction = model.respond("slow")
assert next(iter(prediction)) == "a"
child = os.fork()
if child == 0:
    try:
        prediction.result()
    except lms.LMStudioWebsocketError as exc:
        print(exc.reason, flush=True)
    print(model.respond("child").content, flush=True)
    del prediction
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
print(model.respond("parent").content, flush=True)
prediction.cancel()
print(prediction.content, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_after_a_fork(fake):
    """The child connects anew, and the parent's stream goes on."""
    fake.reply(["a", AWAIT_CANCEL], when="slow")

    code, output, errors = run(FORK, fake)

    assert (0, "") == (code, errors)
    assert [
        "the process was forked; make a new request",
        "child",
        "parent",
        "a",
    ] == output.splitlines()
    assert 1 == sum(is_cancel(seen) for seen in fake.requests)


FORK_LOCKED = """
import os, threading
from lmstudio import client as module
client.llm.list_loaded()
(ending,) = module._endings
begun, opened, release = threading.Event(), threading.Event(), ending.owned.release
def halted():
    begun.set()
    opened.wait()
    release()
ending.owned.release = halted
closing = threading.Thread(target=client.close)
closing.start()
begun.wait()
child = os.fork()
if child == 0:
    ending.owned.release = release
    client.close()
    assert client.is_closed
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
opened.set()
closing.join()
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_while_it_closes(fake):
    """The child does not wait for a thread that did not come along."""
    assert (0, "", "") == run(FORK_LOCKED, fake)


POOL = """
import multiprocessing
def ask(client):
    return client.llm.get("any").count_tokens("one two")
if __name__ == "__main__":
    client.llm.list_loaded()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(ask, [client] * 4))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_pools(fake):
    """A client may be handed to the processes of a pool."""
    assert (0, "[2, 2, 2, 2]\n", "") == run(POOL, fake)


# --- the end of the program


def test_the_end_of_the_program(fake, monkeypatch):
    """Models are freed, connections are left alone, and errors stay inside."""
    monkeypatch.setattr(lmstudio.client, "_endings", set())
    first, second = LMStudioClient(fake.host), LMStudioClient(fake.host)
    second.llm.load("other")
    for ending in lmstudio.client._endings:
        if ending is first._ending:
            monkeypatch.setattr(ending.owned, "release", lambda deadline: 1 / 0)

    lmstudio.client._close_all()

    assert ["any"] == fake.loaded()
    assert 1 == len(second.llm.list_loaded())
    for client in (first, second):
        client._session.close()


@pytest.fixture
def closing(fake, monkeypatch):
    """A client, and an event that lets another thread go on that closes it."""
    client = LMStudioClient(fake.host)
    client.llm.list_loaded()
    ending = client._ending
    begun, opened, release = threading.Event(), threading.Event(), ending.owned.release

    def halted(*deadline):
        begun.set()
        assert opened.wait(5)
        release(*deadline)

    monkeypatch.setattr(ending.owned, "release", halted)
    closer = threading.Thread(target=client.close)
    closer.start()
    assert begun.wait(5)
    yield client, opened
    opened.set()
    closer.join()
    ending._gate.acquire(timeout=5)  # until all is closed
    assert client.is_closed


def test_ends_that_meet(closing):
    """The worker does not wait for an end that waits for the worker."""
    client, _ = closing
    done = threading.Event()
    client._ending.come_soon()
    client._session.worker.soon(done.set)
    assert done.wait(5)
    assert not client.is_closed


def test_who_closes_second_waits(closing, monkeypatch):
    """It returns when all is closed, or when it has waited for long enough."""
    client, opened = closing
    monkeypatch.setattr(lmstudio.client, "CLOSE_TIME", 0.01)
    client.close()
    assert not client.is_closed

    monkeypatch.setattr(lmstudio.client, "CLOSE_TIME", 5)
    threading.Timer(0.01, opened.set).start()
    client.close()
    assert client.is_closed


def test_the_end_of_the_program_waits_for_who_closes(closing):
    """Until its deadline, and it does nothing of it a second time."""
    client, opened = closing
    client._ending.come_at_exit(time.monotonic())
    assert not client.is_closed

    opened.set()
    client._ending.come_at_exit(time.monotonic() + 5)
    assert client.is_closed
    client._ending.come_at_exit(time.monotonic() + 5)


@pytest.mark.parametrize("where", ["caller", "helper"])
def test_at_the_end_of_the_program_no_thread_can_be_started(fake, monkeypatch, where):
    """Then whoever closes does it by itself."""

    def refuse(*_):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    client = LMStudioClient(fake.host)
    client.llm.load("other")
    if where == "caller":
        monkeypatch.setattr(lmstudio.client, "start_new_thread", refuse)
    else:
        monkeypatch.setattr(lmstudio.client, "apart", refuse)
        monkeypatch.setattr(
            lmstudio.client, "start_new_thread", lambda work, arguments: work()
        )
    client.close()
    assert client.is_closed
    assert ["any"] == fake.loaded()


def test_a_child_process_starts_anew(closing):
    """Whoever closes in the parent does not do it in the child."""
    ending = closing[0]._ending
    first, gate = ending._closer, ending._gate
    lmstudio.client._after_fork()
    assert {} == ending._closer
    assert gate is not ending._gate
    ending._closer, ending._gate = first, gate
