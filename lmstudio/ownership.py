"""The models that a client loaded for itself, and how it frees them."""

from __future__ import annotations

import logging
import os
import threading

from .calls import call
from .errors import (
    LMStudioError,
    LMStudioModelNotFoundError,
    LMStudioTimeoutError,
    LMStudioWebsocketError,
)
from .session import Session
from .wire.common import (
    GetModelInfo,
    InstanceInfo,
    ModelSpecifier,
    Unload,
)

log = logging.getLogger("lmstudio.ownership")

#: Seconds that closing a client may wait for each answer.
UNLOAD_TIME = 5.0


class Owned:
    """What belongs to one client and is unloaded when it closes.

    In a child process after a fork it is empty: the models are the parent's.

    Args:
        session: Frees the models.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._models: list[tuple[str, InstanceInfo]] = []  # with their namespaces
        self._lock = threading.Lock()  # guards the list

    def add(self, namespace: str, info: InstanceInfo) -> None:
        """Take a model over."""
        if self._process != os.getpid():
            self._start()
        with self._lock:
            self._models.append((namespace, info))

    def release(self) -> None:
        """Unload all of it. A server that can't be asked any more is no error."""
        if self._process != os.getpid():
            self._start()
        with self._lock:
            models, self._models = self._models, []
        for namespace, info in models:
            try:
                self._unload(namespace, info)
            except LMStudioModelNotFoundError:
                pass  # somebody else has unloaded it
            except LMStudioError as exc:
                log.debug("could not unload %s: %s", info.identifier, exc)
                if isinstance(exc, (LMStudioWebsocketError, LMStudioTimeoutError)):
                    return  # the others would fail as well

    def _unload(self, namespace: str, info: InstanceInfo) -> None:
        # Looked up by its reference: another may have taken the identifier since.
        specifier = ModelSpecifier(
            type="instanceReference", instance_reference=info.instance_reference
        )
        ask = GetModelInfo(specifier=specifier, throw_if_not_found=False)
        found = call(self._session, namespace, "getModelInfo", ask, timeout=UNLOAD_TIME)
        if found is not None:
            unload = Unload(identifier=found.identifier)
            call(self._session, namespace, "unloadModel", unload, timeout=UNLOAD_TIME)
