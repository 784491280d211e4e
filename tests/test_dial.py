"""A host is reached by whichever of its addresses answers, and soon."""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import ssl
import time

import pytest

import tls_files
from lmstudio import dial as module
from lmstudio.dial import HEAD_START, NotReached, dial, left, secured, trusting
from raw_server import PATIENCE, RawServer, free_port
from timing import quickest

REAL = socket.getaddrinfo
SIX, FOUR = socket.AF_INET6, socket.AF_INET


def soon(seconds=PATIENCE):
    return time.monotonic() + seconds


def resolve(monkeypatch, *hosts):
    """Let every name have these addresses, in this order."""

    def getaddrinfo(host, port, *rest):
        return [entry for one in hosts for entry in REAL(one, port, *rest)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def fail(monkeypatch, *numbers, step="connect", made=None):
    """Let IPv6 sockets fail in these ways, one after the other."""
    ways = [OSError(number, os.strerror(number)) for number in numbers]

    class Failing(socket.socket):
        def __init__(self, family=-1, *rest, **more):
            if family == SIX and step == "socket":
                raise ways.pop(0)
            # The machine of the test may have no IPv6 itself.
            super().__init__(FOUR if family == SIX else family, *rest, **more)
            self.wanted = family
            if made is not None:
                made.append(self)

        def connect(self, where):
            if self.wanted == SIX:
                raise ways.pop(0)
            super().connect(where)

    monkeypatch.setattr(socket, "socket", Failing)


WAYS = [
    *(errno.ECONNREFUSED, errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EHOSTUNREACH),
    *(errno.EPERM, errno.EACCES, errno.ETIMEDOUT, errno.EAFNOSUPPORT, errno.EINVAL),
]


@pytest.mark.parametrize("number", WAYS, ids=errno.errorcode.get)
@pytest.mark.parametrize("step", ["connect", "socket"])
def test_an_address_that_fails_gives_way(monkeypatch, number, step):
    """However the first address fails, the second is taken at once."""
    with RawServer("") as server:
        resolve(monkeypatch, "::1", "127.0.0.1")
        fail(monkeypatch, number, step=step)

        def once():
            before = time.monotonic()
            with dial("both", server.port, soon()) as sock:
                took = time.monotonic() - before
                assert ("127.0.0.1", server.port) == sock.getpeername()
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert PATIENCE - 1 < sock.gettimeout() <= PATIENCE
            return took

        quickest(HEAD_START, once)


@contextlib.contextmanager
def silent(host):
    """A port of a host where connecting gets no answer: its queue is full."""
    with contextlib.ExitStack() as stack:
        try:
            listener = stack.enter_context(socket.create_server((host, 0), backlog=0))
        except OSError:
            pytest.skip(f"this machine has no {host}")
        where = listener.getsockname()
        with selectors.DefaultSelector() as selector:
            for _ in range(64):
                sock = stack.enter_context(socket.socket())
                sock.setblocking(False)
                sock.connect_ex(where)
                key = selector.register(sock, selectors.EVENT_WRITE)
                if not selector.select(0.2):
                    break
                selector.unregister(key.fileobj)
            else:
                pytest.skip("this system takes any number of connections")
        yield where[1]


@pytest.mark.slow
def test_a_silent_address_has_a_head_start_only(monkeypatch):
    """One that does not answer costs a quarter of a second, and no socket."""
    with silent("127.0.0.2") as port, RawServer("", port=port):
        resolve(monkeypatch, "127.0.0.2", "127.0.0.1")
        made = []
        fail(monkeypatch, made=made)
        before = time.monotonic()
        with dial("both", port, soon()) as sock:
            assert time.monotonic() - before >= HEAD_START
            assert "127.0.0.1" == sock.getpeername()[0]
            assert -1 == made[0].fileno()  # later ones are the server's


@pytest.mark.slow
def test_silence_ends_at_the_deadline(monkeypatch):
    """Then the error says which addresses gave no answer, and that one refused."""
    monkeypatch.setattr(module, "HEAD_START", 0.01)
    with silent("127.0.0.2") as port:
        resolve(monkeypatch, "127.0.0.2")
        with pytest.raises(TimeoutError):
            dial("one", port, soon(0.1))

        resolve(monkeypatch, "127.0.0.2", "127.0.0.1")
        with pytest.raises(NotReached) as caught:
            dial("both", port, soon(0.9))
    (one, refused), (other, late) = caught.value.failures
    assert ("IPv4 127.0.0.1", errno.ECONNREFUSED) == (one, refused.errno)
    assert "IPv4 127.0.0.2" == other
    assert isinstance(late, TimeoutError)


def test_a_deadline_that_is_over():
    """Without time left nothing is waited for: it is a time limit that ran out."""
    with silent("127.0.0.1") as port, pytest.raises(TimeoutError):
        dial("127.0.0.1", port, soon(-5.0))


@pytest.mark.parametrize(
    "number", [*WAYS[1:6], errno.EAFNOSUPPORT, errno.EINVAL], ids=errno.errorcode.get
)
def test_the_most_telling_failure_comes_first(monkeypatch, number):
    """That a host refused says more than what this machine makes of an address."""
    resolve(monkeypatch, "::1", "127.0.0.1")
    fail(monkeypatch, number)
    with pytest.raises(NotReached) as caught:
        dial("both", free_port(), soon())
    assert errno.ECONNREFUSED == caught.value.errno
    assert ["IPv4 127.0.0.1", "IPv6 ::1"] == [one for one, _ in caught.value.failures]
    assert number == caught.value.failures[1][1].errno


def test_the_order_of_failures():
    """From what a host says, over silence, to what this machine can't do."""
    numbers = [
        *(errno.EMFILE, errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EACCES),
        *(errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL),
        errno.EAFNOSUPPORT,
    ]
    failures = [(f"IPv4 {number}", OSError(number, "")) for number in numbers]
    assert failures == NotReached(failures[::-1]).failures


def test_families_take_turns_and_nothing_is_tried_twice(monkeypatch):
    """Each address has one try, the family of the system's choice first."""
    resolve(monkeypatch, "::1", "::2", "::1", "127.0.0.1", "127.0.0.1")
    made, port = [], free_port()
    fail(monkeypatch, errno.EADDRNOTAVAIL, errno.EADDRNOTAVAIL, made=made)
    with pytest.raises(NotReached) as caught:
        dial("many", port, soon())
    tried = [where for where, _ in caught.value.failures]
    assert ["IPv4 127.0.0.1", "IPv6 ::1", "IPv6 ::2"] == tried
    assert [SIX, FOUR, SIX] == [sock.wanted for sock in made]
    assert [-1, -1, -1] == [sock.fileno() for sock in made]


def test_an_interruption_leaves_no_sockets(monkeypatch):
    """Ctrl-C in the middle closes what is connecting."""

    class Interrupted(module.Selector):
        def select(self, timeout=None):
            raise KeyboardInterrupt

    made = []
    with RawServer("") as server, monkeypatch.context() as patch:
        fail(patch, made=made)
        patch.setattr(module, "Selector", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            dial("127.0.0.1", server.port, soon())
        assert -1 == made[0].fileno()


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a" * 70 + ".example"])
def test_names_that_are_none(host):
    """An unknown name, and one that can't be any, are errors of their own."""
    with pytest.raises((socket.gaierror, UnicodeError)):
        dial(host, 1, soon())


def test_time_left():
    """What is left is never nothing, which would mean not to wait."""
    assert 0.001 == left(soon(-9.0))
    assert 8.0 < left(soon(9.0)) <= 9.0


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """A certificate and a server's TLS context."""
    return tls_files.make(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "WEBSOCKET_CLIENT_CA_BUNDLE"])
def test_trusted_by_a_variable(tls, monkeypatch, tmp_path, variable):
    """The file of a variable is believed; keys are logged where it is asked for."""
    keys = tmp_path / "keys"
    monkeypatch.setenv(variable, str(tls[0]))
    monkeypatch.setenv("SSLKEYLOGFILE", str(keys))
    with RawServer("", context=tls[1]) as server:
        sock = dial("localhost", server.port, soon())
        with secured(sock, "localhost", soon()) as safe:
            assert isinstance(safe, ssl.SSLSocket)
            safe.sendall(b"hello")
            assert b"hello" == server.peer().exactly(5)
    assert "TRAFFIC_SECRET" in keys.read_text()


def test_a_folder_of_certificates(tmp_path, monkeypatch):
    """The library's variable may name a folder; what is not there counts nothing."""
    for name in (tmp_path, tmp_path / "nowhere"):
        monkeypatch.setenv("WEBSOCKET_CLIENT_CA_BUNDLE", str(name))
        context = trusting()
        assert context.check_hostname
        assert ssl.CERT_REQUIRED == context.verify_mode


def test_tls_that_fails_closes_the_socket(tls):
    """A certificate that nobody trusts ends the connection."""
    with RawServer("", context=tls[1]) as server:
        sock = dial("127.0.0.1", server.port, soon())
        with pytest.raises(ssl.SSLCertVerificationError):
            secured(sock, "localhost", soon())
        assert -1 == sock.fileno()
        with pytest.raises(OSError):
            server.peer()


def test_tls_has_a_time_limit():
    """A server that accepts and says nothing is left at the deadline."""
    with RawServer("") as server:
        sock = dial("127.0.0.1", server.port, soon())
        with pytest.raises(TimeoutError):
            secured(sock, "localhost", soon(0.1))
        assert -1 == sock.fileno()
