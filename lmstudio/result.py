"""What a prediction gives: fragments while it runs, a result at its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Generic, TypeVar

from .asked import Asked
from .calls import structure
from .errors import LMStudioToolError
from .wire.common import InstanceInfo, KVConfig
from .wire.config import LOAD, PREDICTION
from .wire.llm import PredictionStats, PredictionSuccess, ToolCallRequest

T = TypeVar("T")

_new = str.__new__


class Fragment(str):
    """A piece of generated text: a `str` that knows more about itself.

    Attributes:
        tokens_count: Tokens that it stands for; approximate over short spans.
        reasoning_type: ``"none"``, ``"reasoning"``, ``"reasoningStartTag"`` or
            ``"reasoningEndTag"``.
        contains_drafted: Whether a draft model wrote some of it.
        is_structural: Whether it is markup around the text, such as tags.
        tokens: One mapping ``{"text", "id", "logProb", "candidates"}`` for each token
            when log probabilities were asked for, else None.

    Source: ``fragment`` packets of ``predict`` (docs/wire/predict.md).
    """

    __slots__ = (
        "contains_drafted",
        "is_structural",
        "reasoning_type",
        "tokens",
        "tokens_count",
    )

    tokens_count: int
    reasoning_type: str
    contains_drafted: bool
    is_structural: bool
    tokens: Sequence[dict[str, Any]] | None

    @property
    def content(self) -> str:
        """The text as a plain `str`."""
        return str(self)

    def to_dict(self) -> dict[str, Any]:
        """The text as ``content`` and all attributes, as JSON has them."""
        names = (*self.__slots__, *Fragment.__slots__)
        return {"content": str(self), **{name: getattr(self, name) for name in names}}

    def __reduce__(self) -> tuple[Any, ...]:
        names = self.__slots__
        return _fragment, (str(self), {name: getattr(self, name) for name in names})


def _fragment(text: str, fields: dict[str, Any]) -> Fragment:
    made = _new(Fragment, text)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def fragment_from_wire(fields: dict[str, Any]) -> Fragment:
    """Make a fragment of parsed JSON. On the hot path: no converter, no checks but one.

    Raises:
        KeyError, TypeError: The content is missing or no text.
    """
    content = fields["content"]
    if type(content) is not str:
        raise TypeError("content is no text")
    made = _new(Fragment, content)
    get = fields.get
    count = get("tokensCount")
    made.tokens_count = 1 if count is None else count
    kind = get("reasoningType")
    # One text for all fragments: each message brings a copy of its own.
    made.reasoning_type = "none" if kind == "none" else kind or "none"
    made.contains_drafted = get("containsDrafted") or False
    made.is_structural = get("isStructural") or False
    made.tokens = get("tokens")
    return made


class PredictionResult(Generic[T]):
    """The whole of a prediction that has ended. ``str()`` is its text.

    Attributes:
        fragments: All fragments in order.
        tool_calls: The calls of tools that the model asks for, in order.
        failed_tool_calls: Those that the server could not read.
    """

    def __init__(
        self,
        fragments: Sequence[Fragment],
        success: dict[str, Any],
        parse: Callable[[str, str], T] | None,
        asked: Asked | None = None,
    ) -> None:
        self.fragments: Sequence[Fragment] = tuple(fragments)
        asked = asked or Asked()
        self.tool_calls: Sequence[ToolCallRequest] = tuple(asked.calls)
        self.failed_tool_calls: Sequence[LMStudioToolError] = tuple(asked.failures)
        self._success = success
        self._parse = parse

    @cached_property
    def content(self) -> str:
        """The whole text, reasoning and its tags included."""
        return "".join(self.fragments)

    @property
    def reasoning_content(self) -> str:
        """What the model thought, without the tags around it."""
        return self._of_type("reasoning")

    @property
    def non_reasoning_content(self) -> str:
        """The answer alone, without the model's thoughts."""
        return self._of_type("none")

    def _of_type(self, kind: str) -> str:
        return "".join(
            piece
            for piece in self.fragments
            if piece.reasoning_type == kind and not piece.is_structural
        )

    @property
    def structured(self) -> bool:
        """Whether a structure was asked for."""
        return self._parse is not None

    @cached_property
    def parsed(self) -> T:
        """The answer as what was asked for; the text when nothing was asked for.

        Raises:
            LMStudioOutputError: The text does not fit, for example because it was cut
                off; the error holds the text and the stop reason.
        """
        text = self.non_reasoning_content
        if self._parse is None:
            return text  # type: ignore[return-value]  # T is str then
        return self._parse(text, self.stats.stop_reason)

    @cached_property
    def _typed(self) -> PredictionSuccess:
        made: PredictionSuccess = structure(self._success, PredictionSuccess, "predict")
        return made

    @property
    def stats(self) -> PredictionStats:
        """What the server measured; `stop_reason` says why the text ends."""
        return self._typed.stats

    @property
    def model_info(self) -> InstanceInfo | None:
        """The model that answered; None when the server did not say."""
        return self._typed.model_info

    @cached_property
    def load_config(self) -> dict[str, Any]:
        """How the model was loaded: our names, ``False`` for what is off."""
        config: KVConfig = self._typed.load_model_config
        return LOAD.decode(config)

    @cached_property
    def prediction_config(self) -> dict[str, Any]:
        """The settings in force: our names, ``False`` for what is off."""
        return PREDICTION.decode(self._typed.prediction_config)

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON has it, under the names of the attributes.

        The fragments are left out, and `parsed`, which may be of any type: its text is
        `non_reasoning_content`. `failed_tool_calls` are their errors' texts.

        Raises:
            LMStudioProtocolError: The server's figures make no sense.
        """
        info = self.model_info
        return {
            "content": self.content,
            "reasoning_content": self.reasoning_content,
            "non_reasoning_content": self.non_reasoning_content,
            "structured": self.structured,
            "tool_calls": [call.to_dict() for call in self.tool_calls],
            "failed_tool_calls": [str(error) for error in self.failed_tool_calls],
            "stats": self.stats.to_dict(),
            "model_info": None if info is None else info.to_dict(),
            "load_config": self.load_config,
            "prediction_config": self.prediction_config,
        }

    def __str__(self) -> str:
        return self.content

    def __repr__(self) -> str:
        text = self.content
        short = text if len(text) <= 60 else text[:59] + "…"
        stats = self._success.get("stats")  # as it came, so perhaps of any type
        reason = stats.get("stopReason") if isinstance(stats, dict) else None
        return f"<PredictionResult {short!r} stop_reason={reason!r}>"

    def _repr_markdown_(self) -> str:
        from .notebook import Answer, remarks_on

        shown = Answer(self.fragments, is_json=self.structured)
        return shown.markdown(remarks_on(self))
