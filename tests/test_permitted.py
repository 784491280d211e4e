"""Real servers can be forbidden, and nothing is sent to them then."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from lmstudio import LMStudioClient, LMStudioRealModelError, permitted
from lmstudio.address import Address
from lmstudio.discovery import greet
from lmstudio.testing import FakeServer, forbid_real_models


@pytest.fixture
def listener():
    """A socket that takes connections, and is no stand-in."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.setblocking(False)
        yield made


def test_a_real_server_is_refused_before_a_byte(listener):
    """The error names what would have been reached, and nobody has knocked there."""
    host = f"127.0.0.1:{listener.getsockname()[1]}"
    with forbid_real_models(), LMStudioClient(host) as client:
        with pytest.raises(LMStudioRealModelError) as caught:
            client.llm.list_loaded()
        with pytest.raises(LMStudioRealModelError):
            greet(Address.parse(host))
    assert [f"ws://{host}"] == caught.value.addresses
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_looking_for_a_server_is_refused_too(monkeypatch):
    """Without an address nothing is asked but stand-ins."""
    monkeypatch.delenv("LMSTUDIO_HOST", raising=False)
    with (
        forbid_real_models(),
        LMStudioClient() as client,
        pytest.raises(LMStudioRealModelError, match=r"ws://127\.0\.0\.1:1234"),
    ):
        client.llm.list_loaded()


def test_a_stand_in_that_is_found(monkeypatch, tmp_path):
    """A fake server that the info file names is found, and nothing else is asked."""
    with FakeServer(loaded=["any"]) as fake:
        info = tmp_path / "http-server.json"
        info.write_text(f'{{"port": {fake.port}}}')
        monkeypatch.setenv("LMS_API_SERVER_INFO_PATH", str(info))
        monkeypatch.delenv("LMSTUDIO_HOST", raising=False)
        with forbid_real_models(), LMStudioClient() as client:
            assert ["any"] == [model.identifier for model in client.llm.list_loaded()]


def test_stand_ins_are_those_that_run():
    """A port is allowed as long as a fake server has it."""
    with forbid_real_models():
        with FakeServer() as fake:
            address = Address("127.0.0.1", fake.port)
            elsewhere = Address("10.0.0.1", fake.port)
            during = [permitted.is_permitted(a) for a in (address, elsewhere)]
        after = permitted.is_permitted(address)
    assert [True, False] == during
    assert after is False
    assert permitted.is_permitted(address)


def test_blocks_may_be_nested():
    """The outer block counts until its end."""
    address = Address("127.0.0.1", 1)
    with forbid_real_models():
        with forbid_real_models():
            pass
        assert not permitted.is_permitted(address)
    assert permitted.is_permitted(address)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", True),
        ("0", True),
        ("off", True),
        ("1", False),
        ("TRUE", False),
        ("127.0.0.1:41000", True),
        ("127.0.0.1:41001, localhost:2", False),
    ],
)
def test_the_variable(monkeypatch, value, expected):
    """It forbids all, nothing, or all but what it names."""
    monkeypatch.setenv("LMSTUDIO_FORBID_REAL_MODELS", value)
    assert expected == permitted.is_permitted(Address("127.0.0.1", 41000))


@pytest.mark.slow
def test_another_process():
    """The variable lets a child reach this process's fake server, and no other."""
    code = (
        "import sys, lmstudio\n"
        "with lmstudio.LMStudioClient(sys.argv[1]) as client:\n"
        "    print(client.llm.list_loaded()[0].identifier)\n"
        "try:\n"
        "    lmstudio.LMStudioClient('127.0.0.1:1').llm.list_loaded()\n"
        "except lmstudio.LMStudioRealModelError:\n"
        "    print('refused')\n"
    )
    with FakeServer(loaded=["any"]) as fake:
        path = os.pathsep.join(p for p in sys.path if p)
        environment = os.environ | {"PYTHONPATH": path}
        environment["LMSTUDIO_FORBID_REAL_MODELS"] = fake.host
        done = subprocess.run(
            [sys.executable, "-c", code, fake.host],
            env=environment,
            capture_output=True,
            text=True,
        )
    assert ("any\nrefused\n", "") == (done.stdout, done.stderr)
