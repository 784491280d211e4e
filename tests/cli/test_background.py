"""The background server: found by what it wrote down, started, and cleaned up."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from lmstudio.cli import background, processes
from lmstudio.cli.background import Server
from lmstudio.cli.failures import Failure

ROOT = Path(__file__).parents[2]


@pytest.fixture
def write(home):
    """Writes an info file."""

    def info(content: object) -> None:
        file = home / ".internal" / "http-server.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        file.write_text(text)

    return info


@pytest.mark.parametrize(
    ("content", "server"),
    [
        (
            {"port": 1234, "host": "127.0.0.1", "pid": 99},
            Server("127.0.0.1", 1234, 99, "127.0.0.1"),
        ),
        ({"port": 1234}, Server("127.0.0.1", 1234)),
        (
            {"port": 1, "host": "0.0.0.0", "pid": 0},
            Server("127.0.0.1", 1, bind="0.0.0.0"),
        ),
        ({"port": 1, "host": "::", "cors": True}, Server("::1", 1, None, "::", True)),
        ({"port": 0}, None),
        ({"port": 65536}, None),
        ({"port": "1234"}, None),
        ({"host": "a"}, None),
        ([1], None),
        ("{", None),
    ],
    ids=str,
)
def test_info_file(write, content, server):
    """The info file is a hint: what is wrong in it counts as nothing written."""
    write(content)

    assert server == background.written_down()


def test_no_info_file():
    """No file is no server."""
    assert background.written_down() is None


def test_address():
    """Addresses are URLs, IPv6 in brackets."""
    assert "http://127.0.0.1:80" == Server("127.0.0.1", 80).address
    assert "http://[::1]:80" == Server("::1", 80).address


def test_greets(server, other_program, closed_port):
    """Only a server of our kind greets, no other program and no free port."""
    assert Server("127.0.0.1", server.port).answers
    assert not Server("127.0.0.1", other_program).answers
    assert not Server("127.0.0.1", closed_port).answers


def test_a_strangers_process(server):
    """A process that runs something else is not ours to end, if it serves or not."""
    mine = Server("127.0.0.1", server.port, os.getpid())

    assert mine.answers
    assert not mine.is_in_background
    assert not Server("127.0.0.1", server.port).is_in_background


@pytest.mark.parametrize(
    ("command", "ours"),
    [
        ("/usr/bin/python3 -m lmstudio.server --port 1234", True),
        ("/usr/bin/python3 -m lmstudio.server", True),
        ("/usr/bin/python3 /usr/bin/lms server start --foreground", True),
        ("/usr/bin/python3 -c import lmstudio.server", False),
        ("/usr/bin/python3 -m lmstudio.server_of_mine", False),
        ("/usr/bin/python3 demo.py", False),
    ],
)
def test_whose_process(monkeypatch, command, ours):
    """Only a process that is a server and nothing else counts as in the background."""
    monkeypatch.setattr(processes, "command_of", lambda _: command)

    assert ours is Server("127.0.0.1", 1, os.getpid()).is_in_background


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("", None),
        ("python -m lmstudio.server --port 1", []),
        ("python -m lmstudio.server --no-memory-guard", ["--no-memory-guard"]),
        ("lms server start --foreground --no-auto-evict", ["--no-auto-evict"]),
    ],
)
def test_flags(monkeypatch, command, flags):
    """What the info file does not tell is told by the command line, if anything is."""
    monkeypatch.setattr(background.processes, "command_of", lambda _: command)
    assert flags == Server("127.0.0.1", 1, 99).flags
    assert Server("127.0.0.1", 1).flags is None


def test_forgets_its_own_only(write):
    """The info file goes with its server; another server's stays."""
    write({"port": 1, "pid": 99})
    background.forget(Server("127.0.0.1", 1, 98))
    assert background.written_down()

    background.forget(Server("127.0.0.1", 1, 99))
    assert not background.written_down()


def run_instead(monkeypatch, code):
    """Let `start` run some Python code, which gets the options of the server."""
    monkeypatch.setattr(background, "COMMAND", (sys.executable, "-c", code))


def test_ends_at_once(monkeypatch, home):
    """A server that ends is an error with its exit code and the end of its log."""
    code = "import sys; print('one'); print(sys.argv[1:]); sys.exit('no room')"
    run_instead(monkeypatch, code)
    with pytest.raises(Failure) as caught:
        background.start(4321, "127.0.0.1", True)

    log = home / ".internal" / "server.log"
    assert (
        "the server on port 4321 ended at once with exit code 1."
        f" Its log {log} ends with: "
    ) == caught.value.message.partition("no room")[0].partition("one")[0]
    given = ["--port", "4321", "--bind", "127.0.0.1", "--cors", "--log-file", str(log)]
    words = str([*given, "--record", str(background.record())])
    assert words in caught.value.message


@pytest.mark.slow
def test_never_answers(monkeypatch):
    """A server that says nothing in time is ended, and that is an error."""
    run_instead(monkeypatch, "import signal; signal.pause()")
    monkeypatch.setattr(background, "START_PATIENCE", 0.3)
    with pytest.raises(Failure) as caught:
        background.start(0, "127.0.0.1", False)

    assert "did not answer within 0 seconds" in caught.value.message
    assert caught.value.message.endswith("ends with: (nothing)")


def test_interrupted(monkeypatch):
    """Ctrl-C while it starts leaves no process behind."""
    run_instead(monkeypatch, "import signal; signal.pause()")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(processes, "wait_for", interrupt)
    with pytest.raises(KeyboardInterrupt):
        background.start(0, "127.0.0.1", False)
    # The look for leftovers of tests/conftest.py sees whether it still runs.


@pytest.mark.parametrize(
    ("installed", "added"), [(True, []), (False, [str(ROOT)])], ids=str
)
def test_where_it_runs(monkeypatch, home, tmp_path, installed, added):
    """The server runs in its own folder, and all that we found by paths it finds."""
    show = "os.getcwd(), os.environ['LMSTUDIO_HOME'], os.environ['PYTHONPATH']"
    run_instead(monkeypatch, f"import os, sys; sys.exit(' '.join([{show}]))")
    where = str(ROOT) if installed else "/elsewhere"
    monkeypatch.setattr(background.sysconfig, "get_path", lambda _: where)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LMSTUDIO_HOME", "home")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([".", "lib"]))
    with pytest.raises(Failure) as caught:
        background.start(0, "127.0.0.1", False)

    folders = os.pathsep.join([str(tmp_path), str(tmp_path / "lib"), *added])
    expected = f"{home / '.internal'} {home} {folders}"
    assert caught.value.message.endswith(f"ends with: {expected}")


@pytest.mark.slow
def test_keeps_the_last_log(monkeypatch, home):
    """The log of the server before stays beside the new one."""
    log = home / ".internal" / "server.log"
    for text in ("first", "second"):
        run_instead(monkeypatch, f"import sys; sys.exit('{text}')")
        with pytest.raises(Failure):
            background.start(0, "127.0.0.1", False)

    assert "second\n" == log.read_text()
    assert "first\n" == log.with_name("server.log.1").read_text()
