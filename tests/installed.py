"""Run by `make wheel` where nothing but the wheel is installed: is it all there?"""

from __future__ import annotations

import importlib.metadata
import pkgutil
import sys
from pathlib import Path

import lmstudio

FOLDER = Path(lmstudio.__file__).parent


def main() -> None:
    """Check the installed package; a failed assertion is the report."""
    version = importlib.metadata.version("lmstudio")
    assert lmstudio.__version__ == version
    assert FOLDER.is_relative_to(sys.prefix), f"{FOLDER} is not in {sys.prefix}"
    assert (FOLDER / "py.typed").is_file()
    for name in lmstudio.__all__:
        getattr(lmstudio, name)
    packages = {m.name for m in pkgutil.iter_modules([str(FOLDER)]) if m.ispkg}
    assert {"cli", "protocol", "server", "testing", "wire"} <= packages, packages
    print(
        f"lmstudio {version} works from its wheel, with {len(lmstudio.__all__)} names"
    )


if __name__ == "__main__":
    main()
