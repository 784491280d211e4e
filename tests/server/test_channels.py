"""Each channel says how far it is, can be cancelled, and ends exactly once."""

from __future__ import annotations

import asyncio

import pytest

from lmstudio.errors import CODES, LMStudioServerError
from lmstudio.server import channels
from lmstudio.server.engine import (
    ContextOverflow,
    LoadFailed,
    ModelCrashed,
    Unloaded,
)
from lmstudio.server.service import Service
from lmstudio.testing.engine import (
    ScriptedEngine,
    ScriptedModels,
    Scripts,
    scripted_model,
)
from lmstudio.testing.script import CRASH, Await, Reply
from rawclient import history, prediction, query, texts
from schema import problems
from server.benches import STACK, Socket, code_of, on_a_bench, reached


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
async def test_what_gives_way_is_told(bench):
    """Before its progress, a load on demand tells which others it unloads."""
    keys = {"llm": "any", "embedding": "text-embed"}
    other = await bench.another("embedding")
    number = await other.open(
        "getOrLoad", {"identifier": keys["embedding"], "loadConfigStack": STACK}
    )
    await other.packets(number)
    number = await bench.socket.open(
        "getOrLoad", {"identifier": keys["llm"], "loadConfigStack": STACK}
    )
    packets = await bench.socket.packets(number)
    kinds = [packet["type"] for packet in packets]
    assert ["startLoading", "unloadingOtherJITModel", "loadProgress"] == kinds[:3]
    assert keys["embedding"] == packets[1]["info"]["identifier"]
    for packet in packets[:-1]:
        assert [] == problems("llm/channel/getOrLoad/toClientPacket", packet)


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
        return (*packets, success)

    for packet in asyncio.run(asyncio.wait_for(main(), 10)):
        assert [] == problems("llm/channel/predict/toClientPacket", packet)


def test_packets_that_come_early():
    """They wait for the handler in their order, the first ones of very many."""

    async def send(_):
        raise AssertionError("nothing is sent")

    ends, got = channels.Ends(send), []
    for number in range(100):
        ends.take("commit", number)
    ends.on_packets(commit=got.append)
    ends.take("commit", 100)
    assert [*range(16), 100] == got
    assert ends.is_cancelled is False
    ends.take("cancelPlan")
    assert ends.is_cancelled is True
