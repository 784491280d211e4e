"""The model hub as commands reach it: through a server, or without any."""

from __future__ import annotations

import abc
import contextlib
import os
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import lmstudio

from .client import connected
from .failures import FAILED, NOT_FOUND, WRONG_USAGE, Failure

T = TypeVar("T")
#: Codes of errors that have an exit code of their own.
_EXIT = {
    "hub.notFound": NOT_FOUND,
    "hub.noModel": NOT_FOUND,
    "hub.badName": WRONG_USAGE,
}


class Choice(NamedTuple):
    """One of the files that a model can be downloaded as.

    Attributes:
        identifier: What names this download.
        quantization: Such as ``"Q4_K_M"``, None where nothing tells.
        size: Bytes.
        fits: Whether the memory holds it.
        recommended: Whether it is the one that suits most users.
        path: Where it will be below the models folder.
    """

    identifier: str
    quantization: str | None
    size: int
    fits: bool
    recommended: bool
    path: str


class Source(Protocol):
    """Where models come from."""

    def search(self, words: str, limit: int) -> list[str]:
        """Names of repositories."""
        ...

    def choices(self, name: str) -> list[Choice]:
        """What the repository that a name means can be downloaded as."""
        ...

    def choose(self, name: str, choices: Sequence[Choice]) -> Choice:
        """The one that a name means."""
        ...

    def download(self, identifier: str, show: Callable[[float], None]) -> str:
        """Fetch it; returns the model's key."""
        ...


@contextlib.contextmanager
def source(host: str | None, port: int | None) -> Iterator[Source]:
    """The hub through the server that is named or found, or without one."""
    named = host or port or os.environ.get("LMSTUDIO_HOST")
    if not named and lmstudio.LMStudioClient.find_default_local_api_host() is None:
        yield _Alone()
        return
    with connected(host, port) as client:
        yield served(client)


def served(client: lmstudio.LMStudioClient) -> Source:
    """The hub through the server of a client."""
    return _Served(client)


class _Base(abc.ABC):
    """What both have in common: names are read here, before anything is asked for."""

    def choices(self, name: str) -> list[Choice]:
        """What the repository that a name means can be downloaded as."""
        return self._choices(_reference(name).repo)

    def choose(self, name: str, choices: Sequence[Choice]) -> Choice:
        """The one that a name means."""
        wanted = _reference(name)
        if wanted.file is not None:
            what = wanted.file
            file = wanted.file.rpartition("/")[2]
            fits = [c for c in choices if c.path.rpartition("/")[2] == file]
        elif wanted.quantization is not None:
            what, sought = wanted.quantization, wanted.quantization.lower()
            fits = [c for c in choices if c.identifier.lower().endswith(f"@{sought}")]
            fits = fits or [
                c for c in choices if (c.quantization or "").lower() == sought
            ]
        else:
            what = "file that fits the memory"
            fits = [c for c in choices if c.recommended]
        if len(fits) != 1:
            several = "several of" if fits else "no"
            listed = ", ".join(c.identifier for c in choices)
            raise Failure(
                f"{wanted.repo} has {several} {what}; there are {listed}", NOT_FOUND
            )
        return fits[0]

    @abc.abstractmethod
    def _choices(self, repo: str) -> list[Choice]: ...


class _Served(_Base):
    """Through a server, which all downloads then go through."""

    def __init__(self, client: lmstudio.LMStudioClient) -> None:
        self._repository = client.repository

    def search(self, words: str, limit: int) -> list[str]:
        found = self._repository.search_models(words, limit)
        return [model.search_result.identifier.identifier for model in found]

    def _choices(self, repo: str) -> list[Choice]:
        infos = [o.info for o in self._repository.get_download_options(repo)]
        return [
            Choice(
                info.download_identifier,
                info.quantization,
                info.size_bytes,
                info.fit_estimation != "willNotFit",
                bool(info.recommended),
                info.indexed_model_identifier,
            )
            for info in infos
        ]

    def download(self, identifier: str, show: Callable[[float], None]) -> str:
        repo = _reference(identifier).repo
        option = next(
            option
            for option in self._repository.get_download_options(repo)
            if option.info.download_identifier == identifier
        )
        return option.download(progress=show)


class _Alone(_Base):
    """Without a server, into the models folder of this user."""

    def search(self, words: str, limit: int) -> list[str]:
        return _run(lambda downloads: downloads.search(words, limit))

    def _choices(self, repo: str) -> list[Choice]:
        options = _run(lambda downloads: downloads.options(repo))
        return [
            Choice(
                option.identifier,
                option.quantization,
                option.size,
                option.fits,
                option.recommended,
                option.relative_path,
            )
            for option in options
        ]

    def download(self, identifier: str, show: Callable[[float], None]) -> str:
        async def run(downloads: Any) -> str:
            job = await downloads.join(identifier)
            is_over = False
            while not is_over:
                is_over = await job.ended(0.25)
                status = job.status()
                show(status.downloaded_bytes / max(1, status.total_bytes))
            key: str = await job.key()
            return key

        return _run(run)


def _reference(name: str) -> Any:
    """A name as it was written, in its parts."""
    from lmstudio.server.engine import EngineError
    from lmstudio.server.hub import Hub
    from lmstudio.server.hub_options import Reference

    try:
        return Reference.parse(name, Hub().endpoint)
    except EngineError as exc:
        raise _failure(exc) from exc


def _run(work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    """Run something with downloads of its own, which it stops at the end."""
    import asyncio

    from lmstudio import paths
    from lmstudio.server.downloads import Downloads
    from lmstudio.server.engine import EngineError
    from lmstudio.server.store import Store

    async def run() -> T:
        downloads = Downloads(Store(paths.models()), paths.models())
        try:
            return await work(downloads)
        finally:
            await downloads.close()

    try:
        return asyncio.run(run())
    except EngineError as exc:
        raise _failure(exc) from exc


def _failure(exc: Exception) -> Failure:
    return Failure(str(exc), _EXIT.get(getattr(exc, "code", ""), FAILED))
