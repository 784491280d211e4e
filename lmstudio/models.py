"""Handles of text models and of embedding models: what they are asked to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

from .aliases import CALLBACKS, callbacks, one_of
from .arguments import checked_flag, checked_name, checked_text, checked_texts
from .arrivals import Watch
from .batch import Maps
from .calls import Channel, call, call_all
from .errors import LMStudioToolError, LMStudioValueError
from .handles import ModelHandle
from .images import has_images, with_uploads
from .messages import HistoryLike, to_history, user_message
from .nearest import Asked
from .options import AFFIXES, PRE_PROMPT, PredictionSettings, merged
from .prediction import Prediction
from .progress import Progress, displays
from .result import Fragment
from .wire.embedding import EmbedString
from .wire.endpoints import endpoint
from .wire.llm import (
    ApplyTemplate,
    History,
    Message,
    Predict,
    ToolCallRequest,
)

if TYPE_CHECKING:
    from typing_extensions import TypeForm, Unpack

    from .act import ActRun
    from .actresult import PredictionRoundResult
    from .functions import ToolLike
    from .keywords import ActOptions, CompleteKeywords, RespondKeywords

T = TypeVar("T")

#: What the calls take among their options.
_COMPLETE = (*CALLBACKS, PRE_PROMPT)
_RESPOND = (*CALLBACKS, *AFFIXES)


class LLM(Maps, ModelHandle):
    """A handle of a loaded text model."""

    namespace = "llm"

    # A type comes back as it was asked for, other structures as Any.
    @overload
    def complete(
        self,
        prompt: str,
        config: Mapping[str, Any] | None = None,
        *,
        response_format: type[T],
        **keywords: Unpack[CompleteKeywords],
    ) -> Prediction[T]: ...

    @overload
    def complete(
        self,
        prompt: str,
        config: Mapping[str, Any] | None = None,
        *,
        response_format: None = None,
        structured: None = None,
        **keywords: Unpack[CompleteKeywords],
    ) -> Prediction[str]: ...

    @overload
    def complete(
        self,
        prompt: str,
        config: Mapping[str, Any] | None = None,
        *,
        response_format: TypeForm[T],
        **keywords: Unpack[CompleteKeywords],
    ) -> Prediction[T]: ...

    @overload
    def complete(
        self,
        prompt: str,
        config: Mapping[str, Any] | None = None,
        *,
        structured: type[T],
        **keywords: Unpack[CompleteKeywords],
    ) -> Prediction[T]: ...

    @overload
    def complete(
        self,
        prompt: str,
        config: Mapping[str, Any] | None = None,
        *,
        structured: TypeForm[T],
        **keywords: Unpack[CompleteKeywords],
    ) -> Prediction[T]: ...

    @overload
    def complete(
        self,
        prompt: str,
        config: Mapping[str, Any] | None = None,
        *,
        response_format: Any = None,
        structured: Any = None,
        **keywords: Unpack[CompleteKeywords],
    ) -> Prediction[Any]: ...

    def complete(
        self,
        prompt: str,
        config: Mapping[str, Any] | None = None,
        *,
        preset: str | None = None,
        structured: Any = None,
        response_format: Any = None,
        on_first_token: Callable[[], object] | None = None,
        on_fragment: Callable[[Fragment], object] | None = None,
        on_prompt_progress: Callable[[float], object] | None = None,
        on_message: Callable[[Message], object] | None = None,
        progress: Progress = None,
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
            response_format: A type, of which the answer becomes an instance, or a JSON
                schema: see docs/guides/structured.md. Each of the two takes both.
            on_first_token: Called when the first fragment is seen.
            on_fragment: Called with each fragment.
            on_prompt_progress: Called with 0 to 1 while the prompt is processed.
            on_message: Called once, at the end, with the model's message.
            progress: Whether a bar shows on a terminal or in a notebook how far the
                prompt is processed, after 0.7 s; or a function in its place, called
                with 0 to 1; or tqdm. None takes the client's.
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
        watch = self._watch(
            options,
            progress,
            timeout=timeout,
            idle_timeout=idle_timeout,
            signal=signal,
            on_first_token=on_first_token,
            on_fragment=on_fragment,
            on_prompt_progress=on_prompt_progress,
            on_message=on_message,
        )
        settings = PredictionSettings(
            merged(config, options, "prediction"),
            structured=structured,
            response_format=response_format,
            is_completion=True,
            asked=Asked(self.complete, _COMPLETE),
        )
        history = History(messages=[user_message(settings.pre_prompt + text)])
        return self._predict(history, settings, preset, watch)

    @overload
    def respond(
        self,
        history: HistoryLike,
        config: Mapping[str, Any] | None = None,
        *,
        response_format: type[T],
        **keywords: Unpack[RespondKeywords],
    ) -> Prediction[T]: ...

    @overload
    def respond(
        self,
        history: HistoryLike,
        config: Mapping[str, Any] | None = None,
        *,
        response_format: None = None,
        structured: None = None,
        **keywords: Unpack[RespondKeywords],
    ) -> Prediction[str]: ...

    @overload
    def respond(
        self,
        history: HistoryLike,
        config: Mapping[str, Any] | None = None,
        *,
        response_format: TypeForm[T],
        **keywords: Unpack[RespondKeywords],
    ) -> Prediction[T]: ...

    @overload
    def respond(
        self,
        history: HistoryLike,
        config: Mapping[str, Any] | None = None,
        *,
        structured: type[T],
        **keywords: Unpack[RespondKeywords],
    ) -> Prediction[T]: ...

    @overload
    def respond(
        self,
        history: HistoryLike,
        config: Mapping[str, Any] | None = None,
        *,
        structured: TypeForm[T],
        **keywords: Unpack[RespondKeywords],
    ) -> Prediction[T]: ...

    @overload
    def respond(
        self,
        history: HistoryLike,
        config: Mapping[str, Any] | None = None,
        *,
        response_format: Any = None,
        structured: Any = None,
        **keywords: Unpack[RespondKeywords],
    ) -> Prediction[Any]: ...

    def respond(
        self,
        history: HistoryLike,
        config: Mapping[str, Any] | None = None,
        *,
        preset: str | None = None,
        structured: Any = None,
        response_format: Any = None,
        on_first_token: Callable[[], object] | None = None,
        on_fragment: Callable[[Fragment], object] | None = None,
        on_prompt_progress: Callable[[float], object] | None = None,
        on_message: Callable[[Message], object] | None = None,
        on_tool_call: Callable[[ToolCallRequest], object] | None = None,
        tools: Iterable[ToolLike] | None = None,
        progress: Progress = None,
        timeout: float | None = None,
        idle_timeout: float | None = None,
        signal: Any = None,
        **options: Any,
    ) -> Prediction[Any]:
        """Answer a conversation.

        Args:
            history: A text of the user, or messages; see `messages_of` in
                `lmstudio.messages`.
            on_tool_call: Called with each call of a tool that the model asks for.
            tools: Functions with type hints and other tools that the model may ask to
                be called; none is. The calls are in the result's `tool_calls`; the
                option ``tool_choice`` is ``"none"``, ``"auto"`` or ``"required"``.
            options: As for `complete`; instead of ``pre_prompt`` there are
                ``input_prefix`` and ``input_suffix`` around each message of the user.

        All other arguments and errors are those of `complete`.
        """
        messages = to_history(history)
        watch = self._watch(
            options,
            progress,
            timeout=timeout,
            idle_timeout=idle_timeout,
            signal=signal,
            on_first_token=on_first_token,
            on_fragment=on_fragment,
            on_prompt_progress=on_prompt_progress,
            on_message=on_message,
            on_tool_call=on_tool_call,
        )
        given = merged(config, options, "prediction")
        if tools is not None:
            from .functions import with_tools  # takes its time, and few need it

            given = with_tools(given, tools)
        settings = PredictionSettings(
            given,
            structured=structured,
            response_format=response_format,
            is_completion=False,
            asked=Asked(self.respond, _RESPOND),
        )
        return self._predict(self.with_images(messages), settings, preset, watch)

    # Same as `complete` and `respond`: those of the official SDK.
    complete_stream = complete
    respond_stream = respond

    def act(
        self,
        chat: HistoryLike,
        tools: Iterable[ToolLike],
        *,
        wait: bool = True,
        max_prediction_rounds: int | None = None,
        max_parallel_tool_calls: int | None = 1,
        config: Mapping[str, Any] | None = None,
        preset: str | None = None,
        on_message: Callable[[Message], object] | None = None,
        on_first_token: Callable[[int], object] | None = None,
        on_prediction_fragment: Callable[[Fragment, int], object] | None = None,
        on_round_start: Callable[[int], object] | None = None,
        on_round_end: Callable[[int], object] | None = None,
        on_prediction_completed: (
            Callable[[PredictionRoundResult], object] | None
        ) = None,
        on_prompt_processing_progress: Callable[[float, int], object] | None = None,
        on_fragment: Callable[[Fragment, int], object] | None = None,
        on_prompt_progress: Callable[[float, int], object] | None = None,
        handle_invalid_tool_request: (
            Callable[[LMStudioToolError, ToolCallRequest | None], str | None] | None
        ) = None,
        guard_tool_call: Callable[[ToolCallRequest], Any] | None = None,
        timeout: float | None = None,
        idle_timeout: float | None = None,
        signal: Any = None,
        **options: Unpack[ActOptions],
    ) -> ActRun:
        """Let the model work with tools: it asks for calls until it has its answer.

        Args:
            chat: As for `respond`; it is not changed, see `on_message`.
            tools: Functions with type hints, `ToolFunctionDef`, or definitions.
            wait: Return when all is done. False returns at once; the run then goes on
                while someone iterates over it or waits.
            max_prediction_rounds: Predictions at most; the last one gets no tools.
                None for no limit.
            max_parallel_tool_calls: With more than 1 the calls of one round are made in
                threads, so many at once; None for 32.
            on_message: Called with the model's message and with the tools' answers of
                each round; ``chat.append`` keeps a chat up to date.
            on_first_token: Called with the index of each round that has text.
            on_prediction_fragment: Called with each piece and the round's index.
            on_round_start: Called with the index, before the prediction.
            on_round_end: Called with the index, after the calls.
            on_prediction_completed: Called with each round's result, before the calls.
            on_prompt_processing_progress: Called with 0 to 1 and the round's index.
            on_fragment: The same as `on_prediction_fragment`, by its shorter name.
            on_prompt_progress: The same as `on_prompt_processing_progress`.
            handle_invalid_tool_request: Called with an `LMStudioToolError` and the
                request that could not be answered: no such tool, wrong arguments, or a
                function that raised. Returns what to tell the model, None for the
                error's text, or raises. For a call that can't be read the request is
                None, and the error is raised in any case.
            guard_tool_call: Called with each request before its function. Returns True,
                False, a text that says why not, or a mapping of other arguments.
            timeout: Seconds for all rounds; None takes the client's.
            idle_timeout: Seconds without any message; None for no limit.
            options: Prediction options, as for `respond`. With ``tool_choice`` set to
                ``"required"`` the model must call a tool in the first round.

        Raises:
            LMStudioTypeError: A tool has no hints, is async, ...; nothing was sent.
            LMStudioValueError: Another argument is wrong; nothing was sent.
            LMStudioError: See `ActRun`.
        """
        # Imported at first use: all of it together takes a tenth of our import time.
        from .act import ActRun
        from .functions import to_act_with
        from .rounds import Rounds, Rules

        checked_flag(wait, "wait")
        given = merged(config, options, "prediction")
        offered, choice = to_act_with(given, tools)
        asked = Asked(self.act, AFFIXES)
        rules = Rules(
            max_prediction_rounds=max_prediction_rounds,
            max_parallel_tool_calls=max_parallel_tool_calls,
            tool_choice=choice,
            on_message=on_message,
            on_first_token=on_first_token,
            on_prediction_fragment=one_of(
                *("on_fragment", on_fragment),
                *("on_prediction_fragment", on_prediction_fragment),
            ),
            on_round_start=on_round_start,
            on_round_end=on_round_end,
            on_prediction_completed=on_prediction_completed,
            on_prompt_processing_progress=one_of(
                *("on_prompt_progress", on_prompt_progress),
                *("on_prompt_processing_progress", on_prompt_processing_progress),
            ),
            handle_invalid_tool_request=handle_invalid_tool_request,
            guard_tool_call=guard_tool_call,
            timeout=timeout if timeout is not None else self._timeout,
            idle_timeout=idle_timeout,
            signal=signal,
        )

        def start(
            history: History, about_tools: dict[str, Any], watch: Watch
        ) -> Prediction[Any]:
            settings = PredictionSettings(
                {**given, **about_tools}, is_completion=False, asked=asked
            )
            return self._predict(history, settings, preset, watch)

        history = self.with_images(to_history(chat))
        run = ActRun(Rounds(start, history, offered, rules))
        if wait:
            run.result()
        return run

    def _watch(
        self,
        options: dict[str, Any],
        progress: Progress,
        *,
        timeout: float | None,
        idle_timeout: float | None,
        signal: Any,
        **given: Any,
    ) -> Watch:
        """What to tell of a prediction, and when to end it.

        Args:
            options: Callbacks under official names are taken out of it.
            given: Callbacks under our names.
        """
        told = callbacks(options, **given)
        bar, told["on_prompt_progress"] = displays(
            "Processing the prompt",
            progress,
            self._progress,
            told["on_prompt_progress"],
        )
        return Watch(
            **told,
            bar=bar,
            timeout=self._timeout if timeout is None else timeout,
            idle_timeout=idle_timeout,
            signal=signal,
        )

    def _predict(
        self,
        history: History,
        settings: PredictionSettings,
        preset: str | None,
        watch: Watch,
    ) -> Prediction[Any]:
        if preset is not None:
            checked_name(preset, "preset")
        parameter = Predict(
            model_specifier=self._specifier,
            history=history,
            prediction_config_stack=settings.stack,
            fuzzy_preset_identifier=self._preset if preset is None else preset,
        )
        row = endpoint("llm", "predict")
        open_channel = partial(Channel, self._session, row, parameter)
        return Prediction(self._session, open_channel, watch, settings.parse)

    def apply_prompt_template(
        self,
        history: HistoryLike,
        opts: Mapping[str, Any] | None = None,
        *,
        omit_bos_token: bool | None = None,
        omit_eos_token: bool | None = None,
        tools: Iterable[ToolLike] | None = None,
        **unknown: NoReturn,
    ) -> str:
        """The text that the model would see for a history.

        Args:
            history: As for `respond`.
            opts: The other arguments as a mapping, in either spelling.
            omit_bos_token: Leave out the token that begins every text.
            omit_eos_token: Leave out the token that ends every answer.
            tools: Show these to the model, as `respond` does.

        Raises:
            LMStudioValueError: An argument is wrong; nothing was sent.
            LMStudioModelNotFoundError: The model is not loaded.
        """
        from .templates import template_options  # with tools, see `act`

        Asked(self.apply_prompt_template).refuse(unknown)
        messages = to_history(history)
        options = template_options(
            opts,
            omit_bos_token=omit_bos_token,
            omit_eos_token=omit_eos_token,
            tools=tools,
        )
        parameter = ApplyTemplate(
            specifier=self._specifier, history=self.with_images(messages), opts=options
        )
        formatted: str = self._call("applyPromptTemplate", parameter).formatted
        return formatted

    def count_tokens(
        self, input: HistoryLike, *, tools: Iterable[ToolLike] | None = None
    ) -> int:
        """How many tokens a text has, or a conversation with all that is around it.

        A conversation is formatted by `apply_prompt_template` and the outcome counted:
        two calls. What the model makes of images is not in it.

        Args:
            input: A text, counted as it is; or messages as for `respond`.
            tools: Counts these too, with a conversation.

        Raises:
            LMStudioValueError: An argument is wrong; nothing was sent.
            LMStudioModelNotFoundError: The model is not loaded.
        """
        if not isinstance(input, str):
            input = self.apply_prompt_template(input, tools=tools)
        elif tools is not None:
            raise LMStudioValueError(
                'tools go with a conversation: write [("user", text)] in place of the'
                " text"
            )
        return super().count_tokens(input)

    def with_images(self, history: History) -> History:
        """The history as it can be sent: with all its images on the server.

        Raises:
            LMStudioValueError: The model has no vision, or an image is none; no image
                was sent.
        """
        if not has_images(history):
            return history
        info = self.get_info()
        if info.vision is False:
            raise LMStudioValueError(
                f"the model {info.identifier!r} takes no images; use one with vision,"
                " or leave them out"
            )
        return with_uploads(self._session, history, self._call_time)


class EmbeddingModel(ModelHandle):
    """A handle of a loaded embedding model."""

    namespace = "embedding"

    # A str is an Iterable of str as well; it is meant as one text.
    @overload
    def embed(self, input: str) -> list[float]: ...  # type: ignore[overload-overlap]  # a str is an Iterable[str], too
    @overload
    def embed(self, input: Iterable[str]) -> list[list[float]]: ...

    def embed(self, input: str | Iterable[str]) -> list[float] | list[list[float]]:
        """The embedding of a text, or of each text of several, in order.

        Several texts are sent without waiting for the answers of those before them.
        It may take long, so the only time limit is the client's `timeout`, for each.

        Returns:
            One float for each dimension of the model.

        Raises:
            LMStudioTypeError: Something is no text; nothing was sent.
            LMStudioModelNotFoundError: The model is not loaded.
            LMStudioError: For several texts the error's `index` says which failed.
        """
        where, limit = (self._session, self.namespace, "embedString"), self._timeout
        if isinstance(input, str):
            reply = call(*where, self._input(input), timeout=limit)
            vector: list[float] = reply.embedding
            return vector
        texts = [self._input(one) for one in checked_texts(input, "embed")]
        return [reply.embedding for reply in call_all(*where, texts, timeout=limit)]

    def _input(self, text: str) -> EmbedString:
        checked = checked_text(text, "the text")
        return EmbedString(model_specifier=self._specifier, input_string=checked)
