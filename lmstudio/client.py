"""The client: owns the connections, with one attribute for each namespace."""

from __future__ import annotations

import atexit
import logging
import weakref
from types import TracebackType
from typing import Any

from .address import Address
from .calls import CALL_TIME
from .catalog import LLMs, Owned, System
from .errors import LMStudioConnectionError, LMStudioValueError, shown
from .session import Session, credentials

log = logging.getLogger("lmstudio.client")


class LMStudioClient:
    """A client of an LM Studio server. Thread-safe; nothing is sent until first use.

    Attributes:
        llm: Text models: load, get, list, unload.
        system: The server as a whole: models on its disk, its version.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_host: str | None = None,
        api_token: str | None = None,
        client_identifier: str | None = None,
        client_passkey: str | None = None,
        timeout: float | None = None,
        idle_timeout: float | None = CALL_TIME,
    ) -> None:
        """Make a client.

        Args:
            base_url: The server: ``host``, ``host:port`` or a URL of http, https, ws
                or wss. None looks at the variable ``LMSTUDIO_HOST`` and then for a
                server on this machine.
            api_host: The same under the name of the official SDK.
            api_token: Token for servers that ask for one; None looks at the variables
                ``LM_API_TOKEN`` and ``LMSTUDIO_API_TOKEN``.
            client_identifier: Clients of one identifier and passkey share what they
                own on the server.
            client_passkey: The secret that goes with it.
            timeout: Seconds for a whole prediction; None for no limit.
            idle_timeout: Seconds to wait for calls that the server answers at once;
                None for no limit.

        Raises:
            LMStudioValueError: An argument is wrong.
        """
        if base_url is not None and api_host is not None:
            raise LMStudioValueError("base_url and api_host name the same; give one")
        self._timeout = _seconds(timeout, "timeout")
        self._idle_timeout = _seconds(idle_timeout, "idle_timeout")
        identifier, passkey = credentials(api_token, client_identifier, client_passkey)
        self._settings: dict[str, Any] = {
            "base_url": base_url if base_url is not None else api_host,
            "api_token": api_token,
            "client_identifier": client_identifier,
            "client_passkey": client_passkey,
            "timeout": timeout,
            "idle_timeout": idle_timeout,
        }
        address = _address(self._settings["base_url"])
        self._session = Session(address, identifier, passkey)
        self._owned = Owned()
        self.llm = LLMs(self._session, self._owned, self._timeout, self._idle_timeout)
        self.system = System(self._session, self._idle_timeout)
        # The session lives as long as the client, a handle or a prediction of it
        # does: in `LMStudioClient().llm.load(...)` nobody holds the client itself.
        self._closing = weakref.finalize(
            self._session, _close_soon, vars(self._session), self._owned
        )
        self._closing.atexit = False  # there is one for all, below
        _live[self._session] = self._owned

    @property
    def address(self) -> str:
        """The server's address, such as ``"ws://127.0.0.1:1234"``.

        Raises:
            LMStudioConnectionError: None was given, and none is found.
        """
        return self._session.address.url

    @property
    def api_host(self) -> str:
        """The server as ``host:port``."""
        return self._session.address.netloc

    def close(self) -> None:
        """Unload what this client loaded for itself, and close the connections.

        Whoever waits for something is released with an error. Safe to repeat, and
        from any thread.
        """
        if self._closing.detach() is not None:
            _live.pop(self._session, None)
            _close(self._session, self._owned)

    def __enter__(self) -> LMStudioClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _remake, (self._settings,)

    def __repr__(self) -> str:
        state = " closed" if self._session.is_closed else ""
        return f"<LMStudioClient {self._session.known_address}{state}>"


def _remake(settings: dict[str, Any]) -> LMStudioClient:
    return LMStudioClient(settings.pop("base_url"), **settings)


def _address(given: str | None) -> Address | None:
    import os

    given = given if given is not None else os.environ.get("LMSTUDIO_HOST") or None
    return None if given is None else Address.parse(given)


def _seconds(value: float | None, name: str) -> float | None:
    if value is None:
        return None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not value > 0:
        raise LMStudioValueError(
            f"{name} must be a number of seconds above 0, or None, not {shown(value)}"
        )
    return float(value)


def _close(session: Session, owned: Owned) -> None:
    try:
        owned.unload(session)
    finally:
        session.close()


def _close_soon(fields: dict[str, Any], owned: Owned) -> None:
    """Close a session that nobody holds any more.

    A finalizer may run anywhere, so this only leaves a note for the worker. A session
    that never connected has no worker that runs, and nothing to close.

    Args:
        fields: What the session knew, since itself it is gone.
    """
    heir = Session.__new__(Session)
    vars(heir).update(fields)
    heir.worker.soon(lambda: _close(heir, owned))


_live: weakref.WeakKeyDictionary[Session, Owned] = weakref.WeakKeyDictionary()


@atexit.register
def _close_all() -> None:
    """At the end of the program: unload what clients own, close their connections."""
    for session, owned in list(_live.items()):
        try:
            _close(session, owned)
        except LMStudioConnectionError:
            log.debug("at exit", exc_info=True)
