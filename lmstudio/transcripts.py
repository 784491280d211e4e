"""Conversations as others write them: lists of OpenAI, JSON files, text and HTML."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .errors import LMStudioOSError, LMStudioTypeError, LMStudioValueError, shown
from .messages import messages_of
from .parts import PendingImage, data_url
from .wire.llm import Message, Part

#: What a saved file says that it is, and the newest form that is understood.
FORMAT = "lmstudio-chat"
VERSION = 1

#: What HTML shows at most: so many messages, and characters of each.
_SHOWN_MESSAGES = 20
_SHOWN_TEXT = 2000


def to_openai(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages as OpenAI's chat completions take them.

    Raises:
        LMStudioValueError: One shows a file that only the LM Studio server has.
    """
    made: list[dict[str, Any]] = []
    for number, message in enumerate(messages):
        if message.role == "tool":
            made += [_openai_result(part) for part in message.tool_results]
            continue
        turn: dict[str, Any] = {"role": message.role}
        turn["content"] = _openai_content(message, f"message {number}")
        if calls := message.tool_calls:
            turn["tool_calls"] = [_openai_call(call) for call in calls]
        made.append(turn)
    return made


def _openai_content(message: Message, where: str) -> Any:
    parts = [part for part in message.content if part.type != "toolCallRequest"]
    if not parts:
        return None
    if len(parts) == 1 and parts[0].type == "text":
        return parts[0].text
    made: list[dict[str, Any]] = []
    for number, part in enumerate(parts):
        if part.type == "text":
            made.append({"type": "text", "text": part.text})
        elif isinstance(part, PendingImage):
            made.append({"type": "image_url", "image_url": {"url": data_url(part)}})
        else:
            raise LMStudioValueError(
                f"part {number} of {where} is the file {shown(part.name)}, and only the"
                " server has its content; give images to the chat by path or bytes"
            )
    return made


def _openai_call(call: Any) -> dict[str, Any]:
    import json

    arguments = json.dumps(call.arguments or {}, ensure_ascii=False)
    function = {"name": call.name, "arguments": arguments}
    named = {} if call.id is None else {"id": call.id}
    return {**named, "type": "function", "function": function}


def _openai_result(part: Part) -> dict[str, Any]:
    turn = {"role": "tool", "content": part.content}
    if part.tool_call_id is not None:
        turn["tool_call_id"] = part.tool_call_id
    if part.name is not None:
        turn["name"] = part.name
    return turn


def to_dict(messages: Sequence[Message]) -> dict[str, Any]:
    """The messages as they travel; images that were not sent are data URLs."""
    return {"messages": [message.to_dict() for message in messages]}


def save(messages: Sequence[Message], path: str | os.PathLike[str]) -> None:
    """Write a file that `load` reads. It is complete, or left as it was.

    Raises:
        LMStudioOSError: It can't be written.
    """
    import json

    fields = {"format": FORMAT, "version": VERSION, **to_dict(messages)}
    text = json.dumps(fields, ensure_ascii=False, indent=1) + "\n"
    name = _path(path)
    try:
        # Where a link leads, so that the link stays.
        _replace(os.path.realpath(name), text)
    except OSError as exc:
        raise LMStudioOSError(
            f"the chat can't be written to {name!r}: {exc.strerror or exc}"
        ) from exc
    except ValueError as exc:  # such as a zero byte
        raise LMStudioValueError(f"{name!r} is no path: {exc}") from exc


def _replace(target: str, text: str) -> None:
    """Write a file beside another, and put it in its place."""
    draft = f"{target}.{os.urandom(4).hex()}.tmp"
    try:
        with open(draft, "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if os.path.exists(target):
            os.chmod(draft, os.stat(target).st_mode & 0o7777)
        os.replace(draft, target)
    except BaseException:
        if os.path.exists(draft):
            os.unlink(draft)
        raise


def load(path: str | os.PathLike[str]) -> list[Message]:
    """The messages of a file that `save` wrote.

    Raises:
        LMStudioOSError: It can't be read.
        LMStudioValueError: It is no saved chat, or one of a newer version.
    """
    import json

    name = _path(path)
    try:
        with open(name, encoding="utf-8") as file:
            fields = json.load(file)
    except OSError as exc:
        raise LMStudioOSError(
            f"the chat can't be read from {name!r}: {exc.strerror or exc}"
        ) from exc
    except (ValueError, RecursionError) as exc:  # no UTF-8, no JSON, or no path
        raise LMStudioValueError(f"{name!r} is no saved chat: {exc}") from exc
    if not isinstance(fields, Mapping) or fields.get("format") != FORMAT:
        raise LMStudioValueError(
            f'{name!r} is no saved chat: it has no "format": "{FORMAT}". Messages in'
            " other files are read with Chat.from_history(json.load(file))"
        )
    version = fields.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise LMStudioValueError(
            f"{name!r} is a saved chat of version {shown(version)}; this package reads"
            f" versions up to {VERSION}"
        )
    try:
        return messages_of({"messages": fields.get("messages")})
    except LMStudioValueError as exc:
        raise LMStudioValueError(f"{name!r}: {exc}") from exc


def _path(path: Any) -> str:
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise LMStudioTypeError(f"a path must be text or a Path, not {shown(path)}")
    return os.fsdecode(path)


def as_text(messages: Sequence[Message]) -> str:
    """The conversation for people: who says what, with all of its text."""
    return "\n".join(
        f"{who}: {said}" for message in messages for who, said in _lines(message)
    )


def as_html(messages: Sequence[Message]) -> str:
    """The end of the conversation as HTML: nothing in it is taken as markup."""
    from .html import bubble, cut

    left_out = len(messages) - _SHOWN_MESSAGES
    rows = [f"<div><i>… {left_out} earlier</i></div>"] if left_out > 0 else []
    for message in messages[-_SHOWN_MESSAGES:]:
        for who, said in _lines(message):
            rows.append(bubble(who, cut(said, _SHOWN_TEXT)))
    return "<div>" + "".join(rows) + "</div>"


def _lines(message: Message) -> Iterator[tuple[str, str]]:
    """Who says what, one for the text and one for each call or result of a tool."""
    import json

    texts = []
    for part in message.content:
        if part.type == "text":
            texts.append(part.text or "")
        elif part.type == "file":
            kind = "image" if part.file_type == "image" else "file"
            texts.append(f"[{kind} {part.name}]")
    if any(texts) or (message.role != "tool" and not message.tool_calls):
        yield message.role, " ".join(filter(None, texts))
    for call in message.tool_calls:
        arguments = json.dumps(call.arguments or {}, ensure_ascii=False)
        yield f"{message.role} calls {call.name}", arguments
    for result in message.tool_results:
        answers = "" if result.tool_call_id is None else f" ({result.tool_call_id})"
        yield f"{message.role}{answers}", result.content or ""
