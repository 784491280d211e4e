"""The command line as a whole: its commands, its help, and how it fails."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from unittest.mock import Mock

import click
import pytest

import lmstudio.cli.version
from gguf_files import write_gguf
from lmstudio.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guides" / "lms.md"
#: The words of every command.
GROUPS = {
    "server": ("start", "stop", "status"),
    "daemon": ("up", "down", "status"),
    "log": ("stream",),
}
ALL = [[name] for name in COMMANDS if name not in GROUPS]
ALL += [[group, name] for group, names in GROUPS.items() for name in names]


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_help(lms, words):
    """Every command explains itself with an example."""
    result = lms(*words, "--help")

    assert (0, "") == (result.exit_code, result.stderr)
    assert f"lms {' '.join(words)}" in result.stdout.split("Example:")[1]


@pytest.mark.parametrize("group", GROUPS)
def test_help_of_a_group(lms, group):
    """`lms server`, `lms daemon` and `lms log` list their commands."""
    result = lms(group)

    assert (0, "") == (result.exit_code, result.stderr)
    listed = re.findall(r"^  (\w+) ", result.stdout.split("Commands:")[1], re.M)
    assert sorted(GROUPS[group]) == sorted(listed)


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_hidden_options(lms, words):
    """Every command takes the levels of saying; the help does not show them."""
    result = lms(*words, "--log-level", "warn", "--help")

    assert 0 == result.exit_code
    assert "--log-level" not in result.stdout


def test_levels(lms):
    """--quiet and --log-level leave out what is no result, --json stays."""
    assert "" == lms("version", "--quiet").stdout
    assert "" == lms("version", "--log-level", "warn").stdout
    assert "" == lms("--quiet", "version").stdout
    assert lms("version", "--log-level", "info").stdout
    assert lms("version", "--quiet", "--json").stdout

    result = lms("version", "--quiet", "--verbose")
    assert (2, "") == (result.exit_code, result.stdout)
    assert "say one of --log-level, --verbose and --quiet" in result.stderr


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)], ids=str)
def test_help_of_all(lms, words):
    """Without a command, the commands are listed."""
    result = lms(*words)

    assert (0, "") == (result.exit_code, result.stderr)
    listed = re.findall(r"^  (\w+) ", result.stdout.split("Commands:")[1], re.M)
    assert list(COMMANDS) == listed


def guide_lines():
    """Every line of the guide that is a command of ours."""
    return re.findall(r"^lms (?!--)(.+)$", GUIDE.read_text(), re.M)


@pytest.mark.parametrize("line", guide_lines())
def test_commands_of_the_guide(line):
    """What the guide says to type is a command line that we understand."""
    command: click.Command = main
    context = None
    words = shlex.split(line.partition(" < ")[0].partition(" > ")[0], comments=True)
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
        (["load", "--exact"], "--exact needs KEY"),
        (["chat"], "no prompt: say --prompt, or pipe a text in"),
        (["log", "stream", "-s", "runtime", "--stats"], "are for --source model"),
        (["log", "stream", "--filter", "all"], "'all' is not input, output"),
        (["import", "a.gguf", "-c", "-l"], "say one of --copy, --hard-link"),
        (["import", "a.gguf", "--user-repo", "../a"], "'../a' is not user/repo"),
        (["import", "a.gguf", "--user-repo", "a/b/c"], "'a/b/c' is not user/repo"),
        (["completion", "csh"], "'csh' is not one of 'bash', 'zsh', 'fish'"),
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("version",),
        ("--help",),
        ("--quiet", "ls", "--json"),
        ("server", "status"),
        ("completion", "bash"),
    ],
    ids=" ".join,
)
def test_closed_pipe(words):
    """A reader that goes away, such as `head`, causes no words, and has a code."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "lmstudio.cli.main", *words]
    with os.fdopen(writer, "wb") as pipe:
        run = subprocess.run(
            command, stdout=pipe, stderr=subprocess.PIPE, cwd=ROOT, check=False
        )

    assert (141, b"") == (run.returncode, run.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("words", [("version",), ("--quiet", "ls")], ids=" ".join)
def test_no_output_at_all(words):
    """Without a standard output there is nothing to print, and no reason to fail."""
    command = [sys.executable, "-m", "lmstudio.cli.main", *words]
    run = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command],
        stderr=subprocess.PIPE,
        cwd=ROOT,
        check=False,
    )
    assert (0, b"") == (run.returncode, run.stderr)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"HOME": None, "LMSTUDIO_HOME": None},
        {"HOME": "", "LMSTUDIO_HOME": None},
        {"LC_ALL": "C"},
        {"LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii:strict"},
        {"COLUMNS": "40"},
        {"TERM": None},
        {"TERM": "dumb", "COLUMNS": "1"},
    ],
    ids=str,
)
def test_odd_environments(tmp_path, changes):
    """Without a home, without UTF-8, on a narrow terminal: results, no traceback."""
    write_gguf(tmp_path / "models" / "pub" / "größe" / "größe-Q4_0.gguf", name="größe")
    env = {**os.environ, "LMSTUDIO_HOME": str(tmp_path), **changes}
    env = {name: value for name, value in env.items() if value is not None}
    for words in (("load", "--help"), ("--quiet", "ls")):
        run = subprocess.run(
            [sys.executable, "-m", "lmstudio.cli.main", *words],
            capture_output=True,
            cwd=ROOT,
            env=env,
        )
        assert (0, b"") == (run.returncode, run.stderr), words
        is_ours = "LMSTUDIO_HOME" in env
        assert not is_ours or run.stdout


@pytest.mark.slow
def test_a_home_that_can_only_be_read(tmp_path):
    """What only reads works; what writes says what is wrong in one line."""
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o500)
    if os.access(home, os.W_OK):  # the superuser
        home = Path("/proc/lmstudio")
        if not home.parent.exists():
            pytest.skip("this user may write everywhere")
    env = {**os.environ, "LMSTUDIO_HOME": str(home)}
    codes = {("ls",): 0, ("status",): 0, ("server", "start", "--port", "0"): 1}
    for words, code in codes.items():
        run = subprocess.run(
            [sys.executable, "-m", "lmstudio.cli.main", "--quiet", *words],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=env,
        )
        assert code == run.returncode, run.stderr
        assert len(run.stderr.splitlines()) == code
        assert "Traceback" not in run.stderr


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_ctrl_c(lms, words, monkeypatch):
    """Ctrl-C in any command is one line and code 130."""
    command = main
    for word in words:
        command = command.get_command(click.Context(main), word)
    monkeypatch.setattr(command, "invoke", Mock(side_effect=KeyboardInterrupt))
    needed = [p for p in command.params if p.required]
    values = [getattr(p.type, "choices", [__file__])[0] for p in needed]
    result = lms(*words, *values)
    assert (130, "", "lms: interrupted\n") == (
        result.exit_code,
        result.stdout,
        result.stderr,
    )


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize(
    "words", [["ls"], ["ls", "--json"], ["--help"], ["server", "status"]], ids=str
)
def test_output_that_can_not_be_written(tmp_path, words):
    """A full disk under the output is one line and code 1."""
    home = {**os.environ, "LMSTUDIO_HOME": str(tmp_path)}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "lmstudio.cli.main", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=home,
        )
    assert 1 == done.returncode
    said = done.stderr.splitlines()[-1]
    assert "lms: what it prints can't be written: No space left on device" == said
    assert "Traceback" not in done.stderr
