"""Finds the model that a user means by what they wrote."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .engine import EngineError, ModelFile

_SAMPLE = 10  # models that an error names at most
_LONGEST = 200  # characters of a name that are compared and shown


class ModelNotOnDisk(EngineError):
    """No model on disk has the name that was asked for.

    Attributes:
        name: What was asked for.
        nearest: Up to three names that look like it, the likeliest first.
        sample: Keys of the first models on disk.
        total: How many models are on disk.
    """

    def __init__(
        self, name: str, nearest: Sequence[str], sample: Sequence[str], total: int
    ) -> None:
        count = "is 1 model" if total == 1 else f"are {total} models"
        cause = f"There {count} on disk: {', '.join(sample)}"
        if total > len(sample):
            cause += ", ..."
        if not total:
            cause = "There are no models on disk"
        elif _is_path(name):
            cause = f"Only files in the models folder can be loaded. {cause}"
        super().__init__(
            f"No model on disk is called {name[:_LONGEST]!r}",
            cause,
            "Did you mean " + " or ".join(map(repr, nearest)) + "?"
            if nearest
            else "`lms ls` lists the models on disk, `lms get` downloads one",
        )
        self.name = name
        self.nearest = list(nearest)
        self.sample = list(sample)
        self.total = total

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self.nearest, self.sample, self.total)


def find(
    models: Sequence[ModelFile], name: str
) -> tuple[ModelFile, Sequence[ModelFile]]:
    """Choose the model with a name; see `names_of` for what counts as one.

    The first kind of name that fits any model decides. All kinds are compared as they
    are written, and then without regard to case.

    Returns:
        The first model that fits, and all that fit when there are several.

    Raises:
        ModelNotOnDisk: None fits.
    """
    wanted = name[:-1] if name.endswith("/") else name
    names = [(model, names_of(model)) for model in models]
    for fold in (str, str.casefold):
        sought = fold(wanted)
        for kind in range(len(names[0][1]) if names else 0):
            fits = [
                model
                for model, kinds in names
                if sought in {fold(text) for text in kinds[kind]}
            ]
            if fits:
                return fits[0], fits if len(fits) > 1 else []
    raise ModelNotOnDisk(
        name,
        _nearest(wanted, [text for _, kinds in names for text in kinds[0] + kinds[2]]),
        list(dict.fromkeys(model.key for model in models))[:_SAMPLE],
        len(models),
    )


def is_name(model: ModelFile, name: str) -> bool:
    """Whether a model can be meant by a name, written in any case."""
    wanted = name.removesuffix("/").casefold()
    return any(wanted == text.casefold() for kind in names_of(model) for text in kind)


def names_of(model: ModelFile) -> tuple[list[str], ...]:
    """All names of a model, by kind, the kind that is looked at first in front.

    These are its key and variant; its path; its ``<publisher>/<repo>``; its publisher
    with its key, as if the repo were called so; its file; its key without a publisher,
    with which another publisher's model shares it; and that without what all keys of
    embedding models begin with.

    Source: docs/wire/models.md, "Names".
    """
    folder, _, file = model.relative_path.rpartition("/")
    bare = model.key.rpartition("/")[2]
    short = bare.removeprefix("text-embedding-")
    _, at, quantization = model.variant.rpartition("@")
    variant = at + quantization if at else ""
    return (
        [model.key, model.variant],
        [model.relative_path, str(model.path)],
        [folder, folder + variant],
        [
            f"{model.publisher}/{name}{ending}"
            for name in (bare, short)
            for ending in ("", variant)
        ],
        [file, Path(file).stem],
        [bare, bare + variant],
        [short, short + variant],
    )


def _nearest(name: str, names: Sequence[str]) -> list[str]:
    """Up to three names like this one, compared without regard to case."""
    folded = {text.casefold(): text for text in names}
    wanted = name[:_LONGEST].casefold()
    close = difflib.get_close_matches(wanted, folded)
    # The beginning of a long name is near for people, though not for the letters.
    close += [text for text in folded if wanted in text and text not in close]
    return [folded[text] for text in close[:3]]


def _is_path(name: str) -> bool:
    """Whether a name is written as a path to somewhere."""
    return Path(name).is_absolute() or ".." in name or name.startswith(("~", "."))
