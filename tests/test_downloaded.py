"""A model on the disk knows how it is loaded."""

from __future__ import annotations

import pickle

import pytest

from lmstudio import DownloadedModel, LMStudioClient, LMStudioValueError, ModelInfo
from lmstudio.downloaded import with_loader
from lmstudio.testing import FakeServer


@pytest.fixture
def fake():
    with FakeServer(["any", "text-embed"]) as made:
        yield made


@pytest.fixture
def client(fake):
    with LMStudioClient(fake.url) as made:
        yield made


def test_what_it_says(client):
    """It is a `ModelInfo`, and has one by itself that can be kept."""
    (item,) = client.llm.list_downloaded()

    assert isinstance(item, DownloadedModel)
    assert isinstance(item, ModelInfo)
    assert ("llm", "any") == (item.type, item.model_key)
    assert ModelInfo is type(item.info)
    assert (item.path, item.raw) == (item.info.path, item.info.raw)
    assert item.info == pickle.loads(pickle.dumps(item.info))
    assert repr(item).startswith("DownloadedModel(type='llm', model_key='any', path=")
    assert "loads" not in repr(item)


def test_get_or_load(fake, client):
    """`model` takes what is loaded, and loads it if there is nothing."""
    (item,) = client.llm.list_downloaded()
    seen = []
    first = item.model(ttl=5, config={"context_length": 512}, on_progress=seen.append)

    assert first == item.model()
    assert ["any"] == fake.loaded()
    assert 512 == first.get_context_length()
    assert 5000 == first.info.ttl_ms
    assert 1.0 == seen[-1]
    assert 3600000 == fake.parameters("getOrLoad")[-1]["loadTtlMs"]


def test_load_anew(fake, client):
    """`load_new_instance` loads once more, under a name if one is given."""
    (item,) = client.embedding.list_downloaded()
    seen = []
    item.load_new_instance("one", ttl=None, on_load_progress=seen.append)
    item.load_new_instance(instance_identifier="two", config={"context_length": 64})

    assert ["one", "two"] == fake.loaded()
    assert "ttlMs" not in fake.parameters("loadModel")[0]
    assert 1.0 == seen[-1]
    assert 64 == client.embedding.get("two").get_context_length()


def test_all_models_of_a_server(client):
    """In the list of both kinds each is loaded as what it is."""
    handles = {item.type: item.model() for item in client.list_downloaded_models()}

    assert client.llm.get("any") == handles["llm"]
    assert client.embedding.get("text-embed") == handles["embedding"]


def test_kinds_that_can_not_be_loaded():
    """A voice is only listed."""
    info = ModelInfo(type="tts", model_key="voice", path="a/voice")
    item = with_loader(info, None)
    for ask in (item.model, item.load_new_instance):
        with pytest.raises(LMStudioValueError) as caught:
            ask()
        assert (
            "'voice' can't be loaded: it is of the type 'tts', and only 'llm' and"
            " 'embedding' can"
        ) == str(caught.value)


def test_wrong_arguments(fake, client):
    """They are checked as everywhere, before anything is sent."""
    (item,) = client.llm.list_downloaded()
    before = len(fake.requests)
    for ask in (
        lambda: item.model(ttl="1"),
        lambda: item.model(on_progress=lambda: 0),
        lambda: item.load_new_instance(config={"temperature": 1}),
        lambda: item.load_new_instance(5),
    ):
        with pytest.raises(LMStudioValueError):
            ask()
    assert before == len(fake.requests)
