"""What a run with tools gives: text and events while it runs, a result at its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import attrs

from .html import cut
from .result import Fragment, PredictionResult
from .toolcalls import ToolCall
from .wire.llm import Message, PredictionStats

#: Why a run is over.
EndedBy = Literal["answer", "limit", "cancel"]


class RoundFragment(Fragment):
    """A piece of text that knows its round.

    Attributes:
        round_index: The round, counted from 0.
    """

    __slots__ = ("round_index",)

    round_index: int

    def __reduce__(self) -> tuple[Any, ...]:
        return of_round, (_copied(Fragment, self), self.round_index)


F = TypeVar("F", bound=Fragment)


def _copied(kind: type[F], fragment: Fragment) -> F:
    made = str.__new__(kind, fragment)
    for name in Fragment.__slots__:
        setattr(made, name, getattr(fragment, name))
    return made


def of_round(fragment: Fragment, round_index: int) -> RoundFragment:
    """The same fragment, with its round."""
    made = _copied(RoundFragment, fragment)
    made.round_index = round_index
    return made


class PredictionRoundResult(PredictionResult[str]):
    """The result of one round.

    Attributes:
        round_index: The round, counted from 0.
    """

    def __init__(self, result: PredictionResult[str], round_index: int) -> None:
        self.__dict__.update(result.__dict__)
        self.round_index = round_index

    def to_dict(self) -> dict[str, Any]:
        """As of any result, with `round_index`."""
        return {"round_index": self.round_index, **super().to_dict()}


@attrs.frozen(kw_only=True, repr=False)
class ActResult:
    """The whole of a run that has ended. ``str()`` is its last text.

    Attributes:
        predictions: The result of each round.
        messages: What came to the conversation: the model's messages and the answers
            of the tools.
        calls: Every call of a tool, with its answer.
        is_cancelled: Whether it was stopped before the model had no more to ask for.
        ended_by: ``"answer"``: the model had no more to ask for; ``"limit"``: the last
            round was the last of `max_prediction_rounds`, in which it was offered no
            tools; ``"cancel"``.
        total_time_seconds: How long it took.
    """

    predictions: Sequence[PredictionRoundResult]
    messages: Sequence[Message]
    calls: Sequence[ToolCall]
    is_cancelled: bool
    total_time_seconds: float
    ended_by: EndedBy = "answer"

    @property
    def rounds(self) -> int:
        """How many predictions there were."""
        return len(self.predictions)

    @property
    def content(self) -> str:
        """The text of the last round."""
        return self.predictions[-1].content if self.predictions else ""

    @property
    def text(self) -> str:
        """The same as `content`."""
        return self.content

    @property
    def stats(self) -> list[PredictionStats]:
        """What the server measured, round by round."""
        return [prediction.stats for prediction in self.predictions]

    def to_dict(self) -> dict[str, Any]:
        """The run as JSON has it, under the names of the attributes.

        The messages are as `lmstudio.Chat.to_dict` has them.
        """
        return {
            "content": self.content,
            "rounds": self.rounds,
            "is_cancelled": self.is_cancelled,
            "ended_by": self.ended_by,
            "total_time_seconds": self.total_time_seconds,
            "predictions": [result.to_dict() for result in self.predictions],
            "messages": [message.to_dict() for message in self.messages],
            "calls": [call.to_dict() for call in self.calls],
        }

    def __str__(self) -> str:
        return self.content

    def __repr__(self) -> str:
        made = f"{self.rounds} round{'' if self.rounds == 1 else 's'}"
        asked = f"{len(self.calls)} call{'' if len(self.calls) == 1 else 's'}"
        state = " cancelled" if self.is_cancelled else ""
        return f"<ActResult{state} {made}, {asked}, {cut(self.content, 60)!r}>"

    def _repr_markdown_(self) -> str:
        from .html import dim

        calls = [dim(cut(f"{call.name}({call.arguments})")) for call in self.calls]
        answers = [result._repr_markdown_() for result in self.predictions[-1:]]
        return "\n\n".join([*calls, *answers])


#: What `ActRun.events` yields: text; the end of a round's prediction, with the calls
#: that the model asks for; a call with its answer.
Event = RoundFragment | PredictionRoundResult | ToolCall
