"""The dialect of the first alpha, as today's and back. No other file knows it.

Messages that only the alpha has are told by what they hold, and become today's; what
answers them becomes what the alpha reads. Everything else passes as it is.
Source: docs/wire/alpha.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .clients import Client

Message = dict[str, Any]  # one parsed JSON object, as it travels

#: Codes of errors that the alpha knows, by today's.
_CODES = {
    "generic.pathNotFound": "llm.pathNotFound",
    "generic.identifierNotFound": "llm.identifierNotFound",
    "generic.specificModelUnloaded": "llm.specificModelUnloaded",
    "generic.noModelMatchingQuery": "llm.noModelMatchingQuery",
}
#: Statistics of a prediction that the alpha knows.
_STATS = (
    "stopReason",
    "tokensPerSecond",
    "numGpuLayers",
    "timeToFirstTokenSec",
    "promptTokensCount",
    "predictedTokensCount",
    "totalTokensCount",
)
_CALLS = frozenset({"rpcResult", "rpcError"})


class Alpha:
    """Translates one socket.

    Attributes:
        client: Whose socket it is, once that is known.
    """

    def __init__(self, namespace: str) -> None:
        self.client: Client | None = None
        self._is_llm = namespace == "llm"
        self._infos: set[int] = set()  # numbers of calls that ask for a model's info
        # Numbers of channels in the dialect, and what makes its packets of today's.
        self._channels: dict[int, Callable[[Message], Message | None]] = {}

    def incoming(self, message: Any) -> tuple[Any, Message | None]:
        """A client's message in today's dialect, and what answers it at once."""
        if not isinstance(message, dict):
            return message, None
        kind, name = message.get("type"), message.get("endpoint")
        if kind == "rpcCall":
            return self._call(message, name)
        if kind == "channelCreate" and self._is_llm:
            given = message.get("creationParameter")
            number = message.get("channelId")
            if isinstance(given, dict) and type(number) is int:
                return self._create(message, number, name, given), None
        return message, None

    def outgoing(self, message: Message) -> Message | None:
        """What the server's message is for this client; None for nothing."""
        if self._channels and "channelId" in message:
            return self._packet(message)
        if self._infos and message.get("type") in _CALLS:
            message = self._answer(message)
        if "error" in message and self.client is not None and self.client.is_alpha:
            return message | {"error": _old_error(message["error"])}
        return message

    def _call(self, message: Message, name: Any) -> tuple[Any, Message | None]:
        given, number = message.get("parameter"), message.get("callId")
        if name == "echo" and isinstance(given, str) and type(number) is int:
            return None, {"type": "rpcResult", "callId": number, "result": given}
        if name == "getModelInfo" and self._is_llm and isinstance(given, dict):
            if type(number) is int:
                self._infos.add(number)
            specifier = self._specifier(given.get("specifier"))
            return message | {"parameter": given | {"specifier": specifier}}, None
        return message, None

    def _create(
        self, message: Message, number: int, name: Any, given: Message
    ) -> Message:
        """Open a channel; one that has today's parameter stays as it is."""
        if number in self._channels:  # still open: the protocol complains
            return message
        if name == "loadModel" and "path" in given and "modelKey" not in given:
            parameter, back = _load(given), _load_packet
        elif name == "predict" and (
            isinstance(given.get("history"), list)
            or ("config" in given and "predictionConfigStack" not in given)
        ):
            specifier = self._specifier(given.get("modelSpecifier"))
            parameter, back = _predict(given, specifier), _predict_packet
        else:
            return message
        self._channels[number] = back
        self._is_alpha()
        return message | {"creationParameter": parameter}

    def _specifier(self, given: Any) -> Any:
        if isinstance(given, dict) and given.get("type") == "sessionIdentifier":
            self._is_alpha()
            reference = given.get("sessionIdentifier")
            return {"type": "instanceReference", "instanceReference": reference}
        return given

    def _is_alpha(self) -> None:
        if self.client is not None:
            self.client.is_alpha = True

    def _packet(self, message: Message) -> Message | None:
        back = self._channels.get(message["channelId"])
        if back is None:
            return message
        if message["type"] == "channelSend":
            packet = back(message["message"])
            return None if packet is None else message | {"message": packet}
        del self._channels[message["channelId"]]
        if "error" in message:
            return message | {"error": _old_error(message["error"])}
        return message

    def _answer(self, message: Message) -> Message:
        """Give a model's info the fields of both dialects: a query tells neither."""
        number = message["callId"]
        if number not in self._infos:
            return message
        self._infos.discard(number)
        info = message.get("result")
        if not isinstance(info, dict) or "instanceReference" not in info:
            return message
        old = {
            "sessionIdentifier": info["instanceReference"],
            "descriptor": _descriptor(info),
        }
        return message | {"result": info | old}


def _load(given: Mapping[str, Any]) -> Message:
    """Today's parameter of ``loadModel``."""
    config = given.get("config")
    config = dict(config) if isinstance(config, dict) else {}
    fields = []
    if config.get("contextLength") is not None:
        fields.append(_field("llm.load.contextLength", config["contextLength"]))
    offload = config.get("gpuOffload", _offload(given.get("acceleration")))
    if offload not in (None, "auto"):
        key = "llm.load.llama.acceleration.offloadRatio"
        fields.append(_field(key, offload))
    return {
        "modelKey": given["path"],
        "loadConfigStack": _stack(fields),
        "noHup": given.get("noHup", False),
        **{name: given[name] for name in ("identifier", "preset") if name in given},
    }


def _offload(acceleration: Any) -> Any:
    """The share for the GPU; the first README has the object in another one."""
    while isinstance(acceleration, dict):
        acceleration = acceleration.get("offload", acceleration.get("acceleration"))
    return acceleration


def _predict(given: Mapping[str, Any], specifier: Any) -> Message:
    """Today's parameter of ``predict``."""
    config = given.get("config")
    config = dict(config) if isinstance(config, dict) else {}
    fields = [
        _field(f"llm.prediction.{name}", config[name])
        for name in ("temperature", "stopStrings", "contextOverflowPolicy")
        if config.get(name) is not None
    ]
    most = config.get("maxPredictedTokens")
    if most is not None:
        checked = {"checked": most != -1, "value": most if most != -1 else 1}
        fields.append(_field("llm.prediction.maxPredictedTokens", checked))
    if given.get("structured") is not None:
        fields.append(_field("llm.prediction.structured", given["structured"]))
    messages = given.get("history")
    if isinstance(messages, list):
        messages = [_message(message) for message in messages]
    before = config.get("prePrompt")
    if before and isinstance(messages, list):
        messages = [_message({"role": "system", "content": before}), *messages]
    layers = []
    prefix, suffix = config.get("inputPrefix"), config.get("inputSuffix")
    if prefix == "" and suffix == "":  # a completion: the text is the whole prompt
        empty = {"layerName": "completeModeFormatting", "config": {"fields": []}}
        layers.append(empty)
    elif prefix is not None or suffix is not None:
        fields.append(_field("llm.prediction.promptTemplate", _around(prefix, suffix)))
    stack = _stack(fields)
    return {
        "modelSpecifier": specifier,
        "history": {"messages": messages},
        "predictionConfigStack": {"layers": [*stack["layers"], *layers]},
    }


def _around(prefix: Any, suffix: Any) -> Message:
    """A prompt template that puts two texts around what the user says."""
    sides = [
        f"{side}{role}"
        for role in ("System", "User", "Assistant")
        for side in ("before", "after")
    ]
    texts = dict.fromkeys(sides, "")
    texts |= {"beforeUser": prefix or "", "afterUser": suffix or ""}
    return {"type": "manual", "manualPromptTemplate": texts, "stopStrings": []}


def _message(given: Any) -> Any:
    """A message whose content is a list of parts."""
    if isinstance(given, dict) and isinstance(given.get("content"), str):
        return given | {"content": [{"type": "text", "text": given["content"]}]}
    return given


def _field(key: str, value: Any) -> Message:
    return {"key": key, "value": value}


def _stack(fields: list[Message]) -> Message:
    return {"layers": [{"layerName": "apiOverride", "config": {"fields": fields}}]}


def _load_packet(packet: Message) -> Message | None:
    """A packet of a load, for the alpha."""
    if packet["type"] == "success":
        reference = packet["info"]["instanceReference"]
        return {"type": "success", "sessionIdentifier": reference}
    return packet if packet["type"] == "progress" else None


def _predict_packet(packet: Message) -> Message | None:
    """A packet of a prediction, for the alpha."""
    if packet["type"] == "fragment":
        return {"type": "fragment", "fragment": packet["fragment"]["content"]}
    if packet["type"] != "success":
        return None
    stats = {name: packet["stats"][name] for name in _STATS if name in packet["stats"]}
    info = _descriptor(packet["modelInfo"])
    return {"type": "success", "stats": stats, "modelInfo": info}


def _descriptor(info: Mapping[str, Any]) -> Message:
    return {"identifier": info["identifier"], "path": info["path"]}


def _old_error(error: Message) -> Message:
    """An error with the code that the alpha knows, if it has one."""
    display = error.get("displayData")
    if not isinstance(display, dict) or display.get("code") not in _CODES:
        return error
    code = _CODES[display["code"]]
    return error | {"displayData": display | {"code": code}}
