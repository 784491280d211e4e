"""Images: their sizes by their heads, limits, and what is converted."""

from __future__ import annotations

import importlib.util
import io
import struct
import sys

import pytest

from image_files import bmp, png, png_head
from lmstudio.server import pictures
from lmstudio.server.failures import Failure
from lmstudio.server.files import File
from lmstudio.server.pictures import images_of, size_of


def file(content, name="cat.png", identifier="1"):
    """An uploaded file."""
    return File(name=name, identifier=identifier, file_type="image", content=content)


def jpeg_head(width, height, marker=0xC0, before=b""):
    """The beginning of a JPEG, with a thumbnail of another size in its Exif part."""
    exif = b"Exif\0\0\xff\xc0\0\x11\x08\0\x01\0\x01"
    exif = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    frame = bytes([0xFF, marker]) + struct.pack(">HBHHB", 17, 8, height, width, 3)
    return b"\xff\xd8" + exif + before + frame + bytes(9)


GIF = b"GIF89a" + struct.pack("<HH", 640, 480) + bytes(3)
OLD_BMP = b"BM" + bytes(12) + struct.pack("<IHHHH", 12, 20, 10, 1, 24)
TOP_DOWN = bytearray(bmp(4, 2))
TOP_DOWN[22:26] = struct.pack("<i", -2)


@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        ("PNG", png(3, 5), (3, 5)),
        ("GIF", GIF, (640, 480)),
        ("BMP", bmp(7, 9), (7, 9)),
        ("BMP", OLD_BMP, (20, 10)),
        ("BMP", bytes(TOP_DOWN), (4, 2)),
        ("JPEG", jpeg_head(300, 200), (300, 200)),
        ("JPEG", jpeg_head(300, 200, 0xC2), (300, 200)),
        ("JPEG", jpeg_head(3, 2, before=b"\xff\xc4\0\x02\xff\xff\xff\xd0"), (3, 2)),
        ("JPEG", jpeg_head(3, 2, before=b"\xff\x01\xff\0\xff\xdb\0\x02"), (3, 2)),
    ],
)
def test_sizes(kind, content, expected):
    """Width and height stand where each format has them."""
    assert expected == size_of(content, kind)


@pytest.mark.parametrize(
    ("kind", "content", "problem"),
    [
        ("PNG", b"\x89PNG\r\n\x1a\n", "no IHDR"),
        ("PNG", png(1, 1)[:20], "ends early"),
        ("PNG", png_head(0, 5), "0 x 5 pixels"),
        ("GIF", b"GIF89a", "ends early"),
        ("BMP", b"BM", "ends early"),
        ("JPEG", b"\xff\xd8", "no frame"),
        ("JPEG", b"\xff\xd8\xff\xda", "pixels come before"),
        ("JPEG", b"\xff\xd8" + b"\xff\x01" * 20_000, "more than 10000 parts"),
    ],
)
def test_heads_that_make_no_sense(kind, content, problem):
    """The error says what is wrong."""
    with pytest.raises(ValueError, match=problem):
        size_of(content, kind)


def test_images_of():
    """The bytes of what engines know are not touched; each image counts once."""
    red, blue = png(1, 1), bmp(1, 1)
    made = images_of([file(red), file(blue, identifier="2"), file(red)])
    assert {"1": red, "2": blue} == {name: i.content for name, i in made.items()}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (png_head(60_000, 60_000), "60000 x 60000 pixels"),
        (jpeg_head(65_000, 65_000), "65000 x 65000 pixels"),
        (b"\x89PNG\r\n\x1a\nabc", "can't be read as PNG"),
        (b"\0\0\0\x18ftypheic", "is HEIC, and models take PNG, JPEG, GIF, BMP"),
    ],
)
def test_what_is_refused(content, words):
    """A bomb is refused by its head; the error names the file and the formats."""
    with pytest.raises(Failure, match=r"'cat\.png'") as caught:
        images_of([file(content)])
    assert words in str(caught.value)
    assert {"code": "unsupportedContent"} == caught.value.data


def test_limits(monkeypatch):
    """As many images and pixels as the limits say pass, and no more."""
    monkeypatch.setattr(pictures, "MOST_IMAGES", 2)
    monkeypatch.setattr(pictures, "MOST_PIXELS", 8)
    files = [file(png(2, 2), identifier=str(number)) for number in range(3)]
    assert 2 == len(images_of(files[:2]))
    with pytest.raises(Failure, match="show 3 images, and may show 2"):
        images_of(files)
    with pytest.raises(Failure, match="more than 8 pixels together"):
        images_of([file(png(4, 2)), file(png(1, 1), identifier="2")])


needs_pillow = pytest.mark.skipif(
    importlib.util.find_spec("PIL") is None, reason="Pillow is not installed"
)


def webp(width, height):
    """A WebP."""
    from PIL import Image

    made = io.BytesIO()
    Image.new("RGBA", (width, height), (255, 0, 0, 128)).save(made, "WEBP")
    return made.getvalue()


@needs_pillow
def test_webp_with_pillow(monkeypatch):
    """It becomes a PNG of the same size; its limits are those of the others."""
    content = webp(6, 4)
    image = images_of([file(content)])["1"]
    assert (6, 4) == size_of(image.content, "PNG")
    monkeypatch.setattr(pictures, "LARGEST_IMAGE", 23)
    with pytest.raises(Failure, match="6 x 4 pixels"):
        images_of([file(content)])
    with pytest.raises(Failure, match="can't be read as WebP"):
        images_of([file(content[:20])])


def test_webp_without_pillow(monkeypatch):
    """The error names the formats that are taken, and what would convert it."""
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    content = b"RIFF\x1a\0\0\0WEBPVP8L" + bytes(20)
    with pytest.raises(Failure, match="is WebP, and models take PNG") as caught:
        images_of([file(content)])
    assert "the package Pillow" in (caught.value.cause or "")
