"""Every error becomes one line and the exit code of its kind."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from lmstudio import errors
from lmstudio.cli import failures
from lmstudio.cli.failures import LONGEST, failure_of, one_line, wrong_usage


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.LMStudioConnectionError("ws://a:1", "refused", "refused", "Start"), 3),
        (errors.LMStudioWebsocketError("ws://a:1", "reset"), 3),
        (errors.LMStudioModelNotFoundError("unloadModel", "No such model"), 4),
        (errors.LMStudioModelLoadError("loadModel", "Not a GGUF file"), 1),
        (errors.LMStudioServerError("loadModel", "Something"), 1),
        (errors.LMStudioTimeoutError("waited 60 s"), 1),
        (errors.LMStudioTypeError("a text is needed"), 2),
        (PermissionError(13, "Permission denied", "/x"), 1),
        (KeyError("bug"), 1),
    ],
)
def test_exit_codes(error, code):
    """Each kind of error has the exit code of the documented table."""
    failure = failure_of(error)

    assert code == failure.code
    assert str(error) in failure.message


def test_a_missing_library():
    """A library of the extra that is not there is named, and the way to get it."""
    failure = failure_of(ModuleNotFoundError("No module named 'rich'", name="rich"))

    assert (
        "the module 'rich' is missing; it comes with: pip install 'lmstudio[server]'"
        == failure.message
    )


def test_the_line(capsys):
    """A failure prints one line that says who speaks."""
    failure_of(OSError("first\n\n  second")).show()

    assert ("", "lms: first | second\n") == capsys.readouterr()


def test_long_texts_are_cut():
    """No error floods the terminal."""
    assert LONGEST == len(one_line("x" * 3 * LONGEST))


def test_usage_errors_name_the_command():
    """A wrong command line is told which command's help to read."""
    context = click.Context(click.Command("load"), info_name="load")
    failure = wrong_usage(click.UsageError("Missing argument 'KEY'.", context))

    assert "Missing argument 'KEY'; see `load --help`" == failure.message
    assert 2 == failure.code


def test_table_of_the_guide():
    """The exit codes of the guide are those of the code, and of SIGTERM."""
    guide = Path(__file__).parents[2] / "docs" / "guides" / "lms.md"
    table = guide.read_text("utf-8").split("| exit code | meaning |")[1]
    told = [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.M)]
    codes = {failures.FAILED, failures.WRONG_USAGE, failures.NO_SERVER}
    codes |= {failures.NOT_FOUND, failures.INTERRUPTED, failures.CLOSED_PIPE}

    assert [0, *sorted(codes), 128 + 15] == told
