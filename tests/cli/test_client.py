"""The options that say which server."""

from __future__ import annotations

import pytest

from lmstudio.cli.client import connected, spelled


@pytest.mark.parametrize(
    ("host", "port", "address"),
    [
        ("box", None, "ws://box:1234"),
        ("box:99", None, "ws://box:99"),
        (None, 99, "ws://127.0.0.1:99"),
        ("box", 99, "ws://box:99"),
        ("wss://box", 99, "wss://box:99"),
        ("::1", 99, "ws://[::1]:99"),
        ("::1", None, "ws://[::1]:1234"),
    ],
)
def test_addresses(host, port, address):
    """Any spelling of the address goes together with the port."""
    with connected(host, port) as client:
        assert address == client.address


def test_nothing_given():
    """Without the options the client looks for a server itself."""
    assert spelled(None, None) is None


@pytest.mark.parametrize("words", [("--host", "a:1", "--port", "2"), ("--host", "")])
def test_wrong_addresses(lms, words):
    """An address that can't be is a wrong command line."""
    result = lms("ps", *words)

    assert (2, "") == (result.exit_code, result.stdout)
    assert "is no server address" in result.stderr
