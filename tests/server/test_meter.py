"""What a prediction reports of itself is complete, finite and never goes back."""

from __future__ import annotations

import math

import pytest

from lmstudio.server.engine import PromptProgress
from lmstudio.server.meter import Meter
from server.scripted import done


class Clock:
    """Stands still until it is told."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def meter(clock):
    made = Meter(7, clock)
    made.start()
    return made


def shares(packets):
    return [packet["progress"] for packet in packets]


def test_progress(meter):
    """Progress is the share of what was not in the cache, from 0 to 1."""
    made = [meter.progress(PromptProgress(12, 4, n)) for n in (0, 2, 8)]

    assert [[0.0], [0.25], [1.0]] == list(map(shares, made))
    assert {
        "type": "promptProcessingProgress",
        "progress": 0.25,
        "details": {
            "cachedTokenCount": 4,
            "totalPromptTokenCount": 12,
            "processedPromptTokenCount": 2,
            "unprocessedPromptTokenCount": 6,
        },
    } == made[1][0]
    assert [] == meter.prompt_done()


def test_progress_begins_at_0(meter):
    """0 is reported even when the engine's first report is later."""
    assert [0.0, 0.5] == shares(meter.progress(PromptProgress(4, 0, 2)))
    assert [1.0] == shares(meter.prompt_done())


def test_progress_never_goes_back(meter):
    """A report that says less than an earlier one is left out."""
    meter.progress(PromptProgress(4, 0, 3))

    assert [] == meter.progress(PromptProgress(4, 0, 2))
    assert [] == meter.progress(PromptProgress(4, 0, 3))


def test_progress_without_reports(meter):
    """An engine that reports nothing still gives 0 and 1."""
    assert [0.0, 1.0] == shares(meter.prompt_done())
    assert [] == meter.prompt_done()


def test_prompt_from_the_cache(meter):
    """A prompt that was all in the cache goes from 0 to 1 at once."""
    packets = meter.progress(PromptProgress(4, 4, 0))

    assert [0.0, 1.0] == shares(packets)
    assert 0 == packets[1]["details"]["unprocessedPromptTokenCount"]


def test_progress_of_later_rounds(meter):
    """The prompt of a later round is nothing that the user waits for."""
    meter.round_done(done("context", 4, 4))

    assert [] == meter.progress(PromptProgress(8, 0, 2))


def test_stats(meter, clock):
    """Statistics hold everything that is known."""
    clock.now += 0.5
    meter.piece(1)
    clock.now += 1
    meter.piece(2)
    meter.round_done(done("eos", 10, 3, tokens_per_second=4.5))
    stats = meter.stats("stopStringFound", "x")

    assert ("stopStringFound", "x", 7) == (
        stats.stop_reason,
        stats.stop_string,
        stats.num_gpu_layers,
    )
    assert (10, 3, 13) == (
        stats.prompt_tokens_count,
        stats.predicted_tokens_count,
        stats.total_tokens_count,
    )
    assert (4.5, 0.5, 1.5) == (
        stats.tokens_per_second,
        stats.time_to_first_token_sec,
        stats.total_time_sec,
    )


def test_stats_over_several_rounds(meter):
    """Several rounds are one prediction, with the prompt of the first."""
    meter.piece(1)
    meter.round_done(done("context", 10, 6, predicted_seconds=2.0))
    meter.round_done(done("eos", 14, 2, predicted_seconds=2.0))
    stats = meter.stats("eosFound")

    assert (10, 8, 18, 2.0) == (
        stats.prompt_tokens_count,
        stats.predicted_tokens_count,
        stats.total_tokens_count,
        stats.tokens_per_second,
    )


def test_stats_in_the_middle(meter, clock):
    """A prediction that was stopped has counted what came until then."""
    meter.progress(PromptProgress(5, 0, 5))
    meter.piece(3)
    clock.now += 2
    stats = meter.stats("userStopped")

    assert (5, 3, 1.5) == (
        stats.prompt_tokens_count,
        stats.predicted_tokens_count,
        stats.tokens_per_second,
    )


def test_stats_of_nothing(meter):
    """What is not known is left out rather than made up."""
    stats = meter.stats("userStopped")

    assert (None, 0, 0) == (
        stats.prompt_tokens_count,
        stats.predicted_tokens_count,
        stats.total_tokens_count,
    )
    assert (None, None, 0) == (
        stats.tokens_per_second,
        stats.time_to_first_token_sec,
        stats.total_time_sec,
    )


@pytest.mark.parametrize("speed", [math.inf, math.nan, 0.0, -1.0, None])
def test_speed_is_a_number_or_nothing(meter, clock, speed):
    """A speed that is no number is measured anew, or left out."""
    meter.piece(1)
    meter.round_done(done("eos", 1, 1, tokens_per_second=speed, predicted_seconds=0.0))

    assert None is meter.stats("eosFound").tokens_per_second

    other = Meter(0, clock)
    other.round_done(done("eos", 1, 4, tokens_per_second=speed, predicted_seconds=2.0))

    assert 2.0 == other.stats("eosFound").tokens_per_second


def test_overflow(meter):
    """A prompt that was too long is counted."""
    meter.overflowed(99)

    assert 99 == meter.stats("contextLengthReached").prompt_tokens_count


def test_a_round_that_was_interrupted(meter, clock):
    """Tokens of a round that was stopped count, with those of the next."""
    meter.progress(PromptProgress(9, 0, 9))
    meter.piece(3)
    meter.interrupted()
    meter.piece(2)
    clock.now += 2.0
    meter.round_done(done("eos", 14, 2))
    stats = meter.stats("eosFound")

    assert (9, 5, 2.5) == (
        stats.prompt_tokens_count,
        stats.predicted_tokens_count,
        stats.tokens_per_second,
    )


def test_the_draft_model_is_named():
    """Its key is in the statistics; without one there is none."""
    assert "small" == Meter(0, draft_key="small").stats("eosFound").used_draft_model_key
    assert None is Meter(0).stats("eosFound").used_draft_model_key


def test_drafts(meter):
    """Tokens of a draft model are counted over all rounds; without one nothing is."""
    meter.round_done(done("context", 9, 4))
    assert None is meter.stats("eosFound").total_draft_tokens_count

    meter.round_done(done("context", 9, 4, drafted=6, accepted=4))
    meter.round_done(done("eos", 9, 4, drafted=3, accepted=0))
    stats = meter.stats("eosFound")
    assert (9, 4, 5, 0) == (
        stats.total_draft_tokens_count,
        stats.accepted_draft_tokens_count,
        stats.rejected_draft_tokens_count,
        stats.ignored_draft_tokens_count,
    )
