"""Uploaded files stay with their client, within limits, and are checked in messages."""

from __future__ import annotations

import base64

import pytest

from lmstudio.errors import CODES, LMStudioFileTooLargeError
from lmstudio.server.clients import Client
from lmstudio.server.engine import BadRequest
from lmstudio.server.failures import Failure
from lmstudio.server.files import Files
from lmstudio.testing.engine import scripted_model
from rawclient import texts
from schema import problems
from server.benches import code_of, on_a_bench

PNG = b"\x89PNG\r\n\x1a\n"


def coded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def image(identifier, **fields):
    """A message that shows a file."""
    part = {
        "type": "file",
        "name": "cat.png",
        "identifier": identifier,
        "sizeBytes": 8,
        "fileType": "image",
        **fields,
    }
    text = {"type": "text", "text": "What is this?"}
    return {"messages": [{"role": "user", "content": [part, text]}]}


@on_a_bench
async def test_a_file_is_kept_until_its_client_goes(bench):
    """The last socket of a client takes its files along, not the one they came on."""
    socket = await bench.another("files")
    parameter = {"name": "cat.png", "contentBase64": coded(PNG)}
    assert [] == problems("files/rpc/uploadFileBase64/parameter", parameter)
    result = (await socket.call("uploadFileBase64", parameter))["result"]
    client = socket.peer._context.client
    await socket.peer.ended()

    assert {"identifier": "1-cat.png", "fileType": "image", "sizeBytes": 8} == result
    assert [] == problems("files/rpc/uploadFileBase64/returns", result)
    assert PNG == bench.service.files.find(client, "1-cat.png").content

    await bench.socket.peer.ended()

    assert bench.service.files.find(client, "1-cat.png") is None


def test_each_content_is_kept_once():
    """The same content again has a new identifier, and shares the memory."""
    files, client = Files(most_bytes=len(PNG)), Client("me", "key")
    first, again = (files.add(client, "a.png", coded(PNG)) for _ in range(2))

    assert ["1-a.png", "2-a.png"] == [first.identifier, again.identifier]
    assert first.content is again.content
    assert again is files.find(client, "2-a.png")


def test_a_client_has_so_many_files():
    """However small they are; those of others don't count, nor do long names."""
    files, client = Files(most_files=2), Client("me", "key")
    longest = files.add(client, "n" * 10**6, coded(PNG))
    files.add(client, "a.png", coded(PNG))
    with pytest.raises(Failure, match="may have 2 files, and this one has") as caught:
        files.add(client, "a.png", coded(PNG))

    assert {"code": "files.tooMany", "limit": 2} == caught.value.data
    assert 1000 == len(longest.name)
    assert files.add(Client("you", "key"), "a.png", coded(PNG))


def test_a_file_belongs_to_one_client():
    """Nobody else can name it."""
    files, mine, yours = Files(), Client("me", "key"), Client("you", "key")
    file = files.add(mine, "a.png", coded(PNG))

    assert file is files.find(mine, file.identifier)
    assert files.find(yours, file.identifier) is None


@pytest.mark.parametrize(
    ("sizes", "cause"),
    [
        ((9,), "It makes 9 bytes, and one file may have 8"),
        ((1000,), "It makes 1000 bytes, and one file may have 8"),
        ((8, 7, 6), "It makes 21 bytes, and all files of a client may have 20"),
    ],
)
def test_limits(sizes, cause):
    """Too much is refused with its size and the limit; what fits exactly is not."""
    files, client = Files(largest_file=8, most_bytes=20), Client("me", "key")
    for size in sizes[:-1]:
        files.add(client, "fits", coded(b"x" * size))

    with pytest.raises(Failure) as caught:
        files.add(client, "big", coded(b"x" * sizes[-1]))

    assert "'big' is too large" == caught.value.title
    assert cause == caught.value.cause
    assert LMStudioFileTooLargeError is CODES[caught.value.data["code"]]
    assert files.add(Client("you", "key"), "fits", coded(b"x" * 8))


@pytest.mark.parametrize("content", ["a", "ab=c", "a_b-", "äöü=", "\ud800abc"])
def test_what_is_no_base64_is_refused(content):
    """The error says which file it is."""
    with pytest.raises(BadRequest, match=r"'x\.png' is no base64"):
        Files().add(Client("me", "key"), "x.png", content)


@pytest.mark.parametrize(
    ("file_type", "words"),
    [("image", "takes no images"), ("text/plain", "takes no files")],
)
@on_a_bench
async def test_a_model_without_vision_refuses_files(bench, file_type, words):
    """The error names the message, the model and the file."""
    await bench.socket.load()
    history = image("1-cat.png", fileType=file_type)
    (end,) = await bench.socket.predict("", history=history)

    assert "channelError" == end["type"]
    title = f"Message 0: the model any {words}, and the message holds 'cat.png'"
    assert title == end["error"]["title"]
    assert "unsupportedContent" == code_of(end)


@on_a_bench
async def test_a_model_with_vision_wants_files_that_are_there(bench):
    """A file of this client is taken; any other name is an error that says so."""
    bench.service.registry.models.models.append(scripted_model("some-vision"))
    await bench.socket.load(modelKey="some-vision")
    upload = await bench.another("files")
    parameter = {"name": "cat.png", "contentBase64": coded(PNG)}
    identifier = (await upload.call("uploadFileBase64", parameter))["result"][
        "identifier"
    ]
    bench.reply("A cat.")

    good = await bench.socket.predict("", history=image(identifier))
    (bad,) = await bench.socket.predict("", history=image("2-dog.png"))

    assert ["A cat."] == texts(good[:-1])
    assert "files.notFound" == code_of(bad)
    assert "'2-dog.png'" in bad["error"]["title"]


@on_a_bench
async def test_infos_say_who_has_vision(bench):
    """The info of a model has it, and a query can ask for it."""
    bench.service.registry.models.models.append(scripted_model("some-vision"))
    await bench.socket.load()
    await bench.socket.load(modelKey="some-vision")
    loaded = (await bench.socket.call("listLoaded"))["result"]
    specifier = {"type": "query", "query": {"vision": True}}
    parameter = {"specifier": specifier, "throwIfNotFound": True}
    found = (await bench.socket.call("getModelInfo", parameter))["result"]

    assert [False, True] == [info["vision"] for info in loaded]
    assert "some-vision" == found["identifier"]
