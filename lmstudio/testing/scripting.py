"""What a test says to a fake server about answers, and what it asks afterwards."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from ..errors import LMStudioTypeError, shown
from ..server.failures import Failure
from .answers import cut, echo, made_up, vector_of
from .matching import UnmatchedRequestError, difference, misfits, normal
from .script import SILENT, Asked, Chunk, Pace, Reply, Step, When, steps_of

#: What is done about a prediction that no scripted answer is for.
Default = Literal["auto", "echo", "fail"]


class Scripts:
    """Answers and loads that wait for their request. Use it from any thread.

    Args:
        default: See `FakeServer`.
        chunk: How texts are cut that no answer says it for.
    """

    def __init__(self, default: Default | None = None, chunk: Chunk = None) -> None:
        self._default = default
        self._chunk = chunk
        # Guards the lists. Reentrant: functions that answer may script more.
        self._lock = threading.RLock()
        self._replies: list[Reply] = []
        self._loads: deque[list[Step | float]] = deque()
        self._is_strict = False  # some answers are for some predictions only
        self._unmatched: list[str] = []
        self._asked: list[Asked] = []
        #: Embeds texts for every scripted model.
        self.embed: Callable[[str], Sequence[float]] = vector_of

    def add_reply(self, reply: Reply, strict: bool = False) -> None:
        """Queue an answer; a strict one is expected, and others are a mistake."""
        with self._lock:
            self._is_strict |= strict
            self._replies.append(reply)

    def add_load(self, steps: list[Step | float]) -> None:
        """Queue what the next load does."""
        with self._lock:
            self._loads.append(steps)

    def reply(self, asked: Asked) -> Reply:
        """The first answer that fits; what is for everything and for ever comes last.

        Raises:
            EngineError: None does, or the one that does could not be made.
        """
        with self._lock:
            self._asked.append(asked)
            for reply in sorted(self._replies, key=_is_fallback):
                if self._is_next(reply) and not misfits(reply, asked):
                    steps = self._steps(reply, asked)
                    if steps is not None:
                        reply.used += 1
                        return Reply(steps, reply.stop, pace=reply.pace)
            return self._unscripted(asked)

    def _is_next(self, reply: Reply) -> bool:
        if reply.is_used_up:
            return False
        if not reply.ordered:
            return True
        waiting = (r for r in self._replies if r.ordered and not r.is_used_up)
        return reply is next(waiting)

    def _steps(self, reply: Reply, asked: Asked) -> list[Step] | None:
        """What an answer does for a prediction; None when it has nothing to say."""
        steps: Any = reply.steps
        if callable(steps):
            try:
                steps = steps(asked)
                steps = None if steps is None else steps_of(steps)
            except Exception as exc:  # the test's own function
                name = getattr(reply.steps, "__qualname__", repr(reply.steps))
                problem = f"{name} raised {type(exc).__name__}: {exc}"
                self._unmatched.append(problem)
                raise Failure("The scripted answer failed", problem) from exc
            if steps is None:
                return None
        chunk = reply.chunk if reply.chunk is not None else self._chunk
        made: list[Step] = []
        for step in steps:
            made += cut(step, chunk) if isinstance(step, str) else [step]
        return made

    def _unscripted(self, asked: Asked) -> Reply:
        default = self._default or ("fail" if self._is_strict else "auto")
        if default == "echo":
            return echo(asked, self._chunk)
        if default == "auto":
            return made_up(asked, self._chunk)
        text = difference(self._replies, asked)
        self._unmatched.append(text)
        raise Failure("No scripted reply fits", text)

    def load(self) -> list[Step | float]:
        """What this load does."""
        with self._lock:
            return self._loads.popleft() if self._loads else [0.0, 1.0]

    def unused(self) -> list[Reply]:
        """Answers that nobody asked for."""
        with self._lock:
            return [r for r in self._replies if not r.used and r.times != 0]

    def asked(self) -> list[Asked]:
        """Every prediction so far."""
        with self._lock:
            return self._asked.copy()

    def unmatched(self) -> list[str]:
        """What was asked for in vain so far."""
        with self._lock:
            return self._unmatched.copy()

    def forget_unmatched(self) -> None:
        """Forget what was asked for in vain."""
        with self._lock:
            self._unmatched.clear()


class Scripting:
    """What a test says to its fake server about answers, and asks it afterwards."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    def reply(
        self,
        steps: Step | Sequence[Step],
        stop: str = "eos",
        *,
        when: When = None,
        times: int | None = 1,
        chunk: Chunk = None,
        pace: Pace | float | None = None,
    ) -> Reply:
        """Say how the next prediction that fits is answered.

        Args:
            steps: One step or several; see `lmstudio.testing.script`.
            stop: Why it ends: ``"eos"``, ``"word"``, ``"limit"``, ``"context"``, or a
                stop reason as it travels.
            when: Only for predictions with this in their text, or for which this
                function of an `Asked` is true.
            times: How often; None for ever.
            chunk: Cut texts into ``"words"``, or so many characters each.
            pace: Lets each fragment out, or seconds between them.

        Raises:
            LMStudioTypeError: A step is none.
        """
        made = Reply(steps_of(steps), stop, when, times, chunk=chunk, pace=pace)
        self._scripts.add_reply(made)
        return made

    def reply_when(
        self,
        match: When,
        steps: Step | Sequence[Step],
        stop: str = "eos",
        *,
        model: str | None = None,
        tools: Sequence[str] | None = None,
        config: Mapping[str, Any] | None = None,
        times: int | None = 1,
        ordered: bool = False,
        chunk: Chunk = None,
        pace: Pace | float | None = None,
    ) -> Reply:
        """Say how predictions of one kind are answered.

        From then on a prediction that no answer is for is a mistake: it fails, and
        so does the test. Everything that is given has to fit.

        Args:
            match: A part of the user's last text, a compiled pattern in it, or a
                function of an `Asked`; None for any.
            steps: As `reply` takes them.
            stop: As `reply` takes it.
            model: The identifier of the model.
            tools: Names of tools that are all offered; ``()`` for no tools at all.
            config: Options of the prediction, such as ``{"temperature": 0}``.
            times: How often; None for ever.
            ordered: Only when the ordered ones before it are used up.
            chunk: As `reply` takes it.
            pace: As `reply` takes it.

        Raises:
            LMStudioTypeError: A step, or `match`, is none.
            LMStudioValueError: There is no such option, or it can't have this value.
        """
        if not (
            match is None or isinstance(match, (str, re.Pattern)) or callable(match)
        ):
            raise LMStudioTypeError(
                f"match must be a text, a pattern or a function, not {shown(match)}"
            )
        made = Reply(
            steps_of(steps),
            stop,
            match,
            times,
            model=model,
            tools=tools,
            config=normal(config),
            ordered=ordered,
            chunk=chunk,
            pace=pace,
        )
        self._scripts.add_reply(made, strict=True)
        return made

    def reply_with(
        self,
        function: Callable[[Asked], Step | Sequence[Step] | None],
        stop: str = "eos",
        *,
        times: int | None = None,
        chunk: Chunk = None,
        pace: Pace | float | None = None,
    ) -> Reply:
        """Let a function answer, for ever unless told otherwise.

        Args:
            function: Takes an `Asked`, returns steps as `reply` takes them, or None
                to leave the prediction to other answers. It runs on the server's
                thread and must be quick. What it raises fails the prediction and the
                test.
        """
        made = Reply(function, stop, None, times, chunk=chunk, pace=pace)
        self._scripts.add_reply(made)
        return made

    def embed_with(self, function: Callable[[str], Sequence[float]]) -> None:
        """Say how texts are embedded: by a function that is quick and never waits.

        Without it each text has a vector of two dimensions and length 1 that depends
        on nothing else. An `EngineError` that the function raises fails the call.
        """
        self._scripts.embed = function

    def on_load(self, steps: Sequence[Step | float]) -> None:
        """Say what the next load does: progress from 0 to 1, gates, failures.

        Raises:
            LMStudioTypeError: A step is something else.
        """
        kinds = (int, float, *SILENT)
        self._scripts.add_load(steps_of(steps, kinds=kinds, where="a load"))

    @property
    def predictions(self) -> list[Asked]:
        """Every prediction that was asked for so far, in order."""
        return self._scripts.asked()

    @property
    def unmatched(self) -> list[str]:
        """What was asked for in vain, each with its difference from the script."""
        return self._scripts.unmatched()

    def forget_unmatched(self) -> None:
        """Take what was asked for in vain so far for expected."""
        self._scripts.forget_unmatched()

    def assert_all_matched(self) -> None:
        """Fail if something was asked for that no scripted answer was for.

        Raises:
            UnmatchedRequestError: It says what was asked and what was expected.
        """
        if unmatched := self.unmatched:
            raise UnmatchedRequestError("\n\n".join(unmatched))

    def assert_all_used(self) -> None:
        """Fail if a scripted answer was never asked for, or something else was.

        Raises:
            UnmatchedRequestError: No scripted answer was for a prediction.
        """
        self.assert_all_matched()
        unused = self._scripts.unused()
        assert not unused, f"nobody asked for {unused!r}"


def _is_fallback(reply: Reply) -> bool:
    """Whether an answer would keep all that were scripted after it from being used."""
    conditions = (reply.when, reply.model, reply.tools, reply.config)
    return reply.times is None and all(value is None for value in conditions)
