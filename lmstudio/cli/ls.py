"""`lms ls`: the models on disk."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

import click

import lmstudio

from .client import connected, loaded_models, server_options
from .failures import NOT_FOUND, Failure
from .output import note, print_json, print_table, say, size_text


@click.command()
@click.argument("key", required=False)
@click.option("--llm", is_flag=True, help="Only models that generate text.")
@click.option("--embedding", is_flag=True, help="Only models that embed text.")
@click.option("--variants", is_flag=True, help="Each quantization of a model, too.")
@click.option("--detailed", is_flag=True, help="All that is known of each.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@server_options
def ls(
    key: str | None,
    llm: bool,
    embedding: bool,
    variants: bool,
    detailed: bool,
    as_json: bool,
    host: str | None,
    port: int | None,
) -> None:
    """List the models on disk: the server's, or without one those of the folder.

    With KEY all that is known of that model.

    \b
    Example:
      lms ls --llm
      lms ls smollm2-135m-instruct
    """
    models, loaded = _models(host, port)
    if key is not None:
        models = [m for m in models if key in (m.model_key, m.path)]
        detailed = True
        if not models:
            raise Failure(
                f"no model on disk has the key {key!r}; `lms ls` lists them", NOT_FOUND
            )
    kinds = {"llm": llm, "embedding": embedding}
    shown = [m for m in models if kinds.get(m.type) or not any(kinds.values())]
    if as_json:
        print_json([dict(model.raw) for model in shown])
    elif shown and detailed:
        _print_details(shown, loaded)
    elif shown:
        _print(shown, loaded, variants)
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


def _print_details(models: Sequence[lmstudio.ModelInfo], loaded: Counter[str]) -> None:
    for model in models:
        quantization = model.quantization
        details = {
            "Type": model.type,
            "Path": model.path,
            "Name": model.display_name,
            "Publisher": model.publisher,
            "Architecture": model.architecture,
            "Parameters": model.params_string,
            "Quantization": quantization
            and f"{quantization.name}, {quantization.bits} bit",
            "Format": model.format,
            "Size": size_text(model.size_bytes),
            "Context": model.max_context_length or None,
            "Takes images": _yes_or_no(model.vision),
            "Knows tools": _yes_or_no(model.trained_for_tool_use),
            "Variants": ", ".join(model.variants or ()),
            "Loaded": loaded[model.path] or None,
        }
        click.echo(click.style(model.model_key, bold=True))
        for name, value in details.items():
            if value not in (None, ""):
                click.echo(f"  {name + ':':14} {value}")


def _yes_or_no(flag: bool | None) -> str | None:
    return None if flag is None else "yes" if flag else "no"


def _print(
    models: Sequence[lmstudio.ModelInfo], loaded: Counter[str], variants: bool
) -> None:
    rows: list[tuple[object, ...]] = []
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
        for variant in (model.variants or ()) if variants else ():
            is_default = variant == model.selected_variant
            rows.append(
                (f"  {variant}", *[None] * 5, "by default" if is_default else None)
            )
    columns = ("MODEL", "TYPE", "PARAMS", "ARCHITECTURE", "QUANTIZATION", "SIZE", "")
    print_table(columns, rows)
