"""What comes over HTTP is let in, or refused with a reason that the log has too."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from http.client import HTTPConnection

import pytest
from starlette.responses import JSONResponse
from starlette.routing import Route
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from lmstudio.server.limits import Limits
from lmstudio.server.origins import is_ours
from server.servers import scripted_server

PAGE = "https://example.com"
SMALL = Limits(body_bytes=1000, body_time=0.2, header_time=0.2)


@contextlib.contextmanager
def http(scripted):
    """A connection to a server."""
    connection = HTTPConnection("127.0.0.1", scripted.server.port, timeout=5)
    with contextlib.closing(connection):
        yield connection


def ask(scripted, path="/nothing", *, method="GET", body=None, **headers):
    """The status of a request, and the code of its error."""
    with http(scripted) as connection:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        text = answer.read()
        is_json = answer.headers["content-type"] == "application/json"
        error = json.loads(text).get("error", {}) if is_json else {}
        return answer.status, error.get("code")


@pytest.fixture
def scripted():
    """A server with tight limits, and a path that takes a body."""
    with scripted_server(limits=SMALL, hosts=["my.name"]) as scripted:
        add_path(scripted)
        yield scripted


def add_path(scripted):
    """Give the server a path that answers with the length of its body."""

    async def length(request):
        return JSONResponse({"length": len(await request.body())})

    routes = scripted.server._web._app._asgi.router.routes
    routes.append(Route("/length", length, methods=["POST"]))


def test_pages_are_refused(scripted, caplog):
    """Without CORS a page of another origin gets nothing but the greeting."""
    assert (403, "page") == ask(scripted, Origin=PAGE)
    assert (403, "page") == ask(
        scripted, "/length", method="POST", body=b"{}", Origin=PAGE
    )
    assert (200, None) == ask(scripted, "/lmstudio-greeting", Origin=PAGE)
    ours = f"http://127.0.0.1:{scripted.server.port}"
    assert 404 == ask(scripted, Origin=ours)[0]
    assert [f"refused a web page of {PAGE} (from 127.0.0.1)"] == caplog.messages


def test_cors_lets_pages_read_errors():
    """With CORS the page is asked nothing, and may read also what is refused."""
    with scripted_server(cors=True, limits=SMALL) as scripted:
        add_path(scripted)
        with http(scripted) as connection:
            headers = {"Origin": PAGE}
            connection.request("POST", "/length", b"x" * 2000, headers)
            answer = connection.getresponse()
            assert (413, "*") == (
                answer.status,
                answer.headers["access-control-allow-origin"],
            )


def test_cors_lets_the_internet_reach_this_machine():
    """A browser that asks first, as it does for private networks, is told yes."""
    asked = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Private-Network": "true",
    }
    said = "access-control-allow-private-network"
    with scripted_server(cors=True) as scripted, http(scripted) as connection:
        connection.request("OPTIONS", "/v1/models", headers=asked)
        answer = connection.getresponse()
        answer.read()
        assert (200, "true") == (answer.status, answer.headers[said])
        del asked["Access-Control-Request-Private-Network"]
        connection.request("OPTIONS", "/v1/models", headers=asked)
        answer = connection.getresponse()
        answer.read()
        assert (200, None) == (answer.status, answer.headers[said])


def test_without_cors_nobody_is_told_so(scripted):
    """Without CORS the question has no answer."""
    with http(scripted) as connection:
        headers = {"Origin": PAGE, "Access-Control-Request-Private-Network": "true"}
        connection.request("OPTIONS", "/v1/models", headers=headers)
        answer = connection.getresponse()
        assert 403 == answer.status
        assert "access-control-allow-private-network" not in answer.headers


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (None, True),
        ("localhost", True),
        ("localhost:1234", True),
        ("127.0.0.1:1234", True),
        ("[::1]:1234", True),
        ("192.168.1.5", True),
        ("my.name:1234", True),
        ("MY.name", True),
        ("evil.example", False),
        ("evil.example:1234", False),
        ("localhost.evil.example", False),
        ("", False),
        ("[", False),
    ],
)
def test_whose_host(host, expected):
    """Only what nobody else can point here, or what was named, is this machine."""
    assert expected == is_ours(host, ["my.name"])


def test_names_that_were_pointed_here(scripted, caplog):
    """A page that comes under its own name, pointed at us, gets nothing either way."""
    assert (403, "page") == ask(scripted, Host="evil.example")
    assert 404 == ask(scripted, Host="my.name")[0]
    port = scripted.server.port
    for host, status in (("evil.example", 403), ("my.name", None)):
        reach = socket.create_connection(("127.0.0.1", port))
        try:
            with connect(f"ws://{host}:{port}/llm", sock=reach):
                got = None
        except InvalidStatus as exc:
            got = exc.response.status_code
        assert status == got
    text = "refused a request to the host 'evil.example' (from 127.0.0.1)"
    assert [text] == caplog.messages[:1]


def test_a_body_has_a_size(scripted, caplog):
    """A body over the limit is refused, told by its length or as it comes."""
    assert (200, None) == ask(scripted, "/length", method="POST", body=b"x" * 1000)
    large = {"method": "POST", "body": b"x" * 1001}
    assert (413, "body_too_large") == ask(scripted, "/length", **large)
    pieces = {"method": "POST", "body": iter([b"x" * 600, b"x" * 600])}
    assert (413, "body_too_large") == ask(scripted, "/length", **pieces)
    assert [
        "refused POST /length: The body has more than 1000 bytes (from 127.0.0.1)"
    ] == caplog.messages


@pytest.mark.slow
def test_a_body_has_its_time(scripted, caplog):
    """A body that does not come is given up, and the connection closed."""
    head = b"POST /length HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nab"
    with socket.create_connection(("127.0.0.1", scripted.server.port), 5) as slow:
        slow.sendall(head)
        answer = read_all(slow)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert [
        "refused POST /length: The body took more than 0.2 seconds (from 127.0.0.1)"
    ] == caplog.messages


@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x"])
def test_a_head_has_its_time(scripted, caplog, sent):
    """A connection that asks for nothing, or never to the end, is closed."""
    with socket.create_connection(("127.0.0.1", scripted.server.port), 5) as slow:
        slow.sendall(sent)
        answer = read_all(slow)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"No request came within 0.2 seconds" in answer
    text = "refused a connection from 127.0.0.1: no request came within 0.2 seconds"
    assert [text] == caplog.messages


@pytest.mark.slow
def test_a_second_head_has_its_time(scripted):
    """So is one whose second request never comes to its end."""
    head = b"GET /lms-status HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", scripted.server.port), 5) as slow:
        slow.sendall(head)
        assert slow.recv(65536).startswith(b"HTTP/1.1 200 ")
        slow.sendall(head[:20])
        assert b"HTTP/1.1 408 " in read_all(slow)


@pytest.mark.slow
def test_a_socket_outlives_the_time_of_its_head(scripted):
    """What became a websocket has had its head."""
    with connect(f"{scripted.url}/llm") as opened:
        time.sleep(2 * SMALL.header_time)
        assert opened.ping().wait(5)


def read_all(connection):
    """Everything until the end."""
    got = b""
    while piece := connection.recv(65536):
        got += piece
    return got


@pytest.mark.parametrize("name", ["connections", "connections_per_address"])
def test_connections_are_counted(caplog, name):
    """Over the limit a connection is told so and closed; one may come when one goes."""
    limits = Limits(**{name: 2})
    with scripted_server(limits=limits) as scripted:
        url = f"{scripted.url}/llm"
        with connect(url), connect(url) as second:
            with pytest.raises(InvalidStatus) as refused, connect(url):
                pass
            assert 503 == refused.value.response.status_code
            assert b"2 are open" in refused.value.response.body
            second.close()
            with connect(url):
                pass
        where = " from 127.0.0.1" if name == "connections_per_address" else ""
        text = f"refused a connection from 127.0.0.1: 2 are open{where}"
        assert [text] == caplog.messages


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v1/models", "invalid_request_error"),
        ("/api/v0/models", "invalid_request_error"),
        ("/api/v1/models", "invalid_request"),
    ],
)
def test_errors_have_the_form_of_their_interface(path, kind):
    """Who is refused at the door reads an error of the interface that was asked."""
    token = "sk-lm-abcdefgh:abcdefghijklmnopqrst"
    with scripted_server(api_token=token) as scripted, http(scripted) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        error = json.loads(answer.read())["error"]
    assert (401, kind, "invalid_api_key") == (
        answer.status,
        error["type"],
        error["code"],
    )
