"""A child process is watched, and ends when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time

import pytest

from lmstudio.server.engines import llama_process
from lmstudio.server.engines.llama_process import TAIL_SIZE, Child

ECHO = "import sys; print(input(), flush=True); sys.stdin.read()"


async def start(code, on_line=lambda line: None, config=None):
    command = [sys.executable, "-S", "-c", code]
    return await Child.start(command, config or {}, on_line)


def test_the_config_is_the_first_line_of_stdin():
    """The child reads its config from stdin, which stays open behind it."""

    async def run():
        line = asyncio.get_running_loop().create_future()
        child = await start(ECHO, line.set_result, {"key": "ä"})
        echoed = await line
        assert child.returncode is None
        await child.stop()
        return echoed

    assert r'{"key": "\u00e4"}' == asyncio.run(run())


def test_the_tokens_stay_here(monkeypatch):
    """No token in the environment of the server gets into that of an engine."""
    for name in llama_process.SECRETS:
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("LMSTUDIO_OTHER", "kept")

    async def run():
        line = asyncio.get_running_loop().create_future()
        code = "import os; print(sorted(n for n in os.environ if os.environ[n] in"
        child = await start(f"{code} ('secret', 'kept')))", line.set_result)
        told = await line
        await child.stop()
        return told

    assert "['LMSTUDIO_OTHER']" == asyncio.run(run())


def test_folders_are_not_told():
    """What a child says goes to clients without where it is on the disk."""

    async def run():
        child = await start("import sys; print('no /secret/p/m.gguf', file=sys.stderr)")
        child.folders = ("/secret/",)
        await child.wait()
        return child.tail()

    assert "no p/m.gguf" == asyncio.run(run())


def test_the_end_of_the_log_is_kept():
    """Only the end of stderr is kept, whole lines of it; bad bytes do no harm."""

    async def run(code):
        child = await start(f"import sys; write = sys.stderr.buffer.write; {code}")
        await child.wait()
        return child.tail()

    assert "short \N{REPLACEMENT CHARACTER}" == asyncio.run(
        run(r"write(b'short \xff\n')")
    )
    tail = asyncio.run(run("[write(b'line %d\\n' % i) for i in range(5000)]"))
    assert tail.endswith("line 4998\nline 4999")
    assert tail.startswith("line ")
    assert TAIL_SIZE * 0.9 < len(tail) < TAIL_SIZE


@pytest.mark.parametrize(
    ("code", "returncode", "text"),
    [
        ("", 0, "exit code 0"),
        ("raise SystemExit(3)", 3, "exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", -9, "signal 9, SIGKILL"),
        ("import os; os.kill(os.getpid(), 34)", -34, "signal 34"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_how_it_ended(code, returncode, text):
    """Exit codes and signals are told apart, and signals have names."""

    async def run():
        child = await start(code)
        assert await child.wait()
        return child.returncode, child.how_it_ended()

    found, said = asyncio.run(run())

    assert returncode == found
    assert said.startswith(text)


def test_everyone_hears_of_the_end_once():
    """Callbacks run once, before those who wait go on, and also when they come late."""

    async def run():
        heard = []
        child = await start("input(); input()")
        child.on_exit(lambda: heard.append("early"))
        await child.stop()
        after_stop = list(heard)
        child.on_exit(lambda: heard.append("late"))
        await child.stop()
        await asyncio.sleep(0)
        return after_stop, heard

    assert (["early"], ["early", "late"]) == asyncio.run(run())


def test_waiting_may_take_too_long():
    """A wait with a time limit says whether the process has ended."""

    async def run():
        child = await start(ECHO)
        early = await child.wait(0.01)
        await child.stop()
        return early, await child.wait(0.01)

    assert (False, True) == asyncio.run(run())


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_one_that_ignores_sigterm_is_killed(monkeypatch):
    """A process that does not want to end is ended all the same, within two seconds."""
    monkeypatch.setattr(llama_process, "TERM_SECONDS", 0.05)
    code = "import signal; signal.signal(15, signal.SIG_IGN); print(1); " + ECHO

    async def run():
        line = asyncio.Event()
        child = await start(code, lambda _: line.set())
        await line.wait()
        begun = time.monotonic()
        await asyncio.gather(child.stop(), child.stop())
        return child.how_it_ended(), time.monotonic() - begun

    ended, seconds = asyncio.run(run())

    assert "signal 9, SIGKILL" == ended
    assert seconds < 2


def test_stopping_goes_on_when_nobody_waits():
    """Cancelling the wait for the end does not keep the process alive."""

    async def run():
        child = await start(ECHO)
        stopping = asyncio.create_task(child.stop())
        await asyncio.sleep(0)
        stopping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await stopping
        return await child.wait(2)

    assert asyncio.run(run())


def test_a_command_that_does_not_exist():
    """What can't be started is an `OSError`."""

    async def run():
        await Child.start(["/no/such/program"], {}, print)

    with pytest.raises(OSError):
        asyncio.run(run())
