"""Takes out of a recording what differs from run to run, and what nobody may read."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

#: Fields that hold the name of something which the server made -> what it is.
_NAMES = {
    "instanceReference": "instance",
    "toolCallId": "tool-call",
    "fileIdentifier": "file",
}
#: Shorter tokens would be found in ordinary text.
_SHORTEST_SECRET = 8


class Redactor:
    """Replaces ids by numbered ones, and hosts, tokens and the home folder by marks.

    The same id has the same number in every message, so that what a client repeats
    is known again.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._marks: dict[tuple[str, str], str] = {}  # kind and id -> its mark
        self._ids: dict[tuple[str, str], str] = {}  # kind and mark -> the id
        self._texts: list[tuple[str, str]] = []
        home = str(Path.home())
        if len(home) > 1:
            self._texts.append((home, "<home>"))

    def hide(self, text: str, mark: str) -> None:
        """Replace a text wherever it stands, such as a token."""
        if len(text) >= _SHORTEST_SECRET and (text, mark) not in self._texts:
            self._texts.append((text, mark))
            # A token may hold another text, such as the passkey that is a part of it.
            self._texts.sort(key=lambda pair: -len(pair[0]))

    def know(self, message: Any) -> None:
        """Take marks that are in a recording for used."""
        for kind, mark in _ids_in(message):
            number = mark.removeprefix(f"{kind}-")
            if number.isdecimal():
                most = max(self._numbers.get(kind, 0), int(number))
                self._numbers[kind] = most

    def pair(self, recorded: Any, live: Any) -> None:
        """Let ids of an answer have the marks that they have in its recording."""
        marks = [pair for pair in _ids_in(recorded) if pair[0] != "tool-call"]
        ids = [pair for pair in _ids_in(live) if pair[0] != "tool-call"]
        for (kind, mark), (other, value) in zip(marks, ids, strict=False):
            if kind == other:
                self._marks.setdefault((kind, value), mark)
                self._ids[kind, mark] = value

    def redacted(self, message: Any) -> Any:
        """A message as it is written down."""
        return _mapped(message, self._mark, self._text)

    def restored(self, message: Any) -> Any:
        """A recorded message with the ids that its marks stand for now, if any."""

        def value(kind: str, mark: str) -> str:
            return self._ids.get((kind, mark), mark)

        return _mapped(message, value, str)

    def _mark(self, kind: str, value: str) -> str:
        known = self._marks.get((kind, value))
        if known is not None:
            return known
        if value.removeprefix(f"{kind}-").isdecimal() and value.startswith(kind):
            return value  # it comes from a recording
        self._numbers[kind] = self._numbers.get(kind, 0) + 1
        mark = self._marks[kind, value] = f"{kind}-{self._numbers[kind]}"
        self._ids[kind, mark] = value
        return mark

    def _text(self, text: str) -> str:
        for found, mark in self._texts:
            text = text.replace(found, mark)
        return text


def _kind(name: str, value: Any, inside: dict[str, Any]) -> str | None:
    """What a field names that the server made; None when it does not."""
    if not isinstance(value, str):
        return None
    if name == "id" and inside.get("type") == "function" and "name" in inside:
        return "tool-call"
    is_file = inside.get("type") == "file" or "fileType" in inside
    if name == "identifier" and is_file:
        return "file"
    return _NAMES.get(name)


def _mapped(
    value: Any, name_of: Callable[[str, str], str], text_of: Callable[[str], str]
) -> Any:
    if isinstance(value, dict):
        made: dict[str, Any] = {}
        for name, inner in value.items():
            kind = _kind(name, inner, value)
            if kind is not None:
                made[name] = name_of(kind, inner)
            elif name == "fileIdentifiers" and isinstance(inner, list):
                made[name] = [name_of("file", file) for file in inner]
            elif name == "contentBase64" and isinstance(inner, str):
                made[name] = _digest(inner)
            else:
                made[name] = _mapped(inner, name_of, text_of)
        return made
    if isinstance(value, list):
        return [_mapped(inner, name_of, text_of) for inner in value]
    return text_of(value) if isinstance(value, str) else value


def _ids_in(value: Any) -> Iterator[tuple[str, str]]:
    """Kind and value of every id in a message, in order."""
    if isinstance(value, dict):
        for name, inner in value.items():
            kind = _kind(name, inner, value)
            if kind is not None:
                yield kind, inner
            else:
                yield from _ids_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _ids_in(inner)


def _digest(content: str) -> str:
    """Stands for a file: its hash tells files apart, and keeps recordings small."""
    if content.startswith("sha256:"):
        return content
    try:
        data = base64.b64decode(content)
    except ValueError:
        data = content.encode()
    return f"sha256:{hashlib.sha256(data).hexdigest()}, {len(data)} bytes"
