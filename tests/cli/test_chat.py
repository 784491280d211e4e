"""`lms chat`: a conversation on a terminal, and one answer in a pipe."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lmstudio import LMStudioClient, LMStudioConnectionError
from lmstudio.cli import chat, talk
from lmstudio.cli.background import Server
from lmstudio.testing import AWAIT_CANCEL, Await, FakeServer
from lmstudio.testing.engine import fragment, scripted_model
from terminals import Terminal

ROOT = Path(__file__).parents[2]
#: What marks dim text on a terminal, and its end.
DIM, PLAIN = "\x1b[2m", "\x1b[22m"


@pytest.fixture
def talking(server):
    """A conversation on a terminal that waits for the first question."""
    server.load("smol")
    with Terminal("chat") as terminal:
        terminal.until("Talking with smol")
        terminal.until("> ")
        yield terminal


@pytest.fixture
def pipe(server):
    """Runs `lms chat` in pipes; takes words and the standard input."""
    server.load("smol")

    def run(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "lmstudio.cli.entry", "chat", *words]
        return subprocess.run(
            command, input=given, capture_output=True, text=True, cwd=ROOT
        )

    return run


def asked(server):
    """The messages of the last prediction, as (role, text)."""
    history = server.parameters("predict")[-1]["history"]["messages"]
    return [(m["role"], "".join(p["text"] for p in m["content"])) for m in history]


@pytest.mark.slow
def test_talking(talking, server):
    """Questions are answered, with all that was said before; Ctrl-D ends it."""
    server.reply(["Hi ", "there"])
    talking.type("hello\n")
    assert "hello\nHi there\n> " == talking.until("there\n> ")
    talking.type("and now?\n")
    talking.until("and now?\n> ")
    talking.type("\x04")

    assert 0 == talking.end()
    assert [
        ("user", "hello"),
        ("assistant", "Hi there"),
        ("user", "and now?"),
    ] == asked(server)


@pytest.mark.slow
def test_ctrl_c_stops_the_answer(talking, server):
    """Ctrl-C stops the answer; its beginning is kept, and the chat goes on."""
    server.reply(["Once ", AWAIT_CANCEL])
    talking.type("a story\n")
    talking.until("Once ")
    talking.type("\x03")
    talking.until("> ")
    talking.type("go on\n")
    talking.until("go on\n> ")
    talking.type("/exit\n")

    assert 0 == talking.end()
    assert ("assistant", "Once ") == asked(server)[1]
    assert "Traceback" not in talking.seen


@pytest.mark.slow
def test_ctrl_c_before_the_first_token(talking, server):
    """What was stopped before a word of it came was never asked."""
    gate = Await()
    server.reply([gate, AWAIT_CANCEL])
    talking.type("a story\n")
    assert gate.reached.wait(20)
    talking.type("\x03")
    gate.open()
    talking.until("> ")
    talking.type("hello\n")
    talking.until("hello\n> ")

    assert [("user", "hello")] == asked(server)


@pytest.mark.slow
def test_ctrl_c_at_the_prompt(talking):
    """Ctrl-C at the prompt forgets the line, and says what ends the chat."""
    talking.type("half a li")
    talking.until("half a li")
    talking.until_it_waits()
    talking.type("\x03")
    talking.until("Ctrl-D or /exit ends the chat")
    talking.until("> ")
    talking.type("\x04")
    assert 0 == talking.end()


@pytest.mark.slow
def test_many_lines(talking, server):
    r"""Lines between three quotes, and after a ``\``, are one question."""
    talking.type('"""one\n')
    talking.until(". ")
    talking.type('two"""\n')
    talking.until("> ")
    assert [("user", "one\ntwo")] == asked(server)
    talking.type("three\\\n")
    talking.until(". ")
    talking.type("four\n")
    talking.until("> ")
    assert ("user", "three\nfour") == asked(server)[-1]


@pytest.mark.slow
def test_commands(talking, server, tmp_path):
    """The commands of a chat: help, system prompt, save, clear, load, stats, model."""
    file = tmp_path / "chat.json"

    def do(line: str) -> str:
        talking.type(f"{line}\n")
        talking.until("\n")  # the echo
        return talking.until("> ").removesuffix("> ")

    assert "/system-prompt [TEXT]" in do("/help")
    assert "Nothing was answered yet\n" == do("/stats")
    assert "System prompt: Be brief.\n" == do("/system Be brief.")
    do("hello")
    assert "Stopped by: eosFound\n" in do("/stats")
    assert "Saved 3 messages\n" == do(f"/save {file}")
    assert "Forgotten\n" == do("/clear")
    do("again")
    assert [("system", "Be brief."), ("user", "again")] == asked(server)
    assert "Loaded 3 messages\n" == do(f"/load {file}")
    do("once more")
    assert ["Be brief.", "hello", "hello", "once more"] == [t for _, t in asked(server)]
    assert "Talking with acme/big\n" == do("/model acme/big")
    assert ["smol", "acme/big"] == server.loaded()
    do("you?")
    specifier = server.parameters("predict")[-1]["modelSpecifier"]
    assert "acme/big" == specifier["query"]["identifier"]
    assert do("/nonsense").startswith("lms: there is no command /nonsense")
    assert do("/save").startswith("lms: say which file")
    assert do(f"/load {tmp_path / 'none'}").startswith("lms: ")


@pytest.mark.slow
def test_a_failed_answer(talking, server):
    """An answer that fails is one line, and the chat goes on without the question."""
    server.fail("predict", "It broke")
    talking.type("hello\n")
    assert "It broke" in talking.until("> ")
    talking.type("again\n")
    talking.until("again\n> ")
    assert [("user", "again")] == asked(server)


@pytest.mark.slow
def test_reasoning_is_dim(talking, server):
    """On a terminal the reasoning is dim, and is not sent back."""
    thought = fragment("hm", reasoning_type="reasoning")
    server.reply([thought, "yes"])
    talking.type("well?\n")

    assert f"{DIM}hm{PLAIN}yes\n> " in talking.until("> ")
    talking.type("so?\n")
    talking.until("> ")
    assert ("assistant", "yes") == asked(server)[1]


@pytest.mark.slow
def test_control_characters(talking, server):
    """A model can't command the terminal."""
    server.reply(["a\x1b[31mb\x07c\nd"])
    talking.type("do\n")

    assert "do\na[31mbc\nd\n> " == talking.until("d\n> ")


@pytest.mark.slow
def test_history(talking, home, server):
    """What was typed is in the history of the next chat; others can't read it."""
    talking.type("remember me\n")
    talking.until("> ")
    talking.type("\x04")
    assert 0 == talking.end()
    file = home / ".internal" / "chat-history"
    assert "remember me" in file.read_text()
    assert 0o600 == file.stat().st_mode & 0o777
    with Terminal("chat") as later:
        later.until("> ")
        later.type("\x1b[A\n")  # the key with the arrow up
        later.until("> ")
    assert [("user", "remember me")] == asked(server)


@pytest.mark.slow
def test_loads_on_demand(server):
    """A model that is not loaded is loaded, also when only a part of it is named."""
    with Terminal("chat", "big", "--ttl", "60") as terminal:
        terminal.until("Talking with acme/big")
        terminal.until("> ")

    assert ["acme/big"] == server.loaded()
    assert 60_000 == server.parameters("getOrLoad")[-1]["loadTtlMs"]


@pytest.mark.slow
def test_asks_which(server):
    """Without a name and with none loaded it asks for one of those on disk."""
    with Terminal("chat") as terminal:
        terminal.until("Which one")
        terminal.type("2\n")
        terminal.until("Talking with acme/big")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "given", "prompt"),
    [
        (("-p", "Hello"), "", "Hello"),
        ((), "from the pipe", "from the pipe"),
        (("--prompt", "Sum up:"), "a\nb\n", "Sum up:\n\na\nb\n"),
    ],
    ids=str,
)
def test_one_prompt(pipe, server, words, given, prompt):
    """One prompt is answered in plain text: from the words, the pipe, or both."""
    server.reply(["The ", "answer"])
    run = pipe("smol", *words, given=given)

    assert (0, "The answer\n", "") == (run.returncode, run.stdout, run.stderr)
    assert [("user", prompt)] == asked(server)


@pytest.mark.slow
def test_system_prompt_and_stats(pipe, server):
    """-s comes first, --stats goes beside the answer."""
    run = pipe("-p", "Hello", "-s", "Be brief.", "--stats")

    assert (0, "Hello\n") == (run.returncode, run.stdout)
    assert "Stopped by: eosFound\n" in run.stderr
    assert [("system", "Be brief."), ("user", "Hello")] == asked(server)


@pytest.mark.slow
def test_reasoning_in_a_pipe(pipe, server):
    """A pipe gets the answer without the reasoning, and no escape codes."""
    thought = fragment("hm", reasoning_type="reasoning")
    server.reply([thought, "yes"])

    assert "yes\n" == pipe("-p", "well?").stdout


def test_unknown_model(lms, server):
    """A model that is nowhere is code 4."""
    result = lms("chat", "nonsense", "-p", "Hello")

    assert (4, "") == (result.exit_code, result.stdout)
    assert "'nonsense'" in result.stderr


def test_no_server(lms, nobody):
    """Without a server and without a terminal it is code 3."""
    result = lms("chat", "-p", "Hello")

    assert (3, "") == (result.exit_code, result.stdout)


@pytest.mark.slow
def test_interrupted(server):
    """Ctrl-C ends an answer in a pipe with code 130; what came stays printed."""
    server.load("smol")
    server.reply(["Once ", AWAIT_CANCEL])
    command = [sys.executable, "-m", "lmstudio.cli.entry", "chat", "-p", "a story"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert b"Once " == process.stdout.read(5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)

    assert (130, b"\n", b"lms: interrupted\n") == (process.returncode, out, err)


@pytest.mark.slow
def test_saved_as_json(talking, tmp_path):
    """What /save writes is JSON with the messages."""
    file = tmp_path / "chat.json"
    talking.type("hello\n")
    talking.until("> ")
    talking.type(f"/save {file}\n")
    talking.until("Saved 2 messages")

    assert "hello" in json.dumps(json.loads(file.read_text()))


@pytest.mark.slow
def test_ctrl_c_while_a_model_loads(talking, server):
    """Ctrl-C during /model cancels the load; the chat goes on with the model it had."""
    gate = Await()
    server.on_load([0.1, gate])
    talking.type("/model acme/big\n")
    assert gate.reached.wait(20)
    talking.type("\x03")
    talking.until("Ctrl-D or /exit ends the chat")
    talking.until("> ")
    talking.type("hello\n")
    talking.until("hello\n> ")
    specifier = server.parameters("predict")[-1]["modelSpecifier"]
    assert "smol" == specifier["query"]["identifier"]


def test_offers_to_start_the_server(monkeypatch, nobody):
    """Without a server it offers one, and goes on with it."""
    asked = []

    def agrees(question):
        asked.append(question)
        return True

    monkeypatch.setattr(chat, "can_ask", lambda: True)
    monkeypatch.setattr(chat, "agrees", agrees)
    with FakeServer(["smol"], loaded=["smol"]) as started:
        found = Server("127.0.0.1", started.port)
        monkeypatch.setattr(
            "lmstudio.cli.server.start_in_background", lambda: (found, 0)
        )
        with chat._serving(None, None, False) as client:
            assert ["smol"] == [model.identifier for model in client.llm.list_loaded()]
    assert ["No server is running. Start it?"] == asked


def test_a_declined_server(monkeypatch, nobody):
    """Who does not want the server gets the error that there is none."""
    monkeypatch.setattr(chat, "can_ask", lambda: True)
    monkeypatch.setattr(chat, "agrees", lambda _: False)
    with (
        pytest.raises(LMStudioConnectionError, match="lms server start"),
        chat._serving(None, None, False),
    ):
        pass


def test_offers_a_starter(server, monkeypatch):
    """A starter model that is not on disk is fetched, if that is wanted, and loaded."""
    monkeypatch.delenv("LMSTUDIO_HOST")
    fetched = []

    def get(words, **_):
        fetched.append(words)
        server._models.models.append(scripted_model(words[1]))

    monkeypatch.setattr("lmstudio.cli.main.main", get)
    with LMStudioClient(server.host) as client:
        found = talk.find_llm(client, "smollm2-135m-instruct", 60.0, True)

    assert "smollm2-135m-instruct" == found.identifier
    assert [["get", "smollm2-135m-instruct"]] == fetched
