"""The models of a server: listed, looked up, loaded and unloaded."""

from __future__ import annotations

import logging

import attrs
import pytest

import lmstudio
from lmstudio import (
    LMStudioClient,
    LMStudioModelNotFoundError,
    LMStudioPresetNotFoundError,
    LMStudioTypeError,
    LMStudioValueError,
)
from lmstudio.server.calls import CALLS
from lmstudio.testing import FakeServer
from lmstudio.wire.common import ModelQuery
from lmstudio.wire.endpoints import ENDPOINTS, endpoint


def parameter(fake, endpoint="loadModel"):
    (only,) = fake.parameters(endpoint)
    return only


def test_what_a_load_sends(fake, client):
    """Only what was asked for travels, and who owns it where the server knows that."""
    client.llm.load("other")

    assert {
        "modelKey": "other",
        "loadConfigStack": {
            "layers": [{"layerName": "apiOverride", "config": {"fields": []}}]
        },
        "noHup": False,
    } == parameter(fake)


def test_all_that_a_load_can_say():
    """Identifier, time to live, preset, configuration and ownership."""
    with (
        FakeServer(extensions=["noHup", "loadPreset"]) as fake,
        LMStudioClient(fake.host) as client,
    ):
        with pytest.raises(LMStudioPresetNotFoundError):  # as there are none here
            client.llm.load(
                "any",
                identifier="mine",
                config={"contextLength": 1024},
                acceleration={"offload": 0.5},
                preset="My ChatML",
                no_hup=True,
                ttl=1.5,
            )
        sent = parameter(fake)

    assert ("mine", 1500, True, "My ChatML") == tuple(
        sent[name] for name in ("identifier", "ttlMs", "noHup", "preset")
    )
    assert 5 == len(sent["loadConfigStack"]["layers"][0]["config"]["fields"])


def test_a_server_without_extensions():
    """The application refuses what it does not know, so it gets none of it."""
    with (
        FakeServer(extensions=()) as fake,
        LMStudioClient(fake.host) as client,
    ):
        client.llm.load("any", preset="Mine", no_hup=True)
        assert {"modelKey", "loadConfigStack"} == set(parameter(fake))


@pytest.mark.parametrize(
    "greeting", [{}, {"extensions": None}, {"extensions": "noHup"}]
)
def test_odd_greetings(fake, client, monkeypatch, greeting):
    """A greeting that says nothing of use announces nothing."""
    monkeypatch.setattr("lmstudio.session.Session.greeting", lambda _: greeting)
    client.llm.load("other", no_hup=True)
    assert {"modelKey", "loadConfigStack"} == set(parameter(fake))


def test_verbose(fake, client, caplog):
    """The progress is logged when asked for, beside the callback."""
    caplog.set_level(logging.INFO, "lmstudio.catalog")
    fake.on_load([0.5])
    fake.on_load([1.0])
    told = []

    client.llm.load("other", verbose=True, on_progress=told.append)
    client.llm.load("other", verbose=True)

    assert [0.5, 1.0] == told
    assert [
        "loading other: 50 %",
        "loading other: 100 %",
        "loading other: 100 %",
    ] == caplog.messages


def test_load_new_instance(fake, client):
    """The official name, for a model that outlives this client."""
    told = []
    model = client.llm.load_new_instance(
        "other", "mine", config={"seed": 7}, on_load_progress=told.append
    )

    assert "mine" == model.identifier
    assert [0.0, 1.0] == told
    assert (3_600_000, True) == (parameter(fake)["ttlMs"], parameter(fake)["noHup"])


def test_get_or_load(fake, client):
    """One call for both, with a time to live."""
    assert "other" == client.llm.model("other", config={"seed": 7}).identifier
    assert "other" == client.llm.model("other", ttl=None).identifier

    first, second = fake.parameters("getOrLoad")
    assert ("other", 3_600_000) == (first["identifier"], first["loadTtlMs"])
    assert "loadTtlMs" not in second
    assert ["any", "other"] == fake.loaded()


def test_any_model(fake, client):
    """Without a key it is any loaded one, and an error when there is none."""
    assert "any" == client.llm.model().identifier
    client.llm.unload("any")
    with pytest.raises(LMStudioModelNotFoundError):
        client.llm.model()


def test_get_does_not_ask(fake, client):
    """A handle is made without any traffic, in all the README's forms."""
    forms = [
        (client.llm.get("any"), {"identifier": "any"}),
        (client.llm.get({"identifier": "any"}), {"identifier": "any"}),
        (client.llm.get(identifier="any"), {"identifier": "any"}),
        (client.llm.get({"path": "a/b"}), {"path": "a/b"}),
        (client.llm.get(path="a/b"), {"path": "a/b"}),
        (
            client.llm.get({"path": "a/b"}, identifier="x"),
            {"path": "a/b"} | {"identifier": "x"},
        ),
        (client.llm.get({}), {}),
        (client.llm.get(), {}),
        (client.llm.get(None), {}),
        (client.llm.get({"identifier": None}), {}),
    ]
    assert [] == fake.requests

    for model, query in forms:
        model.get_model_info()
        assert query == fake.parameters("getModelInfo")[-1]["specifier"]["query"]


@pytest.mark.parametrize(
    ("query", "more", "error"),
    [
        (7, {}, "get takes an identifier or a mapping, not 7"),
        ("", {}, "identifier must be 1 to 1024 characters"),
        ({"name": "x"}, {}, "unknown field 'name' in a query; known are identifier, p"),
        ({"identifier": 7}, {}, "identifier must be text, not 7"),
        (None, {"path": 7}, "path must be text, not 7"),
        ("any", {"identifier": "any"}, "identifier is given twice"),
        ({"path": "a"}, {"path": "a"}, "path is given twice"),
    ],
    ids=str,
)
def test_wrong_queries(client, query, more, error):
    """A query that can't be meant is refused."""
    with pytest.raises(LMStudioValueError) as caught:
        client.llm.get(query, **more)
    assert str(caught.value).startswith(error)


def test_lists(fake, client):
    """Loaded models are handles, those on the disk are descriptions."""
    assert [client.llm.get("any")] == client.llm.list_loaded()
    assert "any" == client.llm.list_loaded()[0].info.identifier
    downloaded = client.llm.list_downloaded()
    assert ["any", "other"] == [info.model_key for info in downloaded]
    assert downloaded == client.system.list_downloaded_models()


@pytest.mark.parametrize("domain", ["llms", "", "LLM"])
def test_unknown_domains(client, domain):
    """A domain that the protocol does not have is an error, not an empty list."""
    for ask in (client.system.list_downloaded_models, client.list_downloaded_models):
        with pytest.raises(LMStudioValueError) as caught:
            ask(domain)
        assert (
            f"the domain must be 'llm', 'embedding' or None, not {domain!r};"
            " other domains of the protocol are imageGen, transcription, tts, drafter"
        ) == str(caught.value)
    with pytest.raises(LMStudioTypeError, match="must be 'llm', 'embedding' or None"):
        client.system.list_downloaded_models(5)
    with pytest.raises(LMStudioTypeError):
        client.system.list_downloaded_models(["llm"])
    assert [] == client.system.list_downloaded_models("tts")


def test_names_in_errors_are_cut(client):
    """An error repeats at most 200 characters of what was given."""
    for wrong in ({"x" * 1024: 1}, {"context_length": 1, "y" * 5000: 2}):
        for ask in (
            lambda wrong=wrong: client.llm.get(wrong),
            lambda wrong=wrong: client.llm.load("any", config=wrong),
            lambda wrong=wrong: client.llm.get("any").respond("x", config=wrong),
        ):
            with pytest.raises(LMStudioValueError) as caught:
                ask()
            assert len(str(caught.value)) < 400


def test_kinds():
    """The disk may hold embedding models as well."""
    with (
        FakeServer(["any", "text-embed"]) as fake,
        LMStudioClient(fake.host) as client,
    ):
        system = client.system
        keys = [
            [info.model_key for info in system.list_downloaded_models(domain)]
            for domain in (None, "llm", "embedding")
        ]
        assert [["any", "text-embed"], ["any"], ["text-embed"]] == keys
        assert ["any"] == [info.model_key for info in client.llm.list_downloaded()]
        (first,) = (
            i for i in client.system.list_downloaded_models() if i.type == "llm"
        )
        assert "any" == client.llm.load(first.path).info.model_key


def test_unload(fake, client):
    """By its identifier; an unknown one is an error."""
    client.llm.unload("any")
    assert [] == fake.loaded()
    with pytest.raises(LMStudioModelNotFoundError):
        client.llm.unload("any")
    for wrong in (None, 7, ""):
        with pytest.raises(LMStudioValueError, match="identifier must be"):
            client.llm.unload(wrong)


def test_wrong_arguments_of_model(fake, client):
    """They are found before anything is sent."""
    for arguments in (
        {"ttl": "x"},
        {"ttl": 0},
        {"config": {"contextLenght": 1}},
        {"timeout": -1},
        {"on_load_progress": 7},
    ):
        with pytest.raises(LMStudioValueError):
            client.llm.model("other", **arguments)
    with pytest.raises(LMStudioTypeError):
        client.llm.model(7)
    assert [] == fake.requests


def test_version(client):
    """The server's version, as it says it."""
    assert lmstudio.__version__.startswith(client.system.get_version()[:3])


def test_the_config_of_a_loaded_model(fake, client, caplog):
    """A loaded model stays as it is; a warning names each option that differs."""
    caplog.set_level(logging.WARNING)
    wanted = {"contextLength": 1000, "seed": 7}
    client.llm.model("other", config=wanted)
    client.llm.model("other", config=wanted)
    client.llm.model("other")
    assert [] == caplog.messages
    asked = len(fake.parameters("getLoadConfig"))

    handle = client.llm.model(
        "other", config=wanted | {"context_length": None, "seed": 8}
    )

    assert 7 == handle.get_load_config()["seed"]
    assert [
        "'other' is loaded already, with seed=7 and not 8; load() loads it anew"
    ] == (caplog.messages)
    assert (1, 2) == (asked, len(fake.parameters("getLoadConfig")) - 1)


def test_a_server_that_does_not_tell_the_config(fake, client, caplog):
    """The handle comes all the same."""
    caplog.set_level(logging.WARNING)
    fake.fail("getLoadConfig", "no")

    assert "any" == client.llm.model("any", config={"seed": 8}).identifier
    assert [] == caplog.messages


def test_a_wrong_callback_is_named_as_it_was_given(client):
    """The error says on_load_progress to who wrote that."""
    for ask in (client.llm.load, client.llm.model, client.llm.load_new_instance):
        with pytest.raises(LMStudioTypeError, match=r"^on_load_progress must be a fun"):
            ask("any", on_load_progress=5)
    with pytest.raises(LMStudioTypeError, match=r"^on_progress must be a function"):
        client.llm.load("any", on_progress=5)


def test_estimate(fake, client, monkeypatch):
    """What a model would take is asked for with its options, and read by its names."""
    asked = []
    memory = dict.fromkeys(
        [
            *("modelVramBytes", "contextVramBytes", "totalVramBytes"),
            *("modelBytes", "contextBytes", "totalBytes"),
        ],
        7,
    )

    async def estimate(_, parameter):
        asked.append(parameter)
        return {"memory": {"confidence": "low", **memory}, "passesGuardrails": True}

    name = ("llm", "estimateModelUsage")
    monkeypatch.setitem(ENDPOINTS, name, endpoint(*name))
    monkeypatch.setitem(CALLS, name, estimate)
    usage = client.llm.estimate_resources_usage("any", {"context_length": 512})

    assert ("low", 7, True) == (
        usage.memory.confidence,
        usage.memory.total_bytes,
        usage.passes_guardrails,
    )
    ((layer,),) = [parameter.load_config_stack.layers for parameter in asked]
    assert ("any", 512) == (asked[0].model_key, layer.config.fields[0].value)


def test_estimate_of_a_wrong_option(fake, client):
    """A wrong option of an estimate is refused before anything is sent."""
    with pytest.raises(LMStudioValueError, match="context_lenght"):
        client.llm.estimate_resources_usage("any", {"context_lenght": 512})
    assert [] == fake.parameters("estimateModelUsage")


def test_unload_all():
    """All models of a kind go, whoever loaded them, and the other kind stays."""
    loaded = ["any", "other", "text-embed"]
    with (
        FakeServer(loaded, loaded=loaded) as server,
        LMStudioClient(server.host) as client,
    ):
        assert ["any", "other"] == client.llm.unload_all()
        assert ["text-embed"] == server.loaded()
        assert [] == client.llm.unload_all()
        assert ["text-embed"] == client.embedding.unload_all()
        assert [] == server.loaded()


def test_unload_all_while_others_unload(fake, client, monkeypatch):
    """What somebody else unloads meanwhile is no error."""
    real = client.llm.list_loaded()[0].info
    gone = attrs.evolve(real, identifier="gone")
    ask = client.llm._call

    def both(name, parameter):
        return [gone, real] if name == "listLoaded" else ask(name, parameter)

    monkeypatch.setattr(client.llm, "_call", both)
    assert ["any"] == client.llm.unload_all()
    assert [] == fake.loaded()


def test_queries_by_more():
    """By whether it takes images, and by the kind, which must be this one."""
    with (
        FakeServer(["any", "vision"], loaded=["any", "vision"]) as server,
        LMStudioClient(server.host) as client,
    ):
        for query in (
            {"vision": True},
            {"vision": True, "domain": "llm"},
            ModelQuery(vision=True, domain="llm"),
        ):
            assert "vision" == client.llm.get(query).get_info().identifier
        assert "any" == client.llm.get(vision=False).get_info().identifier
        for wrong, error in (
            ({"domain": "embedding"}, "the domain is 'llm' here, not 'embedding'"),
            ({"domain": ["llm"]}, r"the domain is 'llm' here, not \['llm'\]"),
            ({"vision": 1}, "vision must be True or False, not 1"),
        ):
            with pytest.raises(LMStudioValueError, match=error):
                client.llm.get(wrong)
