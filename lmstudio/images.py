"""Images handed to the server: from files, bytes, data URLs and image libraries."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import attrs

from .arguments import checked_name
from .calls import call
from .errors import (
    LMStudioOSError,
    LMStudioTimeoutError,
    LMStudioTypeError,
    LMStudioValueError,
    shown,
)
from .parts import PendingImage
from .session import Session
from .wire.files import IMAGES, FileHandle, UploadedFile, UploadFile, kind_of
from .wire.llm import History
from .wire.model import model

_WEB = ("http://", "https://")
_RIGHT = (
    "give a path, bytes, a file opened in binary mode, a data URL, or an image of"
    " Pillow"
)


@model(kw_only=True)
class Image:
    """An image that was read and not sent yet.

    Attributes:
        name: A name for people.
        content: All of its file.
    """

    name: str
    content: bytes = attrs.field(repr=False)


def read_image(source: Any, name: str | None = None) -> Image:
    """Read an image, and see that it is one: its content says so, not its name.

    Args:
        source: A path, bytes, a file opened in binary mode, a data URL, or an image of
            Pillow (anything with its ``save``), which is read as PNG.
        name: A name for people; None takes that of the file, or makes one up.

    Raises:
        LMStudioTypeError: The source is of another type.
        LMStudioValueError: It is no image; the error says what it is.
        LMStudioOSError: The file can't be read.
    """
    if name is not None:
        checked_name(name, "the name of an image")
    found, content = _content_of(source)
    what = f"the image {name or found!r}" if name or found else "the image"
    if not content:
        raise LMStudioValueError(f"{what} is empty")
    kind = kind_of(content)
    if kind not in IMAGES:
        told = f"{kind}, not an image" if kind else "of no kind that is known"
        raise LMStudioValueError(f"{what} is {told}; images are {', '.join(IMAGES)}")
    made = f"image-{_digest(content)[:8]}.{kind.lower()}"
    return Image(name=name or found or made, content=content)


def _content_of(source: Any) -> tuple[str | None, bytes]:
    """A name, if the source has one, and the bytes."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return None, bytes(source)
    if isinstance(source, (str, os.PathLike)):
        text = os.fspath(source)
        if isinstance(text, str) and text[:5].lower() == "data:":
            return None, _from_data_url(text)
        if isinstance(text, str) and text.lower().startswith(_WEB):
            raise LMStudioValueError(
                f"images are not fetched from the network: {shown(text)}; {_RIGHT}"
            )
        return os.path.basename(os.fsdecode(text)), _from_file(text)
    if callable(getattr(source, "read", None)):
        content = _read(source.read, "the image")
        if not isinstance(content, (bytes, bytearray)):
            raise LMStudioTypeError(
                "an image must be read from a file in binary mode: open(path, 'rb')"
            )
        path = getattr(source, "name", None)
        name = os.path.basename(path) if isinstance(path, str) else None
        return name or None, bytes(content)
    if callable(getattr(source, "save", None)):
        return None, _from_pillow(source)
    raise LMStudioTypeError(f"an image can't be read from {shown(source)}; {_RIGHT}")


def _from_file(path: str | bytes) -> bytes:
    def read() -> bytes:
        with open(path, "rb") as file:
            return file.read()

    content: bytes = _read(read, f"the image {os.fsdecode(path)!r}")
    return content


def _read(read: Callable[[], Any], what: str) -> Any:
    try:
        return read()
    except OSError as exc:
        why = exc.strerror or str(exc)
        raise LMStudioOSError(f"{what} can't be read: {why}") from exc
    except ValueError as exc:  # a closed file, or a path with a zero byte
        raise LMStudioValueError(f"{what} can't be read: {exc}") from exc


def _from_data_url(url: str) -> bytes:
    import base64
    import binascii
    from urllib.parse import unquote_to_bytes

    head, comma, data = url.partition(",")
    if not comma:
        raise LMStudioValueError(f"the data URL of an image has no comma: {shown(url)}")
    try:
        content = unquote_to_bytes(data)
        if not head.lower().endswith(";base64"):
            return content
        return base64.b64decode(b"".join(content.split()), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise LMStudioValueError(
            f"the data URL of an image is no base64 behind its comma: {exc}"
        ) from exc


def _from_pillow(image: Any) -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    try:
        image.save(buffer, format="PNG")
    except Exception as exc:  # of a library that we don't import
        raise LMStudioValueError(
            f"the image {shown(image)} can't be saved as PNG:"
            f" {type(exc).__name__}: {exc}"
        ) from exc
    return buffer.getvalue()


def _digest(content: bytes) -> str:
    from hashlib import sha256

    return sha256(content).hexdigest()


class Files:
    """Files handed to a server: ``client.files``."""

    def __init__(self, session: Session, call_time: float | None) -> None:
        self._session = session
        self._call_time = call_time

    def __repr__(self) -> str:
        return self._session.shown_of(self)

    def prepare_image(self, src: Any, name: str | None = None) -> FileHandle:
        """Hand an image to the server, for use in messages.

        The same content is sent once: after that the answer comes at once.

        Args:
            src: A path, bytes, a file opened in binary mode, a data URL, or an image
                of Pillow.
            name: A name for people; None takes that of the file, or makes one up.

        Raises:
            LMStudioTypeError: The source is of another type.
            LMStudioValueError: It is no image; nothing was sent.
            LMStudioOSError: The file can't be read.
            LMStudioFileTooLargeError: The server takes no file of this size.
            LMStudioWebsocketError: The server can't be reached, or was lost.
        """
        image = read_image(src, name)
        return upload(self._session, image, self._call_time)


def upload(session: Session, image: Image, call_time: float | None) -> FileHandle:
    """Hand an image to the server, unless its content was sent on this connection.

    Args:
        call_time: Seconds to wait for the answer; None waits for ever.
    """
    # With the connection the server may forget the file: it is then sent again.
    try:
        memory = session.connection("files", silence=call_time).memory
    except LMStudioTimeoutError as exc:
        raise LMStudioTimeoutError(
            f"uploadFileBase64: no answer within {call_time:g} s ({exc})"
        ) from None
    key = "upload", _digest(image.content)
    sent: UploadedFile | None = memory.get(key)
    if sent is None:
        from base64 import b64encode

        parameter = UploadFile(
            name=image.name, content_base64=b64encode(image.content).decode()
        )
        sent = call(session, "files", "uploadFileBase64", parameter, timeout=call_time)
        memory[key] = sent
    return FileHandle(
        name=image.name,
        identifier=sent.identifier,
        size_bytes=sent.size_bytes,
        file_type=sent.file_type,
    )


def has_images(history: History) -> bool:
    """Whether any message shows an image."""
    parts = (part for message in history.messages for part in message.content)
    return any(part.type == "file" and part.file_type == "image" for part in parts)


def with_uploads(
    session: Session, history: History, call_time: float | None
) -> History:
    """A history whose images are all on the server.

    All are read before any is sent.

    Raises:
        LMStudioValueError: One is no image; the error says where it stands.
    """
    images = {
        (n, k): _read_part(part, f"part {k} of message {n}")
        for n, message in enumerate(history.messages)
        for k, part in enumerate(message.content)
        if isinstance(part, PendingImage)
    }
    if not images:
        return history
    contents = [list(message.content) for message in history.messages]
    for (n, k), image in images.items():
        contents[n][k] = upload(session, image, call_time).to_part()
    return History(
        messages=[
            attrs.evolve(message, content=content)
            for message, content in zip(history.messages, contents, strict=True)
        ]
    )


def _read_part(part: PendingImage, where: str) -> Image:
    try:
        return read_image(part.source, part.name)
    except (LMStudioValueError, LMStudioOSError) as exc:
        raise type(exc)(f"{where}: {exc}") from exc
