"""Client half of the wire protocol: no sockets, threads, clocks or logging."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from typing import Any, Literal

import attrs

Kind = Literal["rpc", "channel"]
Message = dict[str, Any]  # one parsed JSON object, as it travels


@attrs.frozen
class End:
    """The last thing that happens to a request.

    Attributes:
        how: ``"result"`` an rpc was answered, ``"closed"`` a channel ended normally,
            ``"error"`` the server failed it, ``"refused"`` a warning of the server
            names it, ``"lost"`` the connection ended, ``"expired"`` we gave up.
        body: The result or error as parsed JSON; else the reason, a short sentence.
    """

    how: str
    body: Any = None


#: What one request got: packets (parsed JSON) in order, and at the end an `End`.
Batch = list[Any]


@attrs.define
class Received:
    """What the messages of one socket read mean.

    Attributes:
        batches: Request number to what it got.
        ended: Numbers whose batch has an `End`.
        strays: Messages that nobody waits for.
        complaints: Texts of warnings that belong to no single request.
    """

    batches: dict[int, Batch] = attrs.field(factory=dict)
    ended: list[int] = attrs.field(factory=list)
    strays: list[Any] = attrs.field(factory=list)
    complaints: list[str] = attrs.field(factory=list)


#: Message type -> (field with the number, field with the body, kind, how it ends).
#: Source: docs/wire/messages.md.
FINAL = {
    "rpcResult": ("callId", "result", "rpc", "result"),
    "rpcError": ("callId", "error", "rpc", "error"),
    "channelClose": ("channelId", "", "channel", "closed"),
    "channelError": ("channelId", "error", "channel", "error"),
}

#: Complaints that a cancel which crosses the end of its channel provokes.
HARMLESS = frozenset({"channelUnknown", "rpcUnknown"})

#: How warnings name an endpoint, with and without a `kind`.
#: Source: docs/wire/messages.md.
_NAMED = re.compile(r"endpoint(Name)?\s*=\s*[\"'`]?(\w+)")


class ClientProtocol:
    """Numbers requests and says whom each reply is for. Callers do the locking."""

    def __init__(self) -> None:
        # Calls and channels share the numbers, but not the maps: a reply of the
        # wrong kind is a stray. Source: docs/wire/messages.md.
        self._numbers = itertools.count(1)
        self._calls: dict[int, str] = {}
        self._channels: dict[int, str] = {}

    @property
    def open_requests(self) -> int:
        """How many requests wait for something."""
        return len(self._calls) + len(self._channels)

    def next_number(self) -> int:
        """A number for `open`, for callers that must know it first."""
        return next(self._numbers)

    def open(
        self,
        kind: Kind,
        endpoint: str,
        parameter: Any = None,
        number: int | None = None,
    ) -> tuple[int, Message]:
        """Start a request; returns its number and the message to send.

        Args:
            parameter: Parsed JSON; None sends no parameter at all, since servers
                refuse ``null`` and ``{}`` where nothing belongs.
            number: From `next_number`; None takes one.
        """
        number = self.next_number() if number is None else number
        message: Message
        if kind == "rpc":
            self._calls[number] = endpoint
            message = {"endpoint": endpoint, "type": "rpcCall", "callId": number}
            name = "parameter"
        else:
            self._channels[number] = endpoint
            message = {
                "endpoint": endpoint,
                "type": "channelCreate",
                "channelId": number,
            }
            name = "creationParameter"
        if parameter is not None:
            message[name] = parameter
        return number, message

    def packet(self, number: int, body: Any) -> Message | None:
        """The message that carries a packet to the server; None after the end."""
        if number not in self._channels:
            return None
        return {"type": "channelSend", "channelId": number, "message": body}

    def forget(self, number: int) -> None:
        """Stop expecting anything for a request; what still comes is a stray."""
        self._calls.pop(number, None)
        self._channels.pop(number, None)

    def receive(self, messages: Iterable[Any]) -> Received:
        """Say what messages mean.

        Nothing in a message is a reason to raise here: late replies are normal,
        and a newer server sends types that this version does not know.
        """
        received = Received()
        batches, channels = received.batches, self._channels
        for message in messages:
            try:
                # Nearly every message is one of these, so they come first.
                if message["type"] == "channelSend":
                    number = message["channelId"]
                    body = message["message"]
                    if number in channels:
                        batch = batches.get(number)
                        if batch is None:
                            batches[number] = [body]
                        else:
                            batch.append(body)
                    else:
                        received.strays.append(message)
                    continue
                self._rare(message, received)
            except (KeyError, TypeError, IndexError):
                received.strays.append(message)
        return received

    def _rare(self, message: Message, received: Received) -> None:
        kind = message["type"]
        if kind == "communicationWarning":
            self._warning(message, received)
            return
        number_field, body_field, of, how = FINAL[kind]
        number = message[number_field]
        waiting: dict[int, str] = self._calls if of == "rpc" else self._channels
        if number not in waiting:
            received.strays.append(message)
            return
        self._finish(number, End(how, message.get(body_field)), received)

    def _finish(self, number: int, end: End, received: Received) -> None:
        self.forget(number)
        received.batches.setdefault(number, []).append(end)
        received.ended.append(number)

    def _warning(self, message: Message, received: Received) -> None:
        """A complaint of the server: the only answer to a call it can't read."""
        text = str(message.get("warning"))
        kind = message.get("kind")
        found = _NAMED.search(text)
        if kind in HARMLESS:
            received.strays.append(message)
            return
        blamed: list[int] = []
        if found is not None:
            is_bad_parameter = bool(found[1])
            of = {**self._calls, **self._channels}
            blamed = [n for n, endpoint in of.items() if endpoint == found[2]]
            # An unknown endpoint fails every call to it; a wrong parameter fails one,
            # and only when there is no doubt which.
            if is_bad_parameter and len(blamed) > 1:
                blamed = []
        if not blamed:
            received.complaints.append(text)
        for number in blamed:
            self._finish(number, End("refused", text), received)

    def end(self, reason: str) -> dict[int, End]:
        """The connection is over: the last thing for every open request."""
        lost = {n: End("lost", reason) for n in (*self._calls, *self._channels)}
        self._calls.clear()
        self._channels.clear()
        return lost


def auth_packet(identifier: str, passkey: str) -> Message:
    """The first frame of a connection.

    Source: docs/wire/connection.md.
    """
    return {
        "authVersion": 1,
        "clientIdentifier": identifier,
        "clientPasskey": passkey,
    }


def auth_refusal(reply: Any) -> str | None:
    """Why the server refused the auth packet; None when it accepted.

    Args:
        reply: The first frame of the server, parsed.
    """
    if isinstance(reply, dict) and reply.get("success") is True:
        return None
    error = reply.get("error") if isinstance(reply, dict) else None
    return (
        str(error) if error else f"unexpected reply to authentication: {reply!r:.200}"
    )
