"""A client plans a download, chooses of what there is, commits, and it comes."""

from __future__ import annotations

import asyncio

import pytest

from hub_server import Fault, model_bytes, temporary
from lmstudio.server.runner import serve
from lmstudio.testing.engine import ScriptedEngine, Scripts
from rawclient import raw_client

SMALL, LARGE = "Tiny.Q4_K_M.gguf", "Tiny.Q8_0.gguf"
FILES = {
    SMALL: model_bytes(size=300_000),
    LARGE: model_bytes(size=400_000, file_type=7),
}
SELECT = "setSelectedDownloadOptionIndex"


@pytest.fixture
def models(tmp_path, hub):
    """The models folder, and a hub with two models of two files each."""
    hub.add("acme/Tiny-GGUF", FILES)
    hub.add("acme/tiny", FILES)
    return tmp_path / "models"


@pytest.fixture
def server(models):
    """A server that downloads into that folder."""
    with serve(port=0, models_dir=models, engine=ScriptedEngine(Scripts())) as running:
        yield running


@pytest.fixture
def raw(server):
    """A bare client of it."""
    with raw_client(server.url, "repository") as client:
        yield client


def begin(raw, repo="Tiny-GGUF", **opts):
    """Plan the download of a model; returns the channel's number."""
    source = {"type": "huggingface", "user": "acme", "repo": repo}
    parameter = {"target": {"type": "model", "source": source}, "opts": opts}
    return raw.open("createDownloadPlan", parameter)


def tell(raw, number, kind, **fields):
    """Send a packet."""
    message = {"type": kind, **fields}
    raw.send({"type": "channelSend", "channelId": number, "message": message})


def select(raw, number, place, version=3, node=0):
    """Choose an option."""
    fields = {"nodeIndex": node, "requestedPlanVersion": version}
    tell(raw, number, SELECT, selectedDownloadOptionIndex=place, **fields)


def ready(raw):
    """The plan once it is ready; `planUpdated` comes before it."""
    first, second = raw.receive()["message"], raw.receive()["message"]
    assert ["planUpdated", "planReady"] == [first["type"], second["type"]]
    return second["plan"]


def finish(raw, number):
    """Commit; returns the last update of the progress."""
    tell(raw, number, "commit")
    packets = raw.packets(number)
    kinds = [packet["type"] for packet in packets]
    assert ["startFinalizing", "success", "channelClose"] == kinds[-3:]
    assert {"downloadProgress"} == {*kinds[:-3]}
    assert {"type": "success"} == packets[-2]
    return packets[-4]["update"]


def refused(raw, number):
    """The code and title of the error that ends a channel."""
    end = raw.packets(number)[-1]
    assert "channelError" == end["type"]
    return end["error"].get("errorData", {}).get("code"), end["error"]["title"]


def info(file, quantization, **more):
    """What a plan says of a file."""
    size = len(FILES[file])
    about = {"displayName": "Tiny", "sizeBytes": size, "quantName": quantization}
    return about | {"compatibilityType": "gguf"} | more


def test_a_plan(raw):
    """It is resolved with all that newer and older clients need."""
    begin(raw)
    first = raw.receive()["message"]["plan"]
    plan = raw.receive()["message"]["plan"]

    fetching = {
        "type": "model",
        "state": "fetching",
        "dependencyLabel": "acme/Tiny-GGUF",
    }
    assert {
        "nodes": [fetching | {"resolvedSources": 0, "totalSources": 1}],
        "downloadSizeBytes": 0,
        "downloadAction": "none",
        "version": 1,
    } == first
    there = {"fitEstimation": "fitWithoutGPU", "availability": "notDownloaded"}
    assert {
        "nodes": [
            {
                "type": "model",
                "state": "completed",
                "dependencyLabel": "acme/Tiny-GGUF",
                "resolvedSources": 1,
                "totalSources": 1,
                "selected": info(SMALL, "Q4_K_M"),
                "downloadOptions": [
                    info(SMALL, "Q4_K_M", recommended=True, **there),
                    info(LARGE, "Q8_0", **there),
                ],
                "selectedDownloadOptionIndex": 0,
                "recommendedDownloadOptionIndex": 0,
            }
        ],
        "downloadSizeBytes": len(FILES[SMALL]),
        "downloadAction": "startNewDownload",
        "version": 2,
    } == plan


def test_another_option(raw, models):
    """A selection makes a plan of the version asked for; the commit brings it."""
    number = begin(raw)
    ready(raw)
    select(raw, number, 1, version=7)
    packet = raw.receive()["message"]
    update = finish(raw, number)

    assert ("planUpdated", 7) == (packet["type"], packet["plan"]["version"])
    (node,) = packet["plan"]["nodes"]
    assert (1, info(LARGE, "Q8_0")) == (
        node["selectedDownloadOptionIndex"],
        node["selected"],
    )
    size = len(FILES[LARGE])
    assert [size] * 3 == [
        packet["plan"]["downloadSizeBytes"],
        update["downloadedBytes"],
        update["totalBytes"],
    ]
    assert [LARGE] == [path.name for path in models.rglob("*.gguf")]


def test_selections_come_in_order(raw, models):
    """A commit right after selections takes the last one, and tells its plan before."""
    number = begin(raw)
    ready(raw)
    for version, place in enumerate((1, 0, 1), 3):
        select(raw, number, place, version=version)
    tell(raw, number, "commit")
    packets = raw.packets(number)

    plans = [p["plan"] for p in packets if p["type"] == "planUpdated"]
    assert (5, 1) == (
        plans[-1]["version"],
        plans[-1]["nodes"][0]["selectedDownloadOptionIndex"],
    )
    assert "success" == packets[-2]["type"]
    assert [LARGE] == [path.name for path in models.rglob("*.gguf")]


@pytest.mark.parametrize(
    ("wishes", "place"),
    [
        ([{"type": "quantName", "quantName": "q8_0"}], 1),
        ([{"type": "fileName", "fileName": LARGE}], 1),
        ([{"type": "fileName", "fileName": "none"}], 0),
        (
            [
                {"type": "quantName", "quantName": "Q2_K"},
                {"type": "quantName", "quantName": "Q8_0"},
            ],
            1,
        ),
    ],
)
def test_wishes(raw, wishes, place):
    """The first wish that can be met decides; without one it is what is recommended."""
    begin(raw, resolutionPreference=wishes)

    assert place == ready(raw)["nodes"][0]["selectedDownloadOptionIndex"]


def test_what_is_here(raw, hub):
    """A copy that is here satisfies a plan; another option can still be chosen."""
    finish_first = begin(raw)
    ready(raw)
    finish(raw, finish_first)
    number = begin(raw)
    plan = ready(raw)
    select(raw, number, 1, version=3)
    other = raw.receive()["message"]["plan"]
    select(raw, number, None, version=4)
    back = raw.receive()["message"]["plan"]
    update = finish(raw, number)

    (node,) = plan["nodes"]
    assert (0, "none") == (plan["downloadSizeBytes"], plan["downloadAction"])
    assert ("satisfied", None, info(SMALL, "Q4_K_M")) == (
        node["state"],
        node["selectedDownloadOptionIndex"],
        node["alreadyOwned"],
    )
    assert ["downloaded", "notDownloaded"] == [
        option["availability"] for option in node["downloadOptions"]
    ]
    assert "startNewDownload" == other["downloadAction"]
    assert plan | {"version": 4} == back
    assert len(FILES[SMALL]) == update["downloadedBytes"]
    assert 1 == len(hub.fetched(SMALL))
    assert [] == hub.fetched(LARGE)


@pytest.mark.slow
def test_a_download_that_runs(raw, server, hub):
    """A plan names the download that runs already, and takes part in it."""
    hub.fail(SMALL, Fault(after=100_000, stall=True))
    raw.open("downloadModel", {"downloadIdentifier": "acme/Tiny-GGUF@q4_k_m"})
    assert hub.stalled.wait(5)
    with raw_client(server.url, "repository") as other:
        number = begin(other)
        plan = ready(other)
        hub.released.set()
        finish(other, number)

    assert "attachToExistingDownload" == plan["downloadAction"]
    assert plan["downloadJobIdentifier"]
    assert "downloading" == plan["nodes"][0]["downloadOptions"][0]["availability"]
    assert [None, "bytes=100000-"] == hub.fetched(SMALL)


@pytest.mark.parametrize("is_old", [True, False])
def test_an_artifact(raw, models, is_old):
    """A model repository can be planned as an artifact, by clients of any version."""
    name = {"owner": "acme", "name": "tiny"}
    if is_old:
        number = raw.open("createArtifactDownloadPlan", name)
    else:
        number = raw.open(
            "createDownloadPlan", {"target": {"type": "artifact", **name}}
        )
    plan = ready(raw)
    finish(raw, number)

    size = len(FILES[SMALL])
    root, model = plan["nodes"]
    assert {
        **{"type": "artifact", "artifactType": "model", "state": "completed"},
        **{**name, "sizeBytes": size, "dependencyNodes": [1]},
    } == root
    assert ("model", info(SMALL, "Q4_K_M")) == (model["type"], model["selected"])
    assert (models / "acme" / "tiny" / SMALL).stat().st_size == size


@pytest.mark.parametrize("files", [None, {"plugin.js": b"x"}])
def test_no_model_repository(raw, hub, files):
    """Other artifacts are an error with a code, which says what there is instead."""
    if files is not None:
        hub.add("acme/plugin", files)
    parameter = {"owner": "acme", "name": "plugin"}
    code, title = refused(raw, raw.open("createArtifactDownloadPlan", parameter))

    assert ("hub.notFound" if files is None else "hub.noModel") == code
    assert "acme/plugin is no model repository of the hub" == title


@pytest.mark.parametrize(
    ("name", "owner"), [("Tiny", "acme"), ("tiny", "a.b"), ("..", "acme")]
)
def test_names_of_artifacts(raw, hub, name, owner):
    """A name that no artifact has is refused before anybody is asked."""
    parameter = {"owner": owner, "name": name}
    _, title = refused(raw, raw.open("createArtifactDownloadPlan", parameter))

    assert f"No artifact is called '{owner}/{name}'" == title
    assert [] == hub.requests


def test_names_of_models(raw, hub):
    """A source that is no repository is refused before anybody is asked."""
    assert "hub.badName" == refused(raw, begin(raw, repo="../x"))[0]
    assert [] == hub.requests


def test_other_formats(raw, hub):
    """A plan for formats that can't be run is refused before anybody is asked."""
    number = begin(raw, compatibilityTypes=["safetensors"])

    assert "hub.noModel" == refused(raw, number)[0]
    assert [] == hub.requests


@pytest.mark.parametrize("kind", ["cancelPlan", "cancelDownload"])
def test_give_up_a_plan(raw, models, kind):
    """A plan that is given up ends, and nothing came."""
    number = begin(raw)
    ready(raw)
    tell(raw, number, kind)

    assert "download.cancelled" == refused(raw, number)[0]
    assert not models.exists()


def test_an_old_client_gives_up(raw):
    """The older endpoint has one packet for both."""
    name = {"owner": "acme", "name": "tiny"}
    number = raw.open("createArtifactDownloadPlan", name)
    ready(raw)
    raw.cancel(number)

    assert "download.cancelled" == refused(raw, number)[0]


@pytest.mark.slow
def test_cancel_the_download(raw, hub, models):
    """A download that is cancelled keeps what came; the next plan goes on with it."""
    hub.fail(SMALL, Fault(after=100_000, stall=True))
    number = begin(raw)
    ready(raw)
    tell(raw, number, "commit")
    assert hub.stalled.wait(5)
    while raw.receive()["message"]["update"]["downloadedBytes"] < 100_000:
        pass
    tell(raw, number, "cancelDownload")

    assert "download.cancelled" == refused(raw, number)[0]
    assert 1 == len(temporary(models))
    number = begin(raw)
    ready(raw)
    finish(raw, number)
    assert [None, "bytes=100000-"] == hub.fetched(SMALL)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"place": 2}, "no download option 2"),
        ({"place": -1}, "no download option -1"),
        ({"place": None}, "No copy of the model is here"),
        ({"place": 1, "node": 1}, "Node 1 of the plan is no model"),
        ({"place": 1, "version": 2**53}, "can't have the version"),
    ],
)
def test_wrong_selections(raw, fields, problem):
    """A selection that can't be is an error at once, with a code."""
    number = begin(raw)
    ready(raw)
    select(raw, number, **fields)
    code, title = refused(raw, number)

    assert ("repository.badPacket", True) == (code, problem in title), title


@pytest.mark.parametrize("kind", ["commit", SELECT])
def test_too_early(raw, kind, monkeypatch):
    """Neither a commit nor a selection may come before the plan is ready."""

    async def never(*_):
        await asyncio.Event().wait()

    monkeypatch.setattr("lmstudio.server.hub.Hub.repo", never)
    number = begin(raw)
    if kind == "commit":
        tell(raw, number, "commit")
    else:
        select(raw, number, 0)
    code, title = refused(raw, number)

    assert ("repository.badPacket", True) == (code, "before planReady" in title)


def test_too_late(raw, hub):
    """A selection after the commit ends the download, since it can't be obeyed."""
    hub.fail(SMALL, Fault(after=100_000, stall=True))
    number = begin(raw)
    ready(raw)
    tell(raw, number, "commit")
    assert hub.stalled.wait(5)
    select(raw, number, 1)

    assert ("repository.badPacket", "An option was selected after the commit") == (
        refused(raw, number)
    )


def test_packets_of_a_wrong_shape(raw):
    """They get a warning that names the field, and the plan goes on."""
    number = begin(raw)
    ready(raw)
    tell(raw, number, SELECT, nodeIndex="0")
    warning = raw.receive()
    finish(raw, number)

    assert ("communicationWarning", "channelMessageTypeError") == (
        warning["type"],
        warning["kind"],
    )
    assert "createDownloadPlan" in warning["warning"]


@pytest.mark.parametrize(
    "parameter",
    [
        {},
        {"target": {"type": "x"}},
        {"target": {"type": "model", "source": {"type": "huggingface"}}},
        {
            "target": {"type": "artifact", "owner": "a", "name": "b"},
            "opts": {"resolutionPreference": [{"type": "x"}]},
        },
    ],
)
def test_parameters_of_a_wrong_shape(raw, parameter):
    """They get a warning and an error, and nothing begins."""
    number = raw.open("createDownloadPlan", parameter)
    warning = raw.receive()

    assert "channelCreationParameterTypeError" == warning["kind"]
    assert "channelError" == raw.packets(number)[-1]["type"]


def test_a_client_that_vanishes(server, hub, models):
    """Plans and downloads of a client that goes without a word end."""
    hub.fail(SMALL, Fault(after=100_000, stall=True))
    with raw_client(server.url, "repository") as client:
        begin(client)
        ready(client)
        number = begin(client)
        ready(client)
        tell(client, number, "commit")
        assert hub.stalled.wait(5)
    server.close()

    assert 1 == len(temporary(models))
    assert not list(models.rglob("*.gguf"))
