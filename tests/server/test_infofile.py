"""The info file says where the server is for as long as it runs."""

from __future__ import annotations

import json
import os
import socket

import pytest

from lmstudio.server import infofile
from lmstudio.testing import FakeServer


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    """A home folder that is empty."""
    monkeypatch.setenv("LMSTUDIO_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def closed_port():
    """A port on which nobody listens; it stays ours while the test runs."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_written_and_removed(home):
    """The file holds port, host and process, and nothing else is left beside it."""
    infofile.write("127.0.0.1", 1234, cors=True)
    expected = {"port": 1234, "host": "127.0.0.1", "pid": os.getpid(), "cors": True}
    assert expected == infofile.read()
    file = home / ".internal" / "http-server.json"
    assert expected == json.loads(file.read_text())
    assert [file] == list(file.parent.iterdir())
    infofile.remove()
    assert [] == list(file.parent.iterdir())
    infofile.remove()


def test_another_server_s_file_stays(home):
    """A file that another process has written since is not removed."""
    infofile.write("127.0.0.1", 1234, cors=True)
    info = {"port": 1, "host": "127.0.0.1", "pid": os.getpid() + 1}
    infofile.info_file().write_text(json.dumps(info))
    infofile.remove()
    assert info == infofile.read()


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff"])
def test_an_unusable_file_is_none(content):
    """What can't be read counts as no file."""
    assert infofile.read() is None
    infofile.info_file().parent.mkdir()
    infofile.info_file().write_bytes(content)
    assert infofile.read() is None


def test_a_folder_that_cannot_be_written(home):
    """Trouble is an error, and no draft is left."""
    infofile.info_file().mkdir(parents=True)
    with pytest.raises(OSError):
        infofile.write("127.0.0.1", 1234, cors=True)
    assert [infofile.info_file()] == list(infofile.info_file().parent.iterdir())


def other_server(port, **fields):
    """Write an info file of another process."""
    info = {"port": port, "host": "127.0.0.1", "pid": os.getpid() + 1, **fields}
    infofile.info_file().parent.mkdir(exist_ok=True)
    infofile.info_file().write_text(json.dumps(info))
    return info


def test_a_server_that_runs_comes_back():
    """The file of a server that answers is there again when the next one has ended."""
    with FakeServer() as first, FakeServer() as second:
        info = other_server(second.port, before=other_server(first.port))
        infofile.write("127.0.0.1", 1, cors=False)
        assert (1, info) == (infofile.read()["port"], infofile.read()["before"])
        second.close()
        infofile.remove()
        assert info["before"] == infofile.read()


@pytest.mark.parametrize("before", [{"port": "x"}, [], {"port": 7, "host": 7}])
def test_a_server_that_is_gone_does_not_come_back(closed_port, before):
    """Neither does one that was on the same port, nor what can't be read."""
    other_server(closed_port, before=before)
    infofile.write("127.0.0.1", 1, cors=False)
    assert "before" not in infofile.read()
    with FakeServer() as first:
        other_server(first.port)
        infofile.write("127.0.0.1", first.port, cors=False)
        assert "before" not in infofile.read()


def test_a_record(home):
    """A record is of one server alone, and goes with it."""
    record = home / "record.json"
    infofile.write("127.0.0.1", 1, cors=False, record=record)
    other = other_server(2)
    infofile.remove(record)
    assert (None, other) == (infofile.read(record), infofile.read())
