"""Images from anything: told by their content, sent once, shown to models that see."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import threading
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest

import lmstudio
from lmstudio import (
    FileHandle,
    LMStudioClient,
    LMStudioFileTooLargeError,
    LMStudioOSError,
    LMStudioTypeError,
    LMStudioValueError,
)
from lmstudio.images import read_image
from lmstudio.messages import to_history
from lmstudio.parts import image_part
from lmstudio.testing import FakeServer
from schema import problems

#: The smallest PNG: one pixel.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJ"
    "RU5ErkJggg=="
)
#: Its name where it has none.
MADE_UP = f"image-{hashlib.sha256(PNG).hexdigest()[:8]}.png"
GIF = b"GIF89a\x01\x00\x01\x00\x00\x00\x00;"
URL = "data:image/png;base64," + base64.b64encode(PNG).decode()


class Pillow:
    """An image of Pillow, as far as anybody looks."""

    def save(self, file, format):  # the names are Pillow's
        assert "PNG" == format
        file.write(PNG)


class Broken:
    """An image that can't be saved."""

    def __repr__(self):
        return "<Image mode=F>"

    def save(self, file, format):  # the names are Pillow's
        raise OSError("cannot write mode F as PNG")


@pytest.fixture
def fake():
    """A server with a model that sees and one that does not."""
    models = ["any", "some-vision"]
    with FakeServer(models, loaded=models) as server:
        yield server


@pytest.fixture
def sees(client):
    """A handle of the model that sees."""
    return client.llm.get("some-vision")


@pytest.fixture
def path(tmp_path):
    """A file with a misleading name."""
    made = tmp_path / "cat.txt"
    made.write_bytes(PNG)
    return made


def uploads(fake):
    """What was uploaded so far: names and contents."""
    return [
        (sent["name"], base64.b64decode(sent["contentBase64"]))
        for sent in fake.parameters("uploadFileBase64")
    ]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (lambda path: str(path), "cat.txt"),
        (lambda path: path, "cat.txt"),
        (lambda path: path.open("rb"), "cat.txt"),
        (lambda path: PNG, MADE_UP),
        (lambda path: bytearray(PNG), MADE_UP),
        (lambda path: memoryview(PNG), MADE_UP),
        (lambda path: io.BytesIO(PNG), MADE_UP),
        (lambda path: URL, MADE_UP),
        (lambda path: URL.replace("+", "%2B"), MADE_UP),
        (lambda path: "DATA:," + quote_from_bytes(PNG), MADE_UP),
        (lambda path: Pillow(), MADE_UP),
    ],
    ids=range(11),
)
def test_sources(path, source, name):
    """Whatever holds an image is read; its name is the file's, or made up."""
    given = source(path)
    with given if isinstance(given, io.IOBase) else contextlib.nullcontext():
        image = read_image(given)

    assert PNG == image.content
    assert name == image.name


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        (b"Dear Sir", LMStudioValueError, "the image is text, not an image; images"),
        (b"%PDF-1.7", LMStudioValueError, "the image is PDF, not an image; images"),
        (b"\x00\x01", LMStudioValueError, "the image is of no kind that is known"),
        (b"<svg/>", LMStudioValueError, "the image is SVG, not an image; images"),
        (b"", LMStudioValueError, "the image is empty"),
        (7, LMStudioTypeError, "an image can't be read from 7; give a path"),
        (None, LMStudioTypeError, "an image can't be read from None; give a path"),
        (
            io.StringIO("x"),
            LMStudioTypeError,
            "must be read from a file in binary mode",
        ),
        ("no/where.png", LMStudioOSError, "'no/where.png' can't be read: No such file"),
        (Path("."), LMStudioOSError, "can't be read: Is a directory"),
        ("a\0b", LMStudioValueError, "can't be read: embedded null"),
        ("https://x.y/z.png", LMStudioValueError, "not fetched from the network"),
        ("data:image/png;base64", LMStudioValueError, "has no comma"),
        ("data:image/png;base64,%%%", LMStudioValueError, "is no base64"),
        ("data:,", LMStudioValueError, "the image is empty"),
        (Broken(), LMStudioValueError, "<Image mode=F> can't be saved as PNG: OSError"),
    ],
)
def test_what_is_no_image(source, error, words):
    """The error says what it is instead, and what would be right."""
    with pytest.raises(error) as got:
        read_image(source)

    assert error is type(got.value)
    assert words in str(got.value)


def test_the_name_is_in_the_error(path):
    """Which of many files it was."""
    path.write_text("Dear Sir")

    with pytest.raises(LMStudioValueError, match=r"^the image 'cat\.txt' is text, not"):
        read_image(path)
    with pytest.raises(LMStudioValueError, match=r"^the image 'letter' is text, not"):
        read_image(path, "letter")
    with pytest.raises(LMStudioValueError, match="the name of an image must be"):
        read_image(path, "")


def test_a_handle(fake, client, path):
    """Preparing an image gives the fields that messages name it by."""
    handle = client.prepare_image(path)

    assert FileHandle is type(handle)
    assert ("cat.txt", "image", len(PNG), "file") == (
        handle.name,
        handle.file_type,
        handle.size_bytes,
        handle.type,
    )
    assert handle.is_image
    assert [("cat.txt", PNG)] == uploads(fake)


def test_each_content_is_sent_once(fake, client, path):
    """The same image again is no traffic, whatever it is called and comes from."""
    first = client.files.prepare_image(path)
    again = client.files.prepare_image(PNG, "other name")
    other = client.files.prepare_image(GIF)

    assert first.identifier == again.identifier
    assert "other name" == again.name
    assert first.identifier != other.identifier
    assert [PNG, GIF] == [content for _, content in uploads(fake)]
    with LMStudioClient(fake.host) as another:
        another.prepare_image(PNG)
    assert 3 == len(uploads(fake))


def test_a_new_connection_sends_again(fake, client):
    """A server that went away may have forgotten the file."""
    client.prepare_image(PNG)
    fake.drop_connections()
    client.llm.list_loaded()
    while client._session._connections["files"].is_usable:
        threading.Event().wait(0.001)
    client.prepare_image(PNG)

    assert 2 == len(uploads(fake))


def test_a_file_that_is_too_large(fake, client):
    """The server's limit is a typed error with the numbers."""
    fake._service.files._largest_file = len(PNG) - 1
    with pytest.raises(LMStudioFileTooLargeError, match="is too large") as got:
        client.prepare_image(PNG)

    assert isinstance(got.value, ValueError)
    assert {"sizeBytes": len(PNG), "limitBytes": len(PNG) - 1} == got.value.details


def test_a_model_that_sees(fake, client, sees):
    """A prepared image travels as a part of the message."""
    handle = client.prepare_image(PNG, "cat.png")
    fake.reply("A cat.")
    message = {"role": "user", "content": [handle, "What is this?"]}

    assert "A cat." == sees.respond([message]).content
    (sent,) = fake.parameters("predict")
    part = {
        "type": "file",
        "name": "cat.png",
        "identifier": handle.identifier,
        "sizeBytes": len(PNG),
        "fileType": "image",
    }
    text = {"type": "text", "text": "What is this?"}
    assert [part, text] == sent["history"]["messages"][0]["content"]
    assert [] == problems("llm/channel/predict/creationParameter", sent)
    (upload,) = fake.parameters("uploadFileBase64")
    assert [] == problems("files/rpc/uploadFileBase64/parameter", upload)


@pytest.mark.parametrize("form", [lambda url: url, lambda url: {"url": url}])
def test_images_as_openai_writes_them(fake, sees, form):
    """A data URL in a message is uploaded on the way, once for each content."""
    part = {"type": "image_url", "image_url": form(URL)}
    text = {"type": "text", "text": "Look"}
    history = [{"role": "user", "content": [text, part, part]}]
    sees.respond(history).result()
    sees.respond(history).result()

    assert 1 == len(uploads(fake))
    parts = fake.parameters("predict")[0]["history"]["messages"][0]["content"]
    assert ["text", "file", "file"] == [part["type"] for part in parts]
    assert parts[1] == parts[2]
    assert {"type", "name", "identifier", "sizeBytes", "fileType"} == {*parts[1]}


def test_images_of_a_history_are_read_before_any_is_sent(fake, sees):
    """One that is none fails, with its place, and nothing was sent."""
    bad = "data:text/plain,Dear%20Sir"
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in (URL, bad)]
    with pytest.raises(LMStudioValueError) as got:
        sees.respond(["Hi", {"role": "user", "content": parts}])

    assert str(got.value).startswith("part 1 of message 1: the image is text, not an")
    assert [] == uploads(fake) + fake.parameters("predict")


@pytest.mark.parametrize("url", ["/etc/passwd", "https://x.y/z.png", 7, None])
def test_a_history_names_no_files_of_this_machine(url):
    """Who writes a history must not choose what is read here."""
    part = {"type": "image_url", "image_url": {"url": url}}
    with pytest.raises(LMStudioValueError, match="must be a data URL, not"):
        to_history([{"role": "user", "content": [part]}])


@pytest.mark.parametrize("ask", ["respond", "apply_prompt_template"])
def test_a_model_without_vision_is_not_shown_images(fake, client, ask):
    """The error comes before an image is sent, and names the model."""
    blind = client.llm.get(path="testing/any-GGUF")
    part = {"type": "image_url", "image_url": {"url": URL}}
    with pytest.raises(LMStudioValueError, match=r"^the model 'any' takes no images"):
        getattr(blind, ask)([{"role": "user", "content": [part]}])

    assert [] == uploads(fake) + fake.parameters("predict")


def test_images_only_where_they_can_be():
    """A part with an image fits messages of users, not results of tools."""
    with pytest.raises(
        LMStudioValueError, match="must hold results of tools, not file"
    ):
        to_history([{"role": "tool", "content": [image_part(PNG)]}])


def test_a_template_with_images(fake, sees):
    """The text for the model is made of the same history as a prediction."""
    part = {"type": "image_url", "image_url": {"url": URL}}

    assert "Look" == sees.apply_prompt_template([("user", ["Look", part])])
    assert 1 == len(uploads(fake))


def test_the_function_of_the_default_client(fake, monkeypatch):
    """The official snippet: an image without a client of one's own."""
    monkeypatch.setenv("LMSTUDIO_HOST", fake.host)
    monkeypatch.setattr("lmstudio.default._client", None)
    try:
        assert "cat.png" == lmstudio.prepare_image(PNG, "cat.png").name
    finally:
        lmstudio.get_default_client().close()
