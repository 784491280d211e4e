"""Each call answers what the protocol says."""

from __future__ import annotations

import pytest

from rawclient import history, query
from schema import problems
from server.benches import STACK, code_of, on_a_bench


@on_a_bench
async def test_calls_about_a_model(bench):
    """Each call about a loaded model answers what the protocol says."""
    socket = bench.socket
    await socket.load()
    specifier = {"specifier": query(identifier="any")}
    text = {**specifier, "inputString": "Hello big world"}
    template = {
        **specifier,
        "history": history("hi"),
        "predictionConfigStack": STACK,
        "opts": {"omitBosToken": True},
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
