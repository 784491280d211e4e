"""How results look: lines, tables, JSON and progress bars."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from .common import says

UNITS = ("B", "kB", "MB", "GB", "TB")


def say(text: str) -> None:
    """Print a line of result, unless less is to be said."""
    if says("info"):
        click.echo(text)


def note(text: str) -> None:
    """Print a line beside the result, which pipes and files do not get."""
    if says("warn"):
        click.echo(text, err=True)


def print_json(value: Any) -> None:
    """Print a value as JSON: in one line, or indented on a terminal.

    What the output's encoding has no characters for is escaped.
    """
    indent = 2 if sys.stdout.isatty() else None
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        text = json.dumps(value, indent=indent)
    click.echo(text)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under the names of their columns; None is an empty cell."""
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for number, row in enumerate([list(columns), *cells]):
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        line = "   ".join(padded).rstrip()
        click.echo(line if number else click.style(line, bold=True))


def size_text(size: float) -> str:
    """A number of bytes for people: ``98.7 MB``, in steps of 1000."""
    power = 0
    while size >= 1000 and power < len(UNITS) - 1:
        size, power = size / 1000, power + 1
    return f"{size:.1f} {UNITS[power]}" if power else f"{size:.0f} B"


def time_text(seconds: float) -> str:
    """A duration for people: ``45 s``, ``12 min``, ``1.5 h``."""
    if seconds < 120:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Callable[[float], None]]:
    """Show a bar on standard error while the block runs, if that is a terminal.

    Yields:
        A function that takes the share that is done, 0 to 1. Any thread may call it.
    """
    if not (sys.stderr.isatty() and says("info")):
        yield lambda share: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,  # what remains is the line with the result
    )
    with bar:
        task = bar.add_task(title, total=1.0)
        yield lambda share: bar.update(task, completed=share)
