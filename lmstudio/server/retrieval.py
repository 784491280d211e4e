"""The passages of uploaded texts that are nearest to a question."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import attrs

from .._version import __version__
from ..wire import files as wire
from ..wire.common import KVConfig, ModelQuery, ModelSpecifier
from .caller import Caller, CallHandler, ChannelHandler, End
from .engine import BadRequest, LoadedModel
from .failures import Failure
from .files import File
from .instances import Instance
from .work import in_turn

#: What reads texts, as clients are told.
PARSER = wire.Parser(library="lmstudio-text", version=__version__)
#: Passages that are embedded at once.
BATCH = 8
#: Most characters of a passage, and most passages in an answer.
LONGEST, MOST = 100_000, 1000
#: Most passages in one file.
MOST_PASSAGES = 100_000
#: Files in one search, with those that are named again, and bytes in them.
MOST_FILES, MOST_BYTES = 1000, 100_000_000
#: Where a passage may end, the best place first, and what part of the passage has to
#: be in front: a whole paragraph may be short, a torn one not.
_ENDS = (
    *(("\n\n", 4), ("\n", 4)),
    *((". ", 2), ("? ", 2), ("! ", 2), ("; ", 2), (", ", 2), (" ", 2)),
)


@attrs.frozen(kw_only=True)
class Settings:
    """How to search.

    Attributes:
        model: Identifier of the embedding model, ``""`` for the only one.
        chunk_size: Characters of a passage at most.
        chunk_overlap: Characters that a passage shares with the one before.
        limit: Passages in the answer at most.
    """

    model: str = ""
    chunk_size: int = 512
    chunk_overlap: int = 100
    limit: int = 5

    @classmethod
    def read(cls, config: KVConfig) -> Settings:
        """The settings of a request. A database file is not used.

        Raises:
            BadRequest: One is wrong.
        """
        given = {f.key.removeprefix("retrieval."): f.value for f in config.fields}
        method = given.get("chunkingMethod")
        if method is None:
            method = {}
        kind = method.get("type") if isinstance(method, dict) else method
        if not isinstance(method, dict) or kind not in (None, "recursive-v1"):
            raise BadRequest(
                f"The chunking method must be recursive-v1, not {str(kind)[:100]!r}"
            )
        model = given.get("embeddingModel") or ""
        if not isinstance(model, str):
            raise BadRequest("embeddingModel must be the identifier of a model")
        size = _whole("chunkSize", method.get("chunkSize"), 512, 1, LONGEST)
        default = min(100, size - 1)
        return cls(
            model=model,
            chunk_size=size,
            chunk_overlap=_whole(
                "chunkOverlap", method.get("chunkOverlap"), default, 0, size - 1
            ),
            limit=_whole("limit", given.get("limit"), 5, 1, MOST),
        )


def _whole(name: str, value: Any, default: int, low: int, high: int) -> int:
    if value is None:
        return default
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadRequest(f"{name} must be a whole number, not {str(value)[:100]!r}")
    if not low <= value <= high:
        raise BadRequest(f"{name} must be from {low} to {high}, not {value}")
    return value


def passages(text: str, size: int, overlap: int) -> list[tuple[int, int]]:
    """Cut a text into passages that end where a reader would end them.

    Args:
        size: Characters of a passage at most.
        overlap: Characters that a passage shares with the one before, at most.

    Returns:
        Where each begins and ends, without the blanks around it.

    Raises:
        BadRequest: There are too many.
    """
    found: list[tuple[int, int]] = []
    start = 0
    while start < len(text):
        end = _end(text, start, size)
        begin, stop = start, end
        while begin < stop and text[begin].isspace():
            begin += 1
        while stop > begin and text[stop - 1].isspace():
            stop -= 1
        if begin < stop:
            found.append((begin, stop))
        if end >= len(text):
            break
        if len(found) > MOST_PASSAGES:
            raise BadRequest(
                f"A file makes more than {MOST_PASSAGES} passages",
                None,
                "Use a larger chunkSize, or a smaller chunkOverlap",
            )
        start = max(start + 1, _word(text, end - overlap, end))
    return found


def _end(text: str, start: int, size: int) -> int:
    """Where the passage that begins somewhere ends: late, and at a good place."""
    if len(text) - start <= size:
        return len(text)
    for mark, part in _ENDS:
        at = text.rfind(mark, start + size // part, start + size)
        if at >= 0:
            return at + len(mark)
    return start + size


def _word(text: str, low: int, high: int) -> int:
    """The first beginning of a word in a stretch of text, or its end."""
    if low >= high:
        return high
    for at in range(max(low, 1), high):
        if text[at - 1].isspace() and not text[at].isspace():
            return at
    return max(low, 0)


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """How alike two vectors are: -1 to 1; 0 if one has no length."""
    product = sum(a * b for a, b in zip(one, other, strict=True))
    length = math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))
    return product / length if length else 0.0


@attrs.frozen(order=True)
class _Hit:
    """A passage and how near it is; of two as near ones the earlier is better."""

    score: float
    order: int
    index: int = attrs.field(order=False)
    span: tuple[int, int] = attrs.field(order=False)


class Search:
    """One search through a client's files.

    Args:
        files: The files, in the client's order.
        model: What embeds.
    """

    def __init__(
        self, files: Sequence[File], model: LoadedModel, settings: Settings
    ) -> None:
        self._files = files
        self._model = model
        self._settings = settings
        self._texts: dict[int, str] = {}
        self._best: list[_Hit] = []  # a heap; only what may be in the answer is kept
        self._count = 0

    async def packets(self, query: str) -> AsyncGenerator[dict[str, Any], None]:
        """All packets of the search, the result last."""
        asked = await self._model.embed(query)
        yield {"type": "onFileProcessList", "indices": [*range(len(self._files))]}
        seen: set[int] = set()
        for index, file in enumerate(self._files):
            yield {"type": "onFileProcessingStart", "index": index}
            if id(file) not in seen:  # twice the same finds nothing more
                seen.add(id(file))
                async with aclosing(self._process(index, asked)) as steps:
                    async for packet in steps:
                        yield {**packet, "index": index}
            yield {"type": "onFileProcessingEnd", "index": index}
        yield {"type": "onSearchingStart"}
        entries = await in_turn(self._entries)
        yield {"type": "onSearchingEnd"}
        yield {"type": "result", "result": {"entries": entries}}

    async def _process(
        self, index: int, asked: Sequence[float]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Read, cut and embed one file."""
        start, progress, end = (
            f"onFileProcessingStep{kind}" for kind in ("Start", "Progress", "End")
        )
        yield {"type": start, "step": "loading"}
        text = self._texts[index] = await in_turn(text_of, self._files[index])
        yield {"type": end, "step": "loading"}
        yield {"type": start, "step": "chunking"}
        settings = self._settings
        spans = await in_turn(
            passages, text, settings.chunk_size, settings.chunk_overlap
        )
        yield {"type": end, "step": "chunking"}
        yield {"type": start, "step": "embedding"}
        for at in range(0, len(spans), BATCH):
            some = spans[at : at + BATCH]
            await self._embed(index, some, text, asked)
            done = (at + len(some)) / len(spans)
            yield {"type": progress, "step": "embedding", "progress": done}
        yield {"type": end, "step": "embedding"}

    async def _embed(
        self,
        index: int,
        spans: Sequence[tuple[int, int]],
        text: str,
        asked: Sequence[float],
    ) -> None:
        """Embed some passages at once; keep those that may be in the answer."""
        tasks = [
            asyncio.ensure_future(self._model.embed(text[begin:end]))
            for begin, end in spans
        ]
        try:
            vectors = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for span, vector in zip(spans, vectors, strict=True):
            self._count += 1
            hit = _Hit(cosine(asked, vector), -self._count, index, span)
            if len(self._best) < self._settings.limit:
                heapq.heappush(self._best, hit)
            else:
                heapq.heappushpop(self._best, hit)

    def _entries(self) -> list[dict[str, Any]]:
        """The best passages, the nearest first. Counting their lines takes a while."""
        return [self._entry(hit) for hit in sorted(self._best, reverse=True)]

    def _entry(self, hit: _Hit) -> dict[str, Any]:
        """A passage as it travels."""
        text, (begin, end) = self._texts[hit.index], hit.span
        first = text.count("\n", 0, begin) + 1
        last = first + text.count("\n", begin, end)
        return {
            "content": text[begin:end],
            "score": hit.score,
            "sourceIndex": hit.index,
            "lineNumber": first if first == last else [first, last],
        }


def text_of(file: File) -> str:
    """The text in a file. It takes a while for a large one.

    Raises:
        Failure: It is no text.
    """
    check_text(file)
    return file.content.decode("utf-8-sig", "replace")


def check_text(file: File) -> None:
    """Raise Failure when a file is no text."""
    if not file.file_type.startswith("text/"):
        what = "an image" if file.file_type == "image" else file.file_type
        if file.file_type == "unknown":
            what = "of no kind that is known"
        raise Failure(
            f"{file.name[:100]!r} is {what}, and only text can be read",
            "This server reads plain text and Markdown in UTF-8",
            "Upload its text instead",
            data={"code": "files.unsupported", "fileType": file.file_type},
        )


def _check_size(parameter: wire.Retrieve, files: Sequence[File]) -> None:
    """Raise Failure when a search asks for too much."""
    count = len(parameter.file_identifiers)
    size = sum(len(file.content) for file in {f.identifier: f for f in files}.values())
    for what, value, most in (
        ("files", count, MOST_FILES),
        ("bytes", size, MOST_BYTES),
    ):
        if value > most:
            raise Failure(
                f"A search goes through {most} {what} at most, not {value}",
                None,
                "Search in fewer files at once",
                data={"code": "files.tooLarge", "limit": most},
            )


async def _retrieve(caller: Caller, parameter: wire.Retrieve, ends: End) -> None:
    """Search a client's files, until it stops that."""
    settings = Settings.read(parameter.config)
    files = [
        caller.service.files.get(caller.client, identifier)
        for identifier in parameter.file_identifiers[: MOST_FILES + 1]
    ]
    _check_size(parameter, files)
    for file in files:
        check_text(file)  # before anything is embedded
    instance = _embedder(caller, settings.model)
    task = asyncio.current_task()
    assert task is not None
    ends.on_cancel(task.cancel)
    try:
        with caller.service.registry.use(instance, "computingEmbedding"):
            search = Search(files, instance.model, settings)
            async with aclosing(search.packets(parameter.query)) as packets:
                async for packet in packets:
                    await ends.send(packet)
    except asyncio.CancelledError:
        if not ends.is_cancelled:
            raise
        raise Failure("The search was stopped") from None


def _embedder(caller: Caller, identifier: str) -> Instance:
    """The embedding model that a search names, or the only one."""
    query = ModelQuery(identifier=identifier or None)
    registry = caller.service.registry
    return registry.find(ModelSpecifier(query=query), "embedding")


def _readable(caller: Caller, identifier: str) -> File:
    """A client's file that `PARSER` reads."""
    file = caller.service.files.get(caller.client, identifier)
    check_text(file)
    return file


async def _parse(caller: Caller, parameter: wire.ParseDocument, ends: End) -> None:
    wanted = parameter.parse_opts.parser_id
    if wanted is not None and wanted.library != PARSER.library:
        raise Failure(
            f"This server has no parser {wanted.library[:100]!r}",
            f"It has {PARSER.library} {PARSER.version}",
            "Leave the parser to the server",
        )
    text = await in_turn(text_of, _readable(caller, parameter.file_identifier))
    told = {"library": PARSER.library, "version": PARSER.version}
    await ends.send({"type": "parserLoaded", "parser": told})
    await ends.send({"type": "progress", "progress": 1})
    await ends.send({"type": "result", "content": text, "parser": told})


async def _library(caller: Caller, parameter: wire.OfFile) -> Any:
    _readable(caller, parameter.file_identifier)
    return PARSER


async def _path(_: Caller, __: Any) -> Any:
    raise Failure(
        "This server keeps no files on the disk, so that none has a path",
        "What clients upload stays in memory",
        "Use the file's identifier",
        data={"code": "files.noPath"},
    )


#: Namespace and endpoint -> what answers it.
CALLS: dict[tuple[str, str], CallHandler] = {
    ("files", "getDocumentParsingLibrary"): _library,
    ("files", "getLocalFileAbsolutePath"): _path,
}

#: Namespace and endpoint -> what serves it.
CHANNELS: dict[tuple[str, str], ChannelHandler] = {
    ("files", "retrieve"): _retrieve,
    ("files", "parseDocument"): _parse,
}
