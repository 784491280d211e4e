"""Questions on a terminal: which of several, and yes or no."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click


def can_ask() -> bool:
    """Whether somebody sits at a terminal who can answer."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def choose(title: str, items: Sequence[str]) -> int:
    """Ask which of several is meant; returns its place, from 0."""
    for number, item in enumerate(items, 1):
        click.echo(f"{number:3}  {item}", err=True)
    answer: int = click.prompt(
        title, type=click.IntRange(1, len(items)), default=1, err=True
    )
    return answer - 1


def agrees(question: str) -> bool:
    """Ask a question that is answered by yes or no; yes is the default."""
    return click.confirm(question, default=True, err=True)
