"""Downloads that run: shared by all who want the same, and how far each is."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import secrets
import shutil
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol

import attrs

from .engine import EngineError, ModelFile
from .hub import Hub, HubError
from .hub_options import Option, Reference, choose, options_of
from .partial import (
    PAUSE,
    DownloadFailed,
    disk_error,
    fetch_file,
    is_whole,
    part_size,
    thread,
)
from .tasks import Tasks

log = logging.getLogger(__name__)

#: Bytes that are to stay free on the disk.
SPARE = 64 << 20
#: Seconds over which the speed is measured.
SPAN = 3.0
#: Ended downloads of which the status can still be asked for.
REMEMBERED = 100

State = Literal["downloading", "finalizing", "completed", "failed", "cancelled"]


class Found(Protocol):
    """Models on disk, as `Store` finds them."""

    def list(self) -> list[ModelFile]:
        """All that can be loaded."""
        ...


@attrs.frozen(kw_only=True)
class Status:
    """How far a download is.

    Attributes:
        job_id: What names it.
        state: ``"downloading"``, ``"finalizing"``, ``"completed"``, ``"failed"`` or
            ``"cancelled"``.
        model: What is downloaded: ``owner/name@q4_k_m``.
        downloaded_bytes: Those that are here, from earlier attempts too.
        total_bytes: Those that there will be.
        bytes_per_second: Over the last seconds.
        started_at: Seconds since 1970.
        ended_at: The same, None while it runs.
        model_key: What loads the model, once it is completed.
        error: Why it failed, once it has.
        was_there: Whether all of it was on the disk before.
    """

    job_id: str
    state: State
    model: str
    downloaded_bytes: int
    total_bytes: int
    bytes_per_second: float
    started_at: float
    ended_at: float | None = None
    model_key: str | None = None
    error: EngineError | None = None
    was_there: bool = False


class Job:
    """One download. Whoever joined it has to leave it, except those who stay for good.

    Attributes:
        id: What names it.
        option: What is downloaded.
        state: See `Status`.
        followers: How many want it; at 0 it is stopped.
        task: What works on it; its result is the model's key.
    """

    task: asyncio.Task[str]

    def __init__(self, option: Option) -> None:
        self.id = secrets.token_hex(8)
        self.option = option
        self.state: State = "downloading"
        self.followers = 0
        self.was_there = False
        self._sizes = [0] * len(option.files)
        self._samples: deque[tuple[float, int]] = deque()
        self._started_at = time.time()
        self._ended_at: float | None = None

    def take(self, number: int, size: int) -> None:
        """So many bytes of a file are here."""
        self._sizes[number] = size

    def begin(self) -> None:
        """What is here by now does not count for the speed."""
        self._samples.clear()
        self._samples.append((time.monotonic(), sum(self._sizes)))

    def end(self, state: State) -> None:
        """It is over."""
        self.state = state
        self._ended_at = time.time()

    async def ended(self, seconds: float) -> bool:
        """Wait for its end, not longer than this. Raises nothing of the job's."""
        await asyncio.wait({self.task}, timeout=seconds)
        return self.task.done()

    async def key(self) -> str:
        """Wait for the model's key.

        Raises:
            EngineError: The download failed, or was stopped.
        """
        await asyncio.wait({self.task})
        if self.task.cancelled():
            raise DownloadFailed(
                "download.cancelled",
                f"The download of {self.option.identifier} was cancelled",
                None,
                "What is here of it stays; starting it again continues it",
            )
        return self.task.result()

    def status(self) -> Status:
        """How far it is now."""
        done = sum(self._sizes)
        is_over = self._ended_at is not None
        error = None
        if is_over and not self.task.cancelled():
            error = self.task.exception()
        return Status(
            job_id=self.id,
            state=self.state,
            model=self.option.identifier,
            downloaded_bytes=done,
            total_bytes=self.option.size,
            bytes_per_second=0.0 if is_over else self._speed(done),
            started_at=self._started_at,
            ended_at=self._ended_at,
            model_key=self.task.result() if self.state == "completed" else None,
            error=error if isinstance(error, EngineError) else None,
            was_there=self.was_there,
        )

    def _speed(self, done: int) -> float:
        """Bytes a second over the last ones."""
        now = time.monotonic()
        if not self._samples or now - self._samples[-1][0] >= 0.1:
            self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[1][0] > SPAN:
            self._samples.popleft()
        then, before = self._samples[0]
        return max(0.0, (done - before) / (now - then)) if now > then else 0.0


class Downloads:
    """All downloads of one server. Its methods belong to one event loop.

    Args:
        models: Models on disk, to find what was downloaded.
        models_dir: The models folder. Locks are made beside it.
        hub: Where models come from.
        memory: Says how many bytes of memory this machine has.
        pause: Seconds before a broken connection is made again, at first.
    """

    def __init__(
        self,
        models: Found,
        models_dir: Path,
        hub: Hub | None = None,
        memory: Callable[[], int | None] | None = None,
        pause: float = PAUSE,
    ) -> None:
        self.hub = hub or Hub()
        self._models = models
        self._folder = Path(os.path.abspath(models_dir))
        self._memory = memory or total_memory
        self._pause = pause
        self._running: dict[str, Job] = {}  # by the path of the first file
        self._jobs: dict[str, Job] = {}  # by id, ended ones too
        self._tasks = Tasks()

    async def search(self, term: str | None, limit: int) -> list[str]:
        """Names of repositories with GGUF files; see `Hub.search`."""
        return await self.hub.search(term, limit)

    async def options(self, model: str) -> list[Option]:
        """What of a repository can be downloaded; see `options_of`.

        Raises:
            HubError: Nothing, or the name is wrong.
        """
        wanted = Reference.parse(model, self.hub.endpoint)
        return options_of(await self.hub.repo(wanted.repo), self._memory())

    async def resolve(self, model: str, quantization: str | None = None) -> Option:
        """The option that a name means.

        Args:
            model: ``owner/name``, ``owner/name@quantization``, a file, or a URL.
            quantization: Which one, if the name does not tell.

        Raises:
            HubError: None, or it does not say which.
        """
        wanted = Reference.parse(model, self.hub.endpoint)
        if quantization is not None and wanted.quantization is None:
            wanted = attrs.evolve(wanted, quantization=quantization)
        repo = await self.hub.repo(wanted.repo)
        return choose(options_of(repo, self._memory()), wanted)

    async def join(self, model: str, quantization: str | None = None) -> Job:
        """Start a download, or take part in the one that runs. `leave` it afterwards.

        Raises:
            HubError: There is no such model.
        """
        return self.take_part(await self.resolve(model, quantization))

    def take_part(self, option: Option) -> Job:
        """What `join` does, with the option that is meant."""
        job = self.running(option)
        if job is None:
            job = self._begin(option, self._running.get(option.relative_path))
        job.followers += 1
        return job

    def running(self, option: Option) -> Job | None:
        """The download of an option that others want by now, if there is one."""
        job = self._running.get(option.relative_path)
        if job is None or job.task.cancelled() or job.followers == 0:
            return None
        return job

    async def held(self, options: Sequence[Option]) -> list[bool]:
        """Whether all files of each option are here."""

        def is_held(option: Option) -> bool:
            folder = self._folder / option.repo.name
            pairs = zip(option.names, option.files, strict=True)
            return all(is_whole(folder / name, file) for name, file in pairs)

        return await thread(lambda: [is_held(option) for option in options])

    async def leave(self, job: Job) -> None:
        """Want it no more. The last one stops it, and waits for that."""
        job.followers -= 1
        if job.followers == 0 and not job.task.done():
            job.task.cancel()
            await asyncio.wait({job.task})

    async def start(self, model: str, quantization: str | None = None) -> str:
        """Start a download that nobody waits for; returns its id.

        It runs until it ends, `cancel` stops it, or the server ends.

        Raises:
            HubError: There is no such model.
        """
        return (await self.join(model, quantization)).id

    def status(self, job_id: str) -> Status:
        """How far a download is.

        Raises:
            HubError: No download has this id.
        """
        return self._job(job_id).status()

    async def cancel(self, job_id: str) -> None:
        """Give up a download that `start` began; others who want it keep it.

        Raises:
            HubError: No download has this id.
        """
        job = self._job(job_id)
        if not job.task.done():
            await self.leave(job)

    async def close(self) -> None:
        """Stop all downloads. What is here of them can be continued later."""
        self._tasks.cancel()
        await self._tasks.join()

    def _job(self, job_id: str) -> Job:
        job = self._jobs.get(job_id)
        if job is None:
            raise HubError(
                "download.notFound",
                f"No download has the id {job_id[:100]!r}",
                None,
                "Ids are known while the server runs that made them",
            )
        return job

    def _begin(self, option: Option, before: Job | None) -> Job:
        job = Job(option)
        path = option.relative_path
        self._running[path] = self._jobs[job.id] = job
        job.task = self._tasks.spawn(self._run(job, before))

        def ended(task: asyncio.Task[str]) -> None:
            if self._running.get(path) is job:
                del self._running[path]
            if task.cancelled():
                job.end("cancelled")
            else:
                job.end("completed" if task.exception() is None else "failed")
            over = [j.id for j in self._jobs.values() if j.task.done()]
            for job_id in over[:-REMEMBERED]:
                del self._jobs[job_id]

        job.task.add_done_callback(ended)
        return job

    async def _run(self, job: Job, before: Job | None) -> str:
        """Bring all files; returns the model's key."""
        if before is not None and not before.task.done():
            await asyncio.wait({before.task})  # it was given up, and lets go
        option = job.option
        folder = self._folder / option.repo.name
        targets = [folder / name for name in option.names]
        pairs = [*zip(targets, option.files, strict=True)]
        sizes = await thread(lambda: [part_size(*pair) for pair in pairs])
        for number, size in enumerate(sizes):
            job.take(number, size)
        job.begin()
        missing = option.size - sum(sizes)
        job.was_there = missing == 0
        await thread(check_space, option.identifier, folder, missing)
        for number, (target, file) in enumerate(pairs):
            take = _Taker(job, number)
            lock = self._lock_of(target)
            await fetch_file(
                *(self.hub, option.repo, file, target, take),
                lock=lock,
                pause=self._pause,
            )
        job.state = "finalizing"
        return await thread(self._key_of, option)

    def _key_of(self, option: Option) -> str:
        """What loads a model that was downloaded."""
        models = self._models.list()
        for model in models:
            if model.relative_path == option.relative_path:
                shared = [m for m in models if m.key == model.key]
                return model.variant if len(shared) > 1 else model.key
        raise DownloadFailed(
            "download.notLoadable",
            f"{option.identifier} was downloaded and can't be loaded",
            f"The file {option.relative_path} holds no whole model",
            "`lms ls` says more; try another file of the repository",
        )

    def _lock_of(self, target: Path) -> Path:
        """The file that stands for who works on another one."""
        name = hashlib.sha256(str(target).encode()).hexdigest()[:32]
        return self._folder.parent / ".internal" / "downloads" / f"{name}.lock"


class _Taker:
    """Tells a job of the bytes of one of its files."""

    def __init__(self, job: Job, number: int) -> None:
        self._job = job
        self._number = number

    def __call__(self, size: int) -> None:
        self._job.take(self._number, size)


def check_space(what: str, folder: Path, needed: int) -> None:
    """See that the disk has room.

    Raises:
        DownloadFailed: It has not.
    """
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        free = shutil.disk_usage(folder).free
    except OSError as exc:
        raise disk_error(what, exc) from exc
    if needed and free < needed + SPARE:
        raise DownloadFailed(
            "download.noSpace",
            f"There is not enough space for {what}",
            f"{folder} has {free / 1e6:.0f} MB left, and"
            f" {(needed + SPARE) / 1e6:.0f} MB are needed",
            "Free some space, or name a folder on another disk with LMSTUDIO_HOME",
        )


def total_memory() -> int | None:
    """Bytes of memory that this machine has; None where the system does not say."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None
