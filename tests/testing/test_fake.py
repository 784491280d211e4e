"""The fake server does what its script says, and remembers what it was asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import attrs
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from lmstudio.server.engine import BadRequest, LoadFailed
from lmstudio.testing import (
    AWAIT_CANCEL,
    CRASH,
    DROP,
    NEVER,
    Await,
    FakeServer,
)
from lmstudio.testing.engine import scripted_model
from lmstudio.testing.script import Mark
from rawclient import prediction, query, raw_client, texts

#: What tests of a base install and the extra `testing` can't have.
PROBE = """
import sys
from lmstudio.testing import FakeServer
FakeServer().close()
unwanted = ("uvicorn", "starlette", "xllamacpp", "jinja2", "aiohttp")
print([name for name in unwanted if name in sys.modules])
"""
#: Tests of somebody who has no pytest; the last one fails, and so does its cleanup.
UNITTEST = """
import sys, unittest
sys.modules["pytest"] = None
from lmstudio import LMStudioClient
from lmstudio.testing import FakeServer

class Test(unittest.TestCase):
    def setUp(self):
        self.server = FakeServer(["any"], loaded=["any"])
        self.addCleanup(self.server.close)
        self.addCleanup(self.server.assert_all_matched)
        self.client = LMStudioClient(self.server.host)
        self.addCleanup(self.client.close)

    def test_cleanups(self):
        self.server.reply("b")
        self.assertEqual("b", self.client.llm.model("any").respond("a").content)

    def test_with(self):
        with FakeServer() as server, LMStudioClient(server.host) as client:
            self.assertEqual("a", client.llm.model("any").respond("a").content)

    def test_unmatched(self):
        self.server.reply_when("sun", "hot")
        self.client.llm.model("any").respond("rain").result()
"""


@pytest.fixture
def fake():
    """A running server with one model in memory."""
    with FakeServer(loaded=["any"]) as fake:
        yield fake


@pytest.fixture
def client(fake):
    """A client of it."""
    with raw_client(fake.url) as client:
        yield client


def ask(client, text="hi"):
    """Make a prediction; returns its packets and the end."""
    return client.packets(client.open("predict", prediction(text)))


def test_it_is_ready_at_once():
    """It takes 50 ms at most until it can be connected to."""
    best = 1.0
    for _ in range(3):  # of several, since the machine may be busy
        started = time.perf_counter()
        fake = FakeServer()
        best = min(best, time.perf_counter() - started)
        with raw_client(fake.url):
            pass
        fake.close()
        fake.close()
    assert best < 0.05


@pytest.mark.slow
def test_it_needs_no_web_server_and_no_engine():
    """Nothing of the server's own extra is imported."""
    run = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=True
    )
    assert "[]\n" == run.stdout


def test_greeting(fake):
    """It is found like a real server, and refuses paths that are none."""
    for path, expected in {
        "lmstudio-greeting": {
            "lmstudio": True,
            "extensions": ["noHup", "logKinds", "loadPreset"],
        },
        "lms-status": {"package": "lmstudio-fake", "version": str},
    }.items():
        with urllib.request.urlopen(f"http://{fake.host}/{path}") as answer:
            body = json.load(answer)
        assert body.keys() == expected.keys()
    with pytest.raises(urllib.error.HTTPError, match="404") as caught:
        urllib.request.urlopen(f"http://{fake.host}/nothing")
    caught.value.close()
    with pytest.raises(InvalidStatus), connect(f"{fake.url}/nothing"):
        pass
    with (
        FakeServer(extensions=()) as plain,
        urllib.request.urlopen(f"http://{plain.host}/lmstudio-greeting") as answer,
    ):
        assert {"lmstudio": True, "extensions": []} == json.load(answer)


def test_echo_and_replies(fake, client):
    """Answers are used in order and once; without any the text comes back."""
    fake.reply("one")
    fake.reply(["t", "wo"], "limit")
    answers = [ask(client, "what about me?") for _ in range(3)]
    assert [["one"], ["t", "wo"], ["what", " about", " me?"]] == [
        texts(packets[:-1]) for packets in answers
    ]
    assert ["eosFound", "maxPredictedTokensReached", "eosFound"] == [
        packets[-2]["stats"]["stopReason"] for packets in answers
    ]


def test_replies_for_some(fake, client):
    """A matcher is a part of the text or a function; the first that fits is used."""
    fake.reply("always", times=None, when="often")
    hot = fake.reply("hot", when=lambda asked: asked.config.get("temperature") == 2)
    fake.reply("late", "toolCalls")
    assert ["always"] == texts(ask(client, "very often")[:-1])
    *packets, success, _ = ask(client, "now")
    assert ["late"] == texts(packets)
    assert "toolCalls" == success["stats"]["stopReason"]
    assert ["always"] == texts(ask(client, "often")[:-1])
    with pytest.raises(AssertionError, match="nobody asked for"):
        fake.assert_all_used()
    temperature = {"key": "llm.prediction.temperature", "value": 2}
    number = client.open("predict", prediction("x", temperature))
    assert ["hot"] == texts(client.packets(number)[:-1])
    assert 1 == hot.used
    fake.assert_all_used()


def test_packets_of_any_kind(fake, client):
    """A dict travels as it is, so that a test can play a newer server."""
    fake.reply(["a", {"type": "somethingNew", "x": 1}, "b"])
    packets = ask(client)
    assert {"type": "somethingNew", "x": 1} in packets
    assert ["a", "b"] == texts(packets[:-1])


def test_a_gate_holds_a_prediction(fake, client):
    """Nothing comes past a gate until it is opened, by its own event or another."""
    event = threading.Event()
    gates = [Await(), Await(event)]
    fake.reply(["a", gates[0], "b", gates[1], "c"])
    number = client.open("predict", prediction("x"))
    assert gates[0].reached.wait(5)
    assert not gates[1].reached.is_set()
    gates[0].open()
    assert gates[1].reached.wait(5)
    event.set()
    assert ["a", "b", "c"] == texts(client.packets(number)[:-1])
    fake.reply(["a", gates[0], "b"])
    assert ["a", "b"] == texts(ask(client)[:-1])


def test_cancel(fake, client):
    """A cancel opens any gate, and ends what waits for it."""
    for step in (AWAIT_CANCEL, Await()):
        fake.reply(["a", step, "b"])
        number = client.open("predict", prediction("x"))
        while client.receive()["message"]["type"] != "fragment":
            pass
        client.cancel(number)
        *packets, success, _ = client.packets(number)
        assert [] == texts(packets)
        assert "userStopped" == success["stats"]["stopReason"]


def test_failures(fake, client):
    """An exception among the steps is the end of the channel; its own each time."""
    failure = BadRequest("no", "because")
    fake.reply(["a", failure], times=2)
    for _ in range(2):
        *packets, end = ask(client)
        assert ["a"] == texts(packets)
        assert ("channelError", "no", "because") == (
            end["type"],
            end["error"]["title"],
            end["error"]["cause"],
        )
    assert failure.__traceback__ is None


def test_a_crash(fake, client):
    """The model is gone, and says so."""
    fake.reply(["a", CRASH])
    *_, end = ask(client)
    assert {"code": "engine.modelCrashed"} == end["error"]["errorData"]
    assert [] == fake.loaded()


def test_a_connection_that_breaks(fake, client):
    """After what was said before nothing comes, not even a goodbye."""
    fake.reply(["a", "b", DROP])
    client.open("predict", prediction("x"))
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            client.receive()
    assert caught.value.rcvd is None
    with raw_client(fake.url) as again:
        assert ["x"] == texts(ask(again, "x")[:-1])


def test_all_connections_break(fake, client):
    """They break at once, and new ones are taken."""
    fake.drop_connections()
    with pytest.raises(ConnectionClosed):
        client.receive()
    with raw_client(fake.url) as again:
        assert ["x"] == texts(ask(again, "x")[:-1])


def test_never(fake, client):
    """A request that is never answered holds up no other, and ends with the server."""
    fake.reply(NEVER)
    fake.before("listLoaded", NEVER)
    number = client.open("predict", prediction("x"))
    client.start("listLoaded")
    client.cancel(number)
    specifier = {"specifier": query(), "inputString": "a b"}
    last = client.start("countTokens", specifier)
    types = {"promptProcessingProgress"}
    while (answer := client.receive())["type"] == "channelSend":
        assert answer["message"]["type"] in types
    assert (last, {"tokenCount": 2}) == (answer["callId"], answer["result"])


def test_steps_before_a_call(fake, client):
    """A call can be held, failed and cut off before it is looked at."""
    specifier = {"specifier": query(), "inputString": "a b"}
    fake.before("countTokens", gate := Await())
    fake.fail("countTokens", "no", code="generic.identifierNotFound", identifier="x")
    number = client.start("countTokens", specifier)
    assert gate.reached.wait(5)
    assert number + 1 == client.call("countTokens", specifier)["callId"]
    gate.open()
    assert {"tokenCount": 2} == client.receive()["result"]
    assert {"tokenCount": 2} == client.call("countTokens", specifier)["result"]
    fake.before("countTokens", DROP)
    client.start("countTokens", specifier)
    with pytest.raises(ConnectionClosed):
        client.receive()


def test_loads(fake, client):
    """A load reports what the script says, waits at gates, and fails by it."""
    gate = Await()
    fake.on_load([0.25, gate, 0.5])
    stack = {"layers": []}
    number = client.open("loadModel", {"modelKey": "any", "loadConfigStack": stack})
    assert gate.reached.wait(5)
    gate.open()
    _, *progress, success, _ = client.packets(number)
    assert [0.25, 0.5, 1.0] == [packet["progress"] for packet in progress]
    assert ["any", "any:2"] == fake.loaded()
    assert "any:2" == success["info"]["identifier"]
    assert 2 == len(fake.engine.loads)
    fake.on_load([LoadFailed("no space")])
    *_, end = client.load("any")
    assert "no space" == end["error"]["title"]


def test_models_on_its_disk():
    """Models are keys or whole files; some are in memory from the start."""
    file = attrs.evolve(scripted_model("b"), max_context_length=77)
    models = ["a", file, "x/text-embed"]
    with FakeServer(models, loaded=["b", "x/text-embed"]) as fake:
        assert ["b", "x/text-embed"] == fake.loaded()
        assert "b:2" == fake.load("b")
        assert "mine" == fake.load("b", identifier="mine", ttl=60)
        with raw_client(fake.url, "system") as client:
            listed = client.call("listDownloadedModels")["result"]
    assert ["a", "b", "x/text-embed"] == [model["modelKey"] for model in listed]
    assert ["testing", "testing", "x"] == [model["publisher"] for model in listed]
    assert 77 == listed[1]["maxContextLength"]


def test_the_log(fake, client):
    """Every message is kept, by namespace, and can be waited for."""
    with raw_client(fake.url, "system") as system:
        system.call("version")
    client.call("listLoaded")
    number = client.open("predict", prediction("find me"))
    client.packets(number)
    client.cancel(number)
    seen = fake.wait_for_call("predict")
    assert "llm" == seen.namespace
    assert prediction("find me") == seen.parameter
    assert [prediction("find me")] == fake.parameters("predict")
    cancel = {"type": "cancel"}
    expected = {"type": "channelSend", "channelId": number, "message": cancel}
    assert expected == fake.wait_for(lambda r: "message" in r.message).message
    endpoints = [(r.namespace, r.endpoint) for r in fake.requests]
    assert [
        ("llm", None),
        ("system", None),
        ("system", "version"),
        ("llm", "listLoaded"),
        ("llm", "predict"),
        ("llm", None),
    ] == endpoints
    with pytest.raises(TimeoutError, match="no such message"):
        fake.wait_for_call("nonsense", timeout=0)


def test_what_is_no_message_is_logged_too(fake):
    """A frame that is no object has neither endpoint nor parameter."""
    with connect(f"{fake.url}/llm") as socket:
        socket.send("5")
        seen = fake.wait_for(lambda r: r.message == 5)
    assert (None, None) == (seen.endpoint, seen.parameter)


def test_messages_out_of_the_blue(fake, client):
    """A test can send anything on the sockets of a namespace."""
    with raw_client(fake.url, "system") as system:
        fake.send("llm", {"type": "nonsense"})
        fake.send("llm", "{ no json")
        assert {"type": "nonsense"} == client.receive()
        assert "{ no json" == client.socket.recv(timeout=5)
        assert "rpcResult" == system.call("version")["type"]


@pytest.mark.slow
def test_many_threads(fake):
    """Predictions of many clients get their own answers."""
    answers = {}

    def work(name):
        with raw_client(fake.url) as client:
            answers[name] = [texts(ask(client, name)[:-1]) for _ in range(10)]

    names = [f"client{n}" for n in range(8)]
    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: [[name]] * 10 for name in names} == answers


def test_embedding_models_are_deterministic(fake):
    """Scripted vectors and tokens are the same for the same text."""
    import asyncio

    from lmstudio.server.engine import Done, LoadSettings, Piece, Request
    from lmstudio.testing.engine import ScriptedModel, Scripts

    scripts = Scripts()
    model = ScriptedModel(scripted_model("any"), LoadSettings(), scripts)

    async def use():
        vector = await model.embed("a")
        assert vector == await model.embed("a") != await model.embed("b")
        assert 1.0 == pytest.approx(sum(x * x for x in vector))
        first, *rest = await model.tokenize("a b", add_special=True)
        assert (1, rest) == (first, await model.tokenize("a b"))
        return [event async for event in model.predict(Request(prompt=["a b", 5]))]

    _, *pieces, done = asyncio.run(use())
    assert [Piece("a"), Piece(" b")] == pieces
    assert Done(reason="eos", prompt_tokens=2, predicted_tokens=2) == done


def test_it_says_what_can_be_no_step(fake, client):
    """A step of a wrong kind is an error of the prediction, and logged."""
    fake.reply([Mark("NONSENSE")])
    *_, end = ask(client)
    assert "NONSENSE can't be a step here" in end["error"]["cause"]


def test_a_taken_port_is_raised(fake):
    """A port that is taken is an error where the server was asked for."""
    with pytest.raises(OSError):
        FakeServer(port=fake.port)


def test_a_closed_server_can_t_be_used():
    """After the end its methods say so."""
    fake = FakeServer()
    fake.close()
    with pytest.raises(RuntimeError, match="closed"):
        fake.loaded()


@pytest.mark.slow
def test_it_works_without_pytest(tmp_path):
    """The runner of unittest alone runs tests with it, by ``with`` and by cleanups."""
    (tmp_path / "test_user.py").write_text(UNITTEST, "utf-8")
    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", "unittest", "-v", "test_user"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
    )
    assert "Ran 3 tests" in run.stderr
    assert "FAILED (failures=1, errors=1)" in run.stderr, run.stderr
    assert "UnmatchedRequestError" in run.stderr
