"""The calls of tools that a model asks for, out of the packets of a prediction."""

from __future__ import annotations

import logging
from typing import Any

import attrs

from .calls import structure
from .errors import LMStudioServerError, LMStudioToolError
from .wire.llm import ToolCallRequest

log = logging.getLogger("lmstudio.prediction")


class Asked:
    """The calls that one prediction asks for, in order.

    Attributes:
        calls: Those that are complete.
        failures: Those that the server could not read.
    """

    def __init__(self) -> None:
        self.calls: list[ToolCallRequest] = []
        self.failures: list[LMStudioToolError] = []
        self._id: str | None = None  # of the call that is being written
        self._name = ""

    def copy(self) -> Asked:
        """The same, which takes more packets without changing this one."""
        made = Asked()
        made.calls, made.failures = [*self.calls], [*self.failures]
        made._id, made._name = self._id, self._name
        return made

    def take(self, kind: str, packet: dict[str, Any]) -> bool:
        """Take any packet that is neither text nor progress.

        Packets in the middle of a call carry no number: they belong to the one that
        was started last.

        Returns:
            True when a call is complete with it.

        Raises:
            LMStudioProtocolError: It is a call, and does not fit.

        Source: docs/wire/predict.md.
        """
        if kind == "toolCallGenerationStart":
            self._id, self._name = _text(packet, "toolCallId"), ""
        elif kind == "toolCallGenerationNameReceived":
            self._name = _text(packet, "name") or ""
        elif kind == "toolCallGenerationEnd":
            call: ToolCallRequest = structure(
                packet.get("toolCallRequest"), ToolCallRequest, "predict"
            )
            if call.id is None:  # an older server names it only at its start
                call = attrs.evolve(call, id=self._id)
            self.calls.append(call)
            self._id = None
            return True
        elif kind == "toolCallGenerationFailed":
            told = LMStudioServerError.from_wire("predict", packet.get("error"))
            raw = _text(packet, "rawContent")
            problem = told.message.removeprefix("predict: ")
            self.failures.append(LMStudioToolError(self._name, problem, raw))
            self._id = None
        elif kind != "toolCallGenerationArgumentFragmentGenerated":
            log.debug("packet: %.200r", packet)
        return False


def _text(packet: dict[str, Any], name: str) -> str | None:
    value = packet.get(name)
    return value if isinstance(value, str) else None
