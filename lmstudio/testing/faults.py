"""What a test has scripted in front of calls, and of a fake server as a whole."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

import attrs

from ..errors import LMStudioTypeError, LMStudioValueError, shown
from ..nearest import meant
from ..wire.endpoints import ENDPOINTS
from .script import SILENT, Step, steps_of

#: Stands for the first message of a connection, which is no call.
AUTHENTICATE = "authenticate"

_ENDPOINTS = frozenset(name for _, name in ENDPOINTS)


def checked_endpoint(name: object, *, more: Iterable[str] = ()) -> str:
    """The name of an endpoint.

    Args:
        more: What counts as one here.

    Raises:
        LMStudioTypeError: It is no text.
        LMStudioValueError: There is none of this name.
    """
    if not isinstance(name, str):
        raise LMStudioTypeError(
            f"an endpoint is named by a text such as 'predict', not {shown(name)}"
        )
    known = {*_ENDPOINTS, *more}
    if name not in known:
        raise LMStudioValueError(
            f"there is no endpoint {shown(name)}{meant(name, known)}"
        )
    return name


def _checked_times(times: int | None) -> int | None:
    if times is None:
        return None
    right = f"times must be a whole number above 0, or None, not {shown(times)}"
    if isinstance(times, bool) or not isinstance(times, int):
        raise LMStudioTypeError(right)
    if times < 1:
        raise LMStudioValueError(right)
    return times


@attrs.define
class _Planned:
    """Steps in front of calls.

    Attributes:
        left: How often they are still done; None for ever.
    """

    steps: list[Step]
    left: int | None


class Faults:
    """Steps that wait for their call. Use it from any thread.

    Args:
        lacks: Endpoints that the server does not know.

    Raises:
        LMStudioValueError: There is no such endpoint.
    """

    def __init__(self, lacks: Iterable[str]) -> None:
        if isinstance(lacks, str):
            raise LMStudioTypeError(f"lacks takes several names, not {shown(lacks)}")
        self._lacks = frozenset(checked_endpoint(name) for name in lacks)
        self._lock = threading.Lock()  # guards the plans; held for moments
        self._plans: dict[str | None, list[_Planned]] = {}

    def plan(
        self, endpoint: str | None, steps: Step | Sequence[Step], times: int | None
    ) -> None:
        """Queue steps in front of the next calls of an endpoint; None for any.

        Raises:
            LMStudioValueError: An argument can't be what it is.
        """
        if endpoint is not None:
            checked_endpoint(endpoint, more=[AUTHENTICATE])
        checked = steps_of(steps, kinds=SILENT, where="a call")
        planned = _Planned(checked, _checked_times(times))
        with self._lock:
            self._plans.setdefault(endpoint, []).append(planned)

    def take(self, endpoint: str) -> list[Step]:
        """What is done in front of this call; what is planned for ever comes last."""
        names = [endpoint] if endpoint == AUTHENTICATE else [endpoint, None]
        with self._lock:
            plans = [plan for name in names for plan in self._plans.get(name, ())]
            for plan in sorted(plans, key=lambda plan: plan.left is None):
                if plan.left is not None:
                    plan.left -= 1
                    if plan.left == 0:
                        self._forget(plan)
                return plan.steps
        return []

    def lacks(self, endpoint: object) -> bool:
        """Whether the server does not know an endpoint."""
        return endpoint in self._lacks

    @property
    def is_whole(self) -> bool:
        """Whether it knows them all."""
        return not self._lacks

    def _forget(self, plan: _Planned) -> None:
        for plans in self._plans.values():
            if plan in plans:
                plans.remove(plan)
