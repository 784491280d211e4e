"""Calls of tools in a model's output: found while it comes, told as packets."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from .toolcalls_reader import Call, Packet, Reader
from .toolcalls_syntax import Syntax

#: Text of the answer, or a packet about a call.
Event = str | Packet

#: What stands between two calls, besides the marks that close them.
_BETWEEN = " \t\r\n,;"
_DIGITS = "0123456789"
#: How a call without a mark begins, up to the name. A fence is common around it.
_BARE_HEAD = re.compile(
    r"(?:```(?:json|tool_call)?\s*)?"
    r'(\{)\s*(?:"type"\s*:\s*"function"\s*,\s*)?"(?:name|function)"\s*:\s*"'
)
_FENCES = ("```json", "```tool_call", "```")


class ToolCalls:
    """Finds calls in the text of an answer, wherever its pieces break.

    Text goes out at once; only what may be the beginning of a call waits. A call is
    told by its packets: the start, the name, pieces of the arguments' text, and the
    end or the failure.

    Args:
        syntax: How the model writes calls.
        names: The names that the model knows, and the tools' own.
        schemas: The schemas of the arguments, by the tools' own names.
        new_id: Makes ids of calls.

    Attributes:
        count: Calls that are complete.

    Source: docs/wire/predict.md.
    """

    def __init__(
        self,
        syntax: Syntax,
        names: Mapping[str, str],
        schemas: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        new_id: Callable[[], str] | None = None,
    ) -> None:
        self.count = 0
        self._syntax = syntax
        self._names = names
        self._schemas = schemas or {}
        self._new_id = new_id or _new_id
        self._marks = (*syntax.opens, *syntax.wraps)
        # The longest first, so that none is taken for its beginning.
        ordered = sorted(self._marks, key=len, reverse=True)
        self._find = re.compile("|".join(map(re.escape, ordered)) or r"(?!)")
        self._starts = frozenset(mark[0] for mark in self._marks)
        self._closes = (*syntax.closes, *syntax.wraps, "```", "]")
        self._may_be_bare = True  # nothing but space was said, or a call just ended
        self._is_after_call = False
        self._held = ""
        self._out: list[Event] = []
        self._reader: Reader | None = None

    @property
    def is_open(self) -> bool:
        """Whether the text ends within a call."""
        return self._reader is not None

    def ignores(self, text: str) -> bool:
        """Whether a piece of text has nothing to do with a call."""
        return (
            not self._may_be_bare
            and self._reader is None
            and not self._held
            and self._starts.isdisjoint(text)
        )

    def feed(self, text: str) -> Sequence[Event]:
        """Take a piece of text; returns what can be told by now, in order."""
        if self.ignores(text):
            return (text,) if text else ()
        while text:
            if self._reader is None:
                text, self._held = self._held + text, ""
                text = self._outside(text)
            else:
                text = self._inside(self._reader, text)
        return self._taken()

    def end(self) -> Sequence[Event]:
        """There is no more text; returns what was held back, and a call cut off."""
        held, self._held = self._held, ""
        if held and not self._is_after_call:
            self._out.append(held)
        if self._reader is not None:
            self._reader.end()
            self._out += self._reader.packets
            self._reader = None
        return self._taken()

    def _outside(self, text: str) -> str:
        """Take text up to a call; returns what comes behind the mark of its start."""
        if self._is_after_call:
            text = self._without_closing(text)
            if not text:
                return ""
        if self._may_be_bare:
            bare = text.lstrip()
            blank = text[: len(text) - len(bare)]
            found = self._bare(bare)
            if found == "open":
                self._say(blank)
                self._held = bare
                return ""
            if found != "no":
                self._say(blank)
                self._begin(None)
                return bare[found:]
        mark = self._find.search(text)
        if mark is None:
            keep = len(text) - _open_end(text, self._marks)
            self._say(text[:keep])
            self._held = text[keep:]
            return ""
        self._say(text[: mark.start()])
        if mark[0] in self._syntax.opens:
            self._begin(mark[0])
        return text[mark.end() :]

    def _inside(self, reader: Reader, text: str) -> str:
        """Take text of a call; returns what comes behind it."""
        rest = reader.feed(text)
        self._out += reader.packets
        reader.packets = []
        if rest is None:
            return ""
        self.count += reader.count
        self._reader = None
        self._may_be_bare = self._is_after_call = True
        return rest

    def _begin(self, opener: str | None) -> None:
        self._reader = Reader(opener, self._syntax, self._call, self._schemas)

    def _call(self) -> Call:
        return Call(self._new_id(), lambda name: self._names.get(name, name))

    def _say(self, text: str) -> None:
        if text:
            self._out.append(text)
        if text and not text.isspace():
            self._may_be_bare = self._is_after_call = False

    def _without_closing(self, text: str) -> str:
        """Text behind a call without what ends it; what may be such waits."""
        while True:
            text = text.lstrip(_BETWEEN)
            mark = next(filter(text.startswith, self._closes), None)
            if mark is None:
                break
            text = text[len(mark) :]
        if any(mark.startswith(text) for mark in self._closes):
            self._held = text
            return ""
        return text

    def _bare(self, text: str) -> int | Literal["open", "no"]:
        """Whether text begins a call without a mark; where its brace ends if so."""
        head = _BARE_HEAD.match(text)
        if head is not None:
            rest = text[head.end() :]
            name, quote, _ = rest.partition('"')
            if quote:
                return head.end(1) if name in self._names else "no"
            is_open = any(known.startswith(name) for known in self._names)
            return "open" if is_open else "no"
        return "open" if _may_become_head(text) else "no"

    def _taken(self) -> Sequence[Event]:
        made, self._out = self._out, []
        return made


def _may_become_head(text: str) -> bool:
    """Whether a text may be the beginning of what `_BARE_HEAD` matches."""
    if any(fence.startswith(text) for fence in _FENCES):
        return True
    fence = next(filter(text.startswith, _FENCES), "")
    bare = re.sub(r"\s+", "", text[len(fence) :])
    heads: tuple[str, ...] = ('{"name":"', '{"function":"')
    heads = (*heads, *('{"type":"function",' + head[1:] for head in heads))
    return any(head.startswith(bare) for head in heads)


def _open_end(text: str, marks: Sequence[str]) -> int:
    """How many characters at the end of a text may be the beginning of a mark."""
    longest = 0
    for mark in marks:
        for length in range(min(len(text), len(mark) - 1), longest, -1):
            if text.endswith(mark[:length]):
                longest = length
                break
    return longest


def _new_id() -> str:
    # Nine digits: templates of some models take no other ids.
    return "".join(secrets.choice(_DIGITS) for _ in range(9))


def schemas_of(tools: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The schemas of the tools' arguments, by name."""
    made = {}
    for tool in tools:
        parameters = tool["function"].get("parameters")
        made[tool["function"]["name"]] = (
            parameters if isinstance(parameters, Mapping) else {}
        )
    return made
