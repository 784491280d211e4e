"""The models that a client loaded for itself, and how it frees them."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from .calls import call_each
from .errors import (
    LMStudioConnectionError,
    LMStudioModelNotFoundError,
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

#: Seconds that closing a client may wait for its models to be unloaded, all of them.
UNLOAD_TIME = 0.7
#: Seconds before that at which no answer is waited for any more.
LAST_LOOK = 0.1

Models = Sequence[tuple[str, InstanceInfo]]


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
        self._leaving: list[tuple[str, InstanceInfo]] = []  # being unloaded
        self._asked: threading.Event | None = None  # set when that is over
        self._lock = threading.Lock()  # guards the three above

    def add(self, namespace: str, info: InstanceInfo) -> None:
        """Take a model over."""
        if self._process != os.getpid():
            self._start()
        with self._lock:
            # Names are unique at any time: what had this one before is gone, unloaded
            # by a handle or by somebody else. Kept, it would be kept for good.
            self._models = [
                one
                for one in self._models
                if (namespace, info.identifier) != (one[0], one[1].identifier)
            ]
            self._models.append((namespace, info))

    def release(self, deadline: float | None = None) -> None:
        """Unload all of it. A server that can't be asked any more is no error.

        What is not unloaded in time is logged, and the server may still do it.

        Args:
            deadline: `time.monotonic` until which it may wait; None waits for
                `UNLOAD_TIME` seconds.
        """
        if deadline is None:
            deadline = time.monotonic() + UNLOAD_TIME
        self.begin_release(deadline)
        if self._asked is not None:
            self._asked.wait(max(0.0, deadline - time.monotonic()))
        with self._lock:
            kept = [info.identifier for _, info in self._leaving]
            self._leaving = []
        if kept:
            log.warning("not unloaded, and maybe still in memory: %s", ", ".join(kept))

    def begin_release(self, deadline: float) -> None:
        """Have all of it unloaded meanwhile.

        Not by the thread that closes the client: looking up a name can't be given a
        time limit, and must not hold that up.
        """
        if self._process != os.getpid():
            self._start()
        with self._lock:
            models, self._models = self._models, []
            if not models:
                return
            self._leaving += models
            self._asked = asked = threading.Event()
        work = partial(self._unload, models, deadline, asked)
        if self._session.worker.is_current:  # a finalizer's note, or a handler of logs
            threading.Thread(target=work, name="lmstudio-unload", daemon=True).start()
        else:  # it runs already; at the end of a program no thread can be started
            self._session.worker.soon(work)

    def _unload(self, models: Models, deadline: float, asked: threading.Event) -> None:
        deadline -= LAST_LOOK
        try:
            here = []
            for one, found in zip(models, self._found(models, deadline), strict=True):
                if isinstance(found, InstanceInfo):
                    here.append((one, found.identifier))
                else:  # somebody else has unloaded it, or it can't be asked for
                    self._note(one, found)
            unload = [(one[0], Unload(identifier=name)) for one, name in here]
            done = call_each(self._session, "unloadModel", unload, deadline=deadline)
            for (one, _), outcome in zip(here, done, strict=True):
                self._note(one, outcome)
        except Exception:  # at the end of a program no connection can be made
            log.debug("could not unload", exc_info=True)
        finally:
            asked.set()

    def _found(self, models: Models, deadline: float) -> list[Any]:
        """What is known of each now: None when it is gone, or an error."""
        # By their references: another may have taken the identifier since.
        asked = [
            (
                namespace,
                GetModelInfo(
                    specifier=ModelSpecifier(
                        type="instanceReference",
                        instance_reference=info.instance_reference,
                    ),
                    throw_if_not_found=False,
                ),
            )
            for namespace, info in models
        ]
        ask = partial(
            call_each, self._session, "getModelInfo", asked, deadline=deadline
        )
        found = ask()
        if any(_is_lost(one) for one in found):
            found = ask()  # over a new connection
        return found

    def _note(self, one: tuple[str, InstanceInfo], outcome: Any) -> None:
        """Take a model off the list unless an error says that it may be there."""
        if outcome is None or isinstance(outcome, LMStudioModelNotFoundError):
            with self._lock:
                if one in self._leaving:  # else it is late, and was logged
                    self._leaving.remove(one)
        else:
            log.debug("could not unload %s: %s", one[1].identifier, outcome)


def _is_lost(outcome: Any) -> bool:
    """Whether a connection broke that was there: another may be made."""
    is_broken = isinstance(outcome, LMStudioWebsocketError)
    return is_broken and not isinstance(outcome, LMStudioConnectionError)
