"""The web server lets in whom it should, and a connection's end is noticed at once."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import urllib.error
import urllib.request

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from lmstudio.server.origins import is_foreign
from lmstudio.server.service import NAMESPACES
from lmstudio.testing.script import AWAIT_CANCEL, Await
from rawclient import prediction, raw_client, texts
from server.servers import scripted_server

PAGE = "https://example.com"


@pytest.fixture
def scripted():
    """A running server."""
    with scripted_server() as scripted:
        yield scripted


def get(url, **headers):
    """The headers and the parsed body of a URL."""
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=5) as answer:
        return dict(answer.headers), json.load(answer)


def test_greeting_and_status(scripted):
    """Both questions that clients ask before they connect are answered."""
    headers, greeting = get(f"{scripted.http}/lmstudio-greeting", Origin=PAGE)
    extensions = ["noHup", "logKinds", "loadPreset"]
    assert {"lmstudio": True, "extensions": extensions} == greeting
    assert "access-control-allow-origin" not in headers
    _, status = get(f"{scripted.http}/lms-status")
    assert {"package": str, "version": str} == {k: type(v) for k, v in status.items()}


def test_unknown_paths_are_refused(scripted):
    """What is not there is a 404, also for sockets, which else would wait."""
    with pytest.raises(urllib.error.HTTPError, match="404") as caught:
        get(f"{scripted.http}/nothing")
    caught.value.close()
    with pytest.raises(InvalidStatus) as refused, connect(f"{scripted.url}/nothing"):
        pass
    assert 404 == refused.value.response.status_code
    assert b"/llm" in refused.value.response.body


@pytest.mark.slow
def test_every_namespace_takes_sockets(scripted):
    """Each namespace of the application can be connected to, with a query as well."""
    for namespace in NAMESPACES:
        with raw_client(scripted.url, namespace):
            pass
        with connect(f"{scripted.url}/{namespace}?x=1"):
            pass


@pytest.mark.parametrize(
    "endpoint",
    [
        "registerDevelopmentPlugin",
        "startToolUseSession",
        "generateWithGenerator",
        "setToolsProvider",
    ],
)
def test_plugins_are_refused_at_once(scripted, endpoint):
    """Channels of plugins end with an error, and what the client sends is dropped."""
    with raw_client(scripted.url, "plugins") as client:
        number = client.open(endpoint, {"manifest": {}})
        warning, end = client.receive(), client.receive()
        assert "channelEndpointUnknown" == warning["kind"]
        assert ("channelError", number) == (end["type"], end["channelId"])
        assert endpoint in end["error"]["title"]
        client.cancel(number)
        assert "rpcEndpointUnknown" == client.call("reindexPlugins")["kind"]
        assert "rpcError" == client.receive()["type"]


def test_foreign_pages_are_refused(scripted, caplog):
    """A web page of another origin gets no socket; our own and programs do."""
    with (
        pytest.raises(InvalidStatus) as refused,
        connect(f"{scripted.url}/llm", origin=PAGE),
    ):
        pass
    assert 403 == refused.value.response.status_code
    with raw_client(scripted.url, origin=scripted.http) as client:
        assert [] == client.call("listLoaded")["result"]
    assert [f"refused a web page of {PAGE} (from 127.0.0.1)"] == caplog.messages


def test_cors_lets_pages_in():
    """With CORS switched on web pages get sockets and may read answers."""
    with scripted_server(cors=True) as scripted:
        headers, _ = get(f"{scripted.http}/lmstudio-greeting", Origin=PAGE)
        assert "*" == headers["access-control-allow-origin"]
        with raw_client(scripted.url, origin=PAGE) as client:
            assert [] == client.call("listLoaded")["result"]


@pytest.mark.parametrize(
    ("origin", "host", "expected"),
    [
        (None, "localhost:1234", False),
        ("http://localhost:1234", "localhost:1234", False),
        ("http://LOCALHOST:1234", "localhost:1234", False),
        ("http://127.0.0.1:1234", "127.0.0.1:1234", False),
        ("http://[::1]:1234", "[::1]:1234", False),
        ("http://192.168.1.5:1234", "192.168.1.5:1234", False),
        ("http://localhost:3000", "localhost:1234", True),
        ("http://localhost:1234", "127.0.0.1:1234", True),
        ("http://evil.example:1234", "evil.example:1234", True),
        ("https://example.com", "localhost:1234", True),
        ("null", "localhost:1234", True),
        ("", "", True),
        ("http://[", "localhost:1234", True),
        ("http://localhost:1234", None, True),
    ],
)
def test_what_is_foreign(origin, host, expected):
    """A name that anyone could point here is foreign even as its own origin."""
    assert expected == is_foreign(origin, host)


def test_a_prediction_over_the_wire(scripted):
    """Frames travel in order and uncompressed."""
    scripted.reply("Hel", "lo", "é")
    with raw_client(scripted.url) as client:
        client.load("any")
        *packets, _, end = client.packets(client.open("predict", prediction("hi")))
        assert ["Hel", "lo", "é"] == texts(packets)
        assert "channelClose" == end["type"]
        assert [] == client.socket.protocol.extensions


def test_compression_is_declined(scripted):
    """Compression costs more than it gives, so an offer is not taken."""
    with connect(f"{scripted.url}/llm") as connection:
        assert "Sec-WebSocket-Extensions" in connection.request.headers
        assert "Sec-WebSocket-Extensions" not in connection.response.headers


def test_small_frames_are_not_held_back(scripted):
    """Nagle's algorithm is off on accepted connections."""
    with raw_client(scripted.url):
        (connection,) = scripted.server._web.server_state.connections
        accepted = connection.transport.get_extra_info("socket")
        option = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert 0 != option


@pytest.mark.slow
def test_large_frames(scripted):
    """A frame of many megabytes is read, one over the limit ends the connection."""
    text = "x" * (8 * 1024 * 1024)
    with raw_client(scripted.url, max_size=None) as client:
        client.load("any")
        *packets, _, _ = client.packets(client.open("predict", prediction(text)))
        assert text == "".join(texts(packets))
    config = scripted.server._web.config
    assert 100 * 1024 * 1024 == config.ws_max_size


def test_a_dead_client_frees_its_slot(scripted):
    """A connection that breaks without a goodbye ends its predictions at once."""
    scripted.reply("one", gate := Await(), AWAIT_CANCEL)
    with raw_client(scripted.url, close_timeout=0.1) as client:
        client.load("any")
        client.open("predict", prediction("hi"))
        assert gate.reached.wait(5)
        with raw_client(scripted.url) as other:
            parameter = {
                "specifier": {"type": "query", "query": {}},
                "throwIfNotFound": True,
            }
            ask = ("getInstanceProcessingState", parameter)
            generating = {"status": "generating", "queued": 1}
            assert generating == other.call(*ask)["result"]
            client.socket.socket.shutdown(socket.SHUT_RDWR)
            gone = threading.Event()
            while not gone.is_set():
                if other.call(*ask)["result"] == {"status": "idle", "queued": 0}:
                    gone.set()


def test_closing_says_goodbye(scripted):
    """A server that ends fails what runs with its reason, then closes the sockets."""
    scripted.reply("one", gate := Await(), AWAIT_CANCEL)
    with raw_client(scripted.url) as client:
        client.load("any")
        number = client.open("predict", prediction("hi"))
        assert gate.reached.wait(5)
        scripted.server.close()
        *packets, end = client.packets(number)
        assert ["one"] == texts(packets)
        assert ("channelError", "The server is shutting down") == (
            end["type"],
            end["error"]["title"],
        )
        with pytest.raises(ConnectionClosed):
            client.receive()


@pytest.mark.slow  # it is given a second twice
def test_a_client_that_never_reads_does_not_stop_the_end(scripted):
    """A full connection delays the end of the server by a second at most."""
    scripted.reply(*["x" * 100_000] * 500)
    reader = socket.create_connection(("127.0.0.1", scripted.server.port))
    with reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        upgraded = threading.Event()
        _stubborn(reader, upgraded)
        (service,) = scripted.services
        loaded = service.registry.loaded
        while not loaded("llm") or loaded("llm")[0].status[0] != "generating":
            upgraded.wait(0)
        scripted.server.close()


def _stubborn(reader, upgraded):
    """Connect, ask for much, and read nothing of it."""
    from websockets.client import ClientProtocol
    from websockets.uri import parse_uri

    protocol = ClientProtocol(parse_uri("ws://127.0.0.1/llm"))
    protocol.send_request(protocol.connect())
    reader.sendall(b"".join(protocol.data_to_send()))
    protocol.receive_data(reader.recv(4096))
    protocol.events_received()
    upgraded.set()
    stack = {"layers": []}
    for message in (
        {"authVersion": 1, "clientIdentifier": "slow", "clientPasskey": "x"},
        {
            "type": "channelCreate",
            "endpoint": "loadModel",
            "channelId": 1,
            "creationParameter": {"modelKey": "any", "loadConfigStack": stack},
        },
    ):
        protocol.send_text(json.dumps(message).encode())
    reader.sendall(b"".join(protocol.data_to_send()))
    received = b""
    while b"channelClose" not in received:
        received += reader.recv(65536)
    message = {"type": "channelCreate", "endpoint": "predict", "channelId": 2}
    message["creationParameter"] = prediction("hi")
    protocol.send_text(json.dumps(message).encode())
    reader.sendall(b"".join(protocol.data_to_send()))


def test_a_socket_at_the_end_is_refused(scripted):
    """Whoever connects while the server ends is told so."""
    web = scripted.server._web
    stopped = asyncio.run_coroutine_threadsafe(
        web._app.stop("the end"), scripted.server._loop
    )
    stopped.result(5)
    with pytest.raises(InvalidStatus) as refused, connect(f"{scripted.url}/llm"):
        pass
    assert 503 == refused.value.response.status_code
