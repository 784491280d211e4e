"""One connected socket: what arrives on it, and what is done about it."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

from ..protocol.server import (
    ABSENT,
    Authenticate,
    Call,
    Channel,
    Complaint,
    Message,
    Packet,
    ServerProtocol,
    is_message,
)
from ..wire.converter import unstructure
from .alpha import Alpha
from .calls import CALLS, Context
from .channels import CHANNELS, Ends
from .clients import Refused
from .failures import Failure, error_object
from .limits import Limits, Refusals
from .service import Service
from .tasks import Tasks
from .tokens import needed
from .work import belongs_to

log = logging.getLogger(__name__)

#: Calls of one socket that run at once; further ones wait for their turn.
RUNNING = 64
#: Memory that the unanswered calls of one socket may take, in bytes of their frames.
#: Beyond it the socket is not read, so that TCP holds the client back.
BACKLOG = 16 * 1024 * 1024
#: What a call takes besides its frame, bytes: its task, and its place in the tables.
CALL_OVERHEAD = 4096

_encode = json.JSONEncoder(
    separators=(",", ":"), ensure_ascii=False, allow_nan=False
).encode


def encoded(message: Message) -> str:
    """A message as text that has a UTF-8 form."""
    try:
        text = _encode(message)
    except ValueError:  # NaN and Infinity are no JSON: such figures are left out
        text = _encode(_finite(message))
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # half of a surrogate pair, from a client's text
            return json.dumps(json.loads(text), separators=(",", ":"))
    return text


def _finite(value: Any) -> Any:
    """Parsed JSON without the fields and items that are no finite numbers."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items() if not _is_endless(v)}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value if not _is_endless(item)]
    return value


def _is_endless(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


class Peer:
    """The server's side of one socket. Its methods belong to one event loop.

    Args:
        namespace: What the socket serves, such as ``"llm"``.
        service: What all connections share.
        send: Sends one text frame. It waits while the client reads slower than we
            write, and so holds up the one who sends, and nobody else. Once the socket
            has ended it does nothing.
        close: Begins to close the socket.
        limits: How much the client may ask for.
        refusals: Logs what is refused, and why.
    """

    def __init__(
        self,
        namespace: str,
        service: Service,
        send: Callable[[str], Awaitable[None]],
        close: Callable[[], Awaitable[None]],
        *,
        limits: Limits | None = None,
        refusals: Refusals | None = None,
    ) -> None:
        self._service = service
        self._limits = limits or Limits()
        self._refusals = refusals or Refusals()
        self._send_text = send
        self._close = close
        self._protocol = ServerProtocol(namespace)
        self._alpha = Alpha(namespace)
        self._context: Context | None = None
        self._tasks = Tasks()
        self._ends: dict[int, Ends] = {}
        self._waiting: asyncio.TimerHandle | None = None
        self._channel_bytes = 0  # of what opened the channels that are open
        self._turns = asyncio.Semaphore(RUNNING)
        self._backlog = 0  # see BACKLOG
        self._has_room = asyncio.Event()

    def start(self) -> None:
        """Begin to wait for the client to say who it is."""
        loop = asyncio.get_running_loop()
        limit = self._limits.authentication_time
        self._waiting = loop.call_later(limit, self._too_late)

    async def receive(self, frame: str | bytes) -> None:
        """Take one frame from the client. Nothing in it is a reason to raise.

        It waits while the client has asked for more than `BACKLOG` allows.
        """
        problem = self._excess(frame)
        if problem is not None:
            await self._refuse("size", problem)
            return
        try:
            message = json.loads(frame) if isinstance(frame, str) else None
            if self._service.observe is not None:
                self._service.observe(self._protocol.namespace, message)
            echo = None
            if self._protocol.is_authenticated:
                message, echo = self._alpha.incoming(message)
            event, replies = self._protocol.receive(message)
        except (ValueError, RecursionError) as exc:
            self._dropped(frame, type(exc).__name__)
            return
        if echo is not None:
            replies = [echo]
        elif not is_message(message):
            self._dropped(frame, "it is no message of the protocol")
        for reply in replies:
            if reply["type"] == "communicationWarning":
                self._refusals.add("warning", f"warned a client: {reply['warning']}")
        size = len(frame) + CALL_OVERHEAD
        if isinstance(event, Call):
            self._backlog += size
            self._tasks.spawn(self._answer(event, size))
            await self._room()
        elif isinstance(event, Channel):
            await self._begin(event, size)
        elif isinstance(event, Packet):
            self._ends[event.number].take(event.message["type"], event.value)
        elif isinstance(event, Authenticate):
            await self._authenticate(event)
        elif isinstance(event, Complaint):
            log.warning("a client complains: %.300s", event.warning)
        for reply in replies:
            await self._send(reply)

    async def stop(self, reason: str) -> None:
        """The server ends: fail whatever runs, and close the socket."""
        for message in self._protocol.fail_all(error_object(Failure(reason))):
            await self._send(message)
        await self._close()

    async def ended(self) -> None:
        """The socket is closed: stop what ran on it and let go of the client."""
        if self._waiting is not None:
            self._waiting.cancel()
        self._tasks.cancel()
        await self._tasks.join()
        if self._context is not None:
            self._service.clients.leave(self._context.client)
            self._context = None

    async def _authenticate(self, who: Authenticate) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        try:
            client = self._service.clients.join(who.identifier, who.passkey)
        except Refused as exc:
            await self._refuse("client", str(exc))
            return
        self._context = Context(self._service, self._protocol.namespace, client)
        self._alpha.client = client
        # The task that reads the socket, and with it those that answer.
        belongs_to(self._service.workers.of(f"client {client.identifier}"))
        await self._send(self._protocol.accept())

    def _too_late(self) -> None:
        self._tasks.spawn(self._refuse("late", "Authentication took too long"))

    def _excess(self, frame: str | bytes) -> str | None:
        """Why a frame is not even parsed; None when it is."""
        limits, size = self._limits, len(frame)
        if not self._protocol.is_authenticated and size > limits.first_bytes:
            most = limits.first_bytes
            return f"The first message has {size} characters, of at most {most}"
        if limits.are_too_many(frame):
            return f"A message has more than {limits.values} values"
        return None

    async def _refuse(self, kind: str, reason: str) -> None:
        """Say why, and close the socket."""
        self._refusals.add(kind, f"refused a client: {reason}")
        if self._protocol.is_authenticated:
            warning = {"type": "communicationWarning", "warning": reason}
            await self._send(warning | {"kind": "unknown"})
        else:
            await self._send(self._protocol.refuse(reason))
        await self._close()

    def _dropped(self, frame: str | bytes, problem: str) -> None:
        """Log a frame that gets no answer."""
        what = f"{len(frame)} {'characters' if isinstance(frame, str) else 'bytes'}"
        where = self._protocol.namespace
        self._refusals.add("frame", f"dropped a frame of {what} at {where}: {problem}")

    async def _begin(self, channel: Channel, size: int) -> None:
        """Serve a channel, unless too much is open."""
        limits, problem = self._limits, None
        if len(self._ends) >= limits.channels:
            problem = f"{limits.channels} channels are open on this connection"
        elif self._channel_bytes + size > limits.channel_bytes and self._ends:
            problem = f"the open channels take {self._channel_bytes} bytes"
        if problem is not None:
            self._refusals.add("channel", f"refused a channel: {problem}")
            failure = Failure(
                "Too much is open on this connection",
                f"{problem[0].upper()}{problem[1:]}, and no more are allowed",
                "Wait until some have ended",
            )
            end = self._protocol.fail(channel.number, error_object(failure))
            if end is not None:
                await self._send(end)
            return
        ends = self._ends[channel.number] = Ends(self._sender(channel.number))
        self._channel_bytes += size
        self._tasks.spawn(self._serve(channel, ends, size))

    def _permit(self, endpoint: str) -> Context:
        """Where a call comes from.

        Raises:
            Failure: Its client may not make it.
        """
        assert self._context is not None
        client, permission = self._context.client, needed(endpoint)
        if permission not in client.permissions:
            raise Failure(
                f"The API token {client.identifier} does not allow {permission!r}",
                f"{endpoint} takes that permission",
                "Add it to the token's line in the server's file of tokens",
                data={"code": "permissionDenied", "permission": permission},
            )
        return self._context

    async def _answer(self, call: Call, size: int) -> None:
        """Run one call when its turn comes."""
        try:
            async with self._turns:
                await self._run(call)
        finally:
            self._backlog -= size
            self._has_room.set()

    async def _room(self) -> None:
        """Wait until the unanswered calls take less than they may."""
        while self._backlog > BACKLOG:
            self._has_room.clear()
            await self._has_room.wait()

    async def _run(self, call: Call) -> None:
        """Run one call and send its reply."""
        number, row = call.number, call.endpoint
        try:
            if self._service.before is not None:
                await self._service.before(row, call.parameter, number)
            context = self._permit(row.name)
            handler = CALLS[row.namespace, row.name]
            value = await handler(context, call.parameter)
            if value is not ABSENT:
                value = unstructure(value)
            reply = self._protocol.result(number, value)
        except Exception as exc:
            reply = self._protocol.error(number, error_object(exc))
        if reply is not None:
            await self._send(reply)

    async def _serve(self, channel: Channel, ends: Ends, size: int) -> None:
        """Run one channel and send its end."""
        number, row = channel.number, channel.endpoint
        try:
            if self._service.before is not None:
                await self._service.before(row, channel.parameter, number)
            context = self._permit(row.name)
            handler = CHANNELS[row.namespace, row.name]
            await handler(context, channel.parameter, ends)
            end = self._protocol.close(number)
        except Exception as exc:
            end = self._protocol.fail(number, error_object(exc))
        finally:
            self._channel_bytes -= size
        if self._ends.get(number) is ends:
            del self._ends[number]
        if end is not None:
            await self._send(end)

    def _sender(self, number: int) -> Callable[[Message], Awaitable[None]]:
        async def send(packet: Message) -> None:
            message = self._protocol.send(number, packet)
            if message is not None:
                await self._send(message)

        return send

    async def _send(self, message: Message) -> None:
        said = self._alpha.outgoing(message)
        if said is not None:
            await self._send_text(encoded(said))
