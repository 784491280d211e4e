"""Logical clients: all sockets that show the same identifier and passkey."""

from __future__ import annotations

import hmac
from collections.abc import Callable


class Client:
    """One client of the server, however many sockets it has.

    Attributes:
        identifier: Who it says it is.
    """

    def __init__(self, identifier: str, passkey: str) -> None:
        self.identifier = identifier
        self._passkey = passkey.encode(errors="surrogatepass")
        self._sockets = 0

    def knows(self, passkey: str) -> bool:
        """Whether this is the passkey that the client came with."""
        shown = passkey.encode(errors="surrogatepass")
        return hmac.compare_digest(self._passkey, shown)


class WrongPasskey(Exception):
    """Somebody else is connected under this identifier."""

    def __str__(self) -> str:
        return "Passkey does not belong to this client"


class Clients:
    """Everyone who is connected at the moment.

    Args:
        on_release: Called with a client when the last of its sockets has closed.
    """

    def __init__(self, on_release: Callable[[Client], None]) -> None:
        self._on_release = on_release
        self._by_identifier: dict[str, Client] = {}

    def join(self, identifier: str, passkey: str) -> Client:
        """Add a socket to its client.

        Raises:
            WrongPasskey: The identifier is in use with another passkey.
        """
        client = self._by_identifier.get(identifier)
        if client is None:
            client = self._by_identifier[identifier] = Client(identifier, passkey)
        elif not client.knows(passkey):
            raise WrongPasskey
        client._sockets += 1
        return client

    def leave(self, client: Client) -> None:
        """Take a socket away; the last one releases the client."""
        client._sockets -= 1
        if client._sockets == 0:
            del self._by_identifier[client.identifier]
            self._on_release(client)

    def __len__(self) -> int:
        """How many clients are connected."""
        return len(self._by_identifier)
