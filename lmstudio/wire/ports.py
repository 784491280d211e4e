"""Where servers listen on a machine, so that clients find them without an address."""

from __future__ import annotations

#: The server's port for users. Source: docs/wire/discovery.md.
DEFAULT_PORT = 1234
#: Where the application listens on loopback whether or not its server was started; the
#: official SDKs look here, and not at 1234. Source: docs/wire/discovery.md.
LOCAL_PORTS = (41343, 52993, 16141, 39414, 22931)
