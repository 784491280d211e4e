"""Clients search and download through the server; what it has not is said clearly."""

from __future__ import annotations

import threading

import pytest

from hub_server import Fault, model_bytes, temporary
from lmstudio.server.repository import CALLS, CHANNELS
from lmstudio.server.runner import serve
from lmstudio.testing.engine import ScriptedEngine, Scripts
from lmstudio.wire.endpoints import ENDPOINTS
from rawclient import raw_client
from server.servers import scripted_server

FILE = "Tiny.Q4_K_M.gguf"
NAME = "acme/Tiny-GGUF@q4_k_m"
NOT_LOOKED_AT = [
    ENDPOINTS[key] for key in (*CALLS, *CHANNELS) if ENDPOINTS[key].parameter is dict
]


@pytest.fixture
def models(tmp_path, hub):
    """The models folder, and a hub with one model."""
    hub.add("acme/Tiny-GGUF", {FILE: model_bytes(size=300_000)})
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


def download(raw, name=NAME):
    """Open the channel of a download."""
    return raw.open("downloadModel", {"downloadIdentifier": name})


def test_search(raw, hub):
    """What is found is told with what names it, and whether that was searched for."""
    hub.add("acme/Other-GGUF", {"a.gguf": b"x"})
    opts = {"searchTerm": "ACME/tiny-gguf", "limit": 3}
    found = raw.call("searchModels", {"opts": opts})["result"]["results"]

    assert [
        {
            "name": "acme/Tiny-GGUF",
            "identifier": {"type": "hf", "identifier": "acme/Tiny-GGUF"},
            "exact": True,
            "staffPick": False,
        }
    ] == found


def test_search_for_other_formats(raw, hub):
    """A search for formats that can't be run finds nothing, and asks nobody."""
    opts = {"searchTerm": "tiny", "compatibilityTypes": ["safetensors"]}

    assert [] == raw.call("searchModels", {"opts": opts})["result"]["results"]
    assert [] == hub.requests
    opts["compatibilityTypes"].append("gguf")
    assert 1 == len(raw.call("searchModels", {"opts": opts})["result"]["results"])


@pytest.mark.parametrize("limit", [0, 26])
def test_wrong_limits(raw, limit):
    """A limit outside its range is refused."""
    error = raw.call("searchModels", {"opts": {"limit": limit}})["error"]

    assert f"limit must be from 1 to 25, not {limit}" == error["title"]


def test_options(raw, hub):
    """An option has all fields that clients of any version need."""
    identifier = {"type": "hf", "identifier": "acme/Tiny-GGUF"}
    parameter = {"modelSearchResultIdentifier": identifier}
    (option,) = raw.call("getModelDownloadOptions", parameter)["result"]["results"]

    assert {
        "name": "Tiny",
        "quantization": "Q4_K_M",
        "sizeBytes": len(hub.repos["acme/Tiny-GGUF"][FILE]),
        "fitEstimation": "fitWithoutGPU",
        "recommended": True,
        "downloadIdentifier": NAME,
        "indexedModelIdentifier": f"acme/Tiny-GGUF/{FILE}",
        "compatibilityType": "gguf",
    } == option


def test_no_catalog(raw):
    """An entry of a catalog can't be looked up here."""
    identifier = {"type": "catalog", "identifier": "qwen/qwen3"}
    parameter = {"modelSearchResultIdentifier": identifier}
    error = raw.call("getModelDownloadOptions", parameter)["error"]

    assert "no catalog to look up 'qwen/qwen3'" in error["title"]


def test_download(raw, models):
    """Progress comes first, then the end in its order; the file is in its place."""
    packets = raw.packets(download(raw))

    kinds = [packet["type"] for packet in packets]
    progress = [p["update"] for p in packets if p["type"] == "downloadProgress"]
    assert ["startFinalizing", "success", "channelClose"] == kinds[-3:]
    assert ["downloadProgress"] * len(progress) == kinds[:-3]
    size = (models / "acme" / "Tiny-GGUF" / FILE).stat().st_size
    assert {
        "downloadedBytes": size,
        "totalBytes": size,
        "speedBytesPerSecond": 0.0,
    } == progress[-1]
    assert "tiny" == packets[-2]["defaultIdentifier"]


@pytest.mark.slow
def test_progress_goes_on_while_nothing_comes(raw, hub):
    """A client hears of a download at least twice a second, also of one that waits."""
    hub.fail(FILE, Fault(after=100_000, stall=True))
    number = download(raw)
    assert hub.stalled.wait(5)
    told = [raw.receive()["message"]["type"] for _ in range(3)]
    raw.cancel(number)

    assert ["downloadProgress"] * 3 == told
    assert "channelError" == raw.packets(number)[-1]["type"]


@pytest.mark.slow
def test_cancel(raw, hub, models):
    """A cancelled download says so, and leaves what came, which is no model."""
    hub.fail(FILE, Fault(after=100_000, stall=True))
    number = download(raw)
    assert hub.stalled.wait(5)
    while raw.receive()["message"]["update"]["downloadedBytes"] < 100_000:
        pass
    raw.cancel(number)
    end = raw.packets(number)[-1]

    assert "channelError" == end["type"]
    assert {"code": "download.cancelled"} == end["error"]["errorData"]
    assert 1 == len(temporary(models))
    raw.packets(download(raw))
    assert [None, "bytes=100000-"] == hub.fetched(FILE)


def test_cancel_before_it_begins(raw, hub):
    """A download can be cancelled while the hub is still asked about it."""
    number = download(raw, "acme/none")
    raw.cancel(number)

    assert "channelError" == raw.packets(number)[-1]["type"]


@pytest.mark.slow
def test_two_clients(raw, server, hub):
    """Two clients share one download, and one that vanishes does not stop it."""
    hub.fail(FILE, Fault(after=100_000, stall=True))
    first = download(raw)
    assert hub.stalled.wait(5)
    with raw_client(server.url, "repository") as other:
        download(other)
        assert "downloadProgress" == other.receive()["message"]["type"]
    hub.released.set()  # the first connection breaks now, and is made again
    packets = raw.packets(first)

    assert "success" == packets[-2]["type"]
    assert 2 == len(hub.fetched(FILE))


def test_a_client_that_vanishes(server, hub, models):
    """The last client that goes without a word stops its download."""
    hub.fail(FILE, Fault(after=100_000, stall=True))
    with raw_client(server.url, "repository") as client:
        download(client)
        assert hub.stalled.wait(5)
    server.close()

    assert 1 == len(temporary(models))
    assert not list(models.rglob("*.gguf"))


def test_the_server_ends(server, hub, models):
    """The server's end stops downloads, tells the client, and is quick."""
    hub.fail(FILE, Fault(after=100_000, stall=True))
    with raw_client(server.url, "repository") as client:
        number = download(client)
        assert hub.stalled.wait(5)
        closing = threading.Thread(target=server.close)
        closing.start()
        end = client.packets(number)[-1]
        closing.join(5)

    assert ("channelError", False) == (end["type"], closing.is_alive())
    assert 1 == len(temporary(models))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault(status=401), "hub.unauthorized"),
        (Fault(status=429), "hub.rateLimited"),
        (Fault(content=b"x"), "hub.offline"),
    ],
)
def test_failures(raw, hub, fault, code, monkeypatch):
    """What fails is told with its code."""
    monkeypatch.setattr("lmstudio.server.partial.TRIES", 1)
    hub.fail(FILE, *[fault] * 3)
    end = raw.packets(download(raw))[-1]

    assert ("channelError", code) == (end["type"], end["error"]["errorData"]["code"])


def test_names_lead_nowhere_else(raw, hub, models):
    """Neither names of clients nor those of the hub reach outside the folder."""
    hub.add("acme/Evil", {"../../../evil-Q4_0.gguf": b"GGUF"})
    for name in ("../../etc/passwd", "acme/Evil", "acme/Evil/../../x.gguf"):
        assert "channelError" == raw.packets(download(raw, name))[-1]["type"]

    assert not list(models.parent.rglob("evil*"))


def test_no_folder():
    """A server without a models folder says so."""
    with (
        scripted_server() as scripted,
        raw_client(scripted.url, "repository") as client,
    ):
        error = client.call("searchModels", {"opts": {}})["error"]

    assert "downloads nothing" in error["title"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("getModelCatalog", {"models": []}),
        ("fuzzyFindStaffPicks", {"results": []}),
        ("getWritableArtifactOwners", {"owners": []}),
        ("isAuthenticated", {"authenticated": False}),
        ("getAuthenticationStatus", {"authenticationStatus": {"type": "none"}}),
    ],
)
def test_fixed_answers(raw, name, expected):
    """What newer clients ask for their own sake has an answer that they can read."""
    assert expected == raw.call(name)["result"]
    assert expected == raw.call(name, {"searchTerm": "x"})["result"]


def test_no_links(raw):
    """The server is linked to no other, in a form that clients can read."""
    status = raw.call("lmLinkStatus")["result"]

    assert ("offline", [], None) == (
        status["status"],
        status["peers"],
        status["deviceIdentifier"],
    )
    assert "result" not in raw.call("deauthenticate")


@pytest.mark.parametrize("row", NOT_LOOKED_AT, ids=lambda row: row.name)
def test_everything_answers(raw, row):
    """No endpoint of the namespace leaves a client waiting, or is unknown."""
    if row.kind == "rpc":
        answer = raw.call(row.name, {"x": 1})
        assert answer["type"] in ("rpcResult", "rpcError")
    else:
        (answer,) = raw.packets(raw.open(row.name, {"x": 1}))
        assert "channelError" == answer["type"]
    if "error" in answer:
        error = answer["error"]
        assert {"code": "repository.unsupported"} == error["errorData"]
        assert error["title"].startswith("This server ")
