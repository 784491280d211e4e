"""Conversations survive the way into other forms and back."""

from __future__ import annotations

import base64
import json
import os
import re
import stat
import threading

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmstudio import (
    Chat,
    FileHandle,
    LMStudioOSError,
    LMStudioTypeError,
    LMStudioValueError,
    ToolCallRequest,
    transcripts,
)
from lmstudio.messages import to_history
from lmstudio.wire.converter import structure, unstructure
from lmstudio.wire.llm import History, Message, Part

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJ"
    "RU5ErkJggg=="
)
GIF = b"GIF89a\x01\x00\x01\x00\x00\x00\x00;"
HANDLE = FileHandle(name="a.png", identifier="f1", size_bytes=3, file_type="image")

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2)
    ),
    max_leaves=4,
)
CALLS = st.builds(
    ToolCallRequest,
    name=TEXTS,
    arguments=st.dictionaries(TEXTS, JSON, max_size=2),
    id=st.none() | TEXTS,
)
ROLES = st.lists(st.sampled_from(("system", "user", "assistant", "tool")), max_size=5)
some = hypothesis.settings(max_examples=40)


@st.composite
def chats(draw, handles, results_in_one=True):
    """Conversations of all kinds of messages."""
    chat = Chat()
    for role in draw(ROLES):
        texts = draw(st.lists(TEXTS, min_size=1, max_size=3))
        if role == "user":
            images = draw(st.lists(st.sampled_from([PNG, GIF]), max_size=2))
            chat.add_user_message(texts, images=images, files=handles)
        elif role == "assistant":
            chat.add_assistant_response(texts, draw(st.lists(CALLS, max_size=2)))
        elif role == "tool":
            count = draw(st.integers(1, 3 if results_in_one else 1))
            chat.add_tool_results(
                Part(
                    type="toolCallResult",
                    content=draw(TEXTS),
                    tool_call_id=draw(st.none() | TEXTS),
                    name=draw(st.none() | TEXTS),
                )
                for _ in range(count)
            )
        else:
            chat.add_entry(role, texts)
    return chat


@pytest.mark.slow
@some
@given(chats([HANDLE]))
def test_to_json_and_back(chat):
    """Every message, part, name and image is there again."""
    assert chat == Chat.from_history(json.loads(chat.to_json()))
    assert chat == Chat.from_history(chat.to_dict())


@pytest.mark.slow
@some
@given(chats([HANDLE]))
def test_saved_and_loaded(tmp_path_factory, chat):
    """A file has all that the chat has."""
    path = tmp_path_factory.mktemp("chats") / "chat.json"
    chat.save(path)
    assert chat == Chat.load(path)


@pytest.mark.slow
@some
@given(chats([], results_in_one=False))
def test_to_openai_and_back(chat):
    """OpenAI's form keeps all but the names of images."""
    messages = chat.to_openai()
    assert messages == json.loads(json.dumps(messages))

    again = Chat.from_openai(messages)

    assert messages == again.to_openai()
    assert str(chat).count("[image") == str(again).count("[image")
    if not any(message.files for message in chat):
        assert chat == again


@pytest.mark.slow
@some
@given(chats([HANDLE]))
def test_over_the_wire_and_back(chat):
    """What travels is read by a server as the same messages."""
    texts = [message for message in chat if message.role != "user"]
    history = History(messages=texts)
    assert history == structure(unstructure(history), History, "predict")
    if len(chat):
        assert chat.to_history() == to_history(chat)


@pytest.mark.slow
@some
@given(chats([HANDLE]))
def test_shown_to_people(chat):
    """Text, line and HTML can be made of every chat, and HTML holds no markup of it."""
    assert "\n" not in repr(chat)
    html = chat._repr_html_()
    html.encode()
    rest = html.replace("<div>", "").replace("</div>", "").replace("<b>", "")
    rest = rest.replace("</b>", "").replace("<i>", "").replace("</i>", "")
    rest = re.sub(r'<div style="[^"<>]*">', "", rest)
    assert "<" not in rest
    assert str(chat).count("\n") >= len(chat) - 1


def test_openais_form():
    """Images are data URLs, arguments are text, each result is a message."""
    chat = Chat("Be brief.")
    chat.add_user_message("Look.", images=[PNG])
    call = ToolCallRequest(name="add", arguments={"ä": 1}, id="7")
    chat.add_assistant_response([], [call])
    chat.add_assistant_response("", [call])
    chat.add_tool_results([{"content": "1", "toolCallId": "7"}, "2"])
    function = {"name": "add", "arguments": '{"ä": 1}'}
    calls = [{"id": "7", "type": "function", "function": function}]
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()

    assert [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look."},
                {"type": "image_url", "image_url": {"url": url}},
            ],
        },
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": "1", "tool_call_id": "7"},
        {"role": "tool", "content": "2"},
    ] == chat.to_openai()


def test_files_of_the_server_have_no_form_of_openai():
    """Only the server has their content, and the error says which file it is."""
    chat = Chat("Be brief.")
    chat.add_user_message("Look.", files=[HANDLE])

    with pytest.raises(LMStudioValueError) as caught:
        chat.to_openai()

    assert str(caught.value).startswith("part 1 of message 1 is the file 'a.png', and ")


def test_the_form_of_a_saved_chat(tmp_path):
    """It says what it is and which version, and can be read and edited by people."""
    path = tmp_path / "chat.json"
    Chat.from_history("Grüß Gott 🦙").save(path)

    text = path.read_text("utf-8")

    assert "Grüß Gott 🦙" in text
    assert text.endswith("}\n")
    assert {
        "format": "lmstudio-chat",
        "version": 1,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Grüß Gott 🦙"}]}
        ],
    } == json.loads(text)


def test_a_saved_chat_is_replaced_at_once(tmp_path):
    """Whoever reads while others write finds one of the chats, whole."""
    path = tmp_path / "chat.json"
    whole = [Chat.from_history([name * 1000]) for name in "ab"]
    whole[0].save(path)

    def write():
        for n in range(30):
            whole[n % 2].save(path)

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        assert Chat.load(path) in whole
    writer.join()

    assert ["chat.json"] == os.listdir(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="Windows has neither")
def test_links_and_modes_stay(tmp_path):
    """A link leads to the new chat, and who may read it stays as it was."""
    path, link = tmp_path / "chat.json", tmp_path / "link.json"
    Chat("a").save(path)
    path.chmod(0o600)
    link.symlink_to(path)

    Chat("b").save(link)

    assert link.is_symlink()
    assert "b" == Chat.load(path).system_prompt
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


def test_what_can_not_be_written(tmp_path, monkeypatch):
    """The error says which file; an old one is whole, and no draft is left."""
    chat = Chat("a")
    with pytest.raises(LMStudioOSError) as caught:
        chat.save(tmp_path / "nowhere" / "chat.json")
    assert str(caught.value).startswith("the chat can't be written to '")
    assert isinstance(caught.value, OSError)

    path = tmp_path / "chat.json"
    chat.save(path)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transcripts.os, "fsync", full)
    with pytest.raises(LMStudioOSError, match="No space left on device"):
        Chat("b").save(path)
    assert chat == Chat.load(path)
    assert ["chat.json"] == os.listdir(tmp_path)


@pytest.mark.parametrize("wrong", [7, None, 1.5])
def test_what_is_no_path(wrong):
    """A number would be taken as an open file."""
    for use in (Chat("a").save, Chat.load):
        with pytest.raises(LMStudioTypeError, match="a path must be text or a Path"):
            use(wrong)


def test_a_path_with_a_zero_byte():
    """No file has such a name."""
    with pytest.raises(LMStudioValueError, match="is no path: "):
        Chat("a").save("a\0b")
    with pytest.raises(LMStudioValueError, match="is no saved chat: "):
        Chat.load("a\0b")


HI = [{"role": "user", "content": "Hi"}]


def saved(version):
    return json.dumps({"format": "lmstudio-chat", "version": version, "messages": HI})


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "is no saved chat: Expecting value"),
        (b"\xff\xfe", "is no saved chat: 'utf-8' codec can't decode"),
        (b"[" * 100_000, "is no saved chat: "),
        (b"[]", 'is no saved chat: it has no "format": "lmstudio-chat". '),
        (
            json.dumps({"messages": HI}),
            'is no saved chat: it has no "format": "lmstudio-chat". ',
        ),
        (
            saved(2),
            "is a saved chat of version 2; this package reads versions up to 1",
        ),
        (
            saved(True),
            "is a saved chat of version True; ",
        ),
        ('{"format": "lmstudio-chat"}', "is a saved chat of version None; "),
        (
            '{"format": "lmstudio-chat", "version": 1}',
            ": a history can't be read from None; ",
        ),
        (
            '{"format": "lmstudio-chat", "version": 1, "messages": [7]}',
            ": message 0 can't be read from 7; ",
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_wrong_files(tmp_path, content, error):
    """A file that is no saved chat is told apart, and the error names it."""
    path = tmp_path / "chat.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(LMStudioValueError) as caught:
        Chat.load(path)

    message = str(caught.value).removeprefix(repr(str(path))).lstrip()
    assert message.startswith(error), str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    """It is an error of the operating system."""
    with pytest.raises(LMStudioOSError, match=r"can't be read from '.*': No such file"):
        Chat.load(tmp_path / "chat.json")


def test_html_shows_the_end():
    """A long conversation is cut: at its beginning, and in each text."""
    chat = Chat.from_history([f"message {n}: " + "x" * 3000 for n in range(50)])

    html = chat._repr_html_()

    assert "<i>… 30 earlier</i>" in html
    assert "message 29:" not in html
    assert "message 30:" in html
    assert "message 49:" in html
    assert len(html) < 50_000


def test_lone_surrogates_are_shown():
    """A message that was made past all checks does not break the page."""
    message = Message(role="user", content=[Part(type="text", text="a\ud800")])
    assert "a?" in transcripts.as_html([message])
