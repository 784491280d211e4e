"""What a notebook shows: one display that changes, and text as a model writes it.

Nothing of IPython is imported: where it runs, it is there already. What is shown is
sent from the thread that waits, so that it lands in the cell which asked for it.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Sequence
from typing import Any, Protocol

from . import html

#: Seconds between two updates of a display, at least; more for a long text, which is
#: sent as a whole each time.
INTERVAL = 0.1
SLOWER_AFTER = 20_000
#: Seconds before it is shown how far a prompt is.
PATIENCE = 0.7
#: What moves the cursor of a terminal, or worse.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Streams(Protocol):
    """What is shown while it comes: a `lmstudio.Prediction`."""

    @property
    def result(self) -> Any:
        """The method that waits for the end."""

    @property
    def beyond(self) -> Any:
        """The method that waits for more fragments."""

    def cancel(self) -> bool:
        """Ask for the end."""

    def prompt_share(self) -> float | None:
        """How much of the prompt is processed; None when nobody wants to know."""


def shell() -> Any:
    """The shell of IPython in which the program runs, or None."""
    get = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return None if get is None else get()


def is_notebook() -> bool:
    """Whether what is displayed can change later: in a kernel, not in a terminal."""
    return getattr(shell(), "kernel", None) is not None


class Slot:
    """A place in the output of a cell whose content can be replaced.

    Attributes:
        is_shown: Whether there is anything in it.
    """

    def __init__(self) -> None:
        self.is_shown = False
        self._display_id = f"lmstudio-{os.urandom(8).hex()}"

    def show(self, plain: str, **kinds: str) -> None:
        """Show something in place of what is there.

        Args:
            plain: For who can't show the others.
            kinds: ``html`` or ``markdown``.
        """
        data = {"text/plain": html.clean(plain)}
        data.update({f"text/{kind}": text for kind, text in kinds.items()})
        shell().display_pub.publish(
            data=data,
            metadata={},
            transient={"display_id": self._display_id},
            update=self.is_shown,
        )
        self.is_shown = True


class Answer:
    """The text of a prediction for people, as far as it has come."""

    def __init__(self, fragments: Sequence[Any] = (), *, is_json: bool = False) -> None:
        self._said: list[str] = []
        self._thought: list[str] = []
        self._is_json = is_json
        self.add(fragments)

    def add(self, fragments: Sequence[Any]) -> None:
        """Take more of it."""
        for fragment in fragments:
            if fragment.is_structural:
                continue
            if fragment.reasoning_type == "none":
                self._said.append(str(fragment))
            elif fragment.reasoning_type == "reasoning":
                self._thought.append(str(fragment))

    def text(self) -> str:
        """The answer without thoughts."""
        return "".join(self._said)

    def markdown(self, remarks: Sequence[str] = (), *, is_open: bool = False) -> str:
        """All of it as Markdown.

        Args:
            remarks: Lines below it.
            is_open: More of it is to come.
        """
        parts = []
        if self._thought:
            parts.append(html.folded("Thoughts", "".join(self._thought).strip()))
        text = self.text()
        if self._is_json and text:
            parts.append(html.code(text, "" if is_open else "json"))
        elif text:
            parts.append(html.markdown(text, is_open=is_open))
        parts += map(html.dim, remarks)
        return "\n\n".join(parts)


def remarks_on(result: Any) -> list[str]:
    """What stands below an answer: what it asks for; tokens, speed, why it ends."""
    lines = [
        html.cut(f"asks for {call.name}({call.arguments})")
        for call in result.tool_calls
    ]
    stats, figures = result.stats, []
    count, speed = stats.predicted_tokens_count, stats.tokens_per_second
    if count is not None:
        figures.append(f"{count} token{'' if count == 1 else 's'}")
    if speed is not None:
        figures.append(f"{speed:.1f} tokens/s")
    return [*lines, " · ".join([*figures, html.cut(stats.stop_reason)])]


def show(prediction: Streams, *, is_json: bool = False) -> None:
    """Show a prediction while it comes; returns at its end.

    In a notebook it is Markdown in one display, elsewhere text on standard output.

    An error is shown, and is then that of the cell: IPython would show it and go on.
    An interrupt cancels, and what has come stays.
    """
    live = _Live(prediction, is_json) if is_notebook() else _Printed(prediction)
    try:
        try:
            live.follow()
            live.end(remarks_on(prediction.result()))
        except KeyboardInterrupt:
            live.end(["interrupted"])
            raise
        except Exception as exc:
            live.end([f"failed: {type(exc).__name__}"])
            _fail_the_cell(exc)
    except BaseException:  # Ctrl-C, or what a callback or the kernel raised
        prediction.cancel()
        raise


def _fail_the_cell(error: Exception) -> None:
    found = shell()
    if found is None:
        raise error
    found.showtraceback((type(error), error, error.__traceback__))
    outcome: Any = getattr(found.displayhook, "exec_result", None)
    if hasattr(outcome, "error_in_exec"):
        outcome.error_in_exec = error


class _Live:
    """Shows a prediction in one display of a notebook."""

    def __init__(self, prediction: Streams, is_json: bool) -> None:
        self._prediction = prediction
        self._answer = Answer(is_json=is_json)
        self._slot = Slot()
        self._began = time.monotonic()

    def follow(self) -> None:
        """Take and show what comes, until its end."""
        position, due, is_new = 0, 0.0, False
        while True:
            deadline = due if is_new else self._look_at_prompt(position)
            more = self._prediction.beyond(position, deadline)
            if more is not None and not more:
                return
            if more:
                position += len(more)
                self._answer.add(more)
                is_new = True
            now = time.monotonic()
            if is_new and now >= due:
                self._draw([], is_open=True)
                length = len(self._answer.text())
                due = now + INTERVAL * max(1.0, length / SLOWER_AFTER)
                is_new = False

    def _look_at_prompt(self, position: int) -> float | None:
        """Show how far the prompt is; returns when to look again."""
        share = self._prediction.prompt_share()
        if position or share is None:
            return None
        now = time.monotonic()
        if now < self._began + PATIENCE:
            return self._began + PATIENCE
        label = "Processing the prompt"
        self._slot.show(f"{label} {share:.0%}", html=html.bar(label, share))
        return now + 5 * INTERVAL

    def end(self, remarks: Sequence[str]) -> None:
        """Show the whole."""
        self._draw(remarks, is_open=False)

    def _draw(self, remarks: Sequence[str], *, is_open: bool) -> None:
        lines = [self._answer.text(), *(f"[{remark}]" for remark in remarks)]
        shown = self._answer.markdown(remarks, is_open=is_open)
        self._slot.show("\n".join(filter(None, lines)), markdown=shown)


class _Printed:
    """Prints a prediction where there is only text."""

    def __init__(self, prediction: Streams) -> None:
        self._prediction = prediction
        self._is_in_line = False  # the cursor is behind some text

    def follow(self) -> None:
        """Print what comes, until its end."""
        position = 0
        while more := self._prediction.beyond(position):
            position += len(more)
            text = _CONTROL.sub("", html.clean("".join(more)))
            if text:
                sys.stdout.write(text)
                sys.stdout.flush()
                self._is_in_line = not text.endswith("\n")

    def end(self, remarks: Sequence[str]) -> None:
        """Print the remarks below it."""
        head = "\n" if self._is_in_line else ""
        lines = "".join(f"[{_CONTROL.sub('', remark)}]\n" for remark in remarks)
        sys.stdout.write(head + html.clean(lines))
        sys.stdout.flush()
