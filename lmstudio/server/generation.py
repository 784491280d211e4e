"""One prediction, from its settings to the packets that a client reads."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from typing import Any, TypeVar

import attrs

from ..wire.common import KVConfig
from ..wire.llm import History, PredictionStats, TemplateOptions
from .engine import (
    ContextOverflow,
    Done,
    EngineError,
    Image,
    LoadedModel,
    ModelFile,
    Piece,
    PromptPart,
    PromptProgress,
    Request,
    Unloaded,
)
from .fragments import Fragments
from .meter import Meter
from .overflow import shorten
from .prompt import IMAGE_TEXT, Formatter, image_mark, template_of, turns_of
from .prompt_tokens import ControlTokens, Prompt
from .reasoning import Budget, closing, tags_of
from .sampling import GenerationError as GenerationError  # belongs to this interface
from .sampling import Options, ReasoningTags, check_tools, effective, read_options
from .structure import read_structure
from .toolcalls import ToolCalls, schemas_of
from .toolcalls_forced import forced_call
from .toolcalls_prompt import Tooling
from .work import in_turn

T = TypeVar("T")
Packet = dict[str, Any]
EnginePrompt = str | Sequence[PromptPart]

#: How often an output without a limit may overrun the context: some models never end
#: by themselves.
MAX_OVERRUNS = 16
#: So many characters tell whether an output begins like JSON.
START_LENGTH = 32

_STOP_REASONS = {
    "eos": "eosFound",
    "word": "stopStringFound",
    "limit": "maxPredictedTokensReached",
    "context": "contextLengthReached",
}


@attrs.frozen
class Finished:
    """The end of a prediction.

    Attributes:
        stats: What was measured.
        prediction_config: The settings that it ran with, defaults filled in.
    """

    stats: PredictionStats
    prediction_config: KVConfig


class _UserStopped(Exception):
    """`Generation.cancel` was called."""


class Generation:
    """A prediction that has not run yet, runs, or has run. It runs once.

    Args:
        history: The messages to answer; without it `raw_prompt` is continued.
        config: The collapsed settings.
        control_tokens: Gives the texts that the model reads as control tokens; in
            messages they stay text.
        images: Those that the messages show, by their identifiers.
        draft_key: The model that proposes tokens to this one.

    Attributes:
        input_text: The formatted prompt.

    Raises:
        GenerationError: Settings or messages are wrong, or the template refuses them.
    """

    def __init__(
        self,
        model: LoadedModel,
        file: ModelFile,
        *,
        history: History | None = None,
        raw_prompt: str | None = None,
        config: KVConfig,
        control_tokens: ControlTokens = tuple,
        images: Mapping[str, Image] | None = None,
        draft_key: str | None = None,
    ) -> None:
        self._model = model
        self._config = config
        self._options = options = read_options(config)
        self._structure = read_structure(options.structured)
        self._template_stops: tuple[str, ...] = ()
        self._is_fallback = False
        self._tags = _tags(file, options)
        self._tooling: Tooling | None = None
        self._calls: ToolCalls | None = None
        limit = options.reasoning_budget
        self._budget = None if limit is None else Budget(limit)
        if history is None:
            _refuse_on_raw_text(options)
            self._prompt = Prompt(model, file, raw=raw_prompt)
        else:
            self._tooling = tooling = _tooling(file, options)
            marks = {name: image_mark(n) for n, name in enumerate(images or ())}
            formatter = _formatter(file, options, tooling)
            self._template_stops = formatter.stop_strings
            self._is_fallback = formatter.is_fallback
            self._prompt = Prompt(
                model,
                file,
                formatter=formatter,
                turns=tooling.turns(turns_of(history, options.system_prompt, marks)),
                images={mark: (images or {})[name] for name, mark in marks.items()},
                control_tokens=control_tokens(),
                keep=attrs.astuple(self._tags) if self._tags else (),
            )
        self._begin_answer()
        self.input_text = self._prompt.text
        # JSON holds no thoughts, whatever its strings look like.
        tags = self._tags if self._structure is None else None
        self._fragments = Fragments(tags, self.input_text, self._calls)
        self._visible = _visible(self._tags, self._tooling if self._calls else None)
        self._meter = Meter(model.gpu_layers, draft_key=draft_key)
        self._texts: list[str] = []  # the output so far
        self._start = ""  # of structured output, until it is long enough to be checked
        self._overruns = 0
        self._was_cut = False  # the prompt that the engine has now
        self._has_thought = False  # all that the budget allows
        self._is_cancelled = False
        self._waiting: asyncio.Task[Any] | None = None
        self._interrupted = False

    def _begin_answer(self) -> None:
        """End a thought that may not be, and begin a call that has to be."""
        options, tooling, tags = self._options, self._tooling, self._tags
        is_inside = tags is not None and self._prompt.text.rstrip().endswith(tags.start)
        is_forced = bool(options.forced_tools)
        if tags and is_inside and (is_forced or options.reasoning_budget == 0):
            self._prompt.extend(closing(tags))
        if tooling is None or not tooling.tools or self._structure is not None:
            if is_forced and self._structure is not None:
                raise GenerationError(
                    "A call of a tool and structured output cannot both be forced",
                    suggestion="Leave out one of the two",
                    code="invalidSetting",
                )
            return
        schemas = schemas_of(options.tools)
        self._calls = ToolCalls(tooling.syntax, tooling.own_names, schemas)
        if is_forced:
            wanted = [tool["function"]["name"] for tool in options.forced_tools]
            self._structure = forced_call(
                tooling.shown_tools(wanted), tooling.syntax.arguments
            )
            self._prompt.extend(tooling.syntax.forced)
            self._calls.feed(tooling.syntax.forced)

    def cancel(self) -> None:
        """Stop; `packets` then ends at once, with the stop reason ``userStopped``.

        Belongs to the event loop. Safe to repeat, and before and after the run.
        """
        self._is_cancelled = True
        if self._waiting is not None and not self._interrupted:
            self._interrupted = True
            self._waiting.cancel()

    async def packets(self) -> AsyncIterator[Packet | Finished]:
        """Run: packets as they travel, and `Finished` last.

        Closing the iterator (or cancelling the task in it) stops the model.

        Raises:
            GenerationError: The output is not what was asked for.
            EngineError: What `LoadedModel.predict` raises, except `Unloaded`.
        """
        self._meter.start()
        stop: tuple[str, str | None] | None = None  # the reason, and the stop string
        try:
            prompt: EnginePrompt = await self._until_cancelled(self._prompt.parts)
            while stop is None:
                outcome: Done | ContextOverflow | None = None
                stream = self._model.predict(self._request(prompt))
                try:
                    while not isinstance(
                        event := await self._until_cancelled(stream.__anext__), Done
                    ):
                        for packet in self._take(event):
                            yield packet
                        if self._has_thought:
                            break
                    else:
                        outcome = event
                except ContextOverflow as exc:
                    outcome = exc
                finally:
                    await _close(stream)
                if outcome is None:
                    stop = self._thought_limit()
                    for packet in self._end_thought():
                        yield packet
                    prompt = await self._until_cancelled(self._continued)
                    continue
                stop = self._stop(outcome)
                if stop is None:
                    again = functools.partial(self._shorter, outcome)
                    prompt = await self._until_cancelled(again)
        except _UserStopped:
            stop = "userStopped", None
        except Unloaded:
            stop = "modelUnloaded", None
        except StopAsyncIteration:
            raise EngineError("The engine ended the output without a result") from None
        for packet in self._last_packets(stop[0]):
            yield packet
        if self._structure is not None and stop[0] != "modelUnloaded":
            output = "".join(self._texts)
            if stop[0] == "eosFound":
                await in_turn(self._structure.check, output)
            elif stop[0] != "userStopped":
                await in_turn(self._structure.check_start, output)
        yield Finished(self._meter.stats(*stop), effective(self._config))

    async def _until_cancelled(self, start: Callable[[], Awaitable[T]]) -> T:
        """Start something and wait for it, at most until `cancel` is called.

        `cancel` cancels the task that waits here: that costs nothing per token. What
        others do to the task is passed on.
        """
        if self._is_cancelled:
            raise _UserStopped
        self._waiting = asyncio.current_task()
        try:
            return await start()
        except (asyncio.CancelledError, EngineError):
            if not self._interrupted or _cancelled_by_others(self._waiting):
                raise
            raise _UserStopped from None
        finally:
            self._waiting = None

    def _request(self, prompt: EnginePrompt) -> Request:
        options, structure = self._options, self._structure
        limit = options.max_tokens
        if limit is not None:
            limit -= self._meter.predicted
        stops = (
            *options.stop_strings,
            *options.tool_call_stop_strings,
            *self._template_stops,
            *(self._tooling.syntax.stops if self._calls and self._tooling else ()),
        )
        return Request(
            prompt=prompt,
            sampling=options.sampling,
            max_tokens=limit,
            stop=tuple(dict.fromkeys(stops)),
            json_schema=structure.json_schema if structure else None,
            grammar=structure.grammar if structure else None,
            logprobs=options.logprobs,
            visible=self._visible,
        )

    def _take(self, event: Piece | PromptProgress) -> Iterable[Packet]:
        """The packets for an event of the engine. Runs for each token."""
        if isinstance(event, PromptProgress):
            return self._meter.progress(event)
        text = event.text
        is_first = not self._texts
        self._texts.append(text)
        self._meter.piece(event.tokens)
        if self._structure is not None and len(self._start) < START_LENGTH:
            self._start += text
            self._structure.check_start(self._start)
        made = self._fragments.feed(event)
        if self._budget is not None and self._fragments.is_thinking:
            self._has_thought = self._budget.think(event.tokens)
        return [*self._meter.prompt_done(), *made] if is_first else made

    def _last_packets(self, reason: str) -> list[Packet]:
        made: list[Packet] = []
        if reason not in ("userStopped", "modelUnloaded"):
            made += self._meter.prompt_done()
        return [*made, *self._fragments.end()]

    def _stop(self, outcome: Done | ContextOverflow) -> tuple[str, str | None] | None:
        """Why the prediction ends, and by which stop string; None when it goes on."""
        if isinstance(outcome, ContextOverflow):
            self._meter.overflowed(outcome.prompt_tokens)
            if self._options.overflow == "stopAtLimit":
                return "contextLengthReached", None
            return None
        self._meter.round_done(outcome)
        if outcome.reason == "context":
            limit = self._options.max_tokens
            if limit is not None and self._meter.predicted >= limit:
                return "maxPredictedTokensReached", None  # both at once
            if self._may_overrun(outcome):
                return None
        word = outcome.stop_word
        if outcome.reason == "word" and word is not None:
            return self._stop_by(word)
        if outcome.reason == "eos":
            return self._eos(), None
        return _STOP_REASONS[outcome.reason], None

    def _eos(self) -> str:
        """The reason of a model that ended by itself."""
        return "toolCalls" if self._calls and self._calls.count else "eosFound"

    def _stop_by(self, word: str) -> tuple[str, str | None]:
        options = self._options
        if word in options.stop_strings:
            return "stopStringFound", word
        if word in options.tool_call_stop_strings:
            return "toolCalls", None
        is_ours = self._tooling is not None and word in self._tooling.syntax.stops
        if self._is_fallback or is_ours:  # nobody asked for it: it ends the turn
            return self._eos(), None
        return "stopStringFound", word

    def _may_overrun(self, done: Done) -> bool:
        """Whether to go on past the end of the context."""
        # A grammar cannot go on in the middle, and a round without output never ends.
        if self._options.overflow == "stopAtLimit" or self._structure is not None:
            return False
        if self._prompt.images:  # they would all have to be looked at again
            return False
        if self._options.max_tokens is None and self._overruns >= MAX_OVERRUNS:
            return False
        return done.predicted_tokens > 0

    def _thought_limit(self) -> tuple[str, None] | None:
        """Why nothing comes after a thought that was ended; None when it goes on."""
        self._meter.interrupted()
        limit = self._options.max_tokens
        if limit is not None and self._meter.predicted >= limit:
            return "maxPredictedTokensReached", None
        return None

    def _end_thought(self) -> list[Packet]:
        """The packets of the end that the model did not write."""
        assert self._tags is not None
        self._has_thought = False
        end = closing(self._tags)
        self._texts.append(end)
        return self._fragments.feed(Piece(end, 0))

    async def _continued(self) -> EnginePrompt:
        """The prompt and the output so far, to go on from there."""
        self._was_cut = False
        parts = await self._prompt.parts()
        output = "".join(self._texts)
        return parts + output if isinstance(parts, str) else [*parts, output]

    async def _shorter(self, outcome: Done | ContextOverflow) -> EnginePrompt:
        """The prompt and the output so far, cut so that there is room again."""
        if self._prompt.images and isinstance(outcome, ContextOverflow):
            # Only the engine knows how many tokens an image has, and half of one is
            # none: whole messages go until it fits.
            if not await in_turn(self._prompt.drop_oldest):
                raise outcome
            return await self._continued()
        self._overruns += 1
        context = self._model.context_length
        if isinstance(outcome, ContextOverflow):
            if self._was_cut:  # and yet too long: the engine has no room at all
                raise outcome
            context = min(context, outcome.context_length)
        self._was_cut = isinstance(outcome, ContextOverflow)
        # All that is kept has to be read again, so output makes room for more of it.
        room = context // 4 if self._was_cut else context // 2
        output = "".join(self._texts)
        generated = await self._model.tokenize(output) if output else []
        if self._options.max_tokens is not None:
            room = min(room, self._options.max_tokens - self._meter.predicted)
        budget = max(1, context - room - 1)  # engines want one token to spare
        return await shorten(self._prompt, self._options.overflow, budget, generated)


async def format_prompt(
    model: LoadedModel,
    file: ModelFile,
    history: History,
    config: KVConfig,
    opts: TemplateOptions,
) -> str:
    """The text that a prediction on a history would begin with.

    Raises:
        GenerationError: Settings or messages are wrong, or the template refuses them.
    """
    options = read_options(config)
    if opts.tool_definitions is not None:
        check_tools(opts.tool_definitions, "toolDefinitions")
        options = attrs.evolve(options, tools=tuple(opts.tool_definitions))

    def formatted() -> str:
        tooling = _tooling(file, options)
        formatter = _formatter(
            file,
            options,
            tooling,
            omit_bos=bool(opts.omit_bos_token),
            omit_eos=bool(opts.omit_eos_token),
        )
        marks = _shown_marks(file, history)
        turns = turns_of(history, options.system_prompt, marks)
        return formatter.format(tooling.turns(turns))

    return await in_turn(formatted)  # a template may take seconds


def _shown_marks(file: ModelFile, history: History) -> dict[str, str]:
    """What stands for images in a prompt that is only looked at."""
    if not file.vision:
        return {}
    parts = (part for message in history.messages for part in message.content)
    return {
        part.identifier or "": IMAGE_TEXT for part in parts if part.file_type == "image"
    }


def _tags(file: ModelFile, options: Options) -> ReasoningTags | None:
    """Where the model's thoughts are; None when they are not told apart."""
    if options.reasoning is None or options.own_tags:
        return options.reasoning
    return tags_of(template_of(file, options.prompt_template))


def _tooling(file: ModelFile, options: Options) -> Tooling:
    template = template_of(file, options.prompt_template)
    return Tooling(options.tools, options.tool_naming, template)


def _formatter(
    file: ModelFile, options: Options, tooling: Tooling, **omit: bool
) -> Formatter:
    return Formatter(
        file,
        options.prompt_template,
        tools=tooling.for_template,
        enable_thinking=options.enable_thinking,
        **omit,
    )


def _visible(tags: ReasoningTags | None, tooling: Tooling | None) -> tuple[str, ...]:
    """Control tokens that have to be in the output, as they are looked for."""
    marks = tooling.syntax.marks if tooling is not None else ()
    return (*(attrs.astuple(tags) if tags else ()), *marks)


def _refuse_on_raw_text(options: Options) -> None:
    asked = "tools" if options.tools else None
    if options.reasoning_budget is not None:
        asked = "reasoning budget"
    if asked is not None:
        raise GenerationError(
            f"A completion of raw text takes no {asked}",
            suggestion="Leave it out, or send messages",
            code="invalidSetting",
        )


def _cancelled_by_others(task: asyncio.Task[Any] | None) -> bool:
    """Take our own cancellation of a task back; says whether another one stays.

    Only Python 3.11 and newer count; before, ours is taken for the only one.
    """
    uncancel: Callable[[], int] | None = getattr(task, "uncancel", None)
    return uncancel is not None and uncancel() > 0


async def _close(stream: AsyncIterator[Any]) -> None:
    aclose = getattr(stream, "aclose", None)
    if aclose is not None:
        await aclose()
