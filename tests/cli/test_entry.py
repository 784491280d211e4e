"""Where `lms` begins: Ctrl-C at any moment is one line and code 130."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Sends itself Ctrl-C when a module is about to be imported, and runs `lms version`.
HIT = """
import os, signal, sys
module = sys.argv[1]
class Hit:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Hit())
from lmstudio.cli.entry import main
sys.argv[1:] = ["version"]
main()
"""


def run(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    [
        "lmstudio.cli.main",
        "click",
        "click.core",
        "lmstudio.cli.failures",
        "lmstudio.cli.version",
    ],
)
def test_ctrl_c_while_it_starts(module):
    """Ctrl-C in the middle of an import is one line without a traceback."""
    result = run(HIT, module)

    assert (130, "", "lms: interrupted\n") == (
        result.returncode,
        result.stdout,
        result.stderr,
    )


@pytest.mark.slow
def test_ctrl_c_at_the_end():
    """Ctrl-C when the command has ended is no traceback either."""
    code = (
        "import atexit, os, signal, sys\n"
        "def end():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    for _ in range(1000):\n"
        "        pass  # where Python looks for signals\n"
        "atexit.register(end)\n"
        "from lmstudio.cli.entry import main\n"
        "sys.argv[1:] = ['version', '--json']\n"
        "main()\n"
    )
    result = run(code)

    assert (130, "lms: interrupted\n") == (result.returncode, result.stderr)
    assert result.stdout.startswith("{")


@pytest.mark.slow
def test_ignored_ctrl_c():
    """Where Ctrl-C is ignored, as nohup has it, it stays so."""
    command = [sys.executable, "-c", HIT, "click"]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    finally:
        signal.signal(signal.SIGINT, before)

    assert (0, "") == (result.returncode, result.stderr)


@pytest.mark.slow
def test_exit_codes():
    """The exit code is that of the command."""
    command = [sys.executable, "-m", "lmstudio.cli.entry", "nonsense"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)

    assert (2, "") == (result.returncode, result.stdout)
    assert "lms: No such command 'nonsense'; see `lms --help`\n" == result.stderr


@pytest.mark.slow
def test_starts_with_little():
    """`lms version` imports neither the client nor what only few commands need."""
    code = (
        "import sys\n"
        "from lmstudio.cli.entry import main\n"
        "sys.argv[1:] = ['version']\n"
        "try:\n    main()\n"
        "except SystemExit:\n"
        "    print({'attrs', 'logging', 'rich', 'lmstudio.client',"
        " 'asyncio'} & set(sys.modules))\n"
    )
    assert run(code).stdout.endswith("\nset()\n")
