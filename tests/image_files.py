"""Writes small images for tests, without a library."""

from __future__ import annotations

import struct
import zlib

RGB = tuple[int, int, int]


def png(width: int, height: int, color: RGB = (255, 0, 0)) -> bytes:
    """A PNG of one color."""
    row = b"\0" + bytes(color) * width
    return png_head(width, height) + b"".join(
        (_part(b"IDAT", zlib.compress(row * height)), _part(b"IEND", b""))
    )


def png_head(width: int, height: int) -> bytes:
    """The beginning of a PNG: what it claims to be, and no pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _part(b"IHDR", head)


def bmp(width: int, height: int, color: RGB = (255, 0, 0)) -> bytes:
    """A BMP of one color."""
    row = bytes(reversed(color)) * width
    pixels = (row + bytes(-len(row) % 4)) * height
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    size = 14 + len(head) + len(pixels)
    return b"BM" + struct.pack("<IHHI", size, 0, 0, 54) + head + pixels


def _part(name: bytes, data: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + check
