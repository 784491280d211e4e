"""One file on its way from the hub to the disk: continued, checked, then moved."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

from .engine import EngineError
from .hub import Broken, Hub, HubFile, HubRepo
from .locks import only_one

log = logging.getLogger(__name__)
T = TypeVar("T")

#: Bytes that are collected before they are written.
WRITE = 1 << 20
#: How often in a row a connection may break without bringing a byte.
TRIES = 5
#: Seconds before the second try; each further one waits twice as long.
PAUSE = 0.5
# A full disk, and a full quota, which not every system has.
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


class DownloadFailed(EngineError):
    """A download can't be finished; what is here of it can be continued.

    Attributes:
        code: Tells programs why: ``"download.noSpace"``, ``"download.mismatch"``,
            ``"download.disk"``, ``"download.notLoadable"``, ``"download.cancelled"``.
    """

    def __init__(
        self,
        code: str,
        title: str,
        cause: str | None = None,
        suggestion: str | None = None,
    ) -> None:
        super().__init__(title, cause, suggestion)
        self.code = code


class Partial:
    """The bytes of a file that are here, in a hidden file beside its place.

    The name of that file tells which content it is a part of, so that it is continued
    only with the same. Its methods block, and are called one at a time.

    Args:
        target: Where the whole file belongs.
        file: What the hub says of it.
    """

    def __init__(self, target: Path, file: HubFile) -> None:
        content = (file.sha256 or f"size-{file.size}")[:16]
        self.path = target.with_name(f".{target.name}.{content}.part")
        self.size = 0
        self._target = target
        self._file = file
        self._digest: Any = None
        self._output: Any = None
        self._stopping = threading.Event()

    def open(self) -> None:
        """Take up what is there; its checksum has to be made anew."""
        self._target.parent.mkdir(parents=True, exist_ok=True)
        # Never through a link that someone has put there.
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        flags |= getattr(os, "O_BINARY", 0)
        self._output = os.fdopen(os.open(self.path, flags, 0o644), "r+b")
        self._digest = hashlib.sha256()
        self.size = 0
        while not self._stopping.is_set():
            chunk = self._output.read(WRITE)
            if not chunk:
                break
            self._digest.update(chunk)
            self.size += len(chunk)
        if self.size > self._file.size:
            self.restart()

    def restart(self) -> None:
        """Begin again with nothing."""
        self._output.seek(0)
        self._output.truncate()
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        """Add bytes."""
        self._output.write(data)
        self._output.flush()
        self._digest.update(data)
        self.size += len(data)

    def stop(self) -> None:
        """Have `open` end soon, from any thread."""
        self._stopping.set()

    def close(self) -> None:
        """Leave the file as it is. Safe to repeat."""
        if self._output is not None:
            with contextlib.suppress(OSError):  # what is not on the disk comes again
                self._output.close()

    def finish(self) -> None:
        """Check the content, and move it to its place in one step.

        Raises:
            DownloadFailed: It is not what the hub said; it was removed.
        """
        digest = self._digest.hexdigest()
        if self.size != self._file.size or digest != (self._file.sha256 or digest):
            self.discard()
            raise DownloadFailed(
                "download.mismatch",
                f"What came for {self._file.path} is not what the hub announced",
                f"It has {self.size} bytes and the SHA-256 {digest}, not"
                f" {self._file.size} and {self._file.sha256 or 'any'}",
                "Try again; if it stays so, a proxy or mirror serves another file",
            )
        os.fsync(self._output.fileno())
        self._output.close()
        os.replace(self.path, self._target)
        for old in self._target.parent.glob(f".{_escaped(self._target.name)}.*.part"):
            with contextlib.suppress(OSError):
                old.unlink()  # of another content

    def discard(self) -> None:
        """Remove what is here."""
        self.close()
        with contextlib.suppress(OSError):
            self.path.unlink()


def is_whole(target: Path, file: HubFile) -> bool:
    """Whether the file is there already. Its size tells: reading it all takes long."""
    try:
        return target.stat().st_size == file.size
    except OSError:
        return False


def part_size(target: Path, file: HubFile) -> int:
    """Bytes that are here of a file, or of its part."""
    if is_whole(target, file):
        return file.size
    try:
        return min(Partial(target, file).path.stat().st_size, file.size)
    except OSError:
        return 0


async def fetch_file(
    hub: Hub,
    repo: HubRepo,
    file: HubFile,
    target: Path,
    on_bytes: Callable[[int], None],
    *,
    lock: Path,
    pause: float = PAUSE,
) -> None:
    """Bring a file to its place, unless it is there.

    A cancel leaves what is here, and the next call continues it, in any process.

    Args:
        on_bytes: Called with the bytes that are here, each time there are more.
        lock: The file that stands for who works on it.
        pause: Seconds before the second try.

    Raises:
        DownloadFailed: The disk refuses it, or the content is not right.
        HubError: The hub refused, or can't be reached any more.
    """
    with translated(file.path):
        async with _alone(lock):
            if await thread(is_whole, target, file):  # someone else has brought it
                on_bytes(file.size)
                return
            part = Partial(target, file)
            try:
                await thread(part.open, stop=part.stop)
                on_bytes(part.size)
                await _fill(hub, repo, file, part, on_bytes, pause)
                await thread(part.finish)
            finally:
                part.close()


async def _fill(
    hub: Hub,
    repo: HubRepo,
    file: HubFile,
    part: Partial,
    on_bytes: Callable[[int], None],
    pause: float,
) -> None:
    """Add all that is missing, over as many connections as it takes."""
    tries = 0
    while part.size < file.size:
        before = part.size
        try:
            async with hub.open(repo, file.path, part.size) as body:
                if body.start != part.size:
                    if body.start:
                        raise Broken("the hub sends other bytes than asked for")
                    await thread(part.restart)
                await _take(body.chunks, file.size, part, on_bytes)
            reason = "the connection ended too early"
        except Broken as exc:
            reason = str(exc)
        if part.size >= file.size:
            return
        tries = 0 if part.size > before else tries + 1
        log.info("%s: %s at %d bytes", file.path, reason, part.size)
        if tries >= TRIES:
            raise hub.offline(f"{repo.name}/{file.path}", reason)
        await asyncio.sleep(pause * 2**tries)


async def _take(
    chunks: AsyncIterator[bytes],
    size: int,
    part: Partial,
    on_bytes: Callable[[int], None],
) -> None:
    """Write what comes, in larger pieces; also what came before a break."""
    waiting = bytearray()
    try:
        async for chunk in chunks:
            waiting += chunk
            on_bytes(min(part.size + len(waiting), size))
            if len(waiting) >= WRITE:
                data, waiting = bytes(waiting), bytearray()
                await thread(part.write, data)
                if part.size > size:
                    return  # it is too long, which `finish` tells
    finally:
        if waiting:
            part.write(bytes(waiting))  # not on a thread: a cancel may be under way


@contextlib.asynccontextmanager
async def _alone(path: Path) -> AsyncIterator[None]:
    """Hold the lock of a file between processes, without blocking the loop."""
    gave_up = threading.Event()

    def waiting() -> None:
        if gave_up.is_set():
            raise TimeoutError

    held = contextlib.ExitStack()

    def enter() -> None:
        with contextlib.suppress(TimeoutError):
            held.enter_context(only_one(path, waiting))

    try:
        await thread(enter, stop=gave_up.set)
        yield
    finally:
        held.close()


async def thread(
    function: Callable[..., T], *args: Any, stop: Callable[[], None] | None = None
) -> T:
    """Run a function on a thread. A cancel waits for its end.

    Args:
        stop: Called at a cancel, to make the end come sooner.
    """
    task = asyncio.ensure_future(asyncio.to_thread(function, *args))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if stop is not None:
            stop()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # nobody else looks at it
        raise


@contextlib.contextmanager
def translated(what: str) -> Any:
    """Turn errors of the disk into ours."""
    try:
        yield
    except OSError as exc:
        raise disk_error(what, exc) from exc


def disk_error(what: str, exc: OSError) -> DownloadFailed:
    """The error that tells of one of the disk."""
    if exc.errno in _FULL:
        return DownloadFailed(
            "download.noSpace",
            f"There is not enough space for {what}",
            str(exc),
            "Free some space, or name a folder on another disk with LMSTUDIO_HOME",
        )
    return DownloadFailed(
        "download.disk",
        f"{what} could not be written to the models folder",
        str(exc),
        "Check the permissions, or name another folder with LMSTUDIO_HOME",
    )


def _escaped(name: str) -> str:
    """A file name for use in a pattern."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
