"""What differs from run to run has the same mark in every recording."""

from __future__ import annotations

import base64
from pathlib import Path

from lmstudio.testing.redaction import Redactor


def test_ids_are_numbered_by_kind():
    """The same id has the same mark wherever it stands, and text has none."""
    redactor = Redactor()
    call = {"type": "function", "name": "add", "id": "77"}
    first = redactor.redacted({"instanceReference": "x1", "text": "x1", "call": call})
    second = redactor.redacted([{"instanceReference": "x2"}, {"toolCallId": "77"}])
    assert {
        "instanceReference": "instance-1",
        "text": "x1",
        "call": {**call, "id": "tool-call-1"},
    } == first
    assert [
        {"instanceReference": "instance-2"},
        {"toolCallId": "tool-call-1"},
    ] == second


def test_files():
    """Uploads are named by marks, and their content is a hash with its size."""
    redactor = Redactor()
    content = base64.b64encode(b"abc").decode()
    upload = redactor.redacted({"name": "a.txt", "contentBase64": content})
    assert upload["contentBase64"].endswith(", 3 bytes")
    assert upload == redactor.redacted(upload)
    answer = {"identifier": "1-f.png", "fileType": "image"}
    part = {"type": "file", "identifier": "1-f.png"}
    assert ["file-1", "file-1"] == [
        redactor.redacted(message)["identifier"] for message in (answer, part)
    ]
    asked = redactor.redacted({"fileIdentifiers": ["1-f.png", "2-f.png"]})
    assert {"fileIdentifiers": ["file-1", "file-2"]} == asked
    assert "any" == redactor.redacted({"identifier": "any"})["identifier"]


def test_texts():
    """Secrets, hosts and the home folder are replaced in the middle of texts."""
    redactor = Redactor()
    redactor.hide("secret-part", "<token>")
    redactor.hide("the-secret-part-and-more", "<whole>")
    redactor.hide("short", "<never>")
    text = f"{Path.home()}/a, the-secret-part-and-more, secret-part, short"
    assert ["<home>/a, <whole>, <token>, short"] == redactor.redacted([text])


def test_marks_of_a_recording():
    """Marks that are taken are not given again, and stand for the ids of this run."""
    redactor = Redactor()
    recorded = {
        "a": {"instanceReference": "instance-3"},
        "b": {"toolCallId": "tool-call-1"},
    }
    redactor.know(recorded)
    assert recorded == redactor.redacted(recorded)
    live = {"a": {"instanceReference": "xyz"}, "b": {"toolCallId": "9"}}
    redactor.pair(recorded, live)
    assert recorded["a"] == redactor.redacted(live["a"])
    assert {"a": live["a"], "b": recorded["b"]} == redactor.restored(recorded)
    new = redactor.redacted({"instanceReference": "new"})
    assert {"instanceReference": "instance-4"} == new
