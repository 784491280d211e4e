"""Errors on their way to a client: from exceptions to error objects."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import LMStudioError
from ..wire.common import ModelQuery
from ..wire.converter import unstructure
from .engine import ContextOverflow, EngineError, LoadFailed, ModelCrashed, ModelFile
from .gguf import GGUFError
from .lookup import ModelNotOnDisk

log = logging.getLogger(__name__)

#: Names that an error shows of those that exist.
SAMPLE = 10


class Failure(EngineError):
    """A request can't be done; what clients know as a code travels along.

    Attributes:
        display: ``displayData``: one of the protocol's own codes and its fields.
        data: ``errorData``: a code of this server and its fields.

    Source: docs/wire/errors.md.
    """

    def __init__(
        self,
        title: str,
        cause: str | None = None,
        suggestion: str | None = None,
        *,
        display: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(title, cause, suggestion)
        self.display = dict(display) if display is not None else None
        self.data = dict(data) if data is not None else None


def no_match(query: ModelQuery, loaded: Sequence[str]) -> Failure:
    """No loaded model satisfies a query.

    Args:
        loaded: Identifiers of all that are loaded.
    """
    asked = unstructure(query)
    wanted = ", ".join(f"{name} {value!r}" for name, value in asked.items())
    title = f"No loaded model has {wanted}" if wanted else "No model is loaded"
    return Failure(
        title,
        _listing("loaded", loaded) if wanted else None,
        "Load a model first" if not loaded else None,
        display={
            "code": "generic.noModelMatchingQuery",
            "query": asked,
            "loadedModelsSample": list(loaded[:SAMPLE]),
            "totalLoadedModels": len(loaded),
        },
    )


def instance_gone(reference: str) -> Failure:
    """An instance reference names nothing any more."""
    return Failure(
        f"The model with instance reference {reference[:100]!r} is no longer loaded",
        None,
        "Load it again",
        display={"code": "generic.specificModelUnloaded"},
    )


def wrong_domain(file: ModelFile, expected: str) -> Failure:
    """An embedding model was asked for as a text model, or the other way round."""
    actual = domain_of(file)
    return Failure(
        f"{file.key} is of the kind {actual!r}, not {expected!r}",
        None,
        f"Use it in the namespace {actual!r}",
        display={
            "code": "generic.domainMismatch",
            "path": file.relative_path,
            "actualDomain": actual,
            "expectedDomain": expected,
        },
    )


def no_preset(
    name: str,
    presets: Sequence[tuple[str, str]] = (),
    *,
    total: int | None = None,
    is_ambiguous: bool = False,
    broken: Sequence[str] = (),
) -> Failure:
    """A preset that does not exist, or a name that several have.

    Args:
        presets: Identifiers and names of those that exist, or that fit.
        total: How many exist, if that differs.
        broken: Those that can't be read, and why.
    """
    title = f"No preset is called {name[:100]!r}"
    about, suggestion = "This server has no presets", "Give the options themselves"
    if presets:
        listed = ", ".join(f"{called!r} ({of})" for of, called in presets[:SAMPLE])
        more = ", ..." if len(presets) > SAMPLE else ""
        about, suggestion = f"There are {listed}{more}", "Use one of these names"
    if is_ambiguous:
        title = f"Several presets fit {name[:100]!r}"
        suggestion = "Use the identifier of one"
    if broken:
        about += f". Broken: {', '.join(broken[:SAMPLE])}"
    return Failure(
        title,
        about,
        suggestion,
        display={
            "code": "generic.presetNotFound",
            "specifiedFuzzyPresetIdentifier": name,
            "availablePresetsSample": [
                {"identifier": of, "name": called} for of, called in presets[:SAMPLE]
            ],
            "totalAvailablePresets": len(presets) if total is None else total,
        },
    )


def domain_of(file: ModelFile) -> str:
    """The namespace that serves a model."""
    return "embedding" if file.is_embedding else "llm"


def error_object(exc: BaseException) -> dict[str, Any]:
    """The error as it travels. What is not foreseen is logged with its traceback.

    The others are logged by their title: why a request was refused is for the owner of
    the server to see as well. Titles have neither prompts nor secrets in them.
    """
    if isinstance(exc, EngineError):
        title, cause, suggestion = exc.title, exc.cause, exc.suggestion
    elif isinstance(exc, LMStudioError):
        title, cause, suggestion = str(exc), None, None
    else:
        log.error("unexpected failure", exc_info=exc)
        title, suggestion = "The server failed", None
        cause = f"{type(exc).__name__}: {exc}"
    if isinstance(exc, (EngineError, LMStudioError)):
        log.info("refused or failed: %.300s", title)
    # Clients of several versions make their texts of different fields, so both
    # titles are always there. Source: docs/wire/errors.md.
    made: dict[str, Any] = {"title": title, "rootTitle": title}
    if cause:
        made["cause"] = cause
    if suggestion:
        made["suggestion"] = suggestion
    display, data = _codes(exc)
    if display is not None:
        made["displayData"] = display
    if data is not None:
        made["errorData"] = data
    return made


def _codes(exc: BaseException) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """What clients know as ``displayData``, and what goes as ``errorData``."""
    if isinstance(exc, Failure):
        return exc.display, exc.data
    if isinstance(exc, ModelNotOnDisk):
        return {
            "code": "generic.pathNotFound",
            "path": exc.name,
            "availablePathsSample": exc.sample,
            "totalModels": exc.total,
        }, None
    if isinstance(exc, (LoadFailed, GGUFError)):
        return None, {"code": "engine.loadFailed"}
    if isinstance(exc, ModelCrashed):
        return None, {"code": "engine.modelCrashed"}
    if isinstance(exc, ContextOverflow):
        return None, {
            "code": "engine.contextOverflow",
            "promptTokens": exc.prompt_tokens,
            "contextLength": exc.context_length,
        }
    code = getattr(exc, "code", None)
    return None, {"code": code} if isinstance(code, str) else None


def _listing(what: str, names: Sequence[str]) -> str:
    if not names:
        return f"No model is {what}"
    more = ", ..." if len(names) > SAMPLE else ""
    return f"These are {what}: {', '.join(names[:SAMPLE])}{more}"
