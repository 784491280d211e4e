"""Answers are for what they say, and what no answer is for fails the test."""

from __future__ import annotations

import re
import threading

import pytest

from lmstudio import (
    LMStudioClient,
    LMStudioPredictionError,
    LMStudioServerError,
    LMStudioValueError,
)
from lmstudio.testing import FakeServer, Pace, UnmatchedRequestError

TOOL = {"type": "function", "function": {"name": "add", "parameters": {}}}


def says(model, text, **options):
    """The text that a model answers."""
    return model.respond(text, **options).content


@pytest.mark.parametrize(
    ("wanted", "fitting", "other"),
    [
        ({"match": "sun"}, ("a sunny day", {}), ("rain", {})),
        ({"match": re.compile("s.n$")}, ("the sun", {}), ("sunny", {})),
        ({"match": lambda asked: "x" in asked.text}, ("x", {}), ("y", {})),
        ({"model": "any"}, ("a", {}), None),
        ({"model": "other"}, None, ("a", {})),
        ({"tools": ["add"]}, ("a", {"raw_tools": [TOOL]}), ("a", {})),
        ({"tools": ()}, ("a", {}), ("a", {"raw_tools": [TOOL]})),
        ({"config": {"maxTokens": 3}}, ("a", {"max_tokens": 3}), ("a", {})),
        (
            {"config": {"temperature": 0}},
            ("a", {"temperature": 0}),
            ("a", {"temperature": 1}),
        ),
    ],
    ids=("text", "pattern", "function", "model", "other", "tool", "none", "alias", "0"),
)
def test_matchers(fake, model, wanted, fitting, other):
    """An answer is used for what fits all that it says, and refused for the rest."""
    fake.reply_when(wanted.pop("match", None), "yes", **wanted, times=None)
    if fitting is not None:
        assert "yes" == says(model, fitting[0], **fitting[1])
    if other is not None:
        with pytest.raises(LMStudioPredictionError, match="No scripted reply fits"):
            says(model, other[0], **other[1])
        with pytest.raises(UnmatchedRequestError):
            fake.assert_all_matched()
        fake.forget_unmatched()


def test_wrong_matchers(fake):
    """An option that does not exist and a matcher of no known kind are refused."""
    with pytest.raises(LMStudioValueError, match="temperature"):
        fake.reply_when("a", "b", config={"temprature": 0})
    with pytest.raises(TypeError, match="match must be"):
        fake.reply_when(3, "b")


def test_what_was_asked_and_what_was_expected(model, fake):
    """The error shows both, the nearest answer first."""
    fake.reply_when("sun", "A", model="other")
    fake.reply_when(re.compile("moon"), "B", config={"temperature": 0})
    fake.reply_when("rain", "C")
    assert "C" == says(model, "rain")
    with pytest.raises(LMStudioServerError):
        says(model, "the sun", temperature=1)

    with pytest.raises(UnmatchedRequestError) as caught:
        fake.assert_all_used()
    assert [
        "asked (+) is none of what was expected (-):",
        "+ text 'the sun', model 'any'",
        "+ temperature=1",
        "reply ['A']:",
        "- model 'other'",
        "+ model 'any'",
        "reply ['C']:",
        "- was for 1 only, and is used up",
        "- text with 'rain'",
        "+ text 'the sun'",
        "reply ['B']:",
        "- text with the pattern 'moon'",
        "+ text 'the sun'",
        "- temperature=0",
        "+ temperature=1",
    ] == str(caught.value).split("\n")
    fake.forget_unmatched()


def test_the_block_fails_though_the_program_goes_on():
    """At the end of ``with`` what was asked in vain is an error of its own."""
    with (
        pytest.raises(UnmatchedRequestError, match="text 'hi'"),
        FakeServer(loaded=["any"], default="fail") as server,
        LMStudioClient(server.host) as client,
        pytest.raises(LMStudioPredictionError),
    ):
        says(client.llm.get("any"), "hi")
    with pytest.raises(KeyError), FakeServer(default="fail") as server:
        server._scripts._unmatched.append("x")
        raise KeyError


def test_ordered_answers(fake, model):
    """An ordered answer waits for those before it; others do not."""
    fake.reply_when("one", "1", ordered=True)
    fake.reply_when("two", "2", ordered=True)
    fake.reply_when("three", "3")
    assert "3" == says(model, "three")
    with pytest.raises(LMStudioPredictionError, match="comes after another ordered"):
        says(model, "two")
    assert ["1", "2"] == [says(model, "one"), says(model, "two")]
    fake.forget_unmatched()
    fake.assert_all_used()


def test_what_is_for_everything_comes_last(fake, model):
    """An answer for ever and for everything keeps no other from being used."""
    fake.reply_with(lambda asked: f"{len(fake.predictions)} {asked.text}")
    fake.reply("once")
    assert ["once", "2 a", "3 b"] == [says(model, text) for text in ("x", "a", "b")]


def test_a_function_may_have_nothing_to_say(fake, model):
    """After None the next answer is tried."""
    fake.reply_with(lambda asked: ["ho", "t"] if "sun" in asked.text else None)
    fake.reply_with(lambda asked: "cold")
    assert ["hot", "cold"] == [says(model, "sun"), says(model, "moon")]


def test_a_function_that_fails(fake, model):
    """What it raises fails the prediction, and the test."""

    def broken(asked):
        return asked.no_such_thing

    fake.reply_with(broken)
    with pytest.raises(LMStudioPredictionError, match="broken raised AttributeError"):
        says(model, "hi")
    with pytest.raises(UnmatchedRequestError, match="no_such_thing"):
        fake.assert_all_matched()
    fake.forget_unmatched()


def test_a_pace(fake, model):
    """Fragments go out when the test says so, and cancelling ends the wait."""
    pace = Pace()
    fake.reply("abcdef", chunk=2, pace=pace)
    prediction = model.respond("slowly")
    pieces = iter(prediction)
    pace.let(2)
    assert ["ab", "cd"] == [str(next(pieces)), str(next(pieces))]
    assert not prediction.done()
    prediction.cancel()
    assert "userStopped" == prediction.stats.stop_reason
    pace.open()
    fake.reply("abc", chunk=1, pace=pace)
    assert "abc" == says(model, "fast")
    fake.reply("abc", chunk=1, pace=0.001)
    assert "abc" == says(model, "in time")


def test_figures_are_the_same_in_every_run(fake, model):
    """Time goes by tokens, and not by the machine's clock."""
    fake.reply(["a", "b"], times=2)
    first, second = (model.respond("x").stats.to_dict() for _ in range(2))
    assert first == second
    assert (100.0, 0.02) == (first["tokens_per_second"], first["total_time_sec"])


def test_requests_of_predictions(fake, model):
    """A message that asks for a prediction says what it asks for."""
    says(model, "hi", temperature=0, raw_tools=[TOOL])
    asked = fake.requests[-1]
    assert ["hi"] == [message.text for message in asked.messages]
    assert 0 == asked.config["temperature"]
    assert ["add"] == [tool["name"] for tool in asked.tools]
    model.complete("raw").result()
    assert "raw" == fake.requests[-1].asked.text
    model.tokenize("hi")
    assert ([], {}, []) == (
        fake.requests[-1].messages,
        fake.requests[-1].config,
        fake.requests[-1].tools,
    )


def test_many_threads(fake, model):
    """Each answer is used once, whoever asks."""
    for number in range(40):
        fake.reply(str(number))
    said = []
    threads = [
        threading.Thread(
            target=lambda: said.extend(says(model, "x") for _ in range(10))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, range(40))) == sorted(said)
    fake.assert_all_used()
