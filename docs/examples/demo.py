"""Fetch a small model, start a server, and talk to the model: all on this machine.

It needs the package with its extra [server] and nothing else. `make demo` runs it.
"""

import contextlib
import itertools
import json
import time

from rich.progress import Progress

from lmstudio import LMStudioClient, paths
from lmstudio.server import serve, starters

MODEL = "smollm2-135m-instruct"
DRAGON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "color": {"enum": ["red", "green", "gold"]},
        "age": {"type": "integer", "minimum": 1, "maximum": 5000},
    },
    "required": ["name", "color", "age"],
    "additionalProperties": False,
}


def main():
    print(f"== Fetching the model {MODEL} into {paths.models()}, unless it is there")
    with progress_bar() as show:
        starters.fetch(MODEL, paths.models(), lambda done, total: show(done / total))
        show(1.0)

    print("== Starting a server on a free port")
    # `lms server start` in a shell makes one that outlives this program; then
    # LMStudioClient() finds it without an address.
    with serve(port=0) as server, LMStudioClient(server.url) as client:
        print(f"It answers at {server.url}")
        talk(client)
        print("\n== Stopping the server")
    print("Done.")


def talk(client):
    print("\n== Loading the model")
    with progress_bar() as show:
        model = client.llm.load(
            MODEL, config={"context_length": 2048}, on_progress=show
        )
    print(f"It is loaded as {model.identifier!r}")

    prompt = "The capital of France is"
    print(f"\n== Completing a text: {prompt!r}")
    prediction = model.complete(prompt, max_tokens=30, temperature=0)
    print(prompt, end="")
    for text in prediction:
        print(text, end="", flush=True)
    print_stats(prediction.stats)

    chat = [
        {"role": "system", "content": "You are a friendly teacher."},
        {"role": "user", "content": "Why is the sky blue? Answer in two sentences."},
    ]
    print(f"\n== Asking a question: {chat[-1]['content']!r}")
    prediction = model.respond(chat, max_tokens=120)
    for text in prediction:
        print(text, end="", flush=True)
    print_stats(prediction.stats)

    print("\n== Asking for JSON that obeys a schema")
    prediction = model.respond("Invent a dragon.", structured=DRAGON)
    print(json.dumps(prediction.parsed, indent=2))

    print("\n== Asking for a long story, and cancelling it after 20 fragments")
    prediction = model.respond("Write a very long story about that dragon.")
    for text in itertools.islice(prediction, 20):
        print(text, end="", flush=True)
    begin = time.monotonic()
    prediction.cancel()
    print_stats(prediction.stats)
    print(f"It was over {(time.monotonic() - begin) * 1000:.0f} ms after cancel()")


def print_stats(stats):
    first = stats.time_to_first_token_sec * 1000
    speed = f"{stats.tokens_per_second:.0f} tokens/s, the first after {first:.0f} ms"
    print(f"\n[{stats.predicted_tokens_count} tokens, {speed}; {stats.stop_reason}]")


@contextlib.contextmanager
def progress_bar():
    """Show a bar; the function that this yields takes the share done, 0 to 1."""
    with Progress() as bars:
        task = bars.add_task("", total=1.0)
        yield lambda share: bars.update(task, completed=share)


if __name__ == "__main__":
    main()
