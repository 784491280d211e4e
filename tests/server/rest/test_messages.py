"""OpenAI's messages become a history, and errors say where they are wrong."""

from __future__ import annotations

import base64

import pytest

from lmstudio.server.clients import Client
from lmstudio.server.failures import Failure
from lmstudio.server.files import Files
from lmstudio.server.rest.errors import RestError
from lmstudio.server.rest.messages import messages_of, parts_of, upload
from lmstudio.wire.llm import Message, Part, ToolCallRequest

PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n and so on").decode()
URL = f"data:image/png;base64,{PIXEL}"
CALL = {
    "id": "1",
    "type": "function",
    "function": {"name": "f", "arguments": '{"a":1}'},
}


def text(value):
    """A part that is text."""
    return Part(type="text", text=value)


def test_roles_and_texts():
    """Every role becomes one of ours, and parts stay in order."""
    given = [
        {"role": "system", "content": "a"},
        {"role": "developer", "content": "b"},
        {"role": "user", "content": [{"type": "text", "text": x} for x in "cd"]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "e"}]},
    ]
    assert [
        Message(role="system", content=[text("a")]),
        Message(role="system", content=[text("b")]),
        Message(role="user", content=[text("c"), text("d")]),
        Message(role="assistant", content=[text("e")]),
    ] == messages_of(given)


def test_calls_and_results():
    """Calls of tools and what came of them travel on."""
    given = [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "1", "content": "5"},
    ]
    request = ToolCallRequest(id="1", name="f", arguments={"a": 1})
    result = Part(type="toolCallResult", tool_call_id="1", content="5")
    assert [
        Message(
            role="assistant",
            content=[Part(type="toolCallRequest", tool_call_request=request)],
        ),
        Message(role="tool", content=[result]),
    ] == messages_of(given)


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (5, ""),
        ({"content": "x"}, ".role"),
        ({"role": "robot", "content": "x"}, ".role"),
        ({"role": "user"}, ".content"),
        ({"role": "user", "content": 5}, ".content"),
        ({"role": "user", "content": ["x"]}, ".content[0]"),
        ({"role": "user", "content": [{"type": "audio"}]}, ".content[0].type"),
        ({"role": "user", "content": [{"type": "text"}]}, ".content[0].text"),
        ({"role": "user", "content": "\ud800"}, ".content"),
        ({"role": "user", "content": "x", "tool_calls": [CALL]}, ".tool_calls"),
        ({"role": "tool", "content": "x"}, ".tool_call_id"),
        ({"role": "assistant", "tool_calls": [{"id": "1"}]}, ".tool_calls[0].function"),
        (
            {
                "role": "assistant",
                "tool_calls": [
                    {"id": "1", "function": {"name": "f", "arguments": "["}}
                ],
            },
            ".tool_calls[0].function.arguments",
        ),
        (
            {
                "role": "assistant",
                "tool_calls": [
                    {"id": "1", "function": {"name": "f", "arguments": "5"}}
                ],
            },
            ".tool_calls[0].function.arguments",
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {}}]},
            ".content[0].image_url.url",
        ),
        (
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "http://x/y"}}],
            },
            ".content[0].image_url.url",
        ),
        (
            {
                "role": "system",
                "content": [{"type": "image_url", "image_url": {"url": URL}}],
            },
            ".content[0].type",
        ),
    ],
)
def test_errors_say_where(message, param):
    """The place of what is wrong is in the error."""
    fine = {"role": "user", "content": "x"}
    with pytest.raises(RestError) as caught:
        messages_of([fine, message])
    assert f"messages[1]{param}" == caught.value.param
    assert caught.value.title.startswith(f"messages[1]{param}")


def images(url):
    """The messages of a request that shows an image."""
    part = {"type": "image_url", "image_url": {"url": url, "detail": "low"}}
    return messages_of([{"role": "user", "content": [part]}])


def test_images_are_uploaded():
    """A data URL becomes a file of the request."""
    files, client = Files(), Client("x", "")
    (part,) = upload(images(URL), files, client).messages[0].content
    assert ("file", "image") == (part.type, part.file_type)
    file = files.find(client, part.identifier)
    assert base64.b64decode(PIXEL) == file.content
    files.release(client)
    assert files.find(client, part.identifier) is None


@pytest.mark.parametrize(
    ("data", "kind", "text"),
    [
        ("*", RestError, "no base64"),
        (base64.b64encode(b"plain text").decode(), RestError, "holds no image"),
        (base64.b64encode(b"\x89PNG\r\n\x1a\n" * 9).decode(), Failure, "too large"),
    ],
)
def test_images_that_are_none(data, kind, text):
    """What is no image, or too large, is refused."""
    files = Files(largest_file=50)
    with pytest.raises(kind, match=text):
        upload(images(f"data:image/png;base64,{data}"), files, Client("x", ""))


def test_responses_name_images_by_the_url_itself():
    """In responses the URL stands where chat completions have an object."""
    (part,) = parts_of([{"type": "input_image", "image_url": URL}], "input")
    assert URL == part.identifier
