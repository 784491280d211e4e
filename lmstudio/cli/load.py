"""`lms load`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from .client import connected, server_options
from .output import progress_bar, say, size_text
from .selection import find_model, missing_key

if TYPE_CHECKING:
    from lmstudio import ResourcesUsage


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


#: What follows ``--speculative-draft-``, and how `click` reads it. Each is the load
#: setting of the same name.
DRAFT: dict[str, dict[str, Any]] = {
    "simple": {"is_flag": True, "help": "Have a small model propose tokens."},
    "model": {"metavar": "KEY", "help": "That model; implies the former."},
    "max-tokens": {"type": click.IntRange(0), "help": "Tokens to propose at most."},
    "min-tokens": {"type": click.IntRange(0), "help": "Propose none if it were less."},
    "min-continue-probability": {
        "type": click.FloatRange(0, 1),
        "help": "Propose only tokens as likely as that, 0 to 1.",
    },
    "mtp": {"is_flag": True, "help": "Use what the model itself has for it."},
}
_DRAFT = "speculative_draft_"
#: Settings that embedding models have not.
_OF_TEXT_MODELS = (
    "max_parallel_predictions",
    *(_DRAFT + name.replace("-", "_") for name in DRAFT),
)


def draft_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of `DRAFT`."""
    for name, how in reversed(DRAFT.items()):
        switch = {"default": None} if "is_flag" in how else {}
        command = click.option(f"--speculative-draft-{name}", **how, **switch)(command)
    return command


@click.command()
@click.argument("key", required=False)
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
@draft_options
@click.option("--local", is_flag=True, help="Leave out models of other machines.")
@click.option("--exact", is_flag=True, help="KEY is the whole key or path.")
@click.option("--estimate-only", is_flag=True, help="Say what it would take, no more.")
@click.option(
    "--yes", "-y", is_flag=True, help="Ask nothing; take the first that fits."
)
@server_options
def load(
    key: str | None,
    identifier: str | None,
    context_length: int | None,
    gpu: float | str | None,
    ttl: float | None,
    parallel: int | None,
    local: bool,
    exact: bool,
    estimate_only: bool,
    yes: bool,
    host: str | None,
    port: int | None,
    **draft: Any,
) -> None:
    """Load the model KEY, or one that has KEY in its name, into memory to stay there.

    Without KEY it asks which one.

    \b
    Example:
      lms load smollm2-135m-instruct --context-length 2048
    """
    if key is None:
        if exact:
            raise click.UsageError("--exact needs KEY")
        if not yes:
            missing_key()
    wanted = {
        "context_length": context_length,
        "gpu": None if gpu is None else {"ratio": gpu},
        "max_parallel_predictions": parallel,
        **_drafting(draft),
    }
    config = {name: value for name, value in wanted.items() if value is not None}
    with connected(host, port) as client:
        name, kind = find_model(client, key, exact=exact, yes=yes, local=local)
        if kind == "embedding":
            # They have no such options.
            config = {n: v for n, v in config.items() if n not in _OF_TEXT_MODELS}
        models = client.embedding if kind == "embedding" else client.llm
        if estimate_only:
            _print_estimate(name, models.estimate_resources_usage(name, config), config)
            return
        with progress_bar(f"Loading {name}") as show:
            begin = time.monotonic()
            model = models.load(
                name,
                identifier=identifier,
                config=config,
                ttl=ttl,
                no_hup=True,
                on_progress=show,
            )
            seconds = time.monotonic() - begin
    say(f"Loaded {name} in {seconds:.1f} s; its identifier is {model.identifier}")


def _drafting(given: dict[str, Any]) -> dict[str, Any]:
    """The settings of drafts.

    Raises:
        click.UsageError: They say how a model is to draft, and not which.
    """
    settings = {name: value for name, value in given.items() if value is not None}
    model = f"{_DRAFT}model"
    if model in settings:
        settings[f"{_DRAFT}simple"] = True
    elif settings.keys() - {f"{_DRAFT}mtp"}:
        raise click.UsageError("name the model that drafts: --speculative-draft-model")
    return settings


def _print_estimate(name: str, usage: ResourcesUsage, config: dict[str, Any]) -> None:
    memory = usage.memory
    click.echo(f"Model: {name}")
    if "context_length" in config:
        click.echo(f"Context length: {config['context_length']}")
    if "gpu" in config:
        click.echo(f"GPU offload: {config['gpu']['ratio']}")
    click.echo(f"Estimated GPU memory:   {size_text(memory.total_vram_bytes)}")
    click.echo(f"Estimated total memory: {size_text(memory.total_bytes)}")
    if memory.confidence == "low":
        click.echo("Confidence: low")
    can = "can" if usage.passes_guardrails else "can't"
    click.echo(f"The model {can} be loaded with what is free now")
