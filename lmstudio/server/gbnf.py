"""Reads GBNF grammars, and tells whether a text obeys one or begins to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Literal

#: Steps after which a question is left open: some grammars are ambiguous beyond use.
MOST_STEPS = 100_000

_TOKEN = re.compile(
    r"\s+|\#[^\n]*|(?P<name>[A-Za-z0-9_-]+)|(?P<defines>::=)"
    r'|(?P<text>"(?:\\.|[^"\\])*")|(?P<set>\[(?:\\.|[^\]\\])*\])'
    r"|(?P<many>[*+?]|\{\s*\d+\s*(?:,\s*\d*\s*)?\})|(?P<mark>[()|.])",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:x(\w{2})|u(\w{4})|U(\w{8})|(.))|(.)", re.DOTALL)
_PLAIN = {"n": "\n", "r": "\r", "t": "\t"}

_Test = Callable[[str], bool]
#: A test of one character, or the number of a rule.
_Element = _Test | int
_Choices = list[tuple[_Element, ...]]
#: What is still to come: the elements of an alternative, the place in them, and what
#: follows; None is the end of the text.
_Rest = tuple[tuple[_Element, ...], int, "_Rest | None"]


class Unreadable(ValueError):
    """A grammar that this module does not understand; others may."""


class Grammar:
    """A GBNF grammar.

    Raises:
        Unreadable: It holds something that is not known here.
    """

    def __init__(self, source: str) -> None:
        self._rules: list[_Choices] = []
        self._numbers: dict[str, int] = {}
        self._tokens = list(_tokens(source))
        self._at = 0
        while self._at < len(self._tokens):
            name = self._take("name")
            self._take("defines")
            choices = self._choices()
            self._rules[self._number(name)] = choices
        if not self._rules or not all(self._rules) or "root" not in self._numbers:
            raise Unreadable("a rule is missing")

    def judge(self, text: str) -> Literal["whole", "begun", "wrong", "open"]:
        """Whether a text is one of the grammar, its beginning, or neither.

        ``"open"`` is the answer when the question takes too long.
        """
        self._steps = 0
        try:
            ends = self._expanded([((self._numbers["root"],), 0, None)])
            for character in text:
                after = []
                for rest in ends:
                    if rest is not None and self._fits(rest, character):
                        after.append((rest[0], rest[1] + 1, rest[2]))
                ends = self._expanded(after)
        except (TimeoutError, RecursionError):
            return "open"
        if None in ends:
            return "whole"
        return "begun" if ends else "wrong"

    def _fits(self, rest: _Rest, character: str) -> bool:
        element = rest[0][rest[1]]
        assert not isinstance(element, int)
        return element(character)

    def _expanded(self, rests: list[_Rest]) -> list[_Rest | None]:
        """All that may come next, each beginning with a test of a character."""
        made: dict[tuple[object, ...], _Rest | None] = {}
        # By identity, as what follows may be long; kept, so that no other takes its id.
        seen: dict[tuple[object, ...], _Rest] = {}
        waiting: list[_Rest | None] = list(rests)
        while waiting:
            self._steps += 1
            if self._steps > MOST_STEPS:
                raise TimeoutError
            rest = waiting.pop()
            if rest is None:
                made[()] = None
                continue
            elements, at, then = rest
            key = (id(elements), at, id(then))
            if key in seen:
                continue
            seen[key] = rest
            if at == len(elements):
                waiting.append(then)
            elif isinstance(element := elements[at], int):
                follows = (elements, at + 1, then)
                waiting += [(c, 0, follows) for c in self._rules[element]]
            else:
                made[key] = rest
        return list(made.values())

    # Reading.

    def _choices(self) -> _Choices:
        made: _Choices = [self._sequence()]
        while self._next() == ("mark", "|"):
            self._at += 1
            made.append(self._sequence())
        return made

    def _sequence(self) -> tuple[_Element, ...]:
        made: list[_Element] = []
        while True:
            kind, text = self._next()
            is_next_rule = kind == "name" and self._next(1)[0] == "defines"
            if kind is None or is_next_rule or (kind == "mark" and text in "|)"):
                return tuple(made)
            made += self._repeated(self._item())

    def _item(self) -> tuple[_Element, ...]:
        kind, text = self._next()
        self._at += 1
        if kind == "name":
            return (self._number(text),)
        if kind == "text":
            return tuple(_is(c) for c in _characters(text[1:-1]))
        if kind == "set":
            return (_in_set(text[1:-1]),)
        if text == ".":
            return (lambda _: True,)
        if text == "(":
            choices = self._choices()
            if self._next() != ("mark", ")"):
                raise Unreadable("a parenthesis is not closed")
            self._at += 1
            return (self._added(choices),)
        raise Unreadable(f"{text!r} is not expected")

    def _repeated(self, item: tuple[_Element, ...]) -> tuple[_Element, ...]:
        kind, text = self._next()
        if kind != "many":
            return item
        self._at += 1
        counts = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(text)
        low, high = counts or _counts(text)
        if high is None:
            again = self._added([()])
            self._rules[again] = [(*item, again), ()]
            return (*item * low, again)
        more: tuple[_Element, ...] = ()
        for _ in range(high - low):
            more = (self._added([(*item, *more), ()]),)
        return (*item * low, *more)

    def _added(self, choices: _Choices) -> int:
        self._rules.append(choices)
        return len(self._rules) - 1

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = self._added([])
        return self._numbers[name]

    def _next(self, ahead: int = 0) -> tuple[str | None, str]:
        at = self._at + ahead
        return self._tokens[at] if at < len(self._tokens) else (None, "")

    def _take(self, kind: str) -> str:
        found, text = self._next()
        if found != kind:
            raise Unreadable(f"{text!r} is not expected")
        self._at += 1
        return text


def _tokens(source: str) -> Iterator[tuple[str | None, str]]:
    at = 0
    while at < len(source):
        found = _TOKEN.match(source, at)
        if found is None:
            raise Unreadable(f"{source[at : at + 20]!r} is not expected")
        if found.lastgroup is not None:
            yield found.lastgroup, found[0]
        at = found.end()


def _counts(text: str) -> tuple[int, int | None]:
    low, comma, high = text[1:-1].partition(",")
    if not comma:
        return int(low), int(low)
    return int(low), int(high) if high.strip() else None


def _characters(text: str) -> list[str]:
    """The characters of a text, escapes resolved."""
    made = []
    for two, four, eight, other, plain in _ESCAPE.findall(text):
        digits = two or four or eight
        made.append(
            chr(int(digits, 16)) if digits else _PLAIN.get(other, other or plain)
        )
    return made


def _is(wanted: str) -> _Test:
    return lambda character: character == wanted


def _in_set(text: str) -> _Test:
    is_not = text.startswith("^")
    steps = _ESCAPE.finditer(text[is_not:])
    parts = [(found[0], _characters(found[0])[0]) for found in steps]
    ranges, at = [], 0
    while at < len(parts):
        low = high = parts[at][1]
        if at + 2 < len(parts) and parts[at + 1][0] == "-":
            high, at = parts[at + 2][1], at + 2
        ranges.append((low, high))
        at += 1
    return lambda c: is_not != any(low <= c <= high for low, high in ranges)
