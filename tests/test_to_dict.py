"""What the client hands out can be written as JSON, under the names that it has."""

from __future__ import annotations

import json

import attrs
import pytest

from lmstudio import Chat, LMStudioClient
from lmstudio.parts import text_part
from lmstudio.testing import FakeServer
from lmstudio.testing.script import tool_call
from lmstudio.wire.common import InstanceInfo, ModelInfo
from lmstudio.wire.llm import Message, PredictionStats

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


@pytest.fixture
def fake():
    names = ["any", "vision"]
    with FakeServer(names, loaded=names) as made:
        yield made


@pytest.fixture
def client(fake):
    with LMStudioClient(fake.url) as made:
        yield made


def as_json(value):
    """The value after a journey through JSON: equal when it was JSON before."""
    return json.loads(json.dumps(value, allow_nan=False))


def double(number: int) -> int:
    """Twice as much."""
    return 2 * number


def test_results(client):
    """A result has its texts, figures, model and settings; not its fragments."""
    result = client.llm.get("any").respond("one two", temperature=0.5).result()
    made = result.to_dict()

    assert as_json(made) == made
    assert "one two" == made["content"] == made["non_reasoning_content"]
    assert ("", False, []) == (
        made["reasoning_content"],
        made["structured"],
        made["tool_calls"],
    )
    assert attrs.asdict(result.stats) == made["stats"]
    assert "eosFound" == made["stats"]["stop_reason"]
    assert "any" == made["model_info"]["identifier"]
    assert "raw" not in made["model_info"]
    assert 0.5 == made["prediction_config"]["temperature"]
    assert "context_length" in made["load_config"]


def test_fragments(client):
    """A fragment has its text as `content`, and all its attributes."""
    (first, *_) = client.llm.get("any").respond("one two").result().fragments

    assert {
        "content": str(first),
        "tokens_count": 1,
        "reasoning_type": "none",
        "contains_drafted": False,
        "is_structural": False,
        "tokens": None,
    } == as_json(first.to_dict())


def test_runs(fake, client):
    """A run has its rounds, calls and messages, which a chat reads again."""
    fake.reply(tool_call("double", {"number": 21}))
    fake.reply("42")
    result = client.llm.get("any").act("Double 21", [double]).result()
    made = result.to_dict()

    assert as_json(made) == made
    assert ("42", 2, False) == (made["content"], made["rounds"], made["is_cancelled"])
    assert [0, 1] == [item["round_index"] for item in made["predictions"]]
    (call,) = made["calls"]
    assert call["seconds"] == result.calls[0].seconds
    assert {
        "round_index": 0,
        "name": "double",
        "arguments": {"number": 21},
        "id": result.calls[0].request.id,
        "type": "function",
        "content": "42",
        "error": None,
    } == {name: value for name, value in call.items() if name != "seconds"}
    assert list(result.messages) == list(Chat.from_history(made["messages"]))


def test_failed_calls_of_a_run(fake, client):
    """The error of a call is its text."""
    fake.reply(tool_call("double", {"number": "x"}))
    fake.reply("sorry")
    (call,) = client.llm.get("any").act("x", [double]).result().to_dict()["calls"]
    assert "double" in call["error"]
    assert "wrong arguments" in call["error"]


def test_models(client):
    """Descriptions of models have every field but `raw`; None is what is unknown."""
    for info, kind in (
        (client.llm.list_downloaded()[0], ModelInfo),
        (client.llm.list_downloaded()[0].info, ModelInfo),
        (client.llm.get("any").get_info(), InstanceInfo),
    ):
        made = info.to_dict()
        assert as_json(made) == made
        names = {field.name for field in attrs.fields(kind)}
        assert names - {"raw"} == made.keys()
        assert made["device_identifier"] is None
    state = client.llm.get("any").get_processing_state()
    assert {"status": "idle", "queued": 0} == state.to_dict()


def test_messages(client):
    """Messages, images too, are as the chat has them, which reads them again."""
    chat = Chat("Be brief.")
    chat.add_user_message("What is this?", images=[PNG])
    handle = client.prepare_image(PNG, "a.png")
    chat.add_user_message(["Again", handle])

    made = [message.to_dict() for message in chat]
    assert as_json(made) == made
    assert {"messages": made} == chat.to_dict()
    assert {
        "role": "system",
        "content": [{"type": "text", "text": "Be brief."}],
    } == made[0]
    assert made[1]["content"][1]["image_url"]["url"].startswith("data:image/png;base64")
    assert list(chat) == list(Chat.from_history(made))
    assert {
        "name": "a.png",
        "identifier": handle.identifier,
        "size_bytes": len(PNG),
        "file_type": "image",
        "type": "file",
    } == as_json(handle.to_dict())
    part = Chat.from_history([("user", [handle.to_dict()])])[0].content[0]
    assert handle.to_part() == part


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Message(role="user", content=[text_part("Hi")]), "<Message user: 'Hi'>"),
        (Message(role="user", content=[]), "<Message user: ''>"),
        (
            Message(role="user", content=[text_part("x" * 100)]),
            f"<Message user: '{'x' * 59}…'>",
        ),
        (Message(role="user", content="ab"), "<Message user: ('a', 'b')>"),
        (text_part("Hi"), "Part(type='text', text='Hi')"),
        (PredictionStats(stop_reason="failed"), "PredictionStats(stop_reason='failed'"),
    ],
)
def test_short_forms_for_people(value, shown):
    """What was not said is not shown, and a message takes one short line."""
    assert shown.rstrip(")") == repr(value).rstrip(")")


def test_messages_with_more_than_text():
    """Files, calls and results are counted."""
    chat = Chat()
    chat.add_user_message("See", images=[PNG, PNG])
    call = {"name": "f", "arguments": {"a": 1}, "id": "7"}
    chat.add_assistant_response("", [call])
    chat.add_tool_result(5, "7")
    assert [
        "<Message user: 'See', 2 files>",
        "<Message assistant: 1 tool call>",
        "<Message tool: 1 tool result>",
    ] == [repr(message) for message in chat]
