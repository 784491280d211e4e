"""What a docstring says of a function and its parameters: Google, NumPy and Sphinx."""

from __future__ import annotations

import inspect
import re

import attrs

_PARAMETERS = frozenset(
    (
        "args",
        "arguments",
        "parameters",
        "params",
        "keyword args",
        "keyword arguments",
        "other parameters",
    )
)
_RESULTS = frozenset(("returns", "return", "yields", "yield"))
#: Sections that end the description and say nothing that a model needs.
_OTHERS = frozenset(
    (
        "raises",
        "warns",
        "attributes",
        "example",
        "examples",
        "note",
        "notes",
        "references",
        "see also",
        "todo",
        "warning",
        "warnings",
    )
)
_SECTIONS = _PARAMETERS | _RESULTS | _OTHERS

_GOOGLE_HEAD = re.compile(r"(?P<name>[A-Za-z][A-Za-z ]*):\s*$")
_GOOGLE_ENTRY = re.compile(r"\*{0,2}(?P<name>\w+)\s*(\([^)]*\))?\s*:\s?(?P<text>.*)$")
_NUMPY_ENTRY = re.compile(r"(?P<names>\*{0,2}\w+(\s*,\s*\*{0,2}\w+)*)\s*(:.*)?$")
_UNDERLINE = re.compile(r"[-=]{3,}\s*$")
_SPHINX = re.compile(
    r":(?P<kind>\w+)(\s+(?P<of>[^:]+?))?\s*:(\s+|$)(?P<text>.*)$", re.DOTALL
)
_SPHINX_PARAMETERS = frozenset(
    ("param", "parameter", "arg", "argument", "key", "keyword")
)


@attrs.frozen
class Doc:
    """What a docstring says.

    Attributes:
        description: The text before the first section.
        parameters: What it says of each parameter.
        returns: What it says of the result.
    """

    description: str = ""
    parameters: dict[str, str] = attrs.field(factory=dict)
    returns: str = ""


def parsed(docstring: str | None) -> Doc:
    """Read a docstring of any of the three styles; they may be mixed."""
    lines = inspect.cleandoc(docstring or "").splitlines()
    heads = [n for n in range(len(lines)) if _head(lines, n) is not None]
    first = next(
        (n for n, line in enumerate(lines) if _SPHINX.match(line) or n in heads),
        len(lines),
    )
    parameters: dict[str, str] = {}
    returns = ""
    ends = [*heads, len(lines)][1:]
    for start, end in zip(heads, ends, strict=True):
        name, is_numpy = _head(lines, start) or ("", False)
        stop = next((n for n in range(start, end) if _SPHINX.match(lines[n])), end)
        body = lines[start + 1 + is_numpy : stop]
        if name in _PARAMETERS:
            parameters |= _numpy(body) if is_numpy else _google(body)
        elif name in _RESULTS:
            returns = returns or _joined(body)
    for kind, of, text in _sphinx_fields(lines[first:]):
        if kind in _SPHINX_PARAMETERS and of:
            parameters[of.split()[-1].lstrip("*")] = text
        elif kind in _RESULTS:
            returns = returns or text
    return Doc("\n".join(lines[:first]).strip(), parameters, returns)


def _head(lines: list[str], at: int) -> tuple[str, bool] | None:
    """The name of the section that begins in a line, and whether it is underlined."""
    line = lines[at]
    if line[:1].isspace():
        return None
    below = lines[at + 1] if at + 1 < len(lines) else ""
    if _UNDERLINE.match(below) and line.strip().lower() in _SECTIONS:
        return line.strip().lower(), True
    match = _GOOGLE_HEAD.match(line)
    if match is not None and match["name"].lower() in _SECTIONS:
        return match["name"].lower(), False
    return None


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _joined(lines: list[str]) -> str:
    """A text of several lines as one."""
    return " ".join(line.strip() for line in lines if line.strip())


def _google(body: list[str]) -> dict[str, str]:
    """``name (type): text``, and further lines that are indented more."""
    found: dict[str, list[str]] = {}
    depth = min((_indent(line) for line in body if line.strip()), default=0)
    current: list[str] = []
    for line in body:
        match = _GOOGLE_ENTRY.match(line.strip()) if _indent(line) == depth else None
        if match is not None:
            current = found[match["name"]] = [match["text"]]
        else:
            current.append(line)
    return {name: _joined(texts) for name, texts in found.items() if _joined(texts)}


def _numpy(body: list[str]) -> dict[str, str]:
    """``name : type``, or several names, and the text below, indented."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in body:
        match = _NUMPY_ENTRY.match(line.rstrip()) if not line[:1].isspace() else None
        if match is not None:
            current = []
            for name in match["names"].split(","):
                found[name.strip().lstrip("*")] = current
        else:
            current.append(line)
    return {name: _joined(texts) for name, texts in found.items() if _joined(texts)}


def _sphinx_fields(lines: list[str]) -> list[tuple[str, str, str]]:
    """``:kind of: text``; further lines of a field are indented or follow at once."""
    fields: list[list[str]] = []
    is_open = False
    for line in lines:
        if _SPHINX.match(line):
            fields.append([line])
            is_open = True
        elif not line.strip():
            is_open = False
        elif is_open:
            fields[-1].append(line)
    found = []
    for field in fields:
        match = _SPHINX.match(_joined(field))
        assert match is not None
        found.append((match["kind"], match["of"] or "", match["text"]))
    return found
