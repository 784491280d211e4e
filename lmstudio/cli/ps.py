"""`lms ps`: the models in memory."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import click

import lmstudio

from .client import connected, server_options
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
        found = [
            (info, _doing(model))
            for model in client.list_loaded_models()
            if (info := model.get_model_info()) is not None  # it may just have gone
        ]
    if as_json:
        hidden = "instanceReference"  # the server's own, and of no use elsewhere
        print_json(
            [
                {**{k: v for k, v in info.raw.items() if k != hidden}, **doing}
                for info, doing in found
            ]
        )
    else:
        print_loaded(
            [info for info, _ in found],
            {info.identifier: str(doing.get("status", "")) for info, doing in found},
        )


def _doing(model: lmstudio.LLM | lmstudio.EmbeddingModel) -> dict[str, object]:
    """What a model does, and how many requests wait; empty for older servers."""
    try:
        state = model.get_processing_state()
    except (lmstudio.LMStudioUnsupportedError, lmstudio.LMStudioModelNotFoundError):
        return {}
    return {"status": state.status, "queued": state.queued}


def print_loaded(
    models: Sequence[lmstudio.InstanceInfo], states: Mapping[str, str] | None = None
) -> None:
    """Print a table of loaded models, or that there is none.

    Args:
        states: What each does, by its identifier; None leaves the column out.
    """
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
            *(() if states is None else (states.get(model.identifier, "").upper(),)),
        )
        for model in sorted(models, key=lambda model: model.identifier)
    ]
    columns = ["IDENTIFIER", "MODEL", "SIZE", "CONTEXT", "UNLOADS AFTER"]
    print_table(columns + ([] if states is None else ["STATUS"]), rows)


def _ttl(model: lmstudio.InstanceInfo, now: float) -> str | None:
    """How long a model stays when nobody uses it, None for without limit."""
    if model.ttl_ms is None:
        return None
    ttl = model.ttl_ms / 1000
    used = now if model.last_used_time is None else model.last_used_time / 1000
    return f"{time_text(ttl - (now - used))} of {time_text(ttl)}"
