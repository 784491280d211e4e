"""The template tells where thoughts are; a budget tells when they are over."""

from __future__ import annotations

import pytest

from lmstudio.server.reasoning import MAX_ENDS, Budget, closing, tags_of
from lmstudio.server.sampling import ReasoningTags


@pytest.mark.parametrize(
    ("template", "start"),
    [
        (None, "<think>"),
        ("no thoughts", "<think>"),
        ("[THINK] {{ x }} [/THINK]", "[THINK]"),
        ("<|START_THINKING|>", "<|START_THINKING|>"),
        ("<|channel|>analysis<|message|>", "<|channel|>analysis<|message|>"),
        ("<think> and [THINK]", "<think>"),
    ],
)
def test_tags(template, start):
    """A template with the tags of one kind has thoughts of that kind."""
    assert start == tags_of(template).start


def test_a_budget():
    """The budget is over when so many tokens were thought, and from then on at once."""
    budget = Budget(5)

    assert [False, False, True, True] == [budget.think(2) for _ in range(4)]


def test_thoughts_without_end():
    """A model that begins to think again and again is let be at last."""
    budget = Budget(0)

    assert MAX_ENDS == sum(budget.think(1) for _ in range(100))


def test_closing():
    """What ends a thought has the tag on a line of its own."""
    assert "\n</b>\n\n" == closing(ReasoningTags(start="<b>", end="</b>"))
