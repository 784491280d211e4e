"""The llama.cpp engine with a real model: LMSTUDIO_TEST_MODEL names the file."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time

import jsonschema
import pytest

from lmstudio.server.engine import (
    BadRequest,
    ContextOverflow,
    Done,
    LoadFailed,
    LoadSettings,
    ModelCrashed,
    Piece,
    PromptProgress,
    Request,
    Sampling,
    Unloaded,
)
from lmstudio.server.engines.http import HTTPClient, Refused
from lmstudio.server.engines.llama_cpp import LlamaCppEngine
from server.engines.helpers import ignore, loaded, model

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(sys.platform == "win32", reason="signals"),
]

SMALL = LoadSettings(context_length=256, parallel=2)
GREEDY = Sampling(temperature=0.0)
PROMPT = "Once upon a time there was a"
FILM = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 40},
        "year": {"type": "integer", "minimum": 1900, "maximum": 2030},
        "genre": {"enum": ["drama", "comedy", "action"]},
        "actors": {
            "type": "array",
            "items": {"type": "string", "maxLength": 20},
            "maxItems": 3,
            "uniqueItems": True,
        },
    },
    "required": ["title", "year", "genre", "actors"],
    "additionalProperties": False,
}


async def collect(one, prompt=PROMPT, **fields):
    return [e async for e in one.predict(Request(prompt=prompt, **fields))]


def text_of(events):
    return "".join(event.text for event in events if isinstance(event, Piece))


def tokens_of(events):
    return sum(event.tokens for event in events if isinstance(event, Piece))


async def wait_until_idle(one, seconds):
    """Ask which slots are at work until none is; how long it took, in seconds."""
    begun = time.monotonic()
    while True:
        slots = await one._http.call("/slots")
        taken = time.monotonic() - begun
        if not any(slot["is_processing"] for slot in slots):
            return taken
        assert taken < seconds, "the slot is still at work"
        await asyncio.sleep(0.01)


def run_loaded(model_file, use, settings=SMALL, **fields):
    """Run something with the loaded model, and make sure that its process is gone."""

    async def run():
        async with loaded(LlamaCppEngine(), model_file, settings, **fields) as one:
            pid = one.pid
            result = await use(one)
        return pid, result

    pid, result = asyncio.run(run())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    return result


def test_load_and_unload(model_file):
    """A load reports real progress, and unloading takes less than two seconds."""

    async def run():
        seen = []
        engine = LlamaCppEngine()
        one = await engine.load(model(model_file), SMALL, seen.append)
        tokens = await one.tokenize("Hello world")
        begun = time.monotonic()
        await one.unload()
        seconds = time.monotonic() - begun
        await engine.close()
        return seen, one, tokens, seconds

    seen, one, tokens, seconds = asyncio.run(run())

    assert (0.0, 0.05, 1.0) == (seen[0], seen[1], seen[-1])
    assert sorted(set(seen)) == seen
    assert 5 == len({0.0, 0.05, 0.8, 0.95, 1.0} & {round(value, 6) for value in seen})
    assert 256 == one.context_length
    assert 0 == one.gpu_layers
    assert tokens
    assert seconds < 2


def test_a_stream_counts_its_tokens(model_file):
    """Pieces add up to the tokens that were asked for, and arrive one by one."""

    async def use(one):
        return await collect(one, max_tokens=40, sampling=GREEDY)

    events = run_loaded(model_file, use)
    done = events[-1]

    assert isinstance(events[0], PromptProgress)
    assert isinstance(done, Done)
    assert ("limit", 40) == (done.reason, done.predicted_tokens)
    assert 40 == tokens_of(events)
    assert 40 >= sum(isinstance(event, Piece) for event in events) > 30
    progress = [event for event in events if isinstance(event, PromptProgress)]
    assert done.prompt_tokens == progress[-1].total == progress[-1].processed
    assert done.tokens_per_second and done.tokens_per_second > 1


def test_tokens_of_emoji_are_counted(model_file):
    """Characters of several tokens come whole, and count as what they are."""

    async def use(one):
        whole = await collect(one, grammar='root ::= "a\N{GRINNING FACE}日b"')
        cut = await collect(
            one, grammar='root ::= "a\N{GRINNING FACE}日b"', max_tokens=2
        )
        return whole, cut

    whole, cut = run_loaded(model_file, use)

    assert "a\N{GRINNING FACE}日b" == text_of(whole)
    # The last token ends the text and has none itself.
    assert whole[-1].predicted_tokens - 1 == tokens_of(whole)
    assert "a" == text_of(cut)
    assert ("limit", 2) == (cut[-1].reason, cut[-1].predicted_tokens)


def test_reasons_to_stop(model_file):
    """Each way to stop is told exactly."""

    async def use(one):
        word = await collect(
            one, "1 2 3 4 5 6", stop=["", " 9"], max_tokens=20, sampling=GREEDY
        )
        full = await collect(one, grammar='root ::= "x" root')
        with pytest.raises(ContextOverflow) as caught:
            await collect(one, "a b " * 200)
        return word, full, caught.value

    word, full, overflow = run_loaded(model_file, use)

    assert ("word", " 9") == (word[-1].reason, word[-1].stop_word)
    assert " 7 8" == text_of(word)
    assert "context" == full[-1].reason
    assert 256 == full[-1].prompt_tokens + full[-1].predicted_tokens
    assert 256 == overflow.context_length
    assert overflow.prompt_tokens > 256


def test_predictions_that_fill_the_context_together(model_file):
    """Predictions share the context; when it is full they end, and others can run."""

    async def use(one):
        endless = {"grammar": 'root ::= "x" root'}
        both = await asyncio.gather(*(collect(one, **endless) for _ in range(2)))
        return both, await collect(one, max_tokens=3)

    both, after = run_loaded(model_file, use)

    assert ["context", "context"] == [events[-1].reason for events in both]
    for events in both:
        assert events[-1].predicted_tokens == tokens_of(events) > 50
    assert "limit" == after[-1].reason


def test_refused_requests(model_file):
    """A grammar that can't be read is refused, with llama.cpp's reason."""

    async def use(one):
        with pytest.raises(BadRequest, match="failed to parse grammar"):
            await collect(one, grammar="root ::= (")
        with pytest.raises(BadRequest, match="embeddings"):
            await one.embed("text")
        with pytest.raises(Refused) as caught:
            await HTTPClient(one._http._port, "another key").call("/props")
        return caught.value

    assert 401 == run_loaded(model_file, use).status


def test_json_that_obeys_a_schema(model_file):
    """Ten of ten answers are valid, whatever the model is inclined to say."""

    async def use(one):
        texts = []
        for seed in range(10):
            sampling = Sampling(temperature=1.0, seed=seed)
            events = await collect(
                one, json_schema=FILM, sampling=sampling, max_tokens=250
            )
            texts.append((events[-1].reason, text_of(events)))
        return texts

    for reason, text in run_loaded(model_file, use):
        assert "eos" == reason, text
        value = json.loads(text)
        # The grammar does not know uniqueItems, and goes on without it.
        value["actors"] = list(dict.fromkeys(value["actors"]))
        jsonschema.validate(value, FILM)


def test_any_json_is_an_object(model_file):
    """Without a schema the output is an object all the same."""
    prompt = "<|im_start|>user\nYour name as JSON<|im_end|>\n<|im_start|>assistant\n"

    async def use(one):
        return await collect(
            one, prompt, json_schema={}, sampling=GREEDY, max_tokens=300
        )

    events = run_loaded(model_file, use)

    assert text_of(events).startswith("{")
    if events[-1].reason == "eos":
        assert isinstance(json.loads(text_of(events)), dict)


def test_the_same_seed_gives_the_same_text(model_file):
    """A seed repeats a text, and another seed gives another one."""

    async def use(one):
        return [
            text_of(
                await collect(
                    one, max_tokens=20, sampling=Sampling(temperature=1.0, seed=seed)
                )
            )
            for seed in (1, 2, 1)
        ]

    first, other, again = run_loaded(model_file, use)

    assert first == again
    assert first != other


def test_logprobs_come_with_each_token(model_file):
    """Each token has its logarithm of probability, and candidates as asked."""

    async def use(one):
        return await collect(one, max_tokens=5, sampling=GREEDY, logprobs=2)

    pieces = [e for e in run_loaded(model_file, use) if isinstance(e, Piece)]

    for piece in pieces:
        assert piece.logprobs is not None
        assert piece.text == piece.logprobs[-1]["text"]
        assert piece.logprobs[-1]["logProb"] <= 0
        assert 2 == len(piece.logprobs[-1]["candidates"])


ONE_SLOT = LoadSettings(context_length=4096, parallel=1)


async def cancel_next(events):
    """Wait for the next event, and cancel that wait."""
    task = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_cancelling_frees_the_slot(model_file):
    """A text that nobody listens to is no longer generated after a second."""

    async def use(one):
        events = one.predict(Request(prompt=PROMPT, grammar='root ::= "x" root'))
        while not isinstance(await anext(events), Piece):
            pass
        await cancel_next(events)
        await wait_until_idle(one, 1.0)

    run_loaded(model_file, use, ONE_SLOT)


def test_cancelling_in_the_prompt_waits_for_one_batch(model_file):
    """A prompt is given up after its current batch, long before its end."""

    async def use(one):
        events = one.predict(Request(prompt="word " * 3000))
        while (await anext(events)).processed == 0:
            pass
        begun = time.monotonic()
        await anext(events)
        batch = time.monotonic() - begun
        await cancel_next(events)
        # 22 batches are left, and the machine may be busy with other things.
        await wait_until_idle(one, 0.2 + 5 * batch)

    run_loaded(model_file, use, ONE_SLOT)


def test_more_predictions_than_slots(model_file):
    """Those beyond the slots wait their turn, and don't block short calls."""

    async def use(one):
        running = [asyncio.create_task(collect(one, max_tokens=8)) for _ in range(24)]
        tokens = await asyncio.wait_for(one.tokenize("Hello"), 5)
        unfinished = sum(not task.done() for task in running)
        return tokens, unfinished, await asyncio.gather(*running)

    tokens, unfinished, results = run_loaded(
        model_file, use, LoadSettings(context_length=2048, parallel=1)
    )

    assert tokens
    assert unfinished > 0
    assert [8] * 24 == [events[-1].predicted_tokens for events in results]


def test_a_killed_child(model_file):
    """A process killed in mid-stream is a crash that names the signal."""

    async def use(one):
        gone = asyncio.Event()
        one.on_exit(gone.set)
        with pytest.raises(ModelCrashed) as caught:
            async for event in one.predict(Request(prompt=PROMPT)):
                if isinstance(event, Piece):
                    os.kill(one.pid, signal.SIGKILL)
        await asyncio.wait_for(gone.wait(), 2)
        return caught.value

    assert "SIGKILL" in run_loaded(model_file, use).title


def test_unloading_in_mid_stream(model_file):
    """A prediction whose model is unloaded says so, and the process is gone."""

    async def use(one):
        with pytest.raises(Unloaded):
            async for event in one.predict(Request(prompt=PROMPT)):
                if isinstance(event, Piece):
                    await one.unload()

    run_loaded(model_file, use)


def test_cancelling_a_load(model_file):
    """A load that is cancelled at its first progress leaves nothing behind."""

    async def run():
        engine = LlamaCppEngine()
        begun = asyncio.Event()
        task = asyncio.create_task(
            engine.load(model(model_file), SMALL, lambda p: p > 0 and begun.set())
        )
        await begun.wait()
        pids = [child.pid for child in engine._children]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await engine.close()
        return pids

    (pid,) = asyncio.run(run())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_files_that_are_no_models(model_file, tmp_path):
    """A truncated file and one of an unknown kind say what is wrong with them."""
    with model_file.open("rb") as file:
        head = file.read(20_000_000)
    size = model_file.stat().st_size
    kind = re.compile(rb"(general\.architecture\x08\0{3}.\0{7})\w", re.DOTALL)
    other = kind.sub(rb"\1?", head)
    assert head != other
    files = (
        ("truncated or damaged", head, len(head)),
        ("truncated or damaged", head[:3000], 3000),
        ("does not know", other, size),
    )

    async def run(path):
        engine = LlamaCppEngine()
        try:
            await engine.load(model(path), SMALL, ignore)
        finally:
            await engine.close()

    for title, content, length in files:
        path = tmp_path / "m.gguf"
        path.write_bytes(content)
        os.truncate(path, length)
        with pytest.raises(LoadFailed, match=title) as caught:
            asyncio.run(run(path))
        assert "error loading model" in (caught.value.cause or "")


def test_embedding(model_file):
    """Any model embeds when loaded for it: unit vectors, long texts cut."""

    async def use(one):
        texts = ("A cat sat.", "A cat sat.", "word " * 2000)
        return [await one.embed(text) for text in texts]

    first, again, long = run_loaded(model_file, use, is_embedding=True)

    assert first == again
    assert len(first) == len(long) > 100
    for vector in (first, long):
        assert pytest.approx(1.0) == sum(value * value for value in vector)


PARENT = """
import asyncio, sys
from pathlib import Path
from lmstudio.server.engine import LoadSettings, Piece, Request
from lmstudio.server.engines.llama_cpp import LlamaCppEngine
from server.engines.helpers import model

async def main():
    loading = sys.argv[2] == "loading"
    engine = LlamaCppEngine()
    def on_progress(progress):
        if loading and progress > 0:
            print(next(iter(engine._children)).pid, flush=True)
            sys.stdin.read()
    one = await engine.load(model(Path(sys.argv[1])), LoadSettings(), on_progress)
    async for event in one.predict(Request(prompt="a", grammar='root ::= "x" root')):
        if isinstance(event, Piece):
            print(one.pid, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("when", ["loading", "streaming"])
def test_a_parent_that_is_killed_takes_its_children_along(model_file, when):
    """Without their parent children end within a second, even while they load."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(model_file), when],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
        killed = time.monotonic()
        while running(pid):
            assert time.monotonic() - killed < 1.0, "the child outlived its parent"
            time.sleep(0.01)


def running(pid):
    """Whether a process that is not our child runs (a zombie does not)."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
