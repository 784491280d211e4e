"""API tokens: who may use a server, and for what."""

from __future__ import annotations

import hmac
import logging
import os
import re
import secrets
import stat
import string
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs

from .. import paths
from ..errors import LMStudioOSError, LMStudioValueError

log = logging.getLogger(__name__)

#: How a token is written. Source: docs/wire/connection.md, "API tokens".
FORM = re.compile(r"sk-lm-([A-Za-z0-9]{8}):([A-Za-z0-9]{20})")
#: What a token may allow. Each has all of them unless the file says otherwise.
PERMISSIONS = ("predict", "models", "server")

_LETTERS = string.ascii_letters + string.digits

#: Permission -> the endpoints that take it. Whatever is in none takes "server".
_ENDPOINTS = {
    "predict": (
        *("alive", "applyPromptTemplate", "completeRawText", "countTokens"),
        *("embedString", "estimateModelUsage", "fuzzyFindStaffPicks"),
        *("getAuthenticationStatus", "getBasePredictionConfig"),
        *("getDocumentParsingLibrary", "getEngineSelections", "getExperimentFlags"),
        *("getInstanceProcessingState", "getLoadConfig", "getLocalArtifactFiles"),
        *("getLocalFileAbsolutePath", "getModelCatalog", "getModelDownloadOptions"),
        *("getModelInfo", "getOrLoad", "getWritableArtifactOwners", "info"),
        *("isAuthenticated", "listDownloadedModelVariants", "listDownloadedModels"),
        *("listEngines", "listLoaded", "lmLinkStatus", "notify", "parseDocument"),
        *("predict", "retrieve", "searchModels", "searchRuntimeExtensions"),
        *("surveyHardware", "tokenize", "uploadFileBase64", "version"),
    ),
    "models": (
        *("createArtifactDownloadPlan", "createDownloadPlan", "downloadArtifact"),
        *("downloadModel", "downloadRuntimeExtension", "loadModel", "unloadModel"),
    ),
    "server": (
        *("deauthenticate", "ensureAuthenticated", "installLocalPlugin"),
        *("installPluginDependencies", "lmLinkSetDisabled"),
        *("lmLinkSetPreferredDevice", "lmLinkUpdateDeviceName"),
        *("loginAsComputeDevice", "loginWithPreAuthenticatedKeys", "pushArtifact"),
        *("removeEngine", "requestShutdown", "selectEngine", "setExperimentFlag"),
        *("startHttpServer", "stopHttpServer", "streamLogs"),
    ),
}
NEEDS = {name: needs for needs, names in _ENDPOINTS.items() for name in names}
#: Method and path of the REST interfaces -> the same; at the end of a path ``*`` is
#: anything. Whatever is not here takes "server".
NEEDS_AT = {
    **dict.fromkeys(
        [
            *(("GET", "/v1/models"), ("GET", "/v1/models/*")),
            *(("GET", "/api/v0/models"), ("GET", "/api/v0/models/*")),
            *(("POST", "/v1/chat/completions"), ("POST", "/v1/completions")),
            *(("POST", "/v1/embeddings"), ("POST", "/api/v0/chat/completions")),
            *(("POST", "/api/v0/completions"), ("POST", "/api/v0/embeddings")),
            *(("POST", "/v1/responses"), ("GET", "/v1/responses/*")),
            *(("DELETE", "/v1/responses/*"), ("POST", "/api/v1/chat")),
            *(
                ("GET", "/api/v1/models"),
                ("GET", "/api/v1/models/download/status/*"),
            ),
        ],
        "predict",
    ),
    ("POST", "/api/v1/models/load"): "models",
    ("POST", "/api/v1/models/unload"): "models",
    ("POST", "/api/v1/models/download"): "models",
}


@attrs.frozen
class Token:
    """One token.

    Attributes:
        identifier: Its first part, which may be shown.
        passkey: Its second part, which may not.
        permissions: What it allows.
    """

    identifier: str
    passkey: str = attrs.field(repr=False)
    permissions: frozenset[str] = frozenset(PERMISSIONS)

    @property
    def text(self) -> str:
        """The whole token, as clients are given it."""
        return f"sk-lm-{self.identifier}:{self.passkey}"


class TokensUnusable(LMStudioOSError):
    """The file of the tokens can't be read or written, or says what is no token."""


class Tokens:
    """The tokens that a server accepts. None of them shows in the repr.

    Args:
        tokens: At least one.
    """

    def __init__(self, tokens: Iterable[Token]) -> None:
        self._tokens = tuple(tokens)
        assert self._tokens, "a server without tokens takes None"

    def __repr__(self) -> str:
        return f"<Tokens: {len(self._tokens)}>"

    @property
    def first(self) -> str:
        """The first token, for clients of the program that runs the server."""
        return self._tokens[0].text

    def find(self, identifier: str, passkey: str) -> Token | None:
        """The token with these parts; None for a wrong one.

        It takes as long whichever part is wrong, and wherever.
        """
        shown = f"{identifier}:{passkey}".encode(errors="surrogatepass")
        found = None
        for token in self._tokens:
            known = f"{token.identifier}:{token.passkey}".encode()
            if hmac.compare_digest(known, shown):
                found = token
        return found

    def find_bearer(self, authorization: str | None) -> Token | None:
        """The token in an ``Authorization`` header; None for a wrong one or none."""
        scheme, _, text = (authorization or "").partition(" ")
        parts = FORM.fullmatch(text.strip())
        if scheme.lower() != "bearer" or parts is None:
            return None
        return self.find(parts[1], parts[2])


def read_token(text: str, permissions: Iterable[str] = PERMISSIONS) -> Token:
    """A token from its text.

    Raises:
        LMStudioValueError: It has another form. The text is not in the message.
    """
    parts = FORM.fullmatch(text)
    if parts is None:
        raise LMStudioValueError(
            "an API token has the form sk-lm-<8 letters or digits>:<20 letters or"
            f" digits>; this one has {len(text)} characters"
        )
    allowed = frozenset(permissions)
    for name in allowed - frozenset(PERMISSIONS):
        known = ", ".join(PERMISSIONS)
        raise LMStudioValueError(f"a token can't allow {name!r}; there are {known}")
    return Token(parts[1], parts[2], allowed)


def new_token() -> Token:
    """A token that nobody can guess."""
    first, second = (
        "".join(secrets.choice(_LETTERS) for _ in range(length)) for length in (8, 20)
    )
    return Token(first, second)


def tokens_file() -> Path:
    """Where the tokens of this user's servers are unless another file is given."""
    return paths.internal() / "api-tokens"


def saved(file: Path | None = None) -> list[Token]:
    """The tokens of a file, which only its owner can read from now on.

    A line is a token, and after a space what it allows, with commas between; without
    that it allows everything. Empty lines and those that begin with ``#`` don't count.

    Args:
        file: By default `tokens_file`. Without one there are no tokens.

    Raises:
        TokensUnusable: It can't be read, or a line is no token.
    """
    file = file or tokens_file()
    found = []
    try:
        lines = file.read_text("utf-8").splitlines()
        if os.name == "posix" and stat.S_IMODE(file.stat().st_mode) & 0o077:
            log.warning("%s was open to other users; now it is not", file)
            file.chmod(0o600)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as exc:
        raise TokensUnusable(f"can't read the API tokens in {file}: {exc}") from exc
    for number, line in enumerate(lines, 1):
        text, _, allowed = line.strip().partition(" ")
        if text and not text.startswith("#"):
            names = [name.strip() for name in allowed.split(",") if name.strip()]
            try:
                found.append(read_token(text, names or PERMISSIONS))
            except LMStudioValueError as exc:
                problem = f"line {number} of {file} is no API token: {exc}"
                raise TokensUnusable(problem) from None
    return found


def saved_or_new(file: Path | None = None) -> list[Token]:
    """The tokens of a file. Where there is none a new one is made up and saved.

    Raises:
        TokensUnusable: As `saved`, or the file can't be written.
    """
    file = file or tokens_file()
    found = saved(file)
    if found:
        return found
    made = new_token()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Never readable to others, not even for a moment.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        with os.fdopen(os.open(file, flags, 0o600), "a", encoding="utf-8") as opened:
            opened.write(f"{made.text}\n")
    except OSError as exc:
        raise TokensUnusable(f"can't save an API token in {file}: {exc}") from exc
    log.info("made up an API token; it is in %s", file)
    return [made]


def chosen(
    api_token: str | Sequence[str] | bool | None,
    *,
    is_open: bool,
    file: Path | None = None,
) -> Tokens | None:
    """The tokens of a server, None when it asks for none.

    Args:
        api_token: A token or several; True takes those of the file, False none; None
            takes those of the file for a server that others can reach.
        is_open: Whether other machines reach the server.
        file: By default `tokens_file`.

    Raises:
        LMStudioValueError: What was given is no token.
        TokensUnusable: The file can't be used.
    """
    if api_token is None:
        api_token = is_open
    if isinstance(api_token, bool):
        return Tokens(saved_or_new(file)) if api_token else None
    texts = [api_token] if isinstance(api_token, str) else list(api_token)
    if not texts:
        raise LMStudioValueError("api_token has no tokens in it; False asks for none")
    return Tokens(read_token(text) for text in texts)


def needed(endpoint: str) -> str:
    """The permission that a call or channel takes."""
    return NEEDS.get(endpoint, "server")


def needed_at(method: str, path: str) -> str:
    """The permission that an HTTP request takes."""
    method = "GET" if method == "HEAD" else method
    path = path.rstrip("/")
    for (one, place), permission in NEEDS_AT.items():
        is_there = path == place
        if place.endswith("*"):
            is_there = path.startswith(place[:-1])
        if one == method and is_there:
            return permission
    return "server"
