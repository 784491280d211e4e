"""A list of messages that are checked as they come in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableSequence
from copy import deepcopy
from typing import Any, TypeVar, overload

import attrs

from .errors import LMStudioOSError, LMStudioTypeError, LMStudioValueError, shown
from .images import read_image
from .messages import message_of
from .parts import PendingImage, request_part, text_part
from .prediction import Prediction
from .result import PredictionResult
from .wire.files import FileHandle
from .wire.llm import History, Message, Part

C = TypeVar("C", bound="MessageList")

#: What can be appended: a message, also as ``{"role", "content"}`` or
#: ``(role, content)``, or what a model answered.
MessageLike = (
    Message
    | PredictionResult[Any]
    | Prediction[Any]
    | Mapping[str, Any]
    | tuple[str, Any]
)


class MessageList(MutableSequence[Message]):
    """A list of messages. Each operation is atomic, as those of a list are.

    Messages can't be changed, only replaced, so copies are cheap and independent.
    """

    def __init__(self) -> None:
        self._messages: list[Message] = []

    def __len__(self) -> int:
        return len(self._messages)

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self: C, index: slice) -> C: ...

    def __getitem__(self: C, index: int | slice) -> Message | C:
        if isinstance(index, slice):
            return self._having(self._messages[index])
        return self._messages[index]

    @overload
    def __setitem__(self, index: int, value: MessageLike) -> None: ...
    @overload
    def __setitem__(self, index: slice, value: Iterable[MessageLike]) -> None: ...

    def __setitem__(self, index: int | slice, value: Any) -> None:
        if isinstance(index, slice):
            self._messages[index] = entries_of(value, 0)
        else:
            self._messages[index] = entry_of(value, f"message {index}")

    def __delitem__(self, index: int | slice) -> None:
        del self._messages[index]

    def __iter__(self) -> Iterator[Message]:
        """Yield the messages that there are now; later changes don't disturb."""
        return iter(self._messages.copy())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MessageList):
            return NotImplemented
        return self._messages == other._messages

    def insert(self, index: int, value: MessageLike) -> None:
        """Put a message in front of another; see `append`."""
        self._messages.insert(index, entry_of(value, f"message {index}"))

    def append(self, value: MessageLike) -> None:
        """Add a message, or what a model answered, at the end.

        Args:
            value: A message as `chat[0]` has it, ``{"role": "user", "content": "Hi"}``,
                ``("user", "Hi")``, or a result or prediction, which is waited for; the
                calls of tools that the model asks for come along.

        Raises:
            LMStudioValueError: It is none of these; the error says which part is wrong.
            LMStudioError: The prediction failed.
        """
        self._messages.append(entry_of(value, f"message {len(self)}"))

    def extend(self, values: Iterable[MessageLike]) -> None:
        """Add several messages: all of them, or none when one can't be used."""
        self._messages.extend(entries_of(values, len(self)))

    def pop(self, index: int = -1) -> Message:
        """Take a message out, the last one unless told otherwise."""
        return self._messages.pop(index)

    def reverse(self) -> None:
        """Turn the order around."""
        self._messages.reverse()

    def clear(self) -> None:
        """Take all messages out."""
        self._messages.clear()

    def copy(self: C) -> C:
        """A copy: changes of either don't touch the other."""
        return self._having(self._messages.copy())

    __copy__ = copy

    def __deepcopy__(self: C, memo: dict[int, Any]) -> C:
        return self._having(deepcopy(self._messages, memo))

    def with_appended(self: C, *values: MessageLike) -> C:
        """A copy with more messages at its end; see `append`."""
        made = self.copy()
        made.extend(values)
        return made

    def to_history(self) -> History:
        """The messages as they are now, as they travel."""
        return History(messages=self._messages.copy())

    def _having(self: C, messages: list[Message]) -> C:
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__)  # what a subclass has more
        made._messages = messages
        return made


def entry_of(value: Any, where: str) -> Message:
    """The message that can be added for a value; see `MessageList.append`."""
    if isinstance(value, (Prediction, PredictionResult)):
        return answer_of(value, where)
    if isinstance(value, str):
        raise LMStudioTypeError(
            f"{where} is a text, and it is not said whose: use add_user_message or"
            f' add_assistant_response, or write ("user", {shown(value)})'
        )
    return read_images([message_of(value, where)], where)[0]


def entries_of(values: Any, first: int) -> list[Message]:
    """The same for several; errors count them from `first`."""
    return [
        entry_of(value, f"message {first + n}")
        for n, value in enumerate(several(values, "messages"))
    ]


def answer_of(given: Any, where: str) -> Message:
    """The message for a result, or for a prediction at its end."""
    result = given.result() if isinstance(given, Prediction) else given
    requests = [request_part(call, where) for call in result.tool_calls]
    # With its thoughts: whether a model sees them again is for its template to say.
    return message_of(("assistant", [text_part(result.content), *requests]), where)


def several(given: Any, what: str) -> Iterable[Any]:
    """Something to iterate over that is not itself the one thing."""
    one = (str, bytes, bytearray, memoryview, Mapping, Part, Message, FileHandle)
    if isinstance(given, one) or not isinstance(given, Iterable):
        raise LMStudioTypeError(f"{what} must be a list, not {shown(given)}")
    return given


def read_images(messages: list[Message], where: str | None = None) -> list[Message]:
    """The messages, with images that don't depend on files or what is open now."""
    for number, message in enumerate(messages):
        if any(isinstance(part, PendingImage) for part in message.content):
            at = where or f"message {number}"
            parts = [
                _read(part, f"part {n} of {at}")
                for n, part in enumerate(message.content)
            ]
            messages[number] = attrs.evolve(message, content=parts)
    return messages


def _read(part: Part, where: str) -> Part:
    if not isinstance(part, PendingImage) or part.size_bytes is not None:
        return part
    try:
        image = read_image(part.source, part.name)
    except (LMStudioValueError, LMStudioOSError) as exc:
        raise type(exc)(f"{where}: {exc}") from exc
    size = len(image.content)
    return attrs.evolve(part, name=image.name, size_bytes=size, source=image.content)
