"""Parts of messages: texts, files, and the calls and results of tools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from .arguments import checked_text
from .errors import LMStudioProtocolError, LMStudioTypeError, LMStudioValueError, shown
from .wire.checks import json_value
from .wire.files import FileHandle, kind_of
from .wire.llm import Part, ToolCallRequest
from .wire.model import model

#: Fields of parts, as Python writes them and as they travel.
_CAMEL = {
    "size_bytes": "sizeBytes",
    "file_type": "fileType",
    "tool_call_request": "toolCallRequest",
    "tool_call_id": "toolCallId",
}


@model(kw_only=True)
class PendingImage(Part):
    """An image in a message that the server does not have yet.

    Attributes:
        source: What `lmstudio.images.read_image` reads.
    """

    source: Any = attrs.field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The part with the image in it, as a data URL; `lmstudio.Chat` reads it."""
        url = {"url": data_url(self)}
        return {"type": "image_url", "image_url": url, "name": self.name}


def data_url(image: PendingImage) -> str:
    """The data URL of an image that was read."""
    from base64 import b64encode

    kind = (kind_of(image.source) or "png").lower()
    return f"data:image/{kind};base64,{b64encode(image.source).decode()}"


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


def parts_of(content: Any, where: str) -> list[Part]:
    """The parts that a content means: a text, a part, or several of these.

    Raises:
        LMStudioValueError: One can't be used; the error says which.
    """
    if isinstance(content, str):
        return [text_part(checked_text(content, f"the content of {where}"))]
    if isinstance(content, (Mapping, Part, FileHandle)):
        content = [content]
    if isinstance(content, (bytes, bytearray)) or not isinstance(content, Iterable):
        raise LMStudioTypeError(
            f"the content of {where} must be text or a list of parts,"
            f" not {shown(content)}"
        )
    return [part_of(item, f"part {n} of {where}") for n, item in enumerate(content)]


def part_of(item: Any, where: str) -> Part:
    """The part that a user means: a text, a file, or a part as JSON has it.

    Raises:
        LMStudioValueError: It is none; the error says where.
    """
    if isinstance(item, Part):
        return _checked_part(item, where)
    if isinstance(item, str):
        return text_part(checked_text(item, where))
    if isinstance(item, FileHandle):
        return _checked_part(item.to_part(), where)
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
        name = item.get("name")  # ours; OpenAI has none
        if name is not None:
            name = checked_text(name, f"the name of {where}")
        return image_part(url, name)
    if kind == "text":
        return text_part(checked_text(item.get("text"), f"the text of {where}"))
    if kind in ("file", "toolCallRequest", "toolCallResult"):
        return _checked_part(_structured(item, Part, kind, where), where)
    raise LMStudioValueError(
        f'{where} must be a text or {{"type": "text", "text": "..."}},'
        f" not {shown(item)}"
    )


def _structured(item: Mapping[str, Any], kind: type, name: str, where: str) -> Any:
    from .calls import structure  # needs the converter, which few messages do

    fields = {_CAMEL.get(key, key): value for key, value in item.items()}
    try:
        return structure(fields, kind, where)
    except LMStudioProtocolError as exc:
        raise LMStudioValueError(
            f"{where} is no {name}: {exc.where}: {exc.problem}"
        ) from None


def _checked_part(part: Part, where: str) -> Part:
    """A part, if it has what its type needs."""
    if part.type == "text":
        checked_text(part.text, f"the text of {where}")
    elif part.type == "toolCallResult":
        checked_text(part.content, f"the content of {where}")
        if part.tool_call_id is not None:
            checked_text(part.tool_call_id, f"the tool_call_id of {where}")
    elif part.type == "toolCallRequest":
        if not isinstance(part.tool_call_request, ToolCallRequest):
            raise LMStudioValueError(f"{where} has no tool_call_request")
        request = checked_request(part.tool_call_request, where)
        return attrs.evolve(part, tool_call_request=request)
    elif part.type != "file":
        raise LMStudioValueError(
            f"{where} must be a text, a file, or the call or result of a tool, not of"
            f" the type {shown(part.type)}"
        )
    elif not isinstance(part, PendingImage):
        for name in ("name", "identifier", "file_type"):
            checked_text(getattr(part, name), f"the {name} of {where}")
    return part


def checked_request(request: ToolCallRequest, where: str) -> ToolCallRequest:
    """The call of a tool, with arguments of its own that can be sent.

    Raises:
        LMStudioValueError: Something in it is no JSON.
    """
    import json

    checked_text(request.name, f"the name of a tool call of {where}")
    if request.id is not None:
        checked_text(request.id, f"the id of a tool call of {where}")
    arguments = request.arguments
    if arguments is None:
        return request
    if not isinstance(arguments, Mapping):
        raise LMStudioValueError(
            f"the arguments of a tool call of {where} must be an object,"
            f" not {shown(arguments)}"
        )
    try:
        text = json.dumps(dict(arguments), ensure_ascii=False, allow_nan=False)
        text.encode()
        read = json_value(json.loads(text))
    except RecursionError:
        raise LMStudioValueError(
            f"the arguments of a tool call of {where} are nested too deeply"
        ) from None
    except (TypeError, ValueError) as exc:
        raise LMStudioValueError(
            f"the arguments of a tool call of {where} are no JSON: {exc}"
        ) from None
    return attrs.evolve(request, arguments=read)


def request_part(item: Any, where: str) -> Part:
    """The part for a call of a tool.

    Args:
        item: A `ToolCallRequest`, its part, or either as JSON, also as OpenAI writes
            it.

    Raises:
        LMStudioValueError: It is none of these.
    """
    if isinstance(item, ToolCallRequest):
        item = Part(type="toolCallRequest", tool_call_request=item)
    if isinstance(item, Mapping) and not isinstance(item.get("function"), Mapping):
        if item.get("type") == "toolCallRequest":
            item = part_of(item, f"a tool call of {where}")
        elif isinstance(item.get("name"), str):
            return request_part({**item, "function": item}, where)
    if isinstance(item, Part) and item.type == "toolCallRequest":
        return _checked_part(item, where)
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
        except (ValueError, RecursionError) as exc:
            raise LMStudioValueError(
                f"the arguments of a tool call of {where} are no JSON: {exc}"
            ) from None
    request = ToolCallRequest(
        name=function["name"], arguments=arguments, id=item.get("id")
    )
    request = checked_request(request, where)
    return Part(type="toolCallRequest", tool_call_request=request)


def result_part(item: Any, where: str) -> Part:
    """The part for the result of a tool: a part, or a mapping as it travels.

    Raises:
        LMStudioValueError: It is neither.
    """
    if isinstance(item, Mapping) and "content" in item:
        kind = item.get("type", "toolCallResult")
        item = part_of({**item, "type": kind}, where)
    if isinstance(item, Part) and item.type == "toolCallResult":
        return _checked_part(item, where)
    raise LMStudioTypeError(
        f'{where} must be {{"content": "...", "toolCallId": "..."}}, not {shown(item)}'
    )
