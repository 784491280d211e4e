"""Models of the ``files`` namespace, and what a file's first bytes say it is."""

from __future__ import annotations

import attrs

from .common import KVConfig
from .llm import Part
from .model import Plain, model

#: The kinds that a message may show to a model, as people write them.
IMAGES = ("PNG", "JPEG", "WebP", "GIF", "BMP", "TIFF", "AVIF", "HEIC")

#: What a file is, and the bytes that it then has at which places.
_MAGIC: tuple[tuple[str, dict[int, bytes]], ...] = (
    ("PNG", {0: b"\x89PNG\r\n\x1a\n"}),
    ("JPEG", {0: b"\xff\xd8\xff"}),
    ("WebP", {0: b"RIFF", 8: b"WEBP"}),
    ("GIF", {0: b"GIF87a"}),
    ("GIF", {0: b"GIF89a"}),
    ("BMP", {0: b"BM", 6: bytes(4)}),
    ("TIFF", {0: b"II*\x00"}),
    ("TIFF", {0: b"MM\x00*"}),
    ("AVIF", {4: b"ftypavif"}),
    ("HEIC", {4: b"ftypheic"}),
    ("HEIC", {4: b"ftypmif1"}),
    ("video", {4: b"ftyp"}),
    ("PDF", {0: b"%PDF-"}),
    ("ZIP", {0: b"PK\x03\x04"}),
    ("Word", {0: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"}),
    ("GGUF", {0: b"GGUF"}),
    ("gzip", {0: b"\x1f\x8b"}),
)
#: A part of an Office document that every one has, near its beginning.
_OFFICE = b"word/"
#: So many bytes tell whether a file is text.
_LOOKED_AT = 4096


def kind_of(data: bytes) -> str | None:
    """What a file is by its content: one of `IMAGES`, ``"text"``, ``"PDF"``, ...

    None when its first bytes say nothing.
    """
    for kind, bytes_at in _MAGIC:
        if all(data.startswith(magic, at) for at, magic in bytes_at.items()):
            return kind
    head = data[:_LOOKED_AT]
    try:
        # A character may be cut in two at the end of what is looked at.
        text = head.decode("utf-8", "strict" if len(data) <= _LOOKED_AT else "ignore")
    except UnicodeDecodeError:
        return None
    if "\x00" in text or not text:
        return None
    start = text.lstrip().lower()
    is_svg = start.startswith(("<svg", "<?xml")) and "<svg" in start
    return "SVG" if is_svg else "text"


def file_type_of(data: bytes) -> str:
    """The same in the words of the protocol.

    Source: docs/wire/files.md.
    """
    kind = kind_of(data)
    if kind in IMAGES:
        return "image"
    if kind == "ZIP" and _OFFICE in data:
        return "application/word"
    return _FILE_TYPES.get(kind or "", "unknown")


_FILE_TYPES = {
    "PDF": "application/pdf",
    "Word": "application/word",
    "text": "text/plain",
    "SVG": "text/other",
}


@model(kw_only=True)
class UploadFile:
    """Parameter of ``uploadFileBase64``.

    Attributes:
        name: A name for people.
        content_base64: The content in the standard alphabet, padded.

    Source: docs/wire/files.md.
    """

    name: str
    content_base64: str = attrs.field(repr=False)


@model(kw_only=True)
class UploadedFile:
    """Reply of ``uploadFileBase64``.

    Attributes:
        identifier: What parts of messages name the file by.
        file_type: ``"image"``, ``"text/plain"``, ``"application/pdf"``, ...
        size_bytes: Of the content, bytes.
    """

    identifier: str
    file_type: str
    size_bytes: int


@model(kw_only=True)
class Retrieve:
    """Parameter of ``retrieve``.

    Attributes:
        query: What is looked for.
        file_identifiers: In these files.
        config: Settings whose keys begin with ``retrieval.``.

    Source: docs/wire/files.md, "Retrieval".
    """

    query: str
    file_identifiers: list[str]
    config: KVConfig


@model(kw_only=True)
class Parser:
    """What reads a document."""

    library: str
    version: str


@model(kw_only=True)
class ParseOptions:
    """How to read a document.

    Attributes:
        parser_id: With what, None for whatever fits.
    """

    parser_id: Parser | None = None


@model(kw_only=True)
class ParseDocument:
    """Parameter of ``parseDocument``."""

    file_identifier: str
    parse_opts: ParseOptions


@model(kw_only=True)
class OfFile:
    """Parameter of ``getDocumentParsingLibrary``."""

    file_identifier: str


@model(kw_only=True)
class FileHandle(Plain):
    """A file that was handed to the server, for use in messages.

    Attributes:
        name: A name for people.
        identifier: The server's name for it.
        size_bytes: Of the content, bytes.
        file_type: ``"image"``, ``"text/plain"``, ``"application/pdf"``, ...
        type: Always ``"file"``: as a mapping, a handle is the part of a message.
    """

    name: str
    identifier: str
    size_bytes: int
    file_type: str
    type: str = "file"

    @property
    def is_image(self) -> bool:
        """Whether the server takes it for an image."""
        return self.file_type == "image"

    def to_part(self) -> Part:
        """The part of a message that shows the file."""
        return Part(
            type="file",
            name=self.name,
            identifier=self.identifier,
            size_bytes=self.size_bytes,
            file_type=self.file_type,
        )
