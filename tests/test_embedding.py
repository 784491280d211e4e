"""Embedding models: loaded like text models, many texts at once, in order."""

from __future__ import annotations

import threading

import pytest

import lmstudio
from lmstudio import (
    EmbeddingModel,
    LMStudioClient,
    LMStudioModelNotFoundError,
    LMStudioServerError,
    LMStudioTimeoutError,
    LMStudioTypeError,
    LMStudioUnsupportedError,
    LMStudioValueError,
)
from lmstudio.server.engine import BadRequest
from lmstudio.testing import NEVER, Await, FakeServer
from schema import problems


@pytest.fixture
def fake():
    """A server with a text model and an embedding model in memory."""
    models = ["any", "text-embed", "other-embed"]
    with FakeServer(models, loaded=["any", "text-embed"]) as server:
        yield server


@pytest.fixture
def model(client):
    """A handle of the loaded embedding model."""
    return client.embedding.get("text-embed")


def test_one_text(model):
    """A text has one vector of floats, the same for the same text."""
    vector = model.embed("Hello")

    assert [float, float] == [type(x) for x in vector]
    assert vector == model.embed("Hello")
    assert vector != model.embed("World")
    assert pytest.approx(1.0) == sum(x * x for x in vector)


def test_several_texts(fake, model):
    """Each text has the vector that it would have alone, in order."""
    fake.embed_with(lambda text: [len(text), 0.5])
    texts = ["a", "bbb", "", "bb"]

    assert [[1.0, 0.5], [3.0, 0.5], [0.0, 0.5], [2.0, 0.5]] == model.embed(texts)
    assert model.embed(texts) == model.embed(text for text in texts)
    assert [model.embed(text) for text in texts] == model.embed(tuple(texts))
    assert [] == model.embed([])


def test_no_text_waits_for_the_one_before(fake, model):
    """All are sent while the first is still worked on."""
    first = Await()
    fake.before("embedString", first)
    inputs = [str(n) for n in range(20)]

    def open_after_the_last():
        fake.wait_for(lambda seen: (seen.parameter or {}).get("inputString") == "19")
        first.open()

    opener = threading.Thread(target=open_after_the_last)
    opener.start()

    assert 20 == len(model.embed(inputs))
    assert inputs == [p["inputString"] for p in fake.parameters("embedString")]
    opener.join()


def test_one_that_fails_says_which(fake, model):
    """The error has the index of the text; nothing is left waiting."""

    def embed(text):
        if text == "bad":
            raise BadRequest("This text can't be embedded")
        return [1.0]

    fake.embed_with(embed)
    with pytest.raises(
        LMStudioServerError, match=r"^input 2: embedString: This"
    ) as got:
        model.embed(["a", "b", "bad", "c"])

    assert 2 == got.value.index
    assert [1.0] == model.embed("c")
    assert 0 == model._session.connection("embedding")._protocol.open_requests


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (7, "embed takes a text or several, not 7"),
        (b"bytes", "embed takes a text or several, not b'bytes'"),
        ({"a": 1}, "embed takes a text or several, not {'a': 1}"),
        (["a", None], "text 1 must be text, not None"),
        ([["a"]], r"text 0 must be text, not \['a'\]"),
    ],
)
def test_what_is_no_text(fake, model, given, words):
    """The error says where it stands, and nothing was sent."""
    with pytest.raises(LMStudioTypeError, match=f"^{words}$"):
        model.embed(given)
    with pytest.raises(
        LMStudioTypeError, match=f"^{words.replace('embed', 'tokenize')}$"
    ):
        model.tokenize(given)

    assert [] == fake.requests


def test_a_lone_surrogate_is_refused(fake, model):
    """It has no encoding; the error says which text holds one."""
    with pytest.raises(LMStudioValueError, match=r"^text 1 holds a lone surrogate"):
        model.embed(["a", "\ud800"])

    assert [] == fake.requests


@pytest.mark.slow
def test_the_time_limit_is_that_of_predictions(fake):
    """It may take long; a client's time limit for what takes long holds."""
    gate = Await()
    with LMStudioClient(fake.host, timeout=0.05, idle_timeout=60) as client:
        model = client.embedding.get("text-embed")
        client._session.connection("embedding")  # which would count
        for given, words in (("a", "^embedString: no"), (["a"], "^input 0: embedStr")):
            fake.before("embedString", gate)
            with pytest.raises(LMStudioTimeoutError, match=words):
                model.embed(given)
    fake.before("embedString", gate)
    with LMStudioClient(fake.host, idle_timeout=0.05) as client:
        opener = threading.Timer(0.2, gate.open)
        opener.start()
        assert 2 == len(client.embedding.get("text-embed").embed("a"))
        opener.join()


def test_tokens(fake, model):
    """Tokens of one text, of several, and how many: ids are those that it embeds."""
    one, two = model.tokenize("Hello"), model.tokenize("Hello big world")

    assert (2, 4) == (len(one), len(two))  # the scripted model has one in front
    assert [one, two] == model.tokenize(["Hello", "Hello big world"])
    assert 3 == model.count_tokens("Hello big world")


def test_load_like_a_text_model(fake, client):
    """Every way to load, look up and unload is there, in a namespace of its own."""
    with LMStudioClient(fake.host) as other:
        mine = other.embedding.load(
            "other-embed", identifier="mine", config={"context_length": 64}
        )
        assert EmbeddingModel is type(mine)
        assert "<EmbeddingModel identifier='mine'>" == repr(mine)
        assert 64 == mine.get_context_length()
        assert {"context_length": 64} == mine.get_load_config()
        assert "embedding" == mine.get_info().type
        assert mine == other.embedding.get("mine")
        assert ["text-embed", "mine"] == [
            m.identifier for m in other.embedding.list_loaded()
        ]
    assert ["text-embed"] == [m.identifier for m in client.embedding.list_loaded()]
    shared = client.embedding.model("other-embed", config={"seed": 3})
    assert shared == client.embedding.model("other-embed")
    assert 3 == shared.get_load_config()["seed"]
    assert (
        "other-embed:2" == client.embedding.load_new_instance("other-embed").identifier
    )
    shared.unload()
    client.embedding.unload("other-embed:2")
    assert "text-embed" == client.embedding.model().identifier
    keys = [info.model_key for info in client.embedding.list_downloaded()]
    assert ["text-embed", "other-embed"] == keys


def test_gpu_options_have_their_own_keys(fake, client):
    """An embedding model is loaded with keys of its own, and nothing else."""
    client.embedding.load("other-embed", acceleration={"offload": 0.5})
    (sent,) = fake.parameters("loadModel")

    (layer,) = sent["loadConfigStack"]["layers"]
    ratio = "embedding.load.llama.acceleration.offloadRatio"
    assert [{"key": ratio, "value": 0.5}] == layer["config"]["fields"]


def test_what_travels_fits_the_schema(fake, client):
    """Every call is as the application knows it."""
    model = client.embedding.load("other-embed", config={"context_length": 8}, ttl=5)
    client.embedding.model("text-embed")
    model.embed(["a"])
    model.tokenize("a")
    model.count_tokens("a")
    model.get_load_config()
    model.get_info()
    model.unload()
    calls = (
        *("embedString", "tokenize", "countTokens", "getLoadConfig", "getModelInfo"),
        "unloadModel",
    )
    kinds = {
        **{f"embedding/rpc/{name}/parameter": name for name in calls},
        **{
            f"embedding/channel/{name}/creationParameter": name
            for name in ("loadModel", "getOrLoad")
        },
    }
    for definition, endpoint in kinds.items():
        (sent, *_) = fake.parameters(endpoint)
        assert [] == problems(definition, sent)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"preset": "mine"}, "preset is for predictions"),
        ({"config": {"flash_attention": True}}, "flash_attention"),
    ],
)
def test_what_an_embedding_model_does_not_have(fake, client, options, words):
    """Options of text models are refused, and nothing was sent."""
    with pytest.raises(LMStudioValueError, match=words):
        client.embedding.load("other-embed", **options)

    assert [] == fake.requests


def test_the_other_kind_is_not_found(client):
    """A text model can't be used as an embedding model, and the error says so."""
    with pytest.raises(LMStudioModelNotFoundError, match="of the kind 'llm'"):
        client.embedding.load("any")
    with pytest.raises(LMStudioModelNotFoundError, match="of the kind 'embedding'"):
        client.llm.load("text-embed")
    with pytest.raises(LMStudioModelNotFoundError):
        client.embedding.get("any").embed("x")


def test_what_it_does_at_the_moment(fake, client, model):
    """A model says whether it is idle, and how many requests it has."""
    gate, seen = Await(), []
    text = client.llm.get("any")
    fake.reply(["one", gate])
    prediction = text.respond("Hi")
    next(iter(prediction))
    seen.append(text.get_processing_state())
    gate.open()
    prediction.result()

    assert ("generating", 1) == (seen[0].status, seen[0].queued)
    assert ("idle", 0) == (
        model.get_processing_state().status,
        model.get_processing_state().queued,
    )
    with pytest.raises(LMStudioModelNotFoundError):
        client.embedding.get("nobody").get_processing_state()


def test_an_older_server_can_not_say_what_it_does(fake, model):
    """A server without the call is told apart from one that does not answer."""
    fake.before("getInstanceProcessingState", NEVER)
    text = "No such call in namespace embedding, endpoint = getInstanceProcessingState"
    warning = {
        "type": "communicationWarning",
        "kind": "rpcEndpointUnknown",
        "warning": text,
    }

    def warn():
        fake.wait_for_call("getInstanceProcessingState")
        fake.send("embedding", warning)

    thread = threading.Thread(target=warn)
    thread.start()
    with pytest.raises(LMStudioUnsupportedError):
        model.get_processing_state()
    thread.join()


def test_both_kinds_together(client):
    """What is in memory and on the disk, of one kind or of both."""
    both = client.list_loaded_models()

    assert ["LLM", "EmbeddingModel"] == [type(model).__name__ for model in both]
    assert both[:1] == client.list_loaded_models("llm")
    assert both[1:] == client.list_loaded_models("embedding")
    assert 3 == len(client.list_downloaded_models())
    assert ["any"] == [i.model_key for i in client.list_downloaded_models("llm")]
    with pytest.raises(LMStudioValueError, match="not 'tts'"):
        client.list_loaded_models("tts")


def test_functions_of_the_default_client(fake, monkeypatch):
    """The official snippet: one line for a model and its vector."""
    monkeypatch.setenv("LMSTUDIO_HOST", fake.host)
    monkeypatch.setattr("lmstudio.default._client", None)
    try:
        assert 2 == len(lmstudio.embedding_model("text-embed").embed("Hello"))
        assert "text-embed" == lmstudio.embedding_model().identifier
        loaded = lmstudio.list_loaded_models("embedding")
        assert ["text-embed"] == [model.identifier for model in loaded]
        assert 2 == len(lmstudio.list_loaded_models())
        assert 2 == len(lmstudio.list_downloaded_models("embedding"))
    finally:
        lmstudio.get_default_client().close()
