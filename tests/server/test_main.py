"""``python -m lmstudio.server`` serves until it is told to end, and says where."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest

import lmstudio
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
    where = ("--port", "0", "--bind", "0.0.0.0", "--no-api-token")
    with start(home, *where) as process:
        url = process.stdout.readline().split()[-1]
        with raw_client(url, "system") as client:
            assert "rpcError" == client.call("requestShutdown")["type"]
            process.terminate()
            _, errors = process.communicate(timeout=5)
    assert 0 == process.returncode, errors
    assert "everyone who reaches" in errors
    assert "won't find it" in errors


@pytest.mark.slow
def test_open_to_the_network_it_asks_for_a_token(tmp_path):
    """Where others reach it a token is made up, kept to its owner, and not printed."""
    with start(tmp_path, "--port", "0", "--bind", "0.0.0.0") as process:
        url = process.stdout.readline().split()[-1]
        file = tmp_path / ".internal" / "api-tokens"
        token = file.read_text().strip()
        if os.name == "posix":
            assert 0o600 == file.stat().st_mode & 0o777
        with (
            pytest.raises(lmstudio.LMStudioAuthenticationError, match="API tokens"),
            lmstudio.LMStudioClient(url) as client,
        ):
            client.llm.list_loaded()
        with lmstudio.LMStudioClient(url, api_token=token) as client:
            assert [] == client.llm.list_loaded()
        process.terminate()
        output, errors = process.communicate(timeout=5)
    assert 0 == process.returncode, errors
    assert str(file) in errors
    assert token.rpartition(":")[2] not in output + errors


@pytest.mark.slow
def test_a_token_of_another_form(tmp_path):
    """A token that can't be one is an error before anything starts, not shown."""
    with start(tmp_path, "--port", "0", "--api-token", "hunter2") as process:
        output, errors = process.communicate(timeout=10)
    assert (1, "") == (process.returncode, output)
    assert errors.startswith("error: an API token has the form sk-lm-")
    assert "hunter2" not in errors


@pytest.mark.slow
def test_the_log_says_where_the_token_comes_from(tmp_path):
    """It names the variable that holds the token, and not a file, nor the token."""
    token = "sk-lm-abcdefgh:abcdefghijklmnopqrst"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMSTUDIO_SERVER_API_TOKEN", token)
        with start(tmp_path, "--port", "0") as process:
            process.stdout.readline()
            process.terminate()
            _, errors = process.communicate(timeout=5)
    said = (
        "clients need an API token: the one of the variable LMSTUDIO_SERVER_API_TOKEN"
    )
    assert said in errors
    assert "api-tokens" not in errors and token not in errors


@pytest.mark.slow
def test_verbose(tmp_path):
    """Each request is one line with who, what, outcome and time; no contents."""
    with start(tmp_path, "--port", "0", "--verbose") as process:
        url = process.stdout.readline().split()[-1]
        with raw_client(url, "embedding") as client:
            assert [] == client.call("listLoaded")["result"]
            client.call("unloadModel", {"identifier": "secret words"})
        address = url.replace("ws:", "http:") + "/v1/models?secret"
        with urllib.request.urlopen(address, timeout=5) as answer:
            answer.read()
        process.terminate()
        _, errors = process.communicate(timeout=5)
    lines = [line for line in errors.splitlines() if "lmstudio.server.access" in line]
    said = [re.sub(r"\d+ ms$", "N ms", line.partition("access: ")[2]) for line in lines]
    said = [re.sub(r"^client \S+:", "client X:", line) for line in said]
    assert [
        "client X: embedding/listLoaded: done, N ms",
        "client X: embedding/unloadModel: failed (Failure), N ms",
        "127.0.0.1: GET /v1/models: 200, N ms",
    ] == said
    assert "secret" not in "".join(lines)
