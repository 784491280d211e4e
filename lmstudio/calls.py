"""Typed calls and channels over the endpoint table: a delivery to a value or error."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from itertools import islice
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .errors import (
    LMStudioChannelClosedError,
    LMStudioError,
    LMStudioProtocolError,
    LMStudioServerError,
    LMStudioTimeoutError,
    LMStudioUnsupportedError,
    LMStudioValueError,
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
#: Calls of one list that may be under way at once.
IN_FLIGHT = 128


_converter: ModuleType | None = None


def _load_converter() -> ModuleType:
    # On first use: the converter's library takes a third of our import time. Kept,
    # since even an import that finds the module costs a tenth of a call.
    global _converter
    from .wire import converter

    _converter = converter
    return converter


def structure(value: Any, kind: Any, where: str) -> Any:
    """Read parsed JSON as a type; see `lmstudio.wire.converter.structure`."""
    return (_converter or _load_converter()).structure(value, kind, where)


def unstructure(value: Any) -> Any:
    """The parsed JSON of a wire model.

    Raises:
        LMStudioValueError: It is nested too deeply.
    """
    try:
        return (_converter or _load_converter()).unstructure(value)
    except RecursionError:
        raise LMStudioValueError(
            "what is to be sent is nested too deeply; a hundred levels always go"
        ) from None


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
    """A channel: packets both ways until one `End`.

    Nothing is sent before `open`, so that the owner holds it by then: whatever happens
    in the middle of it, Ctrl-C included, the owner can `abandon` it.

    Attributes:
        endpoint: Its row in the table.
        address: The server, for messages.
    """

    def __init__(
        self, session: Session, row: Endpoint, parameter: Any, mailbox: Mailbox
    ) -> None:
        self.endpoint = row
        self._stop = row.requests[0] if row.requests else "cancel"
        self._mailbox = mailbox
        self._session = session
        self._parameter = parameter

    def open(self, deadline: float | None = None, silence: float | None = None) -> None:
        """Send the request.

        Args:
            deadline: `time.monotonic` until which it must be out; None waits for long.
            silence: Seconds of connecting, and of sending without a byte of it taken,
                after which it is given up.

        Raises:
            LMStudioTimeoutError: The time is over; the message is for putting into
                another one. The owner has to `abandon` the channel.
            LMStudioWebsocketError: The connection can't be made, or broke.
            LMStudioValueError: The parameter has no JSON form.
        """
        row, parameter = self.endpoint, self._parameter
        self._parameter = None  # it may be large
        body = None if parameter is None else unstructure(parameter)
        self._session.open(
            row.namespace, "channel", row.name, body, self._mailbox, deadline, silence
        )

    @property
    def _request(self) -> tuple[Connection, int] | None:
        return self._mailbox.request

    @property
    def is_sent(self) -> bool:
        """Whether the server may know of it."""
        return self._request is not None

    @property
    def address(self) -> str:
        """The server, for messages."""
        request = self._request
        return request[0].address.url if request else self._session.known_address

    def receive(self, timeout: float | None = None) -> Batch | None:
        """The next packets, or None when the time (seconds) is over."""
        return self._mailbox.get(timeout)

    def cancel(self) -> None:
        """Ask the server to stop. Never raises: a broken connection stops it too."""
        if self._request is None:
            return
        connection, number = self._request
        try:
            connection.send_packet(number, {"type": self._stop})
        except LMStudioWebsocketError:
            pass

    def forget(self) -> None:
        """Expect nothing more."""
        _forget(self._mailbox)

    def abandon(self) -> None:
        """Ask the server to stop and expect nothing more. Never raises."""
        self.cancel()
        self.forget()

    def abandon_soon(self) -> None:
        """The same from a finalizer: only leaves a note for the worker."""
        # Nothing of this module: at the end of a program it may be gone (no GIL).
        if self._request is not None:
            (connection, number), stop = self._request, self._stop
            self._session.worker.soon(lambda: connection.abandon(number, stop))

    def outlive_session(self) -> None:
        """Keep the session no longer alive, now that all has come."""
        self._session = self._session.shadow()

    def error_of(self, end: End) -> LMStudioError | None:
        """The error that an end stands for; None for a good one."""
        return error_of(end, self.endpoint.name, self.address)

    def closed_early(self) -> LMStudioError:
        """The error of a channel that closed without its last packet."""
        return LMStudioChannelClosedError(
            self.endpoint.name,
            "the server closed the channel without a final packet",
        )


def _forget(mailbox: Mailbox) -> None:
    """Expect nothing more for the request of a mailbox, if it has one."""
    if mailbox.request is not None:
        connection, number = mailbox.request
        connection.forget(number)


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
        timeout: Seconds to wait for the answer, connecting and sending included; while
            the server takes a long message, it begins anew with each part. None waits
            for ever.

    Raises:
        LMStudioServerError: The server answered with an error.
        LMStudioUnsupportedError: It does not know the endpoint.
        LMStudioTimeoutError: No answer came in time.
        LMStudioWebsocketError: The connection can't be made, or broke.
        LMStudioProtocolError: The answer does not fit.
    """
    row = endpoint(namespace, name)
    body = None if parameter is None else unstructure(parameter)

    def ask() -> Any:
        return _Asked(session, row, body).answer(timeout)

    return session.again(ask) if row.repeatable else ask()


def call_all(
    session: Session,
    namespace: str,
    name: str,
    parameters: Sequence[Any],
    *,
    timeout: float | None = CALL_TIME,
) -> list[Any]:
    """Call an rpc endpoint with each of several parameters; the results in order.

    Requests are sent without waiting for the answers of those before them, at most
    `IN_FLIGHT` at once. The first that fails ends it, and nothing more is expected.

    Args:
        parameters: Wire models.
        timeout: Seconds to wait for each answer; None waits for ever.

    Raises:
        LMStudioError: As `call`; the `index` of errors says whose parameter failed.
    """
    row = endpoint(namespace, name)
    results: list[Any] = []
    ask = partial(_ask_all, session, row, parameters, timeout, results)
    if row.repeatable:
        session.again(ask)
    else:
        ask()
    return results


def _ask_all(
    session: Session,
    row: Endpoint,
    parameters: Sequence[Any],
    timeout: float | None,
    results: list[Any],
) -> None:
    """Add the results that are missing; after a lost connection it goes on there."""
    waiting: deque[_Asked] = deque()

    def take() -> None:
        try:
            results.append(waiting[0].answer(timeout))
        except (
            LMStudioServerError,
            LMStudioTimeoutError,
            LMStudioProtocolError,
        ) as exc:
            raise exc.of_input(len(results)) from exc.__cause__
        waiting.popleft()

    try:
        for parameter in islice(parameters, len(results), None):
            if len(waiting) == IN_FLIGHT:
                take()
            waiting.append(_Asked(session, row, unstructure(parameter)))
            waiting[-1].send(timeout)
        while waiting:
            take()
    finally:
        for asked in waiting:
            asked.forget()


def call_each(
    session: Session,
    name: str,
    asked: Sequence[tuple[str, Any]],
    *,
    deadline: float,
) -> list[Any]:
    """Call an rpc endpoint of several namespaces, all at once; what fails is a value.

    All requests are out before the first answer is waited for.

    Args:
        asked: Namespaces and wire models.
        deadline: `time.monotonic` at which no answer is waited for any more.

    Returns:
        For each its result, structured, or its `LMStudioError`, in order.
    """
    waiting = [
        _Asked(session, endpoint(namespace, name), unstructure(parameter))
        for namespace, parameter in asked
    ]
    outcomes: list[Any] = []
    lost: dict[str, LMStudioError] = {}  # by namespace: not tried for each again
    try:
        for (namespace, _), one in zip(asked, waiting, strict=True):
            try:
                if namespace not in lost:
                    one.send(max(0.0, deadline - time.monotonic()))
            except LMStudioError as exc:
                lost[namespace] = exc
        for (namespace, _), one in zip(asked, waiting, strict=True):
            if not one.is_sent:
                outcomes.append(lost[namespace])
                continue
            try:
                outcomes.append(one.answer(max(0.0, deadline - time.monotonic())))
            except LMStudioError as exc:
                outcomes.append(exc)
    finally:
        for one in waiting:
            one.forget()
    return outcomes


class _Asked:
    """A call, and the wait for its answer."""

    def __init__(self, session: Session, row: Endpoint, body: Any) -> None:
        self._session = session
        self._row = row
        self._body = body
        self._mailbox = Mailbox()

    def send(self, limit: float | None) -> None:
        """Send the request. Who is interrupted in it has to `forget`.

        Args:
            limit: Seconds of connecting, and of sending without a byte of it taken,
                after which it is given up; None waits for long.
        """
        row, body, self._body = self._row, self._body, None
        try:
            self._session.open(
                row.namespace, "rpc", row.name, body, self._mailbox, None, limit
            )
        except LMStudioTimeoutError as exc:
            assert limit is not None
            raise LMStudioTimeoutError(
                f"{row.name}: no answer within {limit:g} s ({exc})"
            ) from None

    def answer(self, timeout: float | None) -> Any:
        """Send it if need be, and wait for the result, structured; see `call`."""
        mailbox, left = self._mailbox, timeout
        try:
            if mailbox.request is None:
                self.send(timeout)
                if timeout is not None:  # from the call on, or the last byte taken
                    left = mailbox.heard + timeout - time.monotonic()
            batch = mailbox.get(left)
        except BaseException:  # Ctrl-C above all
            self.forget()
            raise
        if batch is None:
            self.forget()
            raise LMStudioTimeoutError(
                f"{self._row.name}: no answer from {self._address} within {timeout:g} s"
            )
        end: End = batch[-1]
        if end.how != "result":
            error = error_of(end, self._row.name, self._address)
            assert error is not None  # no other end of a call is good
            raise error
        if self._row.result is None:
            return None
        return structure(end.body, self._row.result, self._row.name)

    @property
    def _address(self) -> str:
        """The server that the request went to, for messages."""
        request = self._mailbox.request
        return request[0].address.url if request else self._session.known_address

    @property
    def is_sent(self) -> bool:
        """Whether the server may know of it."""
        return self._mailbox.request is not None

    def forget(self) -> None:
        """Expect nothing more."""
        _forget(self._mailbox)
