"""Keeps a client waiting that would otherwise give up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from .instances import SILENCE

_NOTHING_YET = {
    "type": "promptProcessingProgress",
    "progress": 0,
    "details": {
        "cachedTokenCount": 0,
        "totalPromptTokenCount": 0,
        "processedPromptTokenCount": 0,
        "unprocessedPromptTokenCount": 0,
    },
}


class Heartbeat:
    """Repeats the progress of a prompt while a prediction waits or reads it.

    A request that waits for others to end says nothing, and official Python clients
    give up after a minute of that. Source: docs/wire/messages.md.

    Args:
        send: Sends a packet.
        silence: Seconds between two repetitions.

    Attributes:
        packet: What is repeated; None once there is output.
    """

    def __init__(
        self,
        send: Callable[[dict[str, Any]], Awaitable[None]],
        silence: float = SILENCE,
    ) -> None:
        self.packet: dict[str, Any] | None = _NOTHING_YET
        self._send = send
        self._silence = silence
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> Heartbeat:
        self._task = asyncio.create_task(self._beat())
        return self

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _beat(self) -> None:
        while self.packet is not None:
            await asyncio.sleep(self._silence)
            if self.packet is not None:
                await self._send(self.packet)
