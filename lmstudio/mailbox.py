"""The queue of one request, and the one place where anybody waits for the server."""

from __future__ import annotations

import time
from queue import Empty, SimpleQueue
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
        self._queue: SimpleQueue[Batch] = SimpleQueue()
        self.heard = time.monotonic()
        self.request: tuple[Any, int] | None = None

    def put(self, batch: Batch) -> None:
        """Deliver packets in order; the last one ever is an `End`."""
        self.heard = time.monotonic()
        self._queue.put(batch)

    def forsake(self) -> None:
        """The request is the parent process's: its end, in a child after a fork."""
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
        if not self._queue.empty():
            batch = self._all_that_is_here()
            if batch is not None:
                return batch
        if timeout is not None and timeout <= 0:
            return None
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = SLICE
            if deadline is not None:
                left = min(SLICE, deadline - time.monotonic())
                if left <= 0:
                    return None
            try:
                return self._queue.get(timeout=left)
            except Empty:
                continue

    def _all_that_is_here(self) -> Batch | None:
        """Batches that wait, as one: taking them one by one costs more than they do."""
        try:
            batch = self._queue.get_nowait()
            while len(batch) < ENOUGH and not self._queue.empty():
                batch += self._queue.get_nowait()
        except Empty:  # another thread took it meanwhile
            return None
        return batch
