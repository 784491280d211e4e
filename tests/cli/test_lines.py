"""Lines that somebody types, where the output is no terminal."""

from __future__ import annotations

import io

import pytest

from lmstudio.cli.lines import Lines


@pytest.fixture
def read(monkeypatch):
    """Reads what is typed; takes the text."""

    def read_all(text):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        with Lines(["/help", "/exit"]) as lines:
            found = []
            while True:
                try:
                    found.append(lines.read())
                except EOFError:
                    return found

    return read_all


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one\ntwo\n", ["one", "two"]),
        ("one\\\ntwo\n", ["one\ntwo"]),
        ("one\\\ntwo\\\nthree\n", ["one\ntwo\nthree"]),
        ('"""one\ntwo"""\n', ["one\ntwo"]),
        ('"""\none\n\ntwo\n"""\nthree\n', ["one\n\ntwo", "three"]),
        ('"""one"""\n', ["one"]),
        ("\n", [""]),
        ("no end", ["no end"]),
        ('"""never ended\n', []),
    ],
    ids=repr,
)
def test_lines(read, text, expected):
    """One line is one text, unless quotes or a backslash make it several."""
    assert expected == read(text)


def test_prompts(read, capsys):
    """The prompt is not in the output, which is for the answers."""
    read('"""a\nb"""\n')

    assert ("", "> . > ") == tuple(capsys.readouterr())


def test_completion():
    """The tab key completes the names of commands."""
    lines = Lines(["/exit", "/help"])

    assert ["/help", None] == [lines._complete("/h", n) for n in (0, 1)]
    assert lines._complete("", 0) is None
