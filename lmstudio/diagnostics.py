"""What a server logs, as it happens: prompts, answers, lines of its own log."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Any

from .arguments import checked_callback
from .calls import Channel, structure
from .errors import LMStudioError
from .mailbox import Mailbox
from .protocol.client import End
from .session import Session
from .wire.checks import as_float
from .wire.diagnostics import LOG_DATA, Log, LogData, OtherLog, StreamLogs
from .wire.endpoints import endpoint
from .wire.model import model
from .worker import apart

log = logging.getLogger("lmstudio.diagnostics")

_CLOSED = End("closed")


@model(kw_only=True)
class LogEntry:
    """One entry of a server's log.

    Attributes:
        timestamp: Unix time, seconds.
        data: A `PredictionInput`, a `PredictionOutput`, a `ServerLog`, or an `OtherLog`
            of a kind that this package does not know.
        type: The server's name of the kind, such as ``"llm.prediction.input"``.
    """

    timestamp: float
    type: str
    data: LogData


class LogStream:
    """A server's log: iterate over it, and close it from any thread.

    It has no end of its own. Closing it ends iterations, as does the end of a ``with``
    block, and closing the client. Several threads that iterate share the entries: each
    is given to one.
    """

    def __init__(
        self,
        session: Session,
        parameter: StreamLogs | None,
        on_log: Callable[[LogEntry], object] | None,
    ) -> None:
        self._session = session
        self._inbox = Mailbox()
        self._entries: deque[Any] = deque()
        self._end: End | None = None
        row = endpoint("diagnostics", "streamLogs")
        self._channel = Channel(session, row, parameter, self._inbox)
        # Nobody may hold the stream any more, and the server would go on sending.
        self._stop = weakref.finalize(self, self._channel.abandon_soon)
        self._stop.atexit = False
        self._caller: threading.Thread | None = None
        try:
            self._channel.open()
        except BaseException:  # Ctrl-C above all: the request may be on its way
            self.close()
            raise
        if on_log is not None:
            self._caller = apart(partial(self._call, on_log), "lmstudio-logs")
            self._caller.start()

    def __iter__(self) -> Iterator[LogEntry]:
        return self

    def __next__(self) -> LogEntry:
        """Wait for the next entry.

        Raises:
            LMStudioWebsocketError: The connection broke.
            LMStudioUnsupportedError: The server has no log to show.
            LMStudioProtocolError: An entry can't be read; the next one may be.
        """
        while self._end is None:
            try:
                item = self._entries.popleft()
            except IndexError:
                self._entries.extend(self._inbox.get() or ())
                continue
            if isinstance(item, End):
                self._end = item
            elif isinstance(item, dict) and item.get("type") == "log":
                return _entry(item.get("log"))
            else:
                log.debug("packet: %.200r", item)
        self._inbox.put([self._end])  # for other threads that wait
        error = self._channel.error_of(self._end)
        if error is None or self._session.is_closed:
            raise StopIteration
        raise error

    def close(self) -> None:
        """Stop. Safe to repeat, and from any thread."""
        if self._stop.detach() is not None:
            self._channel.abandon()
            self._end = self._end or _CLOSED
            self._inbox.put([_CLOSED])
        caller = self._caller
        if caller is not None and caller is not threading.current_thread():
            caller.join()

    def __enter__(self) -> LogStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._end is not None else "open"
        return f"<LogStream {state}>"

    def _call(self, on_log: Callable[[LogEntry], object]) -> None:
        """Call back with each entry. Body of a thread."""
        try:
            for entry in self:
                on_log(entry)
        except LMStudioError as exc:
            log.warning("the log of the server ended: %s", exc)
        except BaseException:  # the user's, SystemExit too; there is nobody to raise to
            log.exception("error in on_log; no more entries are read")
            self.close()


def _entry(body: Any) -> LogEntry:
    made: Log = structure(body, Log, "streamLogs")
    kind = str(made.data.get("type"))
    cls = LOG_DATA.get(kind)
    data: LogData = (
        OtherLog(made.data)
        if cls is None
        else structure(made.data, cls, f"streamLogs: {kind}")
    )
    return LogEntry(timestamp=as_float(made.timestamp) / 1000, type=kind, data=data)


class Diagnostics:
    """What a server does at the moment: ``client.diagnostics``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __repr__(self) -> str:
        return self._session.shown_of(self)

    def stream_logs(
        self, on_log: Callable[[LogEntry], object] | None = None
    ) -> LogStream:
        """Watch the server's log from now on.

        The server tells the formatted prompt of each prediction of every client; ours
        also tells what came of it.

        Args:
            on_log: Called with each entry, in a thread of its own, until the stream is
                closed. Without it, iterate over the stream.

        Raises:
            LMStudioTypeError: `on_log` can't be called.
            LMStudioWebsocketError: The server can't be reached.
        """
        checked_callback(on_log, "on_log", takes=1)
        can = self._session.greeting().get("extensions")
        is_ours = isinstance(can, list) and "logKinds" in can
        parameter = StreamLogs(kinds=list(LOG_DATA)) if is_ours else None
        return LogStream(self._session, parameter, on_log)
