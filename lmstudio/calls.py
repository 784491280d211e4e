"""Typed calls and channels over the endpoint table: a delivery to a value or error."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from .errors import (
    LMStudioChannelClosedError,
    LMStudioError,
    LMStudioServerError,
    LMStudioTimeoutError,
    LMStudioUnsupportedError,
    LMStudioWebsocketError,
)
from .mailbox import Mailbox
from .protocol.client import Batch, End
from .session import Session
from .wire.endpoints import Endpoint, endpoint

if TYPE_CHECKING:
    from .connection import Connection

#: Seconds that a call may take which the server answers at once.
CALL_TIME = 60.0


def structure(value: Any, kind: Any, where: str) -> Any:
    """Read parsed JSON as a type; see `lmstudio.wire.converter.structure`."""
    # Imported on first use: the converter's library takes a third of our import time.
    from .wire import converter

    return converter.structure(value, kind, where)


def unstructure(value: Any) -> Any:
    """The parsed JSON of a wire model."""
    from .wire import converter

    return converter.unstructure(value)


def error_of(end: End, endpoint: str, address: str) -> LMStudioError | None:
    """The error that the end of a request stands for; None for a good end."""
    if end.how == "error":
        return LMStudioServerError.from_wire(endpoint, end.body)
    if end.how == "refused":
        return LMStudioUnsupportedError(
            endpoint, "the server does not accept this call", str(end.body)
        )
    if end.how == "lost":
        return LMStudioWebsocketError(address, str(end.body))
    if end.how == "expired":
        return end.body if isinstance(end.body, LMStudioError) else None
    return None


class Channel:
    """An open channel: packets both ways until one `End`.

    Attributes:
        endpoint: Its row in the table.
        address: The server, for messages.
    """

    def __init__(
        self, session: Session, row: Endpoint, parameter: Any, mailbox: Mailbox
    ) -> None:
        self.endpoint = row
        self._mailbox = mailbox
        self._session = session
        body = None if parameter is None else unstructure(parameter)
        opened = session.open(row.namespace, "channel", row.name, body, mailbox)
        self._connection: Connection = opened[0]
        self._number: int = opened[1]

    @property
    def address(self) -> str:
        """The server, for messages."""
        return self._connection.address.url

    def receive(self, timeout: float | None = None) -> Batch | None:
        """The next packets, or None when the time (seconds) is over."""
        return self._mailbox.get(timeout)

    def cancel(self) -> None:
        """Ask the server to stop. Never raises: a broken connection stops it too."""
        try:
            self._connection.send_packet(self._number, {"type": "cancel"})
        except LMStudioWebsocketError:
            pass

    def forget(self) -> None:
        """Expect nothing more."""
        self._connection.forget(self._number)

    def abandon(self) -> None:
        """Ask the server to stop and expect nothing more. Never raises."""
        self._connection.abandon(self._number)

    def abandon_soon(self) -> None:
        """The same from a finalizer: only leaves a note for the worker."""
        self._session.worker.soon(partial(self._connection.abandon, self._number))

    def error_of(self, end: End) -> LMStudioError | None:
        """The error that an end stands for; None for a good one."""
        return error_of(end, self.endpoint.name, self.address)

    def closed_early(self) -> LMStudioError:
        """The error of a channel that closed without its last packet."""
        return LMStudioChannelClosedError(
            self.endpoint.name,
            "the server closed the channel without a final packet",
        )


def call(
    session: Session,
    namespace: str,
    name: str,
    parameter: Any = None,
    *,
    timeout: float | None = CALL_TIME,
) -> Any:
    """Call an rpc endpoint and return its result, structured.

    Args:
        parameter: A wire model, or None.
        timeout: Seconds to wait for the answer; None waits for ever.

    Raises:
        LMStudioServerError: The server answered with an error.
        LMStudioUnsupportedError: It does not know the endpoint.
        LMStudioTimeoutError: No answer came in time.
        LMStudioWebsocketError: The connection can't be made, or broke.
        LMStudioProtocolError: The answer does not fit.
    """
    row = endpoint(namespace, name)
    body = None if parameter is None else unstructure(parameter)
    ask = partial(_ask, session, row, body, timeout)
    return session.again(ask) if row.repeatable else ask()


def _ask(session: Session, row: Endpoint, body: Any, timeout: float | None) -> Any:
    mailbox = Mailbox()
    connection, number = session.open(row.namespace, "rpc", row.name, body, mailbox)
    try:
        batch = mailbox.get(timeout)
    except BaseException:  # Ctrl-C above all
        connection.forget(number)
        raise
    if batch is None:
        connection.forget(number)
        raise LMStudioTimeoutError(
            f"{row.name}: no answer from {connection.address.url} within {timeout:g} s"
        )
    end: End = batch[-1]
    error = error_of(end, row.name, connection.address.url)
    if error is not None:
        raise error
    if row.result is None:
        return None
    return structure(end.body, row.result, row.name)
