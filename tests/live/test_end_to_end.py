"""Client and server together, with the real model: what users rely on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import lmstudio
from live.conftest import KEY, environment
from lmstudio.calls import call
from lmstudio.wire.common import GetModelInfo, ModelQuery, ModelSpecifier

LONG = "Write a very long story about the sea, with many chapters."
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["name", "age"],
}


def eventually(check, seconds):
    """Look until something is true; returns whether it became so in time."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def queued(client):
    """How many predictions the server works on for the only model."""
    specifier = ModelSpecifier(query=ModelQuery())
    ask = GetModelInfo(specifier=specifier, throw_if_not_found=True)
    state = call(client._session, "llm", "getInstanceProcessingState", ask)
    return state.queued


def alive(pid):
    """Whether a process still runs; a zombie does not."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_load_stream_stats_json_cancel(client):
    """The whole path of the README: load, complete, respond, JSON, cancel, unload."""
    progress = []
    model = client.llm.load(KEY, identifier="mine", on_progress=progress.append)
    assert progress == sorted(progress)
    assert 1.0 == progress[-1]
    assert ["mine"] == [loaded.identifier for loaded in client.llm.list_loaded()]

    prediction = model.complete("One, two, three,", max_tokens=12, temperature=0)
    pieces = list(prediction)
    result = prediction.result()
    assert "".join(pieces) == result.content != ""
    assert "maxPredictedTokensReached" == result.stats.stop_reason
    assert 12 == result.stats.predicted_tokens_count
    assert 12 == sum(piece.tokens_count for piece in pieces)
    assert model.count_tokens("One, two, three,") == result.stats.prompt_tokens_count

    again = model.complete("One, two, three,", max_tokens=12, temperature=0)
    assert result.content == again.content

    answer = model.respond(
        "Invent a person.",
        structured={"type": "json", "json_schema": SCHEMA},
        max_tokens=80,
    )
    assert {"name", "age"} <= set(answer.parsed)

    story = model.respond(LONG)
    for _ in story:
        story.cancel()
    assert "userStopped" == story.stats.stop_reason
    assert eventually(lambda: queued(client) == 0, 1.0)

    model.unload()
    assert None is model.get_model_info()


def test_two_clients_stream_at_once(client, server):
    """Two clients on one model are both served, neither waits for the other."""
    client.llm.load(KEY)
    both = threading.Barrier(2)
    problems = []

    def stream():
        try:
            with lmstudio.LMStudioClient(server.url) as mine:
                pieces = iter(mine.llm.get(KEY).respond(LONG, max_tokens=60))
                next(pieces)
                both.wait(30)  # only possible while the other streams as well
                assert len(list(pieces)) > 1
        except BaseException as exc:
            problems.append(exc)

    threads = [threading.Thread(target=stream) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [] == problems


CLIENT = """
import sys, lmstudio
client = lmstudio.LMStudioClient(sys.argv[1])
model = client.llm.load(sys.argv[2], identifier="theirs") if sys.argv[3] else (
    client.llm.get(sys.argv[2]))
prediction = model.respond("Write a very long story.")
print(next(iter(prediction)), flush=True)
sys.stdin.read()
"""


def other_client(server, home, loads):
    """A client in a process of its own, in the middle of a prediction."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLIENT, server.url, KEY, loads],
        env=environment(home),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline()
    return process


def end(process):
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_a_killed_client_frees_its_slot(client, server, home):
    """SIGKILL of a client in mid-stream stops its prediction within a second."""
    client.llm.load(KEY)
    process = other_client(server, home, "")
    assert 1 == queued(client)

    end(process)

    assert eventually(lambda: queued(client) == 0, 1.0)


def test_a_killed_client_frees_its_models(client, server, home):
    """What a client loaded for itself goes with it, also when it is killed."""
    process = other_client(server, home, "yes")
    assert ["theirs"] == [model.identifier for model in client.llm.list_loaded()]

    end(process)

    assert eventually(lambda: client.llm.list_loaded() == [], 2.0)
    assert eventually(lambda: server.children() == [], 2.0)


def test_a_crash_of_the_engine_is_a_typed_error(client, server):
    """When the model's process dies the prediction says so, and all else goes on."""
    model = client.llm.load(KEY)
    prediction = model.respond(LONG)
    first = next(iter(prediction))
    (child,) = server.children()

    os.kill(child, signal.SIGKILL)

    with pytest.raises(lmstudio.LMStudioModelCrashedError) as caught:
        prediction.result(timeout=10)
    assert caught.value.partial.startswith(first)
    assert eventually(lambda: client.llm.list_loaded() == [], 2.0)
    assert client.llm.load(KEY).respond("Hi", max_tokens=5).content


def test_loading_what_is_no_model(client):
    """Wrong names and broken files are typed errors, and nothing stays loaded."""
    with pytest.raises(lmstudio.LMStudioModelNotFoundError, match=KEY):
        client.llm.load("smollm2-135m-instructt")
    for name in ("not-a-model.gguf", "cut-off.gguf"):
        with pytest.raises(lmstudio.LMStudioModelLoadError, match=name):
            client.llm.load(f"tests/broken/{name}")
    assert [] == client.llm.list_loaded()


def test_cancelling_a_load_leaves_nothing(client, server):
    """A load that is cancelled at its first progress frees its process."""
    signal_ = lmstudio.Signal()
    with pytest.raises(lmstudio.LMStudioCancelledError):
        client.llm.load(KEY, on_progress=lambda _: signal_.set(), signal=signal_)

    assert [] == client.llm.list_loaded()
    assert eventually(lambda: server.children() == [], 2.0)


def test_sigterm_under_load_ends_everything(client, server):
    """SIGTERM ends predictions with an error, and the server within five seconds."""
    prediction = client.llm.load(KEY).respond(LONG)
    next(iter(prediction))
    children = server.children()

    server.process.terminate()

    assert 0 == server.process.wait(5)
    assert isinstance(prediction.exception(5), lmstudio.LMStudioError)
    assert not any(map(alive, children))


def test_sigkill_of_the_server_leaves_no_orphans(client, server):
    """The engine's processes do not outlive a server that is killed."""
    prediction = client.llm.load(KEY).respond(LONG)
    next(iter(prediction))
    children = server.children()
    assert 1 == len(children)

    server.process.kill()
    server.process.wait(5)

    with pytest.raises(lmstudio.LMStudioWebsocketError):
        prediction.result(timeout=5)
    assert eventually(lambda: not any(map(alive, children)), 2.0)


def test_no_server_is_one_clear_error(server, home):
    """Without a server the error names the address and how to start one, at once."""
    server.process.terminate()
    server.process.wait(10)
    began = time.monotonic()

    with pytest.raises(lmstudio.LMStudioConnectionError) as caught:
        lmstudio.LMStudioClient(server.url).llm.list_loaded()

    assert time.monotonic() - began < 1.0
    assert server.url in str(caught.value)
    assert "lms server start" in str(caught.value)
