"""Text of models as HTML and Markdown for notebooks: nothing in it acts as markup.

A notebook trusts what its own cells show, so a script in an answer would run, and an
image would tell its owner what was said. What can do harm is made harmless here, on
the way to the screen only; the text itself stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

#: A table shows so many rows, and so many characters of a cell.
ROWS, CELL = 100, 200

DIM = 'style="opacity: 0.6; font-size: 90%"'

_FENCE = re.compile(r"^[ \t]*(?P<marks>`{3,}|~{3,})[ \t]*(?P<info>[^`\n]*)$")
#: What is no prose: code in a line, or mathematics.
_SPAN = re.compile(
    r"(?P<code>(?<!`)(?P<ticks>`+)(?!`)[^\n]*?[^`\n](?P=ticks)(?!`))"
    r"|(?P<math>\$\$.+?\$\$|\$[^$\n]+\$|\\\(.+?\\\)|\\\[.+?\\\])",
    re.DOTALL,
)
#: Where a tag could begin, for any parser.
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
#: The middle of a link or the beginning of its definition, and what it may lead to.
_LINK = re.compile(r"\](?P<mark>[(:])(?!\s*(?:https?://|mailto:|#))", re.IGNORECASE)
#: Commands of TeX that lead somewhere, or change more than the formula.
_TEX = re.compile(r"\\(?=(?:href|url|require|class|style|cssId|html|data|include))")


def escape(text: str) -> str:
    """The text as HTML, also between quotes.

    That of the standard library comes with all entities, which take time to import.
    """
    for character, entity in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        (">", "&gt;"),
        ('"', "&quot;"),
        ("'", "&#x27;"),
    ):
        text = text.replace(character, entity)
    return clean(text)


def clean(text: str) -> str:
    """The text without what no encoding has: one of these breaks a whole notebook."""
    return text.encode("utf-8", "replace").decode()


def cut(text: str, most: int = CELL) -> str:
    """The text, with its end left out if it is longer than that."""
    return text if len(text) <= most else text[: most - 1] + "…"


def as_entities(text: str) -> str:
    """The text so that neither HTML nor Markdown nor TeX finds anything in it."""
    return re.sub(r"[^\w ]", lambda found: f"&#{ord(found[0])};", clean(text))


def markdown(text: str, *, is_open: bool = False) -> str:
    """What a model wrote as Markdown, without tags, images and unsafe links.

    A tag shows as it is written, an image becomes a link, a link to anything but a web
    page, a mail address or a place on the page becomes text. Code stays as it is.

    Args:
        is_open: More of it is to come: a code block that is not closed yet shows as
            plain text, without the colours of its language.
    """
    made: list[str] = []
    prose: list[str] = []
    lines = clean(text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    position = 0
    while position < len(lines):
        found = _FENCE.match(lines[position])
        if found is None:
            prose.append(lines[position])
            position += 1
            continue
        made.append(_prose("\n".join(prose)))
        prose = []
        end, is_closed = _end_of_fence(lines, position, found["marks"])
        named = "" if is_open and not is_closed else found["info"]
        made.append(code(_dedented(lines[position + 1 : end]), named))
        position = end + 1
    made.append(_prose("\n".join(prose)))
    return "\n\n".join(part for part in made if part.strip("\n"))


def _end_of_fence(lines: Sequence[str], begin: int, marks: str) -> tuple[int, bool]:
    """The line that closes a code block, or the end; whether there is one."""
    for number in range(begin + 1, len(lines)):
        line = lines[number].strip()
        if len(line) >= len(marks) and line == marks[0] * len(line):
            return number, True
    return len(lines), False


def _dedented(lines: Sequence[str]) -> str:
    depth = min((len(n) - len(n.lstrip()) for n in lines if n.strip()), default=0)
    return "\n".join(line[depth:] for line in lines)


def code(text: str, language: str = "") -> str:
    """A code block that begins and ends where it seems to, for every renderer.

    It stands at the margin between empty lines, and its fence is longer than any in it.
    """
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    named = re.match(r"[\w+#.-]{0,30}", language.strip())
    return f"{fence}{named[0] if named else ''}\n{clean(text)}\n{fence}"


def _prose(text: str) -> str:
    made, end = [], 0
    for found in _SPAN.finditer(text):
        made.append(_words(text[end : found.start()]))
        if found["code"]:
            made.append(_inline(found["code"], found["ticks"]))
        else:
            # An entity would stay one in a formula; a blank there changes nothing.
            made.append(_harmless(_TAG.sub("< ", found["math"])))
        end = found.end()
    # Once more over all: what is only found where two parts meet.
    return _LINK.sub(r"] \g<mark>", "".join([*made, _words(text[end:])]))


def _words(text: str) -> str:
    return _harmless(_TAG.sub("&lt;", text))


def _harmless(text: str) -> str:
    """Without links to scripts, images and commands; it may be any kind of text."""
    return _TEX.sub(r"\\ ", _LINK.sub(r"] \g<mark>", text.replace("![", "! [")))


def _inline(span: str, ticks: str) -> str:
    """Code in a line: as HTML if it holds anything that could be taken for markup.

    A renderer that finds other ends of the code than we do must find no markup either.
    """
    if not re.search(r"[<&!\[\]\\]", span):
        return span
    inside = span[len(ticks) : -len(ticks)]
    if inside[:1] == inside[-1:] == " " and inside.strip():
        inside = inside[1:-1]
    return f"<code>{as_entities(inside)}</code>"


def folded(title: str, text: str) -> str:
    """A text that is shown when somebody opens it. One line, so also in Markdown."""
    return (
        f'<details {DIM}><summary>{as_entities(title)}</summary><pre style="'
        f'white-space: pre-wrap">{as_entities(text)}</pre></details>'
    )


def dim(text: str) -> str:
    """A remark beside the text. One line, so also in Markdown."""
    return f"<small {DIM}>{as_entities(text)}</small>"


def bubble(who: str, text: str) -> str:
    """What somebody says in a conversation."""
    at_right = who == "user"
    margin = "0.3em 0 0.3em 15%" if at_right else "0.3em 15% 0.3em 0"
    shade = "rgba(70, 130, 255, 0.15)" if at_right else "rgba(128, 128, 128, 0.12)"
    return (
        f'<div style="white-space: pre-wrap; margin: {margin}; padding: 0.4em 0.8em;'
        f' border-radius: 0.8em; background: {shade}">'
        f"<b>{escape(who)}</b> {escape(text)}</div>"
    )


def box(title: str, text: str) -> str:
    """Something that went wrong."""
    return (
        '<div style="white-space: pre-wrap; padding: 0.4em 0.8em; border-left: 0.3em'
        f' solid #c33"><b>{escape(title)}</b> {escape(text)}</div>'
    )


def bar(label: str, share: float | None) -> str:
    """How far something is, 0 to 1; None where nobody knows."""
    value = "" if share is None else f' value="{100 * share:.0f}"'
    known = "" if share is None else f"{share:.0%} "
    return (
        f'<div><progress max="100"{value} style="width: 20em;'
        f' vertical-align: middle"></progress> {known}{escape(label)}</div>'
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]], count: int) -> str:
    """A table; the rows behind the first `ROWS` are only counted.

    Args:
        count: How many rows there are.
    """
    made = ["<table><thead><tr>", *(f"<th>{escape(h)}</th>" for h in heads)]
    made.append("</tr></thead><tbody>")
    for number, row in enumerate(rows):
        if number == ROWS:
            break
        cells = (_cell(value) for value in row)
        made.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    made.append("</tbody></table>")
    if count > ROWS:
        made.append(f"<i>… {count - ROWS} more</i>")
    return "".join(made)


def _cell(value: Any) -> str:
    return "" if value is None else escape(cut(str(value)))


class Table(list[T]):
    """A list that notebooks show as a table; in all else an ordinary list."""

    #: Heads of the columns, and the attribute that each shows, such as ``info.path``.
    COLUMNS: Sequence[tuple[str, str]] = ()

    def _repr_html_(self) -> str:
        rows = ([_field(item, name) for _, name in self.COLUMNS] for item in self)
        return table([head for head, _ in self.COLUMNS], rows, len(self))


def _field(item: Any, path: str) -> Any:
    value = item
    for name in path.split("."):
        value = getattr(value, name, None)
    if path.endswith("size_bytes") and isinstance(value, int):
        return size(value)
    return value


def size(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"
