"""One socket, its reader thread, and the mailboxes of its open requests."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from . import permitted
from .address import Address
from .errors import (
    LMStudioAuthenticationError,
    LMStudioConnectionError,
    LMStudioRuntimeError,
    LMStudioTimeoutError,
    LMStudioValueError,
    LMStudioWebsocketError,
)
from .forks import FORKED
from .mailbox import Mailbox
from .protocol.client import (
    ClientProtocol,
    End,
    Kind,
    Message,
    auth_packet,
    auth_refusal,
)
from .sender import TransportEnded, Unsent
from .transport import Transport, explain, failure_kind
from .worker import Worker, apart

log = logging.getLogger("lmstudio.connection")

#: Seconds of silence after which the server is pinged.
PING_AFTER = 10.0
#: Seconds of silence after which it counts as dead, if it was pinged in vain.
DEAD_AFTER = 25.0
#: Pings that must have been in vain. A process that was stopped for a while finds a
#: long silence when it goes on, and the answers behind it.
PINGS = 3
#: Seconds until it is tried again to send what nobody waits for.
FLUSH_AGAIN = 0.02
#: Bytes of a message, at most: servers end the whole connection over a larger one.
#: Source: docs/wire/messages.md.
LARGEST_MESSAGE = 100 * 1024 * 1024
#: What helps when the server refuses who we are.
CHECK_TOKEN = (
    "Check api_token, or the variables LM_API_TOKEN and LMSTUDIO_API_TOKEN;"
    " the server's settings list its tokens"
)

_scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # unknown to typeshed
# Without a look for circles: those end in a RecursionError as well.
_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode


class Connection:
    """A connection to one namespace of the server, usable from any thread.

    Attributes:
        memory: What its users know of the server as long as it lasts.
    """

    def __init__(
        self, transport: Transport, address: Address, namespace: str, worker: Worker
    ) -> None:
        self.address = address
        self.namespace = namespace
        self.memory: dict[tuple[str, str], Any] = {}
        self._transport = transport
        self._worker = worker
        self._protocol = ClientProtocol()
        self._mailboxes: dict[int, Mailbox] = {}
        # Being sent: when the connection ends, whoever sends has an exception for it,
        # and may offer the mailbox to another connection.
        self._unsent: set[int] = set()
        self._ended: str | None = None  # the reason, once there is one
        self._finished = False  # all who waited then have been told
        # To whom the reader is handing something, for a fork in the middle of it.
        self._delivering: Sequence[Mailbox] = ()
        # Guards the five attributes above. Never held across a send or a wait:
        # the reader takes it, and a reader stuck behind a sender stops reading.
        self._state = threading.Lock()
        self._early: list[bytes] = []  # what the reader begins with
        self._pings = 0  # unanswered ones; the worker's own
        self._reader = apart(self._read, f"lmstudio-{namespace}")

    @classmethod
    def open_to(
        cls,
        address: Address,
        namespace: str,
        *,
        identifier: str,
        passkey: str,
        worker: Worker,
        timeout: float,
    ) -> Connection:
        """Connect, authenticate and start the reader.

        Args:
            timeout: Seconds for all of it.

        Raises:
            LMStudioConnectionError: Nobody could be reached; the error names the kind
                of failure, and the caller may look closer.
            LMStudioAuthenticationError: The server refused the credentials.
            LMStudioRealModelError: A test forbids real servers, and this may be one.
        """
        permitted.check(address)
        try:
            transport = Transport.connect(address, namespace, timeout)
        except Exception as exc:
            kind = failure_kind(exc, address)
            raise LMStudioConnectionError(address.url, kind, explain(exc), "") from exc
        try:
            transport.send(_encode(auth_packet(identifier, passkey)).encode())
            reply, *early = transport.read()
            refusal = auth_refusal(json.loads(reply.decode()))
            if refusal is not None:
                raise LMStudioAuthenticationError(
                    "authentication", f"{refusal:.500}", suggestion=CHECK_TOKEN
                )
            connection = cls(transport, address, namespace, worker)
            connection._start(early)
        except (TransportEnded, ValueError, RecursionError) as exc:
            transport.dispose()
            is_late = isinstance(exc.__cause__, TimeoutError)
            kind = "timeout" if is_late else "not-lmstudio"
            raise LMStudioConnectionError(
                address.url, kind, f"no reply to authentication: {exc}", ""
            ) from exc
        except BaseException:
            transport.dispose()
            raise
        return connection

    def _start(self, early: list[bytes]) -> None:
        """Begin to read.

        Args:
            early: What came in one packet with the answer to the credentials.
        """
        self._early = early
        soon = self._worker.soon
        self._transport.ready(
            on_ping=lambda data: soon(partial(self._pong, data)),
            on_rest=lambda: _again(self._worker, self._flush),
        )
        try:
            self._worker.start()
            self._reader.start()
        except LMStudioRuntimeError as exc:
            raise LMStudioConnectionError(
                self.address.url, "resources", f"{exc.__cause__}", ""
            ) from exc
        self._worker.at(time.monotonic() + PING_AFTER, self._check_life)
        log.info("connected to %s", self.address.socket_url(self.namespace))

    @property
    def is_usable(self) -> bool:
        """Whether requests can still be sent."""
        return self._ended is None

    def open(
        self,
        kind: Kind,
        endpoint: str,
        parameter: Any,
        mailbox: Mailbox,
        deadline: float | None = None,
        silence: float | None = None,
    ) -> int:
        """Send a request; returns its number. Replies go to the mailbox.

        After Ctrl-C, and when the time is over, the mailbox's `request` says what its
        owner has to give up.

        Args:
            deadline: `time.monotonic` until which it must be out; None waits for long.
            silence: Seconds without a byte of it taken after which it is given up.

        Raises:
            LMStudioTimeoutError: The time is over; the message is for putting into
                another one.
            LMStudioValueError: It is too large for a message; nothing was sent.
            LMStudioWebsocketError: The connection is over; nothing was sent.
        """
        with self._state:
            if self._ended is not None:
                raise LMStudioWebsocketError(self.address.url, self._ended)
            number = self._protocol.next_number()
            mailbox.request = (self, number)
            self._mailboxes[number] = mailbox
            self._unsent.add(number)
            _, message = self._protocol.open(kind, endpoint, parameter, number)
        try:
            moved = self._send(message, deadline, silence)
        except Unsent as exc:
            if not exc.is_begun:
                self.forget(number)
                mailbox.request = None
            raise LMStudioTimeoutError(f"still sending to {self.address.url}") from None
        except Exception:  # the server has not got it
            self.forget(number)
            mailbox.request = None
            raise
        if moved:  # it took its time, and that was no silence
            mailbox.heard = max(mailbox.heard, moved)
        with self._state:
            self._unsent.discard(number)
            late = self._mailboxes.pop(number, None) if self._finished else None
        if late is not None:  # it went out in the last moment; the reader left it to us
            late.put([End("lost", self._ended)])
        return number

    def pending(self) -> list[Any]:
        """What still wants to be waited for; see `Mailbox.pending`."""
        with self._state:
            mailboxes = [*self._mailboxes.values()]
        return [found for m in mailboxes if (found := m.pending()) is not None]

    def send_packet(self, number: int, body: Any) -> None:
        """Send a packet on an open channel; nothing once the channel has ended.

        It never waits: what does not go now is sent by the worker.

        Raises:
            LMStudioWebsocketError: The connection is over.
        """
        with self._state:
            message = self._protocol.packet(number, body)
        if message is not None:
            self._send(message, waits=False)

    def forget(self, number: int) -> None:
        """Expect nothing more for a request; what still comes is dropped."""
        with self._state:
            self._protocol.forget(number)
            self._mailboxes.pop(number, None)
            self._unsent.discard(number)

    def abandon(self, number: int, request: str = "cancel") -> None:
        """Ask the server to stop a channel that nobody holds any more. Never raises.

        Args:
            request: The packet that asks it to.
        """
        try:
            self.send_packet(number, {"type": request})
        except LMStudioWebsocketError:
            pass  # then the server has stopped it already
        self.forget(number)

    def close(self, reason: str = "the client was closed") -> None:
        """Shut the socket, release all who wait, and wait for the reader.

        Safe to repeat, and from any thread.
        """
        with self._state:
            self._ended = self._ended or reason
        self._transport.close()
        if threading.current_thread() is not self._reader:
            self._reader.join()

    def forsake(self) -> None:
        """Leave the connection to the parent process, in a child after a fork.

        The threads and whoever held the locks did not come along, so no lock of old
        is taken, and the socket is freed without a word to the server.
        """
        self._state = threading.Lock()
        self._ended = FORKED
        self._transport.forsake()
        waiting, self._mailboxes = self._mailboxes, {}
        for mailbox in (*waiting.values(), *self._delivering):
            mailbox.forsake()

    def _send(
        self,
        message: Message,
        deadline: float | None = None,
        silence: float | None = None,
        *,
        waits: bool = True,
    ) -> float:
        try:
            payload = _encode(message).encode()
        except (TypeError, ValueError, RecursionError) as exc:
            raise LMStudioValueError(
                f"the parameter of a call has no JSON form: {exc}"
            ) from None
        if len(payload) > LARGEST_MESSAGE:
            raise LMStudioValueError(_too_large(message, len(payload)))
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s <- %.200r", self.namespace, payload)
        try:
            if waits:
                return self._transport.send(payload, deadline, silence)
            self._transport.post(payload)
            return 0.0
        except TransportEnded as exc:
            raise self._broken(exc) from exc

    def _broken(self, exc: TransportEnded) -> LMStudioWebsocketError:
        """The error of a send that failed. Nobody tries this connection again."""
        with self._state:
            self._ended = reason = self._ended or str(exc)
        return LMStudioWebsocketError(self.address.url, reason)

    def _flush(self) -> None:
        """Send what nobody waits for, or not any more. Runs on the worker."""
        try:
            if not self._transport.flush():
                _again(self._worker, self._flush)
        except TransportEnded as exc:
            self._broken(exc)

    def _pong(self, data: bytes) -> None:
        """Answer a ping. Runs on the worker."""
        try:
            self._transport.pong(data)
        except TransportEnded as exc:
            self._broken(exc)

    def _read(self) -> None:
        """Route messages until the socket ends. Body of the reader thread."""
        read, route = self._transport.read, self._route
        reason = "the connection ended"
        try:
            self._route_one_by_one(self._early)
            while True:
                payloads = read()
                try:
                    messages = parsed(payloads)
                except (ValueError, RecursionError, StopIteration):
                    self._route_one_by_one(payloads)
                else:
                    route(messages)
                    del messages
                del payloads  # or the last read is kept for as long as nothing comes
        except TransportEnded as exc:
            reason = str(exc)
        except (ValueError, RecursionError) as exc:
            reason = f"the server sent a frame that is no JSON: {exc}"
        except Exception as exc:  # whatever it was, those who wait must hear of it
            reason = f"{type(exc).__name__}: {exc}"
            said = "the reader of %s failed"
            _tell(self._worker, logging.ERROR, said, self.namespace, exc_info=exc)
        self._finish(reason)

    def _route_one_by_one(self, payloads: list[bytes]) -> None:
        """Route what is JSON; what stands before a bad frame counts."""
        for payload in payloads:
            self._route([json.loads(payload.decode())])

    def _route(self, messages: list[Any]) -> None:
        with self._state:
            received = self._protocol.receive(messages)
            mailboxes = self._mailboxes
            batches = [(mailboxes[n], batch) for n, batch in received.batches.items()]
            self._delivering = [mailbox for mailbox, _ in batches]
            for number in received.ended:
                del mailboxes[number]
        for mailbox, batch in batches:
            mailbox.put(batch)
        self._delivering = ()
        if received.strays and log.isEnabledFor(logging.DEBUG):
            for stray in received.strays:
                _tell(self._worker, logging.DEBUG, "stray: %s", f"{stray!r:.200}")
        for text in received.complaints:
            said = "the server complains on %s: %s"
            short = f"{text:.500}"
            _tell(self._worker, logging.WARNING, said, self.namespace, short)

    def _finish(self, reason: str) -> None:
        with self._state:
            self._ended = reason = self._ended or reason
            self._finished = True
            waiting, unsent = self._mailboxes, self._unsent
            self._delivering = [*waiting.values()]
            self._mailboxes = {n: waiting.pop(n) for n in unsent if n in waiting}
            self._protocol.end(reason)
        for mailbox in waiting.values():
            mailbox.put([End("lost", reason)])
        self._delivering = ()
        self._transport.dispose()
        said = "connection %s ended: %s"
        _tell(self._worker, logging.INFO, said, self.namespace, reason)

    def _check_life(self) -> None:
        """Ping a silent server, and give a dead one up. Runs on the worker."""
        if self._ended is not None:
            return
        now = time.monotonic()
        silent = now - self._transport.heard
        # Where a length is wrong, all that comes is taken for the rest of that message,
        # pongs too: they are no signs of life then.
        is_mid = self._transport.is_mid_frame
        if silent < PING_AFTER:
            self._pings = self._pings if is_mid else 0
        elif self._pings >= PINGS and (is_mid or silent >= DEAD_AFTER):
            reason = f"no sign of life for {silent:.0f} s"
            if is_mid:
                reason += ", in the middle of a message"
            with self._state:
                self._ended = self._ended or reason
            self._transport.close()
            return
        else:
            try:
                self._pings += self._transport.ping()
            except TransportEnded as exc:
                self._broken(exc)
                return
        next_look = max(self._transport.heard + PING_AFTER, now + PING_AFTER / 4)
        self._worker.at(next_look, self._check_life)


def parsed(payloads: list[bytes]) -> list[Any]:
    """The messages of one read.

    They are parsed as one list, so that the names in them are made once, not for each.
    One frame that is no JSON by itself is always noticed; several that make some only
    together are not if another holds two messages, which as a whole is what they say.

    Raises:
        ValueError, RecursionError, StopIteration: One of them is no JSON.
    """
    # The brackets come with a zero each, so that one join does it: no more copies.
    text = b",".join((b"[0", *payloads, b"0]")).decode()
    messages: list[Any]
    # Several times quicker than json.loads on small messages.
    messages, end = _scan(text, 0)
    # Frames that are JSON only together are fewer messages.
    if len(messages) != len(payloads) + 2 or end != len(text):
        raise ValueError("not a message for each frame")
    return messages[1:-1]


def _tell(worker: Worker, level: int, said: str, *rest: str, **more: Any) -> None:
    """Have the worker log something: handlers may wait, and the reader must not."""
    worker.soon(partial(log.log, level, said, *rest, **more))


def _again(worker: Worker, job: Callable[[], None]) -> None:
    worker.at(time.monotonic() + FLUSH_AGAIN, job)


def _too_large(message: Message, size: int) -> str:
    """What is wrong with a message that servers would not take."""
    body = message.get("parameter", message.get("creationParameter", message))
    found = max(_texts(body, ""), key=lambda one: len(one[1]), default=None)
    where = ""
    if found is not None:
        where = f"; the longest text in it, {found[0]}, has {len(found[1])} characters"
    said = message.get("endpoint")
    whose = f"{said}: " if isinstance(said, str) else ""
    return (
        f"{whose}the message would have {size} bytes, and servers take"
        f" {LARGEST_MESSAGE}{where}. Nothing was sent"
    )


def _texts(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """All texts of a message, and where they stand."""
    if isinstance(node, str):
        yield path, node
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from _texts(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, (list, tuple)):
        for number, value in enumerate(node):
            yield from _texts(value, f"{path}[{number}]")
