"""The command `lms`: its parts, and what it does when one of them fails."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

try:
    import click
except ModuleNotFoundError as exc:  # `lms` is installed with the package itself
    hint = "lms: install what it needs first: pip install 'lmstudio[server]'"
    raise SystemExit(hint) from exc

from .common import says, with_levels
from .failures import CLOSED_PIPE, INTERRUPTED, Failure, failure_of, wrong_usage

#: Each command and what it does. It is the object of its name in the module of its
#: name, with an underscore where Python wants one, which is imported when it is used.
COMMANDS = {
    "chat": "Talk with a model.",
    "completion": "Print what makes a shell complete commands.",
    "daemon": "The server in the background, under LM Studio's other name.",
    "get": "Download a model.",
    "import": "Put a model file into the models folder.",
    "load": "Load a model into memory.",
    "log": "Watch what the server does.",
    "ls": "List the models on disk.",
    "ps": "List the models in memory.",
    "server": "Start, stop and look at the server.",
    "status": "Show the server and the models in memory.",
    "unload": "Unload models from memory.",
    "version": "Show the version of this command.",
}
_KEYWORDS = {"import": "import_"}


class Lms(click.Group):
    """A group that imports its commands late and reports failures in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import a command; None if there is none of that name."""
        if name not in COMMANDS:
            return None
        name = _KEYWORDS.get(name, name)
        module = importlib.import_module(f"lmstudio.cli.{name}")
        command = getattr(module, name)
        assert isinstance(command, click.Command)
        return with_levels(command)

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; whatever it raises becomes a failure."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except KeyboardInterrupt:
            raise Failure("interrupted", INTERRUPTED) from None
        except BrokenPipeError:  # `lms ls | head`: click knows what to do
            raise
        except Exception as exc:
            if says("debug"):
                import traceback

                traceback.print_exc()
            raise failure_of(exc) from exc

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line. Unless told otherwise, end with its exit code."""
        from lmstudio.server.unwinding import unwound_by_signals

        def run() -> Any:
            return super(Lms, self).main(args, prog_name, complete_var, False, **extra)

        if not standalone_mode:
            return run()
        out = sys.stdout
        _escape_unknown()
        try:
            with unwound_by_signals():
                code = run()
        except SystemExit:
            if sys.stdout is out:
                raise
            code = CLOSED_PIPE  # click wraps the output where nobody reads it
        except click.UsageError as exc:
            code = _report(wrong_usage(exc))
        except click.ClickException as exc:
            failure = exc if isinstance(exc, Failure) else Failure(exc.format_message())
            code = _report(failure)
        except OSError as exc:  # of what click prints itself, such as the help
            code = _report(failure_of(exc))
        except click.Abort:
            code = _report(Failure("interrupted", INTERRUPTED))
        sys.exit(code if isinstance(code, int) else 0)


def _escape_unknown() -> None:
    """Print what the encoding of a terminal lacks as escapes, not as an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _report(failure: Failure) -> int:
    failure.show()
    _drop_unwritable()
    return failure.code


def _drop_unwritable() -> None:
    """Forget output that can't be written, in the whole process.

    From 3.14 on Python keeps it, tries again when the process ends, and then says so
    in its own words and with a code of its own.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@click.group(
    cls=Lms,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.pass_context
def main(ctx: click.Context) -> None:
    """Run language models on this machine.

    Commands that talk to a server find it, or take --host and --port. All take
    --verbose, --quiet, and --log-level with debug, info, warn, error or none.

    \b
    Example:
      lms get smollm2-135m-instruct
      lms chat smollm2-135m-instruct
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


with_levels(main)

if __name__ == "__main__":
    main(prog_name="lms")
