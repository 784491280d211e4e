"""A file comes to its place whole or not at all, over any number of attempts."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os

import attrs
import pytest

from hub_server import Fault, temporary
from lmstudio.server import partial
from lmstudio.server.hub import Hub, HubError
from lmstudio.server.locks import only_one
from lmstudio.server.partial import DownloadFailed, fetch_file, is_whole, part_size

CONTENT = bytes(range(256)) * 8192  # 2 MiB: two writes


@pytest.fixture
def fetch(hub, tmp_path):
    """Fetches the file ``a.gguf`` of a hub; keeps what was told of it."""
    hub.add("acme/T", {"a.gguf": CONTENT})

    class Fetch:
        target = tmp_path / "models" / "acme" / "T" / "a.gguf"
        lock = tmp_path / "lock"

        def __init__(self):
            self.repo = asyncio.run(Hub().repo("acme/T"))
            self.file = self.repo.files[0]
            self.told = []

        async def run(self, silence=5.0):
            await fetch_file(
                *(Hub(silence), self.repo, self.file, self.target, self.told.append),
                lock=self.lock,
                pause=0.0,
            )

        def __call__(self, **settings):
            asyncio.run(self.run(**settings))

        def failure(self, kind=DownloadFailed, **settings):
            """The error that it ends with."""
            with pytest.raises(kind) as caught:
                self(**settings)
            return caught.value

    return Fetch()


@pytest.mark.slow
def test_fetches(fetch, hub):
    """The file is there, nothing else is, and the progress never fell."""
    fetch()

    assert fetch.target.read_bytes() == CONTENT
    assert ["a.gguf"] == os.listdir(fetch.target.parent)
    assert (sorted(fetch.told), len(CONTENT)) == (fetch.told, fetch.told[-1])
    assert not fetch.lock.exists()

    fetch()
    assert 1 == len(hub.fetched("a.gguf"))


@pytest.mark.slow
def test_continues(fetch, hub):
    """Broken connections are made again, from where they broke."""
    hub.fail("a.gguf", Fault(after=100_000), Fault(after=5), Fault(after=0))
    fetch()

    assert fetch.target.read_bytes() == CONTENT
    assert [None, "bytes=100000-", "bytes=100005-", "bytes=100005-"] == hub.fetched(
        "a.gguf"
    )


@pytest.mark.slow
def test_continues_after_silence(fetch, hub):
    """A connection that says nothing counts as broken."""
    hub.fail("a.gguf", Fault(after=65_536, stall=True))
    fetch(silence=0.2)

    assert fetch.target.read_bytes() == CONTENT


@pytest.mark.slow
def test_gives_up(fetch, hub):
    """A hub that breaks every connection is given up; what came can be continued."""
    hub.fail("a.gguf", Fault(after=1000), *[Fault(after=0)] * partial.TRIES)
    raised = fetch.failure(HubError)

    assert "hub.offline" == raised.code
    assert 1 + partial.TRIES == len(hub.fetched("a.gguf"))
    assert 1000 == part_size(fetch.target, fetch.file)
    fetch()
    assert "bytes=1000-" == hub.fetched("a.gguf")[-1]
    assert fetch.target.read_bytes() == CONTENT


def test_a_hub_without_ranges(fetch, hub):
    """Where the hub sends all of it again, it begins again."""
    hub.fail("a.gguf", Fault(after=1000), Fault(whole=True))
    fetch()

    assert fetch.target.read_bytes() == CONTENT


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
def test_refusals_are_not_repeated(fetch, hub, status):
    """What the hub refuses is told at once, and what is there stays."""
    hub.fail("a.gguf", Fault(after=1000), Fault(status=status))
    fetch.failure(HubError)

    assert 2 == len(hub.fetched("a.gguf"))
    assert 1000 == part_size(fetch.target, fetch.file)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [b"x" * len(CONTENT), CONTENT + b"more"])
def test_wrong_content(fetch, hub, wrong):
    """Content that was not announced is refused and removed; then it works anew."""
    hub.fail("a.gguf", Fault(content=wrong))
    raised = fetch.failure()

    assert "download.mismatch" == raised.code
    assert hashlib.sha256(CONTENT).hexdigest() in raised.cause
    assert [] == os.listdir(fetch.target.parent)
    fetch()
    assert fetch.target.read_bytes() == CONTENT


@pytest.mark.slow
def test_a_file_that_is_shorter_than_announced(fetch, hub):
    """A hub that never sends the rest is given up."""
    fetch.file = attrs.evolve(fetch.file, size=len(CONTENT) + 1)

    assert "hub.offline" == fetch.failure(HubError).code
    assert not fetch.target.exists()


@pytest.mark.slow
def test_a_damaged_part(fetch, hub):
    """A part that others wrote into is found out at the end, and begun anew."""
    hub.fail("a.gguf", Fault(after=1000), Fault(status=429))
    fetch.failure(HubError)
    (part,) = fetch.target.parent.iterdir()
    part.write_bytes(b"x" * 1000)

    assert "download.mismatch" == fetch.failure().code
    fetch()
    assert fetch.target.read_bytes() == CONTENT


def test_a_part_that_is_too_long(fetch, hub):
    """A part longer than the file is no part of it."""
    hub.fail("a.gguf", Fault(after=1000), Fault(status=429))
    fetch.failure(HubError)
    (part,) = fetch.target.parent.iterdir()
    part.write_bytes(CONTENT + b"x")
    fetch()

    assert fetch.target.read_bytes() == CONTENT


@pytest.mark.slow
def test_other_content_is_not_continued(fetch, hub):
    """When the hub has a new file, the part of the old one goes in the end."""
    hub.fail("a.gguf", Fault(after=1000), Fault(status=429))
    fetch.failure(HubError)
    new = CONTENT[::-1]
    hub.add("acme/T", {"a.gguf": new})
    fetch.repo = asyncio.run(Hub().repo("acme/T"))
    fetch.file = fetch.repo.files[0]
    fetch()

    assert fetch.target.read_bytes() == new
    assert None is hub.fetched("a.gguf")[-1]
    assert ["a.gguf"] == os.listdir(fetch.target.parent)


def test_no_checksum(fetch):
    """Without a checksum the size has to do."""
    fetch.file = attrs.evolve(fetch.file, sha256=None)
    fetch()

    assert is_whole(fetch.target, fetch.file)


@pytest.mark.parametrize(
    ("number", "code", "help_"),
    [
        (errno.ENOSPC, "download.noSpace", "Free some space"),
        (errno.EACCES, "download.disk", "permissions"),
    ],
)
def test_disks(fetch, monkeypatch, number, code, help_):
    """A full disk and one that refuses are told, with what helps."""

    def write(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(partial.Partial, "write", write)
    raised = fetch.failure()

    assert (code, True) == (raised.code, help_ in raised.suggestion)
    assert "a.gguf" in raised.title


def test_a_link_is_not_followed(fetch, tmp_path):
    """Where somebody has put a link in place of the part, nothing is written there."""
    fetch.target.parent.mkdir(parents=True)
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    partial.Partial(fetch.target, fetch.file).path.symlink_to(victim)

    assert "download.disk" == fetch.failure().code
    assert b"precious" == victim.read_bytes()


def test_cancel(fetch, hub):
    """A cancel ends it at once and leaves all that came, to be continued."""
    hub.fail("a.gguf", Fault(after=1_500_000, stall=True))

    async def main():
        task = asyncio.create_task(fetch.run(silence=60.0))
        await asyncio.to_thread(hub.stalled.wait)
        while not fetch.told or fetch.told[-1] < 1_500_000:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 1.0)

    asyncio.run(main())
    assert [f".a.gguf.{fetch.file.sha256[:16]}.part"] == temporary(fetch.target.parent)
    assert 1_500_000 == part_size(fetch.target, fetch.file)
    assert not fetch.lock.exists()
    fetch()
    assert "bytes=1500000-" == hub.fetched("a.gguf")[-1]


@pytest.mark.slow
def test_one_at_a_time(fetch, hub):
    """While another process works on the file, this one waits, and can be cancelled."""

    async def main():
        with only_one(fetch.lock, lambda: None):
            task = asyncio.create_task(fetch.run())
            done, _ = await asyncio.wait({task}, timeout=0.2)
            assert not done
            assert [] == hub.fetched("a.gguf")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 1.0)
            second = asyncio.create_task(fetch.run())
            await asyncio.sleep(0)
        await second

    asyncio.run(main())
    assert fetch.target.read_bytes() == CONTENT


def test_a_cancelled_thread_is_waited_for():
    """A cancel asks the thread to end, and returns when it has."""
    events = []

    async def main():
        started, stop = asyncio.Event(), partial.threading.Event()
        loop = asyncio.get_running_loop()

        def work():
            loop.call_soon_threadsafe(started.set)
            stop.wait()
            events.append("ended")

        task = asyncio.create_task(partial.thread(work, stop=stop.set))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        events.append("returned")

    asyncio.run(main())
    assert ["ended", "returned"] == events
