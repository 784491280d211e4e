"""Every exception of this package, and the table from server codes to classes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from . import forks

forks.register()  # again, after `logging`
# Here because every module that logs imports this one, and the package itself imports
# none of them: that is how it starts quickly.
logging.getLogger("lmstudio").addHandler(logging.NullHandler())

#: Values in messages are cut at this many characters.
SHOWN = 200


def shown(value: object) -> str:
    """The `repr` of a value, cut to what fits a message."""
    try:
        text = repr(value)
    except Exception:  # a user's own, or nested too deeply
        text = f"<{type(value).__name__}>"
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _restore(cls: type[LMStudioError], fields: dict[str, Any]) -> LMStudioError:
    """Make an error from its fields again: the second half of pickling."""
    error = cls.__new__(cls)
    error.__dict__.update(fields)
    error.args = (str(error),)
    return error


class LMStudioError(Exception):
    """Base of every deliberate error of this package.

    Its fields are attributes; ``str()`` makes the sentence out of them.

    Attributes:
        partial: When a prediction failed: the text received until then.
        index: When several inputs were sent together: which one failed, from 0.
    """

    partial: str = ""
    index: int | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.__dict__.copy())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({shown(str(self))})"

    def _repr_html_(self) -> str:
        from .html import box, bubble, cut

        made = box(type(self).__name__, cut(str(self), 2000))
        return made + (
            bubble("so far", cut(self.partial, 2000)) if self.partial else ""
        )

    def of_input(self, index: int) -> LMStudioError:
        """The same error, saying which of several inputs it is about."""
        copy = _restore(type(self), self.__dict__.copy())
        copy.index = index
        copy.message = f"input {index}: {self.message}"
        copy.args = (copy.message,)
        return copy

    def fresh(self) -> LMStudioError:
        """A copy without a traceback, so that each waiter raises one of its own."""
        copy = _restore(type(self), self.__dict__.copy())
        copy.__cause__ = self.__cause__
        return copy


class LMStudioOSError(LMStudioError, OSError):
    """The operating system refused something, such as reading a file."""


class LMStudioRuntimeError(LMStudioError, RuntimeError):
    """Something was used in a state that does not allow it, such as after close."""


class LMStudioValueError(LMStudioError, ValueError):
    """An argument was wrong; nothing was sent."""


class LMStudioTypeError(LMStudioValueError, TypeError):
    """An argument has a type that can't be right; nothing was sent."""


class LMStudioOutputError(LMStudioValueError):
    """The text of a prediction is not what `structured` or a type asked for.

    Attributes:
        content: The whole text.
        stop_reason: Why the text ended, such as ``"maxPredictedTokensReached"``.
        problem: What is wrong with it.
    """

    def __init__(self, content: str, stop_reason: str, problem: str) -> None:
        self.content = content
        self.stop_reason = stop_reason
        self.problem = problem
        super().__init__(
            f"the answer can't be used as asked for: {problem}"
            f" (stop reason {stop_reason}, text {shown(content)})"
        )


class LMStudioTimeoutError(LMStudioError, TimeoutError):
    """A time limit ran out.

    Attributes:
        partial: Text of a prediction received until then, ``""`` without any.
    """

    def __init__(self, message: str, partial: str = "") -> None:
        super().__init__(message)
        self.partial = partial


class LMStudioServerError(LMStudioError):
    """The server answered a request with an error.

    Attributes:
        endpoint: The endpoint that failed, such as ``"loadModel"``.
        title: The server's one-line description.
        cause: Its explanation, or None.
        suggestion: What it proposes, or None.
        code: Its machine-readable code, such as ``"generic.pathNotFound"``, or None.
        details: The fields that came with the code.

    Source: ``rpcError`` and ``channelError`` (docs/wire/errors.md).
    """

    def __init__(
        self,
        endpoint: str,
        title: str,
        cause: str | None = None,
        suggestion: str | None = None,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.title = title
        self.cause = cause
        self.suggestion = suggestion
        self.code = code
        self.details = dict(details or {})
        parts = [f"{endpoint}: {title}"]
        parts += [part for part in (cause, suggestion) if part]
        super().__init__(". ".join(part.rstrip(".") for part in parts))

    @classmethod
    def from_wire(cls, endpoint: str, error: Any) -> LMStudioServerError:
        """The error of the class that the server's code calls for.

        Args:
            error: The ``error`` field as it travelled; anything is accepted.
        """
        fields = error if isinstance(error, dict) else {}
        display = fields.get("displayData")
        details = display if isinstance(display, dict) else fields.get("errorData")
        details = details if isinstance(details, dict) else {}
        code = details.get("code")
        kind = CODES.get(code, cls) if isinstance(code, str) else cls

        def text(name: str) -> str | None:
            value = fields.get(name)
            return value if isinstance(value, str) and value else None

        return kind(
            endpoint,
            text("title") or "Unknown error",
            text("cause"),
            text("suggestion"),
            code if isinstance(code, str) else None,
            {key: value for key, value in details.items() if key != "code"},
        )


class LMStudioModelNotFoundError(LMStudioServerError, LookupError):
    """No model on the server matches the name or the query."""


class LMStudioPresetNotFoundError(LMStudioServerError, LookupError):
    """The server knows no preset of that name."""


class LMStudioChannelClosedError(LMStudioServerError):
    """The server ended a channel without the packet that finishes it."""


class LMStudioModelLoadError(LMStudioServerError):
    """The server found the model and could not load it."""


class LMStudioPredictionError(LMStudioServerError):
    """The server gave up on a prediction.

    Attributes:
        partial: The text received until then.
    """

    partial: str = ""


class LMStudioModelCrashedError(LMStudioPredictionError):
    """The process that held the model ended in the middle of a prediction."""


class LMStudioContextOverflowError(LMStudioPredictionError):
    """The prompt alone does not fit the context of the model."""


class LMStudioFileTooLargeError(LMStudioServerError, ValueError):
    """A file is larger than the server takes, alone or with the client's others."""


class LMStudioDownloadError(LMStudioServerError):
    """A model could not be downloaded; its `code` says why.

    The codes begin with ``hub.`` (``offline``, ``unauthorized``, ``forbidden``,
    ``rateLimited``, ``failed``, ``badName``) or ``download.`` (``noSpace``,
    ``mismatch``, ``disk``, ``notLoadable``, ``cancelled``).
    """


class LMStudioToolError(LMStudioPredictionError):
    """A call that the model asked for can't be answered.

    Attributes:
        tool: The tool's name; ``""`` when the call could not even be read.
        problem: What is wrong with the call, or what the tool raised.
        raw_content: What the model wrote, where the call could not be read.
    """

    def __init__(self, tool: str, problem: str, raw_content: str | None = None) -> None:
        super().__init__("predict", problem)
        self.tool = tool
        self.problem = problem
        self.raw_content = raw_content
        self.message = f"tool {tool}: {problem}" if tool else problem
        self.args = (self.message,)


class LMStudioAuthenticationError(LMStudioServerError):
    """The server refused the client's identifier, passkey or token."""


class LMStudioUnsupportedError(LMStudioServerError):
    """The server does not know an endpoint, or refused its parameter.

    Source: ``communicationWarning`` (docs/wire/messages.md).
    """


class LMStudioClientError(LMStudioError):
    """Something failed on this side of the connection."""


class LMStudioCancelledError(LMStudioClientError):
    """A load or another call was cancelled before it ended."""


class LMStudioProtocolError(LMStudioClientError, ValueError):
    """The server sent something that does not fit the protocol.

    Attributes:
        where: The endpoint or message and the path in it: ``"listLoaded: $[0].path"``.
        problem: What is wrong there.
    """

    def __init__(self, where: str, problem: str) -> None:
        self.where = where
        self.problem = problem
        super().__init__(f"unexpected message from the server at {where}: {problem}")


class LMStudioWebsocketError(LMStudioClientError, ConnectionError):
    """A connection could not be made, or ended while something waited for it.

    Attributes:
        address: The server, such as ``"ws://127.0.0.1:1234"``.
        reason: What happened.
        partial: Text of a prediction received until then, ``""`` without any.
    """

    def __init__(self, address: str, reason: str, partial: str = "") -> None:
        self.address = address
        self.reason = reason
        self.partial = partial
        super().__init__(f"lost the connection to {address}: {reason}")


class LMStudioConnectionError(LMStudioWebsocketError):
    """No LM Studio server could be reached.

    Attributes:
        problem: One of ``"refused"``, ``"unreachable"``, ``"timeout"``, ``"name"``,
            ``"tls"``, ``"not-lmstudio"``, ``"proxy"``, ``"resources"`` (this process
            can't have more open files or threads).
        hint: One next step.
    """

    def __init__(self, address: str, problem: str, reason: str, hint: str) -> None:
        super().__init__(address, reason)
        self.problem = problem
        self.hint = hint
        what = (
            "no connection to" if problem == "resources" else "no LM Studio server at"
        )
        self.message = f"{what} {address}: {reason}. {hint}"
        self.args = (self.message,)


class LMStudioRealModelError(LMStudioRuntimeError):
    """A test would have reached a real server, where that is forbidden.

    Nothing was sent. See `lmstudio.testing.forbid_real_models`.

    Attributes:
        addresses: What would have been connected to, such as
            ``"ws://127.0.0.1:1234"``.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = list(addresses)
        super().__init__(
            f"real models are forbidden here, and {', '.join(self.addresses)} is no"
            " stand-in. Use lmstudio.testing.FakeServer or a cassette, or take back"
            " forbid_real_models() or the variable LMSTUDIO_FORBID_REAL_MODELS"
        )


class LMStudioUnknownMessageWarning(LMStudioError, UserWarning):
    """A server newer than this package sent something unknown (never raised)."""


#: The server's ``displayData.code``, or the ``errorData.code`` of our own server,
#: and the class that stands for it.
#: Source: docs/wire/errors.md.
CODES: dict[str, type[LMStudioServerError]] = {
    "generic.specificModelUnloaded": LMStudioModelNotFoundError,
    "generic.noModelMatchingQuery": LMStudioModelNotFoundError,
    "generic.pathNotFound": LMStudioModelNotFoundError,
    "generic.identifierNotFound": LMStudioModelNotFoundError,
    "generic.domainMismatch": LMStudioModelNotFoundError,
    "generic.presetNotFound": LMStudioPresetNotFoundError,
    "engine.loadFailed": LMStudioModelLoadError,
    "engine.modelCrashed": LMStudioModelCrashedError,
    "engine.contextOverflow": LMStudioContextOverflowError,
    "files.tooLarge": LMStudioFileTooLargeError,
    "hub.notFound": LMStudioModelNotFoundError,
    "hub.noModel": LMStudioModelNotFoundError,
    "hub.offline": LMStudioDownloadError,
    "hub.unauthorized": LMStudioDownloadError,
    "hub.forbidden": LMStudioDownloadError,
    "hub.rateLimited": LMStudioDownloadError,
    "hub.failed": LMStudioDownloadError,
    "hub.badName": LMStudioDownloadError,
    "download.noSpace": LMStudioDownloadError,
    "download.mismatch": LMStudioDownloadError,
    "download.disk": LMStudioDownloadError,
    "download.notLoadable": LMStudioDownloadError,
    "download.cancelled": LMStudioDownloadError,
    "llm.specificModelUnloaded": LMStudioModelNotFoundError,
    "llm.noModelMatchingQuery": LMStudioModelNotFoundError,
    "llm.pathNotFound": LMStudioModelNotFoundError,
    "llm.identifierNotFound": LMStudioModelNotFoundError,
}
