"""Models that a server can download: search, options, and the download itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

from .arguments import checked_flag, checked_name, checked_text
from .calls import call
from .download import Download
from .errors import (
    LMStudioModelNotFoundError,
    LMStudioTypeError,
    LMStudioValueError,
    shown,
)
from .progress import Progress, displays
from .session import Session
from .wire.repository import (
    FORMATS,
    DownloadOption,
    DownloadOptions,
    DownloadProgress,
    GetDownloadOptions,
    SearchIdentifier,
    SearchModels,
    SearchOptions,
    SearchResult,
    SearchResults,
)

#: Most results that a search may ask for. Source: docs/wire/repository.md.
MOST_RESULTS = 25


class Repository:
    """The models that a server can download: ``client.repository``."""

    def __init__(
        self, session: Session, call_time: float | None, progress: Progress = None
    ) -> None:
        self._session = session
        self._call_time = call_time
        self._progress = progress

    def __repr__(self) -> str:
        return self._session.shown_of(self)

    def search_models(
        self,
        search_term: str | None = None,
        limit: int | None = None,
        compatibility_types: Sequence[str] | None = None,
    ) -> list[AvailableModel]:
        """Look for models, those that are downloaded most often first.

        Args:
            search_term: Words of the name.
            limit: How many at most, 1 to 25; None leaves it to the server.
            compatibility_types: Formats such as ``"gguf"``; None for all that the
                server knows.

        Raises:
            LMStudioValueError: No argument is given, or one is wrong.
            LMStudioDownloadError: The hub can't be reached, or refused.
        """
        if (search_term, limit, compatibility_types) == (None, None, None):
            raise LMStudioValueError("a search needs a search_term, or a limit")
        if search_term is not None:
            checked_text(search_term, "search_term")
        whole = isinstance(limit, int) and not isinstance(limit, bool)
        if limit is not None and not (whole and 1 <= limit <= MOST_RESULTS):
            raise LMStudioValueError(
                f"limit must be a whole number from 1 to {MOST_RESULTS},"
                f" not {shown(limit)}"
            )
        opts = SearchOptions(
            search_term=search_term,
            limit=limit,
            compatibility_types=_formats(compatibility_types),
        )
        found: SearchResults = self._call("searchModels", SearchModels(opts=opts))
        return [AvailableModel(result, self) for result in found.results]

    def get_download_options(self, model: str) -> list[ModelDownloadOption]:
        """What a repository of the hub can be downloaded as, the smallest first.

        Args:
            model: ``owner/name``.

        Raises:
            LMStudioModelNotFoundError: The hub has no such model, or the server no use
                for it.
            LMStudioDownloadError: The hub can't be reached, or refused.
        """
        name = checked_name(model, "the name of a model")
        return self._options(SearchIdentifier(type="hf", identifier=name))

    @overload
    def download(
        self,
        model: str,
        *,
        on_progress: Callable[[DownloadProgress], object] | None = None,
        on_finalize: Callable[[], object] | None = None,
        progress: Progress = None,
        signal: Any = None,
        timeout: float | None = None,
        wait: Literal[True] = True,
    ) -> str: ...

    @overload
    def download(
        self,
        model: str,
        *,
        on_progress: Callable[[DownloadProgress], object] | None = None,
        on_finalize: Callable[[], object] | None = None,
        progress: Progress = None,
        signal: Any = None,
        timeout: float | None = None,
        wait: Literal[False],
    ) -> Download: ...

    @overload
    def download(
        self,
        model: str,
        *,
        on_progress: Callable[[DownloadProgress], object] | None = None,
        on_finalize: Callable[[], object] | None = None,
        progress: Progress = None,
        signal: Any = None,
        timeout: float | None = None,
        wait: bool,
    ) -> str | Download: ...

    def download(
        self,
        model: str,
        *,
        on_progress: Callable[[DownloadProgress], object] | None = None,
        on_finalize: Callable[[], object] | None = None,
        progress: Progress = None,
        signal: Any = None,
        timeout: float | None = None,
        wait: bool = True,
    ) -> str | Download:
        """Have the server download a model of the hub; returns what loads it.

        What is there already is not downloaded again, and what an earlier call left
        unfinished is continued.

        Args:
            model: ``owner/name`` for what the server recommends, or with a
                quantization ``owner/name@q4_k_m``.
            on_progress: As for `ModelDownloadOption.download`, like what follows.

        Raises:
            LMStudioModelNotFoundError: The hub has no such model or quantization.
            LMStudioError: As for `ModelDownloadOption.download`.
        """
        checked_flag(wait, "wait")
        name, at, quantization = checked_name(model, "the model").partition("@")
        options = self.get_download_options(name)
        option = _chosen(name, quantization if at else None, options)
        return option.download(
            on_progress,
            on_finalize,
            progress=progress,
            signal=signal,
            timeout=timeout,
            wait=wait,
        )

    def _options(self, identifier: SearchIdentifier) -> list[ModelDownloadOption]:
        ask = GetDownloadOptions(model_search_result_identifier=identifier)
        found: DownloadOptions = self._call("getModelDownloadOptions", ask)
        return [ModelDownloadOption(option, self) for option in found.results]

    def _call(self, name: str, parameter: Any) -> Any:
        return call(
            self._session, "repository", name, parameter, timeout=self._call_time
        )


class AvailableModel:
    """A model that a search found.

    Attributes:
        search_result: What the server told of it.
    """

    def __init__(self, search_result: SearchResult, repository: Repository) -> None:
        self.search_result = search_result
        self._repository = repository

    def get_download_options(self) -> list[ModelDownloadOption]:
        """What it can be downloaded as, the smallest first.

        Raises:
            LMStudioModelNotFoundError: The server has no use for it.
            LMStudioDownloadError: The hub can't be reached, or refused.
        """
        return self._repository._options(self.search_result.identifier)

    def __repr__(self) -> str:
        return f"<AvailableModel {self.search_result.name}>"


class ModelDownloadOption:
    """One of the files that a model can be downloaded as.

    Attributes:
        info: What the server told of it: size, quantization, whether it is recommended.
    """

    def __init__(self, info: DownloadOption, repository: Repository) -> None:
        self.info = info
        self._repository = repository

    @overload
    def download(
        self,
        on_progress: Callable[[DownloadProgress], object] | None = None,
        on_finalize: Callable[[], object] | None = None,
        *,
        progress: Progress = None,
        signal: Any = None,
        timeout: float | None = None,
        wait: Literal[True] = True,
    ) -> str: ...

    @overload
    def download(
        self,
        on_progress: Callable[[DownloadProgress], object] | None = None,
        on_finalize: Callable[[], object] | None = None,
        *,
        progress: Progress = None,
        signal: Any = None,
        timeout: float | None = None,
        wait: Literal[False],
    ) -> Download: ...

    @overload
    def download(
        self,
        on_progress: Callable[[DownloadProgress], object] | None = None,
        on_finalize: Callable[[], object] | None = None,
        *,
        progress: Progress = None,
        signal: Any = None,
        timeout: float | None = None,
        wait: bool,
    ) -> str | Download: ...

    def download(
        self,
        on_progress: Callable[[DownloadProgress], object] | None = None,
        on_finalize: Callable[[], object] | None = None,
        *,
        progress: Progress = None,
        signal: Any = None,
        timeout: float | None = None,
        wait: bool = True,
    ) -> str | Download:
        """Have the server download it, and wait; returns what loads the model.

        Whatever ends the wait early (Ctrl-C, the signal, the time limit, an exception
        of a callback) stops the download, unless another client wants it too. What is
        there stays, and the next download continues it.

        Args:
            on_progress: Called in this thread with how far it is, several times a
                second.
            on_finalize: Called once all bytes are there.
            progress: Whether a bar shows the progress, or a function in its place,
                called with 0 to 1, or tqdm. None takes the client's, and shows no bar
                with an `on_progress` or without `wait`.
            signal: A `Signal` or `threading.Event` that cancels the download.
            timeout: Seconds for all of it; None waits as long as it takes.
            wait: False returns a `Download` at once: an iterator of its progress, which
                also waits for the key, and cancels.

        Raises:
            LMStudioValueError: An argument is wrong; nothing was sent.
            LMStudioDownloadError: The hub, the network or the disk failed; its `code`
                says which.
            LMStudioCancelledError: The signal was set.
            LMStudioTimeoutError: The time is over.
            LMStudioWebsocketError: The server can't be reached, or was lost.
        """
        download = Download(
            self._repository._session,
            self.info.download_identifier,
            on_progress=on_progress,
            on_finalize=on_finalize,
            signal=signal,
            timeout=timeout,
        )
        is_shown = checked_flag(wait, "wait") and on_progress is None
        given = False if progress is None and not is_shown else progress
        label = f"Downloading {self.info.download_identifier}"
        download.start(*displays(label, given, self._repository._progress, None))
        return download.result() if wait else download

    def __repr__(self) -> str:
        mark = ", recommended" if self.info.recommended else ""
        return f"<ModelDownloadOption {self.info.download_identifier}{mark}>"


def _formats(given: Any) -> list[str] | None:
    """Formats that the protocol knows."""
    if given is None:
        return None
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise LMStudioTypeError(
            f"compatibility_types must be a list of formats, not {shown(given)}"
        )
    for name in given:
        if name not in FORMATS:
            raise LMStudioValueError(
                f"unknown format {shown(name)}; known are {', '.join(FORMATS)}"
            )
    return list(given)


def _chosen(
    name: str, quantization: str | None, options: Sequence[ModelDownloadOption]
) -> ModelDownloadOption:
    """The option of a quantization, or the recommended one."""
    if quantization is None:
        fits = [option for option in options if option.info.recommended]
    else:
        sought, mark = quantization.lower(), f"@{quantization.lower()}"
        fits = [
            option
            for option in options
            if option.info.download_identifier.lower().endswith(mark)
        ] or [o for o in options if (o.info.quantization or "").lower() == sought]
    if len(fits) == 1:
        return fits[0]
    what = "recommended" if quantization is None else f"of {quantization[:100]!r}"
    listed = ", ".join(o.info.download_identifier for o in options)
    raise LMStudioModelNotFoundError(
        "downloadModel",
        f"{name} has {'several files' if fits else 'no file'} {what}",
        f"There are {listed}" if listed else "It has no files that can be loaded",
        "Name one of these" if listed else None,
    )
