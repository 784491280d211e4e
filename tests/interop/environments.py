"""Environments of their own for the official clients, made once per clone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[2]
PLACE = ROOT / ".venv"
PYTHON_SDK = "lmstudio==1.5.0"
OPENAI_CLIENT = "openai==3.54.0"
JS_SDK = "@lmstudio/sdk@1.5.0"
#: The client of the README that this package follows.
ALPHA_SDK = "@lmstudio/sdk@0.0.12"
#: Puts the SDK and a page's script into one file; and a part of Node.js that the SDK
#: asks for, as it is for browsers.
BUNDLER = ("esbuild@0.25", "process@0.11")
#: Versions of the SDK for JavaScript whose schemas check our client.
SCHEMAS = ("1.0.1", "1.5.0", "2.0.0")
#: The oldest Node.js that runs the SDK for JavaScript.
OLDEST_NODE = 18


def python() -> Path:
    """The interpreter of an environment with the official Python SDK."""
    return _python_packages("interop-python", PYTHON_SDK)


def openai() -> Path:
    """The interpreter of an environment with OpenAI's own client."""
    return _python_packages("interop-openai", OPENAI_CLIENT)


def javascript() -> tuple[str, Path]:
    """Node.js, and a folder with the official JavaScript SDK.

    Skips the test where there is no Node.js; in CI that is a failure.
    """
    return _node_packages("interop-js", [JS_SDK], {})


def alpha() -> tuple[str, Path]:
    """Node.js, and a folder with the first SDK for JavaScript.

    Skips the test where there is no Node.js; in CI that is a failure.
    """
    return _node_packages("interop-alpha", [ALPHA_SDK], {})


def browser_page(made: Path) -> None:
    """Bundle the script of the test's page with the official JavaScript SDK.

    Skips the test where there is no Node.js; in CI that is a failure.

    Args:
        made: The file to write.
    """
    node, place = _node_packages("interop-browser", [JS_SDK, *BUNDLER], {})
    source = place / "page.mjs"  # there it finds the SDK
    shutil.copyfile(Path(__file__).with_name("page.mjs"), source)
    bundler = place / "node_modules" / "esbuild" / "bin" / "esbuild"
    words = ["--bundle", "--format=esm", "--platform=browser", "--log-level=error"]
    if os.name == "nt":
        _run([node, str(bundler), str(source), *words, f"--outfile={made}"])
    else:  # here npm puts the program itself in the place of its script
        _run([str(bundler), str(source), *words, f"--outfile={made}"])


def chromium() -> str:
    """A browser. Skips the test where there is none; in CI that is a failure."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found is not None:
            return found
    _do_without("chromium is not installed")


def schemas() -> tuple[str, dict[str, Path]]:
    """Node.js, and the folders of the SDK's packages by `SCHEMAS`.

    Skips the test where there is no Node.js; in CI that is a failure.
    """
    named = [f"sdk-{version}@npm:@lmstudio/sdk@{version}" for version in SCHEMAS]
    # The newest one wants a newer part for connecting, which need not be there: only
    # the schemas are used.
    settings = {"overrides": {"@lmstudio/lms-isomorphic": "^0.4.0"}}
    node, place = _node_packages("interop-schemas", named, settings)
    return node, {v: place / "node_modules" / f"sdk-{v}" for v in SCHEMAS}


def _python_packages(folder: str, package: str) -> Path:
    """The interpreter of an environment with a package."""
    place = PLACE / folder
    bin_folder = "Scripts" if os.name == "nt" else "bin"
    interpreter = place / bin_folder / "python"
    made_from = f"{package}, Python {sys.version}, {sys.base_prefix}"
    if not _is_made(place, made_from):
        _run([sys.executable, "-m", "venv", "--clear", str(place)])
        _run([str(interpreter), "-I", "-m", "pip", "install", "-qq", package])
        _stamp(place, made_from)
    return interpreter


def _node_packages(
    folder: str, packages: Sequence[str], settings: dict[str, object]
) -> tuple[str, Path]:
    """Node.js, and a folder with packages."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        _do_without("node and npm are not installed")
    version = _run([node, "--version"]).strip()
    if int(version.lstrip("v").partition(".")[0]) < OLDEST_NODE:
        _do_without(f"node {version} is older than v{OLDEST_NODE}")
    place, made_from = PLACE / folder, " ".join(packages)
    if not _is_made(place, made_from):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        # Without a package.json of its own npm would look for one further up.
        (place / "package.json").write_text(json.dumps(settings))
        words = ["install", "--no-audit", "--no-fund", "--loglevel=error", *packages]
        _run([npm, "--prefix", str(place), *words])
        _stamp(place, made_from)
    return node, place


def _is_made(place: Path, made_from: str) -> bool:
    """Whether an environment was finished, from the same things."""
    stamp = place / "made-from.txt"
    return stamp.is_file() and stamp.read_text("utf-8") == made_from


def _stamp(place: Path, made_from: str) -> None:
    (place / "made-from.txt").write_text(made_from, "utf-8")


def _do_without(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and CI is to run all official clients", pytrace=False)
    pytest.skip(reason)


def _run(command: Sequence[str]) -> str:
    """Run a command to its end; returns what it printed."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)} failed:\n{done.stdout}", pytrace=False)
    return done.stdout
