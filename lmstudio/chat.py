"""A conversation that grows: what people and models say, and what tools answer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import attrs

from . import transcripts
from .arguments import checked_count
from .errors import LMStudioValueError
from .message_list import MessageList, answer_of, entry_of, read_images, several
from .messages import HistoryLike, message_of, messages_of
from .parts import image_part, part_of, parts_of, request_part, result_part
from .prediction import Prediction
from .result import PredictionResult
from .wire.files import FileHandle
from .wire.llm import Message, Part, ToolCallRequest

S = TypeVar("S", bound="Chat")


class Chat(MessageList):
    """A conversation: a list of messages, and ways to add to it.

    Hand it to `respond` as it is. What is sent are the messages of that moment: a chat
    can be changed while an answer is on its way. It is as safe between threads as a
    list: each operation is atomic, a sequence of them is not.

    Args:
        system_prompt: What the model is told first; None for nothing.

    Raises:
        LMStudioValueError: The prompt is no text.
    """

    def __init__(self, system_prompt: str | None = None) -> None:
        super().__init__()
        if system_prompt is None:
            return
        try:
            self.add_system_prompt(system_prompt)
        except LMStudioValueError as exc:
            if isinstance(system_prompt, str):
                raise
            raise type(exc)(
                f"{exc}; messages are read with Chat.from_history"
            ) from None

    @classmethod
    def from_history(cls: type[S], history: HistoryLike) -> S:
        """A chat with the messages of a text, list, wire form or other chat.

        Args:
            history: A text of the user; messages as ``{"role", "content"}`` or
                ``(role, content)``, also as OpenAI writes them; ``{"messages": [...]}``
                around these; or a chat. The new chat is independent of it.

        Raises:
            LMStudioValueError: It is none of these; the error says where.
        """
        made = cls()
        made._messages = read_images(messages_of(history))
        return made

    @classmethod
    def from_openai(cls: type[S], messages: Iterable[Any]) -> S:
        """A chat with messages as OpenAI's chat completions take and give them.

        Args:
            messages: Mappings, or messages of OpenAI's client. Images must be data
                URLs.

        Raises:
            LMStudioValueError: One can't be read; the error says which.
        """
        return cls.from_history(messages)

    @classmethod
    def load(cls: type[S], path: str | os.PathLike[str]) -> S:
        """A chat that `save` wrote.

        Raises:
            LMStudioOSError: The file can't be read.
            LMStudioValueError: It is no saved chat, or of a newer version.
        """
        made = cls()
        made._messages = read_images(transcripts.load(path))
        return made

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the chat to a file, as JSON. An existing one is replaced at once.

        Images given by path or content are in it. Of files that were handed to the
        server only the handle is, which the server forgets with its client.

        Raises:
            LMStudioOSError: The file can't be written.
        """
        transcripts.save(self._messages.copy(), path)

    def to_dict(self) -> dict[str, Any]:
        """The chat as it travels, ``{"messages": [...]}``; `from_history` reads it."""
        return transcripts.to_dict(self._messages.copy())

    def to_json(self, indent: int | None = None) -> str:
        """The same as JSON text.

        Args:
            indent: Spaces for each level, above 0; None writes all in one line.

        Raises:
            LMStudioValueError: The indent is no such number.
        """
        import json

        checked_count(indent, "indent")
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=indent)

    def to_openai(self) -> list[dict[str, Any]]:
        """The messages as OpenAI's chat completions take them.

        Raises:
            LMStudioValueError: One shows a file that only the LM Studio server has.
        """
        return transcripts.to_openai(self._messages.copy())

    @property
    def system_prompt(self) -> str | None:
        """The text of the first system message; None without one.

        Setting it replaces that message, or puts one in front; None takes it out.
        """
        prompts = (m.text for m in self if m.role == "system")
        return next(prompts, None)

    @system_prompt.setter
    def system_prompt(self, prompt: str | None) -> None:
        found = [n for n, m in enumerate(self) if m.role == "system"][:1]
        if prompt is None:
            for at in found:
                del self._messages[at]
            return
        message = message_of(("system", prompt), "the system prompt")
        at, end = (found[0], found[0] + 1) if found else (0, 0)
        self._messages[at:end] = [message]

    def add_system_prompt(self, prompt: str) -> Message:
        """Add what the model is told at this place of the conversation."""
        return self._add("system", parts_of(prompt, "the system prompt"))

    def add_user_message(
        self,
        content: str | Part | FileHandle | Mapping[str, Any] | Iterable[Any],
        *,
        images: Iterable[Any] = (),
        files: Iterable[FileHandle | Part | Mapping[str, Any]] = (),
    ) -> Message:
        """Add what the user says.

        Args:
            content: A text, or several texts and files.
            images: What `prepare_image` returned or takes: paths, bytes, files opened
                in binary mode, data URLs, images of Pillow. They are read now, and sent
                with the prediction.
            files: What `prepare_image` returned.

        Raises:
            LMStudioValueError: Something can't be used; the error says which part.
            LMStudioOSError: An image can't be read.
        """
        where = f"message {len(self)}"
        parts = parts_of(content, where)
        for n, file in enumerate(several(files, "files")):
            part = part_of(file, f"file {n} of {where}")
            parts.append(_file(part, f"file {n} of {where}"))
        for n, image in enumerate(several(images, "images")):
            is_ready = isinstance(image, (Part, FileHandle, Mapping))
            at = f"image {n} of {where}"
            part = part_of(image, at) if is_ready else image_part(image)
            parts.append(_file(part, at))
        return self._add("user", parts)

    def add_assistant_response(
        self,
        response: str | PredictionResult[Any] | Prediction[Any] | Iterable[Any],
        tool_call_requests: Iterable[ToolCallRequest | Part | Mapping[str, Any]] = (),
    ) -> Message:
        """Add what the model said.

        Args:
            response: A result; a prediction, which is waited for; or a text.
            tool_call_requests: The calls of tools that it asks for; of a result its
                own, unless others are given.

        Raises:
            LMStudioValueError: Something can't be used; the error says which part.
            LMStudioError: The prediction failed.
        """
        where = f"message {len(self)}"
        requests: Iterable[Any] = several(tool_call_requests, "tool_call_requests")
        parts = [request_part(request, where) for request in requests]
        if isinstance(response, (Prediction, PredictionResult)):
            message = answer_of(response, where)
            own = [p for p in message.content if p.type == "toolCallRequest"]
            return self._add("assistant", [message.content[0], *(parts or own)])
        return self._add("assistant", parts_of(response, where) + parts)

    def add_tool_result(self, result: Any, call_id: str | None = None) -> Message:
        """Add what a tool answered.

        Args:
            result: A text as it is; ``{"content": "...", "toolCallId": "..."}``; any
                other value as JSON.
            call_id: The `id` of the call that it answers.

        Raises:
            LMStudioValueError: It can't be used.
        """
        where = f"message {len(self)}"
        return self._add("tool", [_result(result, call_id, where)])

    def add_tool_results(self, results: Iterable[Any]) -> Message:
        """Add what several tools answered, in one message.

        Args:
            results: As `add_tool_result` takes them.

        Raises:
            LMStudioValueError: One can't be used; the error says which.
        """
        where = f"message {len(self)}"
        given = enumerate(several(results, "results"))
        parts = [_result(item, None, f"result {n} of {where}") for n, item in given]
        return self._add("tool", parts)

    def add_entry(self, role: str, content: Any) -> Message:
        """Add a message of any role; the content is that of the other methods."""
        if role == "assistant":
            return self.add_assistant_response(content)
        if role == "tool" and isinstance(content, (list, tuple)):
            return self.add_tool_results(content)
        if role == "tool":
            return self.add_tool_result(content)
        return self._add(role, content)

    def _add(self, role: str, content: Any) -> Message:
        message = entry_of((role, content), f"message {len(self)}")
        self._messages.append(message)
        return message

    def __str__(self) -> str:
        return transcripts.as_text(self._messages.copy())

    def __repr__(self) -> str:
        messages = self._messages.copy()
        name = type(self).__name__
        count = f"{len(messages)} message{'' if len(messages) == 1 else 's'}"
        if not messages:
            return f"<{name} {count}>"
        last = transcripts.as_text(messages[-1:])
        short = last if len(last) <= 60 else last[:59] + "…"
        return f"<{name} {count}, last {short!r}>"

    def _repr_html_(self) -> str:
        return transcripts.as_html(self._messages.copy())


def _file(part: Part, where: str) -> Part:
    if part.type != "file":
        raise LMStudioValueError(f"{where} is no file, but of the type {part.type}")
    return part


def _result(item: Any, call_id: Any, where: str) -> Part:
    """The part for what a tool answered."""
    is_wire = isinstance(item, Mapping) and (
        item.get("type") == "toolCallResult"
        or ("content" in item and bool({"toolCallId", "tool_call_id"} & set(item)))
    )
    if is_wire or isinstance(item, Part):
        part = result_part(item, where)
    else:
        from .toolcalls import to_json

        text = item if isinstance(item, str) else to_json(item)
        part = Part(type="toolCallResult", content=text)
    return part if call_id is None else attrs.evolve(part, tool_call_id=call_id)
