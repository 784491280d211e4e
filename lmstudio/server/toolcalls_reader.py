"""Reads one call of a tool, character by character, in any form that models use."""

# ruff: noqa: RUF001 - the marks of DeepSeek have such bars
from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Mapping
from typing import Any

from ..errors import shown
from .toolcalls_syntax import Syntax

Packet = dict[str, Any]
#: Takes one character after the other.
Reads = Generator[None, str, None]
_ReadsText = Generator[None, str, str]

_NAME_KEYS = ("name", "tool_name", "function")
_ARGUMENT_KEYS = ("arguments", "parameters", "args", "input")
#: What may stand in JSON outside of strings; anything else ends a call that is none.
_JSON = frozenset('{}[]:,"+-.0123456789eE \t\r\ntrufalsn')
#: Around the name of a tool in front of its arguments.
_AROUND_NAME = re.compile(
    r"^functions?\.|^function<｜tool▁sep｜>|<｜tool▁sep｜>|\[CALL_ID\]\w*|\[ARGS\]"
    r"|<\|constrain\|>|<\|channel\|>\w+|<\|message\|>|```|\bjson\b"
)
_NAME = re.compile(r"[\w.\-]+(?::\d+)?")
#: More characters in front of the arguments are no name.
_LONGEST_NAME = 300
_FUNCTION = "<function="


class Invalid(Exception):
    """What began like a call is none; the text says why."""


class Call:
    """One call: what is known of it, and its packets.

    Args:
        call_id: Its id.
        own_name: Gives a tool's own name for the one that the model wrote.

    Attributes:
        packets: Those that are to be sent.
    """

    def __init__(self, call_id: str, own_name: Callable[[str], str]) -> None:
        self.packets: list[Packet] = [
            {"type": "toolCallGenerationStart", "toolCallId": call_id}
        ]
        self._id = call_id
        self._own_name = own_name
        self._name: str | None = None
        self._arguments = ""
        self._told = 0  # characters of the arguments

    @property
    def name(self) -> str | None:
        """The tool's own name, once it is known."""
        return self._name

    @name.setter
    def name(self, written: str) -> None:
        if self._name is None:
            self._name = self._own_name(written)
            packet = {"type": "toolCallGenerationNameReceived", "name": self._name}
            self.packets.append(packet)

    def add(self, text: str) -> None:
        """More of the arguments' text."""
        self._arguments += text if self._arguments else text.lstrip()

    def add_member(self, name: str, value: Any) -> None:
        """One argument, where they do not come as JSON."""
        start = ", " if self._arguments else "{"
        made = json.dumps(value, ensure_ascii=False)
        self.add(f"{start}{json.dumps(name, ensure_ascii=False)}: {made}")

    def end_members(self) -> None:
        """There are no more arguments."""
        self.add("}" if self._arguments else "{}")

    def flush(self) -> None:
        """Make a packet of the arguments that are not told yet; the name goes first."""
        is_known = self._name is not None and self._arguments[:1] == "{"
        if is_known and self._told < len(self._arguments):
            content = self._arguments[self._told :]
            self._told = len(self._arguments)
            self.packets.append(
                {
                    "type": "toolCallGenerationArgumentFragmentGenerated",
                    "content": content,
                }
            )

    def complete(self, raw: str) -> None:
        """Make the last packet.

        Raises:
            Invalid: The call has no name, or arguments that are no JSON object.
        """
        if not self._name:
            raise Invalid("It does not name a tool")
        if self._arguments.strip() in ("", "null"):
            self._arguments = "{}"
        try:
            arguments = json.loads(
                self._arguments, strict=False, parse_constant=_no_constant
            )
            json.dumps(arguments, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            raise Invalid("Its arguments are not valid JSON") from None
        if not isinstance(arguments, dict):
            raise Invalid("Its arguments are not a JSON object")
        self.flush()
        request = {
            "id": self._id,
            "type": "function",
            "name": self._name,
            "arguments": arguments,
        }
        self.packets.append(
            {
                "type": "toolCallGenerationEnd",
                "toolCallRequest": request,
                "rawContent": raw.strip(),
            }
        )

    def fail(self, why: str, raw: str) -> None:
        """Make the last packet of a call that is none.

        Source: docs/wire/predict.md.
        """
        self.flush()
        title = "The model wrote a tool call that cannot be read"
        cause = f"{why}: {shown(raw.strip())}"
        error = {"title": title, "rootTitle": title, "cause": cause}
        self.packets.append(
            {
                "type": "toolCallGenerationFailed",
                "error": error,
                "rawContent": raw.strip(),
            }
        )


class Reader:
    """Reads what follows the mark of a call, up to the end of the call.

    Args:
        opener: The mark; None when the call begins with a brace, already read.
        new_call: Makes a call.
        schemas: The schemas of arguments, by the tools' own names.

    Attributes:
        count: Calls that were complete.
        packets: Those that are to be sent.
    """

    def __init__(
        self,
        opener: str | None,
        syntax: Syntax,
        new_call: Callable[[], Call],
        schemas: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self.count = 0
        self.packets: list[Packet] = []
        self._syntax = syntax
        self._new_call = new_call
        self._schemas = schemas
        self._raw = ""
        self._why = ""  # a call is none, whose end is still to come
        self._call: Call | None = None
        self._reads = self._section(opener)
        next(self._reads)

    def feed(self, text: str) -> str | None:
        """Take text; returns what is behind the call, None while there is none."""
        for at, character in enumerate(text, 1):
            self._raw += character
            try:
                self._reads.send(character)
            except StopIteration:
                return text[at:]
        if self._call is not None:
            self._call.flush()
            self._take()
        return None

    def end(self) -> None:
        """There is no more text: a call that is open failed."""
        self._reads.close()
        if self._call is None and self._raw.strip():
            self._begin(self._raw)
        self._fail(self._why or "It is cut off")

    def _section(self, opener: str | None) -> Reads:
        while True:
            try:
                if opener is None:
                    self._begin("{")
                    yield from self._object()
                    self._complete()
                else:
                    yield from self._calls(opener)
                return
            except Invalid as exc:
                if self._call is None:
                    self._begin(self._raw)
                if opener is None:
                    self._fail(str(exc))
                    return
                self._why = str(exc)
                opener = yield from self._skip()
                self._fail(self._why)
                self._why = ""
                if opener is None:
                    return

    def _skip(self) -> Generator[None, str, str | None]:
        """Read to the end of a call that is none; returns the mark of the next."""
        while True:
            if any(map(self._raw.endswith, self._syntax.closes)):
                return None
            mark = next(filter(self._raw.endswith, self._syntax.opens), None)
            if mark is not None:
                self._raw = self._raw[: -len(mark)]
                return mark
            yield

    def _calls(self, opener: str) -> Reads:
        if opener == _FUNCTION:
            self._begin("")
            yield from self._tagged()
            return
        character = yield from _next()
        if character == "[":
            yield from self._list()
        elif character == "{":
            self._begin("{")
            yield from self._object()
            self._complete()
        elif character == "<":
            self._begin("<")
            while self._raw != _FUNCTION:
                yield
                if not _FUNCTION.startswith(self._raw):
                    raise Invalid("It begins with neither JSON nor a function")
            yield from self._tagged()
        else:
            self._begin(character)
            yield from self._named()

    def _list(self) -> Reads:
        while (character := (yield from _next())) != "]":
            if character == "{":
                self._begin("{")
                yield from self._object()
                self._complete()
            elif character != ",":
                raise Invalid("A list of calls holds something else")

    def _object(self) -> Reads:
        """The members of an object whose brace was read."""
        assert self._call is not None
        character = yield from _next()
        while character != "}":
            if character == ",":
                character = yield from _next()
                continue
            if character != '"':
                raise Invalid("It is not JSON")
            key = yield from _string()
            if (yield from _next()) != ":":
                raise Invalid("It is not JSON")
            character = yield from _next()
            if key in _NAME_KEYS and character == '"':
                self._call.name = yield from _string()
            elif key == "function" and character == "{":
                yield from self._object()
            elif key in _ARGUMENT_KEYS and character == '"':
                self._call.add((yield from _string()))
            elif character in '{["':
                add = self._call.add if key in _ARGUMENT_KEYS else None
                yield from _nested(character, add)
            else:
                word, character = yield from _word(character)
                if key in _ARGUMENT_KEYS:
                    self._call.add(word)
                continue
            character = yield from _next()

    def _tagged(self) -> Reads:
        """``name>``, then parameters in tags, to the end of the function."""
        call = self._call
        assert call is not None
        call.name = (yield from _until(">")).strip()
        schema = self._schemas.get(call.name or "", {})
        while (yield from _next()) == "<":
            tag = yield from _until(">")
            if tag == "/function":
                call.end_members()
                self._complete()
                return
            if not tag.startswith("parameter="):
                break
            name = tag.removeprefix("parameter=").strip()
            call.add_member(
                name, _typed((yield from _until("</parameter>")), name, schema)
            )
        raise Invalid("A function holds something else than parameters")

    def _named(self) -> Reads:
        """A name, then the arguments as JSON or in tags of keys and values."""
        call = self._call
        assert call is not None
        ends = ("{", "<arg_key>", *self._syntax.closes)
        while not (end := next(filter(self._raw.endswith, ends), "")):
            if len(self._raw) > _LONGEST_NAME:
                raise Invalid("It begins with neither JSON nor the name of a tool")
            yield
        head = self._raw[: len(self._raw) - len(end)]
        head = _AROUND_NAME.sub(" ", head.strip()).strip()
        if not _NAME.fullmatch(head):
            raise Invalid("It begins with neither JSON nor the name of a tool")
        call.name = head.partition(":")[0]
        if end == "{":
            yield from _nested("{", call.add)
            self._complete()
        elif end == "<arg_key>":
            yield from self._keys_and_values()
        else:
            self._raw = self._raw[: -len(end)]
            self._complete()

    def _keys_and_values(self) -> Reads:
        """``key</arg_key><arg_value>value</arg_value>``, to the end of the call."""
        call = self._call
        assert call is not None
        schema = self._schemas.get(call.name or "", {})
        while True:
            key = (yield from _until("</arg_key>")).strip()
            if (yield from _until("<arg_value>")).strip():
                raise Invalid("An argument has no value")
            call.add_member(
                key, _typed((yield from _until("</arg_value>")), key, schema)
            )
            between = ""
            while not between.endswith(("<arg_key>", *self._syntax.closes)):
                between += yield
                if len(between) > _LONGEST_NAME:
                    raise Invalid("It does not end")
            if not between.endswith("<arg_key>"):
                break
        call.end_members()
        self._complete()

    def _begin(self, raw: str) -> None:
        self._raw = raw
        self._call = self._new_call()

    def _complete(self) -> None:
        assert self._call is not None
        self._call.complete(self._raw)
        self.count += 1
        self._take()
        self._call = None
        self._raw = ""

    def _fail(self, why: str) -> None:
        if self._call is not None:
            self._call.fail(why, self._raw)
            self._take()
            self._call = None
            self._raw = ""

    def _take(self) -> None:
        assert self._call is not None
        self.packets += self._call.packets
        self._call.packets = []


def _next() -> _ReadsText:
    """The next character that is no space."""
    while (character := (yield)).isspace():
        pass
    return character


def _until(mark: str) -> _ReadsText:
    """The text in front of a mark, and the mark is gone."""
    text = ""
    while not text.endswith(mark):
        text += yield
    return text[: -len(mark)]


def _string() -> _ReadsText:
    """The text of a JSON string whose first quote was read."""
    text, is_escaped = '"', False
    while True:
        character = yield
        text += character
        if character == '"' and not is_escaped:
            break
        is_escaped = character == "\\" and not is_escaped
    try:
        found: str = json.loads(text, strict=False)
        found.encode()  # half of a surrogate pair is no text
    except ValueError:
        raise Invalid("It is not JSON") from None
    return found


def _nested(character: str, add: Callable[[str], None] | None) -> Reads:
    """The rest of an object, a list or a string, and how it began."""
    depth, in_string, is_escaped = 0, False, False
    while True:
        if in_string:
            in_string = character != '"' or is_escaped
            is_escaped = character == "\\" and not is_escaped
        elif character not in _JSON:
            raise Invalid("It is not JSON")
        elif character in "{[":
            depth += 1
        elif character in "}]":
            depth -= 1
        else:
            in_string = character == '"'
        if add is not None:
            add(character)
        if not depth and not in_string:
            return
        character = yield


def _word(character: str) -> Generator[None, str, tuple[str, str]]:
    """A number or a word, and the first character behind it that is no space."""
    text = ""
    while character not in ",}]":
        if character not in _JSON:
            raise Invalid("It is not JSON")
        text += character
        character = yield
    return text.strip(), character


def _typed(text: str, name: str, schema: Mapping[str, Any]) -> Any:
    """An argument that came as text, in the type that the tool wants."""
    text = text.removeprefix("\n").removesuffix("\n")
    properties = schema.get("properties")
    wanted = properties.get(name) if isinstance(properties, Mapping) else None
    kind = wanted.get("type") if isinstance(wanted, Mapping) else None
    if kind == "string":
        return text
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return {"True": True, "False": False, "None": None}.get(text.strip(), text)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
