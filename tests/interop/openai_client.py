"""What a user of OpenAI's own client does, step by step.

Run by the interpreter of an environment that has the client and not this project:
``openai_client.py MODE HOST:PORT MODEL EMBEDDER``. Every step prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import openai
from pydantic import BaseModel, Field

#: Goes on in one likely way.
COUNTING = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,"
HELLO: Any = [{"role": "user", "content": "Say hello."}]
GREEDY: Any = {"temperature": 0, "max_tokens": 12}
#: An answer of this form can't end before it is cancelled.
ENDLESS = {
    "type": "array",
    "items": {"type": "array", "items": {"type": "integer"}, "minItems": 400},
    "minItems": 400,
}
ADD: Any = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers",
        "parameters": {
            "type": "object",
            "properties": {
                "a": {"type": "integer", "minimum": 0, "maximum": 9},
                "b": {"type": "integer", "minimum": 0, "maximum": 9},
            },
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
}
FLAT: Any = {"type": "function", "strict": False, **ADD["function"]}

Step = tuple[str, dict[str, Any]]


class Person(BaseModel):
    """Someone."""

    name: str = Field(max_length=12)
    age: int = Field(ge=1, le=99)


class User:
    """Everything that the client does.

    Args:
        base: The server's address for plain HTTP.
        model: The key of a text model.
        embedder: The key of an embedding model, empty without one.
    """

    def __init__(self, base: str, model: str, embedder: str) -> None:
        self.base = base
        self.model = model
        self.embedder = embedder
        self.client = openai.OpenAI(
            base_url=f"{base}/v1", api_key="none", max_retries=0, timeout=60
        )

    def steps(self) -> Iterator[Step]:
        """All steps, in order."""
        yield from self.models()
        yield from self.chats()
        yield from self.helpers()
        yield from self.texts()
        yield from self.structured()
        yield from self.tools()
        yield from self.responses()
        yield from self.errors()
        yield from self.embeddings()
        yield from self.older()

    def models(self) -> Iterator[Step]:
        """Lists of models."""
        listed = [model.id for model in self.client.models.list()]
        yield "models", {"ids": listed}
        yield "model", {"id": self.client.models.retrieve(self.model).id}

    def chats(self) -> Iterator[Step]:
        """Chat completions."""
        chat = self.client.chat.completions
        made = chat.create(model=self.model, messages=HELLO, **GREEDY)
        assert made.usage is not None
        yield (
            "chat",
            {
                "text": made.choices[0].message.content,
                "reason": made.choices[0].finish_reason,
                "usage": made.usage.to_dict(),
                "request": bool(made._request_id),
            },
        )
        streamed = chat.create(
            model=self.model,
            messages=HELLO,
            stream=True,
            stream_options={"include_usage": True},
            **GREEDY,
        )
        texts, reasons, usage = [], [], None
        for chunk in streamed:
            for choice in chunk.choices:
                texts.append(choice.delta.content or "")
                reasons.append(choice.finish_reason)
            usage = chunk.usage or usage
        assert usage is not None
        yield (
            "streamed chat",
            {
                "text": "".join(texts),
                "pieces": len([text for text in texts if text]),
                "reason": reasons[-1],
                "usage": usage.to_dict(),
            },
        )

    def helpers(self) -> Iterator[Step]:
        """More of chat completions."""
        chat = self.client.chat.completions
        made = chat.create(
            model=self.model,
            messages=HELLO,
            temperature=0,
            max_completion_tokens=1,
            logprobs=True,
            top_logprobs=3,
        )
        logprobs = made.choices[0].logprobs
        assert logprobs is not None and logprobs.content is not None
        (token,) = logprobs.content
        yield (
            "logprobs",
            {
                "token": token.token,
                "logprob": token.logprob,
                "top": [[one.token, one.logprob] for one in token.top_logprobs],
            },
        )
        # The helper raises where an answer is cut off.
        with chat.stream(
            model=self.model, messages=HELLO, stop="!", **GREEDY
        ) as stream:
            final = stream.get_final_completion()
        yield "stream helper", {"text": final.choices[0].message.content}

    def texts(self) -> Iterator[Step]:
        """Text completions."""
        asked: Any = {"model": self.model, "prompt": COUNTING, "stop": " 15", **GREEDY}
        made = self.client.completions.create(**asked)
        choice = made.choices[0]
        yield "text", {"text": choice.text, "reason": choice.finish_reason}
        chunks = list(self.client.completions.create(**asked, stream=True))
        yield (
            "streamed text",
            {
                "text": "".join(chunk.choices[0].text for chunk in chunks),
                "reason": chunks[-1].choices[0].finish_reason,
            },
        )

    def structured(self) -> Iterator[Step]:
        """Answers of a form."""
        asked: Any = {"role": "user", "content": "Who are you?"}
        made = self.client.chat.completions.parse(
            model=self.model, messages=[asked], response_format=Person, max_tokens=60
        )
        person = made.choices[0].message.parsed
        assert person is not None
        yield "parse", {"name": person.name, "age": person.age}
        parsed = self.client.responses.parse(
            model=self.model, input="Who are you?", text_format=Person
        )
        assert parsed.output_parsed is not None
        yield "parsed response", {"age": parsed.output_parsed.age}

    def tools(self) -> Iterator[Step]:
        """Calls of tools."""
        asked: Any = {
            "model": self.model,
            "messages": [{"role": "user", "content": "What is 2 + 3?"}],
            "tools": [ADD],
            "tool_choice": {"type": "function", "function": {"name": "add"}},
            "max_tokens": 100,
        }
        made = self.client.chat.completions.create(**asked)
        choice = made.choices[0]
        assert choice.message.tool_calls
        call: Any = choice.message.tool_calls[0]
        yield (
            "tool call",
            {
                "reason": choice.finish_reason,
                "name": call.function.name,
                "arguments": json.loads(call.function.arguments),
            },
        )
        with self.client.chat.completions.stream(**asked) as stream:
            final = stream.get_final_completion()
        assert final.choices[0].message.tool_calls
        streamed = final.choices[0].message.tool_calls[0]
        yield (
            "streamed tool call",
            {
                "name": streamed.function.name,
                "arguments": json.loads(streamed.function.arguments),
            },
        )
        messages: Any = [
            *asked["messages"],
            choice.message.to_dict(),
            {"role": "tool", "tool_call_id": call.id, "content": "5"},
        ]
        last: Any = {"tool_choice": "none", **GREEDY}
        made = self.client.chat.completions.create(
            model=self.model, messages=messages, tools=[ADD], **last
        )
        yield "after the call", {"text": made.choices[0].message.content}

    def responses(self) -> Iterator[Step]:
        """Responses."""
        asked: Any = {"model": self.model, "temperature": 0, "max_output_tokens": 12}
        first = self.client.responses.create(input="Say hello.", **asked)
        assert first.usage is not None
        yield (
            "response",
            {"text": first.output_text, "tokens": first.usage.output_tokens},
        )
        second = self.client.responses.create(
            input="And again.", previous_response_id=first.id, **asked
        )
        assert second.usage is not None
        yield (
            "continued response",
            {
                "text": second.output_text,
                "more": second.usage.input_tokens - first.usage.input_tokens,
            },
        )
        yield from self.streamed_response(asked)
        yield from self.kept(first)

    def streamed_response(self, asked: Any) -> Iterator[Step]:
        """A response as it grows."""
        events = list(
            self.client.responses.create(input="Say hello.", stream=True, **asked)
        )
        last: Any = events[-1]
        yield (
            "streamed response",
            {
                "kinds": [event.type for event in events],
                "deltas": "".join(
                    event.delta
                    for event in events
                    if event.type == "response.output_text.delta"
                ),
                "text": last.response.output_text,
            },
        )

    def kept(self, first: Any) -> Iterator[Step]:
        """More of responses.

        Args:
            first: One that the server keeps.
        """
        with self.client.responses.stream(
            model=self.model, input="Who are you?", text_format=Person
        ) as stream:
            parsed = stream.get_final_response().output_parsed
        assert parsed is not None
        yield "streamed parsed response", {"age": parsed.age}
        called: Any = self.client.responses.create(
            model=self.model,
            input="What is 2 + 3?",
            tools=[FLAT],
            tool_choice="required",
            store=False,
        )
        yield (
            "response with a call",
            {
                "calls": [
                    [item.name, sorted(json.loads(item.arguments))]
                    for item in called.output
                    if item.type == "function_call"
                ]
            },
        )
        yield (
            "not stored",
            failure(lambda: self.client.responses.retrieve(called.id)),
        )
        kept = self.client.responses.retrieve(first.id)
        self.client.responses.delete(first.id)
        gone = failure(lambda: self.client.responses.retrieve(first.id))
        yield "stored", {"text": kept.output_text, "gone": gone["code"]}

    def errors(self) -> Iterator[Step]:
        """What is wrong is told in OpenAI's words."""
        chat = self.client.chat.completions
        wrong: Any = [{"role": "user", "content": "x"}, {"role": "robot"}]
        image: Any = {"type": "image_url", "image_url": {"url": PIXEL}}
        seen: Any = [{"role": "user", "content": [image]}]
        yield (
            "unknown model",
            failure(lambda: chat.create(model="no-such-model", messages=HELLO)),
        )
        yield "role", failure(lambda: chat.create(model=self.model, messages=wrong))
        yield "image", failure(lambda: chat.create(model=self.model, messages=seen))
        yield (
            "temperature",
            failure(
                lambda: chat.create(model=self.model, messages=HELLO, temperature=-1)
            ),
        )
        yield (
            "embedding a chat",
            failure(lambda: self.client.embeddings.create(model=self.model, input="x")),
        )

    def cancel(self) -> None:
        """Close a stream in the middle, when standard input says so."""
        stream = self.client.chat.completions.create(
            model=self.model,
            messages=HELLO,
            stream=True,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "endless", "schema": ENDLESS},
            },
        )
        for _ in range(5):
            next(stream)
            say("fragment")
        sys.stdin.readline()
        stream.close()
        say("closed")

    def embeddings(self) -> Iterator[Step]:
        """Vectors."""
        if not self.embedder:
            return
        texts = ["The cat sleeps.", "A cat is sleeping.", "Prices rose again."]
        create = self.client.embeddings.create
        packed = create(model=self.embedder, input=texts)
        plain = create(model=self.embedder, input=texts, encoding_format="float")
        vectors = [item.embedding for item in packed.data]
        apart = [
            abs(a - b)
            for one, other in zip(packed.data, plain.data, strict=True)
            for a, b in zip(one.embedding, other.embedding, strict=True)
        ]
        yield (
            "embeddings",
            {
                "dimensions": len(vectors[0]),
                "alike": product(vectors[0], vectors[1]),
                "unlike": product(vectors[0], vectors[2]),
                "apart": max(apart),
                "tokens": packed.usage.prompt_tokens,
            },
        )
        yield (
            "dimensions",
            failure(lambda: create(model=self.embedder, input="x", dimensions=5)),
        )

    def older(self) -> Iterator[Step]:
        """The same client on LM Studio's older interface."""
        client = self.client.with_options(base_url=f"{self.base}/api/v0")
        made: Any = client.chat.completions.create(
            model=self.model, messages=HELLO, **GREEDY
        )
        yield (
            "v0",
            {
                "stop": made.stats["stop_reason"],
                "arch": made.model_info["arch"],
                "engine": made.runtime["name"],
            },
        )


#: A picture of one point.
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def product(one: list[float], other: list[float]) -> float:
    """How alike two vectors of length 1 are."""
    return sum(a * b for a, b in zip(one, other, strict=True))


def failure(action: Callable[[], Any]) -> dict[str, Any]:
    """How an action fails."""
    try:
        value = action()
    except openai.APIStatusError as exc:
        return {
            "type": type(exc).__name__,
            "status": exc.status_code,
            "code": exc.code,
            "param": exc.param,
            "request": bool(exc.request_id),
        }
    return {"type": None, "text": repr(value)}


def say(step: str, **values: Any) -> None:
    """Print one line."""
    print(json.dumps({"step": step, **values}), flush=True)


if __name__ == "__main__":
    _, mode, address, model, embedder = sys.argv
    user = User(f"http://{address}", model, embedder)
    if mode == "cancel":
        user.cancel()
    else:
        for name, values in user.steps():
            say(name, **values)
