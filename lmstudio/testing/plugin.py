"""Fixtures, a marker and an option for pytest, which finds them by itself."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# Nothing else at the top: pytest imports this file in every project.
if TYPE_CHECKING:
    from ..client import LMStudioClient
    from .fake import FakeServer
    from .recorder import Cassette

_MODES = ("none", "once", "new", "all")
#: What is looked at when the code of a test has passed.
_checks: pytest.StashKey[list[Callable[[], None]]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--lmstudio-record``."""
    parser.getgroup("lmstudio").addoption(
        "--lmstudio-record",
        choices=_MODES,
        default=None,
        help="what cassettes do: none only replays; once records those that are"
        " missing; new records calls that are missing; all records everything again."
        " By default none when CI is set, else what the marker says, else once",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "lmstudio_cassette(mode=None, path=None, server=None, timing=False):"
        " how the fixture lmstudio_cassette records and replays",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail a test that has passed although something was asked for in vain."""
    result = yield
    for check in item.stash.get(_checks, []):
        check()
    return result


@pytest.fixture
def lmstudio_server(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeServer]:
    """A fake server with the models ``any`` (loaded) and ``embed``.

    Clients without an address find it. The test fails when something is asked for
    that no scripted answer is for.
    """
    from .fake import FakeServer

    server = FakeServer(["any", "embed"], loaded=["any"])
    try:
        _check_later(request, server.assert_all_matched)
        with _in_charge(server.host, monkeypatch):
            yield server
    finally:
        server.close()


@pytest.fixture
def lmstudio_cassette(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cassette]:
    """A recording of a server, in ``cassettes/`` beside the test's file.

    Clients without an address find it. The test fails when the recording and the
    program do not fit each other. What a failed test records is thrown away.
    """
    from .recorder import Cassette

    marker = request.node.get_closest_marker("lmstudio_cassette")
    options = dict(marker.kwargs) if marker is not None else {}
    folder = request.path.parent
    path = options.pop("path", None) or _default_path(request)
    in_ci = "none" if os.environ.get("CI") else None
    asked = request.config.getoption("--lmstudio-record")
    mode: Any = asked or in_ci or options.get("mode")
    options.pop("mode", None)
    cassette = Cassette(folder / path, mode, **options)
    passed = False

    def check() -> None:
        nonlocal passed
        cassette.assert_all_used()
        passed = True

    try:
        _check_later(request, check)
        with _in_charge(cassette.host, monkeypatch):
            yield cassette
    finally:
        cassette.close(save=passed)


@pytest.fixture
def lmstudio_client(request: pytest.FixtureRequest) -> Iterator[LMStudioClient]:
    """A client of the test's cassette if it has one, else of its fake server."""
    from ..client import LMStudioClient

    has_cassette = "lmstudio_cassette" in request.fixturenames
    name = "lmstudio_cassette" if has_cassette else "lmstudio_server"
    with LMStudioClient(request.getfixturevalue(name).host) as client:
        yield client


@pytest.fixture
def lmstudio_forbid_real_models() -> Iterator[None]:
    """Clients reach fake servers and cassettes only, as `forbid_real_models` says."""
    from .guard import forbid_real_models

    with forbid_real_models():
        yield


def _check_later(request: pytest.FixtureRequest, check: Callable[[], None]) -> None:
    request.node.stash.setdefault(_checks, []).append(check)


def _default_path(request: pytest.FixtureRequest) -> Path:
    names = [request.cls.__name__] if request.cls is not None else []
    name = re.sub(r"[^\w.=-]+", "-", "-".join([*names, request.node.name])).strip("-")
    return Path("cassettes", request.path.stem, f"{name}.jsonl")


@contextlib.contextmanager
def _in_charge(host: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let clients without an address, the shared one included, find a server."""
    _forget_default_client()
    monkeypatch.setenv("LMSTUDIO_HOST", host)
    try:
        yield
    finally:
        _forget_default_client()


def _forget_default_client() -> None:
    # By name: who has not imported it has no shared client, and is not made to.
    default = sys.modules.get("lmstudio.default")
    if default is not None:
        default.close_default_client()
