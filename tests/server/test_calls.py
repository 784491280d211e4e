"""Each call answers what the protocol says."""

from __future__ import annotations

import pytest

from lmstudio.server import calls
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
    assert info.items() <= results["getModelInfo"].items()  # and the alpha's fields
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


@on_a_bench
async def test_a_template_leaves_documents_out(bench):
    """Text and images are formatted; other files have no place in a template."""
    await bench.socket.load()
    asked = []

    async def format_prompt(instance, history, config, options):
        asked.append([[part.type for part in m.content] for m in history.messages])
        return "formatted"

    bench.service.format_prompt = format_prompt
    file = {"type": "file", "name": "a", "identifier": "a", "sizeBytes": 1}
    text = {"type": "text", "text": "hi"}
    contents = [
        [{**file, "fileType": "text/plain"}],
        [text, {**file, "fileType": "image"}, {**file, "fileType": "unknown"}],
    ]
    parameter = {
        "specifier": query(),
        "history": {"messages": [{"role": "user", "content": c} for c in contents]},
        "predictionConfigStack": STACK,
        "opts": {},
    }
    answer = await bench.socket.call("applyPromptTemplate", parameter)

    assert {"formatted": "formatted"} == answer["result"]
    assert [[[], ["text", "file"]]] == asked


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
async def test_the_embedding_namespace(bench):
    """An embedding model is loaded, asked and unloaded in a namespace of its own."""
    socket = await bench.another("embedding")
    *_, success, _ = await socket.load(modelKey="text-embed")
    specifier = query(identifier="text-embed")
    text = {"specifier": specifier, "inputString": "Hello big world"}
    embed = {"modelSpecifier": specifier, "inputString": "Hello"}
    assert [] == problems("embeddingModelInstanceInfo", success["info"])
    assert [] == problems("embedding/rpc/embedString/parameter", embed)
    vector = (await socket.call("embedString", embed))["result"]
    assert [] == problems("embedding/rpc/embedString/returns", vector)
    assert [float, float] == [type(x) for x in vector["embedding"]]
    assert {"tokenCount": 3} == (await socket.call("countTokens", text))["result"]
    tokens = (await socket.call("tokenize", text))["result"]["tokens"]
    assert (4, 1) == (len(tokens), tokens[0])  # with the model's own
    context = {"key": "embedding.load.contextLength", "value": 2048}
    config = (await socket.call("getLoadConfig", {"specifier": specifier}))["result"]
    assert {"fields": [context]} == config
    assert [] == (await bench.socket.call("listLoaded"))["result"]
    number = await socket.open(
        "getOrLoad", {"identifier": "text-embed", "loadConfigStack": STACK}
    )
    assert "alreadyLoaded" == (await socket.packets(number))[0]["type"]
    await socket.call("unloadModel", {"identifier": "text-embed"})
    answer = await socket.call("embedString", embed)
    assert "generic.noModelMatchingQuery" == code_of(answer)


@on_a_bench
async def test_a_model_that_embeds_is_busy(bench):
    """Others see what it does, and how many texts wait."""
    socket = await bench.another("embedding")
    await socket.load(modelKey="text-embed")
    states = []
    specifier = {"specifier": query(), "throwIfNotFound": True}
    other = await bench.another("embedding")
    (instance,) = bench.service.registry.loaded("embedding")

    async def embed(text):
        answer = await other.call("getInstanceProcessingState", specifier)
        states.append(answer["result"])
        return [1.0]

    instance.model.embed = embed
    await socket.call("embedString", {"modelSpecifier": query(), "inputString": "x"})
    assert [{"status": "computingEmbedding", "queued": 1}] == states


@pytest.mark.parametrize(
    ("namespace", "endpoint", "model"),
    [
        ("llm", "tokenize", "any"),
        ("llm", "countTokens", "any"),
        ("embedding", "embedString", "text-embed"),
    ],
)
@on_a_bench
async def test_texts_that_are_too_long(bench, namespace, endpoint, model, monkeypatch):
    """A text beyond the limit is refused, and says what would be right."""
    monkeypatch.setattr(calls, "LONGEST_TEXT", 10)
    socket = await bench.another(namespace)
    await socket.load(modelKey=model)
    of = "modelSpecifier" if endpoint == "embedString" else "specifier"
    parameter = {of: query(identifier=model), "inputString": "0123456789"}
    assert "rpcResult" == (await socket.call(endpoint, parameter))["type"]
    answer = await socket.call(endpoint, parameter | {"inputString": "x" * 11})
    assert "rpcError" == answer["type"]
    title = "The text has 11 characters, and may have 10"
    assert title == answer["error"]["rootTitle"]


@on_a_bench
async def test_estimate(bench):
    """What a model would take is told in the fields that clients need."""
    parameter = {"modelKey": "any", "loadConfigStack": STACK}
    result = (await bench.socket.call("estimateModelUsage", parameter))["result"]
    memory = result["memory"]
    assert result["passesGuardrails"] is True
    assert ("low", 1_000_000) == (memory["confidence"], memory["modelBytes"])
    assert memory["totalBytes"] == memory["modelBytes"] + memory["contextBytes"]
    assert 0 == memory["totalVramBytes"]
    answer = await bench.socket.call(
        "estimateModelUsage", {**parameter, "modelKey": "x"}
    )
    assert "generic.pathNotFound" == code_of(answer)


@on_a_bench
async def test_variants(bench):
    """All variants of a model's key are listed, also for the key of one of them."""
    bench.add_variant("any", "q8_0")
    system = await bench.another("system")
    for key in ("any", "ANY@q8_0"):
        answer = await system.call("listDownloadedModelVariants", {"modelKey": key})
        assert ["any", "any@q8_0"] == [info["modelKey"] for info in answer["result"]]
        for info in answer["result"]:
            assert ["any@q4_k_m", "any@q8_0"] == info["variants"]
            assert "any@q4_k_m" == info["selectedVariant"]
    answer = await system.call("listDownloadedModelVariants", {"modelKey": "none"})
    assert [] == answer["result"]
