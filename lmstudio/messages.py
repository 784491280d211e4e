"""Messages and histories, in all the forms that users write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .arguments import checked_text
from .errors import LMStudioTypeError, LMStudioValueError, shown
from .nearest import meant
from .parts import part_of, parts_of, request_part, text_part
from .wire.llm import History, Message, Part

ROLES = ("system", "user", "assistant", "tool")

#: What the parts of a message may be. Source: docs/wire/predict.md.
_TYPES = {
    "system": ("text", "file"),
    "user": ("text", "file"),
    "assistant": ("text", "file", "toolCallRequest"),
    "tool": ("toolCallResult",),
}

#: A text, messages as ``{"role", "content"}`` or ``(role, content)``, or
#: ``{"messages": [...]}``.
HistoryLike = str | Mapping[str, Any] | Iterable[Any]

#: What a message may have, and whether it counts. The others stand in messages that
#: OpenAI's API and servers like it gave: nothing that a model is to read again.
_KEYS = ("role", "content", "tool_calls", "tool_call_id", "name", "refusal")
_LEFT_OUT = ("id", "annotations", "reasoning", "reasoning_content")
#: The same, as long as they are empty: what they hold would be lost.
_ONLY_EMPTY = {
    "function_call": "OpenAI's older form; write tool_calls",
    "audio": "not for these models; write its transcript as content",
}

_RIGHT = (
    'write a text, or a list of {"role": "user", "content": "..."} or ("user", "...")'
)


def user_message(text: str) -> Message:
    """A message of the user that is just text."""
    return Message(role="user", content=[text_part(text)])


def to_history(given: HistoryLike) -> History:
    """The history that a user means.

    Args:
        given: A `Chat`, a text, or messages, as `messages_of` takes them.

    Raises:
        LMStudioValueError: Something in it is none of these; the error says where.
    """
    if isinstance(given, History):
        return given
    messages = messages_of(given)
    if not messages:
        raise LMStudioValueError(f"the history has no messages; {_RIGHT}")
    return History(messages=messages)


def messages_of(given: HistoryLike) -> list[Message]:
    """The messages that a user means, in a new list.

    Args:
        given: One text is a message of the user. A list is taken message by message:
            mappings with ``role`` and ``content``, pairs, or texts of the user.
            ``content`` is a text or a list of parts as OpenAI writes them or as they
            travel. A mapping with ``messages`` is the same as its list.

    Raises:
        LMStudioValueError: Something in it is none of these; the error says where.
    """
    ready = getattr(given, "to_history", None)
    if callable(ready) and not isinstance(given, type):  # a `Chat`
        given = ready()
    if isinstance(given, History):
        return list(given.messages)
    if isinstance(given, str):
        return [user_message(checked_text(given, "the message"))]
    if isinstance(given, Mapping):
        if "messages" not in given:
            raise LMStudioValueError(
                f"a history can't be read from {shown(given)}; {_RIGHT}"
            )
        given = given["messages"]
    if isinstance(given, (str, bytes, bytearray, Mapping)) or not isinstance(
        given, Iterable
    ):
        raise LMStudioTypeError(
            f"a history can't be read from {shown(given)}; {_RIGHT}"
        )
    return [_message_or_text(item, f"message {n}") for n, item in enumerate(given)]


def _message_or_text(item: Any, where: str) -> Message:
    if isinstance(item, str):
        return user_message(checked_text(item, where))
    return message_of(item, where)


def message_of(item: Any, where: str) -> Message:
    """A message with its role: a `Message`, a mapping as JSON has it, or a pair.

    Args:
        item: What was given; objects of OpenAI's client count as mappings. Of what
            else a mapping may have, ``name`` counts for answers of tools, ``refusal``
            stands in for a missing content, and ``annotations`` and ``reasoning`` are
            left out.
        where: What it is, for errors: ``"message 3"``.

    Raises:
        LMStudioValueError: It is none of these, or a part of it can't be used.
    """
    if isinstance(item, Message):
        parts = [part_of(p, f"part {n} of {where}") for n, p in enumerate(item.content)]
        return Message(role=item.role, content=_fitting(item.role, parts, where))
    if callable(dump := getattr(item, "model_dump", None)):  # as OpenAI's client has it
        fields = dump(exclude_none=True)
        item = {"content": None, **fields} if isinstance(fields, Mapping) else item
    if isinstance(item, Mapping):
        role, content = item.get("role"), item.get("content")
        if "role" not in item or not {"content", "tool_calls"} & set(item):
            _check_keys(item, where)  # it may be misspelt
            raise LMStudioValueError(
                f"{where} needs a role and a content, not {shown(item)}; {_RIGHT}"
            )
        _check_keys(item, where)
        content = item.get("refusal") if content is None else content
    elif isinstance(item, (tuple, list)) and len(item) == 2:
        role, content = item
        item = {}
    else:
        raise LMStudioTypeError(f"{where} can't be read from {shown(item)}; {_RIGHT}")
    if role == "developer":  # OpenAI's newer word
        role = "system"
    role = _role(role, where)
    calls = _tool_calls(item.get("tool_calls"), role, where)
    if role == "tool":
        parts = _tool_results(item, content, where)
    elif content is None and role == "assistant":  # as OpenAI writes calls without text
        parts = calls
    else:
        parts = parts_of(content, where) + calls
    return Message(role=role, content=_fitting(role, parts, where))


def _check_keys(item: Mapping[str, Any], where: str) -> None:
    """Refuse what would be lost."""
    for key, value in item.items():
        if key in _KEYS or key in _LEFT_OUT:
            continue
        if key not in _ONLY_EMPTY:
            raise LMStudioValueError(
                f"{where} has the unknown key {shown(key)}{meant(key, _KEYS)}"
            )
        if value:
            raise LMStudioValueError(f"{key} of {where} is {_ONLY_EMPTY[key]}")


def _role(role: Any, where: str) -> str:
    if not isinstance(role, str) or role not in ROLES:
        raise LMStudioValueError(
            f"the role of {where} must be one of {', '.join(ROLES)}, not {shown(role)}"
        )
    return str(role)


def _fitting(role: str, parts: list[Part], where: str) -> list[Part]:
    """The parts, if a message of this role may have them."""
    _role(role, where)
    for part in parts:
        if part.type not in _TYPES[role]:
            raise LMStudioValueError(
                f"a part of the type {part.type} can't be in {where}, whose role is"
                f" {role}"
            )
    if parts:
        return parts
    if role == "assistant":
        return [text_part("")]
    raise LMStudioValueError(f"the content of {where} has no parts; write a text")


def _tool_calls(calls: Any, role: str, where: str) -> list[Part]:
    if calls is None or (isinstance(calls, (list, tuple)) and not calls):
        return []
    if not isinstance(calls, (list, tuple)) or role != "assistant":
        raise LMStudioValueError(
            f"tool_calls of {where} must be a list in a message of the assistant,"
            f" not {shown(calls)}"
        )
    return [request_part(item, where) for item in calls]


def _tool_results(item: Mapping[str, Any], content: Any, where: str) -> list[Part]:
    """The results of a tool message: as they travel, or one as OpenAI writes it."""
    if not isinstance(content, str):
        parts = parts_of(content, where)
        kinds = {part.type for part in parts}
        if kinds == {"toolCallResult"} or not kinds:
            return parts
        if kinds - {"text"}:
            raise LMStudioValueError(
                f"{where} must hold results of tools, not {', '.join(sorted(kinds))}"
            )
        content = "".join(part.text or "" for part in parts)
    text = checked_text(content, f"the content of {where}")
    call, name = item.get("tool_call_id"), item.get("name")
    if call is not None:
        call = checked_text(call, f"the tool_call_id of {where}")
    if name is not None:
        name = checked_text(name, f"the name of {where}")
    return [Part(type="toolCallResult", content=text, tool_call_id=call, name=name)]
