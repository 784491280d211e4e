"""The shared default client, and the module-level shortcuts that use it."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .address import Address
from .arguments import checked_seconds
from .calls import CALL_TIME
from .client import LMStudioClient
from .downloaded import SHARED_TTL, DownloadedModel
from .errors import LMStudioRuntimeError
from .models import LLM, EmbeddingModel
from .wire.files import FileHandle

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .keywords import LoadOptions

_client: LMStudioClient | None = None
_idle_timeout: float | None = CALL_TIME  # of the shared client
_making = threading.Lock()  # guards both


def get_default_client(api_host: str | None = None) -> LMStudioClient:
    """The client that the module-level functions share, made at first use.

    One that was closed is replaced.

    Args:
        api_host: The server, if the client is made now.

    Raises:
        LMStudioRuntimeError: It is already in use, with another server.
    """
    global _client
    with _making:
        if _client is None or _client.is_closed:
            _client = LMStudioClient(api_host, idle_timeout=_idle_timeout)
        client = _client
    if api_host is not None and Address.parse(api_host).url != client.address:
        _check_unused()
    return client


def configure_default_client(
    api_host: str | None = None, api_token: str | None = None
) -> None:
    """Say which server the module-level functions talk to.

    Raises:
        LMStudioRuntimeError: The shared client is already in use.
    """
    global _client
    with _making:
        _check_unused()
        _client = LMStudioClient(
            api_host, api_token=api_token, idle_timeout=_idle_timeout
        )


def close_default_client() -> None:
    """Close the shared client if there is one; the next use makes a new one."""
    client = _client  # without the lock: a signal handler may interrupt who has it
    if client is not None:
        client.close()


def set_idle_timeout(timeout: float | None) -> None:
    """Say how long the shared client waits for what is answered at once.

    Args:
        timeout: Seconds, None for no limit.

    Raises:
        LMStudioRuntimeError: The shared client is already in use.
        LMStudioValueError: It is no number above 0.
    """
    global _idle_timeout
    limit = checked_seconds(timeout, "timeout")
    with _making:
        _check_unused()
        _idle_timeout = limit


def get_idle_timeout() -> float | None:
    """What `set_idle_timeout` has set, seconds."""
    return _idle_timeout


def _check_unused() -> None:
    if _client is not None and not _client.is_closed:
        raise LMStudioRuntimeError(
            "the default client is already in use; configure it before the first"
            " call, or make a client of your own"
        )


def llm(
    model_key: str | None = None,
    /,
    *,
    ttl: float | None = SHARED_TTL,
    config: Mapping[str, Any] | None = None,
    **options: Unpack[LoadOptions],
) -> LLM:
    """A text model of the default client; see `LLMs.model`."""
    return get_default_client().llm.model(model_key, ttl=ttl, config=config, **options)


def embedding_model(
    model_key: str | None = None,
    /,
    *,
    ttl: float | None = SHARED_TTL,
    config: Mapping[str, Any] | None = None,
    **options: Unpack[LoadOptions],
) -> EmbeddingModel:
    """An embedding model of the default client; see `EmbeddingModels.model`."""
    return get_default_client().embedding.model(
        model_key, ttl=ttl, config=config, **options
    )


def list_loaded_models(namespace: str | None = None) -> list[LLM | EmbeddingModel]:
    """Handles of what the default client's server has in memory.

    Args:
        namespace: ``"llm"`` or ``"embedding"``; None lists both.
    """
    return get_default_client().list_loaded_models(namespace)


def list_downloaded_models(
    namespace: str | None = None,
) -> list[DownloadedModel[Any]]:
    """The models on the disk of the default client's server.

    Args:
        namespace: ``"llm"`` or ``"embedding"``; None lists all.
    """
    return get_default_client().list_downloaded_models(namespace)


def prepare_image(src: Any, name: str | None = None) -> FileHandle:
    """Hand an image to the default client's server; see `Files.prepare_image`."""
    return get_default_client().prepare_image(src, name)


def _after_fork() -> None:
    global _making
    _making = threading.Lock()


if hasattr(os, "register_at_fork"):  # pragma: no branch  # Windows has none
    os.register_at_fork(after_in_child=_after_fork)
