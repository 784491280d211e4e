"""Names that nobody knows: which one was meant, or where the thing is found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .errors import LMStudioTypeError, shown

#: How alike two names must be, from 0 to 1: below this a guess would be silly.
ALIKE = 0.75

#: What other libraries call it, by the kind of options: a name here, or a sentence.
ELSEWHERE: Mapping[str, Mapping[str, str]] = {
    "prediction": {
        "stream": "predictions always stream: iterate over what the call returns",
        "messages": "the conversation is the first argument",
        "prompt": "the text is the first argument",
        "model": "the handle is of one model: client.llm.model(key) gives another",
        "n": "each call gives one answer; map() answers many prompts",
        "images": "images belong to a message: Chat.add_user_message(text, images=...)",
        "image": "images belong to a message: Chat.add_user_message(text, images=...)",
        "num_ctx": "context_length is an option of loading: client.llm.load(key, ...)",
        "num_predict": "max_tokens",
        "max_new_tokens": "max_tokens",
        "max_completion_tokens": "max_tokens",
        "max_output_tokens": "max_tokens",
        "repetition_penalty": "repeat_penalty",
        "system": "system_prompt",
    },
    "load": {
        "num_ctx": "context_length",
        "n_ctx": "context_length",
        "n_gpu_layers": "gpu",
        "num_gpu": "gpu",
        "keep_alive": "ttl",
    },
}


class Asked:
    """The call that options were given to: its name and its own arguments.

    Attributes:
        name: Such as ``"respond"``.
    """

    __slots__ = ("_method", "_more", "name")

    def __init__(self, method: Callable[..., Any], more: Iterable[str] = ()) -> None:
        self._method = method
        self._more = more  # what it takes among its options
        self.name: str = method.__name__

    def names(self) -> list[str]:
        """The arguments by name."""
        import inspect  # for mistakes only, so not at import time

        parameters = inspect.signature(self._method).parameters.values()
        named = (
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            inspect.Parameter.KEYWORD_ONLY,
        )
        return [*(p.name for p in parameters if p.kind in named), *self._more]

    def refuse(self, given: Mapping[str, Any]) -> None:
        """Refuse keywords that the call does not take.

        Raises:
            LMStudioTypeError: There is one; the error names what was meant.
        """
        for name in given:
            raise LMStudioTypeError(
                f"{self.name}() takes no {shown(name)}{meant(name, self.names())}"
            )


def meant(name: object, known: Iterable[str], kind: str = "") -> str:
    """The end of a message on an unknown name: what was meant, if that can be told.

    Args:
        known: The names that there are; of equally near ones the first is taken. A
            mapping gives the name to show for each.
        kind: Kind of options, for the names of other libraries; see `ELSEWHERE`.
    """
    snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in str(name))
    near = ELSEWHERE.get(kind, {}).get(snake) or nearest(str(name), known)
    if near is None:
        return ""
    if " " in near:  # a sentence
        return f"; {near}"
    shows = known.get(near, near) if isinstance(known, Mapping) else near
    return f"; did you mean {shows!r}?"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is nearest, None when none is near.

    Upper case and underscores don't count. The beginning of one name only is near.
    """
    import difflib  # for mistakes only, so not at import time

    begun: dict[str, str] = {}
    best, best_alike = None, 0.0
    plain = _plain(name)
    matcher = difflib.SequenceMatcher(b=plain, autojunk=False)
    for candidate in known:
        other = _plain(candidate)
        if other.startswith(plain) and len(plain) > 3:
            begun.setdefault(other, candidate)
        matcher.set_seq1(other)
        alike = matcher.ratio()
        if alike >= ALIKE and alike > best_alike:
            best, best_alike = candidate, alike
    if best is None and len(begun) == 1:
        (best,) = begun.values()
    return best


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
