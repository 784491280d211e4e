"""Threads for what clients make the server compute: none of them takes all."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

#: Works of one client that run at once; further ones wait for their turn. Each is in
#: Python, where one thread runs at a time: more would not be faster.
EACH = 2
#: Works of all clients that run at once.
ALL = 32


class Turns:
    """The works of one client that run, or wait for their turn.

    Args:
        pool: Where they run; None is that of the event loop.
    """

    def __init__(self, pool: ThreadPoolExecutor | None = None) -> None:
        self._pool = pool
        self._free = asyncio.Semaphore(EACH)

    async def run(
        self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a function on a thread when its turn comes.

        A thread can't be stopped: when the task is cancelled, the turn ends with the
        function, not before.
        """
        loop = asyncio.get_running_loop()
        if self._pool is None:
            return await asyncio.to_thread(function, *args, **kwargs)
        await self._free.acquire()
        context = contextvars.copy_context()
        work = functools.partial(context.run, function, *args, **kwargs)
        try:
            future: Future[T] = self._pool.submit(work)
        except BaseException:
            self._free.release()
            raise

        def ended(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended before
                loop.call_soon_threadsafe(self._free.release)

        future.add_done_callback(ended)
        return await asyncio.wrap_future(future)


class Workers:
    """The threads of a server, and the turns of its clients.

    Threads begin when they are needed.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(ALL, "lmstudio-client-work")
        self._by_name: weakref.WeakValueDictionary[str, Turns]
        self._by_name = weakref.WeakValueDictionary()

    def of(self, name: str) -> Turns:
        """The turns of the client with this name."""
        turns = self._by_name.get(name)
        if turns is None:
            turns = self._by_name[name] = Turns(self._pool)
        return turns

    def close(self) -> None:
        """Take no more; what runs goes on to its end. Safe to repeat."""
        self._pool.shutdown(wait=False, cancel_futures=True)


_TURNS: contextvars.ContextVar[Turns | None] = contextvars.ContextVar(
    "turns", default=None
)


def belongs_to(turns: Turns) -> None:
    """Count what this task and those that it starts compute from now on."""
    _TURNS.set(turns)


async def in_turn(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function on a thread, in a turn of the client of this task."""
    turns = _TURNS.get()
    if turns is None:
        return await asyncio.to_thread(function, *args, **kwargs)
    return await turns.run(function, *args, **kwargs)
