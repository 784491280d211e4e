"""Server half of the wire protocol: no sockets, threads, clocks or logging."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from ..errors import LMStudioProtocolError, shown
from ..wire.converter import structure
from ..wire.endpoints import ENDPOINTS, REQUEST_SHAPES, Endpoint

Message = dict[str, Any]  # one parsed JSON object, as it travels

#: Each side sends so many warnings on one socket; further mismatches are silent.
#: Source: docs/wire/messages.md.
MOST_WARNINGS = 5
#: Longest identifier and passkey, characters.
LONGEST_CREDENTIAL = 256
#: A late packet to one of the last channels that ended is normal: a cancel often
#: crosses the close.
_REMEMBERED = 1024

#: Stands for a result that is left out of its message.
ABSENT: Any = type("Absent", (), {"__repr__": lambda self: "ABSENT"})()


@attrs.frozen
class Authenticate:
    """The client says who it is; answer with `ServerProtocol.accept` or `refuse`."""

    identifier: str
    passkey: str


@attrs.frozen
class Call:
    """A call to answer once, with `ServerProtocol.result` or `error`.

    Attributes:
        number: The client's number for it.
        endpoint: Its row in the table.
        parameter: Of the class that the row names, None when it has none.
    """

    number: int
    endpoint: Endpoint
    parameter: Any


@attrs.frozen
class Channel:
    """A channel was opened; end it once, with `ServerProtocol.close` or `fail`.

    Attributes are those of `Call`.
    """

    number: int
    endpoint: Endpoint
    parameter: Any


@attrs.frozen
class Packet:
    """A packet for an open channel; its ``type`` is one that the endpoint knows.

    Attributes:
        number: The client's number for the channel.
        message: As it came.
        value: Of the class in `REQUEST_SHAPES`, None for a type without one.
    """

    number: int
    message: Message
    value: Any = None


@attrs.frozen
class Complaint:
    """The client did not understand something that the server sent."""

    warning: str


Event = Authenticate | Call | Channel | Packet | Complaint


class ServerProtocol:
    """Checks what one client sends, and makes what is sent to it.

    Calls and channels have maps of their own, so one number may be both. Signals are
    never open here: no endpoint of the table is one, so each gets a warning.

    Attributes:
        namespace: What this socket serves, such as ``"llm"``.
        is_authenticated: Whether the client was accepted.
    """

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.is_authenticated = False
        self._calls: dict[int, Endpoint] = {}
        self._channels: dict[int, Endpoint] = {}
        self._ended: OrderedDict[int, None] = OrderedDict()
        self._warnings_left = MOST_WARNINGS

    def receive(self, message: Any) -> tuple[Event | None, list[Message]]:
        """Say what a parsed frame means, and what to send at once.

        What is no message at all is dropped without a reply, as the protocol wants.
        """
        if not isinstance(message, dict):
            return None, []
        if not self.is_authenticated:
            return _credentials(message), []
        read = _INCOMING.get(str(message.get("type")))
        return read(self, message) if read is not None else (None, [])

    def accept(self) -> Message:
        """Let the client in."""
        self.is_authenticated = True
        return {"success": True}

    def refuse(self, reason: str) -> Message:
        """Turn the client away; close the socket after this message."""
        return {"success": False, "error": reason}

    def result(self, number: int, value: Any = ABSENT) -> Message | None:
        """The reply of a call; None when it has one already.

        Args:
            value: Parsed JSON. `ABSENT` for a call that returns nothing: a ``null``
                would make clients drop the message.
        """
        if self._calls.pop(number, None) is None:
            return None
        message: Message = {"type": "rpcResult", "callId": number}
        if value is not ABSENT:
            message["result"] = value
        return message

    def error(self, number: int, error: Message) -> Message | None:
        """The failure of a call; None when it has a reply already."""
        if self._calls.pop(number, None) is None:
            return None
        return {"type": "rpcError", "callId": number, "error": error}

    def send(self, number: int, packet: Message) -> Message | None:
        """A packet on a channel; None when the channel has ended."""
        if number not in self._channels:
            return None
        return {"type": "channelSend", "channelId": number, "message": packet}

    def close(self, number: int) -> Message | None:
        """The good end of a channel; None when it has ended already."""
        if not self._end(number):
            return None
        return {"type": "channelClose", "channelId": number}

    def fail(self, number: int, error: Message) -> Message | None:
        """The bad end of a channel; None when it has ended already."""
        if not self._end(number):
            return None
        return {"type": "channelError", "channelId": number, "error": error}

    def fail_all(self, error: Message) -> list[Message]:
        """End every open call and channel with an error."""
        ends = [self.error(number, error) for number in list(self._calls)]
        ends += [self.fail(number, error) for number in list(self._channels)]
        return [message for message in ends if message is not None]

    def _end(self, number: int) -> bool:
        if self._channels.pop(number, None) is None:
            return False
        self._ended[number] = None
        if len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)
        return True

    def _warn(self, kind: str, text: str) -> list[Message]:
        """A complaint about the client, as long as some are left."""
        if self._warnings_left == 0:
            return []
        self._warnings_left -= 1
        return [{"type": "communicationWarning", "warning": text, "kind": kind}]

    def _call(self, message: Message) -> tuple[Event | None, list[Message]]:
        number, name = _integer(message, "callId"), message.get("endpoint")
        if number is None or not isinstance(name, str):
            return None, []
        if number in self._calls:
            text = f"A call with this number is still running, callId = {number}"
            return None, self._warn("unknown", text)

        def failed(kind: str, text: str) -> list[Message]:
            error = _error(text)
            reply = {"type": "rpcError", "callId": number, "error": error}
            return [*self._warn(kind, text), reply]

        row = ENDPOINTS.get((self.namespace, name))
        if row is None or row.kind != "rpc":
            return None, failed("rpcEndpointUnknown", self._unknown("call", name))
        try:
            parameter = _parameter(row, message, "parameter")
        except LMStudioProtocolError as exc:
            return None, failed("rpcParameterTypeError", _misfit("parameter", exc))
        self._calls[number] = row
        return Call(number, row, parameter), []

    def _create(self, message: Message) -> tuple[Event | None, list[Message]]:
        number, name = _integer(message, "channelId"), message.get("endpoint")
        if number is None or not isinstance(name, str):
            return None, []
        if number in self._channels:
            text = f"A channel with this number is still open, channelId = {number}"
            return None, self._warn("channelAlreadyOpen", text)

        def failed(kind: str, text: str) -> list[Message]:
            # The protocol asks for the warning only; the error spares the client
            # a wait for packets that never come.
            self._ended[number] = None
            error = _error(text)
            reply = {"type": "channelError", "channelId": number, "error": error}
            return [*self._warn(kind, text), reply]

        row = ENDPOINTS.get((self.namespace, name))
        if row is None or row.kind != "channel":
            text = self._unknown("channel", name)
            return None, failed("channelEndpointUnknown", text)
        try:
            parameter = _parameter(row, message, "creationParameter")
        except LMStudioProtocolError as exc:
            kind = "channelCreationParameterTypeError"
            return None, failed(kind, _misfit("creation parameter", exc))
        self._ended.pop(number, None)
        self._channels[number] = row
        return Channel(number, row, parameter), []

    def _packet(self, message: Message) -> tuple[Event | None, list[Message]]:
        number, packet = _integer(message, "channelId"), message.get("message")
        if number is None:
            return None, []
        row = self._channels.get(number)
        if row is None:
            if number in self._ended:
                return None, []
            text = f"No such channel is open, channelId = {number}"
            return None, self._warn("channelUnknown", text)
        if not isinstance(packet, dict) or packet.get("type") not in row.requests:
            text = f"A packet does not fit, endpointName = {row.name}: {shown(packet)}"
            return None, self._warn("channelMessageTypeError", text)
        shape = REQUEST_SHAPES.get(packet["type"])
        value: Any = None
        if shape is not None:
            try:
                value = structure(packet, shape, row.name)
            except LMStudioProtocolError as exc:
                text = _misfit(f"packet {packet['type']}", exc)
                return None, self._warn("channelMessageTypeError", text)
        return Packet(number, packet, value), []

    def _signal(self, message: Message) -> tuple[Event | None, list[Message]]:
        name = message.get("endpoint")
        if _integer(message, "subscribeId") is None or not isinstance(name, str):
            return None, []
        prefix = "writableSignal" if message["type"].startswith("w") else "signal"
        kind = f"{prefix}EndpointUnknown"
        return None, self._warn(kind, self._unknown("signal", name))

    def _no_signal(self, message: Message) -> tuple[Event | None, list[Message]]:
        number = _integer(message, "subscribeId")
        if number is None:
            return None, []
        prefix = "writableSignal" if message["type"].startswith("w") else "signal"
        text = f"No such subscription, subscribeId = {number}"
        return None, self._warn(f"{prefix}Unknown", text)

    def _complaint(self, message: Message) -> tuple[Event | None, list[Message]]:
        text = message.get("warning")
        return (Complaint(text), []) if isinstance(text, str) else (None, [])

    def _keep_alive(self, _: Message) -> tuple[Event | None, list[Message]]:
        return None, [{"type": "keepAliveAck"}]

    def _unknown(self, what: str, name: str) -> str:
        return f"No such {what} in namespace {self.namespace}, endpoint = {name:.200}"


#: Message type -> its reader. ``channelAck`` is not among them: nothing waits for one.
#: Source: docs/wire/messages.md.
_INCOMING: dict[
    str, Callable[[ServerProtocol, Message], tuple[Event | None, list[Message]]]
] = {
    "rpcCall": ServerProtocol._call,
    "channelCreate": ServerProtocol._create,
    "channelSend": ServerProtocol._packet,
    "signalSubscribe": ServerProtocol._signal,
    "signalUnsubscribe": ServerProtocol._no_signal,
    "writableSignalSubscribe": ServerProtocol._signal,
    "writableSignalUnsubscribe": ServerProtocol._no_signal,
    "writableSignalUpdate": ServerProtocol._no_signal,
    "communicationWarning": ServerProtocol._complaint,
    "keepAlive": ServerProtocol._keep_alive,
}


def is_message(message: Any) -> bool:
    """Whether a client may say so; what is no message was dropped without a word."""
    if not isinstance(message, dict):
        return False
    types = (*_INCOMING, "channelAck")
    return message.get("type") in types or _credentials(message) is not None


def _credentials(message: Mapping[str, Any]) -> Authenticate | None:
    """The auth packet, or None for anything else: the server goes on waiting."""
    identifier = message.get("clientIdentifier")
    passkey = message.get("clientPasskey")
    version = message.get("authVersion")
    if isinstance(version, bool) or version != 1:
        return None
    if not isinstance(identifier, str) or not isinstance(passkey, str):
        return None
    if max(len(identifier), len(passkey)) > LONGEST_CREDENTIAL:
        return None
    return Authenticate(identifier, passkey)


def _integer(message: Mapping[str, Any], name: str) -> int | None:
    value = message.get(name)
    # Some clients write all numbers as floats. Source: docs/wire/messages.md.
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value


def _parameter(row: Endpoint, message: Mapping[str, Any], field: str) -> Any:
    """The parameter as the row's class; its absence is checked as well."""
    if row.parameter is None:
        if field in message:
            raise LMStudioProtocolError(row.name, f"expected no {field}")
        return None
    if field not in message:
        if row.optional:
            return None
        raise LMStudioProtocolError(row.name, f"expected a {field}")
    return structure(message[field], row.parameter, row.name)


def _misfit(what: str, exc: LMStudioProtocolError) -> str:
    # `where` is "<endpoint>" or "<endpoint>: <path>"; clients look for this spelling.
    name, _, path = exc.where.partition(": ")
    at = f" at {path}" if path else ""
    return f"The {what} does not fit, endpointName = {name}: {exc.problem}{at}"


def _error(text: str) -> Message:
    return {"title": text, "rootTitle": text}
