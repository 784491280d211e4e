"""The connection that a scripted request came on: a way past the server's rules."""

from __future__ import annotations

import contextvars
import json
from collections.abc import Mapping
from typing import Any

import attrs
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed


class Link:
    """One connection of a client. Its methods belong to the server's loop."""

    def __init__(self, socket: ServerConnection) -> None:
        self._socket = socket
        self._closed: set[int] = set()  # channels that a script has closed

    def drop(self) -> None:
        """Break it, without a word."""
        self._socket.transport.abort()

    async def send(self, content: str | bytes | Mapping[str, Any]) -> None:
        """Send a frame as it is, bytes as a binary one; nothing once it has ended."""
        if isinstance(content, Mapping):
            content = json.dumps(content)
        try:
            await self._socket.send(content)
        except ConnectionClosed:
            return  # what runs for this client ends when the socket has

    async def say(self, text: str) -> None:
        """Send what the server says, except on channels that a script has closed."""
        if self._closed and json.loads(text).get("channelId") in self._closed:
            return
        await self.send(text)

    async def close(self, channel: int) -> None:
        """Close a channel; what the server still says on it is lost."""
        self._closed.add(channel)
        await self.send({"type": "channelClose", "channelId": channel})


@attrs.frozen
class Request:
    """What a scripted request came as.

    Attributes:
        link: Its connection.
        number: The client's number for it; 0 for authentication.
    """

    link: Link
    number: int


#: The connection of what runs; the tasks of a connection inherit it.
link: contextvars.ContextVar[Link] = contextvars.ContextVar("link")

#: The request that runs. There is none where a test loads a model by itself.
request: contextvars.ContextVar[Request | None] = contextvars.ContextVar(
    "request", default=None
)
