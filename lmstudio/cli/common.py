"""The options that every command has: how much `lms` says."""

from __future__ import annotations

import click

#: How much is said, from everything to errors only.
LEVELS = ("debug", "info", "warn", "error", "none")
_LEVEL = "lmstudio.cli.level"  # where a context keeps it
_HELP = "How much to say; errors are always said."


def says(level: str) -> bool:
    """Whether what is of a level is to be said by the command that runs."""
    context = click.get_current_context(silent=True)
    chosen = "info" if context is None else context.meta.get(_LEVEL, "info")
    return LEVELS.index(level) >= LEVELS.index(chosen)


def with_levels(command: click.Command) -> click.Command:
    """Give a command, and all commands in it, the options of `LEVELS`."""
    names = {name for option in command.params for name in option.opts}
    if "--log-level" not in names:
        command.params += [
            _option("--log-level", type=click.Choice(LEVELS), help=_HELP),
            _option("--verbose", is_flag=True, help="Show what happens."),
            _option("--quiet", is_flag=True, help="Say results and errors only."),
        ]
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            with_levels(inner)
    return command


def _option(name: str, **settings: object) -> click.Option:
    return click.Option(
        [name],
        hidden=True,
        expose_value=False,
        callback=_choose,
        **settings,  # type: ignore[arg-type]  # of click's many
    )


def _choose(context: click.Context, option: click.Parameter, value: object) -> None:
    if not value:
        return
    level = {"verbose": "debug", "quiet": "none"}.get(option.name or "", str(value))
    if context.meta.setdefault(_LEVEL, level) != level:
        raise click.UsageError("say one of --log-level, --verbose and --quiet")
    if level == "debug":
        import logging  # takes its time, and few need it

        logging.basicConfig(level=logging.DEBUG)
