"""Users of official clients get in with a token, and learn why without one."""

from __future__ import annotations

import json
import subprocess

import pytest

from interop import environments
from interop.clients import LONGEST_RUN, embedded_server
from interop.conftest import make_home
from lmstudio.testing import DROP, Failure, FakeServer, Frame

SECRET = "0123456789abcdefghij"
TOKEN = f"sk-lm-abcd1234:{SECRET}"
#: The parts of the token as identifier and passkey, as clients before tokens do it.
PARTS = {"clientIdentifier": "abcd1234", "clientPasskey": SECRET}
JS = """
const [modules, baseUrl, options] = process.argv.slice(1);
const load = require("node:module").createRequire(modules + "/x.js");
const { LMStudioClient } = load("@lmstudio/sdk");
const logger = { debug() {}, info() {}, warn() {}, error() {} };
const client = new LMStudioClient({ baseUrl, logger, ...JSON.parse(options) });
client.system.listDownloadedModels().then(
  (models) => console.log(JSON.stringify({ models: models.length })),
  (error) => console.log(JSON.stringify({ error: error.message })),
).then(() => process.exit(0));
"""
PYTHON = """
import sys, lmstudio
with lmstudio.Client(sys.argv[1]) as client:
    print(client.list_downloaded_models())
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory, model_file):
    """A server that asks for a token."""
    home = make_home(tmp_path_factory.mktemp("home-tokens"), model_file)
    with embedded_server(home, api_token=TOKEN) as address:
        yield address


def said(command):
    """What a client printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_RUN)
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("options", "is_let_in"),
    [(PARTS, True), ({}, False), (PARTS | {"clientPasskey": "wrong"}, False)],
)
def test_javascript(server, options, is_let_in):
    """The SDK for JavaScript sends the token's parts; refused, it says why."""
    node, modules = environments.javascript()
    url = f"ws://{server}"
    got = said([node, "-e", JS, str(modules), url, json.dumps(options)])
    if is_let_in:
        assert {"models": 1} == got
    else:
        assert "API tokens" in got["error"]
        assert "abcdefghij" not in got["error"]


@pytest.mark.parametrize(
    ("options", "is_let_in"), [({"apiToken": TOKEN}, True), ({}, False)]
)
def test_the_newest_javascript(server, options, is_let_in):
    """The newest one takes the token as it is."""
    node, folders = environments.schemas()
    modules = folders["2.0.0"].parents[1]
    script = JS.replace("@lmstudio/sdk", "sdk-2.0.0")
    url = f"ws://{server}"
    got = said([node, "-e", script, str(modules), url, json.dumps(options)])
    assert ({"models": 1} == got) == is_let_in
    assert is_let_in or "API tokens" in got["error"]


def test_python(server):
    """The SDK for Python of before tokens fails at once, where it reads the refusal.

    It makes a dictionary of the reason, which is a text, so its users don't see it.
    """
    words = [str(environments.python()), "-I", "-c", PYTHON, server]
    done = subprocess.run(words, capture_output=True, text=True, timeout=LONGEST_RUN)
    assert (1, "") == (done.returncode, done.stdout)
    assert "Authentication failed" in done.stderr


def test_a_fake_server_that_refuses_javascript():
    """Users of official clients can test what their program does without a token."""
    node, modules = environments.javascript()
    with FakeServer() as fake:
        fake.fail("authenticate", "Unknown token", times=None)
        got = said([node, "-e", JS, str(modules), fake.url, "{}"])
        assert fake.wait_for(lambda seen: "authVersion" in seen.message)
    assert "Failed to authenticate: Unknown token" == got["error"]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (Failure("Unknown token"), "Authentication failed"),
        # What that SDK takes for a reason is an object.
        (
            [Frame({"success": False, "error": {"title": "Unknown token"}}), DROP],
            "LMStudioServerError: Authentication failed: Unknown token",
        ),
    ],
)
def test_a_fake_server_that_refuses_python(script, expected):
    """The same with the SDK for Python, and with a reason in a form that it reads."""
    with FakeServer() as fake:
        fake.before("authenticate", script, times=None)
        words = [str(environments.python()), "-I", "-c", PYTHON, fake.host]
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=LONGEST_RUN
        )
    assert (1, "") == (done.returncode, done.stdout)
    assert expected in done.stderr
