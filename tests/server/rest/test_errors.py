"""Exceptions become a status, a code and an error object."""

from __future__ import annotations

import pytest

from lmstudio.errors import LMStudioValueError
from lmstudio.server.engine import (
    BadRequest,
    ContextOverflow,
    EngineError,
    LoadFailed,
    ModelCrashed,
    Unloaded,
)
from lmstudio.server.failures import Failure, instance_gone, no_match
from lmstudio.server.lookup import ModelNotOnDisk
from lmstudio.server.memory import NotEnoughMemory
from lmstudio.server.rest.errors import RestError, refusal, wrong
from lmstudio.server.sampling import GenerationError
from lmstudio.wire.common import ModelQuery


@pytest.mark.parametrize(
    ("exc", "status", "code"),
    [
        (ModelNotOnDisk("x", [], [], 0), 404, "model_not_found"),
        (no_match(ModelQuery(), []), 404, "model_not_found"),
        (instance_gone("x"), 503, "model_unloaded"),
        (Unloaded("gone"), 503, "model_unloaded"),
        (LoadFailed("no"), 503, "model_load_failed"),
        (ModelCrashed("no"), 503, "model_crashed"),
        (NotEnoughMemory("x", 9, 5, None, False), 503, "not_enough_memory"),
        (ContextOverflow(9, 5), 400, "context_length_exceeded"),
        (BadRequest("no"), 400, None),
        (GenerationError("no", code="invalidSetting"), 400, "invalid_setting"),
        (GenerationError("no", code="invalidAnswer"), 500, "invalid_answer"),
        (Failure("big", data={"code": "files.tooLarge"}), 413, "image_too_large"),
        (EngineError("no"), 400, None),
        (LMStudioValueError("no"), 400, None),
        (ZeroDivisionError("no"), 500, "internal_error"),
    ],
)
def test_kinds(exc, status, code):
    """Every kind of failure has the status that tells clients whether to try again."""
    error = refusal(exc)
    assert (status, code) == (error.status, error.code)


def test_the_message_has_everything():
    """Cause and suggestion are a part of the message."""
    error = refusal(EngineError("It failed", "The disk is full", "Free some space"))
    message = "It failed. The disk is full. Free some space"
    expected = {"message": message, "type": "invalid_request_error"}
    assert {"error": {**expected, "param": None, "code": None}} == error.body()


@pytest.mark.parametrize(
    ("status", "code", "openai", "native"),
    [
        (400, "x", "invalid_request_error", "invalid_request"),
        (404, "model_not_found", "invalid_request_error", "model_not_found"),
        (404, "job_not_found", "invalid_request_error", "job_not_found"),
        (501, "x", "server_error", "not_implemented"),
        (503, "x", "server_error", "internal_error"),
    ],
)
def test_types(status, code, openai, native):
    """OpenAI and LM Studio call the types of errors differently."""
    error = RestError("no", status=status, code=code)
    assert openai == error.body()["error"]["type"]
    assert native == error.body(is_native=True)["error"]["type"]


@pytest.mark.parametrize(
    ("status", "code", "may"),
    [
        (400, "invalid_value", False),
        (500, "invalid_answer", False),
        (500, "internal_error", False),
        (503, "not_enough_memory", False),
        (507, "no_space", False),
        (503, "model_unloaded", True),
        (503, "shutting_down", True),
    ],
)
def test_what_may_succeed(status, code, may):
    """Only what is over in a moment is worth another try."""
    assert may is RestError("no", status=status, code=code).may_succeed


def test_wrong():
    """A wrong value is told with its field and what would be right."""
    error = wrong("n", "1", "2")
    assert ("n must be 1, not 2", "n") == (str(error), error.param)
