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
from lmstudio import LMStudioClient
from lmstudio.testing import AWAIT_CANCEL
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


@pytest.mark.slow
@needs_fork
def test_forks_in_the_middle_of_traffic(fake):
    """Whatever locks other threads hold when the process forks, the child works."""
    program = "import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n"
    assert (0, "done\n", "") == run(program + FORK_IN_TRAFFIC, fake)


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
