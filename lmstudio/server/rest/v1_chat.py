"""LM Studio's own chat: one input, events for each thing that happens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import shown
from ...wire.common import KVStack
from ...wire.config import LOAD
from ...wire.llm import Message, Part
from ..service import Service
from . import options
from .answers import Answer, Change, Packet, new_id
from .errors import refusal, wrong
from .exchange import Exchange
from .loads import load_stack
from .messages import image_part
from .reading import body, choose, read, text
from .running import Prompt, Run, Wanted, merged
from .stored import Entry, Stored, said

_EFFORTS = ("off", "low", "medium", "high", "on")


@body(kw_only=True)
class _Asked:
    model: str
    input: Any
    system_prompt: str | None = None
    stream: bool = False
    store: bool = True
    previous_response_id: str | None = None
    reasoning: str | None = None
    integrations: list[Any] | None = None
    ttl: float | None = None


@body(kw_only=True)
class _Item:
    type: str
    content: Any = None
    data_url: Any = None


class Chats:
    """Answers requests to chat.

    Args:
        stored: Keeps the conversations.
    """

    def __init__(self, service: Service, stored: Stored) -> None:
        self._service = service
        self._stored = stored

    async def chat(self, exchange: Exchange, given: dict[str, Any]) -> None:
        """Answer one input."""
        asked = read(given, _Asked)
        if asked.integrations:
            right = "left out: this server runs no MCP servers and no plugins"
            raise wrong("integrations", right, shown(asked.integrations))
        made = options.sampling(given)
        if asked.reasoning is not None:
            effort = choose(asked.reasoning, _EFFORTS, "reasoning")
            made = merged(made, {"enable_thinking": effort != "off"})
        load = load_stack(LOAD, {"context_length": given.get("context_length")})
        messages = self._messages(asked)
        prompt = Prompt(messages=messages, options=made)
        telling = _Telling(exchange, asked.stream)
        try:
            answer = await self._run(asked, load, prompt, telling)
        except Exception as exc:
            if not exchange.is_started:
                raise
            # The end comes all the same, with whatever was generated.
            error = refusal(exc).body(is_native=True)
            await telling.tell("error", **error)
            await telling.end({**telling.result()})
            return
        result = {**telling.result(), "stats": telling.stats(answer)}
        if asked.store:
            name = new_id("resp_")
            result["response_id"] = name
            entry = Entry(messages=[*messages, said(answer)], body=result)
            self._stored.add(name, entry)
        await telling.end(result)

    def _messages(self, asked: _Asked) -> Sequence[Message]:
        messages: list[Message] = []
        if asked.previous_response_id is not None:
            before = self._stored.get(
                asked.previous_response_id, "previous_response_id"
            )
            messages += before.messages
        if asked.system_prompt is not None:
            messages = [one for one in messages if one.role != "system"]
            part = Part(type="text", text=asked.system_prompt)
            messages.insert(0, Message(role="system", content=[part]))
        messages.append(Message(role="user", content=_parts(asked.input)))
        return messages

    async def _run(
        self, asked: _Asked, load: KVStack, prompt: Prompt, telling: _Telling
    ) -> Answer:
        run = Run(self._service, "llm")
        with run.open():
            wanted = Wanted(name=asked.model, ttl=asked.ttl, load=load)
            instance = await run.obtain(wanted, telling.loading)
            await telling.loaded(instance.identifier, run.load_seconds)
            answer = await run.predict(
                instance, prompt, telling.change, telling.progress
            )
            await telling.close()
            return answer


class _Telling:
    """Tells a client what happens, if it wants to see that, and keeps the output."""

    def __init__(self, exchange: Exchange, is_streamed: bool) -> None:
        self._exchange = exchange
        self._is_streamed = is_streamed
        self._model = ""
        self._load_seconds: float | None = None
        self._output: list[dict[str, Any]] = []
        self._open: str | None = None  # "message" or "reasoning"
        self._texts: list[str] = []  # of what is open
        self._is_reading = False  # the prompt

    async def tell(self, name: str, **fields: Any) -> None:
        """Send one event."""
        if self._is_streamed:
            await self._exchange.event({"type": name, **fields}, name)

    async def loading(self, packet: Packet) -> None:
        """A packet of the load."""
        kind = packet["type"]
        if kind == "startLoading":
            self._model = packet["identifier"]
        elif kind == "alreadyLoaded":
            self._model = packet["info"]["identifier"]
        if kind in ("startLoading", "alreadyLoaded"):
            await self.tell("chat.start", model_instance_id=self._model)
        if kind == "startLoading":
            await self.tell("model_load.start", model_instance_id=self._model)
        elif kind == "loadProgress":
            await self.tell(
                "model_load.progress",
                model_instance_id=self._model,
                progress=packet["progress"],
            )

    async def loaded(self, identifier: str, seconds: float | None) -> None:
        """The model is there; it took so long if it had to be loaded."""
        self._model, self._load_seconds = identifier, seconds
        if seconds is not None:
            await self.tell(
                "model_load.end",
                model_instance_id=identifier,
                load_time_seconds=seconds,
            )

    async def progress(self, packet: Packet) -> None:
        """A packet about the prompt."""
        share = packet["progress"]
        if not self._is_reading:
            self._is_reading = True
            await self.tell("prompt_processing.start")
        await self.tell("prompt_processing.progress", progress=share)
        if share >= 1:
            await self._prompt_done()

    async def change(self, change: Change) -> None:
        """Something was generated."""
        await self._prompt_done()
        if change.call is not None:
            # Nobody gave the model tools here; what looks like a call is told.
            await self._enter("message")
            await self._add(change.call.text)
        elif change.reasoning:
            await self._enter("reasoning")
            await self._add(change.reasoning)
        elif change.text:
            await self._enter("message")
            await self._add(change.text)

    async def close(self) -> None:
        """End what is open."""
        await self._prompt_done()
        if self._open is not None:
            self._keep()
            await self.tell(f"{self._open}.end")
            self._open = None

    def result(self) -> dict[str, Any]:
        """What there is so far."""
        self._keep()
        return {"model_instance_id": self._model, "output": self._output}

    def stats(self, answer: Answer) -> dict[str, Any]:
        """What was measured."""
        made = {
            "input_tokens": answer.prompt_tokens,
            "total_output_tokens": answer.completion_tokens,
            "reasoning_output_tokens": answer.reasoning_tokens,
            "tokens_per_second": answer.stats.get("tokensPerSecond"),
            "time_to_first_token_seconds": answer.stats.get("timeToFirstTokenSec"),
        }
        if self._load_seconds is not None:
            made["model_load_time_seconds"] = self._load_seconds
        return made

    async def end(self, result: dict[str, Any]) -> None:
        """Send the whole."""
        if not self._is_streamed:
            await self._exchange.reply(result)
            return
        await self.tell("chat.end", result=result)
        await self._exchange.end()

    async def _prompt_done(self) -> None:
        if self._is_reading:
            self._is_reading = False
            await self.tell("prompt_processing.end")

    async def _enter(self, kind: str) -> None:
        if self._open == kind:
            return
        await self.close()
        self._open = kind
        self._output.append({"type": kind, "content": ""})
        await self.tell(f"{kind}.start")

    def _keep(self) -> None:
        """Put what came into the output."""
        if self._texts:
            self._output[-1]["content"] += "".join(self._texts)
            self._texts = []

    async def _add(self, content: str) -> None:
        self._texts.append(content)
        await self.tell(f"{self._open}.delta", content=content)


def _parts(value: Any) -> list[Part]:
    """The parts of an input: a text, or a list of texts and images."""
    if isinstance(value, str):
        return [Part(type="text", text=text(value, "input"))]
    if not isinstance(value, list) or not value:
        raise wrong("input", "a string, or a list of at least one item", shown(value))
    made = []
    for number, one in enumerate(value):
        at = f"input[{number}]"
        item = read(one, _Item, at)
        kind = choose(item.type, ("text", "message", "image"), f"{at}.type")
        if kind == "image":
            made.append(image_part(item.data_url, f"{at}.data_url"))
        else:
            made.append(Part(type="text", text=text(item.content, f"{at}.content")))
    return made
