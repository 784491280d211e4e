"""A peer answers every message that wants it, and ends with its socket."""

from __future__ import annotations

import asyncio
import math
import time

import pytest

from lmstudio.server import calls, channels
from lmstudio.server.limits import Limits
from lmstudio.server.peer import RUNNING, encoded
from lmstudio.testing.script import NEVER, Await
from lmstudio.wire.endpoints import ENDPOINTS
from rawclient import history, prediction, query, texts
from server.benches import STACK, Bench, Socket, on_a_bench, reached


def test_every_endpoint_of_the_table_is_served():
    """The tables of handlers have the rows of the endpoint table, no more or less."""
    assert {*ENDPOINTS} == {*calls.CALLS, *channels.CHANNELS}
    kinds = {"rpc": calls.CALLS, "channel": channels.CHANNELS}
    assert all(name in kinds[ENDPOINTS[name].kind] for name in ENDPOINTS)


@on_a_bench
async def test_sockets_with_one_passkey_are_one_client(bench):
    """A known identifier needs its passkey; the socket of another is closed."""
    await bench.another("system")
    assert 1 == len(bench.service.clients)
    stranger = Socket(bench.service)
    refusal = {"success": False, "error": "Passkey does not belong to this client"}
    assert refusal == await stranger.authenticate(clientPasskey="other")
    assert stranger.is_closed
    await stranger.peer.ended()
    await bench.another(clientIdentifier="somebody else")
    assert 2 == len(bench.service.clients)


def test_who_does_not_authenticate_is_turned_away():
    """Without a valid auth packet in time the client is refused and cut off."""

    async def main():
        socket = Socket(Bench().service, limits=Limits(authentication_time=0.0))
        await socket.say({"type": "rpcCall", "endpoint": "listLoaded", "callId": 1})
        refusal = {"success": False, "error": "Authentication took too long"}
        assert refusal == await socket.sent.get()
        while not socket.is_closed:
            await asyncio.sleep(0)
        await socket.peer.ended()

    asyncio.run(main())


@pytest.mark.parametrize("frame", ["x" * 8193, "[" * 8193, b"x" * 8193])
def test_large_frames_before_authentication(frame):
    """Who has not said who it is gets nothing large read; the socket is closed."""

    async def main():
        socket = Socket(Bench().service)
        await socket.peer.receive(frame)
        reason = "The first message has 8193 characters, of at most 8192"
        assert {"success": False, "error": reason} == await socket.sent.get()
        assert socket.is_closed
        await socket.peer.ended()

    asyncio.run(main())


@on_a_bench
async def test_numbers_may_be_written_as_floats(bench):
    """Clients whose numbers are floats get their answers."""
    socket = bench.socket
    call = {"type": "rpcCall", "endpoint": "listLoaded", "callId": 7.0}
    await socket.say(call)
    assert {"type": "rpcResult", "callId": 7, "result": []} == await socket.sent.get()
    await socket.say(call | {"callId": 7.5})
    await socket.say(call | {"callId": 8})
    assert 8 == (await socket.sent.get())["callId"]


@on_a_bench
async def test_messages_of_too_many_values(bench):
    """A message that would take gigabytes once it is read closes its socket unread."""
    frame = "[" + "[]," * 2_000_000 + "[]]"
    started = time.thread_time()
    await bench.socket.peer.receive(frame)

    assert time.thread_time() - started < 1
    warning = (await bench.socket.sent.get())["warning"]
    assert "A message has more than 2000000 values" == warning
    assert bench.socket.is_closed


@pytest.mark.parametrize("frame", ["", "{", "[" * 100_000, b"{}", "null", '"\\ud800"'])
@on_a_bench
async def test_garbage_is_dropped(bench, frame):
    """A frame that is no JSON object gets no reply, and the socket goes on."""
    await bench.socket.peer.receive(frame)
    assert {"type": "rpcResult", "callId": 1, "result": []} == (
        await bench.socket.call("listLoaded")
    )


@on_a_bench
async def test_a_client_that_vanishes_frees_its_slot(bench):
    """The end of a socket ends its predictions at once."""
    await bench.socket.load(ttlMs=3_600_000)
    bench.reply("one", gate := Await())
    await bench.socket.open("predict", prediction("hi"))
    await reached(gate)
    instance = bench.service.registry.loaded("llm")[0]
    assert ("generating", 1) == instance.status
    await bench.socket.peer.ended()
    assert ("idle", 0) == instance.status


@on_a_bench
async def test_the_end_of_the_server_is_said(bench):
    """Everything that runs fails with the reason, and the socket is closed."""
    await bench.socket.load()
    bench.reply(gate := Await())
    number = await bench.socket.open("predict", prediction("hi"))
    await reached(gate)
    await bench.socket.peer.stop("The server is shutting down")
    *_, end = await bench.socket.packets(number)
    assert "channelError" == end["type"]
    assert "The server is shutting down" == end["error"]["title"]
    assert bench.socket.is_closed
    gate.open()
    await bench.socket.peer.ended()
    assert bench.socket.sent.empty()


@on_a_bench
async def test_what_is_not_there_yet_is_said(bench):
    """A namespace of the application that we lack warns, and fails the call."""
    socket = await bench.another("files")
    message = {"type": "rpcCall", "endpoint": "getDocumentParsing", "callId": 1}
    await socket.say(message)
    warning, error = await socket.sent.get(), await socket.sent.get()
    text = "No such call in namespace files, endpoint = getDocumentParsing"
    kind = "rpcEndpointUnknown"
    assert {
        "type": "communicationWarning",
        "warning": text,
        "kind": kind,
    } == warning
    assert ("rpcError", text) == (error["type"], error["error"]["title"])


@on_a_bench
async def test_a_fault_of_ours_is_an_error_too(bench, caplog):
    """A handler that breaks is an error for the caller, and logged."""
    await bench.socket.load()

    async def broken(*_):
        raise KeyError("oops")

    bench.service.format_prompt = broken
    parameter = {
        "specifier": query(),
        "history": history("hi"),
        "predictionConfigStack": STACK,
        "opts": {},
    }
    answer = await bench.socket.call("applyPromptTemplate", parameter)
    assert "The server failed" == answer["error"]["title"]
    assert "KeyError: 'oops'" == answer["error"]["cause"]
    assert ["unexpected failure"] == [record.message for record in caplog.records]


@on_a_bench
async def test_calls_don_t_wait_for_each_other(bench):
    """A prediction that waits holds up neither calls nor other predictions."""
    await bench.socket.load()
    bench.reply(gate := Await(), "late", when="slow")
    slow = await bench.socket.open("predict", prediction("slow"))
    await reached(gate)
    for _ in range(2):  # its progress
        assert slow == (await bench.socket.sent.get())["channelId"]
    *packets, _, _ = await bench.socket.predict("quick")
    assert ["quick"] == texts(packets)
    gate.open()
    *packets, _, _ = await bench.socket.packets(slow)
    assert ["late"] == texts(packets)


@pytest.mark.slow
def test_a_slow_client_holds_up_nobody_else():
    """A prediction waits while its client does not read; others go on."""

    async def main():
        bench = Bench()
        slow = Socket(bench.service)
        await slow.authenticate(clientIdentifier="slow")
        quick = await bench.another()
        await quick.load()
        blocked, may_go = asyncio.Event(), asyncio.Event()
        put = slow.put
        sent = 0

        async def hold(text):
            nonlocal sent
            sent += 1
            blocked.set()
            await may_go.wait()
            await put(text)

        slow.peer._send_text = hold
        bench.reply(*["x"] * 1000, when="much")
        number = await slow.open("predict", prediction("much"))
        await blocked.wait()
        *packets, _, _ = await quick.predict("quick")
        assert ["quick"] == texts(packets)
        assert 1 == sent  # it waits, and does not pile up
        may_go.set()
        *packets, _, _ = await slow.packets(number)
        assert 1000 == len(texts(packets))
        for socket in (slow, quick):
            await socket.peer.ended()
        await bench.service.close()

    asyncio.run(asyncio.wait_for(main(), 10))


@on_a_bench
async def test_a_socket_s_calls_take_turns(bench, monkeypatch):
    """Of many calls a few run at once, the others next; all are answered."""
    running, most, may_go = 0, 0, asyncio.Event()

    async def held(*_):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await may_go.wait()
        running -= 1

    bench.service.before = held
    for number in range(200):
        await bench.socket.say(a_call(number))
    while running < RUNNING:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert RUNNING == running
    may_go.set()
    numbers = {(await bench.socket.sent.get())["callId"] for _ in range(200)}
    assert set(range(200)) == numbers
    assert RUNNING == most


@on_a_bench
async def test_a_socket_is_not_read_while_it_asks_too_much(bench, monkeypatch):
    """A client that sends calls and reads no reply is held back; others go on."""
    monkeypatch.setattr("lmstudio.server.peer.BACKLOG", 100_000)
    may_read = asyncio.Event()
    put = bench.socket.put

    async def hold(text):
        await may_read.wait()
        await put(text)

    bench.socket.peer._send_text = hold
    taken = 0

    async def flood():
        nonlocal taken
        for number in range(100):
            await bench.socket.say(a_call(number, "x" * 6000))
            taken += 1

    flooding = asyncio.create_task(flood())
    another = await bench.another(clientIdentifier="another")
    for _ in range(20):
        assert "rpcResult" == (await another.call("listLoaded"))["type"]
    assert 9 == taken  # of some 10,000 bytes each; the tenth waits in `say`
    may_read.set()
    await flooding
    numbers = {(await bench.socket.sent.get())["callId"] for _ in range(100)}
    assert set(range(100)) == numbers


def a_call(number, ballast=""):
    """A call that any socket answers."""
    call = {"type": "rpcCall", "endpoint": "listLoaded", "callId": number}
    return call | {"ballast": ballast}


@on_a_bench
async def test_never_is_ended_by_the_socket(bench):
    """What can't be cancelled ends with its socket."""
    await bench.socket.load()
    bench.reply(NEVER)
    await bench.socket.open("predict", prediction("hi"))
    instance = bench.service.registry.loaded("llm")[0]
    while instance.status == ("idle", 0):
        await asyncio.sleep(0)
    await bench.socket.peer.ended()
    assert ("idle", 0) == instance.status


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"a": "é"}, '{"a":"é"}'),
        ({"a": "\ud800"}, '{"a":"\\ud800"}'),
        ({"a": math.nan, "b": [1.0, math.inf], "c": 1}, '{"b":[1.0],"c":1}'),
    ],
)
def test_every_message_can_be_encoded(message, expected):
    """Half a surrogate pair is escaped, and what is no number is left out."""
    text = encoded(message)
    assert expected == text
    assert text.encode()


@on_a_bench
async def test_a_complaint_is_logged(bench, caplog):
    """What a client does not understand is a warning in the log, cut short."""
    text = "I don't know what that is" + "!" * 1000
    await bench.socket.say({"type": "communicationWarning", "warning": text})
    (record,) = caplog.records
    assert ("WARNING", f"a client complains: {text[:300]}") == (
        record.levelname,
        record.message,
    )
    assert bench.socket.sent.empty()
