"""Issue 5: a proxy variable is set; NO_PROXY; IPv6 host; `localhost` that is both.

No proxy for this machine and private hosts; NO_PROXY is honoured; any address of a name
that answers is good.
"""

from __future__ import annotations

import errno
import os
import socket

import pytest

from lmstudio import LMStudioClient, LMStudioConnectionError
from raw_server import RawServer, free_port
from tcp_proxy import Proxy

#: A name that only a proxy could know.
FAR = "lm.example"
VARIABLES = ["http_proxy", "https_proxy", "all_proxy", "no_proxy"]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    """Begin with none of the variables, in either spelling."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY"])
def test_a_far_host_goes_through_the_proxy(fake, monkeypatch, name):
    """The proxy is asked for the host by its name, and all works through it."""
    with Proxy(fake.port, tunnels=True) as proxy:
        monkeypatch.setenv(name, f"http://{proxy.host}")
        with LMStudioClient(f"{FAR}:1234") as client:
            assert "hello" == client.llm.get("any").respond("hello").content
        assert f"{FAR}:1234" == proxy.link().tunnel


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_needs_no_proxy(fake, monkeypatch, host):
    """A proxy variable changes nothing about a server on this machine."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    for name in VARIABLES[:3]:
        monkeypatch.setenv(name, nowhere)
    with LMStudioClient(f"{host}:{fake.port}") as client:
        assert "hello" == client.llm.get("any").respond("hello").content


@pytest.mark.parametrize(
    "host",
    [
        *("nas", "host.docker.internal", "host.containers.internal", "nas.local"),
        *("pc.lan", "nas.home.arpa", "localhost.", "a.localhost", "100.101.102.103"),
    ],
)
def test_this_network_needs_no_proxy(fake, monkeypatch, host):
    """Names that only a network at home or at work has are asked directly."""
    resolve(monkeypatch, **{host.replace(".", "_"): ["127.0.0.1"]})
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    with LMStudioClient(f"{host}:{fake.port}") as client:
        assert "hello" == client.llm.get("any").respond("hello").content


def resolve(monkeypatch, **hosts):
    """Let names have these addresses, and no others."""
    real = socket.getaddrinfo

    def getaddrinfo(host, port, *rest, **more):
        found = hosts.get(str(host).replace(".", "_"), [host])
        return [entry for one in found for entry in real(one, port, *rest, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize("excluded", [FAR, ".example", "*", f"other.test,{FAR}"])
def test_no_proxy(fake, monkeypatch, excluded):
    """What NO_PROXY names is asked directly."""
    resolve(monkeypatch, lm_example=["127.0.0.1"])
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("no_proxy", excluded)
    with LMStudioClient(f"{FAR}:{fake.port}") as client:
        assert "hello" == client.llm.get("any").respond("hello").content


def test_a_proxy_that_is_gone(monkeypatch):
    """The error blames the proxy and says what helps."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    with (
        LMStudioClient(f"{FAR}:1234") as client,
        pytest.raises(LMStudioConnectionError, match="NO_PROXY") as caught,
    ):
        client.llm.list_loaded()
    assert "proxy" == caught.value.problem


def test_a_wrong_proxy_variable(monkeypatch):
    """The error blames the variable."""
    monkeypatch.setenv("http_proxy", "http://proxy:wrong")
    with (
        LMStudioClient(f"{FAR}:1234") as client,
        pytest.raises(LMStudioConnectionError, match="wrong proxy variable") as caught,
    ):
        client.llm.list_loaded()
    assert "proxy" == caught.value.problem


@pytest.mark.parametrize(
    "number",
    [
        *(errno.ECONNREFUSED, errno.ENETUNREACH, errno.EADDRNOTAVAIL),
        *(errno.EHOSTUNREACH, errno.EPERM, errno.EACCES, errno.ETIMEDOUT),
    ],
    ids=errno.errorcode.get,
)
def test_ipv6_that_can_not_be_used(fake, monkeypatch, number):
    """However IPv6 fails for a name of both, IPv4 is tried; errors name both."""
    resolve(monkeypatch, localhost=["::1", "127.0.0.1"])

    class NoSix(socket.socket):
        def connect(self, where):
            if ":" in where[0]:
                raise OSError(number, os.strerror(number))
            super().connect(where)

    nowhere = free_port()
    monkeypatch.setattr(socket, "socket", NoSix)
    with LMStudioClient(f"localhost:{fake.port}") as client:
        assert "hello" == client.llm.get("any").respond("hello").content
    with (
        LMStudioClient(f"localhost:{nowhere}") as client,
        pytest.raises(LMStudioConnectionError, match="IPv4 127") as caught,
    ):
        client.llm.list_loaded()
    assert "refused" == caught.value.problem
    assert "IPv6 ::1" in str(caught.value)


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@needs_ipv6
@pytest.mark.parametrize("spelling", ["[::1]:{}", "ws://[::1]:{}", "http://[::1]:{}/"])
def test_an_ipv6_host(spelling):
    """An address of IPv6 is good in any spelling that has brackets."""
    with (
        RawServer(family=socket.AF_INET6) as server,
        LMStudioClient(spelling.format(server.port)) as client,
    ):
        answered(client, server)


@needs_ipv6
@pytest.mark.parametrize("order", [["::1", "127.0.0.1"], ["127.0.0.1", "::1"]])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_localhost_that_is_both(monkeypatch, order, family):
    """Whichever address comes first, the one that answers is taken."""
    resolve(monkeypatch, localhost=order)
    with (
        RawServer(family=family) as server,
        LMStudioClient(f"localhost:{server.port}") as client,
    ):
        answered(client, server)


def answered(client, server):
    """A call is answered over the connection of this server."""
    prediction = client.llm.get("any").respond("x")
    peer = server.peer()
    asked = peer.json()
    peer.text({"type": "channelError", "channelId": asked["channelId"], "error": {}})
    assert "predict" == asked["endpoint"]
    assert prediction.exception(5) is not None
