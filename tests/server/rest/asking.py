"""Asks a server over plain HTTP, and reads what it answers."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import attrs

#: How long a test waits for an answer, seconds.
PATIENCE = 10.0
HELLO = [{"role": "user", "content": "hello there"}]


@attrs.frozen
class Answer:
    """A whole answer.

    Attributes:
        status: The HTTP status.
        headers: Its headers, small letters.
        text: Its body.
    """

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.text)

    @property
    def error(self) -> dict[str, Any]:
        """The error object."""
        error: dict[str, Any] = self.json["error"]
        return error

    @property
    def events(self) -> list[tuple[str | None, Any]]:
        """Names and data of a stream's events."""
        return [event_of(block) for block in self.text.split("\n\n") if block]

    @property
    def chunks(self) -> list[Any]:
        """The data of a stream's events, without the last word."""
        *events, last = self.events
        assert (None, "[DONE]") == last
        return [data for _, data in events]


def ask(
    url: str,
    path: str,
    body: Any = None,
    *,
    method: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Ask, and wait for the whole answer.

    Args:
        body: What to send as JSON, bytes as they are; None asks with GET.
        method: The HTTP method, if it is another one.
    """
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)
    try:
        begin(connection, path, body, method=method, headers=headers)
        answer = connection.getresponse()
        named = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, named, answer.read().decode())
    finally:
        connection.close()


def begin(
    connection: http.client.HTTPConnection,
    path: str,
    body: Any,
    *,
    method: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Send a request, and do not wait."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body)
    kind = {"content-type": "application/json"} if body is not None else {}
    verb = method or ("GET" if body is None else "POST")
    connection.request(verb, path, data, {**kind, **(headers or {})})


def stream(connection: http.client.HTTPConnection) -> Iterator[Any]:
    """The data of the events that come in answer to what was begun."""
    answer = connection.getresponse()
    assert 200 == answer.status
    for line in answer:
        if line.startswith(b"data: "):
            yield data_of(line.decode())


def event_of(block: str) -> tuple[str | None, Any]:
    """Name and data of one event."""
    name = None
    for line in block.split("\n"):
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            return name, data_of(line)
    return name, None


def data_of(line: str) -> Any:
    """The data in a line of a stream."""
    text = line.removeprefix("data: ").strip()
    return text if text == "[DONE]" else json.loads(text)
