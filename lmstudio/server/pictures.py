"""Images on their way to a model: what they are, how large, and what is refused.

An engine decodes an image in full before it shrinks it, and a file of a few kilobytes
may claim any size. So the size is read from the head of the file, and compared with the
limits, before anything decodes it.
"""

from __future__ import annotations

import importlib
import io
import re
import struct
from collections.abc import Iterable
from typing import Any

from ..wire.files import kind_of
from .engine import Image
from .failures import Failure
from .files import File

#: Most pixels in one image (one of 8K has 33.2 million), and in all of a prediction.
LARGEST_IMAGE = 34_000_000
MOST_PIXELS = 68_000_000
#: Most images in the messages of one prediction.
MOST_IMAGES = 64

#: What engines decode themselves; the others are converted if Pillow is installed.
NATIVE = ("PNG", "JPEG", "GIF", "BMP")
CONVERTED = {"WebP": "WEBP", "TIFF": "TIFF", "AVIF": "AVIF"}

# Markers of JPEG that begin a frame, and with it tell the size.
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
# Any number of 255 may stand before one; looking for all of them at once would begin
# anew at each.
_MARKER = re.compile(rb"\xff[^\xff]")
_MOST_PARTS = 10_000
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}


class _Unreadable(Exception):
    """The head of an image makes no sense."""


def images_of(files: Iterable[File]) -> dict[str, Image]:
    """The images of a prediction by their identifiers, ready for an engine.

    It may take a while: some are converted.

    Raises:
        Failure: There are too many, one is too large, damaged, or of a kind that
            nobody here decodes.
    """
    files = list(files)
    if len(files) > MOST_IMAGES:
        raise _refused(
            f"The messages show {len(files)} images, and may show {MOST_IMAGES}",
            suggestion="Leave out the oldest",
        )
    made: dict[str, Image] = {}
    total = 0
    for file in files:
        if file.identifier in made:
            continue
        image, pixels = _image(file)
        total += pixels
        if total > MOST_PIXELS:
            raise _refused(
                f"The images have more than {MOST_PIXELS} pixels together",
                suggestion="Make them smaller, or leave some out",
            )
        made[file.identifier] = image
    return made


def size_of(content: bytes, kind: str) -> tuple[int, int]:
    """Width and height of an image in pixels, by its head.

    Args:
        kind: One of `NATIVE`.

    Raises:
        ValueError: The head does not tell.
    """
    try:
        width, height = _SIZES[kind](content)
    except (struct.error, IndexError, _Unreadable) as exc:
        raise ValueError(f"it ends early or is damaged ({exc})") from None
    if width <= 0 or height <= 0:
        raise ValueError(f"it claims to have {width} x {height} pixels")
    return width, height


def _image(file: File) -> tuple[Image, int]:
    """One image and its number of pixels."""
    kind = kind_of(file.content) or "unknown"
    if kind in CONVERTED:
        return _converted(file, kind)
    if kind not in NATIVE:
        raise _unknown(file, kind)
    try:
        width, height = size_of(file.content, kind)
    except ValueError as exc:
        raise _damaged(file, kind, str(exc)) from None
    _check_size(file, width, height)
    return Image(file.content), width * height


def _converted(file: File, kind: str) -> tuple[Image, int]:
    """An image that engines don't know, as PNG."""
    try:
        library: Any = importlib.import_module("PIL.Image")
    except ImportError:
        raise _unknown(file, kind) from None
    try:
        with library.open(io.BytesIO(file.content), formats=[CONVERTED[kind]]) as image:
            width, height = image.size  # of the head; nothing is decoded yet
            _check_size(file, width, height)
            png = io.BytesIO()
            image.convert("RGB").save(png, "PNG", compress_level=1)
    except Failure:
        raise
    except Exception as exc:  # decoders fail in many ways
        raise _damaged(file, kind, str(exc)) from exc
    return Image(png.getvalue()), width * height


def _check_size(file: File, width: int, height: int) -> None:
    if width * height > LARGEST_IMAGE:
        raise _refused(
            f"The image {file.name[:100]!r} is too large",
            f"It has {width} x {height} pixels, and an image may have {LARGEST_IMAGE}",
            "Make it smaller: models look at far fewer",
        )


def _png(content: bytes) -> tuple[int, int]:
    if content[12:16] != b"IHDR":
        raise _Unreadable("its first part is no IHDR")
    width, height = struct.unpack_from(">II", content, 16)
    return width, height


def _gif(content: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", content, 6)
    return width, height


def _bmp(content: bytes) -> tuple[int, int]:
    (header,) = struct.unpack_from("<I", content, 14)
    # The oldest header has 16 bits for each; a negative height means top to bottom.
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", content, 18)
    return width, abs(height)


def _jpeg(content: bytes) -> tuple[int, int]:
    at = 2
    for _ in range(_MOST_PARTS):
        found = _MARKER.search(content, at)
        if found is None:
            raise _Unreadable("it has no frame")
        at = found.end()
        marker = content[at - 1]
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", content, at + 3)
            return width, height
        if marker == 0 or marker in _WITHOUT_LENGTH:
            continue
        if marker in (0xD9, 0xDA):
            raise _Unreadable("its pixels come before their number")
        (length,) = struct.unpack_from(">H", content, at)
        at += length
    raise _Unreadable(f"it has more than {_MOST_PARTS} parts before its frame")


_SIZES = {"PNG": _png, "JPEG": _jpeg, "GIF": _gif, "BMP": _bmp}


def _refused(
    title: str, cause: str | None = None, suggestion: str | None = None
) -> Failure:
    return Failure(title, cause, suggestion, data={"code": "unsupportedContent"})


def _damaged(file: File, kind: str, problem: str) -> Failure:
    return _refused(
        f"The image {file.name[:100]!r} can't be read as {kind}",
        problem[:200],
        "Save it anew",
    )


def _unknown(file: File, kind: str) -> Failure:
    known = ", ".join(NATIVE)
    by_pillow = ", ".join(CONVERTED)
    return _refused(
        f"The image {file.name[:100]!r} is {kind}, and models take {known}",
        f"With the package Pillow installed the server converts {by_pillow} as well",
        f"Convert it to one of {known}",
    )
