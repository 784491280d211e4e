"""Chat completions and text completions, streamed and whole."""

from __future__ import annotations

import asyncio
import copy
import functools
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from ...errors import shown
from ..instances import Instance
from ..service import Service
from . import options, shapes
from .answers import Answer, Call, Change, Packet, new_id
from .errors import wrong
from .exchange import Exchange
from .messages import messages_of
from .reading import body, read, refuse, text
from .running import Prompt, Run, Wanted, each, merged, nothing

#: Most prompts in one request.
MOST_PROMPTS = 256
#: What no answer here can have, and what to do instead.
_REFUSED_IN_CHAT = {
    "functions": "Use tools",
    "function_call": "Use tool_choice",
    "audio": "Ask for text",
    "web_search_options": "Give the model a tool of yours",
}
_REFUSED_IN_TEXT = {"suffix": "Put all into the prompt"}


@body(kw_only=True)
class _StreamOptions:
    include_usage: bool = False


@body(kw_only=True)
class _Asked:
    """What both kinds of completions have in common."""

    model: str
    stream: bool = False
    stream_options: _StreamOptions | None = None
    n: int = 1
    ttl: float | None = None


@body(kw_only=True)
class _Chat(_Asked):
    messages: Any
    modalities: list[str] | None = None
    response_format: Any = None
    tools: Any = None
    tool_choice: Any = None
    parallel_tool_calls: bool = True
    reasoning_effort: str | None = None
    logprobs: bool = False
    top_logprobs: int | None = None


@body(kw_only=True)
class _Text(_Asked):
    prompt: Any
    best_of: int = 1
    echo: bool = False
    logprobs: int | None = None


class Completions:
    """Answers requests for completions.

    Args:
        extended: Add what ``/api/v0`` has and OpenAI has not.
    """

    def __init__(self, service: Service, *, extended: bool = False) -> None:
        self._service = service
        self._extended = extended

    async def chat(self, exchange: Exchange, given: dict[str, Any]) -> None:
        """Answer messages."""
        asked = read(given, _Chat)
        _check(asked)
        refuse(given, _REFUSED_IN_CHAT)
        if asked.modalities not in (None, ["text"]):
            raise wrong("modalities", "['text']", shown(asked.modalities))
        messages = messages_of(asked.messages)
        made = merged(
            options.sampling(given),
            options.structured(asked.response_format),
            options.tools(asked.tools, asked.tool_choice),
            options.reasoning(asked.reasoning_effort),
        )
        if asked.top_logprobs is not None and not asked.logprobs:
            raise wrong("logprobs", "true where top_logprobs is given", "false")
        if asked.logprobs:
            made |= options.candidates(asked.top_logprobs)
        prompt = Prompt(
            messages=messages, options=made, one_call=not asked.parallel_tool_calls
        )
        form = _ChatForm(asked.top_logprobs or 0, asked.logprobs)
        await self._run(exchange, asked, [prompt], form)

    async def text(self, exchange: Exchange, given: dict[str, Any]) -> None:
        """Go on with a text."""
        asked = read(given, _Text)
        _check(asked)
        refuse(given, _REFUSED_IN_TEXT)
        if asked.best_of != 1:
            raise wrong("best_of", "1", shown(asked.best_of))
        if asked.echo:
            raise wrong("echo", "false", "true")
        # Thoughts are a part of the text that goes on.
        made = options.sampling(given) | {"reasoning_parsing": {"enabled": False}}
        if asked.logprobs is not None:
            made |= options.candidates(asked.logprobs, "logprobs")
        prompts = [Prompt(raw=one, options=made) for one in _prompts(asked.prompt)]
        await self._run(exchange, asked, prompts, _TextForm(asked.logprobs))

    async def _run(
        self, exchange: Exchange, asked: _Asked, prompts: Sequence[Prompt], form: _Form
    ) -> None:
        """Answer each prompt with a choice of its own."""
        run = Run(self._service, "llm")
        with run.open():
            instance = await run.obtain(Wanted(name=asked.model, ttl=asked.ttl))
            form.model = instance.identifier
            if not asked.stream:
                predict = functools.partial(run.predict, instance)
                works = [functools.partial(predict, one, nothing) for one in prompts]
                answers = await each(works)
                more = self._more(answers[-1], instance)
                await exchange.reply({**form.whole(answers), **more})
                return

            async def stream(index: int, prompt: Prompt) -> Answer:
                choice = form.at(index)

                async def send(change: Change) -> None:
                    async with turn:
                        await exchange.event(choice.chunk(change))

                answer = await run.predict(instance, prompt, send, alive)
                more = self._more(answer, instance)
                async with turn:
                    await exchange.event({**choice.last(answer), **more})
                return answer

            turn = asyncio.Lock()  # the first event is two messages
            alive = keeping_alive(exchange, turn)
            parts = [functools.partial(stream, *one) for one in enumerate(prompts)]
            answers = await each(parts)
            if asked.stream_options is not None and asked.stream_options.include_usage:
                await exchange.event(form.usage(answers))
            await exchange.event("[DONE]")
            await exchange.end()

    def _more(self, answer: Answer, instance: Instance) -> dict[str, Any]:
        if not self._extended:
            return {}
        engine = self._service.registry.engine.name
        return shapes.measured(answer, instance, engine)


def keeping_alive(exchange: Exchange, turn: asyncio.Lock | None = None) -> Any:
    """Says something while a long prompt is read.

    It does not begin the answer before the engine has taken the prompt: what fails
    until then is told by the status.

    Args:
        turn: Held by the one who sends, where several do.
    """
    held = turn or asyncio.Lock()

    async def progress(packet: Packet) -> None:
        if exchange.is_started or 0 < packet["progress"] < 1:
            async with held:
                await exchange.keep_alive()

    return progress


class _Form(ABC):
    """What chat and text completions have in common.

    Attributes:
        model: The identifier of the model.
        index: Which of the choices it is, from 0.
    """

    prefix = ""
    whole_object = ""
    chunk_object = ""

    def __init__(self) -> None:
        self.model = ""
        self.index = 0
        self._id = new_id(self.prefix)
        self._created = int(time.time())

    def at(self, index: int) -> _Form:
        """The form of another choice of the same completion; nothing is said yet."""
        made = copy.copy(self)
        made.index = index
        return made

    def whole(self, answers: Sequence[Answer]) -> dict[str, Any]:
        """All of it in one object, with a choice for each answer."""
        choices = [
            {
                "index": index,
                **self._content(answer),
                "finish_reason": answer.finish_reason,
            }
            for index, answer in enumerate(answers)
        ]
        made = self._object(self.whole_object, choices)
        return {**made, "usage": shapes.usage(answers)}

    def chunk(self, change: Change) -> dict[str, Any]:
        """What came in, as one event of a stream."""
        choice = {"index": self.index, **self._added(change), "finish_reason": None}
        return self._object(self.chunk_object, [choice])

    def last(self, answer: Answer) -> dict[str, Any]:
        """The event that says why it ended."""
        choice = {
            "index": self.index,
            **self._added(Change()),
            "finish_reason": answer.finish_reason,
        }
        return self._object(self.chunk_object, [choice])

    def usage(self, answers: Sequence[Answer]) -> dict[str, Any]:
        """The event with the usage alone."""
        made = self._object(self.chunk_object, [])
        return {**made, "usage": shapes.usage(answers)}

    def _object(self, name: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": name,
            "created": self._created,
            "model": self.model,
            "system_fingerprint": self.model,
            "choices": choices,
        }

    @abstractmethod
    def _content(self, answer: Answer) -> dict[str, Any]:
        """The fields of a choice with the whole answer."""

    @abstractmethod
    def _added(self, change: Change) -> dict[str, Any]:
        """The fields of a choice with a part of it."""


class _ChatForm(_Form):
    prefix, whole_object = "chatcmpl-", "chat.completion"
    chunk_object = "chat.completion.chunk"

    def __init__(self, candidates: int, is_reported: bool) -> None:
        super().__init__()
        self._candidates = candidates
        self._is_reported = is_reported
        self._calls = 0
        self._is_begun = False

    def _content(self, answer: Answer) -> dict[str, Any]:
        text = answer.text
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if answer.calls and not text else text,
            "refusal": None,
        }
        if answer.reasoning:
            message["reasoning_content"] = "".join(answer.reasoning)
        if answer.calls:
            message["tool_calls"] = [_call(call) for call in answer.calls]
        return {"message": message, "logprobs": self._logprobs(answer.logprobs)}

    def _added(self, change: Change) -> dict[str, Any]:
        delta: dict[str, Any] = {}
        if not self._is_begun:
            delta["role"] = "assistant"
            self._is_begun = True
        if change.text is not None:
            delta["content"] = change.text
        if change.reasoning is not None:
            delta["reasoning_content"] = change.reasoning
        if change.call is not None:
            delta["tool_calls"] = [{"index": self._calls, **_call(change.call)}]
            self._calls += 1
        reported = self._logprobs(change.logprobs) if change.logprobs else None
        return {"delta": delta, "logprobs": reported}

    def _logprobs(self, tokens: Any) -> dict[str, Any] | None:
        if not self._is_reported:
            return None
        return shapes.chat_logprobs(tokens, self._candidates)


class _TextForm(_Form):
    prefix, whole_object = "cmpl-", "text_completion"
    chunk_object = "text_completion"

    def __init__(self, candidates: int | None) -> None:
        super().__init__()
        self._candidates = candidates
        self._offset = 0

    def _content(self, answer: Answer) -> dict[str, Any]:
        return {"text": answer.text, "logprobs": self._logprobs(answer.logprobs)}

    def _added(self, change: Change) -> dict[str, Any]:
        text = change.text or ""
        reported = self._logprobs(change.logprobs) if change.logprobs else None
        self._offset += len(text)
        return {"text": text, "logprobs": reported}

    def _logprobs(self, tokens: Any) -> dict[str, Any] | None:
        if self._candidates is None:
            return None
        return shapes.text_logprobs(tokens, self._candidates, self._offset)


def _call(call: Call) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.text}
    return {"id": call.id, "type": "function", "function": function}


def _check(asked: _Asked) -> None:
    if asked.n != 1:
        raise wrong("n", "1: this server gives one answer", shown(asked.n))
    if asked.stream_options is not None and not asked.stream:
        raise wrong("stream_options", "left out where stream is false", "given")


def _prompts(value: Any) -> list[str]:
    """The prompts of a request.

    Raises:
        RestError: They are token ids, or something else.
    """
    if not isinstance(value, list):
        return [text(value, "prompt")]
    if not 1 <= len(value) <= MOST_PROMPTS:
        right = f"a text, or a list of 1 to {MOST_PROMPTS} texts"
        raise wrong("prompt", right, f"{len(value)} of them")
    for index, one in enumerate(value):
        if isinstance(one, (int, list)):
            right = "a text: this server takes no token ids"
            raise wrong(f"prompt[{index}]", right, shown(one))
    return [text(one, f"prompt[{index}]") for index, one in enumerate(value)]
