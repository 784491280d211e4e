"""Handles of loaded models: names that are looked up anew at each call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, overload

from .arguments import checked_text
from .arrivals import Watch
from .calls import Channel, call
from .chat import HistoryLike, to_history, user_message
from .errors import LMStudioProtocolError, LMStudioTypeError, shown
from .options import PredictionSettings, merged
from .prediction import Prediction
from .result import Fragment
from .session import Session
from .wire.common import (
    GetModelInfo,
    InstanceInfo,
    ModelQuery,
    ModelSpecifier,
    Specified,
    SpecifiedText,
    Unload,
)
from .wire.config import EMBEDDING_LOAD, LOAD
from .wire.endpoints import endpoint
from .wire.llm import ApplyTemplate, History, Predict


class ModelHandle:
    """A name for a loaded model. It survives unloading, and works again after loading.

    Attributes:
        namespace: ``"llm"`` or ``"embedding"``.
        info: What the server said when the handle was made by loading or listing;
            None for a handle that nobody has asked the server about.
    """

    namespace = ""

    def __init__(
        self,
        session: Session,
        query: ModelQuery,
        *,
        info: InstanceInfo | None = None,
        preset: str | None = None,
        timeout: float | None = None,
        call_time: float | None = 60.0,
    ) -> None:
        self._session = session
        self._query = query
        self._specifier = ModelSpecifier(query=query)
        self._preset = preset
        self._timeout = timeout
        self._call_time = call_time
        self.info = info

    @property
    def identifier(self) -> str:
        """The name that the model was loaded under.

        Asks the server when the handle was made from something else.

        Raises:
            LMStudioModelNotFoundError: No loaded model matches.
        """
        return self._query.identifier or self.get_info().identifier

    @property
    def path(self) -> str:
        """The path of the model's file, as `get_info` tells it."""
        return self.info.path if self.info is not None else self.get_info().path

    def get_model_info(self) -> InstanceInfo | None:
        """What the server knows of the model; None when none matches this handle."""
        return self._info(throw=False)

    def get_info(self) -> InstanceInfo:
        """What the server knows of the model.

        Raises:
            LMStudioModelNotFoundError: No loaded model matches.
        """
        info = self._info(throw=True)
        if info is None:
            raise LMStudioProtocolError(
                "getModelInfo", "neither a model nor an error came back"
            )
        return info

    def _info(self, *, throw: bool) -> InstanceInfo | None:
        parameter = GetModelInfo(specifier=self._specifier, throw_if_not_found=throw)
        info: InstanceInfo | None = self._call("getModelInfo", parameter)
        return info

    def get_load_config(self) -> dict[str, Any]:
        """How the model was loaded: our names, ``False`` for what is off."""
        config = self._call("getLoadConfig", Specified(specifier=self._specifier))
        table = EMBEDDING_LOAD if self.namespace == "embedding" else LOAD
        return table.decode(config)

    def get_context_length(self) -> int:
        """Tokens of context that the model was loaded with."""
        length = self.get_load_config().get("context_length")
        return length if type(length) is int else self.get_info().context_length

    def unload(self) -> None:
        """Free the model's memory.

        Raises:
            LMStudioModelNotFoundError: It was not loaded any more.
        """
        self._call("unloadModel", Unload(identifier=self.identifier))

    # A str is an Iterable of str as well; it is meant as one text.
    @overload
    def tokenize(self, text: str) -> list[int]: ...  # type: ignore[overload-overlap]
    @overload
    def tokenize(self, text: Iterable[str]) -> list[list[int]]: ...

    def tokenize(self, text: str | Iterable[str]) -> list[int] | list[list[int]]:
        """Token ids of a text, or of each text of several.

        Raises:
            LMStudioModelNotFoundError: The model is not loaded.
        """
        if isinstance(text, str):
            tokens: list[int] = self._call("tokenize", self._text(text)).tokens
            return tokens
        if not isinstance(text, Iterable) or isinstance(text, Mapping):
            raise LMStudioTypeError(
                f"tokenize takes a text or several, not {shown(text)}"
            )
        texts = [self._text(one) for one in text]  # all are checked before any is sent
        return [self._call("tokenize", one).tokens for one in texts]

    def count_tokens(self, text: str) -> int:
        """How many tokens a text has."""
        count: int = self._call("countTokens", self._text(text)).token_count
        return count

    def _text(self, text: str) -> SpecifiedText:
        checked = checked_text(text, "the text")
        return SpecifiedText(specifier=self._specifier, input_string=checked)

    def _call(self, name: str, parameter: Any) -> Any:
        return call(
            self._session, self.namespace, name, parameter, timeout=self._call_time
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ModelHandle):
            return NotImplemented
        mine = (self.namespace, self._query, self._session)
        return mine == (other.namespace, other._query, other._session)

    def __hash__(self) -> int:
        return hash((self.namespace, self._query))

    def __repr__(self) -> str:
        named = {
            name: value
            for name in ("identifier", "path", "vision")
            if (value := getattr(self._query, name)) is not None
        }
        inside = ", ".join(f"{name}={value!r}" for name, value in named.items())
        return f"<{type(self).__name__} {inside or 'any'}>"


class LLM(ModelHandle):
    """A handle of a loaded text model."""

    namespace = "llm"

    def complete(
        self,
        prompt: str,
        *,
        config: Mapping[str, Any] | None = None,
        preset: str | None = None,
        structured: Any = None,
        response_format: Any = None,
        on_first_token: Callable[[], object] | None = None,
        on_fragment: Callable[[Fragment], object] | None = None,
        on_prompt_progress: Callable[[float], object] | None = None,
        timeout: float | None = None,
        idle_timeout: float | None = None,
        signal: Any = None,
        **options: Any,
    ) -> Prediction[Any]:
        """Continue a text, without any template of a conversation.

        Args:
            prompt: The text to continue.
            config: Prediction options as a mapping, in either spelling.
            preset: Name of a preset on the server.
            structured: ``{"type": "json"}``, with ``json_schema`` for a schema, or
                ``{"type": "gbnf", "gbnf_grammar": "..."}``.
            response_format: A JSON schema, or a class with ``model_json_schema``.
            on_first_token: Called when the first fragment is seen.
            on_fragment: Called with each fragment.
            on_prompt_progress: Called with 0 to 1 while the prompt is processed.
            timeout: Seconds for the whole prediction; None takes the client's.
            idle_timeout: Seconds without any message; None for no limit.
            signal: A `Signal` or `threading.Event` that cancels.
            options: Prediction options as keywords: ``temperature``, ``max_tokens``,
                ``stop_strings``, ``pre_prompt``, ...

        Raises:
            LMStudioValueError: An argument is wrong; nothing was sent.
            LMStudioWebsocketError: The server can't be reached.
        """
        text = checked_text(prompt, "the prompt")
        settings = PredictionSettings(
            merged(config, options, "prediction"),
            structured=structured,
            response_format=response_format,
            is_completion=True,
        )
        history = History(messages=[user_message(settings.pre_prompt + text)])
        watch = Watch(
            on_first_token=on_first_token,
            on_fragment=on_fragment,
            on_prompt_progress=on_prompt_progress,
            timeout=timeout if timeout is not None else self._timeout,
            idle_timeout=idle_timeout,
            signal=signal,
        )
        return self._predict(history, settings, preset, watch)

    def respond(
        self,
        history: HistoryLike,
        *,
        config: Mapping[str, Any] | None = None,
        preset: str | None = None,
        structured: Any = None,
        response_format: Any = None,
        on_first_token: Callable[[], object] | None = None,
        on_fragment: Callable[[Fragment], object] | None = None,
        on_prompt_progress: Callable[[float], object] | None = None,
        timeout: float | None = None,
        idle_timeout: float | None = None,
        signal: Any = None,
        **options: Any,
    ) -> Prediction[Any]:
        """Answer a conversation.

        Args:
            history: A text of the user, or messages; see `lmstudio.chat.to_history`.
            options: As for `complete`; instead of ``pre_prompt`` there are
                ``input_prefix`` and ``input_suffix`` around each message of the user.

        All other arguments and errors are those of `complete`.
        """
        messages = to_history(history)
        settings = PredictionSettings(
            merged(config, options, "prediction"),
            structured=structured,
            response_format=response_format,
            is_completion=False,
        )
        watch = Watch(
            on_first_token=on_first_token,
            on_fragment=on_fragment,
            on_prompt_progress=on_prompt_progress,
            timeout=timeout if timeout is not None else self._timeout,
            idle_timeout=idle_timeout,
            signal=signal,
        )
        return self._predict(messages, settings, preset, watch)

    def _predict(
        self,
        history: History,
        settings: PredictionSettings,
        preset: str | None,
        watch: Watch,
    ) -> Prediction[Any]:
        if preset is not None:
            checked_text(preset, "preset")
        parameter = Predict(
            model_specifier=self._specifier,
            history=history,
            prediction_config_stack=settings.stack,
            fuzzy_preset_identifier=self._preset if preset is None else preset,
        )
        row = endpoint("llm", "predict")
        open_channel = partial(Channel, self._session, row, parameter)
        return Prediction(self._session, open_channel, watch, settings.parse)

    def apply_prompt_template(self, history: HistoryLike) -> str:
        """The text that the model would see for a history."""
        parameter = ApplyTemplate(
            specifier=self._specifier, history=to_history(history)
        )
        formatted: str = self._call("applyPromptTemplate", parameter).formatted
        return formatted
