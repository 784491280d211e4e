"""Calls give values or typed errors, and channels carry packets both ways."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from lmstudio import calls as module
from lmstudio.address import Address
from lmstudio.calls import Channel, call, call_all, call_each, error_of
from lmstudio.errors import (
    LMStudioChannelClosedError,
    LMStudioModelNotFoundError,
    LMStudioProtocolError,
    LMStudioServerError,
    LMStudioTimeoutError,
    LMStudioUnsupportedError,
    LMStudioWebsocketError,
)
from lmstudio.mailbox import Mailbox
from lmstudio.protocol.client import End
from lmstudio.session import Session
from lmstudio.testing import AWAIT_CANCEL, DROP, NEVER, Await, FakeServer
from lmstudio.wire.common import (
    GetModelInfo,
    LoadModel,
    ModelQuery,
    ModelSpecifier,
    SpecifiedText,
    Unload,
)
from lmstudio.wire.endpoints import endpoint
from raw_server import PATIENCE, RawServer

ANY = ModelSpecifier(query=ModelQuery(identifier="any"))


@pytest.fixture
def server():
    with FakeServer(loaded=["any"]) as made:
        yield made


def session_to(server):
    return Session(Address.parse(server.host), "me", "secret")


@pytest.fixture
def session(server):
    made = session_to(server)
    yield made
    made.close()


def everything(channel):
    """All that a channel brings, its end included."""
    got = []
    while not (got and isinstance(got[-1], End)):
        batch = channel.receive(PATIENCE)
        assert batch is not None, f"only {got} in time"
        got += batch
    return got


def test_values_are_structured(session):
    """A reply becomes the type of the table; nothing where there is none."""
    text = SpecifiedText(specifier=ANY, input_string="one two")
    loaded = call(session, "llm", "listLoaded")
    info = call(session, "llm", "getModelInfo", GetModelInfo(specifier=ANY))

    assert ["any"] == [model.identifier for model in loaded]
    assert info == loaded[0]
    assert 0 < call(session, "llm", "countTokens", text).token_count
    assert call(session, "llm", "unloadModel", Unload(identifier="any")) is None
    assert call(session, "llm", "getModelInfo", GetModelInfo(specifier=ANY)) is None


def test_what_travels(server, session):
    """The parameter is there as JSON in camelCase, and absent where it is None."""
    call(session, "llm", "listLoaded")
    call(session, "llm", "getModelInfo", GetModelInfo(specifier=ANY))

    assert [None] == server.parameters("listLoaded")
    assert [
        {
            "specifier": {"type": "query", "query": {"identifier": "any"}},
            "throwIfNotFound": False,
        }
    ] == server.parameters("getModelInfo")


def test_errors_of_the_server(server, session):
    """Its error has our class for the code, and its words."""
    server.fail("countTokens", "No such model", code="generic.noModelMatchingQuery")
    text = SpecifiedText(specifier=ANY, input_string="x")
    with pytest.raises(LMStudioModelNotFoundError, match="countTokens: No such model"):
        call(session, "llm", "countTokens", text)


def test_time_limits(server, session):
    """No answer in time is an error that says how long was waited for whom."""
    server.before("version", NEVER)
    session.connection("system")  # which would count
    with pytest.raises(LMStudioTimeoutError) as caught:
        call(session, "system", "version", timeout=0.05)

    assert f"version: no answer from {server.url} within 0.05 s" == str(caught.value)
    assert 0 == session.connection("system")._protocol.open_requests
    assert call(session, "system", "version").version


def test_a_time_limit_while_connecting():
    """The limit of a call holds before it is sent, and says how far it was."""
    with RawServer("") as silent:
        session = session_to(silent)
        with pytest.raises(LMStudioTimeoutError) as caught:
            call(session, "system", "version", timeout=0.02)
        assert (
            "version: no answer within 0.02 s"
            f" (still connecting to {session.known_address})"
        ) == str(caught.value)
        session.close()


def test_ctrl_c(session, monkeypatch):
    """An interrupted call is expected no more."""

    def interrupt(self, timeout):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Mailbox, "get", interrupt)
        with pytest.raises(KeyboardInterrupt):
            call(session, "system", "version")
    assert 0 == session.connection("system")._protocol.open_requests


def test_reading_calls_survive_a_drop(server, session):
    """A call that only reads is made again on a new connection, without a limit too."""
    server.before("version", DROP)
    assert call(session, "system", "version", timeout=None).version
    assert 2 == len(server.parameters("version"))


def test_other_calls_are_made_once(server, session):
    """What changes something is never sent twice."""
    server.before("unloadModel", DROP)
    with pytest.raises(LMStudioWebsocketError, match="the server "):
        call(session, "llm", "unloadModel", Unload(identifier="any"))
    assert 1 == len(server.parameters("unloadModel"))


@pytest.mark.parametrize(
    ("value", "where", "problem"),
    [
        ({"version": 5}, "version: $.version", "expected str, not 5"),
        ({"build": 5}, "version: $", "required field missing"),
        (None, "version", "expected an object, not None"),
        ([], "version", "expected an object, not []"),
    ],
)
def test_answers_that_do_not_fit(value, where, problem):
    """The error names the endpoint, the path and what was expected."""
    with RawServer() as server, ThreadPoolExecutor(1) as pool:
        session = session_to(server)
        asking = pool.submit(call, session, "system", "version")
        peer = server.peer()
        number = peer.json()["callId"]
        peer.text({"type": "rpcResult", "callId": number, "result": value})
        error = asking.exception(PATIENCE)
        session.close()
    assert LMStudioProtocolError is type(error)
    assert error.where.startswith(where)
    assert problem == error.problem


def test_endpoints_that_the_server_does_not_know():
    """The warning that names the endpoint fails the call at once, with its text."""
    text = "No such call here, endpoint = version"
    with RawServer() as server, ThreadPoolExecutor(1) as pool:
        session = session_to(server)
        asking = pool.submit(call, session, "system", "version")
        peer = server.peer()
        peer.json()
        peer.text({"type": "communicationWarning", "warning": text})
        error = asking.exception(PATIENCE)
        session.close()
    assert LMStudioUnsupportedError is type(error)
    assert f"version: the server does not accept this call. {text}" == str(error)


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (End("result", {"error": 1}), None),
        (End("closed"), None),
        (End("error", {"title": "T"}), LMStudioServerError),
        (End("error", None), LMStudioServerError),
        (End("refused", "text"), LMStudioUnsupportedError),
        (End("lost", "reason"), LMStudioWebsocketError),
        (End("expired", LMStudioTimeoutError("late")), LMStudioTimeoutError),
        (End("expired"), None),
    ],
    ids=str,
)
def test_how_requests_end(end, kind):
    """Each end has its error, and a good one none."""
    error = error_of(end, "predict", "ws://h:1")
    assert kind == (None if error is None else type(error))


def load(session, mailbox=None, identifier="mine"):
    parameter = LoadModel(model_key="any", identifier=identifier)
    row = endpoint("llm", "loadModel")
    channel = Channel(session, row, parameter, mailbox or Mailbox())
    channel.open()
    return channel


def test_a_channel_from_start_to_end(server, session):
    """Packets come in order, and then one good end."""
    server.on_load([0.5])
    channel = load(session)
    got = everything(channel)

    assert ("loadModel", server.url) == (channel.endpoint.name, channel.address)
    assert "success" == got[-2]["type"]
    assert End("closed") == got[-1]
    assert channel.error_of(got[-1]) is None
    assert channel.receive(0) is None
    channel.cancel()
    channel.abandon()
    channel.forget()


def test_a_channel_without_a_parameter(session):
    """The table has channels that are opened with nothing."""
    channel = Channel(session, endpoint("system", "alive"), None, Mailbox())
    channel.open()
    channel.abandon()


def test_a_channel_that_was_never_opened(server, session):
    """Nothing was sent, so there is nothing to stop: whoever gives it up may always."""
    channel = Channel(session, endpoint("system", "alive"), None, Mailbox())
    assert not channel.is_sent
    channel.cancel()
    channel.abandon()
    channel.abandon_soon()
    assert session.worker._jobs.empty()
    assert server.url == channel.address
    assert not session.has_connections
    channel.open()
    assert channel.is_sent
    channel.abandon()


def test_a_channel_keeps_no_session_alive(server):
    """Once all has come, it works on without keeping its client."""
    session = session_to(server)
    channel = load(session)
    everything(channel)
    gone = threading.Event()
    weakref.finalize(session, gone.set)
    channel.outlive_session()
    shadow = session.shadow()
    del session
    gc.collect()
    assert gone.is_set()
    assert server.url == channel.address
    shadow.close()


def test_a_failing_channel(server, session):
    """The server's error ends it; a close without a last packet has its own."""
    server.fail("loadModel", "No room", code="engine.loadFailed")
    channel = load(session)
    error = channel.error_of(everything(channel)[-1])
    assert "loadModel: No room" == str(error)
    early = channel.closed_early()
    assert isinstance(early, LMStudioChannelClosedError)
    assert "loadModel: the server closed the channel without a final packet" == str(
        early
    )


def test_cancelling(server, session):
    """A cancel reaches the server, which ends the channel."""
    server.on_load([AWAIT_CANCEL])
    channel = load(session)
    channel.cancel()
    assert isinstance(everything(channel)[-1], End)
    assert ["any"] == server.loaded()


@pytest.mark.parametrize("how", ["abandon", "abandon_soon"])
def test_abandoning(server, session, how):
    """The server is asked to stop, and nothing more is delivered."""
    gate = Await()
    server.on_load([gate, 0.5])
    channel = load(session)
    assert gate.reached.wait(PATIENCE)
    getattr(channel, how)()
    server.wait_for(lambda seen: seen.message.get("message") == {"type": "cancel"})
    done = threading.Event()
    session.worker.soon(done.set)
    assert done.wait(PATIENCE)
    assert 0 == session.connection("llm")._protocol.open_requests
    gate.open()


def test_cancelling_on_a_broken_connection(server, session):
    """A broken connection stops it as well: nothing is raised."""
    gate = Await()
    server.on_load([gate])
    channel = load(session)
    assert gate.reached.wait(PATIENCE)
    channel._mailbox.request[0]._transport.close()
    with pytest.MonkeyPatch.context() as patch:
        # The reader may have forgotten the channel already; then nothing is sent.
        protocol = channel._mailbox.request[0]._protocol
        patch.setattr(protocol, "packet", lambda number, body: {"type": "x"})
        channel.cancel()
        channel.abandon()
    gate.open()


def test_finalizers_may_abandon_inside_any_lock(server, session):
    """A note for the worker takes none of the locks that others hold."""
    gate = Await()
    server.on_load([gate])
    channel = load(session)
    assert gate.reached.wait(PATIENCE)
    connection = channel._mailbox.request[0]
    with connection._state, connection._transport._sending, session._state:
        channel.abandon_soon()
    server.wait_for(lambda seen: seen.message.get("message") == {"type": "cancel"})
    gate.open()


def test_models_of_the_converter(session):
    """Other modules read and write models through here, at no cost of import."""
    assert {"identifier": "x"} == module.unstructure(Unload(identifier="x"))
    assert Unload(identifier="x") == module.structure({"identifier": "x"}, Unload, "y")


def texts(count):
    """Parameters of ``tokenize``, each with a token of its own."""
    return [SpecifiedText(specifier=ANY, input_string=f"word{n}") for n in range(count)]


def test_many_calls_come_back_in_order(server, session):
    """Each result stands where its parameter stood; no call waits for another's."""
    gate = Await()
    server.before("tokenize", gate)  # the first one is answered last

    def later():
        server.wait_for(lambda seen: "word4" in str(seen.parameter))
        gate.open()

    opener = threading.Thread(target=later)
    opener.start()
    many = call_all(session, "llm", "tokenize", texts(5))
    opener.join()

    assert [call(session, "llm", "tokenize", one) for one in texts(5)] == many
    assert 5 == len({result.tokens[0] for result in many})
    assert [] == call_all(session, "llm", "tokenize", [])


def test_many_calls_are_bounded(server, session, monkeypatch):
    """So many are under way at once, and not one more."""
    monkeypatch.setattr(module, "IN_FLIGHT", 3)
    gate = Await()
    server.before("tokenize", gate)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(call_all, session, "llm", "tokenize", texts(10))
        server.wait_for(lambda seen: "word2" in str(seen.parameter))
        gate.reached.wait(PATIENCE)
        sent = len(server.parameters("tokenize"))
        gate.open()

        assert 10 == len(running.result(PATIENCE))
    assert 3 == sent


@pytest.mark.parametrize("flight", [128, 2])
def test_one_of_many_that_fails_says_which(server, session, monkeypatch, flight):
    """The error has the index, and nothing is left waiting."""
    monkeypatch.setattr(module, "IN_FLIGHT", flight)
    parameters = texts(6)
    nobody = ModelSpecifier(query=ModelQuery(identifier="nobody"))
    parameters[3] = SpecifiedText(specifier=nobody, input_string="x")
    with pytest.raises(
        LMStudioModelNotFoundError, match=r"^input 3: tokenize: "
    ) as got:
        call_all(session, "llm", "tokenize", parameters)

    assert 3 == got.value.index
    assert 0 == session.connection("llm")._protocol.open_requests


def test_many_calls_go_on_after_a_lost_connection(server, session):
    """What was answered is not asked again; the rest is, once."""
    server.before("tokenize", ())
    server.before("tokenize", ())
    server.before("tokenize", DROP)

    many = call_all(session, "llm", "tokenize", texts(4))

    assert [call(session, "llm", "tokenize", one) for one in texts(4)] == many


def test_many_calls_time_out(server, session):
    """The time limit is that of each answer, and the error says which is missing."""
    server.before("tokenize", ())
    server.before("tokenize", NEVER)
    session.connection("llm")  # which would count
    with pytest.raises(LMStudioTimeoutError, match=r"^input 1: tokenize: no answer"):
        call_all(session, "llm", "tokenize", texts(3), timeout=0.2)

    assert 0 == session.connection("llm")._protocol.open_requests


def test_many_calls_that_change_something_are_sent_once(server, session):
    """After a lost connection nobody knows what was done: that is an error."""
    server.load("any", identifier="second")
    assert [None] == call_all(session, "llm", "unloadModel", [Unload(identifier="any")])
    server.before("unloadModel", DROP)
    with pytest.raises(LMStudioWebsocketError):
        call_all(session, "llm", "unloadModel", [Unload(identifier="second")])

    assert ["second"] == server.loaded()
    assert 2 == len(server.parameters("unloadModel"))


@pytest.mark.slow
def test_each_of_several_calls_has_an_outcome(server, session):
    """Results and errors stand in order, and all requests are out from the start."""
    server.before("tokenize", NEVER)
    server.fail("tokenize", "No")
    one = call(session, "llm", "getModelInfo", GetModelInfo(specifier=ANY))
    asked = [("llm", text) for text in texts(3)]

    late, failed, good = call_each(
        session, "tokenize", asked, deadline=time.monotonic() + 0.3
    )

    assert isinstance(late, LMStudioTimeoutError)
    assert isinstance(failed, LMStudioServerError)
    assert call(session, "llm", "tokenize", texts(3)[2]) == good
    assert one is not None
    assert [] == call_each(session, "tokenize", [], deadline=0.0)
    assert 0 == session.connection("llm")._protocol.open_requests


def test_a_lost_namespace_is_not_tried_for_each():
    """Who can't send over one connection still sends over the others."""
    tried = []

    class Half(Session):
        def connection(self, namespace, deadline=None, silence=None):
            tried.append(namespace)
            if namespace == "llm":
                raise LMStudioWebsocketError("ws://x", "gone")
            return super().connection(namespace, deadline, silence)

    with FakeServer(["any", "embed"], loaded=["any", "embed"]) as server:
        session = Half(Address.parse(server.host), "me", "secret")
        ask = GetModelInfo(specifier=ModelSpecifier(query=ModelQuery()))
        asked = [(space, ask) for space in ("llm", "embedding", "llm")]
        first, found, second = call_each(
            session, "getModelInfo", asked, deadline=time.monotonic() + PATIENCE
        )
        session.close()

    assert first is second
    assert "gone" in str(first)
    assert "embed" == found.identifier
    assert ["llm", "llm", "embedding"] == tried  # twice, as `Session.open` does
