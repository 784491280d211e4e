"""A thread that does small jobs: notes of finalizers, timers, users' callbacks."""

from __future__ import annotations

import contextvars
import heapq
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from .errors import LMStudioRuntimeError

log = logging.getLogger("lmstudio.worker")

Job = Callable[[], Any]

#: Seconds that the thread waits at a time; queues take no boundless numbers.
LONGEST = 3600.0


class _Thread(threading.Thread):
    """A thread; when the system has none left, the error is one of ours."""

    def start(self) -> None:
        try:
            super().start()
        except RuntimeError as exc:
            raise LMStudioRuntimeError(
                f"no thread could be started: {exc}. Close what is no longer needed, or"
                " raise the limit of threads: `ulimit -u`, or that of a container"
            ) from exc


def apart(work: Callable[[], object], name: str) -> threading.Thread:
    """A daemon thread that outlives what starts it, and so takes no context of it.

    Without the GIL, and where Python 3.14 or newer is told to, threads inherit the
    context variables of the thread that starts them. Ours would then keep what those
    hold, and seem to be part of the tool or request that happened to come first.

    Its `start` raises `LMStudioRuntimeError` where the system has no more threads.
    """
    run = contextvars.Context().run
    return _Thread(target=run, args=(work,), name=name, daemon=True)


class Worker:
    """Runs jobs one after the other on a thread of its own, started at the first job.

    `soon` never takes a lock that Python code holds, so finalizers and signal handlers
    may call it, also in the middle of anything else.

    Args:
        is_users: Whether the jobs are the user's. It then ends before the program does:
            see `of_users`.
    """

    def __init__(self, name: str, *, is_users: bool = False) -> None:
        self._name = name
        self._is_users = is_users
        self._jobs: SimpleQueue[tuple[float, Job] | None] = SimpleQueue()
        # Guards starting and stopping the thread; never held while a job runs.
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._is_late = False  # no job is begun any more

    def start(self) -> None:
        """Start the thread, if it does not run yet. Not for finalizers."""
        if self._thread is None:
            with self._starting:
                if self._thread is None and not self._stopped:
                    thread = apart(self._run, self._name)
                    if self._is_users:
                        _of_users.add(self)
                    try:
                        thread.start()
                    except BaseException:
                        _of_users.discard(self)
                        raise
                    self._thread = thread

    def soon(self, job: Job) -> None:
        """Have a job done. It is forgotten when the worker never starts."""
        self._jobs.put((0.0, job))

    def at(self, when: float, job: Job) -> None:
        """Have a job done at a time of `time.monotonic`."""
        self._jobs.put((when, job))

    def settle(self, wait: float) -> None:
        """Wait until the jobs that are due by now are done, at most so many seconds."""
        if self._thread is not None and not self.is_current:
            done = threading.Event()
            self.soon(done.set)
            done.wait(wait)

    def stop(self, wait: float | None = None) -> None:
        """End the thread after the jobs that are due. Safe to repeat.

        Args:
            wait: Seconds to wait for its end; None does not wait.
        """
        with self._starting:
            self._stopped = True
            thread = self._thread
        self._jobs.put(None)
        if wait is not None and thread not in (None, threading.current_thread()):
            assert thread is not None
            thread.join(wait)

    def end(self, deadline: float) -> None:
        """End the thread: after the jobs that are due, until a deadline.

        Behind that no other job is begun; it waits no longer for one that was, nor for
        one that is begun at the deadline itself.

        Args:
            deadline: Time of `time.monotonic`.
        """
        self.stop(wait=max(0.0, deadline - time.monotonic()))
        self._is_late = True

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on this worker's thread."""
        return threading.current_thread() is self._thread

    def _run(self) -> None:
        try:
            self._work()
        finally:
            _of_users.discard(self)

    def _work(self) -> None:
        order = itertools.count()  # the heap must never compare jobs
        waiting: list[tuple[float, int, Job]] = []
        while not self._is_late:
            now = time.monotonic()
            if waiting and waiting[0][0] <= now:
                self._do(heapq.heappop(waiting)[2])
                continue
            timeout = min(waiting[0][0] - now, LONGEST) if waiting else None
            try:
                note = self._jobs.get(timeout=timeout)
            except Empty:
                continue
            if note is None:
                return
            heapq.heappush(waiting, (note[0], next(order), note[1]))
            del note  # a done job must not keep alive what it worked on

    @staticmethod
    def _do(job: Job) -> None:
        try:
            job()
        except BaseException:  # one bad job, SystemExit too, must not end the others
            log.exception("error in a callback")


_of_users: set[Worker] = set()  # those whose threads run


def of_users() -> list[Worker]:
    """The workers that do users' jobs now.

    They are to end with the program. A thread that is in the middle of `print` when
    Python itself ends dies there with the lock of the file; Python, which writes what
    is left in it, waits for that lock, and then aborts.
    """
    return [*_of_users]


if hasattr(os, "register_at_fork"):  # pragma: no branch  # Windows has none
    os.register_at_fork(after_in_child=_of_users.clear)  # their threads are not here
