"""Requests are read and answered as HTTP wants it, and end with their connection."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from urllib.parse import urlsplit

import pytest

from lmstudio.server.engine import Unloaded
from lmstudio.server.failures import Failure
from lmstudio.server.sampling import GenerationError
from lmstudio.testing.engine import fragment
from lmstudio.testing.script import AWAIT_CANCEL, NEVER, Await, Reply
from lmstudio.wire.config import PREDICTION
from server.rest.asking import HELLO, PATIENCE, ask, begin, event_of, stream
from server.servers import scripted_server

CHAT = "/v1/chat/completions"
#: How long the end of a prediction may take after its client is gone, seconds: 0.01 on
#: a quiet machine, and half a minute where only silence tells.
CANCELLED = 3.0
PAGE = {"Origin": "https://example.com"}


def chat(**more):
    """A request with one message."""
    return {"model": "any", "messages": HELLO, **more}


@pytest.fixture
def connection(served):
    """A connection to the server."""
    made = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=PATIENCE)
    yield made
    made.close()


def instance_of(served):
    """The only model in memory."""
    (instance,) = served.scripted.services[0].registry.loaded("llm")
    return instance


def seconds_until(condition):
    """How long it takes until a condition holds."""
    started = time.perf_counter()
    while not condition():
        assert time.perf_counter() - started < PATIENCE
    return time.perf_counter() - started


@pytest.mark.parametrize(
    ("body", "kind", "status", "code", "text"),
    [
        (b"{", "application/json", 400, "invalid_json", "no JSON: Expecting"),
        (b"\xff{}", "application/json", 400, "invalid_json", "no JSON"),
        (b"[1]", "application/json", 400, "invalid_json", "object, not [1]"),
        (b"[" * 100_000, "application/json", 400, "invalid_json", "too deeply"),
        (b"", "application/json", 400, "invalid_json", "no JSON"),
        (b"{}", "text/plain", 415, "unsupported_media_type", "'text/plain'"),
    ],
)
def test_bodies_that_are_no_requests(served, body, kind, status, code, text):
    """What is no JSON object is refused, and the error says why."""
    answer = served.ask(CHAT, body, headers={"content-type": kind})
    assert (status, code) == (answer.status, answer.error["code"])
    assert text in answer.error["message"]


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "application/x+json"]
)
def test_kinds_of_json(served, kind):
    """JSON goes by more than one name."""
    body = json.dumps(chat()).encode()
    assert 200 == served.ask(CHAT, body, headers={"content-type": kind}).status


def test_bodies_of_too_many_values(served):
    """A body that would take gigabytes once it is read is refused unread."""
    answer = served.ask(CHAT, b'{"a": [' + b"[]," * 2_000_000 + b"[]]}")

    assert (413, "too_many_values") == (answer.status, answer.error["code"])


def test_a_large_body_is_read(served):
    """A body of some megabytes is no trouble."""
    text = "x" * 3_000_000
    served.reply("ok")
    made = served.ask(CHAT, chat(messages=[{"role": "user", "content": text}]))
    assert 200 == made.status
    assert text == served.asked[0].text


def test_a_body_beyond_the_limit(served, connection):
    """A body that is announced as too large is refused before it is sent."""
    connection.putrequest("POST", CHAT)
    connection.putheader("content-type", "application/json")
    connection.putheader("content-length", str(200 * 1024 * 1024))
    connection.endheaders()
    assert 413 == connection.getresponse().status


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", CHAT, 405, "method_not_allowed"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/v1/nothing", 404, "unknown_endpoint"),
        ("POST", "/api/v0/nothing", 404, "unknown_endpoint"),
        ("GET", "/api/v1/nothing/at/all", 404, "unknown_endpoint"),
    ],
)
def test_paths_and_methods_that_are_not_there(served, method, path, status, code):
    """An unknown path or method is an error object as well."""
    body = {} if method == "POST" else None
    answer = served.ask(path, body, method=method)
    assert (status, code) == (answer.status, answer.error["code"])


def test_every_answer_has_an_id_of_its_own(served):
    """Answers and errors carry x-request-id."""
    paths = ["/v1/models", "/v1/models/none", "/v1/nothing"]
    ids = {served.ask(path).headers["x-request-id"] for path in paths}
    assert 3 == len(ids)
    assert all(one.startswith("req_") for one in ids)


@pytest.mark.parametrize(
    ("code", "said"), [("invalidAnswer", "false"), ("engine.notEnoughMemory", "false")]
)
def test_what_fails_again_is_not_tried_again(served, code, said):
    """OpenAI's clients obey a header, and would repeat a generation without it."""
    served.reply(Failure("no", data={"code": code}))
    answer = served.ask(CHAT, chat())
    assert (5, said) == (answer.status // 100, answer.headers["x-should-retry"])


def test_what_is_over_soon_may_be_tried_again(served):
    """A model that was unloaded is loaded by the next try."""
    served.reply(Unloaded("gone"))
    answer = served.ask(CHAT, chat())
    assert 503 == answer.status
    assert "x-should-retry" not in answer.headers
    answer = served.ask(CHAT, chat(model="none"))
    assert (404, None) == (answer.status, answer.headers.get("x-should-retry"))


def test_a_setting_that_is_refused_below(served):
    """What a prediction refuses is told with the field that it came from."""
    row = PREDICTION.find("max_tokens")
    served.reply(GenerationError(f"{row.key} must be 1", code="invalidSetting"))
    answer = served.ask(CHAT, chat(max_completion_tokens=5))
    assert (400, "max_completion_tokens") == (answer.status, answer.error["param"])


def test_who_is_turned_away_gets_an_id_too(served):
    """What never comes to an endpoint has an id and OpenAI's error object as well."""
    for path in ("/v1/models", CHAT):
        answer = served.ask(path, headers=PAGE)
        assert 403 == answer.status
        assert answer.headers["x-request-id"].startswith("req_")
        assert {"message", "type", "param", "code"} == answer.error.keys()
        assert "invalid_request_error" == answer.error["type"]


@pytest.mark.slow
def test_web_pages_need_cors(served):
    """Without CORS a page of another origin is refused, with it let in."""
    answer = served.ask("/v1/models", headers=PAGE)
    assert 403 == answer.status
    with scripted_server(cors=True) as open_one:
        answer = ask(open_one.http, "/v1/models", headers=PAGE)
        assert (200, "*") == (
            answer.status,
            answer.headers["access-control-allow-origin"],
        )
        preflight = {"Access-Control-Request-Method": "POST", **PAGE}
        answer = ask(open_one.http, CHAT, method="OPTIONS", headers=preflight)
        assert 200 == answer.status


@pytest.mark.parametrize("is_streamed", [False, True])
def test_hanging_up_stops_the_model(served, connection, is_streamed):
    """When the client is gone its prediction ends, soon."""
    gate = Await()
    served.reply("a", gate, "b")
    begin(connection, CHAT, chat(stream=is_streamed))
    if is_streamed:
        next(stream(connection))
    assert gate.reached.wait(PATIENCE)
    instance = instance_of(served)
    assert ("generating", 1) == instance.status
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()

    assert CANCELLED > seconds_until(lambda: instance.status == ("idle", 0))


def test_hanging_up_in_the_middle_of_a_body(served, connection):
    """Half a request is none, and nobody else notices."""
    connection.putrequest("POST", CHAT)
    connection.putheader("content-length", "1000")
    connection.endheaders(b"{")
    connection.close()
    assert 200 == served.ask(CHAT, chat()).status


class Counted(list):
    """Steps of a script that count how many were taken."""

    taken = 0

    def __init__(self, texts):
        super().__init__(Told(self, text) for text in texts)


class Told(dict):
    """A fragment that is counted when the server reads it."""

    def __init__(self, steps, text):
        super().__init__(fragment(text))
        self._steps = steps

    def __getitem__(self, name):
        self._steps.taken += name == "fragment"
        return super().__getitem__(name)


@contextlib.contextmanager
def slow_reader(url):
    """A client that asks for a stream, and reads nothing but its beginning."""
    with socket.create_connection(urlsplit(url).netloc.split(":")) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        body = json.dumps(chat(stream=True)).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        slow.sendall(head.encode() + body)
        assert slow.recv(100).startswith(b"HTTP/1.1 200")
        yield


def wait_for_backlog(url, steps):
    """Wait until no more steps are taken while others are answered."""
    before = -1
    while before != steps.taken:
        before = steps.taken
        for _ in range(5):
            assert 200 == ask(url, CHAT, chat()).status


@pytest.mark.slow
def test_a_slow_reader_holds_back_the_model(served):
    """What a client does not read is not generated either, and others go on."""
    steps = Counted(["x" * 1000] * 30_000)
    served.scripted.scripts.add_reply(Reply(steps))
    with slow_reader(served.url):
        wait_for_backlog(served.url, steps)
        assert 0 < steps.taken < len(steps)
        instance = instance_of(served)
        assert ("generating", 1) == instance.status
    assert CANCELLED > seconds_until(lambda: instance.status == ("idle", 0))


@pytest.mark.slow
def test_a_slow_reader_does_not_hold_up_the_end(caplog):
    """The server ends although a client does not read that it does."""
    with scripted_server() as scripted:
        steps = Counted(["x" * 1000] * 30_000)
        scripted.scripts.add_reply(Reply(steps))
        with slow_reader(scripted.http):
            wait_for_backlog(scripted.http, steps)
            started = time.perf_counter()
            scripted.server.close()
            assert 5 > time.perf_counter() - started
    assert "Exception" not in caplog.text


def test_the_end_of_the_server_is_told():
    """A stream that runs when the server ends gets an error as its last event."""
    with scripted_server() as scripted:
        scripted.reply("a", NEVER)
        netloc = urlsplit(scripted.http).netloc
        connection = http.client.HTTPConnection(netloc, timeout=PATIENCE)
        begin(connection, CHAT, chat(stream=True))
        answer = connection.getresponse()
        answer.readline()
        scripted.server.close()
        rest = answer.read().decode()
        connection.close()
    *_, block = [block for block in rest.split("\n\n") if block]
    _, last = event_of(block)
    assert "shutting_down" == last["error"]["code"]


def test_unforeseen_failures_are_logged(served, caplog):
    """What nobody foresaw is a 500 with an id that the log has."""
    service = served.scripted.services[0]

    async def broken(*_, **__):
        raise ZeroDivisionError("broken")

    service.predict = broken
    answer = served.ask(CHAT, chat())
    assert (500, "internal_error") == (answer.status, answer.error["code"])
    assert answer.headers["x-request-id"] in caplog.text


def test_a_cancel_that_the_model_waits_for(served, connection):
    """A model that only ends when it is told is told."""
    served.reply("a", AWAIT_CANCEL)
    begin(connection, CHAT, chat(stream=True))
    next(stream(connection))
    instance = instance_of(served)
    connection.close()
    assert CANCELLED > seconds_until(lambda: instance.status == ("idle", 0))
