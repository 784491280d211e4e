"""Models of the hub are found and downloaded through the server."""

from __future__ import annotations

import io
import threading

import pytest

import lmstudio
from hub_server import Fault, model_bytes, temporary
from lmstudio import (
    DownloadProgress,
    LMStudioCancelledError,
    LMStudioChannelClosedError,
    LMStudioClient,
    LMStudioDownloadError,
    LMStudioModelNotFoundError,
    LMStudioProtocolError,
    LMStudioServerError,
    LMStudioTimeoutError,
    LMStudioTypeError,
    LMStudioValueError,
    LMStudioWebsocketError,
    ModelDownloadOption,
    Signal,
)
from lmstudio.repository import Repository
from lmstudio.server.runner import serve
from lmstudio.testing import NEVER
from lmstudio.testing.engine import ScriptedEngine, Scripts
from lmstudio.wire.repository import DownloadOption

FILE = "Tiny.Q4_K_M.gguf"
SIZE = len(model_bytes(size=300_000))


@pytest.fixture
def models(tmp_path, hub):
    """The models folder, and a hub with two quantizations of a model."""
    quantizations = {
        FILE: model_bytes(size=300_000),
        "Tiny.Q8_0.gguf": model_bytes(size=400_000, file_type=7),
    }
    hub.add("acme/Tiny-GGUF", quantizations)
    return tmp_path / "models"


@pytest.fixture
def server(models):
    """A server that downloads into that folder."""
    with serve(port=0, models_dir=models, engine=ScriptedEngine(Scripts())) as running:
        yield running


@pytest.fixture
def repository(server):
    """The hub as a client of that server sees it."""
    with LMStudioClient(server.url) as client:
        yield client.repository


@pytest.fixture
def stalled(hub):
    """A download that stands still after 100,000 bytes."""
    hub.fail(FILE, Fault(after=100_000, stall=True))
    return hub.stalled


@pytest.mark.slow
def test_from_the_search_to_the_key(repository, models):
    """A search, an option, a download: what it returns loads the model."""
    (found,) = repository.search_models("tiny", 5, ["gguf"])
    small, large = found.get_download_options()
    told, finalized = [], []
    key = small.download(told.append, lambda: finalized.append(len(told)))

    assert ("acme/Tiny-GGUF", "hf") == (
        found.search_result.name,
        found.search_result.identifier.type,
    )
    assert [("Q4_K_M", True), ("Q8_0", None)] == [
        (option.info.quantization, option.info.recommended) for option in (small, large)
    ]
    assert "tiny" == key
    assert DownloadProgress(downloaded_bytes=SIZE, total_bytes=SIZE) == told[-1]
    assert [len(told)] == finalized
    assert (models / "acme" / "Tiny-GGUF" / FILE).is_file()
    assert "<AvailableModel acme/Tiny-GGUF>" == repr(found)
    mark = "<ModelDownloadOption acme/Tiny-GGUF@q4_k_m, recommended>"
    assert mark == repr(small)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("acme/Tiny-GGUF", "tiny"),
        ("acme/Tiny-GGUF@q8_0", "tiny"),
        ("acme/Tiny-GGUF@Q8_0", "tiny"),
    ],
)
def test_download_by_name(repository, models, name, key):
    """A name downloads what is recommended, or the quantization behind it."""
    assert key == repository.download(name)
    (file,) = models.rglob("*.gguf")
    assert ("Q8_0" in file.name) == ("@" in name)


@pytest.mark.slow
def test_downloading_again(repository, hub):
    """What is there is not downloaded again."""
    assert repository.download("acme/Tiny-GGUF") == repository.download(
        "acme/Tiny-GGUF"
    )
    assert 1 == len(hub.fetched(FILE))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Signal, threading.Event])
def test_signal(repository, stalled, models, hub, kind):
    """A signal stops it at once; what came stays, and is continued."""
    signal, told = kind(), []

    def on_progress(update):
        told.append(update.downloaded_bytes)
        if update.downloaded_bytes == 100_000:
            signal.set()

    with pytest.raises(LMStudioCancelledError, match="continues it"):
        repository.download("acme/Tiny-GGUF", on_progress=on_progress, signal=signal)

    assert 1 == len(temporary(models))
    assert "tiny" == repository.download("acme/Tiny-GGUF")
    assert [None, "bytes=100000-"] == hub.fetched(FILE)


def test_signal_from_another_thread(repository, stalled):
    """A signal wakes the one who waits while nothing comes."""
    signal = Signal()

    def later():
        stalled.wait()
        signal.set()

    thread = threading.Thread(target=later)
    thread.start()
    with pytest.raises(LMStudioCancelledError):
        repository.download("acme/Tiny-GGUF", signal=signal)
    thread.join()


def test_signal_that_is_set(repository, hub):
    """Nothing is downloaded when the signal was set before."""
    (option, _) = repository.get_download_options("acme/Tiny-GGUF")
    signal = Signal()
    signal.set()
    with pytest.raises(LMStudioCancelledError):
        option.download(signal=signal)

    assert [] == hub.fetched(FILE)


@pytest.mark.slow
def test_timeout(repository, stalled, models):
    """A time limit counts for all of it, also while nothing comes."""
    with pytest.raises(LMStudioTimeoutError, match=r"within 0\.3 s"):
        repository.download("acme/Tiny-GGUF", timeout=0.3)
    assert not list(models.rglob("*.gguf"))


@pytest.mark.slow
def test_a_callback_that_raises(repository, stalled, models):
    """An exception of a callback stops the download and comes out."""

    def on_progress(_):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        repository.download("acme/Tiny-GGUF", on_progress=on_progress)
    assert not list(models.rglob("*.gguf"))


def test_the_server_goes(repository, stalled, server):
    """A server that ends is told as the reason."""

    def later():
        stalled.wait()
        server.close()

    thread = threading.Thread(target=later)
    thread.start()
    with pytest.raises(LMStudioServerError, match="shutting down"):
        repository.download("acme/Tiny-GGUF")
    thread.join()


@pytest.mark.parametrize(
    ("name", "kind", "code"),
    [
        ("acme/none", LMStudioModelNotFoundError, "hub.notFound"),
        ("acme/Empty", LMStudioModelNotFoundError, "hub.noModel"),
        ("acme/Tiny-GGUF@q5", LMStudioModelNotFoundError, None),
        ("acme/Tiny-GGUF@", LMStudioModelNotFoundError, None),
        ("nonsense", LMStudioDownloadError, "hub.badName"),
        ("acme/Locked", LMStudioDownloadError, "hub.forbidden"),
    ],
)
def test_refusals(repository, hub, name, kind, code):
    """What can't be downloaded is an error of its own."""
    hub.add("acme/Empty", {"README.md": b"x"})
    hub.add("acme/Locked", {"a.gguf": b"x"})
    hub.locked["acme/Locked"] = 403
    with pytest.raises(kind) as caught:
        repository.download(name)

    assert code == caught.value.code


def test_options_are_listed(repository):
    """A quantization that is not there is told with those that are."""
    with pytest.raises(LMStudioModelNotFoundError, match=r"Tiny-GGUF@q8_0\. Name one"):
        repository.download("acme/Tiny-GGUF@q5")


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ((), LMStudioValueError),
        (("x", 0), LMStudioValueError),
        (("x", 26), LMStudioValueError),
        (("x", True), LMStudioValueError),
        ((5,), LMStudioTypeError),
        (("x", 5, "gguf"), LMStudioTypeError),
        (("x", 5, 7), LMStudioTypeError),
        (("x", 5, ["zip"]), LMStudioValueError),
    ],
)
def test_wrong_searches(client, fake, arguments, kind):
    """A search that can't be right is refused before anything is sent."""
    with pytest.raises(kind):
        client.repository.search_models(*arguments)
    assert [] == fake.parameters("searchModels")


@pytest.mark.parametrize(
    "wrong",
    [
        {"on_progress": 5},
        {"on_finalize": 5},
        {"signal": 5},
        {"timeout": "x"},
        {"progress": "x"},
    ],
)
def test_wrong_arguments(client, fake, wrong):
    """An argument that can't be right is refused before anything is sent."""
    with pytest.raises(LMStudioTypeError):
        option_of(client.repository).download(**wrong)
    assert [] == fake.parameters("downloadModel")


def option_of(repository: Repository) -> ModelDownloadOption:
    """An option that no server has told of."""
    info = DownloadOption(
        name="T",
        size_bytes=1,
        fit_estimation="fitWithoutGPU",
        download_identifier="a/b",
        indexed_model_identifier="a/b/c.gguf",
    )
    return ModelDownloadOption(info, repository)


@pytest.fixture
def say(fake, client):
    """Has a download begin, and the server say packets of ours."""
    fake.before("downloadModel", NEVER)
    results = []

    def run():
        try:
            results.append(option_of(client.repository).download())
        except lmstudio.LMStudioError as exc:
            results.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    number = fake.wait_for_call("downloadModel").message["channelId"]

    def send(*messages):
        for message in messages:
            fake.send("repository", {"channelId": number, **message})
        thread.join(5)
        return results[0]

    yield send
    fake.drop_connections()
    thread.join(5)


def packet(**fields):
    """A packet as the server sends it."""
    return {"type": "channelSend", "message": fields}


def test_unknown_packets(say):
    """Packets of newer servers are passed over."""
    unknown = packet(type="later", x=1)
    assert "key" == say(unknown, packet(type="success", defaultIdentifier="key"))


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (packet(type="success"), LMStudioProtocolError),
        (packet(type="downloadProgress", update=5), LMStudioProtocolError),
        ({"type": "channelClose"}, LMStudioChannelClosedError),
    ],
)
def test_wrong_packets(say, message, kind, monkeypatch):
    """A packet that does not fit, and an end without a result, are errors."""
    monkeypatch.setattr("lmstudio.download.CANCEL_TIME", 0.1)
    assert isinstance(say(message), kind)


def test_lost_connection(say, fake):
    """A connection that is lost ends the wait."""
    fake.drop_connections()
    assert isinstance(say(), LMStudioWebsocketError)


class Terminal(io.StringIO):
    """Something that says it is a terminal."""

    def isatty(self):
        return True


def test_progress_function(repository):
    """A function given as progress gets the share that is there."""
    shares = []
    repository.download("acme/Tiny-GGUF", progress=shares.append)

    assert 1.0 == shares[-1]
    assert sorted(shares) == shares


@pytest.mark.slow
def test_bar(repository, stalled, monkeypatch):
    """On a terminal a bar shows how far it is, and goes in the end."""
    monkeypatch.setattr("lmstudio.progress.PATIENCE", 0.0)
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with pytest.raises(LMStudioTimeoutError):
        repository.download("acme/Tiny-GGUF", timeout=0.4)

    assert "Downloading acme/Tiny-GGUF@q4_k_m [" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r")


@pytest.mark.slow
def test_no_bar(repository, hub, monkeypatch):
    """With a callback, or when told so, there is no bar."""
    hub.fail(FILE, *[Fault(after=10, stall=True)] * 2)
    monkeypatch.setattr("lmstudio.progress.PATIENCE", 0.0)
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    for options in ({"on_progress": print}, {"progress": False}):
        with pytest.raises(LMStudioTimeoutError):
            repository.download("acme/Tiny-GGUF", timeout=0.1, **options)

    assert "" == terminal.getvalue()
