"""`lms server` with real processes: start, status, stop, and all that can fail."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lmstudio import LMStudioAuthenticationError, LMStudioClient
from lmstudio.cli import background, processes, server
from lmstudio.testing import FakeServer

ROOT = Path(__file__).parents[2]
LMS = [sys.executable, "-m", "lmstudio.cli.main"]


@pytest.fixture(autouse=True)
def usual_port(monkeypatch, closed_port):
    """Makes sure that nothing answers on the usual port, whatever this machine runs."""
    monkeypatch.setattr(server, "PORT", closed_port)


@pytest.fixture
def shell(home):
    """Runs `lms` in a process of its own; stops the server at the end."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*LMS, *words], capture_output=True, text=True, cwd=ROOT)

    yield run
    known = background.started()
    if known is not None and known.is_in_background:
        background.stop(known)


@pytest.fixture
def running(shell):
    """A server in the background, as it wrote itself down."""
    result = shell("server", "start", "--port", "0")
    assert (0, "") == (result.returncode, result.stderr)
    found = background.written_down()
    assert found is not None
    return found


@pytest.mark.slow
def test_from_start_to_stop(shell, home):
    """It is left running, says where, is found, and is gone after `stop`."""
    result = shell("server", "start", "--port", "0", "--cors=true")
    found = background.written_down()

    assert (0, "") == (result.returncode, result.stderr)
    assert f"The server is running at {found.address}\n" == result.stdout
    assert found.answers and found.is_in_background
    assert {
        "running": True,
        "port": found.port,
        "host": "127.0.0.1",
        "address": found.address,
        "pid": found.pid,
    } == json.loads(shell("server", "status", "--json").stdout)

    link = http.client.HTTPConnection("127.0.0.1", found.port, timeout=5)
    link.request("GET", "/lmstudio-greeting", headers={"Origin": "http://a.example"})
    assert link.getresponse().getheader("access-control-allow-origin") is not None
    link.close()

    result = shell("server", "stop")
    assert (0, "") == (result.returncode, result.stderr)
    assert f"Stopped the server at {found.address}\n" == result.stdout
    assert not processes.is_alive(found.pid)
    assert ["server.log"] == sorted(os.listdir(home / ".internal"))


@pytest.mark.slow
def test_is_running_already(lms, running):
    """Starting it again is no error; starting another one beside it is."""
    said = f"The server is running already at {running.address}\n"
    for port in (running.port, 0):
        result = lms("server", "start", "--port", str(port))
        assert (0, said, "") == (result.exit_code, result.stdout, result.stderr)

    result = lms("server", "start", "--port", str(running.port + 1))
    assert (1, "") == (result.exit_code, result.stdout)
    assert re.fullmatch(r"lms: a server runs already at .*\n", result.stderr)
    assert running == background.written_down()

    result = lms("server", "status")
    assert (
        f"The server is running at {running.address} (process {running.pid})\n"
        == result.stdout
    )


@pytest.mark.slow
def test_after_it_was_killed(lms, shell, running):
    """A server that was killed does not run, and a new one can be started."""
    os.kill(running.pid, signal.SIGKILL)
    assert processes.wait_for(lambda: not processes.is_alive(running.pid), 5)

    assert {"running": False, "port": None} == json.loads(
        lms("server", "status", "--json").stdout
    )
    assert "The server is not running\n" == lms("server", "stop").stdout
    assert background.written_down() is None
    assert 0 == shell("server", "start", "--port", str(running.port)).returncode
    assert background.written_down().answers


@pytest.mark.slow
@pytest.mark.parametrize("pid", [None, 1], ids=["dead", "of another program"])
def test_start_over_what_a_crash_left(shell, running, home, pid):
    """Files of a server that was killed don't count, whoever has its number now."""
    os.kill(running.pid, signal.SIGKILL)
    assert processes.wait_for(lambda: not processes.is_alive(running.pid), 5)
    file = home / ".internal" / "http-server.json"
    if pid is not None:
        file.write_text(json.dumps({**json.loads(file.read_text()), "pid": pid}))
    (home / ".internal" / f"http-server.json.{running.pid}").write_text("{")
    result = shell("server", "start", "--port", str(running.port))

    assert (0, f"The server is running at {running.address}\n", "") == (
        result.returncode,
        result.stdout,
        result.stderr,
    )
    found = background.written_down()
    assert found.answers and found.pid not in (running.pid, pid)


@pytest.mark.slow
def test_a_server_that_hangs(lms, running, monkeypatch):
    """One that does not answer is said to hang; `stop` kills it."""
    monkeypatch.setattr(background, "GREETING_TIME", 0.2)
    monkeypatch.setattr(background, "STOP_PATIENCE", 0.2)
    os.kill(running.pid, signal.SIGSTOP)
    result = lms("server", "start", "--port", str(running.port))

    assert (1, "") == (result.exit_code, result.stdout)
    assert re.fullmatch(r"lms: the server at .* does not answer; .*\n", result.stderr)
    assert (
        f"Killed, as it did not end by itself, the server at {running.address}\n"
        == lms("server", "stop").stdout
    )
    assert not processes.is_alive(running.pid)
    assert background.written_down() is None


@pytest.mark.slow
def test_two_at_once(shell):
    """Of two that are started at once, one runs, and both commands succeed."""
    words = [*LMS, "server", "start", "--port", "0"]
    starting = [
        subprocess.Popen(words, stdout=subprocess.PIPE, cwd=ROOT) for _ in range(2)
    ]
    said = sorted(process.communicate()[0].decode() for process in starting)

    assert [0, 0] == [process.returncode for process in starting]
    address = background.written_down().address
    assert [
        f"The server is running already at {address}\n",
        f"The server is running at {address}\n",
    ] == said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_foreground(shell, number):
    """In the foreground it runs until it is told to end, and ends well."""
    words = [*LMS, "server", "start", "--foreground", "--port", "0"]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout.readline().startswith("serving on ws://127.0.0.1:")
        found = background.written_down()
        assert process.pid == found.pid and found.is_in_background

        process.send_signal(number)
        assert ("", None) == process.communicate(timeout=20)

    assert 0 == process.returncode
    assert background.written_down() is None


@pytest.mark.slow
def test_a_foreground_server_beside_it(running, shell):
    """It is neither stopped nor lost, whichever of the two ends first."""
    words = [sys.executable, "-m", "lmstudio.server", "--port", "0"]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout.readline().startswith("serving on ws://127.0.0.1:")
        other = background.written_down()
        assert (process.pid, running) == (other.pid, background.started())
        said = json.loads(shell("server", "status", "--json").stdout)
        assert running.pid == said["pid"]
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    assert running == background.written_down()  # clients find it again

    with subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout.readline().startswith("serving on ws://127.0.0.1:")
        assert 0 == shell("server", "stop").returncode
        assert not processes.is_alive(running.pid)
        assert (None, process.pid) == (
            background.started(),
            background.written_down().pid,
        )
        again = shell("server", "stop")
        assert (1, "") == (again.returncode, again.stdout)
        assert f"(process {process.pid})" in again.stderr
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    assert background.written_down() is None


@pytest.mark.parametrize("extra", [(), ("--foreground",)], ids=str)
def test_port_taken(lms, home, other_program, extra):
    """A port of another program is one line and code 1; nothing was started."""
    result = lms("server", "start", "--port", str(other_program), *extra)

    assert (1, "") == (result.exit_code, result.stdout)
    assert re.fullmatch(
        rf"lms: can't serve on 127\.0\.0\.1:{other_program}: the port is taken .*\n",
        result.stderr,
    )
    assert [] == [*home.glob(".internal/*")]


def test_wrong_address(lms):
    """An address that is not this machine's is refused at once."""
    result = lms("server", "start", "--port", "0", "--bind", "192.0.2.1")

    assert (1, "") == (result.exit_code, result.stdout)
    assert (
        "lms: can't serve on 192.0.2.1:0: this machine does not have that address\n"
        == result.stderr
    )


def test_somebody_elses_server(lms):
    """A server that another program runs is found, and left alone."""
    with FakeServer() as fake:
        address = f"http://127.0.0.1:{fake.port}"
        result = lms("server", "start", "--port", str(fake.port))
        said = f"The server is running already at {address}\n"
        assert (0, said) == (result.exit_code, result.stdout)

        server.PORT = fake.port
        assert f"The server is running at {address}\n" == lms("server", "status").stdout
        result = lms("server", "stop")

    assert (1, "") == (result.exit_code, result.stdout)
    assert re.fullmatch(
        rf"lms: the server at {address} is not one of .*\n", result.stderr
    )


def test_not_running(lms):
    """No server is an answer and no error."""
    result = lms("server", "stop")
    assert (0, "The server is not running\n") == (result.exit_code, result.stdout)

    result = lms("server", "status")
    assert (
        0,
        "The server is not running; `lms server start` starts it\n",
    ) == (result.exit_code, result.stdout)


@pytest.mark.parametrize(
    "words", [("server", "start", "--port", "0"), ("load", "smol"), ("ls",)], ids=str
)
def test_home_that_is_no_folder(lms, tmp_path, monkeypatch, words):
    """A home that is no folder is one line that says so, and what helps."""
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("LMSTUDIO_HOME", str(file))
    result = lms(*words)

    assert (1, "") == (result.exit_code, result.stdout)
    assert (
        f"lms: the home folder {file} can't be used: {file} is no folder;"
        " set LMSTUDIO_HOME to a folder that you can write to\n"
    ) == result.stderr


@pytest.mark.slow
def test_other_options(lms, shell):
    """An open server is said to be open, and other options than its own are refused."""
    words = ("--port", "0", "--bind", "0.0.0.0", "--no-api-token")
    result = shell("server", "start", *words)
    found = background.written_down()
    assert 0 == result.returncode
    assert re.fullmatch(r"Everyone who reaches port .*0\.0\.0\.0.*\n", result.stderr)
    port = ("--port", str(found.port))
    for options in ((), ("--bind", "0.0.0.0", "--cors=true")):
        result = lms("server", "start", *port, *options)
        assert (1, "") == (result.exit_code, result.stdout)
        assert "runs with other options" in result.stderr
    result = lms("server", "start", *port, "--bind", "0.0.0.0")
    assert 0 == result.exit_code
    assert result.stdout.startswith("The server is running already")
    assert result.stderr.startswith("Everyone who reaches port")


@pytest.mark.slow
def test_open_to_the_network(lms, shell, home):
    """A token is made up for an open server; the note says so, and `lms` has it."""
    result = shell("server", "start", "--port", "0", "--bind", "0.0.0.0")
    found = background.written_down()
    said = (
        f"Clients need an API token of {home / '.internal' / 'api-tokens'};"
        " `lms` takes it from there\n"
    )
    assert (0, said) == (result.returncode, result.stderr)
    with (
        LMStudioClient(found.address) as client,
        pytest.raises(LMStudioAuthenticationError),
    ):
        client.list_loaded_models()

    for words in (("ps",), ("ls", "--llm"), ("status",), ("daemon", "status")):
        result = lms(*words)
        assert (0, "") == (result.exit_code, result.stderr)
    again = lms("server", "start", "--port", "0", "--bind", "0.0.0.0")
    assert (0, said) == (again.exit_code, again.stderr)


@pytest.mark.slow
def test_memory(lms, shell):
    """The options about memory arrive, and a server without them is another one."""
    flags = ("--no-auto-evict", "--no-memory-guard")
    assert 0 == shell("server", "start", "--port", "0", *flags).returncode
    found = background.written_down()

    assert list(flags) == found.flags
    assert 0 == lms("server", "start", "--port", "0", *flags).exit_code
    result = lms("server", "start", "--port", "0", flags[0])
    assert (1, "") == (result.exit_code, result.stdout)
    assert "no web pages let in, --no-auto-evict, --no-memory-guard)" in result.stderr


@pytest.mark.slow
def test_saved_token(lms, shell, home):
    """--api-token has the server ask for a token that `lms` finds by itself."""
    result = shell("server", "start", "--port", "0", "--api-token")
    found = background.written_down()
    assert (0, f"The server is running at {found.address}\n") == (
        result.returncode,
        result.stdout,
    )
    assert str(home / ".internal" / "api-tokens") in result.stderr
    with (
        LMStudioClient(found.address) as client,
        pytest.raises(LMStudioAuthenticationError),
    ):
        client.list_loaded_models()

    assert (0, "[]\n") == (lms("ps", "--json").exit_code, lms("ps", "--json").stdout)
    port = ("--port", str(found.port))
    assert 0 == lms("server", "start", *port, "--api-token").exit_code
    result = lms("server", "start", *port, "--no-api-token")
    assert (1, "") == (result.exit_code, result.stdout)
    assert "asks for an API token" in result.stderr


@pytest.mark.slow
def test_own_token(lms, shell, monkeypatch):
    """A token that is given is needed, and is not among the server's arguments."""
    token = "sk-lm-abcdefgh:abcdefghijklmnopqrst"
    result = shell("server", "start", "--port", "0", "--api-token", token)
    found = background.written_down()

    assert 0 == result.returncode
    assert token not in processes.command_of(found.pid)
    assert token not in background.log_file().read_text()
    assert 1 == lms("ps").exit_code
    monkeypatch.setenv("LM_API_TOKEN", token)
    assert 0 == lms("ps").exit_code


@pytest.mark.slow
def test_a_server_without_tokens(lms, running):
    """A server that asks for no token does not pass for one that does."""
    result = lms("server", "start", "--port", str(running.port), "--api-token")

    assert (1, "") == (result.exit_code, result.stdout)
    assert "asks for no API token: stop it first" in result.stderr


def test_wrong_tokens(lms):
    """A token of another form is refused and not repeated, and so are both options."""
    result = lms("server", "start", "--api-token", "secret")
    assert (2, "") == (result.exit_code, result.stdout)
    assert "secret" not in result.stderr
    result = lms("server", "start", "--api-token", "--no-api-token")
    assert 2 == result.exit_code


@pytest.mark.slow
def test_log(running, shell):
    """The log says when the server began and ended."""
    assert 0 == shell("server", "stop").returncode
    text = background.log_file().read_text()

    assert f"as process {running.pid}\n" in text
    assert text.endswith("ending\n")
