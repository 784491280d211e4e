"""A download is iterator, future and cancel in one; what came is continued."""

from __future__ import annotations

import gc
import threading

import pytest

from hub_server import Fault, model_bytes
from lmstudio import (
    Download,
    DownloadProgress,
    LMStudioCancelledError,
    LMStudioClient,
    LMStudioDownloadError,
    LMStudioRuntimeError,
    LMStudioTimeoutError,
    LMStudioTypeError,
    LMStudioWebsocketError,
    Signal,
)
from lmstudio.repository import ModelDownloadOption
from lmstudio.server.runner import serve
from lmstudio.testing import NEVER
from lmstudio.testing.engine import ScriptedEngine, Scripts
from lmstudio.wire.repository import DownloadOption
from raw_server import RawServer
from scripts import is_cancel

FILE = "Tiny.Q4_K_M.gguf"
SIZE = len(model_bytes(size=300_000))
PATIENCE = 5.0


@pytest.fixture
def repository(tmp_path, hub):
    """The hub with one model, as a client of a real server sees it."""
    hub.add("acme/Tiny-GGUF", {FILE: model_bytes(size=300_000)})
    engine = ScriptedEngine(Scripts())
    with (
        serve(port=0, models_dir=tmp_path / "models", engine=engine) as server,
        LMStudioClient(server.url) as client,
    ):
        yield client.repository


@pytest.mark.slow
def test_progress_then_the_key(repository):
    """Iterating tells how far it is, and ends with it; then the key is there."""
    download = repository.download("acme/Tiny-GGUF", wait=False)
    seen = list(download)

    assert isinstance(download, Download)
    assert "acme/Tiny-GGUF@q4_k_m" == download.identifier
    assert (SIZE, SIZE, 1.0) == (
        seen[-1].downloaded_bytes,
        seen[-1].total_bytes,
        seen[-1].share,
    )
    assert [update.share for update in seen] == sorted(u.share for u in seen)
    assert "tiny" == download.result() == download.result(timeout=0)
    assert None is download.exception()
    assert download.done()
    assert download.progress == seen[-1]
    assert seen[-1:] == list(download)
    assert not download.cancel()
    assert "<Download acme/Tiny-GGUF@q4_k_m done>" == repr(download)


@pytest.mark.slow
def test_cancel_and_go_on(repository, hub):
    """A cancelled download ends, and the next one continues it."""
    hub.fail(FILE, Fault(after=100_000, stall=True))
    download = repository.download("acme/Tiny-GGUF", wait=False)
    for update in download:
        if update.downloaded_bytes == 100_000:
            assert download.cancel()
            download.cancel()  # safe to repeat, whether or not it has ended by now

    with pytest.raises(LMStudioCancelledError, match="next download continues it"):
        download.result()
    assert isinstance(download.exception(), LMStudioCancelledError)
    assert "<Download acme/Tiny-GGUF@q4_k_m failed>" == repr(download)
    assert "tiny" == repository.download("acme/Tiny-GGUF", wait=False).result()
    assert [None, "bytes=100000-"] == hub.fetched(FILE)


@pytest.mark.slow
def test_a_hub_that_refuses(repository, hub):
    """Its error comes out of iterating and of the result, each time a new one."""
    hub.fail(FILE, Fault(status=403))
    download = repository.download("acme/Tiny-GGUF", wait=False)
    with pytest.raises(LMStudioDownloadError) as first:
        list(download)
    with pytest.raises(LMStudioDownloadError) as second:
        download.result()
    assert first.value is not second.value
    assert isinstance(download.exception(), LMStudioDownloadError)


class Script:
    """A download whose packets are in the hands of the test."""

    def __init__(self, fake, client):
        self._fake = fake
        self._client = client
        fake.before("downloadModel", NEVER)

    @staticmethod
    def option(client):
        info = DownloadOption(
            name="T",
            size_bytes=1,
            fit_estimation="fitWithoutGPU",
            download_identifier="a/b",
            indexed_model_identifier="a/b/c.gguf",
        )
        return ModelDownloadOption(info, client.repository)

    def start(self, **options):
        download = self.option(self._client).download(wait=False, **options)
        self._number = self._fake.wait_for_call("downloadModel").message["channelId"]
        return download

    def say(self, kind, **fields):
        self._send(type="channelSend", message={"type": kind, **fields})

    def close(self):
        self._send(type="channelClose")

    def _send(self, **message):
        self._fake.send("repository", {"channelId": self._number, **message})

    def progress(self, count, speed=0.0):
        update = {
            "downloadedBytes": count,
            "totalBytes": 100,
            "speedBytesPerSecond": speed,
        }
        self.say("downloadProgress", update=update)

    def was_cancelled(self):
        return self._fake.wait_for(is_cancel)


@pytest.fixture
def script(fake, client):
    """A download whose packets are in the hands of the test."""
    return Script(fake, client)


def test_figures(script):
    """Bytes, speed and the time that is left; nothing is known before any news."""
    download = script.start()
    assert "<Download a/b running>" == repr(download)
    assert None is download.progress
    assert not download.done()
    script.progress(50, 10.0)
    update = next(iter(download))

    assert (
        DownloadProgress(
            downloaded_bytes=50, total_bytes=100, speed_bytes_per_second=10.0
        )
        == update
    )
    assert (0.5, 5.0) == (update.share, update.seconds_left)
    assert None is DownloadProgress(downloaded_bytes=1, total_bytes=2).seconds_left
    assert "<Download a/b running 50%>" == repr(download)
    script.say("success", defaultIdentifier="k")
    assert "k" == download.result()


def test_a_limit_of_the_wait(script):
    """Who waits a limited time may wait again; a limit of the download ends it."""
    download = script.start()
    with pytest.raises(LMStudioTimeoutError, match="it goes on"):
        download.result(timeout=0)
    with pytest.raises(LMStudioTimeoutError, match="it goes on"):
        download.exception(timeout=0.01)
    script.say("success", defaultIdentifier="k")
    assert "k" == download.result(PATIENCE)


@pytest.mark.slow
def test_a_limit_of_the_download(script, monkeypatch):
    """It cancels, and is the download's error."""
    monkeypatch.setattr("lmstudio.download.CANCEL_TIME", 0.05)
    download = script.start(timeout=0.4)
    with pytest.raises(LMStudioTimeoutError, match="continues it"):
        download.result()
    assert isinstance(download.exception(), LMStudioTimeoutError)
    script.was_cancelled()


def test_a_limit_while_connecting():
    """It begins with the call, and says what it was at."""
    with RawServer("") as server, LMStudioClient(server.host) as client:
        option = Script.option(client)
        with pytest.raises(LMStudioTimeoutError) as caught:
            option.download(wait=False, timeout=0.02)
        assert str(caught.value) == (
            "a/b was not downloaded within 0.02 s"
            f" (still connecting to {client.address})"
        )


def test_several_threads(script):
    """All who iterate or wait get news and the end; one of them takes for all."""
    download, heard = script.start(), []
    told = threading.Barrier(3)

    def iterate():
        updates = iter(download)
        heard.append(next(updates).downloaded_bytes)
        told.wait(PATIENCE)
        heard.append([u.downloaded_bytes for u in updates][-1:] in ([], [20]))
        heard.append(download.result())

    threads = [threading.Thread(target=iterate) for _ in range(2)]
    for thread in threads:
        thread.start()
    script.progress(10)
    told.wait(PATIENCE)
    script.progress(20)
    script.say("success", defaultIdentifier="k")
    for thread in threads:
        thread.join(PATIENCE)

    assert [10, 10] == heard[:2]
    assert sorted(["k", "k", True, True], key=str) == sorted(heard[2:], key=str)


def test_cancel_wakes_who_waits(script, monkeypatch):
    """Also when the server never says that it has stopped."""
    monkeypatch.setattr("lmstudio.download.CANCEL_TIME", 0.05)
    download, outcome = script.start(), []

    def wait():
        script.progress(10)
        for _ in download:
            waiting.set()
        outcome.append(download.exception())

    waiting = threading.Event()
    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(PATIENCE)
    assert download.cancel()
    thread.join(PATIENCE)

    assert isinstance(outcome[0], LMStudioCancelledError)
    script.was_cancelled()


def test_a_success_that_crosses_a_cancel(script):
    """What is there is there."""
    download = script.start()
    script.say("success", defaultIdentifier="k")
    assert "k" == download.result()
    assert not download.cancel()


@pytest.mark.parametrize("kind", [ZeroDivisionError, KeyboardInterrupt])
def test_a_callback_that_raises(script, monkeypatch, kind):
    """It stops the download; its exception is that of the thread, and of no other."""
    monkeypatch.setattr("lmstudio.download.CANCEL_TIME", 0.05)

    def on_progress(update):
        raise kind

    download = script.start(on_progress=on_progress)
    script.progress(10)
    with pytest.raises(kind):
        list(download)
    script.was_cancelled()
    assert isinstance(download.exception(), LMStudioCancelledError)


def test_a_callback_that_waits(script):
    """It would wait for itself."""
    problems = []

    def on_progress(update):
        try:
            download.result()
        except LMStudioRuntimeError as exc:
            problems.append(str(exc))

    download = script.start(on_progress=on_progress)
    script.progress(10)
    script.say("success", defaultIdentifier="k")
    assert "k" == download.result()
    assert ["a callback of a download can't wait for that download"] == problems


def test_the_end_of_a_block(script):
    """Leaving the block cancels."""
    with script.start() as download:
        assert not download.done()
    script.was_cancelled()


def test_nobody_holds_it(script):
    """Then it is cancelled."""
    script.start()
    gc.collect()
    script.was_cancelled()


def test_a_signal(script, monkeypatch):
    """It ends the download of who waits; set before, nothing is sent."""
    monkeypatch.setattr("lmstudio.download.CANCEL_TIME", 0.05)
    signal = Signal()
    download = script.start(signal=signal, on_progress=lambda _: signal.set())
    script.progress(10)
    with pytest.raises(LMStudioCancelledError):
        list(download)
    with pytest.raises(LMStudioCancelledError):
        script.start(signal=signal)


def test_a_server_that_is_lost(script, fake):
    """Who waits learns of it."""
    download = script.start()
    fake.drop_connections()
    with pytest.raises(LMStudioWebsocketError):
        download.result()
    assert download.done()


def test_a_function_in_place_of_a_bar(script):
    """It is called with shares; the bytes are for the callback and the iteration."""
    shares = []
    download = script.start(progress=shares.append)
    script.progress(25)
    script.say("success", defaultIdentifier="k")
    download.result()
    assert [0.25] == shares


def test_wait_is_yes_or_no(client, fake):
    """Anything else is refused before anything is sent."""
    with pytest.raises(LMStudioTypeError, match="wait"):
        client.repository.download("a/b", wait="no")
    assert [] == [seen for seen in fake.requests if seen.endpoint]


def test_a_server_that_is_not_there():
    """It is an error of the start; nothing is left to wait for."""
    with (
        LMStudioClient("127.0.0.1:9") as client,
        pytest.raises(LMStudioWebsocketError),
    ):
        Script.option(client).download(wait=False)


@pytest.mark.parametrize("kind", [Signal, threading.Event])
def test_a_signal_while_nothing_comes(script, monkeypatch, kind):
    """Both kinds end a wait in which nothing comes."""
    monkeypatch.setattr("lmstudio.download.CANCEL_TIME", 0.05)
    signal = kind()
    download = script.start(signal=signal)
    timer = threading.Thread(target=signal.set)
    timer.start()
    with pytest.raises(LMStudioCancelledError):
        download.result()
    timer.join()
    script.was_cancelled()


def test_a_bar(script, monkeypatch):
    """It is drawn by who waits, if asked for, and closed at the end."""
    drawn = []

    class Counts:
        def __init__(self, total, desc, unit, leave):
            self.n, self.total, self.desc = 0, total, desc

        def refresh(self):
            drawn.append(self.n)

        def update(self, n):
            raise AssertionError("shares are not added")

        def set_description(self, desc):
            raise AssertionError("its name is given when it is made")

        def close(self):
            drawn.append("closed")

    download = script.start(progress=Counts)
    script.progress(25)
    next(iter(download))
    script.say("startFinalizing")
    script.say("success", defaultIdentifier="k")
    download.result()
    assert [25, "closed"] == [drawn[0], drawn[-1]]


@pytest.mark.parametrize("update", [5, {}, {"downloadedBytes": 1, "totalBytes": 0}])
def test_its_line_with_news_that_make_no_sense(script, update):
    """It is shown all the same, without a share; waiting says what is wrong."""
    download = script.start()
    arrived = waits_for_news(download)
    script.say("downloadProgress", update=update)
    assert arrived.wait(PATIENCE)
    assert "<Download a/b running>" == repr(download)


def waits_for_news(download):
    """An event that is set when the next packet has come."""
    arrived, real = threading.Event(), download._inbox.put

    def put(batch):
        real(batch)
        arrived.set()

    download._inbox.put = put
    return arrived
