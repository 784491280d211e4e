"""Files that clients hand to the server: in memory, as long as their client stays."""

from __future__ import annotations

import base64
import binascii
import itertools
from collections.abc import Iterator

import attrs

from ..wire.files import file_type_of
from ..wire.llm import History, Part
from .clients import Client
from .engine import BadRequest, ModelFile
from .failures import Failure

#: Most bytes in one file, and in all files of one client.
LARGEST_FILE = 64 * 1024 * 1024
MOST_BYTES = 256 * 1024 * 1024
#: Most files of one client, those with the same content counted each.
MOST_FILES = 10_000
_NO_PROJECTOR = (
    "A model sees by a projector, a GGUF file with mmproj in its name, and there is"
    " none beside this one"
)
_LONGEST_NAME = 1000  # characters of a name that are kept


@attrs.frozen(kw_only=True)
class File:
    """A file that a client handed over.

    Attributes:
        name: A name for people.
        identifier: What parts of messages name it by.
        file_type: ``"image"``, ``"text/plain"``, ...
        content: All of it.
    """

    name: str
    identifier: str
    file_type: str
    content: bytes = attrs.field(repr=False)


class Files:
    """The files of all clients. Each client sees its own only.

    Args:
        largest_file: Most bytes in one file.
        most_bytes: Most bytes in all files of one client.
        most_files: Most files of one client.
    """

    def __init__(
        self,
        largest_file: int = LARGEST_FILE,
        most_bytes: int = MOST_BYTES,
        most_files: int = MOST_FILES,
    ) -> None:
        self._largest_file = largest_file
        self._most_bytes = most_bytes
        self._most_files = most_files
        self._of: dict[Client, dict[str, File]] = {}
        self._numbers = itertools.count(1)

    def add(self, client: Client, name: str, content_base64: str) -> File:
        """Keep a file for a client. Files with the same content share the memory.

        Each has an identifier of its own, also when the content is known.
        Source: docs/wire/files.md.

        Raises:
            BadRequest: The content is no base64.
            Failure: It is too large, alone or with the others of this client.
        """
        files = self._of.get(client, {})
        # Four letters stand for three bytes: too much is refused before it is decoded.
        at_most = len(content_base64) // 4 * 3
        if at_most - 2 > self._largest_file:
            raise _too_large(name, at_most - 2, "one file", self._largest_file)
        try:
            content = base64.b64decode(content_base64, validate=True)
        except (binascii.Error, ValueError) as exc:
            raise BadRequest(
                f"The content of {name[:100]!r} is no base64: {exc}"
            ) from exc
        if len(content) > self._largest_file:
            raise _too_large(name, len(content), "one file", self._largest_file)
        if len(files) >= self._most_files:
            raise Failure(
                f"A client may have {self._most_files} files, and this one has them",
                "Files are kept until the last connection of their client ends",
                "Use the handle of a file again, or connect anew",
                data={"code": "files.tooMany", "limit": self._most_files},
            )
        kept = {file.content: file.content for file in files.values()}
        content = kept.setdefault(content, content)
        total = sum(map(len, kept))
        if total > self._most_bytes:
            raise _too_large(name, total, "all files of a client", self._most_bytes)
        file = File(
            name=name[:_LONGEST_NAME],
            identifier=f"{next(self._numbers)}-{name[:100]}",
            file_type=file_type_of(content),
            content=content,
        )
        self._of.setdefault(client, {})[file.identifier] = file
        return file

    def find(self, client: Client, identifier: str) -> File | None:
        """A client's file; None when it has none of this identifier."""
        return self._of.get(client, {}).get(identifier)

    def get(self, client: Client, identifier: str) -> File:
        """A client's file.

        Raises:
            Failure: It has none of this identifier.
        """
        file = self.find(client, identifier)
        if file is None:
            raise Failure(
                f"This client has uploaded no file {identifier[:100]!r}",
                "Files are kept until the last connection of their client ends",
                "Upload it again",
                data={"code": "files.notFound"},
            )
        return file

    def release(self, client: Client) -> None:
        """A client is gone, and its files with it."""
        self._of.pop(client, None)

    def check(
        self, client: Client, history: History, model: ModelFile
    ) -> dict[str, File]:
        """The files that a history shows, by their identifiers.

        Raises:
            Failure: The model takes none, or the client has no such file.
        """
        made: dict[str, File] = {}
        for where, part in _files_in(history):
            is_image = part.file_type == "image"
            if not (model.vision and is_image):
                kind = "images" if is_image else "files"
                raise Failure(
                    f"{where}: the model {model.key} takes no {kind}, and the message"
                    f" holds {part.name or part.identifier or ''!r}",
                    _NO_PROJECTOR if is_image else None,
                    "Leave it out, or use a model with vision"
                    if is_image
                    else "Leave it out, or put its text into the message",
                    data={"code": "unsupportedContent"},
                )
            file = self.find(client, part.identifier or "")
            if file is None:
                raise Failure(
                    f"{where}: this client has uploaded no file {part.identifier!r}",
                    "Files are kept until the last connection of their client ends",
                    "Upload it again",
                    data={"code": "files.notFound"},
                )
            made[file.identifier] = file
        return made


def _files_in(history: History) -> Iterator[tuple[str, Part]]:
    for number, message in enumerate(history.messages):
        for part in message.content:
            if part.type == "file":
                yield f"Message {number}", part


def _too_large(name: str, size: int, what: str, limit: int) -> Failure:
    return Failure(
        f"{name[:100]!r} is too large",
        f"It makes {size} bytes, and {what} may have {limit}",
        "Make it smaller",
        data={"code": "files.tooLarge", "sizeBytes": size, "limitBytes": limit},
    )
