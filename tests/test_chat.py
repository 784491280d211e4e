"""A chat takes what people, models and tools say, and is what `respond` sends."""

from __future__ import annotations

import base64
import copy
import io
import json
import pickle
import threading

import pytest

import lmstudio
from ids import stable
from lmstudio import (
    Chat,
    FileHandle,
    LMStudioClient,
    LMStudioModelCrashedError,
    LMStudioOSError,
    LMStudioTypeError,
    LMStudioValueError,
    ToolCallRequest,
)
from lmstudio.testing import AWAIT_CANCEL, CRASH, FakeServer
from lmstudio.wire.llm import Message, Part

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJ"
    "RU5ErkJggg=="
)
HANDLE = FileHandle(name="a.png", identifier="f1", size_bytes=3, file_type="image")
CALL = ToolCallRequest(name="add", arguments={"a": 1}, id="7")


def asks_for(name, arguments, number):
    """What a model sends that asks for a call."""
    request = {"type": "function", "name": name, "arguments": arguments, "id": number}
    return {"type": "toolCallGenerationEnd", "toolCallRequest": request}


def sent(fake):
    """The messages of each prediction that the server was asked for."""
    return [asked["history"]["messages"] for asked in fake.parameters("predict")]


def lines(chat):
    return str(chat).splitlines()


def error_of(call, *arguments, **keywords):
    with pytest.raises(LMStudioValueError) as caught:
        call(*arguments, **keywords)
    return str(caught.value)


def test_a_conversation(fake, model):
    """What was said is sent with each turn, in order."""
    fake.reply("Hello.")
    fake.reply("A large animal.")
    chat = Chat("Be brief.")

    chat.add_user_message("Hi")
    chat.append(model.respond(chat))
    chat.add_user_message("What is a llama?")
    chat.append(model.respond(chat).result())

    assert [
        "system: Be brief.",
        "user: Hi",
        "assistant: Hello.",
        "user: What is a llama?",
        "assistant: A large animal.",
    ] == lines(chat)
    assert chat.to_dict()["messages"][:4] == sent(fake)[1]


def test_what_was_sent_does_not_change(fake, model):
    """A chat that changes while the answer is on its way changes that answer's past."""
    fake.reply(["One", AWAIT_CANCEL])
    chat = Chat.from_history("Count.")
    prediction = model.respond(chat)
    fake.wait_for_call("predict")

    chat.add_user_message("Stop.")
    chat[0] = ("user", "Don't count.")
    prediction.cancel()
    prediction.result()

    [[message]] = sent(fake)
    assert [{"type": "text", "text": "Count."}] == message["content"]


def test_an_empty_chat_is_not_sent(fake, model):
    """A prediction needs a message, and the error says how to write one."""
    assert error_of(model.respond, Chat()).startswith("the history has no messages; ")
    assert [] == fake.parameters("predict")


def test_tools(fake, model):
    """The calls that a model asks for go along with its text; then the results do."""
    fake.reply(["I add.", asks_for("add", {"a": 1}, "7"), asks_for("now", {}, "8")])
    fake.reply("2, at noon.")
    chat = Chat.from_history("1 + 1, and the time?")

    asked = chat.add_assistant_response(model.respond(chat))
    assert [("add", {"a": 1}, "7"), ("now", {}, "8")] == [
        (call.name, call.arguments, call.id) for call in asked.tool_calls
    ]
    results = chat.add_tool_results(
        [{"content": "2", "toolCallId": "7"}, {"content": "noon", "tool_call_id": "8"}]
    )
    assert ["2", "noon"] == [part.content for part in results.tool_results]
    chat.append(model.respond(chat))

    assert [
        "user: 1 + 1, and the time?",
        "assistant: I add.",
        'assistant calls add: {"a": 1}',
        "assistant calls now: {}",
        "tool (7): 2",
        "tool (8): noon",
        "assistant: 2, at noon.",
    ] == lines(chat)
    assert chat.to_dict()["messages"][:3] == sent(fake)[1]


def test_calls_given_with_a_result_take_the_place_of_its_own(fake, model):
    """Official code hands over ``result.tool_calls``: they are not added twice."""
    fake.reply([asks_for("add", {"a": 1}, "7"), asks_for("add", {"a": 2}, "8")])
    result = model.respond("1 + 1?").result()
    chat = Chat()

    chat.add_assistant_response(result, result.tool_calls)
    chat.add_assistant_response(result, result.tool_calls[:1])

    assert ["7", "8"] == [call.id for call in chat[0].tool_calls]
    assert ["7"] == [call.id for call in chat[1].tool_calls]
    assert "" == chat[0].text


def test_a_prediction_that_failed_is_not_added(fake, model):
    """Its error is raised, and the chat stays as it was."""
    fake.reply(["Once", CRASH])
    chat = Chat.from_history("Tell me.")

    with pytest.raises(LMStudioModelCrashedError):
        chat.append(model.respond(chat))

    assert ["user: Tell me."] == lines(chat)


@pytest.mark.parametrize(
    ("result", "call_id", "content", "answers"),
    [
        ("2", "7", "2", "7"),
        ("2", None, "2", None),
        (2, "7", "2", "7"),
        ({"sum": 2}, "7", '{"sum": 2}', "7"),
        ({"content": "2"}, "7", '{"content": "2"}', "7"),
        (["ä", None], None, '["ä", null]', None),
        (None, None, "null", None),
        ({"content": "2", "toolCallId": "7"}, None, "2", "7"),
        ({"content": "2", "tool_call_id": "7"}, "8", "2", "8"),
        ({"type": "toolCallResult", "content": "2"}, "7", "2", "7"),
        (Part(type="toolCallResult", content="2", tool_call_id="7"), None, "2", "7"),
    ],
    ids=str,
)
def test_what_tools_answer(result, call_id, content, answers):
    """A text is taken as it is, a result of the protocol too, all else as JSON."""
    message = Chat().add_tool_result(result, call_id)

    [part] = message.tool_results
    assert (content, answers) == (part.content, part.tool_call_id)
    assert "tool" == message.role


@pytest.mark.parametrize(
    "call",
    [
        CALL,
        Part(type="toolCallRequest", tool_call_request=CALL),
        {"type": "function", "name": "add", "arguments": {"a": 1}, "id": "7"},
        {"id": "7", "function": {"name": "add", "arguments": '{"a": 1}'}},
        {
            "type": "toolCallRequest",
            "toolCallRequest": {"name": "add", "arguments": {"a": 1}, "id": "7"},
        },
    ],
    ids=lambda call: type(call).__name__,
)
def test_calls_of_tools(call):
    """Calls are taken as the protocol or OpenAI writes them."""
    message = Chat().add_assistant_response("I add.", [call])

    assert [CALL] == message.tool_calls
    assert ("I add.", "assistant") == (message.text, message.role)


def test_arguments_belong_to_the_chat():
    """Changing the arguments of a call later does not change the chat."""
    arguments = {"a": [1]}
    chat = Chat()
    chat.add_assistant_response("", [ToolCallRequest(name="f", arguments=arguments)])

    arguments["a"].append(2)

    assert {"a": [1]} == chat[0].tool_calls[0].arguments


def test_entries():
    """Every role is there by its name as well."""
    chat = Chat()
    chat.add_entry("system", "Be brief.")
    chat.add_entry("user", ["a", {"type": "text", "text": "b"}])
    chat.add_entry(
        "assistant", ["c", Part(type="toolCallRequest", tool_call_request=CALL)]
    )
    chat.add_entry("tool", [{"content": "2", "toolCallId": "7"}])
    chat.add_entry("tool", "3")

    assert [
        "system: Be brief.",
        "user: a b",
        "assistant: c",
        'assistant calls add: {"a": 1}',
        "tool (7): 2",
        "tool: 3",
    ] == lines(chat)
    assert "the role of message 5 must be one of" in error_of(chat.add_entry, "bot", "")


def test_consecutive_messages_stay_apart(fake, model):
    """Two messages of the user are two messages, and are sent so."""
    fake.reply("Yes.")
    chat = Chat()
    chat.add_user_message("One.")
    chat.add_user_message("Two.")

    model.respond(chat).result()

    assert ["user", "user"] == [message["role"] for message in sent(fake)[0]]


def test_images(tmp_path):
    """Images come from anywhere, behind the text, and are read when they are added."""
    path = tmp_path / "cat.png"
    path.write_bytes(PNG)
    models = ["some-vision"]
    with FakeServer(models, loaded=models) as fake, LMStudioClient(fake.host) as client:
        fake.reply("A cat.", times=2)
        model = client.llm.get("some-vision")
        handle = client.files.prepare_image(PNG, "dog.png")
        chat = Chat()
        with path.open("rb") as file:
            message = chat.add_user_message("Look.", images=[path, file, PNG, handle])
        path.unlink()

        model.respond(chat).result()
        model.respond(chat).result()

        names = ["cat.png", "cat.png", message.files[2].name, "dog.png"]
        assert names == [part.name for part in message.files]
        text, *images = sent(fake)[1][0]["content"]
        assert {"type": "text", "text": "Look."} == text
        assert names == [image["name"] for image in images]
        # All have one content, which is sent once.
        assert 1 == len({image["identifier"] for image in images})
        assert 1 == len(fake.parameters("uploadFileBase64"))


def test_files():
    """Files are handles, or handles as JSON has them, in either spelling."""
    as_json = {"type": "file", "name": "a.png", "identifier": "f1"}
    chat = Chat()
    message = chat.add_user_message(
        ["Look.", HANDLE],
        files=[
            {**as_json, "sizeBytes": 3, "fileType": "image"},
            {**as_json, "size_bytes": 3, "file_type": "image"},
        ],
        images=[HANDLE],
    )

    assert [HANDLE.to_part()] * 4 == message.files
    assert "Look." == message.text


def test_the_system_prompt():
    """It is the first system message, and can be replaced, put in and taken out."""
    chat = Chat.from_history([("user", "Hi")])
    assert chat.system_prompt is None

    chat.system_prompt = "Be brief."
    chat.add_system_prompt("Be kind.")
    assert "Be brief." == chat.system_prompt

    chat.system_prompt = "Be long."
    assert ["system: Be long.", "user: Hi", "system: Be kind."] == lines(chat)

    chat.system_prompt = None
    assert "Be kind." == chat.system_prompt

    chat.system_prompt = None
    chat.system_prompt = None
    assert ["user: Hi"] == lines(chat)
    assert "system prompt must be" in error_of(setattr, chat, "system_prompt", 7)


@pytest.mark.parametrize(
    "history",
    [
        "Hi",
        [("user", "Hi")],
        [{"role": "user", "content": "Hi"}],
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
        [Message(role="user", content=[Part(type="text", text="Hi")])],
        Chat.from_history("Hi"),
        Chat.from_history("Hi").to_history(),
    ],
    ids=lambda history: type(history).__name__,
)
def test_histories(history):
    """A chat is made from all that `respond` takes, and is independent of it."""
    before = copy.deepcopy(history)
    chat = Chat.from_history(history)
    assert ["user: Hi"] == lines(chat)

    chat.add_user_message("More")

    assert before == history


def test_empty_histories():
    """A chat may begin without messages."""
    assert Chat() == Chat.from_history([]) == Chat.from_history({"messages": []})


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Chat(7), "the content of the system prompt must be text or a list of"),
        (lambda: Chat([("user", "Hi")]), "part 0 of the system prompt must be a text"),
        (lambda: Chat.from_history(7), "a history can't be read from 7; "),
        (lambda: Chat.from_history([7]), "message 0 can't be read from 7; "),
        (lambda: Chat.from_history(Chat), "a history can't be read from <class"),
        (
            lambda: Chat().add_user_message("Hi", images="cat.png"),
            "images must be a list, not 'cat.png'",
        ),
        (
            lambda: Chat().add_user_message("Hi", images=HANDLE),
            "images must be a list, not FileHandle",
        ),
        (
            lambda: Chat().add_user_message("Hi", files=7),
            "files must be a list, not 7",
        ),
        (
            lambda: Chat().add_user_message("Hi", files=["a.txt"]),
            "file 0 of message 0 is no file, but of the type text",
        ),
        (
            lambda: Chat().add_user_message(["Hi", 7]),
            "part 1 of message 0 must be a text",
        ),
        (
            lambda: Chat().add_user_message("Hi", images=[7]),
            "part 1 of message 0: an image can't be read from 7; give a path, ",
        ),
        (
            lambda: Chat().add_user_message("Hi", images=[b"no image"]),
            "part 1 of message 0: the image is text, not an image; ",
        ),
        (lambda: Chat().add_user_message([]), "the content of message 0 has no parts"),
        (
            lambda: Chat().add_assistant_response("Hi", "add"),
            "tool_call_requests must be a list, not 'add'",
        ),
        (
            lambda: Chat().add_assistant_response("Hi", [{"name": 7}]),
            "a tool call of message 0 needs",
        ),
        (
            lambda: Chat().add_assistant_response(
                "Hi", [ToolCallRequest(name="f", arguments={"x": float("nan")})]
            ),
            "the arguments of a tool call of message 0 are no JSON: ",
        ),
        (
            lambda: Chat().add_assistant_response(
                "Hi", [ToolCallRequest(name="f", arguments={"x": "\ud800"})]
            ),
            "the arguments of a tool call of message 0 are no JSON: ",
        ),
        (
            lambda: Chat().add_tool_result("\udfff"),
            "the content of part 0 of message 0 holds a lone surrogate",
        ),
        (
            lambda: Chat().add_tool_result("2", 7),
            "the tool_call_id of part 0 of message 0 must be text, not 7",
        ),
        (
            lambda: Chat().add_tool_result(Part(type="text", text="2")),
            'message 0 must be {"content": "...", "toolCallId": "..."}, not Part(',
        ),
        (lambda: Chat().add_tool_results("2"), "results must be a list, not '2'"),
        (lambda: Chat().add_tool_results([]), "the content of message 0 has no parts"),
    ],
    ids=stable,
)
def test_what_is_wrong_is_refused_where_it_enters(make, error):
    """The error says which message and part, and nothing is added."""
    assert error_of(make).startswith(error), error_of(make)


def test_a_constructor_that_is_given_messages_tells_of_the_right_one():
    """A list for a system prompt is a mistake that many make."""
    for given in (7, b"Be brief.", [("user", "Hi")], {"messages": []}):
        assert error_of(Chat, given).endswith(
            "; messages are read with Chat.from_history"
        )
    with pytest.raises(LMStudioTypeError):
        Chat(7)
    assert error_of(Chat, "\ud800").startswith("the content of the system prompt holds")


def test_an_image_that_is_not_there():
    """It is an error of the operating system, and says which image."""
    with pytest.raises(LMStudioOSError) as caught:
        Chat().add_user_message("Look.", images=["/nowhere/cat.png"])
    assert str(caught.value).startswith(
        "part 1 of message 0: the image '/nowhere/cat.png' can't be read: "
    )


def test_files_that_were_open_once():
    """The image in a list of parts is read when it comes in, not when it is sent."""
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    part = {"type": "image_url", "image_url": {"url": url}}
    chat = Chat.from_history([("user", ["Look.", part])])

    assert len(PNG) == chat[0].files[0].size_bytes

    wrong = {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}
    for read in (Chat.from_history, chat.extend):
        assert "part 0 of message" in error_of(read, [("user", [wrong])])


def test_saved_and_loaded(tmp_path):
    """A file gives the same chat again."""
    chat = Chat("Be brief.")
    chat.add_user_message("Look. ä🦙", images=[PNG])
    chat.add_assistant_response("I add.", [CALL])
    chat.add_tool_result("2", "7")

    chat.save(tmp_path / "chat.json")

    loaded = Chat.load(str(tmp_path / "chat.json"))
    assert chat == loaded
    assert type(loaded) is Chat
    assert json.loads(chat.to_json()) == chat.to_dict()
    assert "\n  " in chat.to_json(indent=2)
    assert chat == Chat.from_history(json.loads(chat.to_json()))


def test_openai():
    """Messages of OpenAI come and go."""
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1 + 1?"},
    ]

    chat = Chat.from_openai(messages)

    assert messages == chat.to_openai()


def test_messages_of_openais_client():
    """An object of its client is taken as it is."""

    class ChatCompletionMessage:
        def model_dump(self, exclude_none):
            assert exclude_none
            function = {"name": "add", "arguments": '{"a": 1}'}
            calls = [{"id": "7", "type": "function", "function": function}]
            return {"role": "assistant", "tool_calls": calls}

    chat = Chat.from_openai([("user", "1 + 1?"), ChatCompletionMessage()])

    assert [CALL] == chat[1].tool_calls


def test_shown():
    """In a line, whatever it holds; readable as text; as HTML without its markup."""
    chat = Chat()
    assert "<Chat 0 messages>" == repr(chat)
    assert "" == str(chat)

    chat.add_user_message("<script>\n" + "x" * 5000, images=[HANDLE])

    assert f"<Chat 1 message, last 'user: <script>\\n{'x' * 44}…'>" == repr(chat)
    assert "user: <script>\n" + "x" * 5000 + " [image a.png]" == str(chat)
    html = chat._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert len(html) < 3000


def test_subclasses_stay_what_they_are(tmp_path):
    """Copies, slices and files of a subclass are of that class."""

    class Mine(Chat):
        topic = "none"

    mine = Mine("Be brief.")
    mine.topic = "llamas"
    mine.save(tmp_path / "mine.json")

    for made in (mine.copy(), mine[:], mine.with_appended(("user", "Hi"))):
        assert (Mine, "llamas") == (type(made), made.topic)
    assert type(Mine.load(tmp_path / "mine.json")) is Mine
    assert type(Mine.from_history("Hi")) is Mine


def test_pickled():
    """A chat can be sent to another process."""
    chat = Chat("Be brief.")
    chat.add_user_message("Look.", images=[io.BytesIO(PNG)])

    assert chat == pickle.loads(pickle.dumps(chat))


def test_many_threads_add_at_once():
    """No message is lost when several threads add."""
    chat = Chat()
    together = threading.Barrier(4)

    def add(name):
        together.wait()
        for n in range(200):
            chat.add_user_message(f"{name} {n}")

    threads = [threading.Thread(target=add, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 800 == len(chat) == len({message.text for message in chat})
    of_a = [message.text for message in chat if message.text[0] == "a"]
    assert [f"a {n}" for n in range(200)] == of_a


def test_it_is_public():
    """The name that users import."""
    assert lmstudio.Chat is Chat
