"""Loading a model: progress, every way to stop it, and every way to fail."""

from __future__ import annotations

import logging
import signal as signals
import threading
import types

import pytest

import lmstudio
from lmstudio import (
    LMStudioCancelledError,
    LMStudioChannelClosedError,
    LMStudioModelLoadError,
    LMStudioModelNotFoundError,
    LMStudioProtocolError,
    LMStudioTimeoutError,
    LMStudioWebsocketError,
    Signal,
)
from lmstudio.server.engine import LoadFailed
from lmstudio.testing import AWAIT_CANCEL, DROP, NEVER, Await
from scripts import is_cancel, said, start

INFO = {
    "type": "llm",
    "modelKey": "other",
    "path": "a/b",
    "identifier": "other",
    "instanceReference": "r",
}


@pytest.fixture
def impatient(monkeypatch):
    """A load that was cancelled waits only briefly for a server that is silent."""
    monkeypatch.setattr("lmstudio.loading.CANCEL_TIME", 0.2)


def channel_of(fake, endpoint="loadModel"):
    return fake.wait_for_call(endpoint).message["channelId"]


def send(fake, *bodies, endpoint="loadModel"):
    for body in bodies:
        message = {"type": "channelSend", "channelId": channel_of(fake, endpoint)}
        fake.send("llm", {**message, "message": body})


def test_progress(fake, client):
    """Progress is told in this thread, and the handle knows what was loaded."""
    fake.on_load([0.0, 0.25, 1.0])
    told = []

    model = client.llm.load(
        "other", on_progress=lambda p: told.append((threading.current_thread(), p))
    )

    me = threading.current_thread()
    assert [(me, 0.0), (me, 0.25), (me, 1.0)] == told
    assert "other" == model.identifier == model.info.identifier
    assert ["any", "other"] == fake.loaded()


def test_a_callback_that_raises(fake, client):
    """It cancels the load, and its exception comes out."""
    fake.on_load([0.0, 0.5, AWAIT_CANCEL])

    def fail(progress):
        raise ZeroDivisionError(progress)

    with pytest.raises(ZeroDivisionError):
        client.llm.load("other", on_progress=fail)

    assert fake.wait_for(is_cancel)
    assert ["any"] == fake.loaded()


@pytest.mark.parametrize("kind", [Signal, threading.Event])
def test_signal_while_loading(fake, client, kind):
    """Setting the signal in another thread cancels, and nothing stays loaded."""
    gate = Await()
    fake.on_load([0.5, gate, AWAIT_CANCEL])
    stop = kind()

    def set_later():
        gate.reached.wait(5)
        stop.set()

    thread = threading.Thread(target=set_later)
    thread.start()
    with pytest.raises(LMStudioCancelledError, match="the load was cancelled at "):
        client.llm.load("other", signal=stop)
    thread.join()

    assert ["any"] == fake.loaded()


def test_signal_already_set(fake, client):
    """Then nothing is sent at all."""
    stop = threading.Event()
    stop.set()

    with pytest.raises(LMStudioCancelledError) as caught:
        client.llm.load("other", signal=stop)

    assert "the load was cancelled before it began" == str(caught.value)
    assert [] == fake.parameters("loadModel")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Signal, threading.Event])
def test_signal_set_by_the_callback(fake, client, kind):
    """Also a load that is nearly done is cancelled: its model does not stay."""
    fake.on_load([0.5, 1.0])
    stop = kind()

    with pytest.raises(LMStudioCancelledError):
        client.llm.load("other", on_progress=lambda _: stop.set(), signal=stop)

    assert ["any"] == fake.loaded()


def test_our_signal_is_quick(fake, client, monkeypatch):
    """Nobody has to look at our own signal."""
    monkeypatch.setattr("lmstudio.loading.SIGNAL_SLICE", 60.0)
    fake.on_load([AWAIT_CANCEL])
    stop = Signal()
    threading.Timer(0.05, stop.set).start()

    with pytest.raises(LMStudioCancelledError):
        client.llm.load("other", signal=stop)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [None, threading.Event()])
def test_time_limit(fake, client, stop):
    """The load ends on both sides, and the error says how far it was."""
    fake.on_load([0.0, 0.5, AWAIT_CANCEL])

    with pytest.raises(LMStudioTimeoutError) as caught:
        client.llm.load("other", timeout=0.8, signal=stop)

    assert "loadModel: not loaded within 0.8 s (50% done)" == str(caught.value)
    assert ["any"] == fake.loaded()


def test_a_success_that_crosses_the_cancel(fake, client):
    """The model that nobody wants any more is unloaded."""
    fake.before("loadModel", NEVER)
    fake.load("other", identifier="crossed")
    stop = Signal()

    def cross():
        send(fake, {"type": "progress", "progress": 0.5})
        stop.set()
        fake.wait_for(is_cancel)
        info = {**INFO, "identifier": "crossed"}
        send(fake, {"type": "success", "info": info})

    thread = threading.Thread(target=cross)
    thread.start()
    with pytest.raises(LMStudioCancelledError):
        client.llm.load("other", signal=stop)
    thread.join()

    assert ["any"] == fake.loaded()


def test_what_came_with_the_progress(fake, client):
    """A success in the same read as the progress that was too much is seen as well."""
    fake.before("loadModel", NEVER)
    fake.load("other", identifier="crossed")
    mailboxes = []

    def fail(_):
        raise ZeroDivisionError

    def deliver():
        channel = channel_of(fake)
        connection = client._session.connection("llm")
        mailboxes.append(connection._mailboxes[channel])
        info = {**INFO, "identifier": "crossed"}
        mailboxes[0].put(
            [{"type": "progress", "progress": 0.5}, {"type": "success", "info": info}]
        )

    thread = threading.Thread(target=deliver)
    thread.start()
    with pytest.raises(ZeroDivisionError):
        client.llm.load("other", on_progress=fail)
    thread.join()

    assert ["any"] == fake.loaded()


def test_the_unloading_of_what_crossed_fails(fake, client, caplog):
    """Then somebody should know, since memory stays taken."""
    fake.before("loadModel", NEVER)
    stop = Signal()

    def cross(info):
        channel_of(fake)
        stop.set()
        fake.wait_for(is_cancel)
        send(fake, {"type": "success", "info": info})

    thread = threading.Thread(target=cross, args=(INFO,))
    thread.start()
    with pytest.raises(LMStudioCancelledError):
        client.llm.load("other", signal=stop)
    thread.join()

    assert caplog.messages[0].startswith("a cancelled load left other loaded: ")


@pytest.mark.parametrize("info", [None, {}, {"identifier": 7}], ids=str)
def test_what_crossed_has_no_name(fake, client, info):
    """There is nothing to unload by."""
    fake.before("loadModel", NEVER)
    stop = Signal()

    def cross():
        channel_of(fake)
        stop.set()
        fake.wait_for(is_cancel)
        send(fake, {"type": "success", "info": info})

    thread = threading.Thread(target=cross)
    thread.start()
    with pytest.raises(LMStudioCancelledError):
        client.llm.load("other", signal=stop)
    thread.join()

    assert [] == fake.parameters("unloadModel")


@pytest.mark.slow
def test_a_shared_load_that_crosses_stays(fake, client, impatient):
    """Another client may be using what getOrLoad has loaded."""
    fake.before("getOrLoad", NEVER)
    fake.load("other", identifier="crossed")

    def cross():
        channel_of(fake, "getOrLoad")
        fake.wait_for(is_cancel)
        info = {**INFO, "identifier": "crossed"}
        send(fake, {"type": "loadSuccess", "info": info}, endpoint="getOrLoad")

    thread = threading.Thread(target=cross)
    thread.start()
    client._session.connection("llm")  # which would count
    with pytest.raises(LMStudioTimeoutError, match="getOrLoad: not loaded within"):
        client.llm.model("other", timeout=0.4)
    thread.join()

    assert ["any", "crossed"] == fake.loaded()


@pytest.mark.slow
def test_a_server_that_ignores_the_cancel(fake, client, impatient):
    """We stop listening after a while."""
    fake.before("loadModel", NEVER)
    client._session.connection("llm")  # which would count

    with pytest.raises(LMStudioTimeoutError):
        client.llm.load("other", timeout=0.4)

    assert {} == client._session.connection("llm")._mailboxes


# --- failures


def test_it_can_not_be_loaded(fake, client):
    """The server's reasons come out, in a class of their own."""
    fake.on_load([0.5, LoadFailed("No memory", "8 GB are free")])

    with pytest.raises(LMStudioModelLoadError) as caught:
        client.llm.load("other")

    assert "No memory" in str(caught.value)
    assert [] == [seen for seen in fake.requests if is_cancel(seen)]


def test_there_is_no_such_model(client):
    """A wrong key is told apart, by both verbs."""
    for verb in (client.llm.load, client.llm.model):
        with pytest.raises(LMStudioModelNotFoundError):
            verb("nowhere")


def test_the_identifier_is_taken(fake, client):
    """It is not loaded, and what has the identifier stays."""
    with pytest.raises(LMStudioModelLoadError, match="any"):
        client.llm.load("other", identifier="any")
    assert ["any"] == fake.loaded()


def test_the_connection_breaks(fake, client):
    """The load fails at once, and the next call works."""
    fake.on_load([0.5, DROP])

    with pytest.raises(LMStudioWebsocketError, match="lost the connection"):
        client.llm.load("other")

    assert "other" == client.llm.load("other").identifier


def test_close_without_a_success(fake, client):
    """A channel that just closes is an error."""
    fake.before("loadModel", NEVER)
    number = []

    def close():
        number.append(channel_of(fake))
        fake.send("llm", {"type": "channelClose", "channelId": number[0]})

    thread = threading.Thread(target=close)
    thread.start()
    with pytest.raises(LMStudioChannelClosedError) as caught:
        client.llm.load("other")
    thread.join()
    assert "loadModel: the server closed the channel without a final packet" == str(
        caught.value
    )


def deliver_soon(fake, *bodies, endpoint="loadModel"):
    fake.before(endpoint, NEVER)
    thread = threading.Thread(
        target=send, args=(fake, *bodies), kwargs={"endpoint": endpoint}
    )
    thread.start()
    return thread


def test_a_malformed_success(fake, client, impatient):
    """An instance without a name is an error that names the field."""
    thread = deliver_soon(fake, {"type": "success", "info": {"type": "llm"}})
    with pytest.raises(LMStudioProtocolError, match="loadModel: success"):
        client.llm.load("other")
    thread.join()
    assert fake.wait_for(is_cancel)


def test_newer_servers(fake, client, caplog):
    """Unknown packets are passed over; what the user should know is logged."""
    caplog.set_level(logging.INFO, "lmstudio.loading")
    told = []
    thread = deliver_soon(
        fake,
        7,
        {"type": "somethingNew"},
        {"type": "resolved", "info": {}, "ambiguous": ["other", "another"]},
        {"type": "resolved", "info": {}},
        {"type": "unloadingOtherJITModel", "info": {"identifier": "old"}},
        {"type": "progress"},
        {"type": "progress", "progress": True},
        {"type": "progress", "progress": 0.5},
        {"type": "success", "info": INFO},
    )

    assert "other" == client.llm.load("other", on_progress=told.append).identifier
    thread.join()

    assert [0.5] == told
    assert [
        "several models match; loading the first of ['other', 'another']",
        "the server unloads 'old', to make room for a model on demand",
    ] == caplog.messages


def test_waking_up_for_nothing(fake, client):
    """A signal's listener may be called twice; the load goes on while it is unset."""
    stop = Signal()
    told = []
    fake.on_load([0.0, 0.5, 1.0])

    def tell(progress):
        told.append(progress)
        stop.set()
        stop.clear()

    assert "other" == client.llm.load("other", on_progress=tell, signal=stop).identifier
    assert [0.0, 0.5, 1.0] == told


def test_get_or_load(fake, client):
    """The shared verb tells progress, and takes what is there."""
    told = []
    fake.on_load([0.0, 1.0])

    assert "other" == client.llm.model("other", on_load_progress=told.append).identifier
    assert [0.0, 1.0] == told
    assert "other" == client.llm.model("other", on_load_progress=told.append).identifier
    assert [0.0, 1.0] == told


PROGRAM = """
def tell(progress):
    print(progress, flush=True)
client.llm.load("other", on_progress=tell)
"""


@pytest.mark.slow
def test_ctrl_c(fake):
    """Ctrl-C while it loads cancels on the server, and prints what Python prints."""
    fake.on_load([0.5, AWAIT_CANCEL])
    with start(PROGRAM, fake) as process:
        assert "0.5\n" == process.stdout.readline()
        process.send_signal(signals.SIGINT)
        output, errors = said(process, 10)

    assert fake.wait_for(is_cancel)
    assert "" == output
    assert 1 == errors.count("Traceback")
    assert errors.startswith("Traceback (most recent call last):\n")
    assert errors.endswith("\nKeyboardInterrupt\n")
    assert ["any"] == fake.loaded()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"path": 7}, "path must be text, not 7"),
        ({"path": ""}, "path must be 1 to 1024 characters"),
        ({"path": "a\n"}, "path must be 1 to 1024 characters"),
        ({"path": "\ud800"}, "path holds a lone surrogate"),
        ({"identifier": 7}, "identifier must be text, not 7"),
        ({"identifier": ""}, "identifier must be 1 to 1024 characters"),
        ({"config": [1]}, "config must be a mapping of load options, not [1]"),
        ({"config": {"contextLenght": 1}}, "unknown load option 'contextLenght'"),
        ({"acceleration": {"offload": 2}}, "load option gpu_ratio must be a number"),
        ({"preset": 7}, "preset must be text, not 7"),
        ({"no_hup": "yes"}, "no_hup must be True or False, not 'yes'"),
        ({"verbose": 1}, "verbose must be True or False, not 1"),
        ({"ttl": "1"}, "ttl must be a number of seconds of at least 0.001, not '1'"),
        ({"ttl": True}, "ttl must be a number of seconds of at least 0.001, not True"),
        ({"ttl": 0}, "ttl must be a number of seconds of at least 0.001, not 0"),
        ({"ttl": -1}, "ttl must be a number of seconds of at least 0.001, not -1"),
        ({"ttl": float("nan")}, "ttl must be a number of seconds of at least 0.001,"),
        ({"on_progress": 7}, "on_progress must be a function, not 7"),
        ({"on_progress": 7, "verbose": True}, "on_progress must be a function, not 7"),
        ({"signal": 7}, "signal must be a Signal or a threading.Event, not 7"),
        ({"timeout": 0}, "timeout must be a number of seconds above 0, or None, not 0"),
        ({"timeout": "1"}, "timeout must be a number of seconds above 0, or None,"),
    ],
    ids=lambda value: str(value)[:60].encode("ascii", "replace").decode(),
)
def test_wrong_arguments(fake, client, monkeypatch, arguments, error):
    """A wrong argument is found before the server hears of anything."""

    def ask(_):
        raise AssertionError("the server was asked")

    monkeypatch.setattr("lmstudio.session.Session.greeting", ask)
    with pytest.raises(lmstudio.LMStudioValueError) as caught:
        client.llm.load(**{"path": "other", **arguments})

    assert str(caught.value).startswith(error), str(caught.value)
    assert [] == fake.requests


def test_the_limit_covers_the_greeting(fake, client, monkeypatch):
    """What is asked before the load counts as well; then nothing is loaded."""
    now = [1000.0]

    def greet(address):
        now[0] += 5
        return {}

    monkeypatch.setattr("lmstudio.discovery.greet", greet)
    clock = types.SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr("lmstudio.loading.time", clock)

    with pytest.raises(LMStudioTimeoutError, match="loadModel: not loaded within 5 s"):
        client.llm.load("other", timeout=5)

    assert [] == fake.parameters("loadModel")
