"""The input of a response: texts, messages, calls and their results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from ...errors import shown
from ...wire.llm import Message, Part
from .errors import wrong
from .messages import ROLES, call_part, parts_of, result_part
from .reading import body, choose, read, text


@body(kw_only=True)
class _Item:
    type: str = "message"


@body(kw_only=True)
class _Message:
    role: str
    content: Any


@body(kw_only=True)
class _Call:
    call_id: str
    name: str
    arguments: str = "{}"


@body(kw_only=True)
class _Result:
    call_id: str
    output: Any


def input_of(value: Any) -> list[Message]:
    """The messages of an input.

    Images become parts whose identifier is the URL; `messages.upload` makes files of
    them.

    Raises:
        RestError: Something in it is wrong; the error says where.
    """
    if isinstance(value, str):
        part = Part(type="text", text=text(value, "input"))
        return [Message(role="user", content=[part])]
    if not isinstance(value, list) or not value:
        raise wrong("input", "a string, or a list of at least one item", shown(value))
    made: list[Message] = []
    for number, item in enumerate(value):
        at = f"input[{number}]"
        kind = choose(read(item, _Item, at).type, tuple(_READERS), f"{at}.type")
        message = _READERS[kind](item, at)
        if message is not None:
            _append(made, message)
    return made


def _append(messages: list[Message], message: Message) -> None:
    """Add a message. An answer and its calls are items here, and one message there."""
    last = messages[-1] if messages else None
    if last is not None and last.role == message.role == "assistant":
        content = (*last.content, *message.content)
        messages[-1] = attrs.evolve(last, content=content)
    else:
        messages.append(message)


def _message(item: Any, at: str) -> Message:
    given = read(item, _Message, at)
    roles = [role for role in ROLES if role != "tool"]
    role = ROLES[choose(given.role, roles, f"{at}.role")]
    parts = parts_of(given.content, f"{at}.content", images=role == "user")
    return Message(role=role, content=parts)


def _call(item: Any, at: str) -> Message:
    given = read(item, _Call, at)
    part = call_part(given.call_id, given.name, given.arguments, f"{at}.arguments")
    return Message(role="assistant", content=[part])


def _result(item: Any, at: str) -> Message:
    given = read(item, _Result, at)
    part = result_part(given.call_id, given.output, f"{at}.output")
    return Message(role="tool", content=[part])


def _passed_over(_: Any, __: str) -> None:
    """Thoughts of earlier answers: models do not read them again."""


_READERS: Mapping[str, Callable[[Any, str], Message | None]] = {
    "message": _message,
    "function_call": _call,
    "function_call_output": _result,
    "reasoning": _passed_over,
}
