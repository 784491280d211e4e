"""What is left out when a prompt and its output do not fit the context."""

from __future__ import annotations

from collections.abc import Sequence

from .prompt import Turn
from .prompt_tokens import Prompt
from .sampling import GenerationError


async def shorten(
    prompt: Prompt, policy: str, budget: int, generated: Sequence[int] = ()
) -> list[int]:
    """Token ids of a prompt that fits, with what was generated so far at its end.

    ``truncateMiddle`` keeps the system prompt and the first message of the user, and
    cuts right after them. ``rollingWindow`` drops the oldest messages after the system
    prompt. Where no whole messages can be kept, tokens are cut. The middle of raw text
    is the middle; its window keeps the end.

    Args:
        policy: ``"truncateMiddle"`` or ``"rollingWindow"``.
        budget: Tokens that the prompt may have, at least 1.
        generated: Ids of the output so far.
    """
    full = [*await prompt.ids(), *generated]
    if len(full) <= budget:
        return full
    opening = _system(prompt.turns)
    if policy == "rollingWindow":
        rolled = await _roll(prompt, budget, generated)
        if rolled is not None:
            return rolled
    elif not prompt.turns:  # raw text is one long message
        return cut(full, len(full), budget)
    else:
        opening += [t for t in prompt.turns[len(opening) :][:1] if t["role"] == "user"]
    return cut(full, await _shared_start(prompt, opening, full), budget)


def cut(ids: Sequence[int], head: int, budget: int) -> list[int]:
    """Leave out ids right after the head, so that no more than a budget are left.

    A head that leaves too little room for the end is cut itself: the end holds what
    was asked last.
    """
    # The first token is BOS in many models, which fall apart without it.
    head = max(head, 1)
    if head > budget - budget // 8:
        head = budget // 2
    tail = budget - head
    return [*ids[:head], *ids[len(ids) - tail :]]


async def _roll(
    prompt: Prompt, budget: int, generated: Sequence[int]
) -> list[int] | None:
    """The prompt without its oldest messages; None when even the last is too much."""
    system = _system(prompt.turns)
    # What is left begins with a message of the user: templates ask for that.
    starts = [
        number
        for number, turn in enumerate(prompt.turns)
        if number > len(system) and turn["role"] == "user"
    ]
    best = None
    low, high = 0, len(starts)
    while low < high:  # the fewest messages dropped that make it fit
        middle = (low + high) // 2
        kept = [*system, *prompt.turns[starts[middle] :]]
        try:
            ids = [*await prompt.ids(kept), *generated]
        except GenerationError:  # the template wants what was dropped
            ids = None
        if ids is not None and len(ids) <= budget:
            best, high = ids, middle
        else:
            low = middle + 1
    return best


def _system(turns: Sequence[Turn]) -> list[Turn]:
    """The messages of the system at the beginning."""
    made = []
    for turn in turns:
        if turn["role"] != "system":
            break
        made.append(turn)
    return made


async def _shared_start(
    prompt: Prompt, turns: Sequence[Turn], full: Sequence[int]
) -> int:
    """How many ids of a prompt belong to its first messages."""
    if not turns:
        return 0
    try:
        start = await prompt.ids(turns, open_turn=False)
    except GenerationError:  # a template may refuse a system message alone
        return 0
    for number, (ours, theirs) in enumerate(zip(start, full, strict=False)):
        if ours != theirs:
            return number
    return min(len(start), len(full))
