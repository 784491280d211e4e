"""What the first alpha says becomes today's, and what it gets is what it reads."""

from __future__ import annotations

import pytest

from lmstudio.server.alpha import Alpha
from lmstudio.server.clients import Client
from server.benches import Socket, on_a_bench

SESSION = {"type": "sessionIdentifier", "sessionIdentifier": "s-1"}
EMPTY = {"layerName": "completeModeFormatting", "config": {"fields": []}}


@pytest.fixture
def alpha():
    """A socket of the llm namespace whose client is known."""
    alpha = Alpha("llm")
    alpha.client = Client("a", "b")
    return alpha


def create(endpoint, parameter, number=1):
    return {
        "type": "channelCreate",
        "endpoint": endpoint,
        "channelId": number,
        "creationParameter": parameter,
    }


def fields(parameter, stack):
    """The settings of a parameter, by key."""
    layer = parameter[stack]["layers"][0]
    return {field["key"]: field["value"] for field in layer["config"]["fields"]}


def opened(alpha, endpoint, parameter, number=1):
    """Today's parameter of a channel."""
    message, reply = alpha.incoming(create(endpoint, parameter, number))
    assert None is reply
    return message["creationParameter"]


def sent(alpha, packet, number=1):
    """A packet as the client gets it; None for nothing."""
    message = {"type": "channelSend", "channelId": number, "message": packet}
    said = alpha.outgoing(message)
    return None if said is None else said["message"]


def test_a_load(alpha):
    """The path is the key, and the settings become fields."""
    config = {"contextLength": 1024, "gpuOffload": 0.5}
    given = {"path": "a/b", "identifier": "c", "preset": "d", "noHup": True}
    made = opened(alpha, "loadModel", given | {"config": config})
    assert {
        "llm.load.contextLength": 1024,
        "llm.load.llama.acceleration.offloadRatio": 0.5,
    } == fields(made, "loadConfigStack")
    del made["loadConfigStack"]
    assert {"modelKey": "a/b", "identifier": "c", "preset": "d", "noHup": True} == made
    assert alpha.client.is_alpha


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"config": {"gpuOffload": "max"}}, ["max"]),
        ({"config": {"gpuOffload": "auto"}}, []),
        ({"config": {}, "acceleration": {"offload": 0.25}}, [0.25]),
        ({"config": {}, "acceleration": {"offload": "auto"}}, []),
        ({"acceleration": {"acceleration": {"offload": 0.5}}}, [0.5]),
        ({"config": None}, []),
    ],
)
def test_shares_for_the_gpu(alpha, given, expected):
    """Each way in which an alpha wrote the share is read; auto is the default."""
    made = opened(alpha, "loadModel", {"path": "a/b", **given})
    assert expected == list(fields(made, "loadConfigStack").values())
    assert False is made["noHup"]


def test_packets_of_a_load(alpha):
    """Only progress and the reference come through, and nothing is left at the end."""
    opened(alpha, "loadModel", {"path": "a/b", "config": {}, "noHup": False})
    assert None is sent(alpha, {"type": "resolved", "info": {}})
    progress = {"type": "progress", "progress": 0.5}
    assert progress == sent(alpha, progress)
    success = {"type": "success", "info": {"instanceReference": "r"}}
    assert {"type": "success", "sessionIdentifier": "r"} == sent(alpha, success)
    close = {"type": "channelClose", "channelId": 1}
    assert close == alpha.outgoing(close)
    assert success == sent(alpha, success)  # the number is free for today's dialect


def test_a_completion(alpha):
    """Forced empty prefixes mean that the text is the whole prompt."""
    config = {"prePrompt": "before ", "inputPrefix": "", "inputSuffix": ""}
    config |= {"stopStrings": [], "maxPredictedTokens": -1, "temperature": 0.5}
    history = [{"role": "user", "content": "text"}]
    given = {"modelSpecifier": SESSION, "history": history, "config": config}
    made = opened(alpha, "predict", given)
    reference = {"type": "instanceReference", "instanceReference": "s-1"}
    assert reference == made["modelSpecifier"]
    texts = [m["content"][0]["text"] for m in made["history"]["messages"]]
    assert ["before ", "text"] == texts
    assert EMPTY == made["predictionConfigStack"]["layers"][-1]
    assert {
        "llm.prediction.temperature": 0.5,
        "llm.prediction.stopStrings": [],
        "llm.prediction.maxPredictedTokens": {"checked": False, "value": 1},
    } == fields(made, "predictionConfigStack")


def test_a_conversation(alpha):
    """One prefix is enough for a template of its own; limits and forms are taken."""
    config = {"inputPrefix": "Q: ", "maxPredictedTokens": 5}
    config["contextOverflowPolicy"] = "stopAtLimit"
    history = [{"role": "user", "content": "text"}, "no message"]
    given = {"history": history, "config": config, "structured": {"type": "json"}}
    made = opened(alpha, "predict", given)
    assert "no message" == made["history"]["messages"][1]
    got = fields(made, "predictionConfigStack")
    template = got.pop("llm.prediction.promptTemplate")
    assert {"beforeUser": "Q: "} == {
        k: v for k, v in template["manualPromptTemplate"].items() if v
    }
    assert {
        "llm.prediction.maxPredictedTokens": {"checked": True, "value": 5},
        "llm.prediction.contextOverflowPolicy": "stopAtLimit",
        "llm.prediction.structured": {"type": "json"},
    } == got
    assert 1 == len(made["predictionConfigStack"]["layers"])


def test_packets_of_a_prediction(alpha):
    """Fragments are strings, and the end has what the alpha knows."""
    opened(alpha, "predict", {"history": [], "config": {}})
    fragment = {"content": "hi", "tokensCount": 1}
    assert {"type": "fragment", "fragment": "hi"} == sent(
        alpha, {"type": "fragment", "fragment": fragment}
    )
    assert None is sent(alpha, {"type": "promptProcessingProgress", "progress": 1})
    success = {
        "type": "success",
        "stats": {"stopReason": "eosFound", "totalTimeSec": 1, "tokensPerSecond": 2},
        "modelInfo": {"identifier": "a", "path": "b", "modelKey": "c"},
        "loadModelConfig": {},
    }
    assert {
        "type": "success",
        "stats": {"stopReason": "eosFound", "tokensPerSecond": 2},
        "modelInfo": {"identifier": "a", "path": "b"},
    } == sent(alpha, success)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("generic.pathNotFound", "llm.pathNotFound"),
        ("generic.presetNotFound", "generic.presetNotFound"),
    ],
)
def test_errors(alpha, code, expected):
    """Codes that the alpha knows have its names, on its channels and after."""
    opened(alpha, "loadModel", {"path": "a/b"})
    error = {"title": "no", "displayData": {"code": code, "path": "a"}}
    old = {"title": "no", "displayData": {"code": expected, "path": "a"}}
    end = {"type": "channelError", "channelId": 1, "error": error}
    assert end | {"error": old} == alpha.outgoing(end)
    failed = {"type": "rpcError", "callId": 1, "error": error}
    assert failed | {"error": old} == alpha.outgoing(failed)
    plain = {"type": "rpcError", "callId": 1, "error": {"title": "no"}}
    assert plain == alpha.outgoing(plain)


def test_today_s_messages_stay_as_they_are(alpha):
    """Nothing of today's dialect is touched, also what is no message at all."""
    messages = [
        None,
        [1],
        {"type": "rpcCall", "endpoint": "listLoaded", "callId": 1},
        {"type": "rpcCall", "endpoint": "echo", "callId": 1, "parameter": 1},
        create("loadModel", {"modelKey": "a", "path": "b"}),
        create("predict", {"history": {"messages": []}, "predictionConfigStack": {}}),
        create("predict", "no object"),
        create("getOrLoad", {"identifier": "a"}, "no number"),
    ]
    assert [(m, None) for m in messages] == [alpha.incoming(m) for m in messages]
    error = {"type": "rpcError", "callId": 1}
    error["error"] = {"title": "no", "displayData": {"code": "generic.pathNotFound"}}
    assert error == alpha.outgoing(error)
    assert not alpha.client.is_alpha
    other = Alpha("embedding")
    load = create("loadModel", {"path": "a/b"})
    assert (load, None) == other.incoming(load)


@on_a_bench
async def test_echo(bench):
    """The alpha's echo gives the text back."""
    assert "hello" == (await bench.socket.call("echo", "hello"))["result"]


@on_a_bench
async def test_infos_have_the_fields_of_both(bench):
    """A model's info says as much to either dialect, and its reference is found."""
    socket = Socket(bench.service)
    await socket.authenticate()
    await socket.say(create("loadModel", {"path": "any", "config": {}, "noHup": True}))
    while (message := await socket.sent.get())["type"] == "channelSend":
        packet = message["message"]
    reference = packet["sessionIdentifier"]
    ask = {"specifier": {"type": "query", "query": {}}, "throwIfNotFound": True}
    info = (await socket.call("getModelInfo", ask))["result"]
    assert reference == info["sessionIdentifier"] == info["instanceReference"]
    assert {"identifier": "any", "path": info["path"]} == info["descriptor"]
    session = {"type": "sessionIdentifier", "sessionIdentifier": reference}
    again = await socket.call("getModelInfo", {"specifier": session})
    assert info == again["result"]
    assert "result" not in await socket.call(
        "getModelInfo", {"specifier": {"type": "query", "query": {"identifier": "x"}}}
    )
    await socket.peer.ended()
