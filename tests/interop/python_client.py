"""What a user of the official Python SDK does, step by step.

Run by the interpreter of an environment that has the SDK and not this project:
``python_client.py MODE [HOST:PORT]``. Every step prints one line of JSON.
"""

from __future__ import annotations

import json
import logging
import select
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import lmstudio

ROW = {"type": "array", "items": {"type": "integer"}, "minItems": 400}
#: An answer of this form can't end before it is cancelled.
ENDLESS = {"type": "array", "items": ROW, "minItems": 400}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 1, "maximum": 99},
    },
    "required": ["name", "age"],
}
WRONG = {"type": "object", "properties": {"a": {"type": "no such type"}}}
GREEDY = {"temperature": 0, "max_tokens": 24}
#: Goes on in one likely way. The engine rounds by what else is in its cache, so
#: where two words are as likely as each other, the same prompt may go either way.
PROMPT = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,"


def say(step: str, **values: Any) -> None:
    """Print one line."""
    print(json.dumps({"step": step, **values}), flush=True)


def result_of(result: Any) -> dict[str, Any]:
    """What a prediction came to."""
    stats = result.stats
    return {
        "content": result.content,
        "stop": stats.stop_reason,
        "predicted": stats.predicted_tokens_count,
        "prompt": stats.prompt_tokens_count,
        "total": stats.total_tokens_count,
        "first": stats.time_to_first_token_sec,
        "model": result.model_info.model_key,
    }


def failure(action: Callable[[], Any]) -> dict[str, Any]:
    """How an action fails."""
    try:
        value = action()
    except Exception as exc:
        return {"type": type(exc).__name__, "text": str(exc)}
    return {"type": None, "text": repr(value)}


def loading(client: lmstudio.Client) -> Iterator[tuple[str, dict[str, Any]]]:
    """Models on disk and in memory."""
    models = client.system.list_downloaded_models()
    yield "downloaded", {"models": [[m.model_key, m.path, m.type] for m in models]}
    key = models[0].model_key
    yield (
        "downloaded llm",
        {"keys": [m.model_key for m in client.llm.list_downloaded()]},
    )
    progress: list[float] = []
    first = client.llm.load_new_instance(
        key,
        "first",
        ttl=600,
        config={"context_length": 1024, "seed": 7, "gpu": {"ratio": 0}},
        on_load_progress=progress.append,
    )
    yield "load", {"identifier": first.identifier, "progress": progress}
    yield "loaded", {"identifiers": [m.identifier for m in client.llm.list_loaded()]}
    yield "context length", {"tokens": first.get_context_length()}
    config = first.get_load_config()
    yield "load config", {"context_length": config.context_length, "seed": config.seed}
    info = first.get_info()
    yield (
        "info",
        {
            "identifier": info.identifier,
            "key": info.model_key,
            "format": info.format,
            "context": info.context_length,
            "max_context": info.max_context_length,
            "vision": info.vision,
        },
    )
    yield "get by identifier", {"identifier": client.llm.model("first").identifier}
    yield "get by key", {"identifier": client.llm.model(key).identifier}
    yield "get any", {"identifier": client.llm.model().identifier}


def predicting(client: lmstudio.Client) -> Iterator[tuple[str, dict[str, Any]]]:
    """Text, whole and in pieces."""
    model = client.llm.model()
    chat = lmstudio.Chat("You count.")
    chat.add_user_message("Count from 1 to 20.")
    yield "complete", result_of(model.complete(PROMPT, config=GREEDY))
    yield "respond", result_of(model.respond(chat, config=GREEDY))
    progress: list[float] = []
    tokens: list[bool] = []
    stream = model.respond_stream(
        chat,
        config=GREEDY,
        on_first_token=lambda: tokens.append(True),
        on_prompt_processing_progress=progress.append,
    )
    texts = [fragment.content for fragment in stream]
    values = result_of(stream.result())
    yield (
        "respond streamed",
        {
            **values,
            "texts": texts,
            "progress": progress,
            "first_tokens": len(tokens),
        },
    )
    stream = model.complete_stream(PROMPT, config=GREEDY)
    texts = [fragment.content for fragment in stream]
    yield "complete streamed", {**result_of(stream.result()), "texts": texts}
    yield "max tokens", result_of(model.complete(PROMPT, config={"max_tokens": 5}))
    text = model.complete(PROMPT, config=GREEDY).content
    stop = text[len(text) // 2 :][:4]
    values = result_of(
        model.complete(PROMPT, config={**GREEDY, "stop_strings": [stop]})
    )
    yield "stop string", {**values, "whole": text, "string": stop}
    result = model.respond("Describe a person.", response_format=PERSON)
    yield "structured", {**result_of(result), "parsed": result.parsed}


def together(client: lmstudio.Client) -> Iterator[tuple[str, dict[str, Any]]]:
    """Two predictions at once on one connection."""
    model = client.llm.model()
    with ThreadPoolExecutor(2) as pool:
        both = pool.map(lambda _: model.complete(PROMPT, config=GREEDY), range(2))
        yield "two at once", {"results": [result_of(result) for result in both]}


def cancelling(client: lmstudio.Client) -> Iterator[tuple[str, dict[str, Any]]]:
    """More predictions than a model has slots, each cancelled."""
    model = client.llm.model()
    results = []
    for _ in range(6):
        stream = model.respond_stream("Count.", response_format=ENDLESS)
        for number, _ in enumerate(stream):
            if number == 2:
                stream.cancel()
        results.append(stream.result())
    began = time.monotonic()
    after = model.complete(PROMPT, config={"max_tokens": 1})
    yield (
        "cancel",
        {
            "stops": [result.stats.stop_reason for result in results],
            "predicted": [result.stats.predicted_tokens_count for result in results],
            "next": after.stats.stop_reason,
            "seconds": time.monotonic() - began,
        },
    )


def tokens(client: lmstudio.Client) -> Iterator[tuple[str, dict[str, Any]]]:
    """Tokens and templates."""
    model = client.llm.model()
    text = "Hello, world! \u00e4\u4f60"
    yield (
        "tokenize",
        {
            "one": model.tokenize(text),
            "many": model.tokenize([text, "a"]),
            "count": model.count_tokens(text),
        },
    )
    chat = lmstudio.Chat("Be brief.")
    chat.add_user_message("Hi")
    yield "template", {"text": model.apply_prompt_template(chat)}


def failing(client: lmstudio.Client) -> Iterator[tuple[str, dict[str, Any]]]:
    """What goes wrong says so."""
    model, llm = client.llm.model(), client.llm
    key = llm.list_downloaded()[0].model_key
    nobody = lmstudio.sync_api.LLM("nobody", llm)
    yield "load unknown key", failure(lambda: llm.load_new_instance("no/such-model"))
    yield "get unknown key", failure(lambda: llm.model("no/such-model"))
    yield "unknown identifier", failure(lambda: nobody.complete("Hi"))
    yield "unknown identifier's info", failure(nobody.get_info)
    yield "unload unknown", failure(lambda: llm.unload("nobody"))
    yield "identifier clash", failure(lambda: llm.load_new_instance(key, "first"))
    yield "wrong schema", failure(lambda: model.respond("Hi", response_format=WRONG))
    yield "unknown preset", failure(lambda: model.respond("Hi", preset="none such"))


def unloading(client: lmstudio.Client) -> Iterator[tuple[str, dict[str, Any]]]:
    """Out of memory, and in again by its key."""
    client.llm.model("first").unload()
    yield "unload", {"identifiers": [m.identifier for m in client.llm.list_loaded()]}
    key = client.llm.list_downloaded()[0].model_key
    progress: list[float] = []
    model = client.llm.model(key, ttl=60, on_load_progress=progress.append)
    yield (
        "get and load",
        {
            "identifier": model.identifier,
            "key": key,
            "progress": progress,
        },
    )
    second = client.llm.load_new_instance(key)
    yield "load a second", {"identifier": second.identifier, "key": key}
    client.llm.unload(second.identifier)
    model.unload()
    yield (
        "unload all",
        {"identifiers": [m.identifier for m in client.llm.list_loaded()]},
    )


GROUPS = (loading, predicting, together, cancelling, tokens, failing, unloading)


def steps(client: lmstudio.Client) -> None:
    """Everything, in groups: a failure skips the rest of its group."""
    for group in GROUPS:
        try:
            for step, values in group(client):
                say(step, **values)
        except Exception as exc:
            say(f"{group.__name__} failed", type=type(exc).__name__, text=str(exc))


def stream(client: lmstudio.Client) -> None:
    """An endless answer, cancelled when a line comes on standard input."""
    prediction = client.llm.model().respond_stream("Count.", response_format=ENDLESS)
    for fragment in prediction:
        say("fragment", content=fragment.content)
        if select.select([sys.stdin], [], [], 0)[0]:
            prediction.cancel()
    say("result", **result_of(prediction.result()))


def embed(client: lmstudio.Client) -> None:
    """Texts as vectors, one by one and together."""
    kinds = [[m.model_key, m.type] for m in client.system.list_downloaded_models()]
    say(
        "downloaded",
        models=kinds,
        keys=[m.model_key for m in client.embedding.list_downloaded()],
    )
    model = client.embedding.model("all-minilm-l6-v2")
    texts = json.loads(sys.stdin.readline())
    say("alone", vectors=[model.embed(texts[0])])
    say("together", vectors=list(model.embed(texts)))
    say("tokens", count=model.count_tokens(texts[0]), ids=model.tokenize(texts[0]))
    info = model.get_info()
    say("info", key=info.model_key, type=info.type, context=model.get_context_length())
    model.unload()


def tools(client: lmstudio.Client) -> None:
    """A function that the model calls, by a preset that forces it."""
    calls, rounds, messages = [], [], []

    def add(a: int, b: int) -> int:
        """Add two whole numbers."""
        calls.append([a, b])
        return a + b

    model = client.llm.load_new_instance(client.llm.list_downloaded()[0].model_key)
    result = model.act(
        "What is 12 plus 30?",
        [add],
        preset="forced",
        max_prediction_rounds=2,
        on_prediction_completed=lambda done: rounds.append(done.stats.stop_reason),
        on_message=lambda message: messages.append(message.to_dict()),
    )
    say("act", calls=calls, rounds=result.rounds, stops=rounds, messages=messages)


def vision(client: lmstudio.Client) -> None:
    """Images in front of a model: their paths come on a line of stdin."""
    (downloaded,) = client.llm.list_downloaded()
    model = client.llm.model(downloaded.model_key)
    say("info", downloaded=downloaded.info.vision, loaded=model.get_info().vision)
    for path in json.loads(sys.stdin.readline()):
        chat = lmstudio.Chat()
        chat.add_user_message("What is it?", images=[client.prepare_image(path)])
        try:
            result = model.respond(chat, config={"temperature": 0, "maxTokens": 12})
        except lmstudio.LMStudioError as exc:
            say("refused", text=str(exc))
        else:
            prompt = result.stats.prompt_tokens_count
            say("answer", content=result.content, prompt=prompt)


def find(client: lmstudio.Client) -> None:
    """Models of the server that was found."""
    paths = [model.path for model in client.system.list_downloaded_models()]
    say("find", paths=paths)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    _, mode, *address = sys.argv
    with lmstudio.Client(*address) as official:
        modes = {"steps": steps, "stream": stream, "find": find, "embed": embed}
        (modes | {"tools": tools, "vision": vision})[mode](official)
    say("end")
