"""The official SDK's names of callbacks, and ours for them."""

from __future__ import annotations

from typing import Any

from .errors import LMStudioValueError

#: The official name -> ours, of callbacks of `complete` and `respond`.
CALLBACKS = {
    "on_prediction_fragment": "on_fragment",
    "on_prompt_processing_progress": "on_prompt_progress",
}


def callbacks(options: dict[str, Any], **given: Any) -> dict[str, Any]:
    """Callbacks under our names, with those that are among the options.

    Args:
        options: Those under official names are taken out of it.
        given: What was given under our names.

    Raises:
        LMStudioValueError: One is given under both names.
    """
    for theirs, ours in CALLBACKS.items():
        given[ours] = one_of(ours, given.get(ours), theirs, options.pop(theirs, None))
    return given


def one_of(name: str, value: Any, other_name: str, other: Any) -> Any:
    """The value of an argument that has two names.

    Raises:
        LMStudioValueError: It is given under both.
    """
    if value is not None and other is not None:
        raise LMStudioValueError(f"{name} and {other_name} name the same; give one")
    return other if value is None else value
