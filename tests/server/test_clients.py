"""Sockets that show one identifier and passkey are one client until the last closes."""

from __future__ import annotations

import pytest

from lmstudio.server.clients import Clients, WrongPasskey


def test_the_last_socket_releases():
    """A client lives as long as one of its sockets."""
    released = []
    clients = Clients(released.append)
    first = clients.join("me", "key")
    assert first is clients.join("me", "key")
    assert (1, "me") == (len(clients), first.identifier)
    clients.leave(first)
    assert [] == released
    clients.leave(first)
    assert [first] == released
    assert 0 == len(clients)
    assert first is not clients.join("me", "another")


def test_an_identifier_has_one_passkey():
    """Nobody joins a client without its passkey; other text than ASCII is fine."""
    clients = Clients(lambda _: None)
    client = clients.join("me", "schlüssel \ud800")
    with pytest.raises(WrongPasskey, match="Passkey does not belong to this client"):
        clients.join("me", "key")
    assert client is clients.join("me", "schlüssel \ud800")
