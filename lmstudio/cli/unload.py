"""`lms unload`."""

from __future__ import annotations

import click

from .choices import can_ask, choose
from .client import connected, loaded_models, server_options
from .failures import WRONG_USAGE, Failure
from .output import say


@click.command()
@click.argument("identifier", required=False)
@click.option("--all", "-a", "all_models", is_flag=True, help="Unload every model.")
@server_options
def unload(
    identifier: str | None, all_models: bool, host: str | None, port: int | None
) -> None:
    """Unload the model IDENTIFIER, or the one that is loaded, or all.

    \b
    Example:
      lms unload smollm2-135m-instruct
    """
    if identifier and all_models:
        raise click.UsageError("say either IDENTIFIER or --all")
    with connected(host, port) as client:
        loaded = {model.identifier: model for model in loaded_models(client)}
        chosen = [identifier] if identifier else sorted(loaded)
        if len(chosen) > 1 and not all_models:
            if not can_ask():
                raise Failure(
                    f"several models are loaded ({', '.join(chosen)}):"
                    " name one of them, or say --all",
                    WRONG_USAGE,
                )
            chosen = [chosen[choose("Unload which one", chosen)]]
        for name in chosen:
            is_embedding = name in loaded and loaded[name].type == "embedding"
            (client.embedding if is_embedding else client.llm).unload(name)
            say(f"Unloaded {name}")
    if not chosen:
        say("No model is loaded")
