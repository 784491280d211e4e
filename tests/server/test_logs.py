"""Whoever watches the server is told what it does, and holds nobody up."""

from __future__ import annotations

import asyncio

import pytest

from lmstudio.server.logs import MOST_WAITING, Listener, Logs
from schema import problems
from server.benches import on_a_bench

ALL = ["llm.prediction.input", "llm.prediction.output"]


async def watching(bench, *parameter):
    """A socket that watches, once the server has noticed; and the channel."""
    socket = await bench.another("diagnostics")
    number = await socket.open("streamLogs", *parameter)
    while not bench.service.logs._listeners:
        await asyncio.sleep(0)
    return socket, number


async def stop(socket, number):
    message = {"type": "stop"}
    await socket.say({"type": "channelSend", "channelId": number, "message": message})
    return await socket.packets(number)


@on_a_bench
async def test_official_clients_are_told_of_inputs_only(bench):
    """Without a parameter only the kind is sent that every client knows."""
    await bench.socket.load()
    socket, number = await watching(bench)
    bench.reply("one", " two")
    await bench.socket.predict("Hello")
    packet, end = await stop(socket, number)

    assert {"type": "channelClose", "channelId": number} == end
    assert [] == problems("diagnostics/channel/streamLogs/toClientPacket", packet)
    assert {
        "type": "llm.prediction.input",
        "modelPath": "testing/any-GGUF/any-Q4_K_M.gguf",
        "modelIdentifier": "any",
        "input": "Hello",
    } == packet["log"]["data"]
    assert 1e12 < packet["log"]["timestamp"] < 1e13  # milliseconds
    assert not bench.service.logs._listeners


@on_a_bench
async def test_who_asks_for_outputs_gets_them(bench):
    """The text and the stats of a prediction come when it has ended."""
    await bench.socket.load()
    socket, number = await watching(bench, {"kinds": [*ALL, "some.newer"]})
    bench.reply("one", " two", stop="limit")
    success = (await bench.socket.predict("Hello"))[-2]
    first, second, _ = await stop(socket, number)

    assert ALL == [packet["log"]["data"]["type"] for packet in (first, second)]
    assert {
        "type": "llm.prediction.output",
        "modelIdentifier": "any",
        "output": "one two",
        "stats": success["stats"],
    } == second["log"]["data"]


@on_a_bench
async def test_a_client_that_vanishes_watches_no_longer(bench):
    """Its queue goes with it."""
    socket, _ = await watching(bench)
    await socket.peer.ended()

    assert not bench.service.logs._listeners


def test_a_slow_client_loses_the_oldest(caplog):
    """The queue is bounded, and the log says once that entries are missed."""

    async def main():
        listener = Listener(["a"])
        for number in range(MOST_WAITING + 2):
            listener.put({"n": number})
        listener.close()
        got = []
        while (entry := await listener.next()) is not None:
            got.append(entry["n"])
        return got

    assert [*range(2, MOST_WAITING + 2)] == asyncio.run(main())
    assert ["a client reads the log too slowly and misses entries"] == caplog.messages


@pytest.mark.parametrize(("kind", "wanted"), [("a", True), ("b", False)])
def test_nothing_is_made_for_nobody(kind, wanted):
    """Those who make costly entries can ask whether anybody wants them."""

    async def main():
        logs = Logs()
        before = logs.wants("a")
        with logs.listen(["a"]) as listener:
            during = logs.wants(kind)
            logs.add(kind, x=1)
            listener.close()
            entry = await listener.next()
        return before, during, None if entry is None else entry["data"], logs.wants("a")

    data = {"type": "a", "x": 1} if wanted else None
    assert (False, wanted, data, False) == asyncio.run(main())
