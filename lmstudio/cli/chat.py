"""`lms chat`: a conversation on the terminal, or one answer in a pipe."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import click

import lmstudio

from .choices import agrees, can_ask
from .client import connected, server_options
from .output import note

#: Seconds that a model stays loaded without use, as officially.
TTL = 3600.0
#: What ``--reasoning`` takes.
REASONING = ("on", "off")


@click.command()
@click.argument("model", required=False)
@click.option("--prompt", "-p", help="Answer this, and end.")
@click.option("--system-prompt", "-s", help="What the model is told first.")
@click.option("--stats", is_flag=True, help="Show what was measured after each answer.")
@click.option(
    "--ttl",
    type=click.FloatRange(0, min_open=True),
    default=TTL,
    show_default=True,
    metavar="SECONDS",
    help="Unload the model after so much idleness, if this loads it.",
)
@click.option(
    "--reasoning",
    type=click.Choice(REASONING),
    help="Whether the model thinks first, where it leaves one the choice.",
)
@click.option("--yes", "-y", is_flag=True, help="Ask nothing: the answer is yes.")
@click.option("--dont-fetch-catalog", is_flag=True, hidden=True, help="There is none.")
@server_options
def chat(
    model: str | None,
    prompt: str | None,
    system_prompt: str | None,
    stats: bool,
    ttl: float,
    reasoning: str | None,
    yes: bool,
    dont_fetch_catalog: bool,
    host: str | None,
    port: int | None,
) -> None:
    """Talk with MODEL, or with the one that is loaded. Ctrl-D ends it.

    What comes through a pipe is the prompt, or its end after --prompt.

    \b
    Example:
      lms chat smollm2-135m-instruct
      lms chat -p "Summarize:" < notes.txt
    """
    from .talk import Talk, find_llm

    text = _whole_prompt(prompt)
    with _serving(host, port, yes) as client:
        found = find_llm(client, model, ttl, yes)
        talk = Talk(client, found, ttl=ttl, with_stats=stats, yes=yes)
        if reasoning is not None:
            talk.thinks = reasoning == "on"
        if system_prompt:
            talk.chat.add_system_prompt(system_prompt)
        if text is None:
            talk.run()
        else:
            talk.answer_once(text)


def _whole_prompt(prompt: str | None) -> str | None:
    """The one prompt of the command line and the pipe; None for a conversation.

    Raises:
        click.UsageError: It is empty.
    """
    parts = [prompt] if prompt else []
    if sys.stdin is not None and not sys.stdin.isatty():
        piped = sys.stdin.read()
        parts += [piped] if piped.strip() else []
    elif prompt is None and sys.stdin is not None:
        return None
    if not parts:
        raise click.UsageError("no prompt: say --prompt, or pipe a text in")
    return "\n\n".join(parts)


@contextlib.contextmanager
def _serving(
    host: str | None, port: int | None, yes: bool
) -> Iterator[lmstudio.LMStudioClient]:
    """A client of a server that runs; where none does, one is offered."""
    is_named = bool(host or port or os.environ.get("LMSTUDIO_HOST"))
    with connected(host, port) as client:
        try:
            client.address  # noqa: B018  # looks for a server
        except lmstudio.LMStudioConnectionError:
            if is_named or not (yes or can_ask()):
                raise
            if not yes and not agrees("No server is running. Start it?"):
                raise
        else:
            yield client
            return
    from .server import start_in_background

    found, _ = start_in_background()
    note(f"The server is running at {found.address}; `lms server stop` ends it")
    with connected(found.address, None) as client:
        yield client
