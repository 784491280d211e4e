"""Every spelling of an address is understood, and a wrong one explained."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmstudio.address import Address
from lmstudio.errors import LMStudioError, LMStudioTypeError, LMStudioValueError


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("localhost", "ws://localhost:1234"),
        (" localhost:8080\n", "ws://localhost:8080"),
        ("localhost:", "ws://localhost:1234"),
        ("LOCALHOST", "ws://localhost:1234"),
        ("127.0.0.1:1", "ws://127.0.0.1:1"),
        ("http://host:8080/", "ws://host:8080"),
        ("https://host", "wss://host:443"),
        ("https://host:8443", "wss://host:8443"),
        ("WSS://host/models//", "wss://host:443/models"),
        ("ws://host/a/b", "ws://host:1234/a/b"),
        ("host/a%20b", "ws://host:1234/a%20b"),
        ("::1", "ws://[::1]:1234"),
        ("[::1]", "ws://[::1]:1234"),
        ("[::1]:8080", "ws://[::1]:8080"),
        ("fe80::1%eth0", "ws://[fe80::1%eth0]:1234"),
        ("https://[::1]", "wss://[::1]:443"),
        ("host.example.com:65535", "ws://host.example.com:65535"),
    ],
)
def test_spellings(text, url):
    """Hosts, ports and URLs of four schemes, with what is left out filled in."""
    assert url == str(Address.parse(text))
    assert Address.parse(url) == Address.parse(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it has no host"),
        (":8080", "it has no host"),
        ("http://", "it has no host"),
        ("a b", "it has no host"),
        ("a,b", "it has no host"),
        ("8080", "it is a number without a host"),
        ("ftp://host", "the scheme 'ftp' is unknown"),
        ("host:0", "the port is 0"),
        ("host:99999", "Port out of range 0-65535"),
        ("host:abc", "Port could not be cast to integer value as 'abc'"),
        ("[::1", "Invalid IPv6 URL"),
        ("host?x=1", "it has a query or a fragment"),
        ("host#x", "it has a query or a fragment"),
        ("a\0b", "its host has control characters"),
        ("a" * 2 + "\x7f", "its host has control characters"),
        ("host/a b", "its path has characters that must be written as %xx"),
        ("host/ä", "its path has characters that must be written as %xx"),
    ],
)
def test_wrong_spellings(text, problem):
    """What is no address is refused with the reason and what would be right."""
    with pytest.raises(LMStudioValueError) as caught:
        Address.parse(text)
    assert (
        f"{text!r} is no server address: {problem}; write host:port, http://host:port,"
        " ws://host:port, or the same with https or wss" == str(caught.value)
    )


def test_hosts_that_can_be_none():
    """A host has at most 255 characters, and the error repeats at most 200."""
    assert "a" * 255 == Address.parse("a" * 255).host
    for wrong in ("a" * 256, "a" * 5000):
        with pytest.raises(LMStudioValueError) as caught:
            Address.parse(wrong)
        assert ": its host has more than 255 characters; " in str(caught.value)
        assert len(str(caught.value)) < 400
    with pytest.raises(LMStudioValueError) as caught:
        Address.parse("x" * 5000 + "://a")
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("host", ["", "\0", "a b", "a" * 256, "1234", "a\ud800"])
def test_an_address_of_a_wrong_host(host):
    """Also without `parse` no address has a host that can be none."""
    with pytest.raises(LMStudioValueError, match="is no server address: it"):
        Address(host)


@pytest.mark.parametrize(
    "text", ["ws://me:secret@host", "secret@host", "x:secret@host:abc", "a\nsecret@b"]
)
def test_secrets_are_not_repeated(text):
    """What stands before an @ does not get into the message."""
    with pytest.raises(LMStudioValueError) as caught:
        Address.parse(text)
    assert "secret" not in str(caught.value)
    assert "…@" in str(caught.value)


@pytest.mark.parametrize("value", [1234, b"localhost", ("localhost", 1234)])
def test_only_text_is_an_address(value):
    """Other types are refused, as a wrong type and as a wrong value."""
    with pytest.raises(LMStudioTypeError, match="a server address is text, not "):
        Address.parse(value)


@given(st.text("aZ09:/.@[]%?#-+ \n\x00\u200bé", max_size=30))
def test_any_text_is_an_address_or_an_error_of_ours(text):
    """No text gets anything but an address or our error out of `parse`."""
    try:
        address = Address.parse(text)
    except LMStudioError:
        return
    assert 0 < address.port < 65536
    assert not set(" \r\n") & set(address.socket_url("llm"))


def test_urls():
    """The address of sockets, of plain HTTP, and of one namespace."""
    address = Address("::1", 8080, tls=True, prefix="/a")

    assert "[::1]:8080" == address.netloc
    assert "wss://[::1]:8080/a/llm" == address.socket_url("llm")
    assert "https://[::1]:8080/a" == address.http_url
    assert "http://host:1234" == Address("host").http_url


@pytest.mark.parametrize(
    ("host", "is_private"),
    [
        ("localhost", True),
        ("a.localhost", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("192.168.1.2", True),
        ("10.0.0.1", True),
        ("nas", True),
        ("nas.", True),
        ("localhost.", True),
        ("a.LocalHost", True),
        ("host.docker.internal", True),
        ("host.containers.internal", True),
        ("nas.local", True),
        ("nas.local.", True),
        ("pc.lan", True),
        ("nas.home.arpa", True),
        ("127.1", True),
        ("10.1", True),
        ("169.254.1.1", True),
        ("fe80::1%eth0", True),
        ("fd7a:115c:a1e0::1", True),
        ("::ffff:10.0.0.1", True),
        ("100.64.0.1", True),
        ("100.127.255.255", True),
        ("100.63.255.255", False),
        ("100.128.0.0", False),
        ("::ffff:8.8.8.8", False),
        ("8.8.8.8", False),
        ("8.8", False),
        ("2001:4860:4860::8888", False),
        ("lms.example.com", False),
        ("internal.example.com", False),
        ("notlan.example", False),
        ("local.example", False),
    ],
)
def test_private_hosts(host, is_private):
    """This machine, private networks and their names are no business of a proxy."""
    assert is_private == Address(host).is_private
