"""The model of a request is found or loaded, and predictions run on it."""

from __future__ import annotations

import asyncio
import functools

import pytest

from lmstudio.server.lookup import ModelNotOnDisk
from lmstudio.server.rest.running import (
    AT_ONCE,
    Prompt,
    Run,
    Wanted,
    each,
    merged,
    nothing,
)
from lmstudio.server.service import Service
from lmstudio.testing.engine import (
    ScriptedEngine,
    ScriptedModels,
    Scripts,
    prediction_of,
    scripted_model,
)
from lmstudio.testing.script import AWAIT_CANCEL, Reply, tool_call
from lmstudio.wire.llm import Message, Part

HELLO = [Message(role="user", content=[Part(type="text", text="hello there")])]


class Served:
    """A service without a web server in front.

    Attributes:
        service: The service.
        engine: Its engine.
        scripts: What it says.
    """

    def __init__(self):
        self.scripts = Scripts()
        self.engine = ScriptedEngine(self.scripts)

        async def predict(instance, files, **prompt):
            return prediction_of(instance, self.scripts, **prompt)

        self.service = Service(
            ScriptedModels([scripted_model("any")]),
            self.engine,
            predict=predict,
            control_tokens_of=lambda _: (),
        )


def test_each_in_order():
    """So many works run at once, and what they return is in order."""
    running = []

    async def main():
        full, go = asyncio.Event(), asyncio.Event()

        async def work(number):
            running.append(number)
            if len(running) == AT_ONCE:
                full.set()
            await go.wait()
            return number

        numbers = range(AT_ONCE + 2)
        works = [functools.partial(work, number) for number in numbers]
        done = asyncio.ensure_future(each(works))
        await asyncio.wait_for(full.wait(), 5)
        assert [*range(AT_ONCE)] == running
        go.set()
        assert [*numbers] == await done

    asyncio.run(main())


def test_each_stops_the_others():
    """When one fails, or all are cancelled, the others have ended before it is told."""
    ended = []

    async def main():
        async def long():
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ended.append("long")

        async def bad():
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await each([long, bad, long])
        assert ["long"] * 2 == ended
        task = asyncio.ensure_future(each([long, long]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ["long"] * 4 == ended

    asyncio.run(main())


def run(work):
    """Run a test on a service that is closed at the end."""

    async def main():
        served = Served()
        try:
            return await work(served, Run(served.service, "llm"))
        finally:
            await served.service.close()

    return asyncio.run(main())


def test_obtain():
    """A model is loaded once; what is loaded is told, and found again."""

    async def work(served, run):
        packets = []

        async def watch(packet):
            packets.append(packet["type"])

        first = await run.obtain(Wanted(name="any", ttl=9), watch)
        assert run.load_seconds is not None
        again = Run(served.service, "llm")
        second = await again.obtain(Wanted(name="any"))
        assert again.load_seconds is None
        assert (first is second, 1) == (True, len(served.engine.loads))
        assert 9 == first.ttl
        return packets

    packets = run(work)
    assert ("startLoading", "loadSuccess") == (packets[0], packets[-1])


def test_an_unknown_model():
    """A name that is not there is an error."""

    async def work(_, run):
        with pytest.raises(ModelNotOnDisk):
            await run.obtain(Wanted(name="none"))

    run(work)


def test_predict():
    """Changes and progress are told as they come; the answer has all of them."""

    async def work(served, run):
        changes, progress = [], []

        async def on_change(change):
            changes.append(change.text)

        async def on_progress(packet):
            progress.append(packet["progress"])

        instance = await run.obtain(Wanted(name="any"))
        prompt = Prompt(messages=HELLO)
        answer = await run.predict(instance, prompt, on_change, on_progress)
        assert (["hello", " there"], [0.0, 1.0]) == (changes, progress)
        assert ("hello there", "eosFound") == (answer.text, answer.stats["stopReason"])

    run(work)


def test_a_raw_prompt():
    """A text is gone on with as it is."""

    async def work(served, run):
        instance = await run.obtain(Wanted(name="any"))
        answer = await run.predict(instance, Prompt(raw="go on"), nothing)
        assert "go on" == answer.text

    run(work)


def test_one_call():
    """With one call wanted, the first one stops the model."""

    async def work(served, run):
        steps = (tool_call("f"), AWAIT_CANCEL, tool_call("g"))
        served.scripts.add_reply(Reply(steps))
        instance = await run.obtain(Wanted(name="any"))
        prompt = Prompt(messages=HELLO, one_call=True)
        answer = await run.predict(instance, prompt, nothing)
        assert ["f"] == [call.name for call in answer.calls]
        assert "userStopped" == answer.stats["stopReason"]

    run(work)


def test_files_go_with_the_request():
    """At the end of a request nothing that it handed over is kept."""

    async def work(served, run):
        files, client = served.service.files, run.context.client
        with run.open():
            file = files.add(client, "a", "YQ==")
            assert file == files.find(client, file.identifier)
        assert files.find(client, file.identifier) is None

    run(work)


def test_merged():
    """Options of several parts of a request are one."""
    assert {"a": 1, "b": 2} == merged({"a": 1}, {}, {"b": 2})
