"""The llama.cpp engine, against fake children: loads, streams, failures, ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys

import pytest

from lmstudio.server.engine import (
    BadRequest,
    ContextOverflow,
    Done,
    Draft,
    EngineError,
    LoadFailed,
    LoadSettings,
    ModelCrashed,
    Piece,
    PromptProgress,
    Request,
    Unloaded,
)
from lmstudio.server.engines.llama_cpp import LlamaCppEngine
from server.engines.helpers import (
    data,
    error_head,
    event,
    fake_engine,
    ignore,
    last,
    loaded,
    model,
    script,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the fake uses signals")


@pytest.fixture
def path(tmp_path):
    """A file that passes for a model."""
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF")
    return file


@pytest.fixture
def short_patience(monkeypatch):
    """Don't wait long for the end of a process that goes on."""
    monkeypatch.setattr("lmstudio.server.engines.llama_cpp.END_SECONDS", 0.05)


def gone(pid):
    """Whether a process has ended and was waited for."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return False
    return True


async def collect(model, prompt, **fields):
    return [e async for e in model.predict(Request(prompt=prompt, **fields))]


@pytest.mark.slow
def test_a_load_reports_its_progress(path):
    """Progress starts at 0, never goes back, and ends at 1."""

    async def run(load):
        seen = []
        async with loaded(fake_engine(load), path, on_progress=seen.append) as one:
            return seen, one.context_length, one.gpu_layers

    seen, context_length, gpu_layers = asyncio.run(run("normal"))
    assert [0.0, 0.05, pytest.approx(0.425), pytest.approx(0.8), 0.95, 1.0] == seen
    assert (2048, 0) == (context_length, gpu_layers)

    assert [0.0, 1.0] == asyncio.run(run("silent"))[0]
    assert [0.0, 0.05, 1.0] == asyncio.run(run("noisy"))[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("load", "title", "cause", "suggestion"),
    [
        ("missing", "xllamacpp", "No module", "pip install 'lmstudio[server]'"),
        ("architecture", "does not know", "'xyz'", "Update"),
        ("projector", "does not fit", "mismatch between", "mmproj file of this"),
        ("truncated", "truncated", "file bounds", "Download it again"),
        ("memory", "not enough memory", "Cannot allocate", "smaller"),
        ("killed", "not enough memory", "killed", "smaller"),
        ("other", "could not load", "requires flash_attn", None),
        ("dies", "could not load", "exit code 7)\nthe last words", None),
        ("deaf", "could not load", "ConnectionRefusedError", None),
    ],
)
def test_failed_loads_say_why(path, load, title, cause, suggestion):
    """Each way to fail has a title, llama.cpp's own words, and what helps."""

    async def run():
        engine = fake_engine(load)
        with pytest.raises(LoadFailed) as caught:
            await engine.load(model(path), LoadSettings(), ignore)
        await engine.close()
        return caught.value

    failed = asyncio.run(run())

    assert title in failed.title
    assert cause in (failed.cause or "")
    if suggestion is None:
        assert failed.suggestion is None
    else:
        assert suggestion in (failed.suggestion or "")


@pytest.mark.slow
@pytest.mark.usefixtures("short_patience")
def test_a_child_that_talks_nonsense_fails(path):
    """A ready line that can't be read ends the load, and the child."""

    async def run():
        engine = fake_engine("garbled")
        with pytest.raises(LoadFailed, match="could not load"):
            await engine.load(model(path), LoadSettings(), ignore)
        await engine.close()

    asyncio.run(run())


def test_a_wrong_file_starts_no_process(tmp_path):
    """What is no model is refused before anything is started."""

    async def run():
        engine = LlamaCppEngine(["/no/such/program"])
        with pytest.raises(LoadFailed, match="can't be read"):
            await engine.load(model(tmp_path / "none"), LoadSettings(), ignore)
        good = tmp_path / "good"
        good.write_bytes(b"GGUF")
        with pytest.raises(LoadFailed, match="could not be started"):
            await engine.load(model(good), LoadSettings(), ignore)
        await engine.close()

    asyncio.run(run())


@pytest.mark.parametrize("turns", [0, 1, 2, 3, None])
def test_a_load_can_be_cancelled_at_any_time(path, turns):
    """Cancelling ends the child, whether it has just started or is loading."""

    async def run():
        engine = fake_engine("hang")
        begun = asyncio.Event()

        def on_progress(progress):
            if progress > 0:
                begun.set()

        task = asyncio.create_task(
            engine.load(model(path), LoadSettings(), on_progress)
        )
        if turns is None:
            await begun.wait()
        for _ in range(turns or 0):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        left = list(engine._children)
        await engine.close()
        return left

    assert [] == asyncio.run(run())


def test_an_error_in_on_progress_ends_the_load(path):
    """What the callback raises comes out of `load`, and the child is gone."""

    def fail_later(progress):
        if progress > 0:
            raise RuntimeError("no more progress")

    async def run():
        engine = fake_engine("hang")
        with pytest.raises(RuntimeError, match="no more progress"):
            await engine.load(model(path), LoadSettings(), fail_later)
        return list(engine._children)

    assert [] == asyncio.run(run())


@pytest.mark.slow
def test_closing_ends_loads_and_models(path):
    """Closing ends what is loaded and what is loading, and can be repeated."""

    async def run():
        engine = fake_engine()
        one = await engine.load(model(path), LoadSettings(), ignore)
        engine._command = fake_engine("hang")._command
        begun = asyncio.Event()
        loading = asyncio.create_task(
            engine.load(model(path), LoadSettings(), lambda p: p and begun.set())
        )
        await begun.wait()
        await asyncio.gather(engine.close(), engine.close())
        with pytest.raises(LoadFailed, match="engine was closed"):
            await loading
        with pytest.raises(LoadFailed, match="engine was closed"):
            await engine.load(model(path), LoadSettings(), ignore)
        with pytest.raises(Unloaded):
            await one.tokenize("a")
        return one.pid

    assert gone(asyncio.run(run()))


@pytest.mark.parametrize("cut", [0, 1, 7, 100])
def test_a_prediction_gives_progress_pieces_and_the_end(path, cut):
    """The events are the same however the bytes of the reply were cut."""
    progress = {"total": 7, "cache": 2, "processed": 7, "time_ms": 1}
    smile = "\N{GRINNING FACE}"
    prompt = script(
        event(prompt_progress=progress),
        event("He"),
        b": a comment\n\n",
        event("llo", 2),
        event(smile, 5) + event("", 6),
        last(6),
        cut=cut,
    )

    async def run():
        async with loaded(fake_engine(), path) as one:
            return await collect(one, prompt)

    assert [
        PromptProgress(7, 2, 5),
        Piece("He", 0),
        Piece("llo", 2),
        Piece(smile, 3),
        Done(
            reason="eos",
            prompt_tokens=7,
            predicted_tokens=6,
            prompt_seconds=0.25,
            predicted_seconds=0.5,
            tokens_per_second=8.0,
        ),
    ] == asyncio.run(run())


def test_a_broken_character_does_not_end_a_prediction(path):
    """A byte that is no UTF-8 becomes U+FFFD in its piece."""
    broken = event("ab", 1).replace(b"ab", b"a\xf0b")

    async def run():
        async with loaded(fake_engine(), path) as one:
            return await collect(one, script(broken, last(1)))

    assert Piece("a\N{REPLACEMENT CHARACTER}b", 1) == asyncio.run(run())[0]


OVERFLOW = (
    b'{"error":{"type":"exceed_context_size_error","n_prompt_tokens":9,"n_ctx":8}}'
)
FULL = data({"error": {"code": 500, "message": "Context size has been exceeded."}})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("events", "head", "kind", "word"),
    [
        ([OVERFLOW], error_head(400, OVERFLOW), ContextOverflow, "9 tokens"),
        ([b"nope"], error_head(400, b"nope"), BadRequest, "nope"),
        ([b"x"], error_head(500, b"x"), EngineError, "llama.cpp failed"),
        ([FULL], None, EngineError, "left no context"),
        ([data({"error": {"message": "oh"}})], None, EngineError, "oh"),
        ([b"data: {nonsense\n\n"], None, EngineError, "can't be read"),
        ([event("a", 1)], None, EngineError, "no end"),
    ],
)
def test_refused_predictions(path, events, head, kind, word):
    """Errors before and in the stream are typed, and the model stays usable."""

    async def run():
        async with loaded(fake_engine(), path) as one:
            with pytest.raises(EngineError, match=word) as caught:
                await collect(one, script(*events, head=head))
            assert 2 == len(await collect(one, script(event("a", 1), last(1))))
            return caught.value

    assert kind is type(asyncio.run(run()))


@pytest.mark.slow
@pytest.mark.usefixtures("short_patience")
def test_a_connection_that_breaks_alone_is_an_error(path):
    """A stream that is cut while the process goes on is no crash."""

    async def run():
        async with loaded(fake_engine(), path) as one:
            with pytest.raises(EngineError, match="broke off its answer") as caught:
                await collect(one, script(event("a", 1), end="drop"))
            assert [104] == await one.tokenize("h")
            return caught.value

    assert EngineError is type(asyncio.run(run()))


@pytest.mark.slow
def test_a_crash_in_mid_stream(path):
    """What was generated arrives; then the crash is told with the log's end."""

    async def run():
        heard = []
        async with loaded(fake_engine(), path) as one:
            one.on_exit(lambda: heard.append("gone"))
            seen = []
            with pytest.raises(ModelCrashed) as caught:
                async for found in one.predict(
                    Request(prompt=script(event("a", 1), end="crash"))
                ):
                    seen.append(found)
            for again in (one.tokenize("a"), one.embed("a"), collect(one, "")):
                with pytest.raises(ModelCrashed):
                    await again
            await one.unload()
        return seen, heard, caught.value

    seen, heard, crashed = asyncio.run(run())

    assert [Piece("a", 1)] == seen
    assert ["gone"] == heard
    assert "signal 6, SIGABRT" in crashed.title
    assert "GGML_ASSERT(false) failed" == crashed.cause


@pytest.mark.slow
@pytest.mark.parametrize("way", ["aclose", "cancel"])
def test_leaving_a_prediction_closes_its_connection(path, way):
    """Closing the iterator, or cancelling its task, is what frees the slot."""
    prompt = script(event("a", 1), end="hold")

    async def run():
        async with loaded(fake_engine(), path) as one:
            events = one.predict(Request(prompt=prompt))
            assert Piece("a", 1) == await anext(events)
            if way == "aclose":
                await events.aclose()
            else:
                task = asyncio.ensure_future(anext(events))
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            return await one._call("/dropped", {})

    assert {"dropped": True} == asyncio.run(run())


@pytest.mark.slow
def test_unloading_ends_predictions(path):
    """A running prediction raises `Unloaded`, and so does what comes later."""
    prompt = script(event("a", 1), end="hold")

    async def run():
        heard = []
        async with loaded(fake_engine(), path) as one:
            one.on_exit(lambda: heard.append("gone"))
            events = one.predict(Request(prompt=prompt))
            await anext(events)
            waiting = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0)
            await asyncio.gather(one.unload(), one.unload())
            with pytest.raises(Unloaded, match="'test-model' was unloaded"):
                await waiting
            with pytest.raises(Unloaded):
                await one.tokenize("a")
            await one.unload()
            return one.pid, heard

    pid, heard = asyncio.run(run())

    assert gone(pid)
    assert ["gone"] == heard


@pytest.mark.slow
def test_a_model_that_is_killed_is_noticed(path):
    """The end of the process is told though nobody was using it."""

    async def run():
        async with loaded(fake_engine(), path) as one:
            heard = asyncio.Event()
            one.on_exit(heard.set)
            os.kill(one.pid, signal.SIGKILL)
            await asyncio.wait_for(heard.wait(), 5)
            with pytest.raises(ModelCrashed, match="SIGKILL"):
                await one.tokenize("a")

    asyncio.run(run())


@pytest.mark.slow
def test_calls_that_fail(path):
    """A refused call says why, and a crash during a call is a crash."""

    async def run():
        async with loaded(fake_engine(), path) as one:
            with pytest.raises(BadRequest, match="I won't"):
                await one.tokenize("refuse")
            with pytest.raises(ModelCrashed, match="SIGKILL"):
                await one.embed("crash")

    asyncio.run(run())


@pytest.mark.slow
def test_calls_keep_their_connection(path):
    """One connection serves calls; when it was closed the next call opens another."""

    async def run():
        async with loaded(fake_engine(), path) as one:
            tokens = [await one.tokenize("ab"), await one.tokenize("hang up")]
            before = (await one._call("/connections", {}))["connections"]
            await one.tokenize("b")
            after = (await one._call("/connections", {}))["connections"]
            return tokens[0], before, after

    assert ([97, 98], 2, 2) == asyncio.run(run())


@pytest.mark.slow
def test_embedding(path):
    """A text is embedded; of a long one the beginning and the last token count."""

    async def run():
        kind = {"is_embedding": True, "max_context_length": 512}
        async with loaded(fake_engine(), path, **kind) as one:
            texts = ("a", "\N{GRINNING FACE}" * 200, "b" * 600 + "\0")
            return [await one.embed(text) for text in texts]

    short, fitting, long = asyncio.run(run())

    assert [0.6, 0.8] == short == fitting  # 800 bytes, but 200 tokens
    assert [1.0, 0.0] == long  # 512 tokens, the last one 0


@pytest.mark.slow
def test_a_draft_model_of_another_vocabulary(path):
    """llama.cpp takes it in silence and does not use it; here the load fails."""

    async def run():
        draft = Draft(file=model(path.with_name("small.gguf")))
        async with loaded(fake_engine(), path, LoadSettings(draft=draft)):
            pass

    with pytest.raises(LoadFailed, match="vocabularies differ") as caught:
        asyncio.run(run())
    assert "same family" in caught.value.suggestion
