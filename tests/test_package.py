"""The package as it is installed: what it needs, imports and carries."""

from __future__ import annotations

import configparser
import fnmatch
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lmstudio
from lmstudio import _version

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lmstudio"

#: Modules that importing lmstudio must not import: each costs time, and most are not
#: there in a base install.
UNWANTED = (
    "asyncio",
    "cattrs",
    "click",
    "jinja2",
    "jsonschema",
    "lmstudio.cli",
    "lmstudio.server",
    "lmstudio.testing",
    "rich",
    "starlette",
    "uvicorn",
    "websockets",
    "xllamacpp",
)

#: Imports argv[2] from the folder in argv[1] and prints what is then imported.
PROBE = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
before = set(sys.modules)
importlib.import_module(sys.argv[2])
print(json.dumps(sorted(set(sys.modules) - before)))
"""


@pytest.fixture(scope="module")
def settings():
    """setup.cfg, read."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg")
    return parser


def imported_with(name):
    command = [sys.executable, "-c", PROBE, str(ROOT), name]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def imported():
    """The modules that a fresh interpreter imports together with lmstudio."""
    return imported_with("lmstudio")


@pytest.fixture(scope="module")
def imported_with_client():
    """The modules that come with the client itself."""
    return imported_with("lmstudio.client")


def names_in(requirements: str) -> set[str]:
    """The names in a list of requirements, one on a line."""
    lines = [line for line in requirements.splitlines() if line.strip()]
    return {re.split(r"[^\w.-]", line.strip())[0].lower() for line in lines}


@pytest.mark.slow
@pytest.mark.parametrize("name", UNWANTED)
def test_import_stays_small(imported, imported_with_client, name):
    """Neither an event loop nor what extras bring is imported, nor the converter."""
    assert "lmstudio" in imported
    assert name not in imported
    assert "lmstudio.client" in imported_with_client
    assert name not in imported_with_client


@pytest.mark.slow
def test_import_is_only_a_table(imported):
    """Importing lmstudio imports its version, and what must be there from the start."""
    ours = [name for name in imported if name.split(".")[0] == "lmstudio"]
    assert ["lmstudio", "lmstudio._version", "lmstudio.forks"] == ours


def test_modules_are_attributes():
    """A module of the package is there as an attribute, as after an import of it."""
    assert "lmstudio.address" == lmstudio.address.__name__
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        lmstudio.nonsense  # noqa: B018


def test_base_install_needs_four_packages(settings):
    """The base install is four libraries, and no fifth gets in unnoticed."""
    expected = {"websocket-client", "attrs", "cattrs", "jsonschema"}
    assert expected == names_in(settings["options"]["install_requires"])


def test_dev_has_all_extras(settings):
    """The extra for developers brings the others along."""
    extras = settings["options.extras_require"]
    assert {"server", "testing", "dev"} == set(extras)
    assert "lmstudio[server,testing]" in extras["dev"].split()


def test_version_stands_in_one_place(settings):
    """setup.cfg reads the version that the package shows, and the changelog has it."""
    assert "attr: lmstudio._version.__version__" == settings["metadata"]["version"]
    assert _version.__version__ == lmstudio.__version__
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert _version.__version__ == newest[1]


def test_data_files_are_packaged(settings):
    """Every file of the package that is not Python is named in setup.cfg."""
    patterns = settings["options.package_data"]["lmstudio"].split()
    files = [p for p in PACKAGE.rglob("*") if p.is_file() and p.suffix != ".py"]
    names = {
        path.relative_to(PACKAGE).as_posix()
        for path in files
        if "__pycache__" not in path.parts
    }
    assert "py.typed" in names
    packaged = {n for n in names if any(fnmatch.fnmatchcase(n, p) for p in patterns)}
    assert names == packaged


def test_every_folder_is_a_package():
    """A folder without ``__init__.py`` would be missing in the wheel."""
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert [] == sorted(f for f in folders if not (f / "__init__.py").is_file())


def test_public_names_exist():
    """Each name in ``__all__`` is there, and stands there once."""
    assert len(lmstudio.__all__) == len(set(lmstudio.__all__))
    assert [] == [name for name in lmstudio.__all__ if not hasattr(lmstudio, name)]
