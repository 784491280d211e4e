"""Logical clients: all sockets that show the same identifier and passkey."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection

from .tokens import PERMISSIONS, Tokens


class Client:
    """One client of the server, however many sockets it has.

    Attributes:
        identifier: Who it says it is.
        permissions: What it may do, of `PERMISSIONS`.
        is_alpha: Whether it has said something that only clients of the first alpha
            say.
    """

    def __init__(
        self,
        identifier: str,
        passkey: str,
        permissions: Collection[str] = PERMISSIONS,
    ) -> None:
        self.identifier = identifier
        self.permissions = frozenset(permissions)
        self.is_alpha = False
        self._passkey = passkey.encode(errors="surrogatepass")
        self._sockets = 0

    def knows(self, passkey: str) -> bool:
        """Whether this is the passkey that the client came with."""
        shown = passkey.encode(errors="surrogatepass")
        return hmac.compare_digest(self._passkey, shown)


class Refused(Exception):
    """A socket may not join a client."""


class WrongPasskey(Refused):
    """Somebody else is connected under this identifier."""

    def __str__(self) -> str:
        return "Passkey does not belong to this client"


class WrongToken(Refused):
    """The server asks for a token, and this is none of its own."""

    def __str__(self) -> str:
        return (
            "This server needs one of its API tokens, and did not get one: give the"
            " client its api_token, or set LM_API_TOKEN"
        )


class Clients:
    """Everyone who is connected at the moment.

    Args:
        on_release: Called with a client when the last of its sockets has closed.
        tokens: Who may connect, None for everyone.

    Attributes:
        tokens: The same.
    """

    def __init__(
        self, on_release: Callable[[Client], None], tokens: Tokens | None = None
    ) -> None:
        self.tokens = tokens
        self._on_release = on_release
        self._by_identifier: dict[str, Client] = {}

    def join(self, identifier: str, passkey: str) -> Client:
        """Add a socket to its client.

        Raises:
            WrongPasskey: The identifier is in use with another passkey.
            WrongToken: The server has tokens, and these are not the parts of one.
        """
        permissions: Collection[str] = PERMISSIONS
        if self.tokens is not None:
            token = self.tokens.find(identifier, passkey)
            if token is None:
                raise WrongToken
            permissions = token.permissions
        client = self._by_identifier.get(identifier)
        if client is None:
            client = Client(identifier, passkey, permissions)
            self._by_identifier[identifier] = client
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
