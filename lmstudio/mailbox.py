"""The queue of one request, and the one place where anybody waits for the server."""

from __future__ import annotations

import threading
import time
from collections import deque
from itertools import islice
from typing import Any

from .forks import FORKED
from .protocol.client import Batch, End

#: Seconds after which a waiting thread looks up, so that Ctrl-C works on systems
#: where waiting for a lock can't be interrupted.
SLICE = 0.5

#: Packets at which a batch is long enough: a longer one would keep its reader waiting.
ENOUGH = 512


class Mailbox:
    """What one request got, handed from the reader's thread to whoever waits.

    Attributes:
        heard: `time.monotonic` of the last delivery, or of the creation.
        request: The connection and the number of the request, set before it is sent,
            so that whoever holds the mailbox can always give the request up: Ctrl-C
            may come at any moment. None while nothing can have been sent.
    """

    def __init__(self) -> None:
        # What waits, oldest first, and a bell for who waits: locked while nothing is
        # new. A queue would do both in one, but who is interrupted in taking from it
        # loses what was taken.
        self._batches: deque[Batch] = deque()
        self._bell = threading.Lock()
        self._bell.acquire()
        self.heard = time.monotonic()
        self.request: tuple[Any, int] | None = None

    def put(self, batch: Batch) -> None:
        """Deliver packets in order; the last one ever is an `End`."""
        self.heard = time.monotonic()
        self._batches.append(batch)
        if self._bell.locked():
            try:
                self._bell.release()
            except RuntimeError:  # another thread was quicker
                pass

    def forsake(self) -> None:
        """The request is the parent process's: its end, in a child after a fork."""
        self._bell = threading.Lock()  # a thread of old may be in the middle of it
        self._bell.acquire()
        self.put([End("lost", FORKED)])

    def pending(self) -> Any:
        """What still wants to be waited for when its client's block is left; or None.

        A prediction may be it: see there.
        """
        return None

    def get(self, timeout: float | None = None) -> Batch | None:
        """Wait for the next batch.

        Args:
            timeout: Seconds; None waits for ever, 0 takes what is there.

        Returns:
            The batch, or None when the time is over.
        """
        if not self._wait(timeout):
            return None
        try:
            batch = self._batches.popleft()
        except IndexError:  # another thread took it meanwhile
            return self.get(timeout)
        try:
            while len(batch) < ENOUGH and self._batches:
                batch += self._batches.popleft()
        except IndexError:
            pass
        return batch

    def move(self, into: list[Batch], timeout: float | None = None) -> bool:
        """Wait for the next batches, and move some of them to the end of a list.

        Whenever Ctrl-C comes, each batch is in the one or in the other. Only for one
        thread at a time.

        Args:
            timeout: As for `get`.

        Returns:
            False when the time is over.
        """
        if not self._wait(timeout):
            return False
        batches = self._batches
        count, size, here = 0, 0, len(batches)
        while count < here and size < ENOUGH:
            size += len(batches[count])
            count += 1
        # All in one call of C, which no signal handler can split.
        into.extend(islice(iter(batches.popleft, None), count))
        return True

    def _wait(self, timeout: float | None) -> bool:
        """Wait until there is a batch; False when the time is over."""
        if self._batches:
            return True
        if timeout is not None and timeout <= 0:
            return False
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = SLICE
            if deadline is not None:
                left = min(SLICE, deadline - time.monotonic())
                if left <= 0:
                    return False
            self._bell.acquire(True, left)
            if self._batches:
                return True
