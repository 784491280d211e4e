"""Where a model's thoughts are, and when they have become too long."""

from __future__ import annotations

from .sampling import ReasoningTags

#: Thoughts are between these in models whose template has the first of a pair.
_TAGS = (
    ReasoningTags(start="<|START_THINKING|>", end="<|END_THINKING|>"),
    ReasoningTags(start="<|channel|>analysis<|message|>", end="<|end|>"),
    ReasoningTags(start="<seed:think>", end="</seed:think>"),
    ReasoningTags(start="[THINK]", end="[/THINK]"),
    ReasoningTags(start="◁think▷", end="◁/think▷"),
)
#: Thoughts that are ended so often begin on and on: those after them are let be.
MAX_ENDS = 16


def tags_of(template: str | None) -> ReasoningTags:
    """The tags of a model, as far as its template tells; else ``<think>``."""
    if template is not None and ReasoningTags().start not in template:
        for tags in _TAGS:
            if tags.start in template:
                return tags
    return ReasoningTags()


class Budget:
    """Counts the tokens of thoughts.

    Args:
        tokens: How many they may have.
    """

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self._used = 0
        self._ends = 0

    def think(self, tokens: int) -> bool:
        """Count some tokens of a thought; says whether it has to end now."""
        self._used += tokens
        if self._used < self._tokens or self._ends >= MAX_ENDS:
            return False
        self._ends += 1
        return True


def closing(tags: ReasoningTags) -> str:
    """What ends a thought that the model did not end."""
    return f"\n{tags.end}\n\n"
