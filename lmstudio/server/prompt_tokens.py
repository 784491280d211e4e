"""The prompt of one prediction: as text, as the engine takes it, and as token ids."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

from ..errors import shown
from .engine import Image, LoadedModel, ModelFile, PromptPart
from .prompt import Formatter, Turn, shown_images
from .sampling import GenerationError
from .work import in_turn

#: Goes into the middle of a control token, where it can't be sent as ids. It has no
#: width, and no line is broken at it.
_JOINER = "\u2060"

#: Whether an engine puts the model's first token in front of texts by itself.
_adds_bos: WeakKeyDictionary[LoadedModel, bool] = WeakKeyDictionary()


class Prompt:
    """A prompt: raw text, or messages and the template that formats them.

    Control tokens in messages and in tools stay text: what users write cannot end their
    turn. A
    template that adds nothing to the messages makes raw text, where they count.

    Args:
        raw: The text as it is; otherwise `formatter` and `turns` make it.
        control_tokens: Texts that the model reads as control tokens.
        keep: Texts that stay as they are in answers, such as the tags of thoughts:
            templates look for them.
        images: By the marks that stand for them in the turns.

    Attributes:
        text: The whole prompt, for people.
        images: Those of the arguments.
        turns: The messages, with control tokens hidden; empty for raw text.
    """

    def __init__(
        self,
        model: LoadedModel,
        file: ModelFile,
        *,
        raw: str | None = None,
        formatter: Formatter | None = None,
        turns: Sequence[Turn] = (),
        control_tokens: Sequence[str] = (),
        keep: Sequence[str] = (),
        images: Mapping[str, Image] | None = None,
    ) -> None:
        self.images = dict(images or {})
        self._model = model
        self._bos = file.bos
        self._formatter = formatter
        self._start = ""  # of the answer
        self._hidden: dict[str, str] = {}  # mark -> the control token it stands for
        self.turns = list(turns)
        if formatter is None:
            self.text = self._marked = raw or ""
            return
        self._marked = formatter.format(turns)
        self.text = shown_images(self._marked)
        if self._marked == "".join(turn["content"] for turn in turns):
            return
        hider = _Hider(control_tokens, keep)
        self.turns = hider.hide(turns)
        tools = hider.hide_tools(formatter.tools)
        if hider.hidden:
            self._hidden = hider.hidden
            self._formatter = formatter = formatter.with_tools(tools)
            self._marked = formatter.format(self.turns)

    def extend(self, text: str) -> None:
        """Begin the answer with a text, whose control tokens count."""
        self.text += text
        self._marked += text
        self._start += text

    async def parts(self) -> str | list[PromptPart]:
        """What the engine gets: plain text, or parts if something in it is none.

        Raises:
            GenerationError: Beside an image, a control token can't be kept as text.
        """
        return await self._parts(self._marked)

    def drop_oldest(self) -> bool:
        """Leave out the oldest messages, up to the next of the user.

        The system prompt stays.

        Returns:
            Whether there were any.

        Raises:
            GenerationError: The template refuses what is left.
        """
        first = next((n for n, t in enumerate(self.turns) if t["role"] != "system"), 0)
        for number in range(first + 1, len(self.turns)):
            if self.turns[number]["role"] == "user":
                assert self._formatter is not None
                self.turns = [*self.turns[:first], *self.turns[number:]]
                self._marked = self._formatter.format(self.turns) + self._start
                return True
        return False

    async def ids(
        self, turns: Sequence[Turn] | None = None, *, open_turn: bool = True
    ) -> list[int]:
        """Token ids of the prompt, or of a prompt of other messages.

        Args:
            turns: Some of `turns`; None for the whole prompt.
            open_turn: As in `Formatter.format`.

        Raises:
            GenerationError: The template refuses these messages.
        """
        text = self._marked
        if turns is not None and self._formatter is not None:
            text = await in_turn(self._formatter.format, turns, open_turn=open_turn)
            text += self._start if open_turn else ""
        parts = await self._parts(text)
        made: list[int] = []
        for number, part in enumerate([parts] if isinstance(parts, str) else parts):
            assert not isinstance(part, Image)  # they have no ids: `drop_oldest`
            if isinstance(part, int):
                made.append(part)
            else:
                made += await self._model.tokenize(
                    part, add_special=number == 0, parse_special=True
                )
        return made

    async def _parts(self, text: str) -> str | list[PromptPart]:
        # Where the engine puts BOS in front, one that the template wrote goes.
        if self._bos and text.startswith(self._bos) and await self._adds_bos():
            text = text[len(self._bos) :]
        if self.images:
            return await self._with_images(text)
        if not self._hidden:
            return text
        made: list[PromptPart] = []
        for piece in re.split(f"({'|'.join(self._hidden)})", text):
            if piece in self._hidden:
                made += await self._model.tokenize(self._hidden[piece])
            elif piece or not made:  # a text at the start, so that BOS gets in front
                made.append(piece)
        return made

    async def _with_images(self, text: str) -> list[PromptPart]:
        """Texts and images: engines read the texts around an image by themselves."""
        made: list[PromptPart] = [""]
        for piece in re.split(f"({'|'.join([*self._hidden, *self.images])})", text):
            if piece in self.images:
                made += [self.images[piece], ""]
                continue
            if piece in self._hidden:
                piece = await self._harmless(self._hidden[piece])
            made[-1] = f"{made[-1]}{piece}"
        return [part for part in made if part != ""]

    async def _harmless(self, token: str) -> str:
        """A control token as text that stays text wherever it stands.

        Raises:
            GenerationError: There is no such text.
        """
        for text in (token, f"{token[:1]}{_JOINER}{token[1:]}"):
            plain = await self._model.tokenize(text)
            if plain == await self._model.tokenize(text, parse_special=True):
                return text
        raise GenerationError(
            f"Messages with images can't say {shown(token)} to this model",
            "It would read that as a control token",
            "Leave it out, or send the message without images",
            code="unsupportedContent",
        )

    async def _adds_bos(self) -> bool:
        known = _adds_bos.get(self._model)
        if known is None:
            bos = await self._model.tokenize(self._bos, parse_special=True)
            first = await self._model.tokenize("a", add_special=True)
            known = _adds_bos[self._model] = first[:1] == bos
        return known


class _Hider:
    """Puts marks in place of control tokens in messages.

    Attributes:
        hidden: The marks that were used, and the texts that they stand for.
    """

    def __init__(self, control_tokens: Sequence[str], keep: Sequence[str]) -> None:
        self._pattern = _pattern(tuple(control_tokens))
        self._keep = frozenset(keep)
        self._nonce = secrets.token_hex(8)
        self._marks: dict[str, str] = {}
        self.hidden: dict[str, str] = {}

    def hide(self, turns: Sequence[Turn]) -> list[Turn]:
        if self._pattern is None:
            return list(turns)
        made = []
        for turn in turns:
            keep = self._keep if turn["role"] == "assistant" else frozenset[str]()
            said = {key: self._hide(turn[key], keep) for key in turn if key != "role"}
            made.append({"role": turn["role"], **said})
        return made

    def hide_tools(self, tools: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Definitions of tools with marks in names, descriptions and schemas."""
        if self._pattern is None:
            return list(tools)
        return [self._hide(tool, frozenset()) for tool in tools]

    def _hide(self, value: Any, keep: frozenset[str]) -> Any:
        if isinstance(value, str):
            pattern = self._pattern
            assert pattern is not None
            return pattern.sub(lambda found: self._mark(found[0], keep), value)
        if isinstance(value, Mapping):
            return {
                self._hide(key, keep): self._hide(part, keep)
                for key, part in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self._hide(part, keep) for part in value]
        return value

    def _mark(self, token: str, keep: frozenset[str]) -> str:
        if token in keep:
            return token
        mark = self._marks.get(token)
        if mark is None:
            # Plain letters pass through any filter of a template.
            mark = f"X{self._nonce}N{len(self._marks)}X"
            self._marks[token] = mark
            self.hidden[mark] = token
        return mark


@lru_cache(maxsize=8)
def _pattern(tokens: tuple[str, ...]) -> re.Pattern[str] | None:
    """Finds any of some texts, the longest at each place."""
    ordered = sorted(filter(None, tokens), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None


#: Gives the texts of a model's control tokens.
ControlTokens = Callable[[], Sequence[str]]
