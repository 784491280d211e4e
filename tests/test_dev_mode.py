"""The tests run in Python's development mode, with warnings as errors."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[1] / "Makefile"


def test_make_says_so():
    """Every command of make that runs tests does, but for those of other clients."""
    lines = MAKEFILE.read_text().splitlines()
    commands = [line for line in lines if "-m pytest" in line]
    ours = [line for line in commands if "pytest tests/interop" not in line]
    assert 4 == len(ours)
    assert [] == [line for line in ours if not line.startswith("\t@$(DEV) ")]
    mode = "LMSTUDIO_TEST_DEV=1 PYTHONDEVMODE=1 PYTHONWARNINGS=error"
    assert f"DEV = {mode}" in lines


@pytest.mark.skipif(
    "LMSTUDIO_TEST_DEV" not in os.environ,
    reason="started by hand, without the development mode; make asks for it",
)
def test_this_process_has_it():
    """Also where it is a worker of pytest-xdist; what it starts decides for itself."""
    assert sys.flags.dev_mode
    assert "error" in sys.warnoptions
    assert not {"PYTHONDEVMODE", "PYTHONWARNINGS"} & os.environ.keys()
