"""Parts of messages are read from what users write, and checked."""

from __future__ import annotations

import pytest

from ids import stable
from lmstudio import FileHandle, LMStudioValueError, ToolCallRequest
from lmstudio.parts import (
    PendingImage,
    image_part,
    part_of,
    parts_of,
    request_part,
    result_part,
)
from lmstudio.wire.llm import Part

HANDLE = FileHandle(name="a.png", identifier="f1", size_bytes=3, file_type="image")
FILE = HANDLE.to_part()
TEXT = Part(type="text", text="Hi")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("Hi", [TEXT]),
        (TEXT, [TEXT]),
        ({"type": "text", "text": "Hi"}, [TEXT]),
        (HANDLE, [FILE]),
        (["Hi", HANDLE, FILE], [TEXT, FILE, FILE]),
        (iter(["Hi"]), [TEXT]),
        ([], []),
    ],
    ids=stable,
)
def test_contents(content, parts):
    """A content is a text, a part, or several of these."""
    assert parts == parts_of(content, "message 0")


def test_images():
    """An image that was prepared is a file; any other is read later."""
    assert FILE == image_part(HANDLE)
    pending = image_part(b"x", "a.png")
    assert PendingImage(type="file", file_type="image", name="a.png", source=b"x") == (
        pending
    )
    assert "b'x'" not in repr(pending)
    url = {"type": "image_url", "image_url": {"url": "DATA:,x"}, "name": "b.png"}
    assert ("DATA:,x", "b.png") == (part_of(url, "it").source, part_of(url, "it").name)


def test_both_spellings():
    """Fields are read in snake_case and as they travel."""
    for fields in (
        {"size_bytes": 3, "file_type": "image"},
        {"sizeBytes": 3, "fileType": "image"},
    ):
        given = {"type": "file", "name": "a.png", "identifier": "f1", **fields}
        assert FILE == part_of(given, "it")


def test_arguments_are_checked_and_copied():
    """What is kept is what JSON makes of them."""
    arguments = {"a": (1, 2)}
    made = request_part(ToolCallRequest(name="f", arguments=arguments), "it")

    assert {"a": [1, 2]} == made.tool_call_request.arguments


@pytest.mark.parametrize(
    ("read", "given", "error"),
    [
        (part_of, {"type": "file"}, "the name of it must be text, not None"),
        (part_of, {"type": "file", "name": 7}, "it is no file: "),
        (
            part_of,
            FileHandle(name="a", identifier=None, size_bytes=1, file_type="image"),
            "the identifier of it must be text, not None",
        ),
        (part_of, Part(type="toolCallResult"), "the content of it must be text"),
        (
            part_of,
            Part(type="toolCallResult", content="x", tool_call_id=7),
            "the tool_call_id of it must be text, not 7",
        ),
        (part_of, Part(type="x"), "it must be a text, a file, or the call or result"),
        (request_part, TEXT, "a tool call of it needs"),
        (request_part, {"type": "toolCallRequest"}, "a tool call of it has no"),
        (request_part, ToolCallRequest(name=7), "the name of a tool call of it must"),
        (
            request_part,
            ToolCallRequest(name="f", arguments=[1]),
            "the arguments of a tool call of it must be an object, not [1]",
        ),
        (
            request_part,
            ToolCallRequest(name="f", arguments={"x": object()}),
            "the arguments of a tool call of it are no JSON: ",
        ),
        (result_part, "2", 'it must be {"content": "...", "toolCallId": "..."}'),
        (result_part, TEXT, 'it must be {"content": "...", "toolCallId": "..."}'),
        (result_part, {"content": 2}, "it is no toolCallResult: "),
    ],
    ids=stable,
)
def test_what_is_wrong(read, given, error):
    """The error says what is wrong with which part."""
    with pytest.raises(LMStudioValueError) as caught:
        read(given, "it")
    assert str(caught.value).startswith(error), str(caught.value)
