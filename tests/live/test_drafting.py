"""A draft model for one prediction, with the real engine: a model drafts for itself."""

from __future__ import annotations

import pytest

import lmstudio
from live.conftest import KEY

DRAFT = {"speculative_draft_simple": True, "speculative_draft_model": KEY}
PROMPT = "One, two, three, four, five,"
SETTINGS = {"temperature": 0, "max_tokens": 40}


def drafts(stats):
    """The key of the draft model, and whether tokens of it were taken."""
    taken = stats.accepted_draft_tokens_count
    return stats.used_draft_model_key, taken is not None and taken > 0


def test_a_twin_drafts(server, client):
    """Another process is started for it, once; the text is the same; it goes along."""
    model = client.llm.load(KEY)
    plain = model.complete(PROMPT, config=SETTINGS).result()
    (alone,) = server.children()

    asked = {**SETTINGS, "draft_model": KEY}
    first, second = (model.complete(PROMPT, config=asked).result() for _ in range(2))

    assert (None, False) == drafts(plain.stats)
    assert (KEY, True) == drafts(first.stats) == drafts(second.stats)
    assert plain.content == first.content == second.content
    assert 2 == len(server.children())
    assert [KEY] == [one.identifier for one in client.llm.list_loaded()]
    stats = first.stats
    assert (
        stats.total_draft_tokens_count
        == stats.accepted_draft_tokens_count + stats.rejected_draft_tokens_count
    )
    after = model.complete(PROMPT, config=SETTINGS).result()
    assert (None, False) == drafts(after.stats)
    assert alone in server.children()
    model.unload()
    with pytest.raises(lmstudio.LMStudioError):
        model.complete(PROMPT, config=asked).result()


def test_loaded_with_that_draft_model(server, client):
    """Then the model itself drafts, asked or not, and no process is started."""
    model = client.llm.load(KEY, config=DRAFT)
    asked = {**SETTINGS, "draft_model": KEY}
    with_it = model.complete(PROMPT, config=asked).result()
    without = model.complete(PROMPT, config=SETTINGS).result()
    assert (KEY, True) == drafts(with_it.stats) == drafts(without.stats)
    assert 1 == len(server.children())


def test_a_draft_model_that_is_not_there(client):
    """The error names it, and the model goes on."""
    model = client.llm.load(KEY)
    with pytest.raises(lmstudio.LMStudioError, match="no-such-model"):
        asked = {**SETTINGS, "draft_model": "no-such-model"}
        model.complete(PROMPT, config=asked).result()
    assert model.complete(PROMPT, config=SETTINGS).result().content
