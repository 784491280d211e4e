"""Issue 5: the server restarts; the machine slept (socket dead without FIN).

The next call connects again by itself; a dead peer is noticed by ping within 30 s.
"""

from __future__ import annotations

import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor

import pytest

from lmstudio import LMStudioClient, LMStudioWebsocketError, connection, sender
from lmstudio.address import Address
from lmstudio.testing import NEVER, FakeServer
from tcp_proxy import Proxy
from timing import quickest

PATIENCE = 10.0
#: A second of the real limits takes so many in these tests.
SCALE = 1 / 20
#: Seconds in which a dead peer must be noticed.
NOTICED = 30.0
#: Seconds in which the connection's own limits have it noticed, however its looks fall.
LIMITS = connection.DEAD_AFTER + connection.PING_AFTER / 4
#: Seconds that it may take here. The machine is no faster than in earnest: what the
#: limits leave to it is not scaled. (A busy one may need 0.3 s to connect again.)
LIMIT = LIMITS * SCALE + (NOTICED - LIMITS)


def tool() -> str:
    """Say something."""
    return "something"


@pytest.fixture
def impatient(monkeypatch):
    """The limits of the connection, scaled down."""
    for name in ("PING_AFTER", "DEAD_AFTER"):
        real = getattr(connection, name)
        monkeypatch.setattr(connection, name, real * SCALE)
    for name in ("SEND_STALL", "SLICE", "SEND_SILENT"):
        real = getattr(sender, name)
        monkeypatch.setattr(sender, name, real * SCALE)


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.llm.list_loaded(),
        lambda client: client.llm.get("any").count_tokens("one two"),
        lambda client: client.llm.get("any").respond("hello").content,
        lambda client: client.llm.get("any").act("hello", [tool]).result(),
        lambda client: client.llm.load("other", no_hup=True),
    ],
    ids=["list", "count", "respond", "act", "load"],
)
@pytest.mark.parametrize("how", ["server closes", "reset"])
def test_the_next_call_connects_again(call, how):
    """After a restart the first call of any kind just works, without a pause."""
    with (
        FakeServer(["any", "other"], loaded=["any"]) as fake,
        Proxy(fake.port) as proxy,
        LMStudioClient(proxy.host) as client,
    ):
        client.llm.list_loaded()
        used = client._session._connections["llm"]
        if how == "reset":
            proxy.link().reset()
        else:
            fake.drop_connections()
        used._reader.join(PATIENCE)
        assert call(client)
        assert 2 == len([link for link in proxy.links if link.path == "/llm"])


def test_a_restart_in_the_middle_of_nothing():
    """Another process on the same port: handles are names, and stay good."""
    with FakeServer(["any"], loaded=["any"]) as first:
        client = LMStudioClient(first.host)
        model = client.llm.get("any")
        assert "hello" == model.respond("hello").content
    with client, FakeServer(["any"], loaded=["any"], port=first.port):
        assert "hello" == model.respond("hello").content


def test_the_limits_add_up():
    """However the looks fall, a dead peer is found within 30 s of silence."""
    assert LIMITS <= NOTICED
    assert (connection.PINGS + 1) * connection.PING_AFTER / 4 <= (
        connection.DEAD_AFTER - connection.PING_AFTER
    )
    assert sender.SEND_SILENT + sender.SLICE <= NOTICED


@pytest.mark.parametrize("last", [0.0, 0.1, 2.4, 9.9, 10.0, 500.0])
def test_the_looks_find_it_in_time(monkeypatch, last):
    """By the clock alone: a peer that falls silent is given up within 30 s."""
    clock = types.SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr(connection, "time", clock)
    now, shut, looks = 0.0, [], []
    peer = types.SimpleNamespace(
        heard=0.0,
        is_mid_frame=False,
        ping=lambda: True,
        close=lambda: shut.append(now),
    )
    worker = types.SimpleNamespace(at=lambda when, job: looks.append((when, job)))
    address = Address.parse("localhost:1")
    watched = connection.Connection(peer, address, "llm", worker)
    looks.append((connection.PING_AFTER, watched._check_life))
    while looks:
        now, look = looks.pop()
        peer.heard = min(now, last)
        look()
    assert last + connection.DEAD_AFTER <= shut[0] <= last + LIMITS
    assert "no sign of life" in watched._ended


@pytest.mark.slow
def test_asleep_in_a_stream(impatient, fake):
    """A prediction on a dead socket fails in time; then the next connects anew."""
    fake.reply(["text", NEVER], times=None, when="story")

    def once():
        with Proxy(fake.port) as proxy, LMStudioClient(proxy.host) as client:
            prediction = client.llm.get("any").respond("story")
            assert "text" == next(iter(prediction))
            proxy.link().stall()
            began = time.monotonic()
            with pytest.raises(LMStudioWebsocketError, match="no sign of life") as seen:
                prediction.result()
            took = time.monotonic() - began
            assert "text" == seen.value.partial
            assert "hello" == client.llm.get("any").respond("hello").content
            return took

    quickest(LIMIT, once)


@pytest.mark.slow
def test_asleep_while_idle(impatient, fake):
    """A call into a socket that died meanwhile is answered over a new one."""

    def once():
        with Proxy(fake.port) as proxy, LMStudioClient(proxy.host) as client:
            client.llm.list_loaded()
            proxy.link().stall()
            began = time.monotonic()
            assert 2 == client.llm.get("any").count_tokens("one two")
            assert 2 == len([link for link in proxy.links if link.path == "/llm"])
            return time.monotonic() - began

    quickest(LIMIT, once)


@pytest.mark.slow
def test_asleep_and_nobody_asks(impatient, fake):
    """Also without any request a dead connection is found, and not used again."""

    def once():
        with Proxy(fake.port) as proxy, LMStudioClient(proxy.host) as client:
            client.llm.list_loaded()
            used = client._session._connections["llm"]
            proxy.link().stall()
            began = time.monotonic()
            used._reader.join(PATIENCE)
            took = time.monotonic() - began
            assert not used.is_usable
            assert "hello" == client.llm.get("any").respond("hello").content
            return took

    quickest(LIMIT, once)


@pytest.mark.slow
def test_asleep_in_a_long_prompt(impatient, fake):
    """A sender in mid-frame keeps pings from going out; it is released all the same."""
    text = "x" * 8_000_000

    def once():
        with Proxy(fake.port) as proxy, LMStudioClient(proxy.host) as client:
            model = client.llm.get("any")
            assert "hello" == model.respond("hello").content
            up, _ = proxy.link().stall()
            used = client._session._connections["llm"]
            with ThreadPoolExecutor(1) as pool:
                pool.submit(model.respond, text)
                assert up.reached.wait(PATIENCE)
                began = time.monotonic()
                used._reader.join(PATIENCE)
                took = time.monotonic() - began
                assert not used.is_usable
            return took

    quickest(LIMIT, once)


@pytest.mark.slow
def test_only_the_way_back_is_dead(impatient, fake):
    """A peer that gets all and says nothing is dead: no pong comes."""

    def once():
        with Proxy(fake.port) as proxy, LMStudioClient(proxy.host) as client:
            client.llm.list_loaded()
            proxy.link().down.hold()
            began = time.monotonic()
            assert 2 == client.llm.get("any").count_tokens("one two")
            return time.monotonic() - began

    quickest(LIMIT, once)


@pytest.mark.slow
def test_alive_and_silent(impatient, fake):
    """A server that has nothing to say answers pings, and keeps its streams."""
    fake.reply(["text", NEVER])
    with Proxy(fake.port) as proxy, LMStudioClient(proxy.host) as client:
        prediction = client.llm.get("any").respond("story")
        used = client._session._connections["llm"]
        begun = proxy.link().down.passed
        # Three times the life of a dead one, counted by the pongs that came.
        looks = threading.Event()
        real = used._check_life

        def look():
            real()
            if proxy.link().down.passed >= begun + 8:
                looks.set()

        used._check_life = look
        used._worker.soon(look)
        assert looks.wait(PATIENCE)
        assert used.is_usable
        assert not prediction.done()
        prediction.cancel()
