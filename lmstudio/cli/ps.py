"""`lms ps`: the models in memory."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

import lmstudio

from .client import connected, loaded_models, server_options
from .output import print_json, print_table, say, size_text, time_text


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@server_options
def ps(as_json: bool, host: str | None, port: int | None) -> None:
    """List the models that the server has in memory.

    \b
    Example:
      lms ps --json
    """
    with connected(host, port) as client:
        models = loaded_models(client)
    if as_json:
        print_json([dict(model.raw) for model in models])
    else:
        print_loaded(models)


def print_loaded(models: Sequence[lmstudio.InstanceInfo]) -> None:
    """Print a table of loaded models, or that there is none."""
    if not models:
        say("No model is loaded; `lms load KEY` loads one, `lms ls` lists them")
        return
    rows = [
        (
            model.identifier,
            model.model_key,
            size_text(model.size_bytes),
            model.context_length or None,
            _ttl(model, time.time()),
        )
        for model in sorted(models, key=lambda model: model.identifier)
    ]
    print_table(("IDENTIFIER", "MODEL", "SIZE", "CONTEXT", "UNLOADS AFTER"), rows)


def _ttl(model: lmstudio.InstanceInfo, now: float) -> str | None:
    """How long a model stays when nobody uses it, None for without limit."""
    if model.ttl_ms is None:
        return None
    ttl = model.ttl_ms / 1000
    used = now if model.last_used_time is None else model.last_used_time / 1000
    return f"{time_text(ttl - (now - used))} of {time_text(ttl)}"
