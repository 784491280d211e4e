"""Issue 5: fork after connect; `multiprocessing` spawn and fork; pickling a client.

A child works with connections of its own, and its parent is undisturbed.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import lmstudio
from hub_server import model_bytes
from lmstudio import LMStudioClient
from lmstudio.server.runner import serve
from lmstudio.testing import AWAIT_CANCEL, Failure, tool_call
from lmstudio.testing.engine import ScriptedEngine, Scripts
from lmstudio.turns import HAS_GIL
from scripts import is_cancel, run

PATIENCE = 30.0
ROOT = str(Path(lmstudio.__file__).parents[1])

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

POOL = """
import multiprocessing, sys
import lmstudio as lms

def ask(client):
    answer = client.llm.get("any").respond("hello").content
    return answer, client.llm.get("any").count_tokens("one two")

def process(client, answers):
    answers.put(ask(client))

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[2])
    client = lms.LMStudioClient(sys.argv[1])
    prediction = client.llm.get("any").respond("slow")
    assert "text" == next(iter(prediction))
    with context.Pool(2) as pool:
        assert [("hello", 2)] * 4 == pool.map(ask, [client] * 4)
        pool.close()
        pool.join()
    answers = context.Queue()
    child = context.Process(target=process, args=[client, answers])
    child.start()
    assert ("hello", 2) == answers.get()
    child.join()
    assert 0 == child.exitcode
    assert not prediction.done()
    prediction.cancel()
    print(prediction.content)
"""


FORKS = "ignore:This process:DeprecationWarning"


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", ["spawn", pytest.param("fork", marks=needs_fork), "forkserver"]
)
def test_multiprocessing(fake, tmp_path, method):
    """Pools and processes take a client along, while its parent's stream goes on."""
    if method not in __import__("multiprocessing").get_all_start_methods():
        pytest.skip(f"there is no {method} here")
    fake.reply(["text", AWAIT_CANCEL], when="slow")
    program = tmp_path / "program.py"  # children import it again
    program.write_text(POOL)

    done = subprocess.run(
        # Python itself warns of forks with threads; from 3.15 on `error` counts there.
        [sys.executable, "-W", "error", "-W", FORKS, str(program), fake.host, method],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ROOT},
        timeout=PATIENCE,
    )

    assert (0, "text\n", "") == (done.returncode, done.stdout, done.stderr)
    assert 1 == sum(is_cancel(seen) for seen in fake.requests)


FORK_IN_TRAFFIC = """
import os, signal, threading
stop = threading.Event()
def traffic():
    while not stop.is_set():
        assert "hello" == model.respond("hello").content
        assert 2 == model.count_tokens("one two")
threads = [threading.Thread(target=traffic, daemon=True) for _ in range(4)]
for thread in threads:
    thread.start()
for _ in range(20):
    child = os.fork()
    if child == 0:
        signal.alarm(5)  # ends a child that hangs
        assert "child" == model.respond("child").content
        assert 2 == model.count_tokens("one two")
        client.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
for thread in threads:
    thread.join()
print("done")
"""


# Without the GIL, `functools.lru_cache` of Python 3.13 takes a lock for each look. A
# child may find it locked for good, with this package or without.
@pytest.mark.slow
@needs_fork
@pytest.mark.skipif(not HAS_GIL, reason="Python's own locks do not survive forks")
def test_forks_in_the_middle_of_traffic(fake):
    """Whatever locks other threads hold when the process forks, the child works."""
    program = "import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n"
    assert (0, "done\n", "") == run(program + FORK_IN_TRAFFIC, fake)


#: Threads hold each of these locks while the process forks.
FORK_UNDER_LOCKS = """
import concurrent.futures, os, signal, threading
signals = lms.Signal()
prediction = model.respond("slow", signal=signals)
assert "text" == next(iter(prediction))
logs = client.diagnostics.stream_logs()
called = []
prediction.add_done_callback(called.append)

def completed():
    list(concurrent.futures.as_completed([prediction]))
waiting = threading.Thread(target=completed)
waiting.start()
while not prediction._waiters:
    pass
reading, writing = os.pipe()
connections = client._session._connections
held = [
    prediction._condition, prediction._settling, prediction._arrivals._turns.news,
    prediction._waiters[0].lock, signals._adding, client._session._state,
    connections["llm"]._transport._ending,
    connections["llm"]._state, connections["diagnostics"]._state,
    client._session.worker._starting, client._session._callbacks._starting,
]
holding, done = threading.Barrier(len(held) + 1), threading.Event()
def hold(lock):
    with lock:
        holding.wait()
        done.wait()
threads = [threading.Thread(target=hold, args=[lock]) for lock in held]
for thread in threads:
    thread.start()
holding.wait()
child = os.fork()
if child == 0:
    signal.alarm(10)  # ends a child that hangs
    try:
        prediction.result()
    except lms.LMStudioWebsocketError as error:
        print(error.partial, "forked" in str(error), prediction.done())
    later = threading.Event()
    prediction.add_done_callback(lambda same: later.set())
    assert later.wait(5), "a done callback of the child"
    prediction.cancel()
    prediction._channel.forget()
    logs.close()
    fresh, later = model.respond("child", signal=signals), threading.Event()
    fresh.add_done_callback(lambda same: later.set())
    print(fresh.content)
    assert later.wait(5), "a done callback of the child"
    client.close()
    print(called, flush=True)
    os._exit(0)
status = os.waitpid(child, 0)[1]
done.set()
for thread in threads:
    thread.join()
prediction.cancel()
waiting.join()
print(status, prediction.content)
"""


@pytest.mark.slow
@needs_fork
def test_a_fork_while_other_threads_hold_locks(fake):
    """In the child nobody holds them, and predictions of the parent end there.

    Done callbacks of the parent are called in the parent, those of the child there.
    """
    fake.reply(["text", AWAIT_CANCEL], when="slow")

    assert (0, "text True True\nchild\n[]\n0 text\n", "") == run(FORK_UNDER_LOCKS, fake)


FORK_AND_DROP = """
import logging, os
logging.basicConfig(level="WARNING")
prediction = model.respond("slow")
assert "text" == next(iter(prediction))
child = os.fork()
if child == 0:
    del prediction
    client.llm.list_loaded()
    client._session.worker.settle(5)
    os._exit(0)
status = os.waitpid(child, 0)[1]
prediction.cancel()
print(status, prediction.content)
"""


@pytest.mark.slow
@needs_fork
def test_a_child_that_drops_what_it_never_asked_for(fake):
    """A prediction of the parent goes without a cancel, or a line in the log."""
    fake.reply(["text", AWAIT_CANCEL], when="slow")

    assert (0, "0 text\n", "") == run(FORK_AND_DROP, fake)
    assert 1 == sum(is_cancel(seen) for seen in fake.requests)


FORK_IN_A_TURN = """
import os, signal, threading
reached, opened = threading.Event(), threading.Event()
child = None

def in_child(ask):
    signal.alarm(10)  # ends a child that hangs
    try:
        ask()
    except lms.LMStudioError as error:
        print(type(error).__name__, "forked" in str(error), error.partial, flush=True)
    os._exit(0)

def halt(*news):
    reached.set()
    opened.wait()

def fork(*news):
    global child
    child = os.fork()

def tool() -> str:
    "Say something."
    halt()
    return "something"

def work():
    {work}

thread = threading.Thread(target=work)
{before}
if child == 0:
    in_child({ask})
status = os.waitpid(child, 0)[1]
opened.set()
{after}
thread.join()
print(status, {result})
"""

OTHER_THREAD = "thread.start(); reached.wait(); fork()"
#: Who works while the process forks: what it does, what happens before the child asks,
#: what that asks, what the parent does then, and what it gets.
TURNS = {
    "iterating": (
        "[halt() for piece in prediction]",
        'prediction = model.respond("slow"); next(iter(prediction)); ' + OTHER_THREAD,
        "prediction.result",
        "prediction.cancel()",
        "prediction.content",
    ),
    "waiting": (
        "prediction.result()",
        """
prediction = model.respond("slow"); next(iter(prediction)); thread.start()
while not prediction._arrivals._turn:
    pass
fork()""",
        "prediction.result",
        "prediction.cancel()",
        "prediction.content",
    ),
    "calling back": (
        "prediction.result()",
        'prediction = model.respond("slow", on_fragment=halt); ' + OTHER_THREAD,
        "prediction.result",
        "prediction.cancel()",
        "prediction.content",
    ),
    "the one that forks": (
        "pass",
        """
prediction = model.respond("slow", on_fragment=fork); next(iter(prediction))""",
        "prediction.result",
        "thread.start(); prediction.cancel()",
        "prediction.content",
    ),
    "calling a tool": (
        "going.result()",
        'going = model.act("tool", [tool], wait=False); ' + OTHER_THREAD,
        "going.result",
        "",
        "going.result().content",
    ),
    "downloading": (
        "download.result()",
        """
ends = lms.Download._end
def end(*arguments):
    halt()
    ends(*arguments)
lms.Download._end = end
download = client.repository.download("acme/Tiny-GGUF", wait=False)
thread.start(); reached.wait()
connection, number = download._inbox.request
while number in connection._mailboxes:
    pass
fork()""",
        "download.result",
        "",
        "download.result()",
    ),
}
LOST = "LMStudioWebsocketError True"
#: What the child gets, and then the parent.
OUTCOMES = {
    "calling a tool": "LMStudioRuntimeError True \n0 done\n",
    "downloading": f"{LOST} \n0 tiny\n",
}


def forked_in_a_turn(who, server):
    """Run the program of one row: its exit code, output and errors."""
    names = ("work", "before", "ask", "after", "result")
    program = FORK_IN_A_TURN
    for name, part in zip(names, TURNS[who], strict=True):
        program = program.replace(f"{{{name}}}", part)
    return run(program, server)


@pytest.mark.slow
@needs_fork
@pytest.mark.parametrize("who", [who for who in TURNS if who != "downloading"])
def test_a_fork_while_a_thread_works_for_all(fake, who):
    """The child waits for no thread that is not there; what was asked for is lost."""
    fake.reply(["text", AWAIT_CANCEL], when="slow")
    fake.reply([tool_call("tool", {})], when="tool")
    fake.reply("done")
    expected = OUTCOMES.get(who, f"{LOST} text\n0 text\n")

    assert (0, expected, "") == forked_in_a_turn(who, fake)


@pytest.mark.slow
@needs_fork
def test_a_fork_while_a_thread_downloads(tmp_path, hub):
    """So it is with a download whose last packet that thread had in hand."""
    hub.add("acme/Tiny-GGUF", {"Tiny.Q4_K_M.gguf": model_bytes(size=300_000)})
    engine = ScriptedEngine(Scripts())
    with serve(port=0, models_dir=tmp_path / "models", engine=engine) as server:
        server.host = server.url
        outcome = forked_in_a_turn("downloading", server)

    assert (0, OUTCOMES["downloading"], "") == outcome


FORK_WHILE_DELIVERING = """
import os, signal, threading
from lmstudio.prediction import _Inbox
reached, opened, parent = threading.Event(), threading.Event(), os.getpid()
put = _Inbox.put

def halted(inbox, batch):
    if os.getpid() == parent and inbox.request[1] not in inbox.request[0]._mailboxes:
        reached.set()
        opened.wait()
    put(inbox, batch)

_Inbox.put = halted
prediction = model.respond("boom")
assert reached.wait(20)
child = os.fork()
if child == 0:
    signal.alarm(10)  # ends a child that hangs
    try:
        prediction.result()
    except lms.LMStudioWebsocketError as error:
        print("forked" in str(error), prediction.done(), flush=True)
    os._exit(0)
status = os.waitpid(child, 0)[1]
opened.set()
print(status, type(prediction.exception()).__name__)
"""


@pytest.mark.slow
@needs_fork
def test_a_fork_while_the_reader_delivers(fake):
    """A request whose last packet it had in hand ends in the child as well."""
    fake.reply([Failure("boom")], when="boom")
    expected = "True True\n0 LMStudioPredictionError\n"

    assert (0, expected, "") == run(FORK_WHILE_DELIVERING, fake)


FORK_WHILE_SETTLING = """
import os, signal, threading
from concurrent.futures import Future
reached, opened, parent = threading.Event(), threading.Event(), os.getpid()
settle = lms.Prediction.set_result

def halted(prediction, result):
    if os.getpid() == parent:
        reached.set()
        opened.wait()
    settle(prediction, result)

lms.Prediction.set_result = halted
prediction = model.respond("hello")
assert reached.wait(20)
child = os.fork()
if child == 0:
    signal.alarm(10)  # ends a child that hangs
    print(prediction.done(), flush=True)
    os._exit(0)
status = os.waitpid(child, 0)[1]
opened.set()
print(status, prediction.content)
"""


@pytest.mark.slow
@needs_fork
def test_a_fork_while_the_end_is_told(fake):
    """A prediction whose outcome is known is done in the child."""
    assert (0, "True\n0 hello\n", "") == run(FORK_WHILE_SETTLING, fake)


FORK_PARENTS_EXIT = """
import os
reading, writing = os.pipe()
assert "hello" == model.respond("hello").content
child = os.fork()
if child == 0:
    os.close(writing)
    os.read(reading, 1)  # until the parent has ended
    print(model.respond("child").content, flush=True)
"""


@pytest.mark.slow
@needs_fork
def test_a_child_survives_its_parent(fake):
    """A daemon that forks away goes on with the client that it was given."""
    assert (0, "child\n", "") == run(FORK_PARENTS_EXIT, fake)


def test_pickling(fake, client, model):
    """A client is pickled as its settings, in any protocol, also in mid-stream."""
    fake.reply(["text", AWAIT_CANCEL], when="slow")
    prediction = model.respond("slow")
    assert "text" == next(iter(prediction))
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        with pickle.loads(pickle.dumps(client, protocol)) as again:
            assert isinstance(again, LMStudioClient)
            assert "hello" == again.llm.get("any").respond("hello").content
            mine = client._session._connections
            assert not {*mine.values()} & {*again._session._connections.values()}
    assert not prediction.done()
    prediction.cancel()
    assert "text" == prediction.content
