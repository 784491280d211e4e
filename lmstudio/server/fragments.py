"""Makes fragments out of a model's output, and tells its thoughts from its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .engine import Piece
from .sampling import ReasoningTags

NONE = "none"
REASONING = "reasoning"
START_TAG = "reasoningStartTag"
END_TAG = "reasoningEndTag"

Packet = dict[str, Any]
#: Some text, and what it is, in the words of the wire.
Section = tuple[str, str]


class Fragments:
    """Turns the pieces of an engine into the packets of a prediction.

    Args:
        tags: What stands around thoughts; None when they are not told apart.
        prompt: The text in front of the output: some templates begin the thought.
    """

    def __init__(self, tags: ReasoningTags | None, prompt: str = "") -> None:
        self._splitter: ReasoningSplitter | None = None
        if tags is not None:
            inside = prompt.rstrip().endswith(tags.start)
            self._splitter = ReasoningSplitter(tags, inside=inside)
        # Of text that is held back, and what was reported about them.
        self._tokens = 0
        self._logprobs: list[dict[str, Any]] | None = None

    def feed(self, piece: Piece) -> list[Packet]:
        """The packets for a piece. Runs for each token."""
        if self._splitter is None:
            return [_fragment(piece.text, NONE, piece.tokens, piece.logprobs)]
        self._tokens += piece.tokens
        if piece.logprobs is not None:
            self._logprobs = [*(self._logprobs or ()), *piece.logprobs]
        return self._packets(self._splitter.feed(piece.text))

    def end(self) -> list[Packet]:
        """The packets for what was held back to the end."""
        return [] if self._splitter is None else self._packets(self._splitter.end())

    def _packets(self, sections: Sequence[Section]) -> list[Packet]:
        """Fragments; the first counts all the tokens that came since the last one."""
        made = []
        for text, kind in sections:
            made.append(_fragment(text, kind, self._tokens, self._logprobs))
            self._tokens, self._logprobs = 0, None
        return made


class ReasoningSplitter:
    """Splits text at the tags around thoughts.

    It holds text back only while that may be the beginning of the tag that would come
    next.

    Args:
        inside: The text begins within a thought.
    """

    def __init__(self, tags: ReasoningTags, *, inside: bool = False) -> None:
        self._tags = tags
        self._held = ""
        self._enter(inside)

    def feed(self, text: str) -> Sequence[Section]:
        """Take a piece of text; returns what can be told by now, in order."""
        # Nearly every piece ends here: it has nothing to do with a tag.
        if not self._held and self._tag[0] not in text:
            return ((text, self._kind),)
        made: list[Section] = []
        text = self._held + text
        while (at := text.find(self._tag)) >= 0:
            if at:
                made.append((text[:at], self._kind))
            made.append((self._tag, self._tag_kind))
            text = text[at + len(self._tag) :]
            self._enter(self._kind == NONE)
        keep = len(text) - _open_end(text, self._tag)
        if keep:
            made.append((text[:keep], self._kind))
        self._held = text[keep:]
        return made

    def end(self) -> Sequence[Section]:
        """There is no more text; returns what was held back."""
        held, self._held = self._held, ""
        return ((held, self._kind),) if held else ()

    def _enter(self, inside: bool) -> None:
        self._kind = REASONING if inside else NONE
        self._tag = self._tags.end if inside else self._tags.start
        self._tag_kind = END_TAG if inside else START_TAG


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
