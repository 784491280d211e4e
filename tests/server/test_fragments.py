"""Thoughts are told from the answer wherever the pieces break, and nothing waits."""

from __future__ import annotations

import itertools

import hypothesis
import hypothesis.strategies as st
import pytest

from lmstudio.server.engine import Piece
from lmstudio.server.fragments import Fragments, ReasoningSplitter
from lmstudio.server.sampling import ReasoningTags
from lmstudio.server.toolcalls import ToolCalls
from lmstudio.server.toolcalls_syntax import SYNTAXES

TAGS = ReasoningTags()
TEXT = "a<think>b <i>c</think>d<think></think>e</think>"
SECTIONS = [
    ("a", "none"),
    ("<think>", "reasoningStartTag"),
    ("b <i>c", "reasoning"),
    ("</think>", "reasoningEndTag"),
    ("d", "none"),
    ("<think>", "reasoningStartTag"),
    ("</think>", "reasoningEndTag"),
    ("e</think>", "none"),
]


def joined(sections):
    """Sections with neighbours of one kind put together, tags apart."""
    made = []
    for text, kind in sections:
        if made and made[-1][1] == kind and "Tag" not in kind:
            made[-1] = (made[-1][0] + text, kind)
        else:
            made.append((text, kind))
    return made


@pytest.mark.slow
@hypothesis.given(st.sets(st.integers(1, len(TEXT) - 1)))
def test_tags_split_anywhere(cuts):
    """The sections are the same wherever the pieces break."""
    splitter = ReasoningSplitter(TAGS)
    edges = [0, *sorted(cuts), len(TEXT)]
    made = []
    for start, stop in itertools.pairwise(edges):
        made += splitter.feed(TEXT[start:stop])

    assert SECTIONS == joined([*made, *splitter.end()])


@pytest.mark.parametrize(
    "text", ["Hello", " world", "1 > 0", "<b>", "x <y", "</think>"]
)
def test_nothing_waits_without_a_tag(text):
    """Text that can't begin a tag goes out at once and whole."""
    assert [(text, "none")] == list(ReasoningSplitter(TAGS).feed(text))


def test_only_the_possible_beginning_of_a_tag_waits():
    """What may be a tag is held back, until it is none."""
    splitter = ReasoningSplitter(TAGS)

    assert [("a", "none")] == list(splitter.feed("a<th"))
    assert [] == list(splitter.feed("in"))
    assert [("<thing", "none")] == list(splitter.feed("g"))
    assert [] == list(splitter.end())


def test_what_waits_comes_at_the_end():
    """The end of the text lets out what was held back, once."""
    splitter = ReasoningSplitter(TAGS)
    splitter.feed("<thi")

    assert [("<thi", "none")] == list(splitter.end())
    assert [] == list(splitter.end())


def contents(packets):
    return [(p["fragment"]["content"], p["fragment"]["reasoningType"]) for p in packets]


def test_a_prompt_that_begins_the_thought():
    """Where the prompt ends with the tag, the output begins within the thought."""
    fragments = Fragments(TAGS, "assistant\n<think>\n")

    assert [("hm", "reasoning"), ("</think>", "reasoningEndTag"), ("ok", "none")] == (
        contents(fragments.feed(Piece("hm</think>ok")))
    )


def test_packet():
    """A fragment has every field that clients require."""
    assert [
        {
            "type": "fragment",
            "fragment": {
                "content": "Hi",
                "tokensCount": 2,
                "containsDrafted": False,
                "reasoningType": "none",
                "isStructural": False,
            },
        }
    ] == Fragments(TAGS).feed(Piece("Hi", 2))


def test_tags_are_structural():
    """Tags belong neither to the thoughts nor to the answer."""
    packets = Fragments(TAGS).feed(Piece("<think>x"))

    assert [True, False] == [p["fragment"]["isStructural"] for p in packets]


def test_tokens_of_held_text_are_counted_once():
    """The tokens of all fragments are those of all pieces."""
    fragments = Fragments(TAGS)
    packets = []
    for text in ("a<", "think", ">b", "<", "/thin"):
        packets += fragments.feed(Piece(text))
    packets += fragments.end()

    assert [("a", 1), ("<think>", 2), ("b", 0), ("</thin", 2)] == [
        (p["fragment"]["content"], p["fragment"]["tokensCount"]) for p in packets
    ]


def test_logprobs_travel_with_the_text():
    """Log probabilities come with the next fragment, none lost and none twice."""
    one, two = {"text": "<", "id": 1, "logProb": -1.0}, {"text": "b", "id": 2}
    fragments = Fragments(TAGS)

    assert [] == fragments.feed(Piece("<", 1, [one]))
    assert [[one, two]] == [
        p["fragment"]["tokens"] for p in fragments.feed(Piece("b", 1, [two]))
    ]
    assert "tokens" not in fragments.feed(Piece("c"))[0]["fragment"]


def test_thoughts_that_are_not_told_apart():
    """Without tags everything is answer, tags too."""
    fragments = Fragments(None, "<think>")

    assert [("<think>", "none")] == contents(fragments.feed(Piece("<think>")))
    assert [] == fragments.end()


ANSWER = (
    'a<think>b<tool_call>{}</think>c <tool_call>{"name": "f", "arguments": {"x":'
    ' "<think>"}}</tool_call>d <th'
)


def found(pieces):
    """Texts and kinds of packets, with neighbours put together."""
    syntax = next(one for one in SYNTAXES if one.name == "hermes")
    fragments = Fragments(TAGS, "", ToolCalls(syntax, {"f": "f"}, new_id=lambda: "1"))
    packets = [p for piece in pieces for p in fragments.feed(Piece(piece))]
    packets += fragments.end()
    made = []
    for packet in packets:
        if packet["type"] == "fragment":
            one = packet["fragment"]["content"], packet["fragment"]["reasoningType"]
        elif "content" in packet:
            one = packet["content"], "arguments"
        else:
            one = "", packet["type"].removeprefix("toolCallGeneration")
        made.append(one)
    return joined(made)


@pytest.mark.slow
@hypothesis.given(st.sets(st.integers(1, len(ANSWER) - 1)))
def test_thoughts_and_calls(cuts):
    """A call in a thought is thought, and a tag in a call belongs to the call."""
    edges = [0, *sorted(cuts), len(ANSWER)]

    assert [
        ("a", "none"),
        ("<think>", "reasoningStartTag"),
        ("b<tool_call>{}", "reasoning"),
        ("</think>", "reasoningEndTag"),
        ("c ", "none"),
        ("", "Start"),
        ("", "NameReceived"),
        ('{"x": "<think>"}', "arguments"),
        ("", "End"),
        ("d <th", "none"),
    ] == found([ANSWER[start:stop] for start, stop in itertools.pairwise(edges)])


def test_tokens_of_calls():
    """Tokens of a call are not counted with the text behind it."""
    syntax = next(one for one in SYNTAXES if one.name == "hermes")
    fragments = Fragments(TAGS, "", ToolCalls(syntax, {"f": "f"}))
    fragments.feed(Piece('<tool_call>{"name": "f"}</tool_call>', 9))
    (packet,) = fragments.feed(Piece("x", 2))

    assert 2 == packet["fragment"]["tokensCount"]


def test_is_thinking():
    """Whether the text ends within a thought is known at any time."""
    fragments = Fragments(TAGS)
    thinking = []
    for text in ("a", "<think>", "b", "</think>"):
        fragments.feed(Piece(text))
        thinking.append(fragments.is_thinking)

    assert [False, True, True, False] == thinking
    assert not Fragments(None).is_thinking
