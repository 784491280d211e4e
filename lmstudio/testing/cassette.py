"""A recording: calls and what came of them, as JSON lines in a file."""

from __future__ import annotations

import difflib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import attrs

from .._version import __version__
from ..protocol.server import ABSENT
from ..wire.endpoints import ENDPOINTS

#: The version of the file's form.
FORM = 1
#: Lines of a difference that an error shows.
SHOWN_LINES = 60
#: Endpoints that say nothing about what a program does; never missed.
_SILENT = {("system", "alive")}

Who = Literal["server", "client", "result", "error", "closed", "lost"]


class StaleCassetteError(AssertionError):
    """A recording and a program do not fit each other: record it again."""


@attrs.frozen
class Event:
    """One thing that happened to a call.

    Attributes:
        who: Who sent a packet, ``"server"`` or ``"client"``; or how the call ended:
            ``"result"``, ``"error"``, ``"closed"``, or ``"lost"`` with its connection.
        body: What was sent, parsed JSON; `ABSENT` for none.
        after: Seconds since the call was opened; None when time is not recorded.
    """

    who: Who
    body: Any = ABSENT
    after: float | None = None

    @property
    def is_end(self) -> bool:
        """Whether it is the last one."""
        return self.who not in ("server", "client")


@attrs.frozen
class Opening:
    """What opens a call or a channel.

    Attributes:
        namespace: The socket that it came on.
        endpoint: Its name.
        kind: ``"rpc"`` or ``"channel"``.
        parameter: Redacted; `ABSENT` for none.
    """

    namespace: str
    endpoint: str
    kind: str
    parameter: Any = ABSENT

    @property
    def of(self) -> tuple[str, str]:
        """Namespace and endpoint."""
        return self.namespace, self.endpoint

    def to_dict(self) -> dict[str, Any]:
        """As it is written down."""
        made = attrs.asdict(self, recurse=False)
        if self.parameter is ABSENT:
            del made["parameter"]
        return made

    def __str__(self) -> str:
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, sort_keys=True)


@attrs.define(eq=False)
class Recorded:
    """One call with all that happened to it.

    Attributes:
        opening: What opened it.
        events: What happened, in order.
        used: How often it was asked for in this run.
    """

    opening: Opening
    events: list[Event] = attrs.field(factory=list)
    used: int = 0


class Tape:
    """The calls of one recording. Use it from any thread.

    Attributes:
        greeting: What the recorded server said when it was greeted.
        calls: In the order in which they were opened.
        exists: Whether it was read from a file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()  # guards `used` and the problems
        self._problems: list[str] = []
        self.greeting: dict[str, Any] = {"lmstudio": True}
        self.calls: list[Recorded] = []
        self._old: list[Recorded] = []
        self.exists = path.is_file()

    def read(self) -> None:
        """Read the file.

        Raises:
            StaleCassetteError: It is not there, no recording, or of another form.
        """
        if not self.exists:
            hint = "Record it with --lmstudio-record=once, or mode='once'"
            raise StaleCassetteError(f"there is no cassette at {self._path}. {hint}")
        calls: dict[int, Recorded] = {}
        try:
            lines = self._path.read_text("utf-8").splitlines()
            head, *rest = (json.loads(line) for line in lines if line.strip())
            if head["cassette"] != FORM:
                raise StaleCassetteError(
                    f"{self._path} has the form {head['cassette']}"
                )
            self.greeting = head["greeting"]
            for line in rest:
                number = line.pop("call")
                if number not in calls:
                    calls[number] = Recorded(Opening(**line))
                else:
                    after = line.pop("after", None)
                    [(who, body)] = line.items()
                    if body is not None and who == "result":
                        body = body["value"]  # a null is a value
                    elif body is None:
                        body = ABSENT
                    calls[number].events.append(Event(who, body, after))
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise StaleCassetteError(f"{self._path} is no cassette: {exc!r}") from exc
        self.calls = list(calls.values())
        self._old = self.calls.copy()  # what is being recorded is no answer

    def write(self) -> None:
        """Write the file, whole or not at all."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_name(f"{self._path.name}.{os.getpid()}.part")
        with part.open("w", encoding="utf-8", newline="\n") as file:
            for line in self._lines():
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        part.replace(self._path)

    def _lines(self) -> Iterator[dict[str, Any]]:
        yield {"cassette": FORM, "by": __version__, "greeting": self.greeting}
        for number, call in enumerate(self.calls, 1):
            yield {"call": number, **call.opening.to_dict()}
            for event in call.events:
                body = None if event.body is ABSENT else event.body
                if event.who == "result" and event.body is not ABSENT:
                    body = {"value": event.body}
                line = {"call": number, event.who: body}
                yield line if event.after is None else {**line, "after": event.after}

    def take(self, opening: Opening) -> Recorded | None:
        """The next call that was opened like this; None when all were asked for.

        What only reads may be asked more often than it was recorded.
        """
        with self._lock:
            alike = [call for call in self._old if call.opening == opening]
            found = next((call for call in alike if not call.used), None)
            row = ENDPOINTS.get(opening.of)
            if found is None and alike and row is not None and row.repeatable:
                found = alike[-1]
            if found is not None:
                found.used += 1
            return found

    def add(self, opening: Opening) -> Recorded:
        """A new call, to be filled."""
        call = Recorded(opening, used=1)
        with self._lock:
            self.calls.append(call)
        return call

    def not_recorded(self, opening: Opening) -> str:
        """Note that a call was asked for in vain; says what comes nearest."""
        text = f"{self._path.name} has no such call: {opening.endpoint}"
        with self._lock:
            near, why = self._nearest(opening)
            text = f"{text}\n{why}"
            if near is not None:
                lines = difflib.unified_diff(
                    str(near.opening).split("\n"),
                    str(opening).split("\n"),
                    "recorded",
                    "asked",
                    lineterm="",
                )
                text = "\n".join([text, *list(lines)[:SHOWN_LINES]])
            self._problems.append(text)
        return text

    def _nearest(self, opening: Opening) -> tuple[Recorded | None, str]:
        of = opening.of
        alike = [
            c for c in self.calls if (c.opening.namespace, c.opening.endpoint) == of
        ]
        if any(call.opening == opening for call in alike):
            return None, "It was recorded, and was asked for as often already"
        calls = [c for c in alike if not c.used] or alike or self.calls
        if not calls:
            return None, "Nothing is recorded in it"
        wanted = str(opening)

        def likeness(call: Recorded) -> float:
            return difflib.SequenceMatcher(None, str(call.opening), wanted).ratio()

        number = self.calls.index(near := max(calls, key=likeness)) + 1
        return near, f"The nearest is call {number}:"

    def note(self, problem: str) -> None:
        """Note what else is wrong."""
        with self._lock:
            self._problems.append(problem)

    def check(self, all_used: bool = True) -> None:
        """Fail if something was asked for that is not recorded, or the other way round.

        Args:
            all_used: False leaves out what was recorded and not asked for.

        Raises:
            StaleCassetteError: It names the calls.
        """
        with self._lock:
            problems = self._problems.copy()
            if all_used and not problems:
                for number, call in enumerate(self.calls, 1):
                    if not call.used and call.opening.of not in _SILENT:
                        asked = json.dumps(call.opening.to_dict(), ensure_ascii=False)
                        problems.append(
                            f"call {number} was never asked for: {asked:.500}"
                        )
        if problems:
            hint = "Record again with --lmstudio-record=all, or mode='all'"
            raise StaleCassetteError(
                "\n\n".join([f"{self._path} is stale", *problems, hint])
            )
