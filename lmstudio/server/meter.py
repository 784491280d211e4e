"""What is measured in a prediction: progress of the prompt, tokens and times."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from ..wire.llm import PredictionStats
from .engine import Done, PromptProgress


class Meter:
    """Counts and times one prediction, over all the engine's rounds.

    Args:
        gpu_layers: Goes into the statistics.
        clock: Gives the time in seconds.
        draft_key: The model that proposes tokens.
    """

    def __init__(
        self,
        gpu_layers: int,
        clock: Callable[[], float] = time.perf_counter,
        draft_key: str | None = None,
    ) -> None:
        self._gpu_layers = gpu_layers
        self._draft_key = draft_key
        self._clock = clock
        self._started = clock()
        self._first_at: float | None = None  # when the first piece came
        self._rounds: list[Done] = []
        self._round_tokens = 0  # of the round that runs
        self._prompt_tokens: int | None = None
        self._seen = PromptProgress(0, 0, 0)
        self._reported = -1.0

    @property
    def predicted(self) -> int:
        """Tokens generated so far."""
        return sum(done.predicted_tokens for done in self._rounds) + self._round_tokens

    def start(self) -> None:
        """The prediction begins."""
        self._started = self._clock()

    def progress(self, event: PromptProgress) -> list[dict[str, Any]]:
        """The packets for the engine's report on the prompt.

        The first is always 0 and the last 1, and they never decrease. Source:
        docs/wire/predict.md.
        """
        if self._rounds:  # the prompt was done long ago; this one continues the text
            return []
        self._seen = event
        if self._prompt_tokens is None:
            self._prompt_tokens = event.total
        todo = event.total - event.cached
        share = event.processed / todo if todo > 0 else 1.0
        return self._report(min(1.0, max(0.0, share)), event)

    def prompt_done(self) -> list[dict[str, Any]]:
        """The packets that are missing when the output begins."""
        if self._reported >= 1:
            return []
        seen = self._seen
        done = PromptProgress(seen.total, seen.cached, seen.total - seen.cached)
        return self._report(1.0, done)

    def piece(self, tokens: int) -> None:
        """Some output came."""
        if self._first_at is None:
            self._first_at = self._clock()
        self._round_tokens += tokens

    def round_done(self, done: Done) -> None:
        """The engine ended a round; its own counts are the exact ones."""
        self._rounds.append(done)
        self._round_tokens = 0
        if len(self._rounds) == 1:
            self._prompt_tokens = done.prompt_tokens

    def interrupted(self) -> None:
        """The engine was stopped within a round, and begins another."""
        tokens = self._round_tokens
        prompt = self._prompt_tokens or 0
        self.round_done(
            Done(reason="limit", prompt_tokens=prompt, predicted_tokens=tokens)
        )

    def overflowed(self, prompt_tokens: int) -> None:
        """The prompt is too long."""
        self._prompt_tokens = prompt_tokens

    def stats(self, reason: str, stop_string: str | None = None) -> PredictionStats:
        """What was measured by now."""
        now = self._clock()
        first, predicted = self._first_at, self.predicted
        prompt = self._prompt_tokens
        drafted, accepted, rejected = self._drafts()
        return PredictionStats(
            stop_reason=reason,
            stop_string=stop_string,
            tokens_per_second=self._speed(now),
            num_gpu_layers=self._gpu_layers,
            time_to_first_token_sec=None if first is None else first - self._started,
            total_time_sec=now - self._started,
            prompt_tokens_count=prompt,
            predicted_tokens_count=predicted,
            total_tokens_count=predicted + (prompt or 0),
            used_draft_model_key=self._draft_key,
            total_draft_tokens_count=drafted,
            accepted_draft_tokens_count=accepted,
            rejected_draft_tokens_count=rejected,
            ignored_draft_tokens_count=None if drafted is None else 0,
        )

    def _drafts(self) -> tuple[int, int, int] | tuple[None, None, None]:
        """Tokens that a draft model proposed, those taken, and those not."""
        rounds = [done for done in self._rounds if done.drafted is not None]
        if not rounds:
            return None, None, None
        drafted = sum(done.drafted or 0 for done in rounds)
        accepted = sum(done.accepted or 0 for done in rounds)
        return drafted, accepted, drafted - accepted

    def _speed(self, now: float) -> float | None:
        """Tokens per second; None where that would be no number."""
        if len(self._rounds) == 1 and not self._round_tokens:
            speed = self._rounds[0].tokens_per_second
            if speed is not None and math.isfinite(speed) and speed > 0:
                return speed
        seconds = [done.predicted_seconds for done in self._rounds]
        known = sum(second for second in seconds if second is not None)
        if self._round_tokens or None in seconds or not seconds:
            known = 0.0 if self._first_at is None else now - self._first_at
        if not (math.isfinite(known) and known > 0 and self.predicted):
            return None
        return self.predicted / known

    def _report(self, share: float, at: PromptProgress) -> list[dict[str, Any]]:
        made = []
        if self._reported < 0 and share > 0:
            made.append(_packet(0.0, PromptProgress(at.total, at.cached, 0)))
        if share > self._reported:
            made.append(_packet(share, at))
            self._reported = share
        return made


def _packet(share: float, at: PromptProgress) -> dict[str, Any]:
    return {
        "type": "promptProcessingProgress",
        "progress": share,
        "details": {
            "cachedTokenCount": at.cached,
            "totalPromptTokenCount": at.total,
            "processedPromptTokenCount": at.processed,
            "unprocessedPromptTokenCount": at.total - at.cached - at.processed,
        },
    }
