"""Folders that client and server share with the LM Studio application."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """The application's home folder, which need not exist.

    ``LMSTUDIO_HOME`` names it; else the application's pointer file does, else it is
    ``~/.cache/lm-studio`` where that exists, else ``~/.lmstudio``. Nothing is
    remembered between calls.

    Source: docs/wire/discovery.md, "Home folder".
    """
    named = os.environ.get("LMSTUDIO_HOME")
    if named:
        return Path(named).expanduser().absolute()
    user = Path("~").expanduser()
    pointed = _pointed_to(user / ".lmstudio-home-pointer")
    if pointed is not None:
        return pointed
    old = user / ".cache" / "lm-studio"
    return old if old.is_dir() else user / ".lmstudio"


def models() -> Path:
    """Where models are: ``<publisher>/<repo>/<file>.gguf`` below it."""
    return home() / "models"


def presets() -> Path:
    """Where the presets of the application are."""
    return home() / "config-presets"


def internal() -> Path:
    """Where a server keeps what users need not see."""
    return home() / ".internal"


def _pointed_to(pointer: Path) -> Path | None:
    """The folder in the pointer's first line; None if there is no usable one."""
    try:
        with pointer.open(encoding="utf-8") as file:
            line = file.readline(4096).strip()
        folder = Path(line).expanduser()
    except (OSError, ValueError, RuntimeError):
        # No file, not UTF-8, or `~somebody` that nobody is.
        return None
    return folder if folder.is_absolute() and "\0" not in line else None
