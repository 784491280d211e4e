"""Writes the reference, as web pages, from the docstrings: ``make docs``.

Usage: ``python docs/make_reference.py FOLDER``.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path

import pdoc
import pdoc.render

#: What users import.
MODULES = ("lmstudio", "lmstudio.server", "lmstudio.testing")


def write(folder: Path) -> list[Path]:
    """Write the pages of `MODULES` into a folder, made if it is missing.

    Returns:
        The pages.

    Raises:
        UserWarning: A public name has no docstring's page, or an annotation can't be
            resolved.
    """
    for module in map(importlib.import_module, MODULES):
        for name in module.__all__:
            # Names are imported when they are asked for; what was never asked for
            # would be left out.
            vars(module)[name] = getattr(module, name)
    pdoc.render.configure(docformat="google", show_source=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        pdoc.pdoc(*MODULES, output_directory=folder)
    return sorted(folder.rglob("*.html"))


if __name__ == "__main__":
    for page in write(Path(sys.argv[1])):
        print(page)
