"""Calls that the official Python SDK's own tests make, one line of JSON each.

Run by the interpreter of an environment that has the SDK and not this project:
``suite_client.py HOST:PORT``.
"""

from __future__ import annotations

import base64
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import lmstudio

from_publisher, key = "acme-quants/some-1b-instruct", "some-1b-instruct"
embedder = "text-embedding-all-minilm-l6-v2"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJ"
    "RU5ErkJggg=="
)


def say(step: str, **values: Any) -> None:
    """Print one line."""
    print(json.dumps({"step": step, **values}), flush=True)


def run(client: lmstudio.Client) -> None:
    """Make all calls."""
    loaded = client.llm.load_new_instance(key, ttl=None)
    say(
        "names",
        loaded=loaded.identifier,
        found=client.llm.model(from_publisher).identifier,
        info=client.llm.get_model_info(from_publisher).identifier,
        embedder=client.embedding.model("acme/all-minilm-l6-v2").identifier,
    )
    try:
        client.llm.load_new_instance(from_publisher, key)
    except lmstudio.LMStudioServerError as exc:
        say("taken", error=str(exc).partition(": ")[2])
    another = client.llm.load_new_instance(from_publisher)
    say("another", identifier=another.identifier)
    another.unload()
    images = [client.files.prepare_image(PNG, "dot.png") for _ in range(2)]
    say("images", identifiers=[image.identifier for image in images])
    chat = lmstudio.Chat("Be brief.")
    chat.add_user_message("Read this.")
    chat.add_user_message(
        lmstudio.FileHandle(
            name="notes.txt", identifier="x", size_bytes=9, file_type="text/plain"
        )
    )
    say("template", formatted=loaded.apply_prompt_template(chat))
    say("evicted", **evicted(client))
    greedy = {"temperature": 0, "maxTokens": 8}
    with ThreadPoolExecutor(5) as pool:
        results = list(
            pool.map(lambda _: loaded.respond("Hello", config=greedy), range(5))
        )
    say("together", predicted=[r.stats.predicted_tokens_count for r in results])
    say("cancelled", stops=[cancelled(loaded) for _ in range(2)])


def evicted(client: lmstudio.Client) -> dict[str, list[str]]:
    """Load one model on demand after another; what was and is loaded on demand."""
    client.embedding.model(embedder, ttl=300)
    before = [model.identifier for model in client.embedding.list_loaded()]
    client.llm.model("some-2b-instruct", ttl=300)
    after = [model.identifier for model in client.embedding.list_loaded()]
    texts = [model.identifier for model in client.llm.list_loaded()]
    return {"before": before, "after": after, "texts": sorted(texts)}


def cancelled(model: lmstudio.LLM) -> str:
    """Cancel an answer that can't end by itself at its first fragment."""
    endless = {"type": "array", "items": {"type": "integer"}, "minItems": 1000}
    stream = model.complete_stream("Numbers:", response_format=endless)
    for _ in stream:
        stream.cancel()
    assert stream.stats is not None
    return str(stream.stats.stop_reason)


with lmstudio.Client(sys.argv[1]) as connected:
    run(connected)
say("end")
