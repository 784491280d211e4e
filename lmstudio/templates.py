"""What a formatted conversation is to leave out, and the tools that it shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .arguments import checked_flag
from .errors import LMStudioTypeError, LMStudioValueError, shown
from .functions import ToolLike, tools_of
from .wire.llm import TemplateOptions

#: The names of the official SDKs for our keywords.
_NAMES = {
    "omitBosToken": "omit_bos_token",
    "omitEosToken": "omit_eos_token",
    "toolDefinitions": "tools",
    "tool_definitions": "tools",
}


def template_options(
    opts: Mapping[str, Any] | None,
    *,
    omit_bos_token: bool | None = None,
    omit_eos_token: bool | None = None,
    tools: Iterable[ToolLike] | None = None,
) -> TemplateOptions:
    """The options of ``applyPromptTemplate``, from keywords and a mapping of the same.

    Raises:
        LMStudioValueError: One does not exist, is given twice, or can't be used.
    """
    given: dict[str, Any] = {
        "omit_bos_token": omit_bos_token,
        "omit_eos_token": omit_eos_token,
        "tools": tools,
    }
    if opts is not None and not isinstance(opts, Mapping):
        raise LMStudioTypeError(
            'opts must be a mapping like {"omit_bos_token": True}, not ' + shown(opts)
        )
    for key, value in (opts or {}).items():
        name = _NAMES.get(key, key)
        if name not in given:
            known = ", ".join(given)
            raise LMStudioValueError(f"opts has no {shown(key)}; there are {known}")
        if given[name] is not None:
            raise LMStudioValueError(f"{name} is given twice; leave one out")
        given[name] = value
    flags = ("omit_bos_token", "omit_eos_token")
    made: dict[str, Any] = {
        name: checked_flag(given[name], name)
        for name in flags
        if given[name] is not None
    }
    if given["tools"] is not None:
        offered = tools_of(given["tools"]).values()
        made["tool_definitions"] = [tool.definition for tool in offered]
    return TemplateOptions(**made)
