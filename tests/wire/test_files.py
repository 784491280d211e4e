"""What a file is follows from its content."""

from __future__ import annotations

import pytest

from lmstudio.wire.files import IMAGES, FileHandle, file_type_of, kind_of

#: The first bytes of files, what they are, and that in the protocol's words.
FILES = (
    (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "PNG", "image"),
    (b"\xff\xd8\xff\xe0\x00\x10JFIF", "JPEG", "image"),
    (b"RIFF\x24\x00\x00\x00WEBPVP8 ", "WebP", "image"),
    (b"RIFF\x24\x00\x00\x00WAVEfmt \x00", None, "unknown"),
    (b"GIF87a\x01\x00\x01\x00", "GIF", "image"),
    (b"GIF89a\x01\x00\x01\x00", "GIF", "image"),
    (b"BM\x46\x00\x00\x00\x00\x00\x00\x00\x36\x00", "BMP", "image"),
    (b"BM is no picture", "text", "text/plain"),
    (b"II*\x00\x08\x00\x00\x00", "TIFF", "image"),
    (b"MM\x00*\x00\x00\x00\x08", "TIFF", "image"),
    (b"\x00\x00\x00\x20ftypavif\x00", "AVIF", "image"),
    (b"\x00\x00\x00\x20ftypheic\x00", "HEIC", "image"),
    (b"\x00\x00\x00\x20ftypisom\x00", "video", "unknown"),
    (b"%PDF-1.7\n", "PDF", "application/pdf"),
    (b"PK\x03\x04\x14\x00", "ZIP", "unknown"),
    (b"PK\x03\x04\x14\x00\x06word/document.xml", "ZIP", "application/word"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\x00", "Word", "application/word"),
    (b"GGUF\x03\x00\x00\x00", "GGUF", "unknown"),
    (b"\x1f\x8b\x08\x00", "gzip", "unknown"),
    ("Größe".encode(), "text", "text/plain"),
    (b'<?xml version="1.0"?>\n<svg xmlns="x">', "SVG", "text/other"),
    (b'<?xml version="1.0"?>\n<a/>', "text", "text/plain"),
    (b"\x80\x81\x82", None, "unknown"),
    (b"zero \x00 byte", None, "unknown"),
    (b"", None, "unknown"),
)


@pytest.mark.parametrize(("data", "kind", "file_type"), FILES, ids=lambda x: repr(x))
def test_the_content_says_what_it_is(data, kind, file_type):
    """The first bytes tell, in our words and in those of the protocol."""
    assert kind == kind_of(data)
    assert file_type == file_type_of(data)


def test_every_kind_of_image_is_told():
    """No kind of image is promised that nothing recognizes."""
    assert {*IMAGES} == {kind for _, kind, file_type in FILES if file_type == "image"}


def test_a_long_text_may_be_cut_in_the_middle_of_a_character():
    """Only the beginning is looked at, wherever it ends."""
    assert "text" == kind_of(b"a" * 4095 + "ö".encode() * 10)


def test_a_handle_is_a_part_of_a_message():
    """A handle and its part have the same fields."""
    handle = FileHandle(
        name="a.png", identifier="1-a.png", size_bytes=9, file_type="image"
    )
    part = handle.to_part()

    assert handle.is_image
    assert ("file", "a.png", "1-a.png", 9, "image") == (
        part.type,
        part.name,
        part.identifier,
        part.size_bytes,
        part.file_type,
    )
