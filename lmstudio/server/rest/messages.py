"""Messages as OpenAI writes them, made into the history that a prediction answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from ...errors import shown
from ...wire.llm import History, Message, Part, ToolCallRequest
from ..clients import Client
from ..engine import BadRequest
from ..files import Files
from .errors import RestError, wrong
from .reading import body, choose, read, text

#: Roles of messages, and what they are here. Source: docs/wire/rest.md, "Messages".
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,(.*)", re.S | re.I)


@body(kw_only=True)
class _Message:
    role: str
    content: Any = None
    tool_calls: list[Any] | None = None
    tool_call_id: str | None = None


@body(kw_only=True)
class _Part:
    type: str
    text: Any = None
    refusal: Any = None
    image_url: Any = None


@body(kw_only=True)
class _Url:
    url: str


@body(kw_only=True)
class _Called:
    name: str
    arguments: str = "{}"


@body(kw_only=True)
class _ToolCall:
    id: str
    function: _Called
    type: str = "function"


def messages_of(value: Any, at: str = "messages") -> list[Message]:
    """The messages of a chat completion.

    Images become parts whose identifier is the URL; `upload` makes files of them.

    Raises:
        RestError: Something in it is wrong; the error says where.
    """
    given = read(value, list[Any], at)
    if not given:
        raise wrong(at, "a list with at least one message", "[]")
    return [_message(one, f"{at}[{number}]") for number, one in enumerate(given)]


def parts_of(content: Any, at: str, *, images: bool = True) -> list[Part]:
    """The parts of a message: a text, or a list of parts.

    Args:
        images: Whether they may be images.
    """
    if isinstance(content, str):
        return [Part(type="text", text=text(content, at))]
    if not isinstance(content, list):
        raise wrong(at, "a string, or a list of parts", shown(content))
    return [
        _part(read(one, _Part, f"{at}[{number}]"), f"{at}[{number}]", images)
        for number, one in enumerate(content)
    ]


def call_part(call_id: str, name: str, arguments: str, at: str) -> Part:
    """A call that the model made in an earlier answer.

    Args:
        arguments: JSON text.
        at: Where the arguments are in the request.
    """
    try:
        parsed = json.loads(arguments or "{}")
    except (ValueError, RecursionError) as exc:
        raise wrong(at, "JSON text of an object", shown(arguments)) from exc
    if not isinstance(parsed, dict):
        raise wrong(at, "JSON text of an object", shown(arguments))
    request = ToolCallRequest(id=call_id, name=name, arguments=parsed)
    return Part(type="toolCallRequest", tool_call_request=request)


def result_part(call_id: str, content: Any, at: str) -> Part:
    """What a tool answered."""
    said = "".join(part.text or "" for part in parts_of(content, at, images=False))
    return Part(type="toolCallResult", tool_call_id=call_id, content=said)


def image_part(url: Any, at: str) -> Part:
    """An image from a data URL."""
    if not isinstance(url, str) or not _DATA_URL.fullmatch(url):
        hint = "this server fetches nothing from the network"
        right = f"a data URL such as 'data:image/png;base64,...' ({hint})"
        raise wrong(at, right, shown(url))
    return Part(type="file", file_type="image", name="image", identifier=url)


def upload(messages: Iterable[Message], files: Files, client: Client) -> History:
    """The history of some messages, their images handed to the server.

    Args:
        client: Whose files they are, until it is released.

    Raises:
        RestError: An image is none.
        Failure: An image is too large.
    """

    def uploaded(part: Part) -> Part:
        if part.type != "file":
            return part
        found = _DATA_URL.fullmatch(part.identifier or "")
        assert found is not None
        try:
            file = files.add(client, "image", found[1])
        except BadRequest as exc:
            raise RestError(str(exc), code="invalid_image") from exc
        if file.file_type != "image":
            raise RestError(
                f"An image_url holds no image, but {file.file_type}",
                code="invalid_image",
            )
        return attrs.evolve(
            part, identifier=file.identifier, size_bytes=len(file.content)
        )

    return History(
        messages=[
            attrs.evolve(one, content=tuple(map(uploaded, one.content)))
            for one in messages
        ]
    )


def _message(value: Any, at: str) -> Message:
    given = read(value, _Message, at)
    role = ROLES[choose(given.role, tuple(ROLES), f"{at}.role")]
    if role == "tool":
        if given.tool_call_id is None:
            raise _missing(f"{at}.tool_call_id")
        part = result_part(given.tool_call_id, given.content, f"{at}.content")
        return Message(role=role, content=[part])
    calls = given.tool_calls or []
    if calls and role != "assistant":
        raise RestError(
            f"{at}.tool_calls: only messages of the assistant have some",
            code="invalid_value",
            param=f"{at}.tool_calls",
        )
    parts: list[Part] = []
    if given.content is not None or not calls:
        parts = parts_of(given.content, f"{at}.content", images=role == "user")
    parts += [_call(one, f"{at}.tool_calls[{n}]") for n, one in enumerate(calls)]
    return Message(role=role, content=parts)


def _call(value: Any, at: str) -> Part:
    call = read(value, _ToolCall, at)
    arguments = call.function.arguments
    return call_part(call.id, call.function.name, arguments, f"{at}.function.arguments")


def _text(part: _Part, at: str) -> Part:
    return Part(type="text", text=text(part.text, f"{at}.text"))


def _refusal(part: _Part, at: str) -> Part:
    return Part(type="text", text=text(part.refusal, f"{at}.refusal"))


def _image(part: _Part, at: str) -> Part:
    # Responses give the URL itself, chat completions an object around it.
    if isinstance(part.image_url, str):
        return image_part(part.image_url, f"{at}.image_url")
    url = read(part.image_url, _Url, f"{at}.image_url").url
    return image_part(url, f"{at}.image_url.url")


_READERS: Mapping[str, Callable[[_Part, str], Part]] = {
    "text": _text,
    "input_text": _text,
    "output_text": _text,
    "refusal": _refusal,
    "image_url": _image,
    "input_image": _image,
}


def _part(part: _Part, at: str, images: bool) -> Part:
    reader = _READERS.get(part.type)
    if reader is None or (reader is _image and not images):
        known = [name for name, one in _READERS.items() if images or one is not _image]
        raise wrong(
            f"{at}.type", "one of " + ", ".join(map(repr, known)), shown(part.type)
        )
    return reader(part, at)


def _missing(param: str) -> RestError:
    return RestError(
        f"{param} is missing", code="missing_required_parameter", param=param
    )
