"""`lms ls`: the models on disk."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

import click

import lmstudio

from .client import connected, loaded_models, server_options
from .output import note, print_json, print_table, say, size_text


@click.command()
@click.option("--llm", is_flag=True, help="Only models that generate text.")
@click.option("--embedding", is_flag=True, help="Only models that embed text.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@server_options
def ls(
    llm: bool, embedding: bool, as_json: bool, host: str | None, port: int | None
) -> None:
    """List the models on disk: the server's, or without one those of the folder.

    \b
    Example:
      lms ls --llm
    """
    models, loaded = _models(host, port)
    kinds = {"llm": llm, "embedding": embedding}
    shown = [m for m in models if kinds.get(m.type) or not any(kinds.values())]
    if as_json:
        print_json([dict(model.raw) for model in shown])
    elif shown:
        _print(shown, loaded)
    elif models:
        say(f"None of the {len(models)} models on disk is of this kind")
    else:
        say("There are no models on disk; `lms get smollm2-135m-instruct` fetches one")


def _models(
    host: str | None, port: int | None
) -> tuple[list[lmstudio.ModelInfo], Counter[str]]:
    """The models, and for the path of each how often it is loaded."""
    named = host or port or os.environ.get("LMSTUDIO_HOST")
    try:
        with connected(host, port) as client:
            models = client.system.list_downloaded_models()
            loaded = Counter(model.path for model in loaded_models(client))
    except lmstudio.LMStudioConnectionError:
        if named:  # that server's models were asked for, not this machine's
            raise
        from lmstudio import paths
        from lmstudio.server import infos

        note("No server is running; these are the models in its folder")
        return infos.on_disk(paths.models()), Counter()
    return list(models), loaded


def _print(models: Sequence[lmstudio.ModelInfo], loaded: Counter[str]) -> None:
    rows = []
    for model in sorted(models, key=lambda model: (model.type, model.model_key)):
        count = loaded[model.path]
        state = "loaded" if count == 1 else f"loaded {count} times" if count else None
        rows.append(
            (
                model.model_key,
                model.type,
                model.params_string,
                model.architecture,
                model.quantization and model.quantization.name,
                size_text(model.size_bytes),
                state,
            )
        )
    columns = ("MODEL", "TYPE", "PARAMS", "ARCHITECTURE", "QUANTIZATION", "SIZE", "")
    print_table(columns, rows)
