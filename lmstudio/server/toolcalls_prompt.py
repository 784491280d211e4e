"""Tools on their way to the model: their names, and the prompt that tells of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .prompt import Turn
from .toolcalls_syntax import DEFAULT, Syntax, syntax_of

Tool = Mapping[str, Any]

#: Names that say nothing in plain letters become this.
_NAMELESS = "tool"
_SECTION = """# Tools

You can call functions. Each line describes one, as JSON:
{tools}

To call a function, write exactly this:
[TOOL_REQUEST]{{"name": "its name", "arguments": {{its arguments as JSON}}}}\
[END_TOOL_REQUEST]

Its result comes in the next message, between [TOOL_RESULT] and [END_TOOL_RESULT]. \
Call functions only where they help, and answer in plain text otherwise."""


class Tooling:
    """The tools of one prediction, as its model sees them.

    Args:
        tools: The definitions as they came.
        naming: ``"passThrough"``, ``"removeSpecial"``, ``"snakeCase"`` or
            ``"camelCase"``.
        template: The chat template; None for fixed texts around the messages.

    Attributes:
        syntax: How the model writes calls.
        tools: The definitions with the names that the model knows.
        own_names: These names, and the tools' own.
        for_template: `tools`, where the template shows them; else they are empty.
    """

    def __init__(
        self, tools: Sequence[Tool], naming: str, template: str | None
    ) -> None:
        self.syntax: Syntax = syntax_of(template)
        own = [tool["function"]["name"] for tool in tools]
        self._shown = shown_names(own, naming)
        self._naming = naming
        self.own_names = {shown: name for name, shown in self._shown.items()}
        self.tools = [self._renamed(tool) for tool in tools]
        self.for_template = [] if self.syntax is DEFAULT else self.tools

    def turns(self, turns: Sequence[Turn]) -> list[Turn]:
        """Messages with the names that the model knows.

        Where the template knows no tools, calls and results become text, and the
        tools stand in the message of the system.
        """
        made = [self._named(turn) for turn in turns]
        if self.syntax is not DEFAULT:
            return made
        made = _as_text(made)
        if not self.tools:
            return made
        section = _section(self.tools)
        if made and made[0]["role"] == "system":
            said = made[0]["content"]
            first = {**made[0], "content": f"{said}\n\n{section}" if said else section}
            return [first, *made[1:]]
        return [{"role": "system", "content": section}, *made]

    def shown(self, name: str) -> str:
        """The name of a tool as the model knows it."""
        return self._shown.get(name) or one_shown_name(name, self._naming)

    def shown_tools(self, own_names: Sequence[str]) -> list[Tool]:
        """The definitions of some tools, with the names that the model knows."""
        wanted = {self.shown(name) for name in own_names}
        return [tool for tool in self.tools if tool["function"]["name"] in wanted]

    def _renamed(self, tool: Tool) -> Tool:
        function = tool["function"]
        return {**tool, "function": {**function, "name": self.shown(function["name"])}}

    def _named(self, turn: Turn) -> Turn:
        made = dict(turn)
        if "name" in made:
            made["name"] = self.shown(made["name"])
        if "tool_calls" in made:
            made["tool_calls"] = [self._renamed(call) for call in made["tool_calls"]]
        return made


def shown_names(names: Iterable[str], naming: str) -> dict[str, str]:
    """The names of tools that a model gets to see; each is another."""
    made: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        shown = base = one_shown_name(name, naming)
        number = 2
        while shown in taken:
            shown, number = f"{base}_{number}", number + 1
        taken.add(shown)
        made[name] = shown
    return made


def one_shown_name(name: str, naming: str) -> str:
    """A name in the form that a setting asks for.

    Source: docs/wire/config.md, "Tools".
    """
    if naming == "passThrough":
        return name
    if naming == "removeSpecial":
        return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_") or _NAMELESS
    humps = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    words: list[str] = re.findall(r"[A-Za-z0-9]+", humps)
    if not words:
        return _NAMELESS
    if naming == "snakeCase":
        return "_".join(word.lower() for word in words)
    head, *rest = words
    return head.lower() + "".join(word.capitalize() for word in rest)


def _section(tools: Sequence[Tool]) -> str:
    lines = (_json(tool["function"]) for tool in tools)
    return _SECTION.format(tools="\n".join(lines))


def _as_text(turns: Sequence[Turn]) -> list[Turn]:
    """Messages without calls and results: they are part of the text."""
    made: list[Turn] = []
    after_result = False
    for turn in turns:
        if turn["role"] == "tool":
            result = f"[TOOL_RESULT]{turn['content']}[END_TOOL_RESULT]"
            if after_result:  # all results of one round are one message
                made[-1]["content"] += "\n" + result
            else:
                made.append({"role": "user", "content": result})
            after_result = True
            continue
        after_result = False
        calls = [
            f"[TOOL_REQUEST]{_json(call['function'])}[END_TOOL_REQUEST]"
            for call in turn.get("tool_calls", ())
        ]
        said = [turn["content"]] if turn["content"] else []
        rest = {key: value for key, value in turn.items() if key != "tool_calls"}
        made.append({**rest, "content": "\n".join([*said, *calls])})
    return made


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
