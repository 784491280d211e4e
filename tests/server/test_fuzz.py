"""Nothing that a client sends brings the server down or leaves anything behind.

The budget is fixed: so many messages of each kind, from one seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import random
import socket
import struct
import threading
import tracemalloc

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from lmstudio.server.limits import Limits
from lmstudio.testing.script import AWAIT_CANCEL
from lmstudio.wire.endpoints import ENDPOINTS
from rawclient import prediction, raw_client
from server.servers import scripted_server

SEED = 20240417
ROUNDS = 100
AUTH = {"authVersion": 1, "clientIdentifier": "fuzz", "clientPasskey": "x"}
TYPES = (
    "rpcCall",
    "channelCreate",
    "channelSend",
    "channelAck",
    "signalSubscribe",
    "signalUnsubscribe",
    "writableSignalSubscribe",
    "writableSignalUpdate",
    "communicationWarning",
    "keepAlive",
    "no such type",
)
#: Values that stand where others are expected.
ODD = (
    None,
    True,
    -1,
    0,
    3.5,
    2**70,
    "",
    "x" * 5000,
    "\ud800",
    "\0",
    "../../etc/passwd",
    "__proto__",
    [],
    {},
    [[[]]],
    {"a": {"b": {"c": {}}}},
)


#: Names that messages have in them.
NAMES = (
    "modelSpecifier",
    "specifier",
    "history",
    "messages",
    "content",
    "type",
    "query",
    "identifier",
    "path",
    "predictionConfigStack",
    "loadConfigStack",
    "layers",
    "config",
    "fields",
    "key",
    "value",
    "modelKey",
    "instanceReference",
    "sessionIdentifier",
    "inputString",
    "opts",
    "throwIfNotFound",
    "noHup",
    "structured",
    "preset",
    "role",
    "text",
    "layerName",
    "contentBase64",
    "name",
    "kinds",
)


@pytest.fixture
def scripted(caplog):
    """A server; afterwards nothing is left in it, and its log has no failures."""
    limits = Limits(authentication_time=0.5, header_time=0.5, channels=200)
    with scripted_server(limits=limits) as scripted:
        with raw_client(scripted.url) as client:  # what is made once is made now
            client.load("any")
        before = left(scripted)
        yield scripted
        works(scripted)
        assert before == settled(scripted, before)
    problems = [r for r in caplog.records if r.levelname in ("ERROR", "CRITICAL")]
    assert [] == [r.getMessage() + (r.exc_text or "") for r in problems]


def left(scripted):
    """How many tasks, connections, clients, timers and open files there are."""

    async def count():
        web = scripted.server._web
        (service,) = scripted.services
        return {
            "tasks": len(asyncio.all_tasks()),
            "connections": len(web.server_state.connections),
            "clients": len(service.clients),
            "peers": len(web._app._peers),
            "files": len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc") else 0,
        }

    loop = scripted.server._loop
    return asyncio.run_coroutine_threadsafe(count(), loop).result(10)


def settled(scripted, expected):
    """The same once it is as expected, or after a while."""
    waiting = threading.Event()
    for _ in range(200):
        if (now := left(scripted)) == expected:
            return now
        waiting.wait(0.05)  # sockets take a moment to close
    return now


def works(scripted):
    """Assert that a client gets what it should."""
    scripted.reply("fine")
    with raw_client(scripted.url) as client:
        *packets, _, end = client.packets(client.open("predict", prediction("hi")))
        assert ["fine"] == [
            p["fragment"]["content"] for p in packets if "fragment" in p
        ]
        assert "channelClose" == end["type"]


@contextlib.contextmanager
def opened(scripted, namespace="llm"):
    """An authenticated socket."""
    url = f"{scripted.url}/{namespace}"
    with connect(url, compression=None, max_size=None, close_timeout=1) as made:
        made.send(json.dumps(AUTH))
        assert {"success": True} == json.loads(made.recv(5))
        yield made


def fence(connection, number=10**6):
    """Everything that the server says up to the answer of a call that it knows."""
    connection.send(json.dumps({"type": "keepAlive"}))
    said = []
    while (message := json.loads(connection.recv(10))) != {"type": "keepAliveAck"}:
        said.append(message)
    return said


def odd_number(chance):
    """A number of a call or channel, which is one every second time."""
    return chance.randrange(50) if chance.random() < 0.5 else chance.choice(ODD[:6])


def odd_message(chance):
    """A message that is nearly right."""
    names = [name for _, name in ENDPOINTS]
    message = {
        "type": chance.choice([*TYPES, *["rpcCall", "channelCreate"] * 3]),
        "endpoint": chance.choice([*names, *names, "nothing", *ODD]),
        "callId": odd_number(chance),
        "channelId": odd_number(chance),
        "subscribeId": odd_number(chance),
        "parameter": odd_value(chance),
        "creationParameter": odd_value(chance),
        "message": odd_value(chance),
        "warning": chance.choice(ODD),
    }
    for name in chance.sample(sorted(message), chance.randrange(4)):
        del message[name]
    return message


def odd_value(chance, depth=3):
    """A value that has the right names in it, and wrong things under them."""
    if depth == 0 or chance.random() < 0.3:
        return chance.choice(ODD)
    made = {n: odd_value(chance, depth - 1) for n in chance.sample(NAMES, 6)}
    return [made] if chance.random() < 0.2 else made


@pytest.mark.slow
@pytest.mark.parametrize("namespace", ["llm", "embedding", "system", "files"])
def test_messages_that_are_nearly_right(scripted, namespace):
    """Each gets its warning, its error, or nothing; the socket always goes on."""
    chance = random.Random(f"{SEED} {namespace}")
    said = []
    with opened(scripted, namespace) as connection:
        for _ in range(ROUNDS):
            message = odd_message(chance)
            if message.get("endpoint") == "requestShutdown":
                continue
            connection.send(json.dumps(message))
            said += fence(connection)
    warnings = [one for one in said if one["type"] == "communicationWarning"]
    assert 5 == len(warnings)
    assert {"rpcError", "channelError"} <= {one["type"] for one in said}


def test_text_that_is_no_message(scripted, caplog):
    """What is no JSON, or no object, or binary, is dropped, and the log says so."""
    chance = random.Random(SEED)
    frames = [
        "",
        "{",
        "null",
        "NaN",
        '"a',
        "[1",
        "\0",
        "{}" * 50,
        '{"type": "rpcCall"}',
    ]
    frames += [chance.randbytes(40) for _ in range(50)]
    good = json.dumps({"type": "rpcCall", "endpoint": "listLoaded", "callId": 1})
    frames += [good[: chance.randrange(len(good))] for _ in range(50)]
    with opened(scripted) as connection:
        for frame in frames:
            connection.send(frame)
        assert [] == fence(connection)
        connection.send(good)
        assert 1 == json.loads(connection.recv(5))["callId"]
    assert any("dropped a frame of" in line for line in caplog.messages)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [50, 200, 400, 800, 950, 985, 2000, 100_000])
def test_deep_json(scripted, depth):
    """However deep it is, wherever it stands, the socket goes on."""
    deep = "[" * depth + "]" * depth
    objects = '{"a":' * depth + "1" + "}" * depth
    templates = (
        "%s",
        '{"type": "rpcCall", "endpoint": "tokenize", "callId": 1, "parameter": %s}',
        '{"type": "rpcCall", "endpoint": %s, "callId": 1}',
        '{"type": "rpcCall", "endpoint": "echo", "callId": 2, "parameter": %s}',
        '{"type": "channelCreate", "endpoint": "loadModel", "channelId": 3,'
        ' "creationParameter": {"modelKey": "any", "loadConfigStack": %s}}',
        '{"type": "channelCreate", "endpoint": "loadModel", "channelId": 3,'
        ' "creationParameter": {"path": "nothing", "acceleration": %s}}',
        '{"type": "channelCreate", "endpoint": "predict", "channelId": 4,'
        ' "creationParameter": {"modelSpecifier": {"type": "query", "query": {}},'
        ' "history": {"messages": []}, "predictionConfigStack": {"layers":'
        ' [{"layerName": "x", "config": {"fields": [{"key":'
        ' "llm.prediction.structured", "value": %s}]}}]}}}',
        '{"type": "channelSend", "channelId": 4, "message": %s}',
        '{"type": "communicationWarning", "warning": %s}',
    )
    with opened(scripted) as connection:
        for template in templates:
            for value in (deep, objects):
                connection.send(template % value)
                fence(connection)


@pytest.mark.slow
def test_messages_over_the_limit(scripted, caplog):
    """200 MB in one message, declared or in pieces, end the socket with 1009."""
    most = 100 * 1024 * 1024
    with opened(scripted) as connection:
        # Only the head says that so much comes: nobody waits for it.
        head = struct.pack("!BBQ", 0x81, 0x80 | 127, 200 * 1000 * 1000) + b"\0" * 4
        connection.socket.sendall(head + b"x" * 1000)
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(5)
        assert 1009 == closed.value.rcvd.code
    piece = "x" * (25 * 1024 * 1024)
    with opened(scripted) as connection, pytest.raises(ConnectionClosed):
        connection.send(piece for _ in range(8))
        connection.recv(10)
    assert most < 8 * len(piece)
    assert any("closed a websocket from 127.0.0.1" in line for line in caplog.messages)


@pytest.mark.parametrize(
    "broken",
    [
        b"\x83\x80\0\0\0\0",  # an opcode that there is not
        b"\xf1\x80\0\0\0\0",  # reserved bits
        b"\x81\x01a",  # not masked
        b"\x80\x80\0\0\0\0",  # goes on with what was not begun
        b"\x89\xfe\0\x80\0\0\0\0" + b"x" * 128,  # a ping that is too long
        b"\x81\x82\0\0\0\0\xff\xfe",  # not UTF-8
    ],
)
def test_frames_that_break_the_rules(scripted, broken):
    """A frame that no websocket may send ends its socket, and says by which code."""
    with opened(scripted) as connection:
        connection.socket.sendall(broken)
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(5)
        assert closed.value.rcvd.code in (1002, 1007)


@pytest.mark.slow
def test_half_open_connections(scripted, caplog):
    """Connections that never say who they are, at any stage, are closed."""
    port = scripted.server.port
    upgrade = (
        f"GET /llm HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()
    stages = [b"", b"G", upgrade[:60], upgrade, upgrade + b"\x81"]
    open_ones = []
    try:
        for number in range(100):
            one = socket.create_connection(("127.0.0.1", port), 10)
            open_ones.append(one)
            one.sendall(stages[number % len(stages)])
        for one in open_ones:
            while one.recv(65536):
                pass  # until the server closes it
    finally:
        for one in open_ones:
            one.close()
    kinds = ("refused a connection", "refused a client: Authentication took too long")
    for kind in kinds:
        assert any(line.startswith(kind) for line in caplog.messages)


@pytest.mark.slow
def test_connections_that_break_off(scripted):
    """A connection that is reset in the middle of anything leaves nothing."""
    linger = struct.pack("ii", 1, 0)
    message = {"type": "channelCreate", "endpoint": "predict", "channelId": 1}
    message["creationParameter"] = prediction("hi")
    for number in range(40):
        with contextlib.suppress(ConnectionClosed), opened(scripted) as connection:
            if number % 2:
                scripted.reply("one", AWAIT_CANCEL)
                connection.send(json.dumps(message))
                while "fragment" not in connection.recv(5):
                    pass
            option = (socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.socket.setsockopt(*option)
            # Not close(): that does not wake the thread that reads.
            connection.socket.shutdown(socket.SHUT_RDWR)


@pytest.mark.slow
def test_ten_thousand_channels(scripted, caplog):
    """As many as may are open, and each other one is answered with an error."""
    with opened(scripted, "system") as connection:

        def flood():
            for number in range(10_000):
                message = {"type": "channelCreate", "endpoint": "alive"}
                connection.send(json.dumps(message | {"channelId": number}))

        sender = threading.Thread(target=flood)
        sender.start()
        ends = [json.loads(connection.recv(10)) for _ in range(10_000 - 200)]
        sender.join()
        assert [] == fence(connection)
    assert {"channelError"} == {end["type"] for end in ends}
    assert [*range(200, 10_000)] == [end["channelId"] for end in ends]
    assert {"Too much is open on this connection"} == {
        end["error"]["title"] for end in ends
    }
    refused = "refused a channel: 200 channels are open on this connection"
    assert f"{refused} (from 127.0.0.1)" in caplog.messages


@pytest.mark.slow
def test_memory_does_not_grow(scripted):
    """Further messages and sockets take no more memory than the first ones."""

    def work():
        chance = random.Random(SEED)
        for _ in range(10):
            with opened(scripted) as connection:
                for _ in range(10):
                    connection.send(json.dumps(odd_message(chance)))
                fence(connection)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    work()
    tracemalloc.start()
    try:
        first, last = work(), work()
    finally:
        tracemalloc.stop()
    assert last - first < 100_000
