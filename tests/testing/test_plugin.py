"""pytest finds the fixtures, the marker and the option, and pays nothing for them."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmstudio.testing import FakeServer

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]

#: Finds this package, and loads no plugins but those that are named: half the time.
SETTINGS = {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}

#: Tests of a user, and what becomes of each with a fake server.
FAKE = """
import lmstudio, pytest

def ask(text):
    return lmstudio.llm("any").respond(text).content

def test_passes(lmstudio_server, lmstudio_client):
    lmstudio_server.reply("shared")
    lmstudio_server.reply("own")
    assert ["shared", "own"] == [
        ask("x"), lmstudio_client.llm.model("any").respond("x").content
    ]
    lmstudio_server.assert_all_used()

def test_finds_its_own_server(lmstudio_server):
    lmstudio_server.reply("mine")
    assert "mine" == ask("x")

def test_fails_though_the_program_goes_on(lmstudio_server):
    lmstudio_server.reply_when("sun", "hot")
    try:
        ask("rain")
    except lmstudio.LMStudioError:
        pass

def test_has_no_real_models(lmstudio_forbid_real_models):
    with pytest.raises(lmstudio.LMStudioRealModelError):
        lmstudio.LMStudioClient("127.0.0.1:1").llm.list_loaded()
"""

TAPED = """
import lmstudio, pytest

class TestProgram:
    @pytest.mark.parametrize("text", ["hi", "a/b"])
    def test_answers(self, text, lmstudio_cassette, lmstudio_client):
        assert text == lmstudio_client.llm.model("any").respond(text).content
        assert lmstudio.llm("any").identifier == "any"

@pytest.mark.lmstudio_cassette(mode="once", path="own.jsonl")
def test_marked(lmstudio_cassette):
    lmstudio.llm("any").respond("marked").result()

def test_fails(lmstudio_cassette, lmstudio_client):
    assert "other" == lmstudio_client.llm.model("any").respond("x").content
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs pytest on a user's file; returns the end of what it prints."""
    monkeypatch.delenv("CI", raising=False)

    def run(source, *options, **variables):
        file = tmp_path / "test_user.py"
        file.write_text(source)
        command = (sys.executable, "-W", "error", "-m", "pytest", "-W", "error", "-q")
        command += ("-p", "no:cacheprovider", "-p", "lmstudio.testing.plugin")
        done = subprocess.run(
            [*command, "-rA", "--rootdir", str(tmp_path), *options, str(file)],
            env={**os.environ, **SETTINGS, **variables},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout + done.stderr

    return run


@pytest.mark.parametrize(
    "options", [(), ("-p", "xdist", "-n", "2")], ids=["alone", "xdist"]
)
def test_fake_servers(run, options):
    """Each test has a server that its program finds; what fits nothing fails it."""
    if options:
        pytest.importorskip("xdist")
    said = run(FAKE, *options)
    assert "1 failed, 3 passed" in said
    assert "FAILED test_user.py::test_fails_though_the_program_goes_on" in said
    assert "- text with 'sun'" in said
    assert "+ text 'rain'" in said


def test_cassettes(run, tmp_path):
    """Each test has a file; failed ones leave none; then no server is needed."""
    with FakeServer(["any"], loaded=["any"]) as real:
        said = run(TAPED, LMSTUDIO_HOST=real.host)
        assert "1 failed, 3 passed" in said
        asked = len(real.predictions)
        assert "1 failed, 3 passed" in run(TAPED, LMSTUDIO_HOST=real.host)
        assert asked + 1 == len(real.predictions)  # the failed one again
        again = run(TAPED, "--lmstudio-record=all", LMSTUDIO_HOST=real.host)
        assert "1 failed, 3 passed" in again
        assert 2 * asked + 1 == len(real.predictions)
    files = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.jsonl")}
    assert {
        "cassettes/test_user/TestProgram-test_answers-hi.jsonl",
        "cassettes/test_user/TestProgram-test_answers-a-b.jsonl",
        "own.jsonl",
    } == files
    said = run(TAPED, "-k", "not fails", CI="1", LMSTUDIO_FORBID_REAL_MODELS="1")
    assert "3 passed" in said
    said = run(TAPED.replace('marked"', 'changed"'), "-k", "marked")
    assert '-       "text": "marked",' in said
    assert '+       "text": "changed",' in said
    assert "there is no cassette at" in run(TAPED, "-k", "fails", CI="1")


def test_help_imports_nothing(run):
    """The option is known, and no part of the client or the server was imported."""
    said = run("", "--help")
    assert "--lmstudio-record={none,once,new,all}" in said
    code = (
        "import sys, lmstudio.testing.plugin\n"
        "names = sorted(n for n in sys.modules if n.startswith('lmstudio'))\n"
        "print(names, {'attrs', 'cattrs', 'websockets'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    names = [
        "lmstudio",
        "lmstudio._version",
        "lmstudio.forks",
        "lmstudio.testing",
        "lmstudio.testing.plugin",
    ]
    assert f"{names} set()\n" == done.stdout


def test_it_is_an_entry_point():
    """Pytest finds the plugin by the metadata, under the name of its module."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    points = setup["options.entry_points"]["pytest11"].strip()
    assert "lmstudio.testing.plugin = lmstudio.testing.plugin" == points
