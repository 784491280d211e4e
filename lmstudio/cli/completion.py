"""`lms completion`: what makes a shell complete commands."""

from __future__ import annotations

import click

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what makes SHELL complete commands and options: bash, zsh or fish.

    \b
    Example:
      lms completion bash > ~/.local/share/bash-completion/completions/lms
      lms completion zsh > ~/.zfunc/_lms
      lms completion fish > ~/.config/fish/completions/lms.fish
    """
    from click.shell_completion import get_completion_class

    from .main import main

    kind = get_completion_class(shell)
    assert kind is not None
    made = kind(main, {}, "lms", "_LMS_COMPLETE")
    # Not `made.source()`, which starts a bash to ask for its version.
    click.echo(made.source_template % made.source_vars())
