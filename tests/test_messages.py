"""Histories in all the forms that users write them travel in one form."""

from __future__ import annotations

import json
from types import MappingProxyType

import pytest

from ids import stable
from lmstudio import LMStudioTypeError, LMStudioValueError
from lmstudio.messages import to_history
from lmstudio.result import fragment_from_wire
from lmstudio.wire.converter import unstructure
from lmstudio.wire.files import FileHandle
from lmstudio.wire.llm import Message, Part, ToolCallRequest


def wire(given):
    return unstructure(to_history(given))["messages"]


def text(role, *texts):
    return {"role": role, "content": [{"type": "text", "text": t} for t in texts]}


HI = [text("user", "Hi")]


@pytest.mark.parametrize(
    "given",
    [
        "Hi",
        fragment_from_wire({"content": "Hi"}),
        ["Hi"],
        [{"role": "user", "content": "Hi"}],
        ({"role": "user", "content": "Hi"},),
        ({"role": "user", "content": text} for text in ["Hi"]),
        [MappingProxyType({"role": "user", "content": "Hi"})],
        [("user", "Hi")],
        [["user", "Hi"]],
        [("user", ["Hi"])],
        [("user", {"type": "text", "text": "Hi"})],
        [("user", ({"type": "text", "text": t} for t in ["Hi"]))],
        [("user", [Part(type="text", text="Hi")])],
        [Message(role="user", content=[Part(type="text", text="Hi")])],
        to_history("Hi"),
        {"messages": [{"role": "user", "content": "Hi"}]},
        {"messages": ("Hi",), "model": "gpt"},
    ],
    ids=stable,
)
def test_forms(given):
    """All of these are one message of the user."""
    assert HI == wire(given)


def test_a_conversation():
    """Roles, also OpenAI's newer word, keep their order."""
    assert [
        text("system", "Be brief."),
        text("system", "Be kind."),
        text("user", "a", "b"),
        text("assistant", "c"),
        text("assistant", ""),
    ] == wire(
        [
            ("system", "Be brief."),
            {"role": "developer", "content": "Be kind."},
            {"role": "user", "content": ["a", "b"]},
            ("assistant", "c"),
            {"role": "assistant", "content": None},
        ]
    )


def test_calls_of_tools_as_openai_writes_them():
    """Calls and results keep their names, arguments and ids."""
    call = {"name": "add", "arguments": '{"a": 1}'}
    empty = {"name": "now", "arguments": ""}
    messages = [
        ("user", "1 + 1?"),
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "7", "type": "function", "function": call},
                {"function": {"name": "f", "arguments": {"b": 2}}},
                {"function": empty},
                {"function": {"name": "g"}},
            ],
        },
        {"role": "tool", "content": "2", "tool_call_id": "7"},
        {"role": "tool", "content": [{"type": "text", "text": "2"}, "3"]},
        ("tool", "4"),
    ]

    _, assistant, *results = wire(messages)

    assert [
        {"name": "add", "arguments": {"a": 1}, "id": "7", "type": "function"},
        {"name": "f", "arguments": {"b": 2}, "type": "function"},
        {"name": "now", "arguments": {}, "type": "function"},
        {"name": "g", "type": "function"},
    ] == [part["toolCallRequest"] for part in assistant["content"]]
    assert [
        {"type": "toolCallResult", "content": "2", "toolCallId": "7"},
        {"type": "toolCallResult", "content": "23"},
        {"type": "toolCallResult", "content": "4"},
    ] == [result["content"][0] for result in results]


def test_objects_of_openais_client():
    """A message of its client is taken for the mapping that it is."""
    function = {"name": "add", "arguments": "{}"}
    assistant = {"role": "assistant", "tool_calls": [{"function": function}]}

    [message] = to_history([Dumped(assistant)]).messages

    assert ["add"] == [call.name for call in message.tool_calls]


def test_messages_tell_what_they_hold():
    """Text, files, calls and results have names of their own."""
    handle = FileHandle(name="a", identifier="1", size_bytes=1, file_type="image")
    call = ToolCallRequest(name="add")
    asked = Part(type="toolCallRequest", tool_call_request=call)
    given = [("user", ["a", handle, "b"]), ("assistant", ["c", asked]), ("tool", "2")]

    user, assistant, tool = to_history(given).messages

    assert ("ab", [handle.to_part()]) == (user.text, user.files)
    assert ("c", [call]) == (assistant.text, assistant.tool_calls)
    assert ("", ["2"]) == (tool.text, [part.content for part in tool.tool_results])
    assert [[], [], []] == [user.tool_calls, user.tool_results, tool.files]


def test_messages_as_openai_exports_them():
    """What a model is not to read again is left out; a refusal is what it said."""
    empty = {"audio": None, "function_call": None, "tool_calls": None}
    said = {"role": "assistant", "content": "yes", "refusal": None, "annotations": []}
    refused = {"role": "assistant", "content": None, "refusal": "no", **empty}

    history = to_history(
        [
            {"role": "user", "content": "x", "name": "Ada"},
            {**said, **empty, "id": "7", "reasoning_content": "hm", "reasoning": None},
            refused,
        ]
    )
    assert ["x", "yes", "no"] == [message.text for message in history.messages]


def test_names_of_results():
    """OpenAI's older form says which tool it was."""
    given = [{"role": "tool", "content": "2", "tool_call_id": "7", "name": "add"}]

    [message] = wire(given)

    assert [
        {"type": "toolCallResult", "content": "2", "toolCallId": "7", "name": "add"}
    ] == message["content"]


def test_parts_as_they_travel():
    """Files, calls and results may be given in wire form."""
    file = {
        "type": "file",
        "name": "a.png",
        "identifier": "f1",
        "sizeBytes": 3,
        "fileType": "image",
    }
    request = {"name": "add", "arguments": {}, "type": "function"}
    call = {"type": "toolCallRequest", "toolCallRequest": request}
    result = {"type": "toolCallResult", "content": "2"}

    made = wire(
        [
            ("user", ["look", file]),
            {"role": "assistant", "content": "I add", "tool_calls": []},
            ("assistant", ["I add", call]),
            ("tool", [result, result]),
        ]
    )

    assert [{"type": "text", "text": "look"}, file] == made[0]["content"]
    assert [{"type": "text", "text": "I add"}, call] == made[2]["content"]
    assert [result, result] == made[3]["content"]


RIGHT = (
    'write a text, or a list of {"role": "user", "content": "..."} or ("user", "...")'
)
CALL = [{"function": {"name": "f"}}]


class Dumped:
    """An object as OpenAI's client has them."""

    def __init__(self, fields):
        self.fields = fields

    def __repr__(self):
        return "<Dumped>"

    def model_dump(self, exclude_none):
        assert exclude_none
        return self.fields


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (None, f"a history can't be read from None; {RIGHT}"),
        (7, f"a history can't be read from 7; {RIGHT}"),
        (b"Hi", f"a history can't be read from b'Hi'; {RIGHT}"),
        ([], f"the history has no messages; {RIGHT}"),
        ({}, f"a history can't be read from {{}}; {RIGHT}"),
        ({"messages": "Hi"}, f"a history can't be read from 'Hi'; {RIGHT}"),
        ({"messages": {"a": 1}}, f"a history can't be read from {{'a': 1}}; {RIGHT}"),
        ("a\ud800", "the message holds a lone surrogate"),
        (["Hi", 7], f"message 1 can't be read from 7; {RIGHT}"),
        ([("user",)], f"message 0 can't be read from ('user',); {RIGHT}"),
        ([{"role": "user"}], "message 0 needs a role and a content, not {'role'"),
        ([{"content": "Hi"}], "message 0 needs a role and a content, not {'cont"),
        (
            [("bot", "Hi")],
            "the role of message 0 must be one of system, user, assistant, tool,"
            " not 'bot'",
        ),
        ([([], "Hi")], "the role of message 0 must be one of"),
        ([("user", None)], "the content of message 0 must be text or a list of parts"),
        ([("user", 7)], "the content of message 0 must be text or a list of parts"),
        ([("user", b"x")], "the content of message 0 must be text or a list of parts"),
        ([("user", "\udfff")], "the content of message 0 holds a lone surrogate"),
        ([("user", ["\udfff"])], "part 0 of message 0 holds a lone surrogate"),
        ([("user", [7])], 'part 0 of message 0 must be a text or {"type": "text"'),
        (
            [("user", [{"type": "image_url", "image_url": {"url": "x"}}])],
            "the image_url of part 0 of message 0 must be a data URL, not 'x';",
        ),
        (
            [("user", [{"type": "image"}])],
            'part 0 of message 0 must be a text or {"type": "text", "text": "..."},',
        ),
        (
            [("user", [{"type": "text"}])],
            "the text of part 0 of message 0 must be text, not None",
        ),
        (
            [("user", [{"type": "file", "sizeBytes": "x"}])],
            "part 0 of message 0 is no file: ",
        ),
        (
            [("user", [{"type": "toolCallResult", "content": "x"}])],
            "a part of the type toolCallResult can't be in message 0, whose role is"
            " user",
        ),
        (
            [("tool", [{"type": "file"}])],
            "the name of part 0 of message 0 must be text, not None",
        ),
        (
            [
                (
                    "tool",
                    [
                        FileHandle(
                            name="a", identifier="1", size_bytes=1, file_type="image"
                        )
                    ],
                )
            ],
            "message 0 must hold results of tools, not file",
        ),
        ([("tool", None)], "the content of message 0 must be text or a list of parts"),
        (
            [{"role": "tool", "content": "x", "tool_call_id": 7}],
            "the tool_call_id of message 0 must be text, not 7",
        ),
        (
            [{"role": "user", "content": "x", "tool_calls": CALL}],
            "tool_calls of message 0 must be a list in a message of the assistant,",
        ),
        (
            [{"role": "assistant", "tool_calls": 7}],
            "tool_calls of message 0 must be a list in a message of the assistant,",
        ),
        ([{"role": "assistant", "tool_calls": [7]}], "a tool call of message 0 needs"),
        (
            [{"role": "assistant", "tool_calls": [{"function": {"name": 7}}]}],
            "a tool call of message 0 needs",
        ),
        (
            [{"role": "assistant", "tool_calls": [{"function": CALL, "id": 7}]}],
            "a tool call of message 0 needs",
        ),
        (
            [{"role": "assistant", "tool_calls": [{**CALL[0], "id": 7}]}],
            "the id of a tool call of message 0 must be text, not 7",
        ),
        ([("user", [])], "the content of message 0 has no parts; write a text"),
        ([("tool", [])], "the content of message 0 has no parts; write a text"),
        (
            [{"role": "tool", "content": "x", "name": 7}],
            "the name of message 0 must be text, not 7",
        ),
        ([Message(role="bot", content=[])], "the role of message 0 must be one of"),
        ([Message(role="user", content=[])], "the content of message 0 has no parts"),
        (
            [Message(role="user", content=[Part(type="text")])],
            "the text of part 0 of message 0 must be text, not None",
        ),
        (
            [Message(role="user", content=[Part(type="video")])],
            "part 0 of message 0 must be a text, a file, or the call or result of a",
        ),
        (
            [Message(role="user", content=["x", Part(type="toolCallRequest")])],
            "part 1 of message 0 has no tool_call_request",
        ),
        (
            [("user", [{"type": "image_url", "image_url": "data:,x", "name": 7}])],
            "the name of part 0 of message 0 must be text, not 7",
        ),
        (
            [("user", "a"), {"role": "user", "content": "x", "tool_cals": [1]}],
            "message 1 has the unknown key 'tool_cals'; did you mean 'tool_calls'?",
        ),
        (
            [{"role": "user", "contents": "x"}],
            "message 0 has the unknown key 'contents'; did you mean 'content'?",
        ),
        (
            [{"role": "user", "content": "x", "images": ["a"]}],
            "message 0 has the unknown key 'images'",
        ),
        (
            [{"role": "assistant", "content": "", "function_call": {"name": "f"}}],
            "function_call of message 0 is OpenAI's older form; write tool_calls",
        ),
        ([Dumped(7)], "message 0 can't be read from <Dumped>; "),
        ([Dumped({"role": "bot"})], "the role of message 0 must be one of"),
    ],
    ids=lambda value: str(value)[:40].encode("ascii", "replace").decode(),
)
def test_wrong_histories(given, error):
    """What can't be meant is refused, and the error says where it stands."""
    with pytest.raises(LMStudioValueError) as caught:
        to_history(given)
    assert str(caught.value).startswith(error), str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("{", "the arguments of a tool call of message 0 are no JSON: "),
        ("[1]", "the arguments of a tool call of message 0 must be an object, not [1]"),
        (7, "the arguments of a tool call of message 0 must be an object, not 7"),
    ],
)
def test_wrong_arguments_of_tools(arguments, error):
    """Arguments are an object, as text or as a mapping."""
    call = {"function": {"name": "f", "arguments": arguments}}
    with pytest.raises(LMStudioValueError) as caught:
        to_history([{"role": "assistant", "tool_calls": [call]}])
    assert str(caught.value).startswith(error)


def test_wrong_types_are_type_errors():
    """What has a wrong type may be caught as a TypeError."""
    for wrong in (7, [7]):
        with pytest.raises(LMStudioTypeError):
            to_history(wrong)


def test_long_histories():
    """Megabytes and thousands of messages are nothing special."""
    many = wire([("user", "x" * 1000)] * 5000)

    assert 5000 == len(many)
    assert 5_000_000 < len(json.dumps(many))
