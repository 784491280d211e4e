"""What a fake server answers when nobody has said it: made from what was asked."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from typing import Any

import jsonschema

from ..errors import shown
from ..server.failures import Failure
from .script import Asked, Chunk, Reply, Step, tool_call

#: Alternatives deeper than this are taken from what ends soonest.
_DEEP = 6
#: Text of each format that is not an arbitrary one.
_FORMATS = {
    "date": "2000-01-01",
    "date-time": "2000-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "duration": "P1D",
    "email": "someone@example.org",
    "hostname": "example.org",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "uri": "https://example.org/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
#: Tried in turn where a pattern is asked for.
_TEXTS = (
    "a",
    "A",
    "0",
    "1",
    "a1",
    "A1",
    "abc",
    "ABC",
    "123",
    "2000-01-01",
    "1.0",
    "a-b",
)


def tokens_of(text: str) -> list[str]:
    """The tokens of every scripted model: words with the blanks before them."""
    return re.findall(r"\s*\S+|\s+", text)


def vector_of(text: str) -> list[float]:
    """A vector of two dimensions and length 1, the same for the same text."""
    share = zlib.crc32(text.encode()) % 1000 / 1000
    return [share, (1.0 - share**2) ** 0.5]


def cut(text: str, chunk: Chunk) -> list[str]:
    """A text in the fragments that it is sent in."""
    if chunk is None:
        return [text]
    if chunk == "words":
        return tokens_of(text)
    return [text[at : at + chunk] for at in range(0, len(text), chunk)]


def echo(asked: Asked, chunk: Chunk) -> Reply:
    """The user's last text, word by word unless told otherwise."""
    return Reply(cut(asked.text, chunk or "words"))


def made_up(asked: Asked, chunk: Chunk) -> Reply:
    """Calls of tools, each once; then JSON of the asked schema; else an echo."""
    if calls := _calls(asked):
        return Reply(calls, "toolCalls")
    if asked.schema is not None:
        text = json.dumps(filled(asked.schema), ensure_ascii=False)
        return Reply(cut(text, chunk or "words"))
    if (asked.config.get("structured") or {}).get("type") == "json":
        return Reply(["{}"])
    return echo(asked, chunk)


def _calls(asked: Asked) -> list[Step]:
    """Calls of the tools that were not called since the user spoke last."""
    called: set[str] = set()
    count = 0
    for message in asked.messages:
        if message.role == "user":
            called.clear()
        called.update(call.name for call in message.tool_calls)
        count += len(message.tool_calls)
    left = [tool for tool in asked.tools if tool["name"] not in called]
    return [
        tool_call(tool["name"], filled(tool.get("parameters") or {}), id=str(count + n))
        for n, tool in enumerate(left, 1)
    ]


def filled(schema: Any) -> Any:
    """The plainest value that a JSON schema allows, the same for the same schema.

    Raises:
        Failure: None was found; the answer has to be scripted.
    """
    if not isinstance(schema, dict):
        return {}
    value = _Filler(schema).value(schema, 0)
    if not jsonschema.Draft202012Validator(schema).is_valid(value):
        raise Failure(
            "This answer has to be scripted",
            f"No value of the schema was found by plain rules: {shown(schema)}",
            "Say it with FakeServer.reply",
        )
    return value


class _Filler:
    """Fills the parts of one schema."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root

    def value(self, schema: Any, depth: int) -> Any:
        """A value for a part; what no rule knows is the empty object."""
        if not isinstance(schema, dict):
            return None
        schema = self._whole(schema)
        for name in ("const", "default"):
            if name in schema:
                return schema[name]
        for name in ("enum", "examples"):
            if schema.get(name):
                return schema[name][0]
        for name in ("anyOf", "oneOf"):
            if schema.get(name):
                rest = {k: v for k, v in schema.items() if k != name}
                option = schema[name][0]
                if depth > _DEEP:
                    option = min(schema[name], key=_weight)
                return self.value(_merged(rest, self._whole(option)), depth + 1)
        kind = self._kind(schema)
        fill = getattr(self, f"_{kind}", None)
        return fill(schema, depth) if fill is not None else None

    def _whole(self, schema: dict[str, Any]) -> dict[str, Any]:
        """A part with what it refers to, and with all of ``allOf``."""
        for _ in range(50):  # as many references in a row are a circle
            if isinstance(reference := schema.get("$ref"), str):
                rest = {k: v for k, v in schema.items() if k != "$ref"}
                schema = _merged(self._at(reference), rest)
            elif schema.get("allOf"):
                rest = {k: v for k, v in schema.items() if k != "allOf"}
                for part in schema["allOf"]:
                    rest = _merged(rest, self._whole(part))
                schema = rest
            else:
                break
        return schema

    def _at(self, reference: str) -> dict[str, Any]:
        found: Any = self._root
        for part in reference.lstrip("#").strip("/").split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            found = found.get(name, {}) if name and isinstance(found, dict) else found
        return found if isinstance(found, dict) else {}

    def _kind(self, schema: dict[str, Any]) -> str:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = next((k for k in kind if k != "null"), "null")
        if isinstance(kind, str):
            return kind
        if "items" in schema or "prefixItems" in schema:
            return "array"
        return "object" if "properties" in schema or not schema else "string"

    def _object(self, schema: dict[str, Any], depth: int) -> Any:
        properties = schema.get("properties") or {}
        names = [n for n in properties if n in (schema.get("required") or ())]
        names += [n for n in schema.get("required") or () if n not in properties]
        if depth <= 1 and not names:
            names = list(properties)
        text = {"type": "string"}
        made = {n: self.value(properties.get(n, text), depth + 1) for n in names}
        extra = schema.get("additionalProperties")
        extra = extra if isinstance(extra, dict) else text
        for number in range(len(made), schema.get("minProperties", 0)):
            made[f"key{number}"] = self.value(extra, depth + 1)
        return made

    def _array(self, schema: dict[str, Any], depth: int) -> Any:
        made = [self.value(part, depth + 1) for part in schema.get("prefixItems") or ()]
        most = schema.get("maxItems", 1)
        least = schema.get("minItems", 0 if depth > _DEEP else min(1, most))
        if schema.get("items") is False:
            return made
        items = schema.get("items") or {"type": "string"}
        for number in range(len(made), least):
            value = self.value(items, depth + 1)
            if schema.get("uniqueItems") and value in made:
                value = self._other(items, value, number)
            made.append(value)
        return made

    def _other(self, items: Any, value: Any, number: int) -> Any:
        options = self._whole(items).get("enum") or ()
        if len(options) > number:
            return options[number]
        if isinstance(value, str):
            return f"{value}{number}"
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return value + number if is_number else value

    def _string(self, schema: dict[str, Any], _: int) -> str:
        least: int
        most: int | None
        least, most = schema.get("minLength", 0), schema.get("maxLength")
        texts: Iterator[str] = iter(_TEXTS)
        if "format" in schema:
            return _FORMATS.get(schema["format"], "a")
        if "pattern" in schema:
            return next((t for t in texts if re.search(schema["pattern"], t)), "a")
        text = "text" * (least // 4 + 1)
        length = 4 if most is None else min(most, 4)
        return text[: max(least, length)]

    def _integer(self, schema: dict[str, Any], _: int) -> int:
        return int(_number(schema, 1))

    def _number(self, schema: dict[str, Any], _: int) -> float:
        value = _number(schema, 0)
        return value if isinstance(value, int) else float(value)

    def _boolean(self, schema: dict[str, Any], _: int) -> bool:
        return True

    def _null(self, schema: dict[str, Any], _: int) -> None:
        return None


def _number(schema: dict[str, Any], step: int) -> Any:
    """A number near its lower limit, else near the upper one, else 1."""
    multiple = schema.get("multipleOf")
    grain = multiple or step or 0.5
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    if above is not None and (low is None or above >= low):
        low = (above // grain + 1) * grain
    elif low is not None:
        low = -(-low // grain) * grain if multiple or step else low
    if below is not None and (high is None or below <= high):
        high = (-(-below // grain) - 1) * grain
    elif high is not None:
        high = high // grain * grain if multiple or step else high
    wanted = multiple or 1
    if low is not None and wanted < low:
        return low
    return high if high is not None and wanted > high else wanted


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """What both parts say, the second where they differ."""
    made = {**first, **second}
    if "properties" in first and "properties" in second:
        made["properties"] = {**first["properties"], **second["properties"]}
    if "required" in first and "required" in second:
        made["required"] = list(
            dict.fromkeys([*first["required"], *second["required"]])
        )
    return made


def _weight(schema: Any) -> int:
    """How much may come of an alternative: its length, references above all."""
    text = json.dumps(schema)
    return len(text) + 1000 * text.count("$ref")
