"""What `lms` says when something fails: one line, and the exit code.

The exit codes are in the table of docs/guides/lms.md.
"""

from __future__ import annotations

import errno

import click

import lmstudio

FAILED = 1
WRONG_USAGE = 2
NO_SERVER = 3
NOT_FOUND = 4
INTERRUPTED = 130
#: As shells have it of programs that SIGPIPE ends.
CLOSED_PIPE = 141

#: Errors of the package by name, and the exit code of each; the first that fits
#: counts. By name, since most commands end without an error.
CODES = (
    ("LMStudioWebsocketError", NO_SERVER),
    ("LMStudioModelNotFoundError", NOT_FOUND),
    ("LMStudioValueError", WRONG_USAGE),
)
#: Errors of files without a name, which can only be standard output: the disk is full
#: that it is redirected to, it is broken, or closed.
_OUTPUT = (errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EBADF)
#: Values that come from elsewhere, such as the end of a log, are cut at this length.
LONGEST = 2000


class Failure(click.ClickException):
    """Ends the command with one line on standard error.

    Attributes:
        message: What failed, where, and what helps.
        code: The exit code.
    """

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(one_line(message))
        self.code = code

    def show(self, file: object = None) -> None:
        """Print the line."""
        click.echo(f"lms: {self.message}", err=True)


def one_line(text: str) -> str:
    """The text without line breaks and without the spaces around them."""
    lines = (line.strip() for line in text.splitlines())
    joined = " | ".join(line for line in lines if line)
    return joined if len(joined) <= LONGEST else joined[: LONGEST - 1] + "…"


def failure_of(exc: Exception) -> Failure:
    """The failure that tells a user about an exception."""
    if isinstance(exc, lmstudio.LMStudioError):
        codes = (c for name, c in CODES if isinstance(exc, getattr(lmstudio, name)))
        return Failure(str(exc), next(codes, FAILED))
    if isinstance(exc, ModuleNotFoundError):
        needed = f"the module {exc.name!r} is missing"
        return Failure(f"{needed}; it comes with: pip install 'lmstudio[server]'")
    if isinstance(exc, OSError):
        if exc.filename is None and exc.errno in _OUTPUT:
            return Failure(f"what it prints can't be written: {exc.strerror}")
        return Failure(str(exc))
    what = f"{type(exc).__name__}: {exc}"
    return Failure(f"unexpected {what} (`lms --verbose ...` shows where)")


def wrong_usage(error: click.UsageError) -> Failure:
    """The one line for a command line that is wrong."""
    command = error.ctx.command_path if error.ctx else "lms"
    message = error.format_message().rstrip(".")
    return Failure(f"{message}; see `{command} --help`", WRONG_USAGE)
