"""A cell that is a prompt: its options, and its answer as it comes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import lmstudio
from kernels import Kernel
from lmstudio import LMStudioValueError, default
from lmstudio.magic import load_ipython_extension, read_options


@pytest.fixture
def magic(monkeypatch, fake):
    """The magic, in a shell that is only there for it; its variables."""
    monkeypatch.setattr(default, "_client", None)
    lmstudio.configure_default_client(fake.host)
    known = {}
    shell = SimpleNamespace(user_ns={})
    shell.register_magic_function = lambda function, kind, name: known.update(
        {(kind, name): function}
    )
    load_ipython_extension(shell)
    ((key, function),) = known.items()
    assert ("cell", "lms") == key
    function.variables = shell.user_ns
    yield function
    default.close_default_client()


def test_options():
    """They are written as in Python, or as plain words; three are always text."""
    assert {
        "model": "7",
        "system": "Be brief. 'Please'",
        "temperature": 0.5,
        "stop_strings": ["a", "b"],
        "preset": "mine",
    } == read_options(
        "model=7 system=\"Be brief. 'Please'\" temperature=0.5"
        " stop_strings=\"['a', 'b']\" preset=mine"
    )
    assert {} == read_options(" ")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("qwen", "not 'qwen'"),
        ("0x=1", "not '0x=1'"),
        ("a=1 a=2", "a is given twice"),
        ('system="x', "No closing quotation"),
        ("out=a.b", "out=a.b is no name"),
    ],
)
def test_wrong_options(line, says):
    """What can't be read is refused with the way it should be written."""
    with pytest.raises(LMStudioValueError, match=says):
        read_options(line)


def test_what_is_sent(magic, fake):
    """The cell is what the user says, the system what it says."""
    fake.reply("Hello")
    line = "model=other system='Be brief.' temperature=0.5 out=x"
    prediction = magic(line, "Hi!\nYou?\n")

    assert prediction is magic.variables["x"]
    assert "Hello" == prediction.content
    (asked,) = fake.parameters("predict")
    said = [(m["role"], m["content"][0]["text"]) for m in asked["history"]["messages"]]
    assert [("system", "Be brief."), ("user", "Hi!\nYou?")] == said
    assert "other" == prediction.model_info.model_key
    assert 0.5 == prediction.result().prediction_config["temperature"]


def test_any_model(magic, fake):
    """Without a model it is one that is loaded."""
    fake.reply("Hello")
    assert "any" == magic("", "Hi").model_info.model_key


@pytest.mark.parametrize(
    ("line", "cell"), [("", " \n"), ("temprature=1", "Hi"), ("temperature=x", "Hi")]
)
def test_what_is_refused(magic, fake, line, cell):
    """An empty cell, and what respond refuses; nothing is predicted."""
    with pytest.raises(LMStudioValueError):
        magic(line, cell)
    assert [] == fake.parameters("predict")


@pytest.mark.slow
def test_in_a_kernel(tmp_path, fake):
    """It is loaded as an extension, and the answer is shown as it comes."""
    fake.reply("**Hello**")
    with Kernel(tmp_path) as kernel:
        kernel.ok(
            f"import lmstudio\nlmstudio.configure_default_client({fake.host!r})\n"
            "%load_ext lmstudio"
        )
        cell = kernel.ok("%%lms model=any out=answer\nHi\n")
        assert cell.displays[-1]["text/markdown"].startswith("**Hello**\n\n<small ")
        assert "**Hello**\n" == kernel.ok("print(answer)").printed
        failed = kernel.run("%%lms nonsense\nHi")
        assert "LMStudioValueError" == failed.reply["ename"]
