"""The command line as a whole: its commands, its help, and how it fails."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import click
import pytest

import lmstudio.cli.version
from lmstudio.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guides" / "lms.md"
#: The words of every command.
ALL = [[name] for name in COMMANDS if name != "server"]
ALL += [["server", name] for name in ("start", "stop", "status")]


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_help(lms, words):
    """Every command explains itself with an example."""
    result = lms(*words, "--help")

    assert (0, "") == (result.exit_code, result.stderr)
    assert f"lms {' '.join(words)}" in result.stdout.split("Example:")[1]


def test_help_of_the_group(lms):
    """`lms server` lists its commands."""
    result = lms("server")

    assert (0, "") == (result.exit_code, result.stderr)
    assert "start" in result.stdout.split("Commands:")[1]


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)], ids=str)
def test_help_of_all(lms, words):
    """Without a command, the commands are listed."""
    result = lms(*words)

    assert (0, "") == (result.exit_code, result.stderr)
    assert list(COMMANDS) == re.findall(r"^  (\w+) ", result.stdout, re.M)[-8:]


def guide_lines():
    """Every line of the guide that is a command of ours."""
    return re.findall(r"^lms (?!--)(.+)$", GUIDE.read_text(), re.M)


@pytest.mark.parametrize("line", guide_lines())
def test_commands_of_the_guide(line):
    """What the guide says to type is a command line that we understand."""
    command: click.Command = main
    context = None
    words = line.split()
    while isinstance(command, click.Group):
        context = command.make_context("lms", [], parent=context)
        found = command.get_command(context, words.pop(0))
        assert found is not None
        command = found
    command.make_context("lms", words, parent=context)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nonsense"], "No such command 'nonsense'; see `lms --help`"),
        (["load"], "Missing argument 'KEY'; see `lms load --help`"),
        (["server", "start", "--porto", "1"], "see `lms server start --help`"),
        (["server", "start", "--port", "70000"], "70000 is not in the range"),
        (["load", "a", "--gpu", "2"], "'2' is not 0 to 1, 'max' or 'off'"),
        (["load", "a", "--gpu", "all"], "'all' is not 0 to 1, 'max' or 'off'"),
        (["load", "a", "--gpu", "nan"], "'nan' is not 0 to 1, 'max' or 'off'"),
        (["load", "a", "-c", "many"], "'many' is not a valid integer"),
        (["load", "a", "--ttl", "0"], "0 is not in the range"),
        (["unload", "a", "--all"], "say either IDENTIFIER or --all"),
        (["ps", "--host", "ftp://a"], "the scheme 'ftp' is unknown"),
    ],
    ids=str,
)
def test_wrong_usage(lms, words, line):
    """A wrong command line is one line that says what is wrong, and exit code 2."""
    result = lms(*words)

    assert (2, "") == (result.exit_code, result.stdout)
    assert re.fullmatch(r"lms: .+\n", result.stderr)
    assert line in result.stderr


@pytest.fixture
def broken(monkeypatch):
    """Lets `lms version` raise what it is given."""

    def raise_in_version(error):
        def fail(*_):
            raise error

        monkeypatch.setattr(lmstudio.cli.version, "say", fail)

    return raise_in_version


def test_bugs(lms, broken):
    """An error that nobody expected is one line as well, without a traceback."""
    broken(RuntimeError("two\nlines"))
    result = lms("version")

    assert 1 == result.exit_code
    assert (
        "lms: unexpected RuntimeError: two | lines"
        " (`lms --verbose ...` shows where)\n" == result.stderr
    )


def test_verbose(lms, broken):
    """With --verbose the traceback stands above that line."""
    broken(RuntimeError("bug"))
    result = lms("--verbose", "version")

    assert 1 == result.exit_code
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("lms: unexpected RuntimeError")


def test_interrupt(lms, broken):
    """Ctrl-C is one line and exit code 130."""
    broken(KeyboardInterrupt())
    result = lms("version")

    assert (130, "", "lms: interrupted\n") == (
        result.exit_code,
        result.stdout,
        result.stderr,
    )


def test_being_ended_tidies_up(lms, broken, monkeypatch):
    """SIGTERM ends a command through its `finally` blocks, with exit code 143."""
    tidied = threading.Event()

    def ended(*_):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            tidied.set()

    monkeypatch.setattr(lmstudio.cli.version, "say", ended)
    before = signal.getsignal(signal.SIGTERM)
    result = lms("version")

    assert 143 == result.exit_code
    assert tidied.is_set()
    assert before is signal.getsignal(signal.SIGTERM)


def test_closed_pipe():
    """A reader that goes away, such as `head`, causes no words."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "lmstudio.cli.main", "version"]
    with os.fdopen(writer, "wb") as pipe:
        run = subprocess.run(
            command, stdout=pipe, stderr=subprocess.PIPE, cwd=ROOT, check=False
        )

    assert b"" == run.stderr


def test_without_click():
    """Without the extra, one line says what to install."""
    code = "import sys; sys.modules['click'] = None\nimport lmstudio.cli.main\n"
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )

    line = "lms: install what it needs first: pip install 'lmstudio[server]'\n"
    assert (1, "", line) == (run.returncode, run.stdout, run.stderr)


def test_imports_little():
    """The command itself imports no server, no bars and no event loop."""
    code = (
        "import sys, lmstudio.cli.main, lmstudio.cli.load, lmstudio.cli.server\n"
        "print({'rich', 'asyncio', 'starlette', 'lmstudio.server'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
    )

    assert ("set()\n", "") == (run.stdout, run.stderr)
