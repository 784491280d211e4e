"""Runs `lms` in this process, with a home folder of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from lmstudio.cli.main import main
from lmstudio.testing import FakeServer

Lms = Callable[..., Result]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty home folder, and no server that the environment names."""
    folder = tmp_path / "home"
    monkeypatch.setenv("LMSTUDIO_HOME", str(folder))
    for name in ("LMSTUDIO_HOST", "LMS_API_SERVER_INFO_PATH"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def lms() -> Lms:
    """Runs one command line; takes its words."""

    def run(*words: str) -> Result:
        return CliRunner().invoke(main, words, prog_name="lms")

    return run


@pytest.fixture
def server(monkeypatch):
    """A server with three models, which every command finds."""
    with FakeServer(["smol", "acme/big", "text-embedding-a"]) as fake:
        monkeypatch.setenv("LMSTUDIO_HOST", fake.host)
        yield fake


@pytest.fixture
def nobody(monkeypatch):
    """No server anywhere: the search finds none, whatever runs on this machine."""
    monkeypatch.setattr("lmstudio.discovery.probe", lambda *_: {})


@pytest.fixture
def closed_port():
    """A port on which nobody listens; it stays ours while the test runs."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
def other_program():
    """A port on which something listens that hangs up at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    listener.accept()[0].close()
                except OSError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
