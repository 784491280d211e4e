"""Which model on disk is meant by what somebody wrote, or left out."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import click

import lmstudio

from .choices import can_ask, choose
from .failures import NOT_FOUND, Failure
from .output import note, size_text

KINDS = ("llm", "embedding")


def find_model(
    client: lmstudio.LMStudioClient,
    name: str | None,
    *,
    kinds: Collection[str] = KINDS,
    exact: bool = False,
    yes: bool = False,
    local: bool = False,
) -> tuple[str, str]:
    """The key of a model on the server's disk, and its kind.

    Args:
        name: Its key or path, or with several on disk a part of one of these. None
            asks; so does a part that several have.
        kinds: The kinds that will do.
        exact: A part will not do.
        yes: Ask nothing; the first of several will do.
        local: Only models of the server's own machine, and none that it reaches.

    Raises:
        Failure: None fits, or several and nobody can be asked.
    """
    models = [m for m in client.system.list_downloaded_models() if m.type in kinds]
    if local:
        models = [model for model in models if model.device_identifier is None]
    if name is None:
        return _one_of(models, "models are on disk", yes)
    for model in models:
        if name in (model.model_key, model.path, *(model.variants or ())):
            return name, model.type
    if exact:
        raise Failure(
            f"no model on disk has exactly the key or path {name!r};"
            " `lms ls --detailed` lists them",
            NOT_FOUND,
        )
    part = name.lower()
    fitting = [m for m in models if part in f"{m.model_key}\n{m.path}".lower()]
    if fitting:
        return _one_of(fitting, f"models fit {name!r}", yes)
    if local:
        raise Failure(f"no model of the server's machine fits {name!r}", NOT_FOUND)
    return name, "llm"  # the server knows what to say, and more names than we do


def missing_key() -> None:
    """Refuse a command line without a model where nobody can be asked for it.

    Raises:
        click.UsageError: So it is.
    """
    if not can_ask():
        raise click.UsageError("Missing argument 'KEY'.")


def _one_of(
    models: Sequence[lmstudio.ModelInfo], what: str, yes: bool
) -> tuple[str, str]:
    keys = ", ".join(model.model_key for model in models)
    if not models:
        hint = "`lms get smollm2-135m-instruct` fetches one"
        raise Failure(f"there are no models on disk; {hint}", NOT_FOUND)
    place = 0
    if len(models) > 1 and yes:
        note(f"{len(models)} {what} ({keys}): taking {models[0].model_key}")
    elif len(models) > 1 and can_ask():
        lines = [f"{m.model_key}  ({size_text(m.size_bytes)})" for m in models]
        place = choose("Which one", lines)
    elif len(models) > 1:
        raise Failure(f"several {what}: name one of {keys}", NOT_FOUND)
    return models[place].model_key, models[place].type
