"""Texts are cut where readers would, and the nearest passages come first."""

from __future__ import annotations

import asyncio
import base64

import hypothesis
import pytest
from hypothesis import strategies

from lmstudio.server import retrieval
from lmstudio.server.engine import BadRequest
from lmstudio.server.failures import Failure
from lmstudio.server.files import File
from lmstudio.server.retrieval import Search, Settings, cosine, passages
from lmstudio.testing import FakeServer
from lmstudio.wire.common import KVConfig, KVField
from rawclient import raw_client

WORDS = ("cat", "dog", "sun")


class Embedder:
    """Embeds a text as how often each of a few words is in it."""

    def __init__(self):
        self.texts = []
        self.wait = None
        self.waiting = asyncio.Event()

    async def embed(self, text):
        self.texts.append(text)
        if self.wait is not None and len(self.texts) > 1:
            self.waiting.set()
            await self.wait.wait()
        return [float(text.count(word)) for word in WORDS]


def file(text, name="notes.txt", file_type="text/plain"):
    """An uploaded file."""
    content = text.encode() if isinstance(text, str) else text
    return File(name=name, identifier=name, file_type=file_type, content=content)


def config(**values):
    """Settings as they travel."""
    fields = [KVField(key=f"retrieval.{k}", value=v) for k, v in values.items()]
    return KVConfig(fields=fields)


def search(query, *files, model=None, **settings):
    """All packets of a search."""

    async def main():
        made = Search(files, model or Embedder(), Settings(**settings))
        return [packet async for packet in made.packets(query)]

    return asyncio.run(main())


def entries(packets):
    """The entries of the result."""
    assert "result" == packets[-1]["type"]
    return packets[-1]["result"]["entries"]


def test_passages_end_where_readers_would():
    """A paragraph is the best end, then a line, a sentence, a word."""
    assert ["one two", "three four"] == cut("one two\n\nthree four", 12)
    assert ["one two", "three four"] == cut("one two\nthree four", 12)
    assert ["one", "two three"] == cut("one\n\ntwo three", 12)
    assert ["One two.", "Three four"] == cut("One two. Three four", 12)
    assert ["one two", "three four"] == cut("one two three four", 10)
    assert ["abcd", "efgh", "ij"] == cut("abcdefghij", 4)
    assert [] == cut(" \n ", 4)


def cut(text, size, overlap=0):
    """The passages of a text."""
    return [text[begin:end] for begin, end in passages(text, size, overlap)]


def test_passages_overlap():
    """The beginning of a passage repeats whole words of the one before."""
    assert ["aa bb cc", "cc dd ee", "ee ff"] == cut("aa bb cc dd ee ff", 9, 3)


@pytest.mark.slow
@hypothesis.given(
    strategies.text("ab \n.", max_size=200),
    strategies.integers(1, 20),
    strategies.integers(0, 19),
)
def test_nothing_is_lost(text, size, overlap):
    """Every letter is in a passage, and none is longer than it may be."""
    spans = passages(text, size, min(overlap, size - 1))
    covered = {at for begin, end in spans for at in range(begin, end)}

    assert all(0 < end - begin <= size for begin, end in spans)
    assert [] == [c for at, c in enumerate(text) if at not in covered and c.strip()]
    assert sorted(spans) == spans


def test_too_many_passages(monkeypatch):
    """A text that would make too many passages is refused."""
    monkeypatch.setattr(retrieval, "MOST_PASSAGES", 3)
    with pytest.raises(BadRequest, match="more than 3 passages"):
        passages("abcdefgh", 2, 1)


def test_cosine():
    """The same direction is 1, another 0, and nothing is like a vector of zeros."""
    assert pytest.approx(1.0) == cosine([1.0, 2.0], [2.0, 4.0])
    assert 0.0 == cosine([1.0, 0.0], [0.0, 1.0])
    assert 0.0 == cosine([1.0, 0.0], [0.0, 0.0])


def test_packets_come_in_order():
    """Files, their steps and the search are told in the order of the protocol."""
    packets = search("cat", file("a cat"), file("a dog"))
    told = [
        tuple(p[k] for k in ("type", "index", "step") if k in p) for p in packets[:-1]
    ]
    steps = [
        (f"onFileProcessingStep{kind}", 1, step)
        for step in ("loading", "chunking", "embedding")
        for kind in ("Start", "Progress", "End")
        if kind != "Progress" or step == "embedding"
    ]

    assert {"type": "onFileProcessList", "indices": [0, 1]} == packets[0]
    assert [
        ("onFileProcessingStart", 1),
        *steps,
        ("onFileProcessingEnd", 1),
        ("onSearchingStart",),
        ("onSearchingEnd",),
    ] == told[-len(steps) - 4 :]


def test_nearest_first():
    """The answer has the nearest passages of all files, with score and place."""
    found = entries(
        search(
            "cat",
            file("The sun.\n\nA dog and a cat.\n\nA cat!"),
            file("cat dog sun"),
            chunk_size=18,
            chunk_overlap=0,
            limit=3,
        )
    )

    assert [
        ("A cat!", 0, 5, 1.0),
        ("A dog and a cat.", 0, 3, 0.7071),
        ("cat dog sun", 1, 1, 0.5774),
    ] == [
        (e["content"], e["sourceIndex"], e["lineNumber"], round(e["score"], 4))
        for e in found
    ]


def test_lines():
    """A passage over several lines tells the first and the last."""
    (entry,) = entries(search("cat", file("x\n\ncat\ncat\ny"), chunk_size=100))

    assert [1, 5] == entry["lineNumber"]


def test_limit_and_batches():
    """Equal passages keep their order; progress is told after each batch."""
    text = " ".join(["cat"] * 20)
    packets = search("cat", file(text), chunk_size=4, chunk_overlap=0, limit=2)
    progress = [p["progress"] for p in packets if "progress" in p]

    assert [0.4, 0.8, 1.0] == progress
    assert 2 == len(entries(packets))
    assert {"cat"} == {entry["content"] for entry in entries(packets)}


def test_no_files():
    """A search in nothing finds nothing."""
    assert [] == entries(search("cat"))
    assert [] == entries(search("cat", file("")))


def test_cancel():
    """A search that is closed leaves no embedding behind."""

    async def main():
        model = Embedder()
        model.wait = asyncio.Event()
        made = Search([file("cat " * 200)], model, Settings(chunk_size=8))

        async def run():
            async for _ in made.packets("cat"):
                pass

        task = asyncio.create_task(run())
        await model.waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return len(asyncio.all_tasks())

    assert 1 == asyncio.run(main())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, Settings()),
        ({"limit": 7.0, "embeddingModel": "m"}, Settings(limit=7, model="m")),
        ({"chunkingMethod": {"type": "recursive-v1"}}, Settings()),
        (
            {"chunkingMethod": {"chunkSize": 50}, "databaseFile": "x"},
            Settings(chunk_size=50, chunk_overlap=49),
        ),
        (
            {"chunkingMethod": {"chunkSize": 9, "chunkOverlap": 0}},
            Settings(chunk_size=9, chunk_overlap=0),
        ),
    ],
)
def test_settings(values, expected):
    """What is not given has the protocol's default."""
    assert expected == Settings.read(config(**values))


@pytest.mark.parametrize(
    "values",
    [
        *({"limit": 0}, {"limit": "5"}, {"limit": True}, {"embeddingModel": 5}),
        *({"chunkingMethod": "x"}, {"chunkingMethod": {"type": "other"}}),
        {"chunkingMethod": {"chunkSize": 0}},
        {"chunkingMethod": {"chunkSize": 5, "chunkOverlap": 5}},
    ],
)
def test_wrong_settings(values):
    """A setting that can't be used is refused with what would be right."""
    with pytest.raises(BadRequest):
        Settings.read(config(**values))


@pytest.mark.parametrize(
    ("file_type", "what"),
    [
        ("image", "an image"),
        ("application/pdf", "application/pdf"),
        ("unknown", "of no kind that is known"),
    ],
)
def test_only_text(file_type, what):
    """Other files than texts are refused, with what they are."""
    with pytest.raises(Failure, match=f"'x.bin' is {what}, and only text"):
        retrieval.text_of(file(b"x", "x.bin", file_type))


def test_encodings():
    """The mark at the beginning of a text is no part of it, and wrong bytes no end."""
    assert "é" == retrieval.text_of(file(b"\xef\xbb\xbf\xc3\xa9"))
    assert "a�" == retrieval.text_of(file(b"a\xff"))


@pytest.fixture
def fake():
    """A server with an embedding model that counts words."""
    with FakeServer(["any", "embedder"], loaded=["embedder"]) as server:
        yield server


@pytest.fixture
def raw(fake):
    """A bare client of its files."""
    with raw_client(f"ws://{fake.host}", "files") as client:
        yield client


def upload(raw, text, name="notes.txt"):
    """Hand over a file; returns its identifier."""
    content = base64.b64encode(text.encode() if isinstance(text, str) else text)
    parameter = {"name": name, "contentBase64": content.decode()}
    return raw.call("uploadFileBase64", parameter)["result"]["identifier"]


def retrieve(raw, *identifiers, **values):
    """All packets of a search, and its end."""
    fields = [{"key": f"retrieval.{k}", "value": v} for k, v in values.items()]
    parameter = {
        "query": "needle",
        "fileIdentifiers": [*identifiers],
        "config": {"fields": fields},
    }
    return raw.packets(raw.open("retrieve", parameter))


def test_retrieve(raw):
    """A client searches the files that it has uploaded."""
    first, second = upload(raw, "hay\n\nneedle"), upload(raw, "straw", "b.md")
    packets = retrieve(raw, first, second, embeddingModel="embedder", limit=1)

    assert "channelClose" == packets[-1]["type"]
    (entry,) = packets[-2]["result"]["entries"]
    assert {"content", "score", "sourceIndex", "lineNumber"} == set(entry)


@pytest.mark.parametrize(
    ("content", "values", "text"),
    [
        ("x", {"embeddingModel": "none"}, "No loaded model has identifier 'none'"),
        (b"%PDF-1.7", {}, "only text can be read"),
        ("x", {"limit": 0}, "limit must be from 1 to 1000, not 0"),
    ],
)
def test_retrieve_refuses(raw, content, values, text):
    """What can't be searched is told before anything is embedded."""
    (end,) = retrieve(raw, upload(raw, content), **values)

    assert text in end["error"]["title"]


def test_a_file_that_is_named_again():
    """The same file is read and embedded once, wherever it is in the list."""
    model, notes = Embedder(), file("cat")
    packets = search("cat", notes, notes, file("dog", "b.txt"), notes, model=model)

    assert ["cat", "cat", "dog"] == model.texts  # the question is the first
    assert [0, 2] == [entry["sourceIndex"] for entry in entries(packets)]
    ends = [p["index"] for p in packets if p["type"] == "onFileProcessingEnd"]
    assert [0, 1, 2, 3] == ends


def test_searches_have_a_size(raw, monkeypatch):
    """So many files, and bytes in them, are searched at once."""
    one = upload(raw, "hay")
    (end,) = retrieve(raw, *[one] * 1001, embeddingModel="embedder")
    assert "1000 files at most, not 1001" in end["error"]["title"]
    monkeypatch.setattr(retrieval, "MOST_BYTES", 5)
    assert "channelClose" == retrieve(raw, one, one)[-1]["type"]
    (end,) = retrieve(raw, one, upload(raw, "hay"))
    assert "5 bytes at most, not 6" in end["error"]["title"]


def test_files_of_others(raw):
    """A file that this client has not uploaded is not found."""
    (end,) = retrieve(raw, "1-notes.txt")

    assert {"code": "files.notFound"} == end["error"]["errorData"]


def test_stop(raw, fake, monkeypatch):
    """A client that stops a search is told so."""
    identifier = upload(raw, "text")

    async def packets(*_):
        yield {"type": "onFileProcessList", "indices": [0]}
        await asyncio.Event().wait()

    monkeypatch.setattr(Search, "packets", packets)
    parameter = {
        "query": "x",
        "fileIdentifiers": [identifier],
        "config": {"fields": []},
    }
    number = raw.open("retrieve", parameter)
    raw.receive()
    message = {"type": "stop"}
    raw.send({"type": "channelSend", "channelId": number, "message": message})
    (end,) = raw.packets(number)

    assert "The search was stopped" == end["error"]["title"]


def test_parse_document(raw):
    """A text is parsed into itself."""
    identifier = upload(raw, "# Title")
    parameter = {"fileIdentifier": identifier, "parseOpts": {}}
    packets = raw.packets(raw.open("parseDocument", parameter))
    parser = raw.call("getDocumentParsingLibrary", {"fileIdentifier": identifier})

    told = parser["result"]
    assert "lmstudio-text" == told["library"]
    assert [
        {"type": "parserLoaded", "parser": told},
        {"type": "progress", "progress": 1},
        {"type": "result", "content": "# Title", "parser": told},
    ] == packets[:-1]
    assert "channelClose" == packets[-1]["type"]


def test_parsers(raw):
    """A parser that is not there, and a document that none reads, are refused."""
    text, pdf = upload(raw, "x"), upload(raw, b"%PDF-1.7", "a.pdf")
    other = {"parserId": {"library": "other", "version": "1"}}
    for identifier, options, told in (
        (text, other, "This server has no parser 'other'"),
        (pdf, {}, "'a.pdf' is application/pdf, and only text can be read"),
        ("none", {}, "This client has uploaded no file 'none'"),
    ):
        parameter = {"fileIdentifier": identifier, "parseOpts": options}
        (end,) = raw.packets(raw.open("parseDocument", parameter))
        assert told == end["error"]["title"]
    error = raw.call("getDocumentParsingLibrary", {"fileIdentifier": pdf})["error"]
    assert {"code": "files.unsupported", "fileType": "application/pdf"} == error[
        "errorData"
    ]


def test_paths(raw):
    """Files have no path on this server's disk."""
    error = raw.call("getLocalFileAbsolutePath", {"fileName": "x"})["error"]

    assert {"code": "files.noPath"} == error["errorData"]
