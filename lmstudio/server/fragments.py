"""Makes fragments out of a model's output, and tells its thoughts from its answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .engine import Piece
from .sampling import ReasoningTags
from .toolcalls import Event, ToolCalls

NONE = "none"
REASONING = "reasoning"
START_TAG = "reasoningStartTag"
END_TAG = "reasoningEndTag"
ARGUMENTS = "toolCallGenerationArgumentFragmentGenerated"

Packet = dict[str, Any]
#: Some text, and what it is, in the words of the wire.
Section = tuple[str, str]


class Fragments:
    """Turns the pieces of an engine into the packets of a prediction.

    Args:
        tags: What stands around thoughts; None when they are not told apart.
        prompt: The text in front of the output: some templates begin the thought.
        calls: Finds calls of tools in the answer; None where there are none.
    """

    def __init__(
        self,
        tags: ReasoningTags | None,
        prompt: str = "",
        calls: ToolCalls | None = None,
    ) -> None:
        self._calls = calls
        self._splitter: ReasoningSplitter | None = None
        if tags is not None:
            inside = prompt.rstrip().endswith(tags.start)
            self._splitter = ReasoningSplitter(tags, inside=inside)
        # Of text that is held back, and what was reported about them.
        self._tokens = 0
        self._logprobs: list[dict[str, Any]] | None = None

    def feed(self, piece: Piece) -> list[Packet]:
        """The packets for a piece. Runs for each token."""
        # Nearly every piece ends here: it has nothing to do with a tag or a call.
        text, splitter, calls = piece.text, self._splitter, self._calls
        kind = NONE if splitter is None else splitter.kind
        if (
            not self._tokens
            and (splitter is None or splitter.ignores(text))
            and (calls is None or kind != NONE or calls.ignores(text))
        ):
            return [_fragment(text, kind, piece.tokens, piece.logprobs)]
        self._tokens += piece.tokens
        if piece.logprobs is not None:
            self._logprobs = [*(self._logprobs or ()), *piece.logprobs]
        if calls is not None:
            return self._packets(self._with_calls(calls, text))
        assert splitter is not None
        return self._packets(splitter.feed(text))

    def end(self) -> list[Packet]:
        """The packets for what was held back to the end."""
        made: list[Section | Packet] = []
        if self._splitter is not None:
            made += self._splitter.end()
        if self._calls is not None:
            made = [*self._found(self._calls, made), *_sections(self._calls.end())]
        return self._packets(made)

    @property
    def is_thinking(self) -> bool:
        """Whether the text ends within a thought."""
        return self._splitter is not None and self._splitter.kind == REASONING

    def _with_calls(self, calls: ToolCalls, text: str) -> list[Section | Packet]:
        """Thoughts and calls: each may hold what looks like the other."""
        splitter = self._splitter
        if splitter is None:
            return _sections(calls.feed(text))
        if splitter.ignores(text):
            told = [(text, NONE)] if calls.is_open else splitter.feed(text)
            return self._found(calls, told)
        made: list[Section | Packet] = []
        for character in text:
            if calls.is_open:  # a tag in there is none
                made += self._found(calls, [*splitter.end(), (character, NONE)])
            else:
                made += self._found(calls, splitter.feed(character))
        return _joined(made)

    def _found(
        self, calls: ToolCalls, sections: Iterable[Section | Packet]
    ) -> list[Section | Packet]:
        """Sections with the calls in their answers."""
        made: list[Section | Packet] = []
        for section in sections:
            if not isinstance(section, tuple) or section[1] != NONE:
                made.append(section)
            else:
                made += _sections(calls.feed(section[0]))
        return made

    def _packets(self, sections: Sequence[Section | Packet]) -> list[Packet]:
        """Fragments; the first counts all the tokens that came since the last one."""
        made = []
        for section in sections:
            if isinstance(section, tuple):
                text, kind = section
                section = _fragment(text, kind, self._tokens, self._logprobs)
            made.append(section)
            self._tokens, self._logprobs = 0, None
        return made


class ReasoningSplitter:
    """Splits text at the tags around thoughts.

    It holds text back only while that may be the beginning of the tag that would come
    next.

    Args:
        inside: The text begins within a thought.

    Attributes:
        kind: What the text is now, in the words of the wire.
    """

    def __init__(self, tags: ReasoningTags, *, inside: bool = False) -> None:
        self._tags = tags
        self._held = ""
        self._enter(inside)

    def feed(self, text: str) -> Sequence[Section]:
        """Take a piece of text; returns what can be told by now, in order."""
        if self.ignores(text):
            return ((text, self.kind),)
        made: list[Section] = []
        text = self._held + text
        while (at := text.find(self._tag)) >= 0:
            if at:
                made.append((text[:at], self.kind))
            made.append((self._tag, self._tag_kind))
            text = text[at + len(self._tag) :]
            self._enter(self.kind == NONE)
        keep = len(text) - _open_end(text, self._tag)
        if keep:
            made.append((text[:keep], self.kind))
        self._held = text[keep:]
        return made

    def ignores(self, text: str) -> bool:
        """Whether a piece of text has nothing to do with a tag."""
        return not self._held and self._tag[0] not in text

    def end(self) -> Sequence[Section]:
        """There is no more text; returns what was held back."""
        held, self._held = self._held, ""
        return ((held, self.kind),) if held else ()

    def _enter(self, inside: bool) -> None:
        self.kind = REASONING if inside else NONE
        self._tag = self._tags.end if inside else self._tags.start
        self._tag_kind = END_TAG if inside else START_TAG


def _sections(events: Iterable[Event]) -> list[Section | Packet]:
    return [(event, NONE) if isinstance(event, str) else event for event in events]


def _joined(sections: Iterable[Section | Packet]) -> list[Section | Packet]:
    """Sections of one kind put together, and pieces of the arguments of a call."""
    made: list[Section | Packet] = []
    for section in sections:
        last = made[-1] if made else None
        if isinstance(section, tuple):
            if isinstance(last, tuple) and last[1] == section[1]:
                made[-1] = (last[0] + section[0], last[1])
                continue
        elif isinstance(last, dict) and last["type"] == section["type"] == ARGUMENTS:
            made[-1] = {**last, "content": last["content"] + section["content"]}
            continue
        made.append(section)
    return made


def _open_end(text: str, tag: str) -> int:
    """How many characters at the end of a text may be the beginning of a tag."""
    for length in range(min(len(text), len(tag) - 1), 0, -1):
        if text.endswith(tag[:length]):
            return length
    return 0


def _fragment(
    text: str, kind: str, tokens: int, logprobs: list[dict[str, Any]] | None
) -> Packet:
    fragment = {
        "content": text,
        "tokensCount": tokens,
        "containsDrafted": False,
        "reasoningType": kind,
        "isStructural": kind in (START_TAG, END_TAG),
    }
    if logprobs is not None:
        fragment["tokens"] = logprobs
    return {"type": "fragment", "fragment": fragment}
