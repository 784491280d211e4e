"""What a fork needs, so that its child never waits for threads that are not there.

It waits for imports that are under way, and in the child locks are made anew.
"""

from __future__ import annotations

import os
import sys
import time
from _thread import get_ident
from _weakref import ref

# No modules `typing` and `weakref`: this one is imported with the package itself.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Protocol

    class Locking(Protocol):
        """What has locks that a thread may hold while another one forks."""

        def after_fork(self) -> object:
            """Replace them. Runs in the child, and must take none of them."""


#: Why requests of the parent process end in its child.
FORKED = "the process was forked; make a new request"

#: Seconds that a fork waits, at most: imports may wait for anything, also for a lock
#: that whoever forks holds.
LONGEST = 5.0
#: Seconds between two looks.
PAUSE = 0.001

_PACKAGE = __name__.partition(".")[0]
_IMPORTING = "<frozen importlib._bootstrap>"


def wait_for_imports() -> None:
    """Wait until no other thread is at an import of ours, or at one that we began.

    Most of the package is imported when it is first used, by whichever thread uses it.
    Python's lock of a module that is being imported goes to the child with nobody who
    would release it.
    """
    me = get_ident()
    deadline = time.monotonic() + LONGEST
    # Begins a new turn at the interpreter: so no other thread gets one between the
    # look and the fork.
    time.sleep(0)
    while _is_any_importing(me) and time.monotonic() < deadline:
        time.sleep(PAUSE)


def _is_any_importing(me: int) -> bool:
    return any(
        thread != me and _is_importing(frame)
        for thread, frame in sys._current_frames().items()
    )


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a thread imports from us: a module of ours, or one that we need."""
    is_inside = False  # of an import, by what was called so far
    while frame is not None:
        code = frame.f_code
        if code.co_filename == _IMPORTING:
            is_inside, name = True, frame.f_locals.get("name")
        else:
            is_import = is_inside or code.co_name == "<module>"
            name = frame.f_globals.get("__name__") if is_import else None
        if isinstance(name, str) and name.partition(".")[0] == _PACKAGE:
            return True
        frame = frame.f_back
    return False


def register() -> None:
    """Have every fork wait, before it does what was registered earlier.

    What is registered last is done first. So this is done again after modules whose
    own preparation takes a lock that imports need: `logging` has one. Then those
    before it wait no more: they would with that lock taken.
    """
    global _last
    _last = mine = object()

    def before() -> None:
        if _last is mine:
            wait_for_imports()

    if hasattr(os, "register_at_fork"):  # pragma: no branch  # Windows has none
        os.register_at_fork(before=before)


_last = object()
register()

#: By `id`: a set would need a hash, and `weakref` for one that forgets.
_locking: dict[int, ref[Locking]] = {}


def renew_locks(owner: Locking) -> None:
    """Have `after_fork` of an object called in children, as long as it lives.

    Before anything that is registered by modules which import this one: so those may
    use it there.
    """
    number = id(owner)
    _locking[number] = ref(owner, lambda _: _locking.pop(number, None))


def after_fork() -> None:
    """Make locks anew: a thread that held one of them did not come along."""
    for known in list(_locking.values()):
        owner = known()
        if owner is not None:
            owner.after_fork()


if hasattr(os, "register_at_fork"):  # pragma: no branch  # Windows has none
    os.register_at_fork(after_in_child=after_fork)
