"""`lms load`."""

from __future__ import annotations

import time

import click

from .client import connected, server_options
from .output import progress_bar, say


def offload(
    context: click.Context, option: click.Parameter, text: str | None
) -> float | str | None:
    """Read the share of a model on the GPU.

    Raises:
        click.BadParameter: It is no number from 0 to 1, ``max`` or ``off``.
    """
    if text in (None, "max", "off"):
        return text
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:  # NaN is neither
        raise click.BadParameter(f"{text!r} is not 0 to 1, 'max' or 'off'")
    return share


@click.command()
@click.argument("key")
@click.option("--identifier", metavar="ID", help="Name to use it by, instead of KEY.")
@click.option(
    "--context-length", "-c", type=click.IntRange(1), help="Tokens of context."
)
@click.option(
    "--gpu", metavar="R", callback=offload, help="Share on the GPU: 0 to 1, max, off."
)
@click.option(
    "--ttl",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Unload it after so much idleness.",
)
@click.option("--parallel", type=click.IntRange(1), help="Predictions at once.")
@click.option("--yes", "-y", is_flag=True, hidden=True, help="There are no questions.")
@server_options
def load(
    key: str,
    identifier: str | None,
    context_length: int | None,
    gpu: float | str | None,
    ttl: float | None,
    parallel: int | None,
    yes: bool,
    host: str | None,
    port: int | None,
) -> None:
    """Load the model KEY into the server's memory, where it stays.

    \b
    Example:
      lms load smollm2-135m-instruct --context-length 2048
    """
    wanted = {
        "context_length": context_length,
        "gpu": None if gpu is None else {"ratio": gpu},
        "max_parallel_predictions": parallel,
    }
    config = {name: value for name, value in wanted.items() if value is not None}
    with connected(host, port) as client, progress_bar(f"Loading {key}") as show:
        begin = time.monotonic()
        model = client.llm.load(
            key,
            identifier=identifier,
            config=config,
            ttl=ttl,
            no_hup=True,
            on_progress=show,
        )
        seconds = time.monotonic() - begin
    say(f"Loaded {key} in {seconds:.1f} s; its identifier is {model.identifier}")
