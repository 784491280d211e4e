"""`lms completion` prints what a shell needs to complete our commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from lmstudio.cli.main import main

ROOT = Path(__file__).parents[2]
#: Calls the completion of bash as pressing the tab key would.
PRESS_TAB = """
source /dev/stdin
COMP_WORDS=(%s); COMP_CWORD=%d
_lms_completion lms
printf '%%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts(lms, shell):
    """Each shell gets a script of its own that asks `lms` for words."""
    result = lms("completion", shell)

    assert (0, "") == (result.exit_code, result.stderr)
    assert "_LMS_COMPLETE" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_accept_them(lms, shell, tmp_path):
    """The shell itself finds no mistake in its script."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / "script"
    script.write_text(lms("completion", shell).stdout)
    run = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True)

    assert (0, "") == (run.returncode, run.stderr)


@pytest.mark.parametrize(
    ("words", "expected"),
    [("lms un", ["unload"]), ("lms server sta", ["start", "status"])],
)
def test_words(words, expected):
    """What is completed are the names of commands."""
    environment = {
        **os.environ,
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
        "_LMS_COMPLETE": "bash_complete",
    }
    run = CliRunner().invoke(main, [], prog_name="lms", env=environment)

    assert expected == [line.split(",")[1] for line in run.stdout.splitlines()]


@pytest.mark.slow
def test_in_bash(lms, tmp_path):
    """In bash the tab key completes a command."""
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    script = PRESS_TAB % ("lms vers", 1)
    command = tmp_path / "lms"
    code = f"#!{sys.executable}\nfrom lmstudio.cli.entry import main\nmain()\n"
    command.write_text(code)
    command.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    run = subprocess.run(
        ["bash", "-c", script],
        input=lms("completion", "bash").stdout,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
    )

    assert "version\n" == run.stdout
