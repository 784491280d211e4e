"""Errors of plain HTTP: from exceptions to a status and an error object."""

from __future__ import annotations

import logging
import re
from typing import Any

from ...errors import LMStudioError
from ..engine import (
    BadRequest,
    ContextOverflow,
    EngineError,
    LoadFailed,
    ModelCrashed,
    Unloaded,
)
from ..failures import error_object
from ..gguf import GGUFError
from ..lookup import ModelNotOnDisk

log = logging.getLogger(__name__)

#: What the protocol's own codes are here: a status, a code, and the field at fault.
#: Source: docs/wire/rest.md, "Errors".
_DISPLAYED: dict[str, tuple[int, str, str | None]] = {
    "generic.pathNotFound": (404, "model_not_found", "model"),
    "generic.noModelMatchingQuery": (404, "model_not_found", "model"),
    "generic.specificModelUnloaded": (503, "model_unloaded", None),
    "generic.domainMismatch": (400, "wrong_model_type", "model"),
}
#: The same for this server's own codes.
_CODED: dict[str, tuple[int, str]] = {
    "engine.contextOverflow": (400, "context_length_exceeded"),
    "engine.loadFailed": (503, "model_load_failed"),
    "engine.modelCrashed": (503, "model_crashed"),
    "engine.notEnoughMemory": (503, "not_enough_memory"),
    "files.tooLarge": (413, "image_too_large"),
    "invalidAnswer": (500, "invalid_answer"),
    "hub.notFound": (404, "model_not_found"),
    "hub.noModel": (404, "model_not_found"),
    "hub.offline": (503, "hub_offline"),
    "hub.rateLimited": (503, "hub_busy"),
    "hub.unauthorized": (502, "hub_refused"),
    "hub.forbidden": (502, "hub_refused"),
    "hub.failed": (502, "hub_failed"),
    "download.noSpace": (507, "no_space"),
}


#: Of what failed on our side, what may go better at once. Clients of OpenAI's repeat
#: every answer of 500 and above unless it says otherwise; a whole generation that ends
#: the same way would run three times.
_MAY_SUCCEED = {"model_unloaded", "shutting_down", "hub_busy", "hub_offline"}


class RestError(EngineError):
    """A request is refused.

    Attributes:
        status: The HTTP status.
        code: Tells programs what is wrong, such as ``"model_not_found"``.
        param: The field at fault, such as ``"messages[2].role"``.
    """

    def __init__(
        self,
        title: str,
        suggestion: str | None = None,
        *,
        status: int = 400,
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(title, None, suggestion)
        self.status = status
        self.code = code
        self.param = param

    @property
    def may_succeed(self) -> bool:
        """Whether the same request may have another answer when it is sent again."""
        return self.status >= 500 and self.code in _MAY_SUCCEED

    def body(self, *, is_native: bool = False) -> dict[str, Any]:
        """The error object as it travels.

        Args:
            is_native: Name its type as ``/api/v1`` does, not as OpenAI.
        """
        error = {
            "message": str(self),
            "type": self._native_type() if is_native else self._type(),
            "param": self.param,
            "code": self.code,
        }
        return {"error": error}

    def _type(self) -> str:
        return "server_error" if self.status >= 500 else "invalid_request_error"

    def _native_type(self) -> str:
        if self.code in ("model_not_found", "job_not_found"):
            return self.code
        if self.status == 501:
            return "not_implemented"
        return "internal_error" if self.status >= 500 else "invalid_request"


def wrong(param: str, right: str, value: str) -> RestError:
    """A field has a value that it can't have.

    Args:
        right: What would be right, such as ``"a number from 0 to 1"``.
        value: What it is, ready to be shown.
    """
    return RestError(
        f"{param} must be {right}, not {value}", code="invalid_value", param=param
    )


def refusal(exc: BaseException) -> RestError:
    """An exception as the error of a request; the unforeseen is logged."""
    if isinstance(exc, RestError):
        return exc
    data = error_object(exc)
    cause, suggestion = data.get("cause"), data.get("suggestion")
    title = f"{data['title']}. {cause}" if cause else data["title"]
    status, code, param = _kind(exc, data)
    return RestError(title, suggestion, status=status, code=code, param=param)


def _kind(
    exc: BaseException, data: dict[str, Any]
) -> tuple[int, str | None, str | None]:
    """The status, the code and the field of an error object."""
    shown = _DISPLAYED.get(data.get("displayData", {}).get("code", ""))
    if shown is not None:
        return shown
    code = data.get("errorData", {}).get("code")
    if code in _CODED:
        return (*_CODED[code], None)
    if isinstance(exc, ModelNotOnDisk):
        return 404, "model_not_found", "model"
    if isinstance(exc, Unloaded):
        return 503, "model_unloaded", None
    if isinstance(exc, (LoadFailed, ModelCrashed, GGUFError)):
        return 503, "model_load_failed", "model"
    if isinstance(exc, (BadRequest, ContextOverflow)) or code is not None:
        return 400, _snake(code), None
    is_foreseen = isinstance(exc, (EngineError, LMStudioError))
    return (400, None, None) if is_foreseen else (500, "internal_error", None)


def _snake(code: str | None) -> str | None:
    """A code as it is written here: ``invalid_setting`` for ``invalidSetting``."""
    if code is None:
        return None
    return re.sub(r"(?<=[a-z])[A-Z]", lambda found: f"_{found[0]}", code).lower()
