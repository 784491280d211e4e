"""The log file of a server does not grow without bounds."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Logs and prints lines to its standard error with a bound of 1000 bytes.
WRITER = """
import logging, os, sys
from pathlib import Path
from lmstudio.server.logfile import LogFile
logging.basicConfig(level=logging.INFO, handlers=[LogFile(Path(sys.argv[1]), 1000)])
for number in range(100):
    logging.info("line %d", number)
print("printed", flush=True)
os.write(2, b"from a child\\n")
sys.exit("the end")
"""


def write(path: Path, code: str = WRITER) -> None:
    with path.open("ab") as file:
        subprocess.run(
            [sys.executable, "-c", code, str(path)],
            stdout=file,
            stderr=file,
            cwd=ROOT,
            check=False,
        )


@pytest.mark.slow
def test_a_new_file_begins(tmp_path):
    """When the file is full the next one begins; one older one is kept."""
    path = tmp_path / "server.log"
    write(path)
    now, before = path.read_text(), (tmp_path / "server.log.1").read_text()

    assert {"server.log", "server.log.1"} == {*os.listdir(tmp_path)}
    assert len(now) < 1100 and 1000 <= len(before) < 1100
    lines = [int(word) for word in (before + now).split() if word.isdigit()]
    assert list(range(lines[0], 100)) == lines


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="modes of files")
def test_only_the_owner_reads_it(tmp_path):
    """The log, and the one before, can be read by nobody else."""
    path = tmp_path / "server.log"
    write(path)

    modes = [stat.S_IMODE((tmp_path / n).stat().st_mode) for n in os.listdir(tmp_path)]
    assert [0o600, 0o600] == modes


@pytest.mark.slow
def test_what_is_printed_goes_along(tmp_path):
    """What is printed later, also by children, is in the new file."""
    path = tmp_path / "server.log"
    write(path)

    assert path.read_text().endswith("printed\nfrom a child\nthe end\n")


@pytest.mark.slow
def test_a_file_that_is_gone(tmp_path):
    """A log whose file was removed can't be renewed, and harms nothing."""
    path = tmp_path / "server.log"
    code = WRITER.replace("for number", "os.unlink(sys.argv[1])\nfor number")
    write(path, code)

    assert [] == os.listdir(tmp_path)
