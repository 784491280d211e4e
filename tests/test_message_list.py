"""A list of messages behaves like a list, and takes only messages."""

from __future__ import annotations

import copy
from collections.abc import MutableSequence

import pytest

from ids import stable
from lmstudio import Chat, LMStudioTypeError, LMStudioValueError, ToolCallRequest
from lmstudio.messages import to_history


@pytest.fixture
def chat():
    """Four messages of the user: a, b, c, d."""
    return Chat.from_history(list("abcd"))


def texts(messages):
    return "".join(message.text for message in messages)


def test_reading(chat):
    """Length, index, slice, search and iteration are those of a list."""
    assert isinstance(chat, MutableSequence)
    assert 4 == len(chat)
    assert ("user", "a") == (chat[0].role, chat[0].text)
    assert "d" == chat[-1].text
    assert "bc" == texts(chat[1:3])
    assert "dcba" == texts(chat[::-1]) == texts(reversed(chat))
    assert type(chat[1:3]) is Chat
    assert "abcd" == texts(chat)
    assert chat[2] in chat
    assert 2 == chat.index(chat[2])
    assert 1 == chat.count(chat[2])
    assert chat
    assert not Chat()
    with pytest.raises(IndexError):
        chat[4]


def test_changing(chat):
    """Replacing, inserting, taking out and turning around are those of a list."""
    chat[0] = ("user", "A")
    chat[1:3] = [{"role": "user", "content": text} for text in "xyz"]
    assert "Axyzd" == texts(chat)

    chat.insert(0, ("user", "0"))
    chat.insert(100, ("user", "9"))
    assert "0Axyzd9" == texts(chat)

    assert "9" == chat.pop().text
    assert "0" == chat.pop(0).text
    del chat[0]
    del chat[-2:]
    assert "xy" == texts(chat)

    chat.reverse()
    chat += [("user", "w")]
    chat.extend(chat[:1])
    assert "yxwy" == texts(chat)

    chat.remove(chat[0])
    assert "xwy" == texts(chat)
    chat.clear()
    assert "" == texts(chat)


def test_iteration_is_not_disturbed(chat):
    """Messages that come while somebody iterates are for the next time."""
    seen = []
    for message in chat:
        seen.append(message.text)
        chat.append(message)

    assert list("abcd") == seen
    assert 8 == len(chat)


@pytest.mark.parametrize(
    "make", [Chat.copy, copy.copy, copy.deepcopy, Chat.from_history]
)
def test_copies_are_independent(chat, make):
    """What happens to a copy does not happen to the chat."""
    made = make(chat)
    assert made == chat
    assert made is not chat

    made.append(("user", "e"))

    assert "abcd" == texts(chat)
    assert made != chat


def test_deep_copies_share_nothing_that_changes():
    """Not even the arguments of calls."""
    chat = Chat()
    chat.add_assistant_response("", [ToolCallRequest(name="f", arguments={"a": [1]})])
    made = copy.deepcopy(chat)

    made[0].tool_calls[0].arguments["a"].append(2)

    assert {"a": [1]} == chat[0].tool_calls[0].arguments


def test_with_appended(chat):
    """It gives a longer chat, and leaves this one alone."""
    longer = chat.with_appended(("user", "e"), chat[0])

    assert "abcdea" == texts(longer)
    assert "abcd" == texts(chat)


def test_messages_can_not_be_changed(chat):
    """They are shared by copies, so they are replaced instead."""
    with pytest.raises(AttributeError):
        chat[0].role = "system"
    with pytest.raises(AttributeError):
        chat[0].content.append("x")


def test_comparing(chat):
    """Chats are compared by their messages; nothing else equals one."""
    assert chat == Chat.from_history(list("abcd"))
    assert chat != Chat.from_history(list("abc"))
    assert chat != list(chat)
    with pytest.raises(TypeError):
        hash(chat)


def test_histories_are_cheap(chat):
    """The messages of a history are those of the chat, in a list of its own."""
    history = to_history(chat)

    assert all(a is b for a, b in zip(history.messages, chat, strict=True))
    chat.clear()
    assert 4 == len(history.messages)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda c: c.append("Hi"), "message 4 is a text, and it is not said whose: "),
        (lambda c: c.append(7), "message 4 can't be read from 7; "),
        (lambda c: c.append(("bot", "Hi")), "the role of message 4 must be one of "),
        (lambda c: c.append({"role": "user"}), "message 4 needs a role and a content"),
        (
            lambda c: c.append(("user", ["a", 7])),
            "part 1 of message 4 must be a text or ",
        ),
        (lambda c: c.insert(1, 7), "message 1 can't be read from 7; "),
        (lambda c: c.extend([c[0], 7]), "message 5 can't be read from 7; "),
        (lambda c: c.extend("Hi"), "messages must be a list, not 'Hi'"),
        (lambda c: c.extend(c[0]), "messages must be a list, not <Message user"),
        (lambda c: c.__iadd__(7), "messages must be a list, not 7"),
        (lambda c: c.__setitem__(1, "Hi"), "message 1 is a text, and it is not said "),
        (lambda c: c.__setitem__(slice(2), ["Hi"]), "message 0 is a text, and it is "),
    ],
    ids=stable,
)
def test_what_is_wrong_changes_nothing(chat, change, error):
    """What can't be a message is refused, and all stays as it was."""
    with pytest.raises(LMStudioValueError) as caught:
        change(chat)
    assert str(caught.value).startswith(error), str(caught.value)
    assert "abcd" == texts(chat)


def test_a_text_alone_is_a_type_error(chat):
    """The error says how to say whose text it is."""
    with pytest.raises(LMStudioTypeError, match=r'write \("user", \'Hi\'\)'):
        chat.append("Hi")
