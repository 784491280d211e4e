"""Downloads are shared, counted, stopped by the last who wants them, and remembered."""

from __future__ import annotations

import asyncio
import os

import pytest

from gguf_files import gguf_bytes
from hub_server import Fault, model_bytes, temporary
from lmstudio.server import downloads as module
from lmstudio.server.downloads import Downloads
from lmstudio.server.hub import Hub, HubError
from lmstudio.server.partial import DownloadFailed
from lmstudio.server.store import Store

FILE = "Tiny.Q4_K_M.gguf"
NAME = "acme/Tiny-GGUF@q4_k_m"


@pytest.fixture
def models(tmp_path, hub):
    """The models folder, and a hub with two quantizations of a model."""
    quantizations = {
        FILE: model_bytes(size=300_000),
        "Tiny.Q8_0.gguf": model_bytes(size=400_000, file_type=7),
    }
    hub.add("acme/Tiny-GGUF", quantizations)
    return tmp_path / "models"


def run(models, work, **settings):
    """Run a test with downloads that are closed at the end."""

    async def main():
        made = Downloads(Store(models), models, Hub(60.0), pause=0.0, **settings)
        try:
            return await work(made)
        finally:
            await made.close()

    return asyncio.run(main())


async def stalled(hub):
    """Wait until a request for a file stands still."""
    await asyncio.to_thread(hub.stalled.wait)


@pytest.mark.slow
def test_download(models, hub):
    """A model is brought, can be found by its key, and its status tells how it went."""

    async def work(downloads):
        job = await downloads.join("acme/Tiny-GGUF")
        key = await job.key()
        await downloads.leave(job)
        return key, job.status(), await downloads.options("acme/Tiny-GGUF")

    key, status, options = run(models, work)
    whole = len(hub.repos["acme/Tiny-GGUF"][FILE])
    assert ("tiny", "completed", NAME) == (key, status.state, status.model)
    assert (whole, whole, 0.0) == (
        status.downloaded_bytes,
        status.total_bytes,
        status.bytes_per_second,
    )
    assert (None, "tiny", False) == (status.error, status.model_key, status.was_there)
    assert status.started_at <= status.ended_at
    assert [False, True] == sorted(option.recommended for option in options)
    assert [FILE] == [m.path.name for m in Store(models).list()]


def test_second_quantization(models):
    """Where several files have one key, the key with the quantization is told."""

    async def work(downloads):
        keys = []
        for name in (NAME, "acme/Tiny-GGUF@Q8_0"):
            job = await downloads.join(name)
            keys.append(await job.key())
        again = await downloads.join("acme/Tiny-GGUF", "q8_0")
        keys.append(await again.key())
        return keys, again.status().was_there

    assert (["tiny", "tiny@q8_0", "tiny@q8_0"], True) == run(models, work)


def test_shared(models, hub):
    """Two who want the same file share a download, which the last who goes stops."""
    hub.fail(FILE, Fault(after=100_000, stall=True))

    async def work(downloads):
        first = await downloads.join("acme/Tiny-GGUF")
        await stalled(hub)
        second = await downloads.join(f"{hub.url}/acme/Tiny-GGUF/blob/main/{FILE}")
        assert first is second
        await downloads.leave(first)
        assert not first.task.done()
        assert not await first.ended(0.0)
        await asyncio.wait_for(downloads.leave(second), 1.0)
        with pytest.raises(DownloadFailed) as caught:
            await second.key()
        return caught.value.code, second.status().state

    assert ("download.cancelled", "cancelled") == run(models, work)
    assert 1 == len(hub.fetched(FILE))
    assert 1 == len(temporary(models))
    assert [] == Store(models).list()


def test_continued(models, hub):
    """A download that was left goes on where it was, and counts what was there."""
    hub.fail(FILE, Fault(after=100_000, stall=True))

    async def work(downloads):
        job = await downloads.join(NAME)
        await stalled(hub)
        while job.status().downloaded_bytes < 100_000:
            await asyncio.sleep(0)
        await downloads.leave(job)
        again = await downloads.join(NAME)
        assert again is not job
        return await again.key()

    assert "tiny" == run(models, work)
    assert [None, "bytes=100000-"] == hub.fetched(FILE)


def test_speed(models, hub, monkeypatch):
    """The speed is that of the last seconds; what was there before does not count."""

    async def work(downloads):
        (option, _) = await downloads.options("acme/Tiny-GGUF")
        return module.Job(option)

    job = run(models, work)
    clock = iter([100.0, 101.0, 102.0, 200.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    job.take(0, 1000)
    job.begin()  # at 100 s
    job.take(0, 1500)
    assert 500.0 == job.status().bytes_per_second
    job.take(0, 3000)
    assert 1000.0 == job.status().bytes_per_second
    assert 0.0 == job.status().bytes_per_second


def test_jobs(models, hub):
    """A job runs without anyone who waits; its status is told by its id."""

    async def work(downloads):
        job_id = await downloads.start("acme/Tiny-GGUF", "q8_0")
        assert "downloading" == downloads.status(job_id).state
        job = await downloads.join("acme/Tiny-GGUF@q8_0")
        await job.key()
        assert job_id == job.id
        return downloads.status(job_id)

    status = run(models, work)
    assert ("completed", "tiny") == (status.state, status.model_key)


def test_cancelled_jobs(models, hub):
    """A job can be cancelled by its id, once."""
    hub.fail(FILE, Fault(after=100_000, stall=True))

    async def work(downloads):
        job_id = await downloads.start("acme/Tiny-GGUF")
        await stalled(hub)
        await downloads.cancel(job_id)
        await downloads.cancel(job_id)
        with pytest.raises(HubError) as caught:
            downloads.status("no such")
        return downloads.status(job_id).state, caught.value.code

    assert ("cancelled", "download.notFound") == run(models, work)


def test_failed_jobs(models, hub):
    """The status of a failed job has the error."""
    hub.fail(FILE, Fault(status=403))

    async def work(downloads):
        job = await downloads.join(NAME)
        with pytest.raises(HubError):
            await job.key()
        return job.status()

    status = run(models, work)
    assert ("failed", "hub.forbidden", None) == (
        status.state,
        status.error.code,
        status.model_key,
    )


def test_few_jobs_are_remembered(models, monkeypatch):
    """Of the jobs that have ended only the last are kept."""
    monkeypatch.setattr(module, "REMEMBERED", 1)

    async def work(downloads):
        first = await downloads.join(NAME)
        await first.key()
        second = await downloads.join("acme/Tiny-GGUF@q8_0")
        await second.key()
        assert "completed" == downloads.status(second.id).state
        downloads.status(first.id)

    with pytest.raises(HubError, match="No download has the id"):
        run(models, work)


def test_unknown_models(models):
    """A model that the hub does not have is told before anything begins."""

    async def work(downloads):
        await downloads.join("acme/none")

    with pytest.raises(HubError, match="has no acme/none"):
        run(models, work)


def test_all_files_come(models, hub):
    """The parts of a split model and the projector come together."""
    part = model_bytes(size=1000)
    names = [f"V-Q4_0-0000{n}-of-00002.gguf" for n in (1, 2)]
    files = {f"q4/{name}": part for name in names}
    hub.add("acme/V", {**files, "mmproj-F16.gguf": b"GGUF projector"})

    async def work(downloads):
        job = await downloads.join("acme/V")
        return await job.key(), job.status().total_bytes

    key, total = run(models, work)
    assert ("v", 2 * len(part) + 14) == (key, total)
    found = sorted(os.listdir(models / "acme" / "V"))
    assert [*names, "mmproj-F16.gguf"] == found


def test_not_loadable(models, hub):
    """A file that is no model is told when it is there."""
    hub.add("acme/X", {"x-Q4_0.gguf": b"not a model"})
    hub.add("acme/Y", {"y-Q4_0.gguf": gguf_bytes({"general.type": "adapter"})})

    async def work(downloads):
        codes = []
        for name in ("acme/X", "acme/Y"):
            job = await downloads.join(name)
            with pytest.raises(DownloadFailed) as caught:
                await job.key()
            codes.append(caught.value.code)
        return codes

    assert ["download.notLoadable"] * 2 == run(models, work)


def test_no_space(models, monkeypatch, hub):
    """A disk that has no room for it is told before a byte is fetched."""
    usage = module.shutil.disk_usage(models.parent)
    monkeypatch.setattr(
        module.shutil, "disk_usage", lambda _: usage._replace(free=module.SPARE)
    )

    async def work(downloads):
        job = await downloads.join(NAME)
        await job.key()

    with pytest.raises(DownloadFailed, match="MB are needed") as caught:
        run(models, work)
    assert "download.noSpace" == caught.value.code
    assert [] == hub.fetched(FILE)


def test_unreadable_disk(monkeypatch, tmp_path):
    """A disk that does not say how full it is is told as one that refuses."""

    def refuse(_):
        raise OSError("stale")

    monkeypatch.setattr(module.shutil, "disk_usage", refuse)
    with pytest.raises(DownloadFailed, match="stale"):
        module.check_space("x", tmp_path / "none", 1)


def test_close(models, hub):
    """The server's end stops all downloads within a second; they can be continued."""
    hub.fail(FILE, Fault(after=100_000, stall=True))

    async def work(downloads):
        job = await downloads.join(NAME)
        await stalled(hub)
        await asyncio.wait_for(downloads.close(), 1.0)
        return job.status().state

    assert "cancelled" == run(models, work)
    assert 1 == len(temporary(models))


def test_memory():
    """This machine's memory is known, and counts for what is recommended."""
    total = module.total_memory()

    assert total is None or total > 10**8


def test_memory_decides(models):
    """A machine with too little memory is recommended nothing."""

    async def work(downloads):
        await downloads.join("acme/Tiny-GGUF")

    with pytest.raises(HubError, match="fits the memory"):
        run(models, work, memory=lambda: 1000)
