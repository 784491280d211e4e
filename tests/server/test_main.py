"""``python -m lmstudio.server`` serves until it is told to end, and says where."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request

import pytest

from lmstudio.server.ports import listen
from rawclient import raw_client

pytestmark = pytest.mark.skipif(os.name != "posix", reason="ends by POSIX signals")


@contextlib.contextmanager
def start(home, *arguments):
    """Run a server on a free port; it ends with the test in any case."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "lmstudio.server", *arguments],
        env=os.environ | {"LMSTUDIO_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        except BaseException:
            process.kill()  # leaving Popen would wait for it
            raise


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_by_a_signal(tmp_path, number):
    """It says where it is on a line and in a file, and ends with code 0."""
    with start(tmp_path, "--port", "0") as process:
        line = process.stdout.readline()
        assert line.startswith("serving on ws://127.0.0.1:")
        url = line.split()[-1]
        file = tmp_path / ".internal" / "http-server.json"
        info = json.loads(file.read_text())
        port = int(url.rpartition(":")[2])
        rest = {"host": "127.0.0.1", "pid": process.pid, "cors": False}
        assert {"port": port, **rest} == info
        address = url.replace("ws:", "http:") + "/lmstudio-greeting"
        with urllib.request.urlopen(address, timeout=5) as answer:
            assert json.load(answer)["lmstudio"]
        with raw_client(url) as client:
            assert [] == client.call("listLoaded")["result"]
            process.send_signal(number)
            _, errors = process.communicate(timeout=5)
    assert 0 == process.returncode, errors
    assert "Traceback" not in errors
    assert not file.exists()


@pytest.mark.slow
def test_it_ends_when_a_client_asks(tmp_path):
    """``requestShutdown`` is answered, and then it ends."""
    with start(tmp_path, "--port", "0", "--cors") as process:
        url = process.stdout.readline().split()[-1]
        with raw_client(url, "system", origin="https://example.com") as client:
            assert {"type": "rpcResult", "callId": 1} == client.call("requestShutdown")
        _, errors = process.communicate(timeout=5)
    assert 0 == process.returncode, errors


@pytest.mark.slow
def test_a_taken_port(tmp_path):
    """It says so on one line and ends with code 1."""
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with start(tmp_path, "--port", str(port)) as process:
            output, errors = process.communicate(timeout=10)
    assert (1, "") == (process.returncode, output)
    assert errors.startswith(f"error: can't serve on 127.0.0.1:{port}: ")
    assert 1 == errors.count("\n")


@pytest.mark.slow
def test_a_home_that_cannot_be_written(tmp_path):
    """Without the info file it serves all the same, and warns of that."""
    home = tmp_path / "home"
    home.write_text("not a folder")
    with start(home, "--port", "0", "--bind", "0.0.0.0") as process:
        url = process.stdout.readline().split()[-1]
        with raw_client(url, "system") as client:
            assert "rpcError" == client.call("requestShutdown")["type"]
            process.terminate()
            _, errors = process.communicate(timeout=5)
    assert 0 == process.returncode, errors
    assert "everyone who reaches" in errors
    assert "won't find it" in errors
