"""Which scripted answer is for which prediction, and why another is not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import shown
from ..wire.common import KVConfig
from ..wire.config import PREDICTION
from .script import Asked, Reply


class UnmatchedRequestError(AssertionError):
    """A prediction was asked for that no scripted answer is for."""


def normal(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Options as they look after they have travelled.

    Raises:
        LMStudioValueError: There is no such option, or it can't have this value.
    """
    if config is None:
        return None
    return PREDICTION.decode(KVConfig(fields=PREDICTION.encode(config)))


def misfits(reply: Reply, asked: Asked) -> list[tuple[str, str]]:
    """What an answer waits for and what was asked instead; nothing when it fits."""
    return list(_misfits(reply, asked))


def _misfits(reply: Reply, asked: Asked) -> Iterator[tuple[str, str]]:
    when, text = reply.when, f"text {shown(asked.text)}"
    if isinstance(when, str):
        if when not in asked.text:
            yield f"text with {shown(when)}", text
    elif isinstance(when, re.Pattern):
        if not when.search(asked.text):
            yield f"text with the pattern {when.pattern!r}", text
    elif when is not None and not when(asked):
        name = getattr(when, "__qualname__", repr(when))
        yield f"{name}(asked) is true", f"it is false for the {text}"
    if reply.model is not None and reply.model != asked.identifier:
        yield f"model {reply.model!r}", f"model {asked.identifier!r}"
    if reply.tools is not None:
        offered = [tool["name"] for tool in asked.tools]
        missing = set(reply.tools) - set(offered)
        if missing or (offered and not reply.tools):
            yield f"tools {list(reply.tools)!r}", f"tools {offered!r}"
    for name, value in (reply.config or {}).items():
        if name not in asked.config:
            yield f"{name}={shown(value)}", f"no {name}"
        elif asked.config[name] != value:
            yield f"{name}={shown(value)}", f"{name}={shown(asked.config[name])}"


def difference(replies: Sequence[Reply], asked: Asked) -> str:
    """What was asked beside what each answer waits for, nearest first."""
    lines = ["asked (+) is none of what was expected (-):", *_described(asked)]
    compared = [(misfits(reply, asked), reply) for reply in replies]
    for found, reply in sorted(compared, key=lambda pair: len(pair[0])):
        lines.append(f"reply {_summary(reply)}:")
        if reply.is_used_up:
            lines.append(f"- was for {reply.times} only, and is used up")
        for expected, actual in found:
            lines += [f"- {expected}", f"+ {actual}"]
        if not found and not reply.is_used_up:
            lines.append("- comes after another ordered reply, or had nothing to say")
    return "\n".join(lines)


def _described(asked: Asked) -> Iterator[str]:
    yield f"+ text {shown(asked.text)}, model {asked.identifier!r}"
    if names := [tool["name"] for tool in asked.tools]:
        yield f"+ tools {names!r}"
    for name, value in asked.config.items():
        if name != "raw_tools":
            yield f"+ {name}={shown(value)}"


def _summary(reply: Reply) -> str:
    if callable(reply.steps):
        return f"by {getattr(reply.steps, '__qualname__', repr(reply.steps))}"
    return shown(list(reply.steps))
