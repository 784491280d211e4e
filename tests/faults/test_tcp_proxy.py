"""The proxy of the other tests here harms what it is told to, and nothing else."""

from __future__ import annotations

import socket
import threading

import pytest

import raw_server
from lmstudio.sender import frame_of
from raw_server import PATIENCE, RawServer, frame
from tcp_proxy import Hold, Proxy, corrupt, drop, fin, insert, join, reset, split

HEAD = b"GET /llm HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"
ANSWER = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
ONE, TWO, THREE = (frame(raw_server.TEXT, text) for text in (b"one", b"two", b"three"))
LONG = frame(raw_server.TEXT, b"x" * 70_000)


@pytest.fixture
def ends():
    """A proxy, and a function that opens a connection through it: both of its ends."""
    with RawServer("") as server, Proxy(server.port) as proxy:
        opened = []

        def link_up():
            client = socket.create_connection(("127.0.0.1", proxy.port), PATIENCE)
            opened.append(client)
            client.sendall(HEAD)
            peer = server.peer()
            assert HEAD == peer.exactly(len(HEAD))  # its faults are known by now
            return client, peer

        yield proxy, link_up
        for client in opened:
            client.close()


def exactly(sock, count):
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise EOFError(data)
        data += more
    return data


def rest(sock):
    data = b""
    while more := sock.recv(65536):
        data += more
    return data


def test_nothing_is_harmed(ends):
    """Without a fault all bytes go through, both ways, and each end follows."""
    proxy, link_up = ends
    client, peer = link_up()
    peer.send(ANSWER + ONE + LONG + TWO)
    assert ANSWER + ONE + LONG + TWO == exactly(client, len(ANSWER + ONE + LONG + TWO))
    sent = frame_of(raw_server.TEXT, b"x" * 200)
    client.sendall(sent)
    assert (raw_server.TEXT, b"x" * 200) == peer.frame()
    client.shutdown(socket.SHUT_WR)
    assert b"" == peer.socket.recv(1)
    peer.close()
    assert b"" == client.recv(1)
    assert "/llm" == proxy.link().path


def test_plain_http_passes(ends):
    """What does not become a websocket has no frames."""
    _, link_up = ends
    client, peer = link_up()
    answer = b"HTTP/1.1 200 OK\r\n\r\n\x81\x7ehello"
    peer.send(answer)
    peer.close()
    assert answer == rest(client)


@pytest.mark.parametrize(
    "fault, byte, seen",
    [
        (drop(), 0, ONE + THREE),
        (drop(), 3, ONE + TWO[:3] + THREE),
        (drop(1), 1, ONE + TWO[:1] + TWO[2:] + THREE),
        (corrupt(b"\xff"), 2, ONE + TWO[:2] + b"\xff" + TWO[3:] + THREE),
        (insert(b"??"), 0, ONE + b"??" + TWO + THREE),
        (fin, 0, ONE),
        (fin, 4, ONE + TWO[:4]),
        (split(1), 0, ONE + TWO + THREE),
        (join(2), 0, ONE + TWO + THREE),
    ],
    ids=["drop", "half", "lost", "corrupt", "insert", "fin", "cut", "split", "join"],
)
def test_faults_at_their_place(ends, fault, byte, seen):
    """A fault happens at its message and byte, and leaves all before it alone."""
    proxy, link_up = ends
    proxy.plan("down", 2, fault, byte)
    client, peer = link_up()
    peer.send(ANSWER + ONE + TWO + THREE)
    assert ANSWER + seen == exactly(client, len(ANSWER + seen))
    if fault is fin:
        assert b"" == client.recv(1)


def test_several_faults_in_one_message(ends):
    """They happen in the order of their places."""
    proxy, link_up = ends
    proxy.plan("down", 1, corrupt(b"E"), 4)
    proxy.plan("down", 1, corrupt(b"O"), 2)
    client, peer = link_up()
    peer.send(ANSWER + ONE)
    assert ANSWER + ONE[:2] + b"OnE" == exactly(client, len(ANSWER + ONE))


def test_reset(ends):
    """The client is told of a reset, not of an end."""
    proxy, link_up = ends
    proxy.plan("down", 1, reset)
    client, peer = link_up()
    peer.send(ANSWER)
    assert ANSWER == exactly(client, len(ANSWER))
    peer.send(ONE)
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_a_hold_is_a_delay_or_a_stall(ends):
    """Nothing passes it before it is opened; the other direction goes on."""
    proxy, link_up = ends
    gate = Hold()
    proxy.plan("down", 2, gate)
    client, peer = link_up()
    peer.send(ANSWER + ONE + TWO + THREE)
    assert ANSWER + ONE == exactly(client, len(ANSWER + ONE))
    assert gate.reached.wait(PATIENCE)
    client.sendall(frame_of(raw_server.TEXT, b"up"))
    assert (raw_server.TEXT, b"up") == peer.frame()
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(1)
    client.settimeout(PATIENCE)
    gate.open()
    assert TWO + THREE == exactly(client, len(TWO + THREE))


def test_a_stall_at_any_time(ends):
    """A test may stop a connection that has no plan, and it ends all the same."""
    proxy, link_up = ends
    client, peer = link_up()
    peer.send(ANSWER)
    assert ANSWER == exactly(client, len(ANSWER))
    _, down = proxy.link().stall()
    peer.send(ONE)
    assert down.reached.wait(PATIENCE)
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(1)


def test_plans_are_for_the_next_connection_of_their_path(ends):
    """A second connection goes unharmed."""
    proxy, link_up = ends
    proxy.plan("down", 0, fin)
    proxy.plan("down", 0, fin, path="/other")
    client, peer = link_up()
    peer.send(ANSWER)
    assert b"" == client.recv(1)
    client, peer = link_up()
    peer.send(ANSWER)
    assert ANSWER == exactly(client, len(ANSWER))


def test_refuse(ends):
    """No connection is taken any more, and those that are open go on."""
    proxy, link_up = ends
    client, peer = link_up()
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port), PATIENCE)
    peer.send(ANSWER)
    assert ANSWER == exactly(client, len(ANSWER))


def test_nobody_behind_it():
    """Without a server its clients are let in and turned out."""
    with (
        Proxy(raw_server.free_port()) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), PATIENCE) as client,
    ):
        assert b"" == client.recv(1)
    assert "proxy-accept" not in [thread.name for thread in threading.enumerate()]


def test_a_forward_proxy():
    """It is told where to go, says yes, and goes to its target."""
    with RawServer("") as server, Proxy(server.port, tunnels=True) as proxy:
        with socket.create_connection(("127.0.0.1", proxy.port), PATIENCE) as client:
            client.sendall(b"CONNECT lm.example:80 HTTP/1.1\r\n\r\n")
            assert exactly(client, 39).startswith(b"HTTP/1.1 200")
            client.sendall(HEAD)
            peer = server.peer()
            assert HEAD == peer.exactly(len(HEAD))
        assert "lm.example:80" == proxy.link().tunnel
