"""OpenAI's responses: answers that are kept, and can be gone on from."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

from ...errors import shown
from ...wire.llm import Message, Part
from ..service import Service
from . import options
from .answers import Answer, Change, new_id
from .completions import keeping_alive
from .errors import wrong
from .exchange import Exchange
from .reading import body, choose, read, refuse
from .response_input import input_of
from .response_items import Items
from .running import Prompt, Run, Wanted, merged
from .stored import Entry, Stored, said

_REFUSED = {
    "conversation": "Use previous_response_id, or send all messages",
    "prompt": "Send the instructions themselves",
}
#: What `truncation` is here. Source: docs/wire/rest.md, "Responses".
_TRUNCATION = {"auto": "truncateMiddle", "disabled": "stopAtLimit"}
_LOGPROBS = "message.output_text.logprobs"


@body(kw_only=True)
class _Text:
    format: Any = None


@body(kw_only=True)
class _Reasoning:
    effort: str | None = None


@body(kw_only=True)
class _Asked:
    model: str
    input: Any
    instructions: str | None = None
    stream: bool = False
    store: bool = True
    background: bool = False
    previous_response_id: str | None = None
    text: _Text | None = None
    reasoning: _Reasoning | None = None
    tools: Any = None
    tool_choice: Any = None
    parallel_tool_calls: bool = True
    truncation: str | None = None
    include: list[str] | None = None
    top_logprobs: int | None = None
    metadata: dict[str, Any] | None = None
    ttl: float | None = None


class Responses:
    """Answers requests for responses.

    Args:
        stored: Keeps them.
    """

    def __init__(self, service: Service, stored: Stored) -> None:
        self._service = service
        self._stored = stored

    async def create(self, exchange: Exchange, given: dict[str, Any]) -> None:
        """Make a response."""
        asked = read(given, _Asked)
        refuse(given, _REFUSED)
        if asked.background:
            raise wrong("background", "false", "true")
        made = _options(asked, given)
        messages = input_of(asked.input)
        if asked.previous_response_id is not None:
            before = self._stored.get(
                asked.previous_response_id, "previous_response_id"
            )
            messages = [*before.messages, *messages]
        first: Sequence[Message] = ()
        if asked.instructions is not None:
            part = Part(type="text", text=asked.instructions)
            first = [Message(role="system", content=[part])]
        prompt = Prompt(
            messages=[*first, *messages],
            options=made,
            one_call=not asked.parallel_tool_calls,
        )
        count = made.get("log_probs")
        making = _Making(
            asked, given, None if count is None else asked.top_logprobs or 0
        )
        answer = await self._run(exchange, asked, prompt, making)
        await making.close(exchange, answer)
        if asked.store:
            entry = Entry(messages=[*messages, said(answer)], body=making.body(answer))
            self._stored.add(making.id, entry)
        await making.send_end(exchange, answer)

    async def get(self, exchange: Exchange, _: dict[str, Any]) -> None:
        """A response that was kept."""
        await exchange.reply(self._stored.get(exchange.params["id"]).body)

    async def delete(self, exchange: Exchange, _: dict[str, Any]) -> None:
        """Forget a response."""
        name = exchange.params["id"]
        self._stored.delete(name)
        await exchange.reply({"id": name, "object": "response", "deleted": True})

    async def _run(
        self, exchange: Exchange, asked: _Asked, prompt: Prompt, making: _Making
    ) -> Answer:
        run = Run(self._service, "llm")
        with run.open():
            instance = await run.obtain(Wanted(name=asked.model, ttl=asked.ttl))
            making.model = instance.identifier

            async def on_change(change: Change) -> None:
                await making.take(exchange, change)

            alive = keeping_alive(exchange)
            if not asked.stream:
                return await run.predict(instance, prompt, on_change)
            return await run.predict(instance, prompt, on_change, alive)


class _Making:
    """One response as it is made.

    Args:
        candidates: As of `Items`.

    Attributes:
        id: Names it.
        model: The identifier of the model.
    """

    def __init__(
        self, asked: _Asked, given: dict[str, Any], candidates: int | None
    ) -> None:
        self.id = new_id("resp_")
        self.model = asked.model
        self._asked = asked
        self._given = given
        self._items = Items(candidates)
        self._created = time.time()
        self._numbers = itertools.count()
        self._is_begun = False

    async def take(self, exchange: Exchange, change: Change) -> None:
        """Take what came in, and tell a client who wants to see it grow."""
        for event in self._items.take(change):
            if self._asked.stream:
                await self._begin(exchange)
                await self._send(exchange, event)

    async def close(self, exchange: Exchange, answer: Answer) -> None:
        """There is no more to take."""
        for event in self._items.close(_status(answer)):
            if self._asked.stream:
                await self._send(exchange, event)
        if self._asked.stream:
            await self._begin(exchange)  # also where there was nothing at all

    async def send_end(self, exchange: Exchange, answer: Answer) -> None:
        """Send the whole response."""
        if not self._asked.stream:
            await exchange.reply(self.body(answer))
            return
        name = f"response.{_status(answer)}"
        last = {"type": name, "response": self.body(answer)}
        await self._send(exchange, last)
        await exchange.end()

    def body(self, answer: Answer | None) -> dict[str, Any]:
        """The response as an object; without an answer as it begins."""
        asked, given = self._asked, self._given
        status = "in_progress" if answer is None else _status(answer)
        reason = {"reason": "max_output_tokens"} if status == "incomplete" else None
        reasoning = asked.reasoning or _Reasoning()
        form = asked.text.format if asked.text is not None else None
        made = {
            "id": self.id,
            "object": "response",
            "created_at": int(self._created),
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": reason,
            "instructions": asked.instructions,
            "max_output_tokens": given.get("max_output_tokens"),
            "metadata": asked.metadata or {},
            "model": self.model,
            "output": [],
            "parallel_tool_calls": asked.parallel_tool_calls,
            "previous_response_id": asked.previous_response_id,
            "reasoning": {"effort": reasoning.effort, "summary": None},
            "store": asked.store,
            "temperature": given.get("temperature"),
            "text": {"format": form or {"type": "text"}},
            "tool_choice": asked.tool_choice or "auto",
            "tools": asked.tools or [],
            "top_p": given.get("top_p"),
            "truncation": asked.truncation or "auto",
            "usage": None,
        }
        if answer is not None:
            made |= {"output": self._items.output, "usage": _usage(answer)}
        return made

    async def _begin(self, exchange: Exchange) -> None:
        if not self._is_begun:
            self._is_begun = True
            for name in ("response.created", "response.in_progress"):
                event = {"type": name, "response": self.body(None)}
                await self._send(exchange, event)

    async def _send(self, exchange: Exchange, event: dict[str, Any]) -> None:
        numbered = {**event, "sequence_number": next(self._numbers)}
        await exchange.event(numbered, event["type"])


def _options(asked: _Asked, given: dict[str, Any]) -> options.Options:
    """Our options for a request."""
    made = merged(
        options.sampling(given),
        options.structured(asked.text.format if asked.text else None, "text.format"),
        options.tools(asked.tools, asked.tool_choice, flat=True),
        options.reasoning(
            asked.reasoning.effort if asked.reasoning else None, "reasoning.effort"
        ),
    )
    if asked.truncation is not None:
        chosen = choose(asked.truncation, tuple(_TRUNCATION), "truncation")
        made["context_overflow_policy"] = _TRUNCATION[chosen]
    if asked.top_logprobs or _LOGPROBS in (asked.include or ()):
        made |= options.candidates(asked.top_logprobs)
    if len(asked.metadata or {}) > 16:
        raise wrong("metadata", "an object of at most 16 fields", shown(asked.metadata))
    return made


def _status(answer: Answer) -> str:
    return "incomplete" if answer.finish_reason == "length" else "completed"


def _usage(answer: Answer) -> dict[str, Any]:
    read_tokens, made = answer.prompt_tokens, answer.completion_tokens
    return {
        "input_tokens": read_tokens,
        "input_tokens_details": {"cached_tokens": answer.cached_tokens},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": answer.reasoning_tokens},
        "total_tokens": read_tokens + made,
    }
