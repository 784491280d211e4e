"""From a history to the text that a model reads: templates, and what they are fed."""

from __future__ import annotations

import copy
import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser

from ..errors import shown
from ..wire.llm import History, Message, Part
from .engine import ModelFile
from .sampling import GenerationError
from .templates import Environment, TooMuch, render

#: A message as chat templates know it: ``role``, ``content``, ``tool_calls``...
Turn = dict[str, Any]
Tools = Sequence[Mapping[str, Any]]

#: What is used for files without a template of their own.
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
#: Models that do not know ChatML write the end of a turn as plain text.
CHATML_END = "<|im_end|>"

TEMPLATE_KEY = "llm.prediction.promptTemplate"
#: Stands behind the text of an answer that the model shall continue.
_CUT_HERE = f"CUT{secrets.token_hex(8)}HERE"
#: Stands for an image in the text of a turn; plain letters pass through any template.
_IMAGE = f"IMG{secrets.token_hex(8)}N{{}}X"
_IMAGES = re.compile(_IMAGE.format(r"\d+"))
#: What people see in its place.
IMAGE_TEXT = "<__media__>"
_AFFIXES = (
    *("beforeSystem", "afterSystem", "beforeUser", "afterUser"),
    *("beforeAssistant", "afterAssistant"),
)
_ROLES = ("system", "user", "assistant", "tool")


def image_mark(number: int) -> str:
    """What stands for an image in a turn."""
    return _IMAGE.format(number)


def shown_images(text: str) -> str:
    """A text for people, without marks of images."""
    return _IMAGES.sub(IMAGE_TEXT, text)


def turns_of(
    history: History, system_prompt: str = "", marks: Mapping[str, str] | None = None
) -> list[Turn]:
    """The messages of a history in the form that templates expect.

    Args:
        system_prompt: Goes first when the history has no system message.
        marks: What stands for each image, by its identifier; none may be shown if not
            given.

    Raises:
        GenerationError: A role or a part that this server does not take.
    """
    turns: list[Turn] = []
    has_system = any(message.role == "system" for message in history.messages)
    if system_prompt and not has_system:
        turns.append({"role": "system", "content": system_prompt})
    names: dict[str, str] = {}  # of the tools called so far, by the id of the call
    for number, message in enumerate(history.messages):
        where = f"history.messages[{number}]"
        if message.role not in _ROLES:
            right = ", ".join(map(repr, _ROLES))
            raise GenerationError(
                f"{where}: role must be one of {right}, not {shown(message.role)}",
                code="invalidHistory",
            )
        if message.role == "tool":
            turns += [_result(part, names, where) for part in message.content]
        else:
            turns.append(_turn(message, names, where, marks or {}))
    return turns


def _turn(
    message: Message, names: dict[str, str], where: str, marks: Mapping[str, str]
) -> Turn:
    texts, calls = [], []
    for part in message.content:
        if part.type == "text":
            texts.append(part.text or "")
        elif part.type == "file" and (mark := marks.get(part.identifier or "")):
            texts.append(mark)
        elif part.type == "toolCallRequest" and part.tool_call_request is not None:
            call = part.tool_call_request
            if call.id is not None:
                names[call.id] = call.name
            function = {"name": call.name, "arguments": call.arguments or {}}
            calls.append({"type": "function", "id": call.id, "function": function})
        else:
            _refuse(part, where)
    turn: Turn = {"role": message.role, "content": "".join(texts)}
    if calls:
        turn["tool_calls"] = calls
    return turn


def _result(part: Part, names: dict[str, str], where: str) -> Turn:
    if part.type != "toolCallResult":
        _refuse(part, where)
    turn: Turn = {"role": "tool", "content": part.content or ""}
    if part.tool_call_id is not None:
        turn["tool_call_id"] = part.tool_call_id
    name = part.name or names.get(part.tool_call_id or "")
    if name is not None:
        turn["name"] = name
    return turn


def _refuse(part: Part, where: str) -> NoReturn:
    if part.type == "file":
        kind = "images" if part.file_type == "image" else "files"
        raise GenerationError(
            f"{where}: this model takes no {kind}, and the message holds "
            f"{shown(part.name)}",
            suggestion="Leave it out, or put its text into the message",
            code="unsupportedContent",
        )
    raise GenerationError(
        f"{where}: a part of the type {shown(part.type)} does not belong here",
        code="invalidHistory",
    )


def template_of(file: ModelFile, setting: Mapping[str, Any] | None) -> str | None:
    """The jinja template that formats messages; None for fixed texts around them."""
    if setting is None:
        return file.chat_template or CHATML
    jinja = setting.get("jinjaPromptTemplate")
    if setting.get("type") != "jinja" or not isinstance(jinja, Mapping):
        return None
    source = jinja.get("template")
    return source if isinstance(source, str) else None


class Formatter:
    """Turns messages into the text that a model reads, by one template.

    Attributes:
        stop_strings: Texts that end a turn, as the template's setting says.
        is_fallback: True when neither the file nor the setting has a template.
        tools: Definitions of tools that the template shows.
    """

    def __init__(
        self,
        file: ModelFile,
        setting: Mapping[str, Any] | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        enable_thinking: bool | None = None,
        omit_bos: bool = False,
        omit_eos: bool = False,
    ) -> None:
        self.is_fallback = setting is None and not file.chat_template
        self.tools = list(tools)
        self.stop_strings = _stop_strings(setting)
        self._variables: dict[str, Any] = {
            "bos_token": "" if omit_bos else file.bos,
            "eos_token": "" if omit_eos else file.eos,
        }
        if enable_thinking is not None:
            self._variables["enable_thinking"] = enable_thinking
        if self.is_fallback:
            self.stop_strings = (CHATML_END,)
        self._render = self._renderer(file.chat_template or CHATML, setting)

    def with_tools(self, tools: Sequence[Mapping[str, Any]]) -> Formatter:
        """The same with other tools."""
        made = copy.copy(self)
        made.tools = list(tools)
        return made

    def format(self, turns: Sequence[Turn], *, open_turn: bool = True) -> str:
        """The text of some messages.

        Args:
            open_turn: End with the beginning of the model's answer. When the last
                message is one of the assistant, the text ends inside it, so that
                the model continues it.

        Raises:
            GenerationError: The template refuses the messages, or fails.
        """
        if not open_turn or not turns or not _can_continue(turns[-1]):
            return self._render(turns, open_turn, self.tools)
        last = {**turns[-1], "content": turns[-1]["content"] + _CUT_HERE}
        whole = self._render([*turns[:-1], last], False, self.tools)
        text, cut, _ = whole.rpartition(_CUT_HERE)
        return text if cut else self._render(turns, True, self.tools)

    def _renderer(
        self, template: str, setting: Mapping[str, Any] | None
    ) -> Callable[[Sequence[Turn], bool, Tools], str]:
        if setting is not None:
            if setting.get("type") == "manual":
                return _Manual(setting.get("manualPromptTemplate"))
            jinja = setting.get("jinjaPromptTemplate")
            source = jinja.get("template") if isinstance(jinja, Mapping) else None
            if setting.get("type") != "jinja" or not isinstance(source, str):
                raise GenerationError(
                    f"{TEMPLATE_KEY} must be of the type 'jinja' with "
                    "jinjaPromptTemplate.template, or of the type 'manual' with "
                    f"manualPromptTemplate, not {shown(setting)}",
                    code="invalidSetting",
                )
            template = source
        compiled = _compiled(template)

        def rendered(turns: Sequence[Turn], open_turn: bool, tools: Tools) -> str:
            variables = {
                **self._variables,
                "tools": list(tools) or None,
                "add_generation_prompt": open_turn,
            }
            marks = set(_IMAGES.findall(str([turn["content"] for turn in turns])))
            try:
                text = render(compiled, {"messages": turns, **variables})
                if marks <= set(_IMAGES.findall(text)):
                    return text
                # Some templates of vision models take a content in parts only.
                text = render(compiled, {"messages": _in_parts(turns), **variables})
            except Exception as exc:  # a template may fail in any way that Python can
                raise _failed(exc) from exc
            if not marks <= set(_IMAGES.findall(text)):
                raise _failed(_Raised("It leaves out the images"))
            return text

        return rendered


def _in_parts(turns: Sequence[Turn]) -> list[Turn]:
    """The turns, their texts as lists of parts."""
    return [
        {**turn, "content": [{"type": "text", "text": turn["content"]}]}
        for turn in turns
    ]


class _Manual:
    """A template that puts fixed texts around each message."""

    def __init__(self, affixes: Any) -> None:
        if not isinstance(affixes, Mapping) or not all(
            isinstance(affixes.get(name), str) for name in _AFFIXES
        ):
            raise GenerationError(
                f"{TEMPLATE_KEY}.manualPromptTemplate must have the strings "
                f"{', '.join(_AFFIXES)}, not {shown(affixes)}",
                code="invalidSetting",
            )
        self._affixes: Mapping[str, str] = affixes

    def __call__(self, turns: Sequence[Turn], open_turn: bool, _: Tools = ()) -> str:
        made = []
        for turn in turns:
            # Fixed texts know no tools: what a tool answered is something said to us.
            name = "User" if turn["role"] == "tool" else turn["role"].capitalize()
            calls = [_json(c["function"]) for c in turn.get("tool_calls", ())]
            said = "\n".join(filter(None, [turn["content"], *calls]))
            made += [self._affixes[f"before{name}"], said]
            made.append(self._affixes[f"after{name}"])
        if open_turn:
            made.append(self._affixes["beforeAssistant"])
        return "".join(made)


def _can_continue(turn: Turn) -> bool:
    return turn["role"] == "assistant" and not turn.get("tool_calls")


def _stop_strings(setting: Mapping[str, Any] | None) -> tuple[str, ...]:
    stops = (setting or {}).get("stopStrings") or ()
    if isinstance(stops, str) or not isinstance(stops, Iterable):
        stops = (None,)
    stops = tuple(stops)
    if not all(isinstance(stop, str) for stop in stops):
        raise GenerationError(
            f"{TEMPLATE_KEY}.stopStrings must be a list of strings",
            code="invalidSetting",
        )
    return tuple(filter(None, stops))


def _failed(exc: Exception) -> GenerationError:
    if isinstance(exc, _Raised):
        title = "The prompt template refuses these messages"
    elif isinstance(exc, TooMuch):
        title = "The prompt template asks for too much"
    else:
        title = "The prompt template failed"
    return GenerationError(
        title,
        str(exc) or type(exc).__name__,
        "Change the messages, or choose another prompt template",
        code="promptTemplate",
    )


class _Raised(jinja2.TemplateError):
    """What a template says by ``raise_exception``."""


class _Generation(jinja2.ext.Extension):
    """``{% generation %}`` marks what a model learns from; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 names its type so

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as templates expect it: jinja2's own filter escapes it for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: object) -> NoReturn:
    raise _Raised(str(message))


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _environment() -> Environment:
    made = Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[jinja2.ext.loopcontrols, _Generation],
    )
    made.add_filter("tojson", _json)
    made.globals["raise_exception"] = _raise_exception
    made.globals["strftime_now"] = _strftime_now
    return made


_ENVIRONMENT = _environment()


@lru_cache(maxsize=32)
def _compiled(template: str) -> jinja2.Template:
    try:
        return _ENVIRONMENT.from_text(template)
    except (jinja2.TemplateError, RecursionError) as exc:
        raise GenerationError(
            "The prompt template is not valid jinja",
            str(exc),
            "Correct it, or choose another prompt template",
            code="promptTemplate",
        ) from exc
