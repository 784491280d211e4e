"""Issue 5: interpreter exit without `close()`.

With a stream running, from an atexit hook, from a thread: it exits within 1 s, models
that the client owns are unloaded, and nothing is printed.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

import lmstudio
from lmstudio.testing import AWAIT_CANCEL, FakeServer
from scripts import environment, said
from tcp_proxy import Proxy
from timing import quickest

PATIENCE = 20.0
#: Seconds from the end of the program to the end of its process.
LIMIT = 1.0
ROOT = str(Path(lmstudio.__file__).parents[1])

HEAD = """
import atexit, sys, threading, time
{before}
import lmstudio as lms
client = lms.LMStudioClient(sys.argv[1])
model = client.llm.load("other")
prediction = model.respond("x")
assert "text" == next(iter(prediction))
"""
TAIL = """
print(time.monotonic(), flush=True)
"""

#: The one that loads a second model.
WITH_A_LOAD = "with a thread that waits for a load"

#: How programs end, all with a stream running.
ENDINGS = {
    "just so": "",
    "with a thread that iterates": """
threading.Thread(target=list, args=[prediction], daemon=True).start()
""",
    WITH_A_LOAD: """
threading.Thread(target=prediction.result, daemon=True).start()
begun = threading.Event()
def load():
    client.llm.load("slow", on_progress=lambda share: begun.set())
threading.Thread(target=load, daemon=True).start()
assert begun.wait(20)
""",
    "with a done callback": "prediction.add_done_callback(print)\n",
    "with a done callback that does not end": """
prediction.cancel()
prediction.settled()
prediction.add_done_callback(lambda done: threading.Event().wait())
prediction.add_done_callback(lambda done: sys.stderr.write("late"))
""",
    "with a run of tools": """
def tool() -> str:
    "Say something."
    return ""
run = model.act("x", [tool], wait=False)
next(iter(run))
""",
    "with the log": "logs = client.diagnostics.stream_logs()\n",
    "with the default client": """
lms.configure_default_client(sys.argv[1])
other = lms.llm("any").respond("x")
next(iter(other))
""",
    "with many clients": """
more = [lms.LMStudioClient(sys.argv[1]) for _ in range(20)]
streams = [one.llm.get("any").respond("x") for one in more]
for stream in streams:
    next(iter(stream))
""",
    "in a hook that uses the client": """
atexit.register(lambda: model.count_tokens("one two"))
atexit.register(lambda: list(client.llm.list_loaded()))
""",
    "in a hook that closes the client": "atexit.register(client.close)\n",
    "in a hook that cancels": "atexit.register(prediction.cancel)\n",
    "in a circle": """
class Circle: pass
circle = Circle(); circle.it = circle; circle.what = (client, model, prediction)
del client, model, prediction
""",
    "in a generator": """
def texts():
    with model.respond("x") as mine:
        yield from mine
pieces = texts()
next(pieces)
""",
}


def started(program, host, flags=("-W", "error")):
    """Start it, for `with`."""
    return subprocess.Popen(
        [sys.executable, *flags, "-c", program, host],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def ends(program, fake, flags=("-W", "error")):
    """Run it to its end: exit code, errors, and seconds that its exit took."""
    with started(program, fake.host, flags) as process:
        output, errors = said(process, PATIENCE)
        ended = time.monotonic()
    return process.returncode, errors, ended - float(output.partition("\n")[0] or "nan")


@pytest.fixture
def fake():
    """A server with models to load, whose answers never end."""
    with FakeServer(["any", "other", "slow"], loaded=["any"]) as server:
        server.reply(["text", AWAIT_CANCEL], times=None)
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("ending", ENDINGS)
def test_the_end(fake, ending):
    """However it ends, it ends at once and in silence, and frees what it owns."""

    def once():
        if ending == WITH_A_LOAD:  # scripts are used up: this may be repeated
            fake.on_load([1.0])
            fake.on_load([0.5, AWAIT_CANCEL])
        program = HEAD.format(before="") + ENDINGS[ending] + TAIL
        code, errors, took = ends(program, fake)
        assert (0, "") == (code, errors)
        assert ["any"] == fake.loaded()
        return took

    quickest(LIMIT, once)


@pytest.mark.slow
@pytest.mark.parametrize("flags", [("-X", "dev", "-W", "error"), ("-O",), ("-I",)])
def test_under_flags(fake, flags):
    """The development mode of Python finds nothing that was left open."""

    def once():
        program = f"import sys; sys.path.insert(0, {ROOT!r})\n" + HEAD + TAIL
        code, errors, took = ends(program.format(before=""), fake, flags)
        assert (0, "") == (code, errors)
        assert ["any"] == fake.loaded()
        return took

    quickest(LIMIT, once)


@pytest.mark.slow
@pytest.mark.parametrize(
    "hook",
    ["client.llm.list_loaded()", "client.close()", "print(len(prediction.content))"],
)
def test_a_hook_that_was_there_before_us(fake, hook):
    """A hook registered before the import runs after ours, and neither hangs."""
    before = f"def hook():\n    {hook}\natexit.register(hook)"
    if "content" in hook:  # it would wait for a stream that goes on
        before = before.replace("    print", "    prediction.cancel()\n    print")
    program = HEAD.format(before=before) + TAIL

    def once():
        with started(program, fake.host) as process:
            began = float(process.stdout.readline())
            _, errors = said(process, PATIENCE)
            took = time.monotonic() - began
        assert (0, "") == (process.returncode, errors)
        assert "other" not in fake.loaded()
        return took

    quickest(LIMIT, once)


#: A stream that ends with the program, as its model is unloaded.
LATE = """
prediction.add_done_callback(lambda done: print("late"))
"""
#: The end of the program has begun when its main thread counts as ended.
DUE = """
def called(done):
    threading.main_thread().join()
    sys.stdout.write(f"called {done.content}\\n")  # both at once
lms.client.EXIT_TIME = 20.0  # on a busy machine, too
with client:
    prediction.cancel()
    prediction.settled()
    prediction.add_done_callback(called)
prediction.add_done_callback(called)
"""
#: Registered before the import, it comes after what the package does at the end.
AFTERWARDS = """
def look():
    prediction.cancel()
    prediction.settled()
    print("lmstudio-callbacks" in [thread.name for thread in threading.enumerate()])
atexit.register(look)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "expected"), [(LATE, ""), (DUE, "called text\n" * 2)]
)
def test_done_callbacks(fake, program, expected):
    """What is due is called, and no callback runs while Python itself ends."""
    program = HEAD.format(before=AFTERWARDS) + program
    with started(program, fake.host) as process:
        assert (expected + "False\n", "") == said(process, PATIENCE)
    assert 0 == process.returncode


#: Ctrl-C comes while the end of the program waits for a callback.
INTERRUPTED = """
import signal
import lmstudio.client as module
real, interrupts = module._end_callbacks, [signal.SIGINT]
def told(deadline):
    while interrupts:
        signal.raise_signal(interrupts.pop())
    real(deadline)
module._end_callbacks = told
module.EXIT_TIME = 60.0  # far longer than it takes
prediction.cancel()
prediction.settled()
prediction.add_done_callback(lambda done: threading.Event().wait())
"""


@pytest.mark.slow
def test_ctrl_c_while_the_end_waits(fake):
    """It ends the waiting for a callback, and prints nothing."""
    with started(HEAD.format(before="") + INTERRUPTED, fake.host) as process:
        assert "" == said(process, PATIENCE)[1]
    assert 0 == process.returncode


FROM_A_THREAD = """
def work():
    for text in prediction:
        pass
thread = threading.Thread(target=work)
thread.start()
def stop():
    print(time.monotonic(), flush=True)
    prediction.cancel()
threading.Timer(0.1, stop).start()
"""


@pytest.mark.slow
def test_from_a_thread(fake):
    """Python waits for a thread of the program, which ends when it is cancelled."""

    def once():
        code, errors, took = ends(HEAD.format(before="") + FROM_A_THREAD, fake)
        assert (0, "") == (code, errors)
        assert ["any"] == fake.loaded()
        return took

    quickest(LIMIT, once)


@pytest.mark.slow
def test_an_error_of_the_program(fake):
    """Its own traceback is all that is printed, and its models go."""
    code, errors, _ = ends(HEAD.format(before="") + TAIL + "1 / 0", fake)
    assert 1 == code
    assert errors.endswith("ZeroDivisionError: division by zero\n")
    assert 1 == errors.count("Traceback")
    assert ["any"] == fake.loaded()


SILENT = """
import sys, threading, time
import lmstudio as lms
clients = [lms.LMStudioClient(sys.argv[1]) for _ in range(5)]
models = [client.llm.load(name) for client in clients for name in ("any", "other")]
stream = models[0].respond("x")
assert "text" == next(iter(stream))
thread = threading.Thread(target=stream.result, daemon=True)
thread.start()
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.mark.slow
def test_a_silent_server(fake):
    """Several clients with models of their own wait together, not one by one."""

    def once():
        with (
            Proxy(fake.port) as proxy,
            started(SILENT + TAIL, proxy.host) as process,
        ):
            assert "ready\n" == process.stdout.readline()
            for link in proxy.links:
                link.stall()
            output, errors = said(process, PATIENCE, "\n")
            ended = time.monotonic()
        assert (0, "") == (process.returncode, errors)
        return ended - float(output)

    quickest(LIMIT, once)
