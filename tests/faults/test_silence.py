"""Issue 5: the server falls silent.

The error of `idle_timeout` names what was awaited and how far it was; a cancel is sent;
the client is usable afterwards.
"""

from __future__ import annotations

import time

import pytest

from lmstudio import LMStudioClient, LMStudioConnectionError, LMStudioTimeoutError
from lmstudio import session as session_module
from lmstudio.testing import NEVER, tool_call
from raw_server import RawServer
from scripts import is_cancel
from tcp_proxy import Hold, Proxy

PATIENCE = 5.0
#: Seconds of silence that are too many here.
IDLE = 0.4


def usable(client):
    """Whether the client goes on as if nothing had happened."""
    assert 2 == client.llm.get("any").count_tokens("one two")
    assert "hello" == client.llm.get("any").respond("hello").content
    return True


@pytest.fixture
def proxy(fake):
    with Proxy(fake.port) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize(
    "message, far, partial",
    [
        (2, "nothing has arrived", ""),
        (4, "100% of the prompt processed", ""),
        (5, "1 fragment so far", "Once "),
        (6, "2 fragments so far", "Once upon "),
    ],
)
@pytest.mark.parametrize("byte", [0, 9], ids=["between", "within"])
def test_a_prediction(fake, message, far, partial, byte):
    """Wherever the silence begins, the error says how far it was, with the text."""
    for idle in (IDLE, 4 * IDLE, 16 * IDLE):
        error = silenced(fake, message, byte, idle)
        if far in str(error):
            break  # else a busy machine was silent for so long before that
    assert f"prediction: no news from the server for {idle:g} s ({far})" == str(error)
    assert partial == error.partial


def silenced(fake, message, byte, idle):
    """The error of a prediction whose server is silent from a message on."""
    fake.reply(["Once ", "upon ", "a time", NEVER])
    gate = Hold()
    with Proxy(fake.port) as proxy, LMStudioClient(proxy.host) as client:
        proxy.plan("down", message, gate, byte)
        prediction = client.llm.get("any").respond("story", idle_timeout=idle)
        with pytest.raises(LMStudioTimeoutError) as caught:
            prediction.result()

        assert fake.wait_for(is_cancel)
        gate.open()  # what was held up comes late, and harms nothing
        assert usable(client)
        assert 1 == len([link for link in proxy.links if link.path == "/llm"])
    return caught.value


@pytest.mark.slow
def test_a_run(fake, proxy):
    """The same of a run with tools, in a later round too."""

    def tool() -> str:
        """Say something."""
        held.append(proxy.link().down.hold())
        return "something"

    held = []
    fake.reply([tool_call("tool")])
    with LMStudioClient(proxy.host) as client:
        with pytest.raises(LMStudioTimeoutError, match=f"for {IDLE:g} s"):
            client.llm.get("any").act("x", [tool], idle_timeout=IDLE)
        assert fake.wait_for(is_cancel)
        held[0].open()
        assert usable(client)


@pytest.mark.slow
def test_a_load(fake, proxy):
    """A load that reports nothing any more ends at its limit, and leaves no model."""
    fake.on_load([0.25, NEVER])
    with LMStudioClient(proxy.host) as client:
        with pytest.raises(LMStudioTimeoutError, match=r"^loadModel: .*\(25% done\)$"):
            client.llm.load("other", timeout=2 * IDLE)
        assert fake.wait_for(is_cancel)
        assert usable(client)
        assert ["any"] == fake.loaded()


@pytest.mark.slow
@pytest.mark.parametrize(
    "endpoint, call",
    [
        ("countTokens", lambda client: client.llm.get("any").count_tokens("x")),
        ("listLoaded", lambda client: client.llm.list_loaded()),
        ("getModelInfo", lambda client: client.llm.get("any").get_model_info()),
        ("unloadModel", lambda client: client.llm.unload("any")),
    ],
)
def test_a_call(fake, proxy, endpoint, call):
    """A call without an answer says which it was; its late answer harms nothing."""
    gate = Hold()
    proxy.plan("down", 2, gate)
    with LMStudioClient(proxy.host, idle_timeout=IDLE) as client:
        began = time.monotonic()
        with pytest.raises(LMStudioTimeoutError, match=endpoint):
            call(client)
        assert IDLE <= time.monotonic() - began
        gate.open()
        assert client.llm.list_loaded() is not None


@pytest.mark.slow
@pytest.mark.parametrize("steps", ["", "upgrade"], ids=["greeting", "credentials"])
def test_after_the_connection(monkeypatch, steps):
    """A server that accepts and says nothing is given up, with a hint."""
    monkeypatch.setattr(session_module, "CONNECT_TIME", IDLE)
    with (
        RawServer(steps) as server,
        LMStudioClient(server.host) as client,
        pytest.raises(LMStudioConnectionError, match="in time"),
    ):
        client.llm.list_loaded()


@pytest.mark.slow
def test_after_the_handshake():
    """A server that accepts the credentials and then no more: the call's limit."""
    with (
        RawServer() as server,
        LMStudioClient(server.host, idle_timeout=IDLE) as client,
    ):
        with pytest.raises(LMStudioTimeoutError, match="listLoaded"):
            client.llm.list_loaded()
        prediction = client.llm.get("any").respond("x", idle_timeout=IDLE)
        with pytest.raises(LMStudioTimeoutError, match="nothing has arrived"):
            prediction.result()
        peer = server.peer()
        seen = [peer.json() for _ in range(3)]
        assert {"type": "cancel"} == seen[2]["message"]
