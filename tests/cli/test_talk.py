"""A conversation, without a terminal: what is kept, what is said, what is obeyed."""

from __future__ import annotations

import click
import pytest

from lmstudio import LMStudioClient, LMStudioError
from lmstudio.cli import talk
from lmstudio.cli.talk import ALIASES, COMMANDS, Talk
from lmstudio.testing import AWAIT_CANCEL
from lmstudio.testing.engine import fragment


@pytest.fixture
def client(server):
    server.load("smol")
    with LMStudioClient(server.host) as client:
        yield client


@pytest.fixture
def talking(client):
    return Talk(client, client.llm.get("smol"), ttl=60.0)


@pytest.fixture
def typed(monkeypatch):
    """Stands in for the terminal; takes what is typed, or what is raised instead."""
    lines = []

    class Typed:
        def __init__(self, words):
            assert "/help" in words

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def read(self):
            line = lines.pop(0) if lines else EOFError()
            if isinstance(line, BaseException):
                raise line
            return line

    monkeypatch.setattr(talk, "Lines", Typed)
    return lines


def roles(talking):
    return [(m.role, m.text) for m in talking.chat]


def test_a_conversation(talking, typed, capsys):
    """Answers go to the output and the rest beside it; errors don't end it."""
    typed += ["hello", "", "/stats", KeyboardInterrupt(), "/nonsense", "/quit", "never"]
    talking.run()
    out, err = capsys.readouterr()

    assert "hello\n" == out
    assert "Talking with smol" in err
    assert "Stopped by: eosFound\n" in err
    assert "Ctrl-D or /exit ends the chat\n" in err
    assert "lms: there is no command /nonsense; /help lists them\n" in err
    assert [("user", "hello"), ("assistant", "hello")] == roles(talking)
    assert ["never"] == typed


def test_a_failure(talking, server):
    """A question that could not be answered was not asked."""
    server.fail("predict", "It broke")
    with pytest.raises(LMStudioError, match="It broke"):
        talking.answer_once("hello")
    assert [] == roles(talking)


def test_reasoning_only(talking, server, capsys):
    """An answer of nothing but reasoning is none."""
    server.reply([fragment("hm", reasoning_type="reasoning")])
    talking.answer_once("well?")

    assert "\n" not in capsys.readouterr().out.rstrip("\n")
    assert [] == roles(talking)


def test_a_signal_that_comes_first(talking, server):
    """A stop that is asked for before the answer begins, stops it too."""
    server.reply([AWAIT_CANCEL])
    stop = talk.lmstudio.Signal()
    stop.set()
    talking.chat.add_system_prompt("Be brief.")
    talking._answer("hello", stop)
    assert [("system", "Be brief.")] == roles(talking)


def test_files(talking, tmp_path, capsys):
    """A conversation is the same after saving and loading."""
    file = tmp_path / "chat.json"
    talking.answer_once("hello")
    before = roles(talking)
    talking.save(str(file))
    talking.clear("")
    assert [] == roles(talking)
    talking.load(str(file))

    assert before == roles(talking)
    for command in (talking.save, talking.load):
        with pytest.raises(click.UsageError, match="say which file"):
            command("")


def test_system_prompt(talking, capsys):
    """It is shown, set, and stays when the rest is forgotten."""
    talking.system("")
    talking.system("Be brief.")
    talking.clear("")

    assert [("system", "Be brief.")] == roles(talking)
    assert "System prompt: (none)\nSystem prompt: Be brief.\nForgotten\n" == (
        capsys.readouterr().err
    )


def test_reasoning(talking, server, capsys):
    """Whether the model thinks first is shown, set, and sent with each question."""
    talking.answer_once("one")
    talking.reasoning("")
    talking.reasoning("off")
    talking.answer_once("two")
    talking.reasoning("on")
    talking.answer_once("three")

    assert [None, False, True] == [
        layer.get("llm.prediction.reasoning.enableThinking")
        for layer in map(settings_of, server.parameters("predict"))
    ]
    assert [
        "Reasoning: as the model likes",
        "Reasoning: off",
        "Reasoning: on",
    ] == capsys.readouterr().err.splitlines()
    with pytest.raises(click.UsageError, match="on or off, not 'maybe'"):
        talking.reasoning("maybe")


def settings_of(parameter):
    """The settings of a prediction by their keys."""
    layers = parameter["predictionConfigStack"]["layers"]
    fields = [field for layer in layers for field in layer["config"]["fields"]]
    return {field["key"]: field.get("value") for field in fields}


def test_download(talking, monkeypatch):
    """A model is fetched through the server that the chat is with."""
    asked = []
    monkeypatch.setattr(
        "lmstudio.cli.get.fetch", lambda *words, **more: asked.append((words, more))
    )
    talking.download("acme/small@q4_k_m")

    assert [(("acme/small@q4_k_m", talking._client), {"yes": False})] == asked
    with pytest.raises(click.UsageError, match="say which model"):
        talking.download("")


def test_another_model(talking, server, capsys):
    """The model is changed by name, loaded if it is not."""
    talking.model("acme/big")

    assert ["smol", "acme/big"] == server.loaded()
    assert "Talking with acme/big\n" == capsys.readouterr().err


def test_help_names_every_command(talking, capsys):
    """Help lists all commands, and all other names lead to one."""
    talking.help("")
    text = capsys.readouterr().out

    assert [] == [name for name in COMMANDS if f"/{name}" not in text]
    assert {*ALIASES.values()} <= {*COMMANDS}


def test_nothing_to_talk_with(server, client):
    """Without a name and a loaded model, and with several on disk, it is an error."""
    client.llm.unload("smol")
    with pytest.raises(click.ClickException, match="name one of smol, acme/big"):
        talk.find_llm(client, None, 60.0, False)
