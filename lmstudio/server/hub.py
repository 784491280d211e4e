"""The model hub: what it has, and the bytes of its files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import attrs

from .._version import __version__
from .engine import EngineError

#: Where models are looked for when ``HF_ENDPOINT`` says nothing else.
ENDPOINT = "https://huggingface.co"
#: Seconds without a byte after which a connection counts as broken.
SILENCE = 15.0
#: Most bytes in the hub's answer to a question.
LARGEST_ANSWER = 32 << 20

_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class HubError(EngineError):
    """The hub can't be reached, or refused something.

    Attributes:
        code: Tells programs which: ``"hub.offline"``, ``"hub.unauthorized"``,
            ``"hub.forbidden"``, ``"hub.notFound"``, ``"hub.rateLimited"``,
            ``"hub.failed"``, ``"hub.badName"``, ``"hub.noModel"``.
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


class Broken(Exception):
    """A connection ended too early; trying again may help."""


@attrs.frozen(kw_only=True)
class HubFile:
    """A file of a repository.

    Attributes:
        path: In the repository, with forward slashes.
        size: Bytes.
        sha256: Checksum in hexadecimal, None where the hub has none.
    """

    path: str
    size: int
    sha256: str | None = None


@attrs.frozen(kw_only=True)
class HubRepo:
    """A repository at one moment.

    Attributes:
        name: ``owner/name``, as the hub spells it.
        commit: The state that was listed.
        files: All files that can be downloaded.
    """

    name: str
    commit: str
    files: tuple[HubFile, ...]


@attrs.frozen
class Body:
    """The bytes of a file from some place on.

    Attributes:
        start: Where they begin: 0 when the hub did not go along with the wish.
        chunks: The bytes; raises `Broken` when they end too early.
    """

    start: int
    chunks: AsyncIterator[bytes]


class Hub:
    """The hub. Its methods belong to an event loop, and can be cancelled at any time.

    The user's own settings count: ``HF_ENDPOINT``, ``HF_TOKEN`` (or the token of
    ``hf auth login``), ``HF_HUB_OFFLINE`` and the variables for proxies.

    Args:
        silence: Seconds without a byte after which a connection counts as broken.
    """

    def __init__(self, silence: float = SILENCE) -> None:
        self._silence = silence

    @property
    def endpoint(self) -> str:
        """Its address, without a slash at the end.

        Raises:
            HubError: ``HF_ENDPOINT`` is none.
        """
        named = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/")
        parts = urlsplit(named or ENDPOINT)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise HubError(
                "hub.badName",
                f"HF_ENDPOINT is no address of a model hub: {named[:200]!r}",
                None,
                f"Set it to something like {ENDPOINT}, or unset it",
            )
        return named or ENDPOINT

    async def search(self, term: str | None, limit: int) -> list[str]:
        """Names of repositories with GGUF files, the most downloaded first.

        Raises:
            HubError: See its codes.
        """
        query = {"filter": "gguf", "sort": "downloads", "direction": "-1"}
        query["limit"] = str(limit)
        if term:
            query["search"] = term
        found = await self._ask("/api/models", query, "the search for models")
        if not isinstance(found, list):
            raise self._strange("the search for models")
        names = [item.get("id") for item in found if isinstance(item, dict)]
        return [name for name in names if isinstance(name, str)][:limit]

    async def repo(self, name: str) -> HubRepo:
        """A repository and its files.

        Args:
            name: ``owner/name``; it was checked.

        Raises:
            HubError: See its codes.
        """
        path = f"/api/models/{quote(name)}"
        told = await self._ask(path, {"blobs": "true"}, name)
        commit = told.get("sha") if isinstance(told, dict) else None
        listed = told.get("siblings") if isinstance(told, dict) else None
        if not isinstance(commit, str) or not isinstance(listed, list):
            raise self._strange(name)
        spelled = told.get("id")
        files = [file for entry in listed if (file := _file(entry)) is not None]
        return HubRepo(
            name=spelled if isinstance(spelled, str) else name,
            commit=commit,
            files=tuple(files),
        )

    @contextlib.asynccontextmanager
    async def open(self, repo: HubRepo, path: str, start: int) -> AsyncIterator[Body]:
        """Ask for the bytes of a file, from some place on.

        Raises:
            HubError: The hub refused.
            Broken: It can't be reached, or not any more.
        """
        where = f"/{quote(repo.name)}/resolve/{quote(repo.commit, safe='')}"
        # Packed bytes could not be continued.
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        async with self._session() as (session, network_error):
            with _broken(network_error):
                request = session.stream(
                    "GET",
                    f"{self.endpoint}{where}/{quote(path)}",
                    headers={**self._headers(), **headers},
                    timeout=self._silence,
                )
                async with request as response:
                    if response.status_code == 416 and start:
                        raise Broken("the hub has no bytes at that place")
                    self._check(response, f"{repo.name}/{path}")
                    yield Body(_start(response), response.aiter_bytes())

    async def _ask(self, path: str, query: Mapping[str, str], what: str) -> Any:
        """A question to the hub's API."""
        try:
            async with self._session() as (session, network_error):
                with _broken(network_error):
                    response = await session.get(
                        self.endpoint + path,
                        params=dict(query),
                        headers=self._headers(),
                        timeout=self._silence,
                    )
                    self._check(response, what)
                    if len(response.content) > LARGEST_ANSWER:
                        raise self._strange(what)
                    return response.json()
        except ValueError as exc:
            raise self._strange(what) from exc
        except Broken as exc:
            raise self.offline(what, str(exc)) from exc

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[tuple[Any, type[BaseException]]]:
        """A session as the library makes it, and the base of its network errors."""
        # On a thread: the library and its certificates take a while to read.
        session, network_error = await asyncio.to_thread(_made)
        async with session:
            yield session, network_error

    def _headers(self) -> dict[str, str]:
        from huggingface_hub import get_token

        # In place of the library's own, which tell about the user's programs.
        headers = {"User-Agent": f"lmstudio/{__version__}"}
        if token := get_token():
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def _check(self, response: Any, what: str) -> None:
        """Raise what a status stands for."""
        status = response.status_code
        if status < 300:
            return
        said = response.headers.get("X-Error-Message") or ""
        cause = f"It answered {status}" + (f": {said[:200]}" if said else "")
        host = urlsplit(self.endpoint).netloc
        known = {
            401: (
                "hub.unauthorized",
                f"{host} does not let us read {what}",
                "Check the name; for a private model set HF_TOKEN to a token of an"
                " account that may read it",
            ),
            403: (
                "hub.forbidden",
                f"{host} forbids us to read {what}",
                f"Accept the model's terms at {self.endpoint}/{_repo_of(what)}, and set"
                " HF_TOKEN to a token of that account",
            ),
            404: (
                "hub.notFound",
                f"{host} has no {what}",
                "Check the name; for a private model set HF_TOKEN",
            ),
            429: (
                "hub.rateLimited",
                f"{host} has had too many requests, the last for {what}",
                _wait(response.headers.get("Retry-After")),
            ),
        }
        code, title, suggestion = known.get(
            status, ("hub.failed", f"{host} failed with {what}", "Try again later")
        )
        raise HubError(code, title, cause, suggestion)

    def offline(self, what: str, reason: str) -> HubError:
        """The error of a hub that can't be reached."""
        return HubError(
            "hub.offline",
            f"{self.endpoint} can't be reached for {what}",
            reason,
            "Check the network and the variables HF_ENDPOINT, HF_HUB_OFFLINE and"
            " HTTPS_PROXY",
        )

    def _strange(self, what: str) -> HubError:
        return HubError(
            "hub.failed",
            f"{self.endpoint} answered with something else than {what}",
            None,
            "Check that HF_ENDPOINT names a model hub",
        )


def _made() -> tuple[Any, type[BaseException]]:
    try:
        from huggingface_hub import get_async_session
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as exc:
        raise HubError(
            "hub.failed",
            "Downloads need the package huggingface_hub",
            str(exc),
            "Install it: pip install 'lmstudio[server]'",
        ) from exc
    # The library's own HTTP library changes its name between versions.
    bases = {base.__name__: base for base in HfHubHTTPError.__mro__}
    return get_async_session(), bases["HTTPError"]


@contextlib.contextmanager
def _broken(network_error: type[BaseException]) -> Any:
    """Turn the errors of a network into `Broken`."""
    try:
        yield
    # The library says with a ConnectionError that it was told to stay offline.
    except (network_error, ConnectionError) as exc:
        text = str(exc) or type(exc).__name__
        raise Broken(text.splitlines()[0]) from exc


def _start(response: Any) -> int:
    """Where the bytes of an answer begin."""
    if response.status_code != 206:
        return 0
    match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if match is None:
        raise Broken("the hub does not say which bytes it sends")
    return int(match[1])


def _file(entry: Any) -> HubFile | None:
    """A file as the hub lists it; None for what is none."""
    if not isinstance(entry, dict):
        return None
    path, lfs = entry.get("rfilename"), entry.get("lfs")
    lfs = lfs if isinstance(lfs, dict) else {}
    size = lfs.get("size", entry.get("size"))
    digest = lfs.get("sha256")
    if not isinstance(path, str) or not isinstance(size, int) or size < 0:
        return None
    is_digest = isinstance(digest, str) and re.fullmatch(r"[0-9a-f]{64}", digest)
    return HubFile(path=path, size=size, sha256=digest if is_digest else None)


def _repo_of(what: str) -> str:
    return "/".join(what.split("/")[:2])


def _wait(seconds: str | None) -> str:
    known = seconds is not None and seconds.isdigit()
    return f"Try again in {seconds} s" if known else "Try again in some minutes"
