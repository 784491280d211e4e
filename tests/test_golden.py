"""Our client says what the official JavaScript client 1.5.0 was recorded to say.

The recording stands beside the repository, in ``../shared/protocol``; without it the
tests are skipped. What is known to differ is put right by `normal`, each with its
reason there.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmstudio import LMStudioCancelledError, LMStudioClient, LMStudioError, Signal
from lmstudio.testing import AWAIT_CANCEL, FakeServer
from scripts import is_cancel

RECORDING = Path(__file__).parents[2] / "shared" / "protocol" / "golden-js-1.5.0.json"
CALLS = {}
if RECORDING.is_file():
    for recorded in json.loads(RECORDING.read_text())["calls"]:
        CALLS[recorded["call"]] = recorded["messages"]

EVENLY = {"strategy": "evenly", "disabledGpus": [], "priority": [], "customRatio": []}
SCHEMA = {
    "type": "object",
    "properties": {"setup": {"type": "string"}, "punchline": {"type": "string"}},
    "required": ["setup", "punchline"],
}
TOOLS = {
    "type": "toolArray",
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "add",
                "description": "Add",
                "parameters": {
                    "type": "object",
                    "properties": {"a": {"type": "number"}},
                    "required": ["a"],
                },
            },
        }
    ],
}
ALL_LOAD = {
    "contextLength": 2048,
    "evalBatchSize": 256,
    "gpu": {"ratio": 1, "disabledGpus": [1]},
    "flashAttention": True,
    "ropeFrequencyBase": 10000,
    "ropeFrequencyScale": 1,
    "keepModelInMemory": True,
    "seed": 7,
    "useFp16ForKVCache": True,
    "tryMmap": False,
    "numExperts": 2,
    "llamaKCacheQuantizationType": "q8_0",
    "llamaVCacheQuantizationType": False,
}
ALL_PREDICTION = {
    "temperature": 0.7,
    "contextOverflowPolicy": "rollingWindow",
    "maxPredictedTokens": 100,
    "stopStrings": ["\n"],
    "toolCallStopStrings": ["x"],
    "topKSampling": 40,
    "repeatPenalty": 1.1,
    "minPSampling": 0.05,
    "topPSampling": 0.9,
    "cpuThreads": 2,
}
OFF = {
    "context_overflow_policy": "truncateMiddle",
    "max_tokens": False,
    "repeat_penalty": False,
    "min_p_sampling": False,
    "top_p_sampling": False,
}
COMPLETE = {
    "contextOverflowPolicy": "stopAtLimit",
    "maxPredictedTokens": 100,
    "stopStrings": ["\n"],
    "temperature": 0.7,
}
MANUAL = {
    "type": "manual",
    "manualPromptTemplate": {
        "beforeSystem": "",
        "afterSystem": "\n",
        "beforeUser": "Q: ",
        "afterUser": "\nA:",
        "beforeAssistant": "",
        "afterAssistant": "\n",
    },
    "stopStrings": ["Q:"],
}
JINJA = {
    "type": "jinja",
    "jinjaPromptTemplate": {"template": "{{messages}}"},
    "stopStrings": [],
}
THINKING = {"enabled": True, "startString": "<think>", "endString": "</think>"}
CHAT = [
    {"role": "system", "content": "Answer the following questions."},
    {"role": "user", "content": "What is the meaning of life?"},
]


def load(**options):
    return lambda client: client.llm.load("tiny", no_hup=True, **options)


def get(*names, **more):
    return lambda client: client.llm.get(*names, **more).get_model_info()


def on(name, *arguments, **options):
    """Call a method of the handle of ``my-model``, and wait for what it begins."""

    def act(client):
        made = getattr(client.llm.get("my-model"), name)(*arguments, **options)
        if hasattr(made, "exception"):
            made.exception(timeout=5)

    return act


def cancel(client):
    client.llm.get("my-model").respond("hi").cancel()


def cancel_load(client):
    stop = Signal()
    with pytest.raises(LMStudioCancelledError):
        client.llm.load(
            "tiny",
            identifier="zz",
            no_hup=True,
            signal=stop,
            on_progress=lambda _: stop.set(),
        )


OURS = {
    "llm.load(path)": load(),
    "llm.load identifier": load(identifier="my-model"),
    "llm.load contextLength": load(identifier="m2", config={"contextLength": 1024}),
    "llm.load gpu ratio 0.5": load(identifier="m3", acceleration={"offload": 0.5}),
    "llm.load gpu max/off": load(identifier="m4", config={"gpu": "max"}),
    "llm.load all config": load(identifier="m5", config=ALL_LOAD, ttl=60),
    "llm.model get-or-load": lambda client: client.llm.model("tiny", ttl=None),
    "llm.model() any": lambda client: client.llm.model(),
    "createDynamicHandle identifier": get("my-model"),
    "createDynamicHandle path": get(path="lmstudio-community/tiny"),
    "createDynamicHandle {}": get({}),
    "listLoaded": lambda client: client.llm.list_loaded(),
    "complete": on("complete", "The meaning of life is"),
    "complete config": on("complete", "Meaning of life is", config=COMPLETE),
    "respond messages": on("respond", CHAT),
    "respond string": on("respond", "hi"),
    "respond config": on("respond", "hi", config=ALL_PREDICTION),
    "respond truncateMiddle false limits": on("respond", "hi", **OFF),
    "respond preset": on("respond", "hi", preset="My ChatML"),
    "structured json any": on(
        "complete",
        "Here is a joke in JSON:",
        config={"maxPredictedTokens": 100},
        structured={"type": "json"},
    ),
    "structured jsonSchema": on(
        "respond",
        "joke",
        max_tokens=100,
        structured={"type": "json", "jsonSchema": SCHEMA},
    ),
    "structured gbnf": on(
        "respond",
        "joke",
        structured={"type": "gbnf", "gbnfGrammar": 'root ::= "yes" | "no"'},
    ),
    "respond manual prompt template": on("respond", "joke", prompt_template=MANUAL),
    "respond jinja template": on("respond", "joke", promptTemplate=JINJA),
    "respond draftModel reasoning": on(
        "respond", "joke", draft_model="draft", reasoning_parsing=THINKING
    ),
    "respond raw tools": on("respond", "joke", raw_tools=TOOLS),
    "cancel": cancel,
    "tokenize": on("tokenize", "hello"),
    "countTokens": on("count_tokens", "hello"),
    "applyPromptTemplate": on("apply_prompt_template", "hi"),
    "getLoadConfig via getContextLength": on("get_context_length"),
    "unload": lambda client: client.llm.unload("my-model"),
    "system.listDownloadedModels": lambda client: (
        client.system.list_downloaded_models()
    ),
    "load cancel": cancel_load,
}


def normal(message):
    """A message without what is known to differ.

    * The order of settings in a layer means nothing.
    * JavaScript 1.5.0 writes ``load.gpuSplitConfig`` always; newer official clients
      and we do so only when something about it was asked for.
    * Newer official clients and we switch the automatic fit off where placement or
      context were chosen by hand; 1.5.0 is older than that.
    * The recorded ``applyPromptTemplate`` asked for ``omitBosToken``; our call has no
      such option, and sends none.
    """
    parameter = json.loads(json.dumps(message.get("parameter")))
    if isinstance(parameter, dict):
        parameter.get("opts", {}).pop("omitBosToken", None)
        for name in ("loadConfigStack", "predictionConfigStack"):
            for layer in parameter.get(name, {}).get("layers", []):
                fields = layer["config"]["fields"]
                layer["config"]["fields"] = {
                    field["key"]: field["value"]
                    for field in fields
                    if not field["key"].endswith(".autoFit")
                    and field != {"key": "load.gpuSplitConfig", "value": EVENLY}
                }
    return message["endpoint"], parameter, message.get("packet")


def said(fake):
    """What a client sent, in the form of the recording."""
    endpoints = {}
    messages = []
    for seen in fake.requests:
        message = seen.message
        if seen.endpoint is not None:
            endpoints[message.get("channelId")] = seen.endpoint
            made = {"endpoint": seen.endpoint}
            if seen.parameter is not None:
                made["parameter"] = seen.parameter
            messages.append(made)
        elif message.get("type") == "channelSend":
            endpoint = endpoints[message["channelId"]]
            messages.append({"endpoint": endpoint, "packet": message["message"]})
    return messages


@pytest.mark.skipif(not CALLS, reason=f"{RECORDING.name} is not there")
def test_every_recorded_call_is_compared():
    """Neither side has a call that the other one lacks."""
    assert set(CALLS) == set(OURS)


@pytest.mark.skipif(not CALLS, reason=f"{RECORDING.name} is not there")
@pytest.mark.parametrize("name", CALLS)
def test_same_messages(name):
    """The same call sends the same messages."""
    with (
        FakeServer(["tiny"], extensions=()) as fake,
        LMStudioClient(fake.host) as client,
    ):
        if "load" not in name or name == "unload":
            fake.load("tiny", identifier="my-model")
        if "cancel" in name:
            fake.reply(AWAIT_CANCEL)
            fake.on_load([0.5, AWAIT_CANCEL])
        try:
            OURS[name](client)
        except LMStudioError:  # some settings mean nothing here; they were sent
            pass
        if "cancel" in name:
            fake.wait_for(is_cancel)

        assert [normal(m) for m in CALLS[name]] == [normal(m) for m in said(fake)]


def test_normal_leaves_real_differences():
    """What is not known to differ is not put right."""
    split = {"key": "load.gpuSplitConfig", "value": {**EVENLY, "priority": [1]}}
    layers = [{"layerName": "apiOverride", "config": {"fields": [split]}}]
    message = {"endpoint": "x", "parameter": {"loadConfigStack": {"layers": layers}}}

    (layer,) = normal(message)[1]["loadConfigStack"]["layers"]
    assert ["load.gpuSplitConfig"] == list(layer["config"]["fields"])
    assert normal(message) != normal({"endpoint": "x"})
