"""`lms status`: the server and what it has loaded."""

from __future__ import annotations

import click

import lmstudio

from .client import connected, loaded_models, server_options
from .output import print_json, say
from .ps import print_loaded


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@server_options
def status(as_json: bool, host: str | None, port: int | None) -> None:
    """Show the server and the models that it has in memory.

    \b
    Example:
      lms status
    """
    address, loaded = None, []
    try:
        with connected(host, port) as client:
            address, loaded = client.address, loaded_models(client)
    except lmstudio.LMStudioConnectionError:
        if host or port:
            raise
    if as_json:
        models = [dict(model.raw) for model in loaded]
        running = address is not None
        print_json({"running": running, "address": address, "loaded": models})
    elif address is None:
        say("The server is not running; `lms server start` starts it")
    else:
        say(f"The server is running at {address}")
        print_loaded(loaded)
