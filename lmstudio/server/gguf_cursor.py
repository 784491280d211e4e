"""Reads a file that nobody vouches for: through a window, within limits."""

from __future__ import annotations

import struct
from typing import Any, BinaryIO

#: Bytes that are read of one header at most. Large vocabularies take about 16 MB.
HEADER_LIMIT = 64 << 20

U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")
_WINDOW = 1 << 20


class Malformed(Exception):
    """What is wrong with a file, as a sentence."""


class Cursor:
    """Reads a file through a window, never past its end and never without limit.

    Attributes:
        at: Byte that comes next.
        size: Bytes of the file.

    All methods raise `Malformed` when the file is at its end too early.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.at = 0
        self.size = size
        self._file = file
        self._window = b""
        self._start = 0  # where in the file the window begins
        self._budget = HEADER_LIMIT

    def restart(self, at: int) -> None:
        """Go to a place that was visited before, to read as much again."""
        self.at = at
        self._budget = HEADER_LIMIT

    def skip(self, count: int) -> None:
        """Go on without reading."""
        if count > self.size - self.at:
            raise Malformed(
                f"it ends early: {count} bytes are missing after byte {self.at}, "
                f"and it has {self.size} bytes"
            )
        self.at += count

    def bytes(self, count: int) -> bytes:
        """The next bytes."""
        offset = self._reach(count)
        self.at += count
        return self._window[offset : offset + count]

    def number(self, form: struct.Struct) -> Any:
        """The next number, in the given form."""
        offset = self._reach(form.size)
        self.at += form.size
        return form.unpack_from(self._window, offset)[0]

    def text(self) -> str:
        """The next text: its length in 8 bytes, then UTF-8."""
        return self.bytes(self.number(U64)).decode("utf-8", "replace")

    def skip_strings(self, count: int, stride: int) -> list[int]:
        """Skip strings; returns where each ``stride``-th of them begins."""
        marks = []
        unpack = U64.unpack_from
        for first in range(0, count, stride):
            marks.append(self.at)
            left = min(stride, count - first)
            while left:
                offset = self._reach(8)
                base, window = self._start, self._window
                last = len(window) - 8
                # Half a million rounds in a large vocabulary: locals only.
                while left and offset <= last:
                    offset += 8 + unpack(window, offset)[0]
                    left -= 1
                self.at = base + offset
        self.skip(0)
        return marks

    def _reach(self, count: int) -> int:
        """Have the next bytes in the window; returns where in it they begin."""
        offset = self.at - self._start
        if 0 <= offset <= len(self._window) - count:
            return offset
        if count <= self.size - self.at:
            if count > self._budget or self._budget <= 0:
                raise Malformed(f"its header has more than {HEADER_LIMIT} bytes")
            self._file.seek(self.at)
            self._window = self._file.read(max(count, _WINDOW))
            self._start = self.at
            self._budget -= len(self._window)
            if len(self._window) >= count:
                return 0
        raise Malformed(
            f"it ends early: its header goes on after byte {self.size}, its last"
        )
