"""`lms version`."""

from __future__ import annotations

import click

import lmstudio

from .output import print_json, say


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def version(as_json: bool) -> None:
    """Show the version of this command.

    \b
    Example:
      lms version
    """
    if as_json:
        print_json({"version": lmstudio.__version__})
    else:
        say(f"lms {lmstudio.__version__}")
