"""What clients sent to a fake server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import attrs

from ..wire.config import PREDICTION, collapse
from ..wire.converter import structure
from ..wire.llm import CompleteRawText, Message, Predict
from .script import Asked, last_text


@attrs.frozen
class Received:
    """A message that a client sent.

    Attributes:
        namespace: The socket that it came on.
        message: Parsed JSON.
    """

    namespace: str
    message: Any

    @property
    def endpoint(self) -> str | None:
        """Which endpoint it opens; None for packets and the like."""
        name = self.message.get("endpoint") if isinstance(self.message, dict) else None
        return name if isinstance(name, str) else None

    @property
    def parameter(self) -> Any:
        """What it opens the endpoint with, parsed JSON; None without."""
        if not isinstance(self.message, dict):
            return None
        return self.message.get("parameter", self.message.get("creationParameter"))

    @property
    def asked(self) -> Asked | None:
        """The prediction that it asks for; None when it asks for none."""
        rows: dict[str, type] = {"predict": Predict, "completeRawText": CompleteRawText}
        row = rows.get(self.endpoint or "")
        if row is None or self.namespace != "llm":
            return None
        read: Any = structure(self.parameter, row, str(self.endpoint))
        history = read.history if isinstance(read, Predict) else None
        return Asked(
            text=last_text(history) if history is not None else read.raw_prompt,
            history=history,
            config=PREDICTION.decode(collapse(read.prediction_config_stack)),
            identifier=_identifier(self.parameter["modelSpecifier"]),
        )

    @property
    def messages(self) -> list[Message]:
        """The messages of a prediction; none when it asks for none."""
        return self.asked.messages if self.asked is not None else []

    @property
    def config(self) -> dict[str, Any]:
        """The options of a prediction by our names; none when it asks for none."""
        return self.asked.config if self.asked is not None else {}

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The tools that a prediction offers, each with its ``name``."""
        return self.asked.tools if self.asked is not None else []


def _identifier(specifier: Any) -> str:
    query = specifier.get("query") or {}
    named = query.get("identifier") or specifier.get("instanceReference") or ""
    return str(named)


class Log:
    """Every message in order. Use it from any thread."""

    def __init__(self) -> None:
        self._received: list[Received] = []
        self._changed = threading.Condition()  # guards the list

    def add(self, namespace: str, message: Any) -> None:
        """Note a message."""
        with self._changed:
            self._received.append(Received(namespace, message))
            self._changed.notify_all()

    def all(self) -> list[Received]:
        """All messages so far."""
        with self._changed:
            return self._received.copy()

    def wait_for(
        self, predicate: Callable[[Received], bool], timeout: float
    ) -> Received:
        """The first message that fits, past ones included; waits for it if need be.

        Args:
            timeout: Seconds.

        Raises:
            TimeoutError: None came in time.
        """
        at = 0

        def found() -> Received | None:
            nonlocal at
            while at < len(self._received):
                at += 1
                if predicate(self._received[at - 1]):
                    return self._received[at - 1]
            return None

        with self._changed:
            seen = self._changed.wait_for(found, timeout)
        if seen is None:
            raise TimeoutError(f"no such message in {timeout} s: {self.all()!r:.500}")
        return seen
