"""`lms get`: starter models, and models of the hub."""

from __future__ import annotations

from collections.abc import Sequence

import click

import lmstudio

from .choices import can_ask
from .client import server_options
from .failures import INTERRUPTED, NOT_FOUND, WRONG_USAGE, Failure
from .home import check_home
from .hub import Choice, Source, served, source
from .output import note, print_json, print_table, progress_bar, say, size_text

#: Results that a search shows.
RESULTS = 10


@click.command()
@click.argument("name", required=False)
@click.option("--select", is_flag=True, help="Choose among the results and files.")
@click.option("--yes", "-y", is_flag=True, help="Take the first result of a search.")
@click.option("--gguf", is_flag=True, help="GGUF files, as always.")
@click.option("--mlx", is_flag=True, help="Refused: these run on Apple's chips only.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@server_options
def get(
    name: str | None,
    select: bool,
    yes: bool,
    gguf: bool,
    mlx: bool,
    as_json: bool,
    host: str | None,
    port: int | None,
) -> None:
    """Download a model.

    NAME is a starter model, owner/name on the hub, with a quantization if you like, a
    URL of the hub, or words to search for. What is interrupted is continued next time.

    \b
    Example:
      lms get smollm2-135m-instruct   # chats
      lms get all-minilm-l6-v2        # embeds
      lms get bartowski/Qwen2.5-0.5B-Instruct-GGUF@q4_k_m
    """
    from lmstudio.server.starters import STARTERS

    if mlx:
        raise Failure(
            "models of the format MLX can't be run by this server; leave out --mlx",
            WRONG_USAGE,
        )
    if select and yes:
        raise Failure("say --select or --yes, not both", WRONG_USAGE)
    if name is None:
        known = ", ".join(STARTERS)
        raise Failure(f"say which model to fetch: {known}, or owner/name", WRONG_USAGE)
    check_home()
    if name in STARTERS:
        _fetch_starter(name, as_json)
        return
    with source(host, port) as hub:
        if "/" not in name:
            name = _searched(hub, name, select=select, yes=yes)
        _download(hub, name, select=select, as_json=as_json)


def fetch(name: str, client: lmstudio.LMStudioClient, *, yes: bool = False) -> None:
    """Download what a name means, through a server that is connected.

    Raises:
        Failure: There is no such model, or it can't be had.
    """
    from lmstudio.server.starters import STARTERS

    if name in STARTERS:
        _fetch_starter(name, as_json=False)
        return
    hub = served(client)
    if "/" not in name:
        name = _searched(hub, name, select=can_ask() and not yes, yes=yes)
    _download(hub, name, select=False, as_json=False)


def _fetch_starter(name: str, as_json: bool) -> None:
    from lmstudio import paths
    from lmstudio.server import starters

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


def _searched(hub: Source, words: str, *, select: bool, yes: bool) -> str:
    """The repository that a search finds."""
    from lmstudio.server.starters import STARTERS

    found = hub.search(words, RESULTS)
    if not found:
        known = ", ".join(STARTERS)
        raise Failure(
            f"the hub has no GGUF model called {words!r}; starter models are {known}",
            NOT_FOUND,
        )
    if yes:
        return found[0]
    if not select:
        listed = ", ".join(found)
        raise Failure(
            f"{words!r} is no starter model; on the hub there are {listed}; name one"
            " of these, or add --select",
            NOT_FOUND,
        )
    print_table(("", "MODEL"), [*enumerate(found, 1)])
    return found[_asked(len(found), 1) - 1]


def _download(hub: Source, name: str, *, select: bool, as_json: bool) -> None:
    choices = hub.choices(name)
    choice = _selected(choices) if select else hub.choose(name, choices)
    if not choice.fits:
        note(f"{choice.identifier} may not fit into the memory of the server")
    title = f"Downloading {choice.identifier} ({size_text(choice.size)})"
    try:
        with progress_bar(title) as show:
            key = hub.download(choice.identifier, show)
    except KeyboardInterrupt:
        raise Failure(
            f"interrupted; `lms get {choice.identifier}` continues it", INTERRUPTED
        ) from None
    if as_json:
        print_json({"modelKey": key, "indexedModelIdentifier": choice.path})
    else:
        say(f"{key} is in {choice.path}; try: lms load {key}")


def _selected(choices: Sequence[Choice]) -> Choice:
    """What the user chooses of a table."""
    rows = [
        (
            number,
            choice.quantization or choice.path.rpartition("/")[2],
            size_text(choice.size),
            "" if choice.fits else "too large",
            "recommended" if choice.recommended else "",
        )
        for number, choice in enumerate(choices, 1)
    ]
    print_table(("", "FILE", "SIZE", "MEMORY", ""), rows)
    best = next((n for n, c in enumerate(choices, 1) if c.recommended), 1)
    return choices[_asked(len(choices), best) - 1]


def _asked(most: int, default: int) -> int:
    number: int = click.prompt(
        "Which one", type=click.IntRange(1, most), default=default
    )
    return number
