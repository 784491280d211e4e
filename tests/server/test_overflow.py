"""Prompts that are too long are cut where each policy says."""

from __future__ import annotations

import asyncio

import pytest

from lmstudio.server.overflow import cut, shorten
from lmstudio.server.prompt import Formatter, turns_of
from lmstudio.server.prompt_tokens import Prompt
from server.scripted import ScriptedModel, history, make_file, read

#: One letter a role, so that prompts can be read off.
TEMPLATE = (
    "{% for m in messages %}({{ m.role[0] }}{{ m.content }}){% endfor %}"
    "{% if add_generation_prompt %}(a{% endif %}"
)
TALK = (
    ("system", "Sys"),
    ("user", "one"),
    ("assistant", "two"),
    ("user", "three"),
    ("assistant", "four"),
    ("user", "five"),
)
WHOLE = "(sSys)(uone)(atwo)(uthree)(afour)(ufive)(a"


def shortened(policy, budget, *messages, generated="", template=TEMPLATE, raw=None):
    """What is left of a prompt, as text."""
    file = make_file(chat_template=template)
    if raw is not None:
        prompt = Prompt(ScriptedModel(), file, raw=raw)
    else:
        formatter = Formatter(file)
        turns = turns_of(history(*(messages or TALK)))
        prompt = Prompt(ScriptedModel(), file, formatter=formatter, turns=turns)
    ids = asyncio.run(shorten(prompt, policy, budget, [*map(ord, generated)]))
    assert len(ids) <= budget
    return read(ids)


@pytest.mark.parametrize("policy", ["truncateMiddle", "rollingWindow"])
def test_what_fits_stays(policy):
    """A prompt that fits is not touched, and what was generated follows it."""
    assert WHOLE == shortened(policy, len(WHOLE))
    assert WHOLE + "six" == shortened(policy, len(WHOLE) + 3, generated="six")


def test_middle_is_cut_after_the_first_user_message():
    """The system prompt and the first user message stay, and the end."""
    left = shortened("truncateMiddle", 30, generated="six")

    assert "(sSys)(uone)" + (WHOLE + "six")[-18:] == left


def test_middle_without_a_system_prompt():
    """Without a system prompt the first user message is what stays."""
    left = shortened("truncateMiddle", 16, *TALK[1:])

    assert "(uone)" + WHOLE[-10:] == left


def test_one_message_that_is_too_long():
    """A message that is too long by itself keeps its beginning and its end."""
    left = shortened("truncateMiddle", 20, ("user", "abcdefghij" * 5))

    assert "(uabcdefgh" == left[:10]
    assert "defghij)(a" == left[-10:]


def test_raw_text_is_cut_in_the_middle():
    """Raw text has no messages: its middle goes."""
    assert "01236789" == shortened("truncateMiddle", 8, raw="0123456789")


def test_window_over_raw_text():
    """The window over raw text keeps its end, and the first token, which may be BOS."""
    assert "03456789" == shortened("rollingWindow", 8, raw="0123456789")


def test_window_drops_the_oldest():
    """The oldest messages go, the system prompt stays, and a user speaks first."""
    left = "(sSys)(uthree)(afour)(ufive)(a"

    assert left == shortened("rollingWindow", len(left))
    assert left == shortened("rollingWindow", len(WHOLE) - 1)
    assert "(sSys)(ufive)(a" == shortened("rollingWindow", len(left) - 1)


def test_window_counts_what_was_generated():
    """What was generated takes room as well, and stays."""
    left = "(sSys)(ufive)(asix"

    assert left == shortened("rollingWindow", len(left), generated="six")


def test_window_with_one_long_message():
    """Where no message can go, the tokens after the system prompt go."""
    left = shortened("rollingWindow", 16, ("system", "Sys"), ("user", "abcdefghij" * 5))

    assert "(sSys)" + "efghij)(a"[-10:] == left[:6] + left[-9:]


def test_template_that_wants_the_beginning():
    """A template that refuses a shorter history does not keep a prompt from fitting."""
    template = (
        "{% if messages | length < 6 %}{{ raise_exception('no') }}{% endif %}"
        + TEMPLATE
    )

    for policy in ("rollingWindow", "truncateMiddle"):
        left = shortened(policy, 20, template=template)
        assert "(" + WHOLE[-19:] == left


def test_template_that_begins_otherwise():
    """Where a shorter history begins otherwise, the head is what both share."""
    template = "({{ messages | length }}" + TEMPLATE
    left = shortened("truncateMiddle", 20, template=template)

    assert "(" + WHOLE[-19:] == left


@pytest.mark.parametrize(
    ("head", "budget", "left"),
    [
        (3, 8, [0, 1, 2, 15, 16, 17, 18, 19]),
        (0, 4, [0, 17, 18, 19]),  # the first token may be BOS
        (7, 8, [0, 1, 2, 3, 4, 5, 6, 19]),
        (8, 8, [0, 1, 2, 3, 16, 17, 18, 19]),
        (50, 8, [0, 1, 2, 3, 16, 17, 18, 19]),
        (5, 2, [0, 19]),
        (5, 1, [19]),
    ],
)
def test_cut(head, budget, left):
    """The head stays as long as an eighth is left for the end."""
    assert left == cut(range(20), head, budget)
