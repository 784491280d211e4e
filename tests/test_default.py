"""The shared client, and the functions that use it."""

from __future__ import annotations

import threading

import pytest

import lmstudio
import lmstudio.default
from lmstudio import LMStudioRuntimeError


@pytest.fixture(autouse=True)
def no_default(monkeypatch):
    """No test uses the shared client of another."""
    monkeypatch.setattr(lmstudio.default, "_client", None)
    yield
    if lmstudio.default._client is not None:
        lmstudio.default._client.close()


@pytest.fixture
def found(fake, monkeypatch):
    """The scripted server, where clients without an address look for one."""
    monkeypatch.setenv("LMSTUDIO_HOST", fake.host)
    return fake


def test_it_is_made_once(found):
    """All functions share one client, also when threads ask at once."""
    together = threading.Barrier(8)
    clients = []

    def get():
        together.wait()
        clients.append(lmstudio.get_default_client())

    threads = [threading.Thread(target=get) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 1 == len(set(clients))
    assert found.url == clients[0].address


def test_it_is_made_for_a_server(fake):
    """The first one who asks may name the server; others may name the same one."""
    client = lmstudio.get_default_client(fake.host)

    assert fake.url == client.address
    assert client is lmstudio.get_default_client()
    assert client is lmstudio.get_default_client(f"http://{fake.host}")
    with pytest.raises(LMStudioRuntimeError, match="already in use"):
        lmstudio.get_default_client("127.0.0.1:9")


def test_functions(found):
    """The official snippets: one line for a model and its answer."""
    found.reply("42")

    assert "42" == lmstudio.llm("any").respond("life?").content
    assert "any" == lmstudio.llm().identifier
    assert "other" == lmstudio.llm("other", ttl=5, config={"seed": 7}).identifier
    assert ["any", "other"] == [m.identifier for m in lmstudio.list_loaded_models()]
    assert ["any", "other"] == [m.model_key for m in lmstudio.list_downloaded_models()]
    assert [] == lmstudio.list_downloaded_models("embedding")


def test_it_is_configured_before_its_first_use(fake):
    """Afterwards it is too late, and that is an error."""
    lmstudio.configure_default_client(fake.host, api_token=None)
    assert ["any"] == [m.identifier for m in lmstudio.list_loaded_models()]

    with pytest.raises(LMStudioRuntimeError) as caught:
        lmstudio.configure_default_client("elsewhere")
    assert (
        "the default client is already in use; configure it before the first"
        " call, or make a client of your own"
    ) == str(caught.value)


def test_one_that_was_closed_is_replaced(found):
    """Closing the shared client does not end the functions."""
    first = lmstudio.get_default_client()
    first.close()

    assert 1 == len(lmstudio.list_loaded_models())
    second = lmstudio.get_default_client()
    assert first is not second
    second.close()
    lmstudio.configure_default_client(found.host)
    assert 1 == len(lmstudio.list_loaded_models())


def test_a_child_process_starts_with_a_new_lock():
    """What a thread of the parent held is free in the child."""
    held = lmstudio.default._making
    with held:
        lmstudio.default._after_fork()
    assert held is not lmstudio.default._making


def test_every_public_name_is_there():
    """What __all__ promises can be imported, once."""
    assert len(set(lmstudio.__all__)) == len(lmstudio.__all__)
    for name in lmstudio.__all__:
        assert hasattr(lmstudio, name), name
    assert lmstudio.Client is lmstudio.LMStudioClient
