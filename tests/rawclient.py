"""A client that sends and receives bare messages."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from typing import Any

from websockets.sync.client import ClientConnection, connect

Message = dict[str, Any]
#: How long an answer may take, seconds.
PATIENCE = 5.0


class RawClient:
    """One socket of one namespace, authenticated."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.numbers = 0

    def send(self, message: Any) -> None:
        """Send a message as it is."""
        self.socket.send(json.dumps(message))

    def receive(self) -> Message:
        """The next message."""
        message: Message = json.loads(self.socket.recv(timeout=PATIENCE))
        return message

    def start(self, endpoint: str, *parameter: Any) -> int:
        """Start a call; returns its number."""
        self.numbers += 1
        message = {"type": "rpcCall", "endpoint": endpoint, "callId": self.numbers}
        self.send(message | dict(zip(["parameter"], parameter, strict=False)))
        return self.numbers

    def call(self, endpoint: str, *parameter: Any) -> Message:
        """Make a call; returns the message that answers it."""
        self.start(endpoint, *parameter)
        return self.receive()

    def open(self, endpoint: str, *parameter: Any) -> int:
        """Open a channel; returns its number."""
        self.numbers += 1
        message = {
            "type": "channelCreate",
            "endpoint": endpoint,
            "channelId": self.numbers,
        }
        self.send(message | dict(zip(["creationParameter"], parameter, strict=False)))
        return self.numbers

    def cancel(self, number: int) -> None:
        """Ask the server to stop what a channel does."""
        message = {"type": "cancel"}
        self.send({"type": "channelSend", "channelId": number, "message": message})

    def packets(self, number: int) -> list[Message]:
        """Everything that comes on a channel: the packets, then its last message.

        Nothing may come for another one meanwhile.
        """
        got = []
        while True:
            message = self.receive()
            assert number == message.get("channelId"), message
            if message["type"] != "channelSend":
                return [*got, message]
            got.append(message["message"])

    def load(self, key: str, **fields: Any) -> list[Message]:
        """Load a model; returns all packets and the end."""
        stack: Message = {"layers": []}
        parameter = {"modelKey": key, "loadConfigStack": stack, **fields}
        return self.packets(self.open("loadModel", parameter))


@contextlib.contextmanager
def raw_client(
    url: str, namespace: str = "llm", *, client: str = "", **options: Any
) -> Iterator[RawClient]:
    """Connect and authenticate.

    Args:
        url: Of the server, without a path.
        client: An identifier that several sockets share.
    """
    identifier = client or f"guest:{uuid.uuid4()}"
    with connect(f"{url}/{namespace}", compression=None, **options) as socket:
        raw = RawClient(socket)
        raw.send(
            {
                "authVersion": 1,
                "clientIdentifier": identifier,
                "clientPasskey": "secret",
            }
        )
        assert {"success": True} == raw.receive()
        yield raw


def query(**conditions: Any) -> Message:
    """A specifier that asks for a loaded model."""
    return {"type": "query", "query": conditions}


def history(text: str) -> Message:
    """A history of one message of the user."""
    part = {"type": "text", "text": text}
    return {"messages": [{"role": "user", "content": [part]}]}


def prediction(text: str, *fields: Message, layer: str = "apiOverride") -> Message:
    """The parameter of ``predict``."""
    config = {"layerName": layer, "config": {"fields": list(fields)}}
    return {
        "modelSpecifier": query(),
        "history": history(text),
        "predictionConfigStack": {"layers": [config]},
    }


def texts(packets: list[Message]) -> list[str]:
    """The texts of the fragments among packets."""
    return [p["fragment"]["content"] for p in packets if p["type"] == "fragment"]
