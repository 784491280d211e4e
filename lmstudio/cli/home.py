"""The home folder: whether it can be used."""

from __future__ import annotations

import os

from .failures import Failure


def check_home() -> None:
    """Refuse a home folder that is none, or that this user may not read.

    Raises:
        Failure: With the folder, what is wrong, and what helps.
    """
    from lmstudio import paths

    try:
        home = paths.home()
    except RuntimeError as exc:  # `~somebody` that nobody is
        raise unusable(os.environ.get("LMSTUDIO_HOME", "~"), str(exc)) from None
    there = next(f for f in (home, *home.parents) if os.path.exists(f))
    if not os.path.isdir(there):
        raise unusable(home, f"{there} is no folder")
    if not os.access(there, os.X_OK | (os.R_OK if there == home else 0)):
        raise unusable(home, f"{there} may not be read")


def unusable(home: object, problem: str) -> Failure:
    """The failure that says so of a home folder."""
    hint = "set LMSTUDIO_HOME to a folder that you can write to"
    return Failure(f"the home folder {home} can't be used: {problem}; {hint}")
