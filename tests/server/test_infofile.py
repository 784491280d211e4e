"""The info file says where the server is for as long as it runs."""

from __future__ import annotations

import json
import os

import pytest

from lmstudio.server import infofile


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    """A home folder that is empty."""
    monkeypatch.setenv("LMSTUDIO_HOME", str(tmp_path))
    return tmp_path


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
