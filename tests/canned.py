"""Calls of a client that are answered from a recording, without a socket or thread.

`recorded` keeps what servers answer while calls run; with `answered` every request gets
such answers at once, and then the end of the connection. So nothing waits for anything,
whatever the answers are changed to.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from lmstudio.address import Address
from lmstudio.mailbox import Mailbox
from lmstudio.protocol.client import ClientProtocol, Kind, Message, Received
from lmstudio.session import Session

#: What a server answered, request by request: the endpoint, and messages for number 1.
Recording = list[tuple[str, list[Any]]]


@contextlib.contextmanager
def recorded() -> Iterator[Recording]:
    """Keep what servers answer while the block runs."""
    kept: Recording = []
    answers: dict[tuple[ClientProtocol, int], list[Any]] = {}
    open_, receive = ClientProtocol.open, ClientProtocol.receive

    def opened(
        self: ClientProtocol, kind: Kind, endpoint: str, *rest: Any
    ) -> tuple[int, Message]:
        number, message = open_(self, kind, endpoint, *rest)
        answers[self, number] = []
        kept.append((endpoint, answers[self, number]))
        return number, message

    def received(self: ClientProtocol, messages: Iterable[Any]) -> Received:
        for message in json.loads(json.dumps(messages)):
            name = "callId" if "callId" in message else "channelId"
            answers[self, message[name]].append({**message, name: 1})
        return receive(self, messages)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClientProtocol, "open", opened)
        patch.setattr(ClientProtocol, "receive", received)
        yield kept


class Canned:
    """Stands for all connections of a client."""

    address = Address("127.0.0.1", 1)
    is_usable = True

    def __init__(self, recording: Recording) -> None:
        self.memory: dict[Any, Any] = {}
        self._recording = list(recording)

    def open(
        self,
        kind: Kind,
        endpoint: str,
        parameter: Any,
        mailbox: Mailbox,
        *limits: float | None,
    ) -> int:
        """Answer with what the next request to this endpoint was answered with."""
        protocol = ClientProtocol()
        number, _ = protocol.open(kind, endpoint, parameter)
        mailbox.request = (self, number)
        row = next((row for row in self._recording if row[0] == endpoint), None)
        messages = []
        if row is not None:
            self._recording.remove(row)
            messages = row[1]
        for batch in protocol.receive(messages).batches.values():
            mailbox.put(batch)
        for end in protocol.end("the recording is over").values():
            mailbox.put([end])
        return number

    def send_packet(self, number: int, body: Any) -> None:
        """Nobody listens."""

    def forget(self, number: int) -> None:
        """Nothing is remembered."""

    def abandon(self, number: int, request: str = "cancel") -> None:
        """Nothing goes on."""


@contextlib.contextmanager
def answered(recording: Recording) -> Iterator[None]:
    """Answer all requests of new clients from a recording."""
    canned = Canned(recording)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "connection", lambda *_, **__: canned)
        patch.setattr(Session, "greeting", lambda self: {})
        yield
