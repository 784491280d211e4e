"""No message of our client is refused by the schemas of official SDKs, old and new.

The schemas are those that the application uses itself; here they allow no field that
they don't name. What a key of a configuration stands for is checked as well.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import json
import subprocess
from pathlib import Path

import pytest

from interop.environments import SCHEMAS, schemas
from lmstudio import LMStudioClient, LMStudioError, Signal
from lmstudio.testing import AWAIT_CANCEL, FakeServer, tool_call
from lmstudio.wire.config import LOAD, PREDICTION
from scripts import is_cancel
from test_golden import OURS

SCRIPT = Path(__file__).parent / "schemas.mjs"
#: The smallest PNG: one pixel.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJ"
    "RU5ErkJggg=="
)
#: Options whose values have a form of their own.
FORMS = {
    "prompt_template": {"type": "jinja", "jinjaPromptTemplate": {"template": "x"}},
    "llama_cpp_arguments_override": {
        "enabled": True,
        "excludeAllConfig": False,
        "disabledParameters": [],
        "overrideParameters": [],
    },
    "mlx_kv_cache_quantization": {
        "enabled": True,
        "bits": 4,
        "groupSize": 64,
        "quantizedStart": 0,
    },
    "mirostat_sampling": {"version": 2, "learningRate": 0.1, "targetEntropy": 5},
    "reasoning_parsing": {"enabled": True, "startString": "<", "endString": ">"},
    "tool_choice": "auto",
    "speculative_draft_model": "any",
    "env_vars": {"HSA_OVERRIDE_GFX_VERSION": "11.0.0"},
    "context_prefill": [{"type": "jsonFile", "absPath": "/a.json"}],
    "gpu_split": {
        "strategy": "evenly",
        "disabledGpus": [],
        "priority": [],
        "customRatio": [],
    },
}
#: A value of each kind that some other option takes; each is sent with the first of
#: them that its check lets through.
VALUES = [
    *(0.5, 1, True, "f16", "stopAtLimit", "snakeCase", ["x"], [[1, 0.5]]),
    *({"type": "none"}, "text"),
]
#: What a version does not know yet, and where it says so.
LATER = {
    "1.0.1": {
        "fuzzyPresetIdentifier",  # presets by name
        "gbnfGrammar",  # answers by a grammar
        "inputConfig",  # templates without one
        "toolDefinitions",  # tools in formatted texts
    },
}


def options_of(table):
    """A value for every option of a table."""
    options = {}
    for row in table.settings:
        for value in [FORMS[row.name]] if row.name in FORMS else VALUES:
            with contextlib.suppress(ValueError):
                row.check(value)
                options[row.name] = value
                break
    assert set(table.names()) == set(options)
    if table is PREDICTION:  # templates have a longer form there
        options["prompt_template"] = {**FORMS["prompt_template"], "stopStrings": []}
    return options


def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


def say_all():
    """Everything that our client can say."""
    messages = []
    for name, act in OURS.items():
        with server(["tiny"]) as fake, LMStudioClient(fake.host) as client:
            if "load" not in name:
                fake.load("tiny", identifier="my-model")
            if "cancel" in name:
                fake.reply(AWAIT_CANCEL)
                fake.on_load([0.5, AWAIT_CANCEL])
            with contextlib.suppress(LMStudioError):  # of options without a meaning
                act(client)
            if "cancel" in name:
                fake.wait_for(is_cancel)
            messages += fake.requests
    for speak in (manage, predict, work, read):
        keys = ["any", "see-vision", "embed"]
        with server(keys) as fake, LMStudioClient(fake.host) as client:
            for key in keys:
                fake.load(key)
            speak(fake, client)
            messages += fake.requests
    return [
        {"namespace": m.namespace, "message": m.message, "endpoint": name}
        for m, name in zip(messages, endpoints(messages), strict=True)
        if "authVersion" not in m.message
    ]


def server(keys):
    """A server that looks like the application."""
    return FakeServer(keys, extensions=())


def endpoints(messages):
    """The endpoint of each message, also of packets in a channel."""
    opened, names = {}, []
    for seen in messages:
        # Calls and the first message of a socket have no channel.
        channel = seen.namespace, seen.message.get("channelId")
        if "channelId" in seen.message and seen.endpoint is not None:
            opened[channel] = seen.endpoint
        names.append(seen.endpoint or opened.get(channel))
    return names


def manage(fake, client):
    """Load, find, list and unload, with every option of loading."""
    options = options_of(LOAD)
    loaded = client.llm.load("any", identifier="x", config=options, ttl=1.5)
    client.llm.load("any", config={"gpu": "off"}, no_hup=True)
    client.llm.load("any", acceleration={"offload": "max"})
    client.llm.model("any", ttl=60, config={"context_length": 512})
    client.embedding.load("embed", config={"gpu": 0.5, "context_length": 512})
    client.embedding.model("embed").get_load_config()
    for handle in (loaded, client.llm.get(), client.llm.get(path=loaded.path)):
        handle.get_info()
        handle.get_load_config()
        handle.get_model_info()
    loaded.unload()
    client.list_loaded_models()
    client.list_downloaded_models()
    stop = Signal()
    fake.on_load([0.5, AWAIT_CANCEL])
    with pytest.raises(LMStudioError):
        client.llm.load("any", on_progress=lambda _: stop.set(), signal=stop)
    fake.wait_for(is_cancel)


def predict(fake, client):
    """Histories of all kinds, with every option of predictions."""
    options = options_of(PREDICTION)
    model = client.llm.get("any")
    model.respond("x", config=options).exception(timeout=5)
    model.complete("x", pre_prompt="y", max_tokens=5).result()
    call = {"id": "7", "function": {"name": "f", "arguments": "{}"}}
    model.respond(
        [
            ("system", "s"),
            ("user", ["u", "v"]),
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "r", "tool_call_id": "7"},
            ("assistant", "a"),
        ],
        input_prefix="Q: ",
    ).result()
    seen = client.prepare_image(PNG, "dot.png")
    message = {"role": "user", "content": ["What is it?", seen]}
    client.llm.get("see-vision").respond([message]).result()
    fake.reply('{"a": 1}')
    model.respond("x", response_format={"type": "object"}).result()
    fake.reply(["a", AWAIT_CANCEL])
    for _ in model.respond("x", signal=Signal()):
        break
    fake.wait_for(is_cancel)


def work(fake, client):
    """Tools, in rounds."""
    model = client.llm.get("any")
    fake.reply(tool_call("add", {"a": 1}))
    fake.reply("2")
    model.act("1 + 1?", [add], tool_choice="required")
    for choice in ("none", "auto", "required"):
        model.respond("x", tools=[add], tool_choice=choice).result()


def read(_, client):
    """Tokens, templates, embeddings, the log, the version."""
    model, embedding = client.llm.get("any"), client.embedding.get("embed")
    for handle in (model, embedding):
        handle.tokenize(["a", "b c"])
        handle.count_tokens("a b")
    model.apply_prompt_template([("user", "x")], omit_bos_token=True)
    model.count_tokens([("user", "x")], tools=[add])
    embedding.embed(["a", "b"])
    client.system.get_version()
    with client.diagnostics.stream_logs() as stream:
        model.complete("x").result()
        next(stream)


@pytest.fixture(scope="module")
def said():
    """What our client said, once for all versions."""
    return say_all()


@pytest.fixture(scope="module", params=SCHEMAS)
def check(request):
    """Checks messages with the schemas of one version."""
    node, places = schemas()

    def told(messages):
        done = subprocess.run(
            [node, str(SCRIPT), str(places[request.param])],
            input=json.dumps(messages),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ("", 0) == (done.stderr, done.returncode)
        return json.loads(done.stdout)

    told.version = request.param
    return told


def test_nothing_is_refused(check, said):
    """Each message, each parameter and each value of an option is allowed."""
    told = check(said)
    later = LATER.get(check.version, set())
    refused = {
        problem: {word for word in later if word in problem}
        for problem in told["problems"]
    }

    assert [] == [problem for problem, words in refused.items() if not words]
    assert later == set().union(*refused.values())
    if check.version == SCHEMAS[-1]:
        assert [] == told["unknown"]


def test_what_is_wrong_is_refused(check, said):
    """A field too many, also deep inside, and a wrong value of an option."""
    good = next(
        message
        for message in said
        if "'hi'" in str(message) and message["endpoint"] == "predict"
    )
    wrong = copy.deepcopy(good)
    parameter = wrong["message"]["creationParameter"]
    parameter["history"]["messages"][0]["newest"] = True
    (layer, *_) = parameter["predictionConfigStack"]["layers"]
    layer["config"]["fields"] = [{"key": "llm.prediction.temperature", "value": "hot"}]

    assert [] == check([good])["problems"]
    deep, value = check([wrong])["problems"]
    assert "newest" in deep
    assert "llm.prediction.temperature" in value
