"""A peer does what each message asks for, and says how it ended."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import math

import pytest

from lmstudio.errors import CODES, LMStudioServerError
from lmstudio.server import calls, channels, peer
from lmstudio.server.engine import (
    ContextOverflow,
    LoadFailed,
    ModelCrashed,
    Unloaded,
)
from lmstudio.server.peer import Peer, encoded
from lmstudio.server.service import Service
from lmstudio.testing.engine import (
    ScriptedEngine,
    ScriptedModels,
    Scripts,
    prediction_of,
    scripted_model,
)
from lmstudio.testing.script import CRASH, NEVER, Await, Reply
from lmstudio.wire.endpoints import ENDPOINTS
from rawclient import history, prediction, query, texts
from schema import problems

AUTH = {"authVersion": 1, "clientIdentifier": "me", "clientPasskey": "key"}
STACK = {"layers": []}


class Socket:
    """A peer without a socket: what it sends is a queue."""

    def __init__(self, service, namespace="llm"):
        self.sent = asyncio.Queue()
        self.is_closed = False
        self.numbers = 0
        self.peer = Peer(namespace, service, self.put, self.close)
        self.peer.start()

    async def put(self, text):
        self.sent.put_nowait(json.loads(text))

    async def close(self):
        self.is_closed = True

    async def say(self, message):
        await self.peer.receive(json.dumps(message))

    async def authenticate(self, **fields):
        await self.say(AUTH | fields)
        return await self.sent.get()

    async def call(self, endpoint, *parameter):
        self.numbers += 1
        message = {"type": "rpcCall", "endpoint": endpoint, "callId": self.numbers}
        await self.say(message | dict(zip(["parameter"], parameter, strict=False)))
        answer = await self.sent.get()
        assert self.numbers == answer["callId"]
        return answer

    async def open(self, endpoint, *parameter):
        self.numbers += 1
        message = {"type": "channelCreate", "endpoint": endpoint}
        message["channelId"] = self.numbers
        parameter = dict(zip(["creationParameter"], parameter, strict=False))
        await self.say(message | parameter)
        return self.numbers

    async def cancel(self, number):
        message = {"type": "cancel"}
        await self.say({"type": "channelSend", "channelId": number, "message": message})

    async def packets(self, number):
        """All packets up to the end, and the end."""
        got = []
        while True:
            message = await self.sent.get()
            assert number == message["channelId"]
            if message["type"] != "channelSend":
                return [*got, message]
            got.append(message["message"])

    async def predict(self, text="hi", *fields, **more):
        number = await self.open("predict", prediction(text, *fields) | more)
        return await self.packets(number)

    async def load(self, **fields):
        parameter = {"modelKey": "any", "loadConfigStack": STACK, **fields}
        return await self.packets(await self.open("loadModel", parameter))


class Bench:
    """A service on a scripted engine, and one authenticated socket of it."""

    def __init__(self):
        self.scripts = Scripts()
        self.engine = ScriptedEngine(self.scripts)
        keys = ("any", "other", "text-embed")
        self.service = Service(
            ScriptedModels([scripted_model(key) for key in keys]),
            self.engine,
            predict=self._predict,
            control_tokens_of=lambda _: (),
        )
        self.socket = Socket(self.service)
        self.sockets = [self.socket]

    async def _predict(self, instance, *, history, raw_prompt, config):
        return prediction_of(instance, self.scripts, history, raw_prompt, config)

    async def another(self, namespace="llm", **fields):
        socket = Socket(self.service, namespace)
        self.sockets.append(socket)
        assert {"success": True} == await socket.authenticate(**fields)
        return socket

    def loaded(self):
        return [i.identifier for i in self.service.registry.loaded("llm")]

    def reply(self, *steps, **fields):
        self.scripts.add_reply(Reply(steps, **fields))


def on_a_bench(test):
    """Run a coroutine function with a bench, and end everything after it."""

    @functools.wraps(test)
    def run(**arguments):
        async def main():
            bench = Bench()
            assert {"success": True} == await bench.socket.authenticate()
            try:
                await asyncio.wait_for(test(bench, **arguments), 10)
            finally:
                for socket in bench.sockets:
                    await socket.peer.ended()
                await bench.service.close()
            assert 0 == len(bench.service.clients)

        asyncio.run(main())

    signature = inspect.signature(test)
    rest = [p for name, p in signature.parameters.items() if name != "bench"]
    run.__signature__ = signature.replace(parameters=rest)
    return run


async def reached(gate):
    """Wait until a request has come to a gate."""
    while not gate.reached.is_set():
        await asyncio.sleep(0)


def code_of(message):
    error = message["error"]
    return (error.get("displayData") or error.get("errorData") or {}).get("code")


def test_every_endpoint_of_the_table_is_served():
    """The tables of handlers have the rows of the endpoint table, no more or less."""
    served = {name for name in ENDPOINTS if name[0] in ("llm", "system")}
    assert served == {*calls.CALLS, *channels.CHANNELS}
    kinds = {"rpc": calls.CALLS, "channel": channels.CHANNELS}
    assert all(name in kinds[ENDPOINTS[name].kind] for name in served)


@on_a_bench
async def test_sockets_with_one_passkey_are_one_client(bench):
    """A known identifier needs its passkey; the socket of another is closed."""
    await bench.another("system")
    assert 1 == len(bench.service.clients)
    stranger = Socket(bench.service)
    refusal = {"success": False, "error": "Passkey does not belong to this client"}
    assert refusal == await stranger.authenticate(clientPasskey="other")
    assert stranger.is_closed
    await stranger.peer.ended()
    await bench.another(clientIdentifier="somebody else")
    assert 2 == len(bench.service.clients)


def test_who_does_not_authenticate_is_turned_away(monkeypatch):
    """Without a valid auth packet in time the client is refused and cut off."""
    monkeypatch.setattr(peer, "AUTHENTICATION_TIME", 0.0)

    async def main():
        socket = Socket(Bench().service)
        await socket.say({"type": "rpcCall", "endpoint": "listLoaded", "callId": 1})
        refusal = {"success": False, "error": "Authentication took too long"}
        assert refusal == await socket.sent.get()
        while not socket.is_closed:
            await asyncio.sleep(0)
        await socket.peer.ended()

    asyncio.run(main())


@pytest.mark.parametrize("frame", ["", "{", "[" * 100_000, b"{}", "null", '"\\ud800"'])
@on_a_bench
async def test_garbage_is_dropped(bench, frame):
    """A frame that is no JSON object gets no reply, and the socket goes on."""
    await bench.socket.peer.receive(frame)
    assert {"type": "rpcResult", "callId": 1, "result": []} == (
        await bench.socket.call("listLoaded")
    )


@on_a_bench
async def test_load_model(bench):
    """A load says what was found, how far it is, and what came of it."""
    fields = [{"key": "llm.load.contextLength", "value": 512.0}]
    layer = {"layerName": "apiOverride", "config": {"fields": fields}}
    resolved, *progress, success, close = await bench.socket.load(
        modelKey="testing/any-GGUF",
        identifier="mine",
        ttlMs=60_000,
        loadConfigStack={"layers": [layer]},
    )
    assert {"type": "channelClose", "channelId": 1} == close
    info = {
        "type": "llm",
        "modelKey": "any",
        "path": "testing/any-GGUF/any-Q4_K_M.gguf",
        "format": "gguf",
        "displayName": "Any",
        "sizeBytes": 1_000_000,
        "publisher": "testing",
        "architecture": "scripted",
        "paramsString": "1M",
        "quantization": {"name": "Q4_K_M", "bits": 4},
        "maxContextLength": 8192,
        "vision": False,
        "trainedForToolUse": False,
        "indexedModelIdentifier": "testing/any-GGUF/any-Q4_K_M.gguf",
        "deviceIdentifier": None,
    }
    assert {"type": "resolved", "info": info} == resolved
    assert [0.0, 1.0] == [packet["progress"] for packet in progress]
    reference = success["info"].pop("instanceReference")
    assert reference
    assert {
        **info,
        "identifier": "mine",
        "contextLength": 512,
        "ttlMs": 60_000,
        "lastUsedTime": None,
    } == success["info"]
    assert int is type(success["info"]["ttlMs"])
    for packet in (resolved, *progress):
        assert [] == problems("llm/channel/loadModel/toClientPacket", packet)
    assert 512 == bench.engine.loads[0][1].context_length


@on_a_bench
async def test_an_ambiguous_name_lists_all_that_it_fits(bench):
    """The first of several files is loaded, and all of them are named."""
    models = bench.service.registry.models.models
    models.append(scripted_model("any"))
    resolved, *_ = await bench.socket.load()
    assert ["any@q4_k_m", "any@q4_k_m"] == resolved["ambiguous"]


@on_a_bench
async def test_a_load_can_be_cancelled(bench):
    """A cancel stops the load and ends its channel with an error."""
    bench.scripts.add_load([0.5, gate := Await()])
    number = await bench.socket.open(
        "loadModel", {"modelKey": "any", "loadConfigStack": STACK}
    )
    await reached(gate)
    await bench.socket.cancel(number)
    *_, end = await bench.socket.packets(number)
    assert "channelError" == end["type"]
    assert "Loading any was cancelled" == end["error"]["title"]
    assert [] == bench.loaded()
    *_, end = await bench.socket.load()
    assert "channelClose" == end["type"]


@pytest.mark.parametrize(
    ("fields", "code", "title"),
    [
        ({"modelKey": "no"}, "generic.pathNotFound", "No model on disk"),
        ({"modelKey": ""}, None, "'' can't be the name"),
        ({"modelKey": "text-embed"}, "generic.domainMismatch", "text-embed is of"),
        ({"preset": "mine"}, "generic.presetNotFound", "No preset is called 'mine'"),
        ({"ttlMs": 0}, None, "ttlMs must be at least 1"),
        ({"identifier": "taken"}, None, "identifier 'taken' already exists"),
    ],
)
@on_a_bench
async def test_loads_that_fail(bench, fields, code, title):
    """A load that can't be is an error of the channel, with the code that fits."""
    await bench.socket.load(identifier="taken")
    (end,) = await bench.socket.load(**fields)
    assert "channelError" == end["type"]
    assert title in end["error"]["title"]
    assert end["error"]["title"] == end["error"]["rootTitle"]
    assert code == code_of(end)
    assert [] == problems("serializedLMSExtendedError", end["error"])


@on_a_bench
async def test_no_hup_false_ties_a_model_to_its_client(bench):
    """It goes with the last socket of the client, and not before."""
    await bench.socket.load(identifier="mine", noHup=False)
    await bench.socket.load(identifier="stays", noHup=True)
    second = await bench.another("system")
    await bench.socket.peer.ended()
    assert ["mine", "stays"] == bench.loaded()
    await second.peer.ended()
    assert ["stays"] == bench.loaded()


@on_a_bench
async def test_get_or_load(bench):
    """The first asker loads, the next one gets what is there."""
    parameter = {"identifier": "any", "loadConfigStack": STACK}
    number = await bench.socket.open("getOrLoad", parameter)
    start, *progress, success, close = await bench.socket.packets(number)
    assert ("startLoading", "any") == (start["type"], start["identifier"])
    assert "modelKey" in start["info"]
    assert {"loadProgress"} == {packet["type"] for packet in progress}
    assert "loadSuccess" == success["type"]
    assert 3_600_000 == success["info"]["ttlMs"]
    assert "channelClose" == close["type"]
    for packet in (start, *progress, success):
        assert [] == problems("llm/channel/getOrLoad/toClientPacket", packet)
    number = await bench.socket.open("getOrLoad", parameter)
    (there, close) = await bench.socket.packets(number)
    assert {"type": "alreadyLoaded", "info": success["info"]} == there
    assert [] == problems("llm/channel/getOrLoad/toClientPacket", there)


@on_a_bench
async def test_get_or_load_can_be_cancelled(bench):
    """One client's cancel ends its channel, and the load goes on for the other."""
    bench.scripts.add_load([gate := Await()])
    other = await bench.another()
    parameter = {"identifier": "any", "loadConfigStack": STACK}
    first = await bench.socket.open("getOrLoad", parameter)
    await reached(gate)
    second = await other.open("getOrLoad", parameter)
    assert "startLoading" == (await other.sent.get())["message"]["type"]
    await bench.socket.cancel(first)
    *_, end = await bench.socket.packets(first)
    assert "channelError" == end["type"]
    gate.open()
    *_, success, end = await other.packets(second)
    assert ("loadSuccess", "channelClose") == (success["type"], end["type"])


@on_a_bench
async def test_a_load_outlives_its_client(bench):
    """A client that vanishes in the middle of a load doesn't stop it."""
    bench.scripts.add_load([gate := Await()])
    await bench.socket.open("loadModel", {"modelKey": "any", "loadConfigStack": STACK})
    await reached(gate)
    await bench.socket.peer.ended()
    gate.open()
    other = await bench.another()
    while not bench.loaded():
        await asyncio.sleep(0)
    assert ["any"] == [
        i["identifier"] for i in (await other.call("listLoaded"))["result"]
    ]


@on_a_bench
async def test_predict(bench):
    """A prediction is progress, fragments, its figures, and the end."""
    await bench.socket.load()
    bench.reply("Hel", "lo", stop="limit")
    temperature = {"key": "llm.prediction.temperature", "value": 0.5}
    *packets, success, close = await bench.socket.predict("one two", temperature)
    assert "channelClose" == close["type"]
    assert ["Hel", "lo"] == texts(packets)
    assert [0.0, 1.0] == [p["progress"] for p in packets[:2]]
    assert "maxPredictedTokensReached" == success["stats"]["stopReason"]
    assert 2 == success["stats"]["promptTokensCount"]
    assert 4 == success["stats"]["totalTokensCount"]
    assert "any" == success["modelInfo"]["identifier"]
    assert int is type(success["modelInfo"]["lastUsedTime"])
    context = {"key": "llm.load.contextLength", "value": 4096}
    assert {"fields": [context]} == success["loadModelConfig"]
    assert {"fields": [temperature]} == success["predictionConfig"]
    for packet in (*packets, success):
        assert [] == problems("llm/channel/predict/toClientPacket", packet)


@on_a_bench
async def test_raw_prompts(bench):
    """Both ways to continue a text give the text itself as the prompt."""
    await bench.socket.load()
    asked = []
    for _ in range(2):
        bench.reply("x", when=lambda a: not asked.append(a))
    await bench.socket.predict("Once upon")
    template = {"key": "llm.prediction.promptTemplate", "value": {"type": "jinja"}}
    layer = prediction("Once upon", template, layer="completeModeFormatting")
    await bench.socket.packets(await bench.socket.open("predict", layer))
    raw = {
        "modelSpecifier": query(),
        "rawPrompt": "Once upon",
        "predictionConfigStack": STACK,
    }
    bench.reply("y", when=lambda a: not asked.append(a))
    *packets, success, _ = await bench.socket.packets(
        await bench.socket.open("completeRawText", raw)
    )
    assert ["y"] == texts(packets)
    assert "success" == success["type"]
    assert ["Once upon"] * 3 == [a.text for a in asked]
    assert [False, True, True] == [a.history is None for a in asked]
    assert [{}] * 3 == [a.config for a in asked]


@on_a_bench
async def test_a_prediction_can_be_cancelled(bench):
    """A cancel ends it normally, with what there was."""
    await bench.socket.load()
    bench.reply("one", gate := Await(), "two")
    number = await bench.socket.open("predict", prediction("hi"))
    await reached(gate)
    await bench.socket.cancel(number)
    await bench.socket.cancel(number)
    *packets, success, close = await bench.socket.packets(number)
    assert ["one"] == texts(packets)
    assert "userStopped" == success["stats"]["stopReason"]
    assert "channelClose" == close["type"]
    await bench.socket.cancel(number)
    assert "rpcResult" == (await bench.socket.call("listLoaded"))["type"]


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (ModelCrashed("gone"), "engine.modelCrashed"),
        (ContextOverflow(10, 5), "engine.contextOverflow"),
        (Unloaded("gone"), None),
        (LoadFailed("no"), "engine.loadFailed"),
    ],
)
@on_a_bench
async def test_predictions_that_fail(bench, failure, code):
    """What the engine raises is the end of the channel, with our own code."""
    await bench.socket.load()
    bench.reply("one", failure)
    *packets, end = await bench.socket.predict()
    assert ["one"] == texts(packets)
    assert "channelError" == end["type"]
    assert failure.title == end["error"]["title"]
    assert code == code_of(end)
    error = LMStudioServerError.from_wire("predict", end["error"])
    assert CODES.get(code, LMStudioServerError) is type(error)


@on_a_bench
async def test_a_crash_leaves_the_server_running(bench):
    """The model is no longer loaded, and can be loaded again."""
    await bench.socket.load()
    bench.reply("one", CRASH)
    *_, end = await bench.socket.predict()
    assert "engine.modelCrashed" == code_of(end)
    assert [] == (await bench.socket.call("listLoaded"))["result"]
    *_, end = await bench.socket.load()
    assert "channelClose" == end["type"]


@on_a_bench
async def test_predictions_without_a_model(bench):
    """A query that fits nothing, and a preset that is not there, are errors."""
    (end,) = await bench.socket.predict()
    assert "generic.noModelMatchingQuery" == code_of(end)
    await bench.socket.load()
    gone = {"type": "instanceReference", "instanceReference": "gone"}
    (end,) = await bench.socket.predict(modelSpecifier=gone)
    assert "generic.specificModelUnloaded" == code_of(end)
    (end,) = await bench.socket.predict(fuzzyPresetIdentifier="mine")
    assert "generic.presetNotFound" == code_of(end)


@on_a_bench
async def test_a_client_that_vanishes_frees_its_slot(bench):
    """The end of a socket ends its predictions at once."""
    await bench.socket.load(ttlMs=3_600_000)
    bench.reply("one", gate := Await())
    await bench.socket.open("predict", prediction("hi"))
    await reached(gate)
    instance = bench.service.registry.loaded("llm")[0]
    assert ("generating", 1) == instance.status
    await bench.socket.peer.ended()
    assert ("idle", 0) == instance.status


@on_a_bench
async def test_the_end_of_the_server_is_said(bench):
    """Everything that runs fails with the reason, and the socket is closed."""
    await bench.socket.load()
    bench.reply(gate := Await())
    number = await bench.socket.open("predict", prediction("hi"))
    await reached(gate)
    await bench.socket.peer.stop("The server is shutting down")
    *_, end = await bench.socket.packets(number)
    assert "channelError" == end["type"]
    assert "The server is shutting down" == end["error"]["title"]
    assert bench.socket.is_closed
    gate.open()
    await bench.socket.peer.ended()
    assert bench.socket.sent.empty()


@on_a_bench
async def test_calls_about_a_model(bench):
    """Each call about a loaded model answers what the protocol says."""
    socket = bench.socket
    await socket.load()
    specifier = {"specifier": query(identifier="any")}
    text = {**specifier, "inputString": "Hello big world"}
    options = {"omitBosToken": True}
    template = {
        **specifier,
        "history": history("hi"),
        "predictionConfigStack": STACK,
        "opts": options,
    }
    asked = []

    async def format_prompt(instance, history, config, options):
        asked.append((instance.identifier, options.omit_bos_token))
        return history.messages[0].content[0].text

    bench.service.format_prompt = format_prompt
    found = {**specifier, "throwIfNotFound": True}
    parameters = {
        "listLoaded": (),
        "getModelInfo": (found,),
        "getLoadConfig": (specifier,),
        "getInstanceProcessingState": (found,),
        "tokenize": (text,),
        "countTokens": (text,),
        "applyPromptTemplate": (template,),
    }
    results = {}
    for endpoint, parameter in parameters.items():
        answer = await socket.call(endpoint, *parameter)
        assert "rpcResult" == answer["type"], answer
        results[endpoint] = answer["result"]
    (info,) = results["listLoaded"]
    assert "any" == info["identifier"]
    assert info == results["getModelInfo"]
    context = {"key": "llm.load.contextLength", "value": 4096}
    assert {"fields": [context]} == results["getLoadConfig"]
    idle = {"status": "idle", "queued": 0}
    assert idle == results["getInstanceProcessingState"]
    assert {"tokenCount": 3} == results["countTokens"]
    assert 3 == len(results["tokenize"]["tokens"])
    assert {"formatted": "hi"} == results["applyPromptTemplate"]
    assert [("any", True)] == asked
    del results["getInstanceProcessingState"]  # newer than the schema
    for endpoint, result in results.items():
        assert [] == problems(f"llm/rpc/{endpoint}/returns", result)
    assert {"type": "rpcResult", "callId": socket.numbers + 1} == await socket.call(
        "unloadModel", {"identifier": "any"}
    )
    assert [] == (await socket.call("listLoaded"))["result"]


@pytest.mark.parametrize("endpoint", ["getModelInfo", "getInstanceProcessingState"])
@on_a_bench
async def test_what_is_not_found_is_left_out_or_raised(bench, endpoint):
    """The caller says whether a model that is not loaded is an error."""
    parameter = {"specifier": query(), "throwIfNotFound": False}
    absent = {"type": "rpcResult", "callId": 1}
    assert absent == await bench.socket.call(endpoint, parameter)
    answer = await bench.socket.call(endpoint, {**parameter, "throwIfNotFound": True})
    assert "generic.noModelMatchingQuery" == code_of(answer)


@on_a_bench
async def test_the_system_namespace(bench):
    """Models on disk, versions, and a channel that stays open."""
    socket = await bench.another("system")
    models = (await socket.call("listDownloadedModels"))["result"]
    assert ["any", "other", "text-embed"] == [m["modelKey"] for m in models]
    assert ["llm", "llm", "embedding"] == [m["type"] for m in models]
    assert "vision" not in models[2]
    assert [] == problems("system/rpc/listDownloadedModels/returns", models)
    version = (await socket.call("version"))["result"]
    assert [] == problems("system/rpc/version/returns", version)
    assert 3 == len(version["version"].split("."))
    info = (await socket.call("info"))["result"]
    assert (int, True) == (type(info["pid"]), info["isDaemon"])
    await socket.open("alive")
    assert "rpcError" == (await socket.call("requestShutdown"))["type"]
    asked = []
    bench.service.shutdown = lambda: asked.append(True)
    answer = await socket.call("requestShutdown")
    assert {"type": "rpcResult", "callId": socket.numbers} == answer
    assert [True] == asked
    assert socket.sent.empty()


@on_a_bench
async def test_what_is_not_there_yet_is_said(bench):
    """A namespace of the application that we lack warns, and fails the call."""
    socket = await bench.another("files")
    message = {"type": "rpcCall", "endpoint": "uploadFileBase64", "callId": 1}
    await socket.say(message)
    warning, error = await socket.sent.get(), await socket.sent.get()
    text = "No such call in namespace files, endpoint = uploadFileBase64"
    kind = "rpcEndpointUnknown"
    assert {
        "type": "communicationWarning",
        "warning": text,
        "kind": kind,
    } == warning
    assert ("rpcError", text) == (error["type"], error["error"]["title"])


@on_a_bench
async def test_a_fault_of_ours_is_an_error_too(bench, caplog):
    """A handler that breaks is an error for the caller, and logged."""
    await bench.socket.load()

    async def broken(*_):
        raise KeyError("oops")

    bench.service.format_prompt = broken
    parameter = {
        "specifier": query(),
        "history": history("hi"),
        "predictionConfigStack": STACK,
        "opts": {},
    }
    answer = await bench.socket.call("applyPromptTemplate", parameter)
    assert "The server failed" == answer["error"]["title"]
    assert "KeyError: 'oops'" == answer["error"]["cause"]
    assert ["unexpected failure"] == [record.message for record in caplog.records]


@on_a_bench
async def test_calls_don_t_wait_for_each_other(bench):
    """A prediction that waits holds up neither calls nor other predictions."""
    await bench.socket.load()
    bench.reply(gate := Await(), "late", when="slow")
    slow = await bench.socket.open("predict", prediction("slow"))
    await reached(gate)
    for _ in range(2):  # its progress
        assert slow == (await bench.socket.sent.get())["channelId"]
    *packets, _, _ = await bench.socket.predict("quick")
    assert ["quick"] == texts(packets)
    gate.open()
    *packets, _, _ = await bench.socket.packets(slow)
    assert ["late"] == texts(packets)


def test_a_slow_client_holds_up_nobody_else():
    """A prediction waits while its client does not read; others go on."""

    async def main():
        bench = Bench()
        slow = Socket(bench.service)
        await slow.authenticate(clientIdentifier="slow")
        quick = await bench.another()
        await quick.load()
        blocked, may_go = asyncio.Event(), asyncio.Event()
        put = slow.put
        sent = 0

        async def hold(text):
            nonlocal sent
            sent += 1
            blocked.set()
            await may_go.wait()
            await put(text)

        slow.peer._send_text = hold
        bench.reply(*["x"] * 1000, when="much")
        number = await slow.open("predict", prediction("much"))
        await blocked.wait()
        *packets, _, _ = await quick.predict("quick")
        assert ["quick"] == texts(packets)
        assert 1 == sent  # it waits, and does not pile up
        may_go.set()
        *packets, _, _ = await slow.packets(number)
        assert 1000 == len(texts(packets))
        for socket in (slow, quick):
            await socket.peer.ended()
        await bench.service.close()

    asyncio.run(asyncio.wait_for(main(), 10))


@on_a_bench
async def test_a_long_wait_is_filled(bench, monkeypatch):
    """A prediction that says nothing repeats its progress until there is output."""
    monkeypatch.setattr(channels.Heartbeat.__init__, "__defaults__", (0.0,))
    await bench.socket.load()
    bench.reply(gate := Await(), "x")
    number = await bench.socket.open("predict", prediction("hi"))
    await reached(gate)
    for _ in range(5):
        packet = (await bench.socket.sent.get())["message"]
        assert "promptProcessingProgress" == packet["type"]
    gate.open()
    *packets, success, close = await bench.socket.packets(number)
    assert ["x"] == texts(packets)
    assert ("success", "channelClose") == (success["type"], close["type"])


@on_a_bench
async def test_never_is_ended_by_the_socket(bench):
    """What can't be cancelled ends with its socket."""
    await bench.socket.load()
    bench.reply(NEVER)
    await bench.socket.open("predict", prediction("hi"))
    instance = bench.service.registry.loaded("llm")[0]
    while instance.status == ("idle", 0):
        await asyncio.sleep(0)
    await bench.socket.peer.ended()
    assert ("idle", 0) == instance.status


def test_the_real_generation_fits():
    """The packets of a real prediction on a scripted engine are those of the schema."""

    async def main():
        scripts = Scripts()
        service = Service(
            ScriptedModels([scripted_model("any")]),
            ScriptedEngine(scripts),
            control_tokens_of=lambda _: ("<|im_end|>",),
        )
        socket = Socket(service)
        await socket.authenticate()
        await socket.load()
        scripts.add_reply(Reply(["Hel", "lo"]))
        *packets, success, close = await socket.predict("hi")
        assert ["Hel", "lo"] == texts(packets)
        assert "eosFound" == success["stats"]["stopReason"]
        for packet in (*packets, success):
            assert [] == problems("llm/channel/predict/toClientPacket", packet)
        assert "channelClose" == close["type"]
        parameter = {
            "specifier": query(),
            "history": history("hi there"),
            "predictionConfigStack": STACK,
            "opts": {},
        }
        answer = await socket.call("applyPromptTemplate", parameter)
        assert "hi there" in answer["result"]["formatted"]
        await socket.peer.ended()
        await service.close()

    asyncio.run(asyncio.wait_for(main(), 10))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"a": "é"}, '{"a":"é"}'),
        ({"a": "\ud800"}, '{"a":"\\ud800"}'),
        ({"a": math.nan, "b": [1.0, math.inf], "c": 1}, '{"b":[1.0],"c":1}'),
    ],
)
def test_every_message_can_be_encoded(message, expected):
    """Half a surrogate pair is escaped, and what is no number is left out."""
    text = encoded(message)
    assert expected == text
    assert text.encode()
