"""What a server must get right in every conversation, whatever was asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import attrs

import schema
from interop.recorder import Frame

NONE = type(None)
#: Fields that newer clients can't do without, and their types.
MODEL_FIELDS = {
    "type": str,
    "modelKey": str,
    "format": str,
    "displayName": str,
    "publisher": str,
    "path": str,
    "sizeBytes": int,
    "indexedModelIdentifier": str,
    "deviceIdentifier": (str, NONE),
    "vision": bool,
    "trainedForToolUse": bool,
    "maxContextLength": int,
}
INSTANCE_FIELDS = {
    **MODEL_FIELDS,
    "identifier": str,
    "instanceReference": str,
    "contextLength": int,
    "ttlMs": (int, NONE),
    "lastUsedTime": (int, NONE),
}
#: Where models are described: endpoint and packet (None for a call's result), the
#: field that holds the description, and what it must have.
DESCRIPTIONS = {
    ("listDownloadedModels", None): (None, MODEL_FIELDS),
    ("listLoaded", None): (None, INSTANCE_FIELDS),
    ("getModelInfo", None): (None, INSTANCE_FIELDS),
    ("loadModel", "resolved"): ("info", MODEL_FIELDS),
    ("loadModel", "success"): ("info", INSTANCE_FIELDS),
    ("getOrLoad", "alreadyLoaded"): ("info", INSTANCE_FIELDS),
    ("getOrLoad", "startLoading"): ("info", MODEL_FIELDS),
    ("getOrLoad", "loadSuccess"): ("info", INSTANCE_FIELDS),
    ("predict", "success"): ("modelInfo", INSTANCE_FIELDS),
}
VOID = ("unloadModel",)
#: Messages of a client that begin something, those of a server that go on and that
#: end it: the field with the number.
STARTS = {"rpcCall": "callId", "channelCreate": "channelId"}
GOES_ON = {"channelSend": "channelId"}
ENDS = {
    "rpcResult": "callId",
    "rpcError": "callId",
    "channelClose": "channelId",
    "channelError": "channelId",
}


@attrs.frozen
class Said:
    """One message of the server, and what it belongs to.

    Attributes:
        namespace: Of the socket.
        endpoint: What was called.
        message: The whole message.
    """

    namespace: str
    endpoint: str
    message: dict[str, Any]

    @property
    def packet(self) -> str | None:
        """The type of a channel's packet."""
        kind = self.message["type"]
        return self.message["message"]["type"] if kind == "channelSend" else None


class Conversation:
    """All messages of some connections, put together.

    Attributes:
        said: What the server said to calls and on channels.
        faults: What must not be: warnings, answers to nothing, no answer, two ends.
    """

    def __init__(self, frames: Iterable[Frame]) -> None:
        self.said: list[Said] = []
        self.faults: list[str] = []
        self._open: dict[tuple[int, str, int], str] = {}
        for frame in frames:
            self._take(frame)
        # The client of a channel without an end may hang, or never leave.
        self.faults += [f"no end: {name}" for name in self._open.values()]

    def _take(self, frame: Frame) -> None:
        message = frame.message
        kind = message.get("type")
        if kind == "communicationWarning":
            self.faults.append(f"{frame.sender} warns: {message['warning']}")
        elif frame.sender == "client":
            if kind in STARTS:
                field = STARTS[kind]
                number = (frame.connection, field, message[field])
                self._open[number] = message["endpoint"]
        elif kind is None:
            if message != {"success": True}:
                self.faults.append(f"not let in: {message}")
        else:
            self._reply(frame, kind)

    def _reply(self, frame: Frame, kind: str) -> None:
        message = frame.message
        field = (ENDS | GOES_ON).get(kind, "")
        number = (frame.connection, field, message.get(field, -1))
        endpoint = self._open.get(number)
        if endpoint is None:
            self.faults.append(f"nobody waits for this: {message}")
            return
        if kind in ENDS:
            del self._open[number]
        self.said.append(Said(frame.namespace, endpoint, message))

    def descriptions(self) -> Iterator[tuple[Said, dict[str, Any], dict[str, Any]]]:
        """Every description of a model: where, the description, what it must have."""
        for said in self.said:
            row = DESCRIPTIONS.get((said.endpoint, said.packet))
            message = said.message
            if row is None or not ("message" in message or "result" in message):
                continue
            field, required = row
            if field is not None:
                yield said, message["message"][field], required
            else:
                result = message["result"]
                for model in result if isinstance(result, list) else [result]:
                    yield said, model, required


def missing(description: dict[str, Any], required: dict[str, Any]) -> list[str]:
    """The fields that a description lacks, or that are of another type."""
    return [
        name
        for name, kind in required.items()
        if not _is(description.get(name, ...), kind)
    ]


def _is(value: Any, kind: Any) -> bool:
    """Whether a value has one of some types; True and False are no numbers."""
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def misfits(said: Said) -> list[str]:
    """What of a message does not fit the protocol's schema."""
    message = said.message
    kind, where = message["type"], f"{said.namespace}/%s/{said.endpoint}/%s"
    if kind == "channelSend":
        name, value = where % ("channel", "toClientPacket"), message["message"]
    elif kind in ("rpcError", "channelError"):
        name, value = "serializedLMSExtendedError", message["error"]
    elif kind == "rpcResult" and said.endpoint in VOID:
        return [f"{said.endpoint} has a result"] if "result" in message else []
    elif kind == "rpcResult" and "result" in message:
        name, value = where % ("rpc", "returns"), message["result"]
    else:
        return []
    return [f"{name}: {problem}" for problem in schema.problems(name, value)]
