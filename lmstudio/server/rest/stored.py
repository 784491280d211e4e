"""Answers that are kept, so that a later request can go on from them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from ...wire.llm import Message, Part
from ..peer import encoded
from .answers import Answer
from .errors import RestError
from .messages import call_part

#: How many answers are kept, and characters of them and the conversations before.
MOST = 256
MOST_CHARACTERS = 64 * 1024 * 1024
#: What a message takes besides its text.
_OVERHEAD = 500


@attrs.frozen(kw_only=True)
class Entry:
    """An answer that is kept.

    Attributes:
        messages: The conversation up to it, itself included.
        body: The answer as it was sent.
    """

    messages: Sequence[Message]
    body: dict[str, Any]


class Stored:
    """The latest answers, in memory. What was not used for longest goes first.

    Args:
        most: How many are kept.
        most_characters: The same for the characters of them and the conversations
            before.
    """

    def __init__(self, most: int = MOST, most_characters: int = MOST_CHARACTERS):
        self._most = most
        self._most_characters = most_characters
        self._entries: OrderedDict[str, tuple[Entry, int]] = OrderedDict()
        self._characters = 0

    def add(self, name: str, entry: Entry) -> None:
        """Keep an answer under its id, unless it alone is too much."""
        size = _size(entry.messages) + len(encoded(entry.body))
        if size > self._most_characters:
            return
        self._entries[name] = entry, size
        self._characters += size
        while (
            len(self._entries) > self._most or self._characters > self._most_characters
        ):
            _, (_, gone) = self._entries.popitem(last=False)
            self._characters -= gone

    def get(self, name: str, param: str | None = None) -> Entry:
        """The answer of an id.

        Args:
            param: The field that names it, for the error.

        Raises:
            RestError: It is not kept, or no longer.
        """
        found = self._entries.get(name)
        if found is None:
            raise RestError(
                f"There is no response {name[:100]!r}",
                f"The latest {self._most} are kept while the server runs, except those "
                "with store=false; send the whole conversation instead",
                status=404,
                code="response_not_found",
                param=param,
            )
        self._entries.move_to_end(name)
        return found[0]

    def delete(self, name: str) -> None:
        """Forget an answer.

        Raises:
            RestError: It is not kept.
        """
        self.get(name)
        _, size = self._entries.pop(name)
        self._characters -= size


def said(answer: Answer) -> Message:
    """An answer as a message of the conversation that goes on."""
    parts = [Part(type="text", text=answer.text)] if answer.text else []
    parts += [call_part(c.id, c.name, c.text, "arguments") for c in answer.calls]
    return Message(role="assistant", content=parts or [Part(type="text", text="")])


def _size(messages: Iterable[Message]) -> int:
    total = 0
    for message in messages:
        total += _OVERHEAD
        for part in message.content:
            texts = (part.text, part.content, part.identifier)
            total += sum(len(text) for text in texts if text is not None)
            if part.tool_call_request is not None:
                total += len(str(part.tool_call_request.arguments))
    return total
