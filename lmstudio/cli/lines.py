"""What somebody types: lines with a history, and texts of several lines."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from types import ModuleType, TracebackType

import click

#: What begins and ends a text of several lines.
QUOTES = '"""'
PROMPT, MORE = "> ", ". "
_KEPT = 1000  # lines in the history file


class Lines:
    """Reads lines, with editing and a history where the terminal allows it.

    Args:
        words: What the tab key completes at the beginning of a line.
    """

    def __init__(self, words: Sequence[str]) -> None:
        from lmstudio import paths

        self._file = paths.internal() / "chat-history"
        self._words = words
        self._readline: ModuleType | None = None

    def __enter__(self) -> Lines:
        if sys.stdin.isatty() and sys.stdout.isatty():
            with contextlib.suppress(ImportError):  # Windows has none
                import readline

                self._readline = readline
                readline.set_completer(self._complete)
                readline.set_completer_delims("")
                readline.parse_and_bind("tab: complete")
                with contextlib.suppress(OSError):
                    readline.read_history_file(self._file)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._readline is None:
            return
        with contextlib.suppress(OSError):  # a chat without a history is one, too
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.touch(mode=0o600)
            self._readline.set_history_length(_KEPT)
            self._readline.write_history_file(self._file)

    def read(self) -> str:
        r"""Read one line, those between `QUOTES`, or as long as they end in ``\``.

        Raises:
            EOFError: Ctrl-D, or the end of the input.
            KeyboardInterrupt: Ctrl-C.
        """
        line = self._line(PROMPT)
        if line.lstrip().startswith(QUOTES):
            text = line.lstrip()[len(QUOTES) :]
            while not text.rstrip().endswith(QUOTES):
                text += "\n" + self._line(MORE)
            return text.rstrip()[: -len(QUOTES)].strip("\n")
        while line.endswith("\\"):
            line = line[:-1] + "\n" + self._line(MORE)
        return line

    def _line(self, prompt: str) -> str:
        if sys.stdout.isatty():
            return input(prompt)
        click.echo(prompt, nl=False, err=True)  # the output is for the answers
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\n")

    def _complete(self, text: str, state: int) -> str | None:
        fitting = [word for word in self._words if text and word.startswith(text)]
        return fitting[state] if state < len(fitting) else None
