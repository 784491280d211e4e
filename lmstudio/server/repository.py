"""What the server does in the namespace ``repository``: search and download."""

from __future__ import annotations

import asyncio
from typing import Any

from ..protocol.server import ABSENT
from ..wire import repository
from .caller import Caller, CallHandler, ChannelHandler, End
from .downloads import Downloads, Job
from .engine import BadRequest
from .failures import Failure
from .hub_options import Option

#: Seconds between two reports of progress.
PAUSE = 0.25
#: Results of a search, when the client does not say how many, and at most.
RESULTS, MOST_RESULTS = 10, 25


def downloads_of(caller: Caller) -> Downloads:
    """What brings models.

    Raises:
        Failure: This server downloads nothing.
    """
    downloads = caller.service.downloads
    if downloads is None:
        raise Failure("This server downloads nothing: it has no models folder")
    return downloads


async def _search(caller: Caller, parameter: repository.SearchModels) -> Any:
    opts = parameter.opts
    limit = RESULTS if opts.limit is None else opts.limit
    if not 1 <= limit <= MOST_RESULTS:
        raise BadRequest(f"limit must be from 1 to {MOST_RESULTS}, not {limit}")
    kinds, term = opts.compatibility_types, (opts.search_term or "").strip()
    names: list[str] = []
    if kinds is None or "gguf" in kinds:
        names = await downloads_of(caller).search(term or None, limit)
    return repository.SearchResults(
        results=[
            repository.SearchResult(
                name=name,
                identifier=repository.SearchIdentifier(type="hf", identifier=name),
                exact=name.lower() == term.lower(),
                staff_pick=False,
            )
            for name in names
        ]
    )


async def _options(caller: Caller, parameter: repository.GetDownloadOptions) -> Any:
    identifier = parameter.model_search_result_identifier
    if identifier.type != "hf":
        raise Failure(
            f"This server has no catalog to look up {identifier.identifier[:100]!r}",
            "It knows the repositories of the hub",
            "Use an identifier of the type 'hf', which a search gives",
        )
    options = await downloads_of(caller).options(identifier.identifier)
    return repository.DownloadOptions(results=[_told(option) for option in options])


def fit_of(option: Option) -> str:
    """Whether it can run here, in the wire's words: nothing is known of GPUs."""
    return "fitWithoutGPU" if option.fits else "willNotFit"


def _told(option: Option) -> repository.DownloadOption:
    """An option as clients read it."""
    return repository.DownloadOption(
        name=option.name,
        size_bytes=option.size,
        fit_estimation=fit_of(option),
        download_identifier=option.identifier,
        indexed_model_identifier=option.relative_path,
        quantization=option.quantization,
        recommended=option.recommended or None,
        compatibility_type="gguf",
    )


async def download_model(
    caller: Caller, parameter: repository.DownloadModel, ends: End
) -> None:
    """Report a download until it ends. The last client that goes stops it."""
    downloads = downloads_of(caller)
    task = asyncio.current_task()
    assert task is not None
    job = None
    ends.on_cancel(task.cancel)
    try:
        job = await downloads.join(parameter.download_identifier)
        key = await report(job, ends)
        await ends.send({"type": "success", "defaultIdentifier": key})
    except asyncio.CancelledError:
        if not ends.is_cancelled:
            raise
        raise cancelled(parameter.download_identifier) from None
    finally:
        if job is not None:
            await downloads.leave(job)


async def report(job: Job, ends: End) -> str:
    """Send how far a download is until it ends; returns the model's key.

    Raises:
        EngineError: It failed.
    """
    is_over = False
    while not is_over:
        is_over = await job.ended(PAUSE)
        status = job.status()
        update = repository.DownloadProgress(
            downloaded_bytes=status.downloaded_bytes,
            total_bytes=status.total_bytes,
            speed_bytes_per_second=status.bytes_per_second,
        )
        await ends.send({"type": "downloadProgress", "update": _unstructured(update)})
    key = await job.key()
    await ends.send({"type": "startFinalizing"})
    return key


def cancelled(name: str) -> Failure:
    """The client has stopped a download."""
    return Failure(
        f"The download of {name} was cancelled",
        None,
        "What is here of it stays; starting it again continues it",
        data={"code": "download.cancelled"},
    )


def _unstructured(update: repository.DownloadProgress) -> dict[str, Any]:
    return {
        "downloadedBytes": update.downloaded_bytes,
        "totalBytes": update.total_bytes,
        "speedBytesPerSecond": update.speed_bytes_per_second,
    }


def _answer(value: Any) -> CallHandler:
    """A call that always has the same answer."""

    async def answer(_: Caller, __: Any) -> Any:
        return value

    return answer


def _refused(what: str) -> Failure:
    return Failure(
        f"This server {what}",
        "It serves the models in its folder and downloads models of the hub",
        "Do this with the LM Studio application",
        data={"code": "repository.unsupported"},
    )


def _refuse(what: str) -> CallHandler:
    async def refuse(_: Caller, __: Any) -> Any:
        raise _refused(what)

    return refuse


def _refuse_channel(what: str) -> ChannelHandler:
    async def refuse(_: Caller, __: Any, ___: End) -> None:
        raise _refused(what)

    return refuse


_ACCOUNT = "has no accounts"
_ARTIFACTS = "has no artifacts: no plugins, presets or projects of the hub"
_LINK = "is linked to no other server"

_ANSWERS: dict[str, CallHandler] = {
    "searchModels": _search,
    "getModelDownloadOptions": _options,
    "getModelCatalog": _answer({"models": []}),
    "fuzzyFindStaffPicks": _answer({"results": []}),
    "getWritableArtifactOwners": _answer({"owners": []}),
    "isAuthenticated": _answer({"authenticated": False}),
    "getAuthenticationStatus": _answer({"authenticationStatus": {"type": "none"}}),
    "deauthenticate": _answer(ABSENT),
    "lmLinkStatus": _answer(
        {
            "status": "offline",
            "issues": ["notLoggedIn"],
            "peers": [],
            "deviceIdentifier": None,
            "deviceName": "",
        }
    ),
    "lmLinkSetDisabled": _refuse(_LINK),
    "lmLinkUpdateDeviceName": _refuse(_LINK),
    "lmLinkSetPreferredDevice": _refuse(_LINK),
    "loginWithPreAuthenticatedKeys": _refuse(_ACCOUNT),
    "loginAsComputeDevice": _refuse(_ACCOUNT),
    "getLocalArtifactFiles": _refuse(_ARTIFACTS),
    "installPluginDependencies": _refuse(_ARTIFACTS),
    "installLocalPlugin": _refuse(_ARTIFACTS),
}
#: Namespace and endpoint -> what answers it.
CALLS: dict[tuple[str, str], CallHandler] = {
    ("repository", name): handler for name, handler in _ANSWERS.items()
}

#: Namespace and endpoint -> what serves it.
CHANNELS: dict[tuple[str, str], ChannelHandler] = {
    ("repository", "downloadModel"): download_model,
    ("repository", "downloadArtifact"): _refuse_channel(_ARTIFACTS),
    ("repository", "pushArtifact"): _refuse_channel(_ARTIFACTS),
    ("repository", "ensureAuthenticated"): _refuse_channel(_ACCOUNT),
}
