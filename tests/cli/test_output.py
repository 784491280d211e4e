"""Tables, sizes, durations and JSON as `lms` prints them."""

from __future__ import annotations

import io
import json

import pytest

from lmstudio.cli import output


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (98_700_000, "98.7 MB"),
        (5_000_000_000, "5.0 GB"),
        (10**16, "10000.0 TB"),
    ],
)
def test_sizes(size, text):
    """Sizes are in steps of 1000, with one digit after the point."""
    assert text == output.size_text(size)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (45.4, "45 s"), (720, "12 min"), (5400, "90 min"), (9000, "2.5 h")],
)
def test_durations(seconds, text):
    """Durations are in the unit that suits them, and never negative."""
    assert text == output.time_text(seconds)


def test_table(capsys):
    """Columns are as wide as their widest cell; None is an empty cell."""
    output.print_table(("A", "NAME", ""), [("long", None, "x"), ("b", 12, None)])

    assert "A      NAME\nlong          x\nb      12\n" == capsys.readouterr().out


def test_json(capsys):
    """JSON is one line where no terminal reads it, with characters as they are."""
    output.print_json({"name": "Žluť"})

    assert '{"name": "Žluť"}\n' == capsys.readouterr().out


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def test_json_on_a_terminal(monkeypatch):
    """JSON is indented on a terminal."""
    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    output.print_json([1, {"a": None}])

    assert [1, {"a": None}] == json.loads(screen.getvalue())
    assert '[\n  1,\n  {\n    "a": null\n  }\n]\n' == screen.getvalue()


def test_bar_on_a_terminal(monkeypatch):
    """A bar shows its title and the share that is done."""
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with output.progress_bar("Loading it") as show:
        show(0.25)
        show(1.0)

    assert "Loading it" in screen.getvalue()
    assert "100%" in screen.getvalue()


def test_no_bar_elsewhere(capsys):
    """Nothing is printed where standard error is no terminal."""
    with output.progress_bar("Loading it") as show:
        show(0.5)

    assert ("", "") == capsys.readouterr()


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("utf-8", '"Zoë 名"'), ("latin-1", '"Zo\\u00eb \\u540d"'), ("none", None)],
)
def test_json_in_every_encoding(monkeypatch, encoding, text):
    """JSON is escaped where the encoding of the output lacks a character."""
    raw = io.BytesIO()
    is_known = encoding != "none"
    stream = io.TextIOWrapper(raw, encoding=encoding if is_known else "ascii")
    monkeypatch.setattr("sys.stdout", stream)
    output.print_json("Zoë 名")
    stream.flush()
    written = raw.getvalue().decode("ascii" if not is_known else encoding)
    assert "Zoë 名" == json.loads(written)
    assert text is None or f"{text}\n" == written
