"""Conversation histories in all the forms that users write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from .arguments import checked_text
from .errors import LMStudioProtocolError, LMStudioTypeError, LMStudioValueError, shown
from .wire.files import FileHandle
from .wire.llm import History, Message, Part, ToolCallRequest

ROLES = ("system", "user", "assistant", "tool")

#: What the parts of a message may be. Source: docs/wire/predict.md.
_TYPES = {
    "system": ("text", "file"),
    "user": ("text", "file"),
    "assistant": ("text", "file", "toolCallRequest"),
}

#: A text, messages as ``{"role", "content"}`` or ``(role, content)``, or
#: ``{"messages": [...]}``.
HistoryLike = str | Mapping[str, Any] | Iterable[Any]

_RIGHT = (
    'write a text, or a list of {"role": "user", "content": "..."} or ("user", "...")'
)


@attrs.frozen(kw_only=True)
class PendingImage(Part):
    """An image in a message that the server does not have yet.

    Attributes:
        source: What `lmstudio.images.read_image` reads.
    """

    source: Any = attrs.field(repr=False)


def image_part(source: Any, name: str | None = None) -> Part:
    """A part that shows an image: one that was prepared, or one to be read and sent.

    Args:
        source: A `FileHandle`, or what `lmstudio.images.read_image` reads.
        name: A name for people.
    """
    if isinstance(source, FileHandle):
        return source.to_part()
    return PendingImage(type="file", file_type="image", name=name, source=source)


def text_part(text: str) -> Part:
    """A part that is just text."""
    return Part(type="text", text=text)


def user_message(text: str) -> Message:
    """A message of the user that is just text."""
    return Message(role="user", content=[text_part(text)])


def to_history(given: HistoryLike) -> History:
    """The history that a user means.

    Args:
        given: One text is a message of the user. A list is taken message by message:
            mappings with ``role`` and ``content``, pairs, or texts of the user.
            ``content`` is a text or a list of parts as OpenAI writes them or as they
            travel. A mapping with ``messages`` is the same as its list.

    Raises:
        LMStudioValueError: Something in it is none of these; the error says where.
    """
    if isinstance(given, History):
        return given
    if isinstance(given, str):
        return History(messages=[user_message(checked_text(given, "the message"))])
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
    messages = [_message(item, f"message {n}") for n, item in enumerate(given)]
    if not messages:
        raise LMStudioValueError(f"the history has no messages; {_RIGHT}")
    return History(messages=messages)


def _message(item: Any, where: str) -> Message:
    if isinstance(item, Message):
        return item
    if isinstance(item, str):
        return user_message(checked_text(item, where))
    if isinstance(item, Mapping):
        role, content = item.get("role"), item.get("content")
        if "role" not in item or ("content" not in item and "tool_calls" not in item):
            raise LMStudioValueError(
                f"{where} needs a role and a content, not {shown(item)}; {_RIGHT}"
            )
    elif isinstance(item, (tuple, list)) and len(item) == 2:
        role, content = item
        item = {}
    else:
        raise LMStudioTypeError(f"{where} can't be read from {shown(item)}; {_RIGHT}")
    if role == "developer":  # OpenAI's newer word
        role = "system"
    if role not in ROLES:
        raise LMStudioValueError(
            f"the role of {where} must be one of {', '.join(ROLES)}, not {shown(role)}"
        )
    if role == "tool":
        return Message(role=role, content=_tool_results(item, content, where))
    calls = _tool_calls(item.get("tool_calls"), role, where)
    if content is None and role == "assistant":  # as OpenAI writes calls without text
        return Message(role=role, content=calls or [text_part("")])
    parts = _parts(content, where) + calls
    for part in parts:
        if part.type not in _TYPES[role]:
            raise LMStudioValueError(
                f"a part of the type {part.type} can't be in {where}, whose role is"
                f" {role}"
            )
    return Message(role=role, content=parts)


def _parts(content: Any, where: str) -> list[Part]:
    if isinstance(content, str):
        return [text_part(checked_text(content, f"the content of {where}"))]
    if isinstance(content, Mapping):
        content = [content]
    if isinstance(content, (bytes, bytearray)) or not isinstance(content, Iterable):
        raise LMStudioTypeError(
            f"the content of {where} must be text or a list of parts,"
            f" not {shown(content)}"
        )
    return [_part(item, f"part {n} of {where}") for n, item in enumerate(content)]


def _part(item: Any, where: str) -> Part:
    if isinstance(item, Part):
        return item
    if isinstance(item, str):
        return text_part(checked_text(item, where))
    if isinstance(item, FileHandle):
        return item.to_part()
    kind = item.get("type") if isinstance(item, Mapping) else None
    if kind == "image_url":  # as OpenAI writes it
        inner = item.get("image_url")
        url = inner.get("url") if isinstance(inner, Mapping) else inner
        if not isinstance(url, str) or url[:5].lower() != "data:":
            # Not a path either: who writes histories must not choose files of ours.
            raise LMStudioValueError(
                f"the image_url of {where} must be a data URL, not {shown(url)};"
                " hand other images over with prepare_image"
            )
        return image_part(url)
    if kind == "text":
        return text_part(checked_text(item.get("text"), f"the text of {where}"))
    if kind in ("file", "toolCallRequest", "toolCallResult"):
        from .calls import structure  # needs the converter, which few messages do

        try:
            part: Part = structure(item, Part, where)
        except LMStudioProtocolError as exc:
            raise LMStudioValueError(
                f"{where} is no {kind}: {exc.where}: {exc.problem}"
            ) from None
        return part
    raise LMStudioValueError(
        f'{where} must be a text or {{"type": "text", "text": "..."}},'
        f" not {shown(item)}"
    )


def _tool_calls(calls: Any, role: str, where: str) -> list[Part]:
    if not calls:
        return []
    if not isinstance(calls, (list, tuple)) or role != "assistant":
        raise LMStudioValueError(
            f"tool_calls of {where} must be a list in a message of the assistant,"
            f" not {shown(calls)}"
        )
    return [_tool_call(item, where) for item in calls]


def _tool_call(item: Any, where: str) -> Part:
    """A tool call as OpenAI writes it."""
    function = item.get("function") if isinstance(item, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise LMStudioValueError(
            f'a tool call of {where} needs {{"function": {{"name": ...}}}},'
            f" not {shown(item)}"
        )
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        import json

        try:
            arguments = json.loads(arguments or "{}")
        except ValueError as exc:
            raise LMStudioValueError(
                f"the arguments of a tool call of {where} are no JSON: {exc}"
            ) from None
    if arguments is not None and not isinstance(arguments, Mapping):
        raise LMStudioValueError(
            f"the arguments of a tool call of {where} must be an object,"
            f" not {shown(arguments)}"
        )
    name, number = function["name"], item.get("id")
    request = ToolCallRequest(
        name=checked_text(name, f"the name of a tool call of {where}"),
        arguments=None if arguments is None else dict(arguments),
        id=None if number is None else checked_text(number, f"a tool call of {where}"),
    )
    return Part(type="toolCallRequest", tool_call_request=request)


def _tool_results(item: Mapping[str, Any], content: Any, where: str) -> list[Part]:
    """The results of a tool message: as they travel, or one as OpenAI writes it."""
    if not isinstance(content, str):
        parts = _parts(content, where)
        kinds = {part.type for part in parts}
        if kinds == {"toolCallResult"}:
            return parts
        if kinds - {"text"}:
            raise LMStudioValueError(
                f"{where} must hold results of tools, not {', '.join(sorted(kinds))}"
            )
        content = "".join(part.text or "" for part in parts)
    text = checked_text(content, f"the content of {where}")
    call = item.get("tool_call_id")
    if call is not None:
        call = checked_text(call, f"the tool_call_id of {where}")
    return [Part(type="toolCallResult", content=text, tool_call_id=call)]
