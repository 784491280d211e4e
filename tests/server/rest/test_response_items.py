"""The items of a response grow by events in OpenAI's order."""

from __future__ import annotations

from lmstudio.server.rest.answers import Call, Change
from lmstudio.server.rest.response_items import Items


def kinds(events):
    """The types of events, without what all begin with."""
    return [event["type"].removeprefix("response.") for event in events]


def test_a_message():
    """An item is added, then a part, text, and all is done."""
    items = Items()
    events = [*items.take(Change(text="a")), *items.take(Change(text="b"))]
    events += items.close()
    assert [
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
    ] == kinds(events)
    (item,) = items.output
    assert ("message", "assistant", "completed") == (
        item["type"],
        item["role"],
        item["status"],
    )
    assert "ab" == item["content"][0]["text"] == events[4]["text"]
    assert {(0, 0)} == {
        (event["output_index"], event["content_index"]) for event in events[1:6]
    }
    assert "in_progress" == events[0]["item"]["status"]


def test_thoughts_then_a_message_then_a_call():
    """Each kind is an item of its own; a call comes whole."""
    items = Items()
    call = Call(id="1", name="f", arguments={"a": 1})
    changes = [Change(reasoning="hm"), Change(text="a"), Change(call=call)]
    events = [event for change in changes for event in items.take(change)]
    events += items.close()
    assert ["reasoning", "message", "function_call"] == [
        item["type"] for item in items.output
    ]
    assert [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ] == kinds(events)[-4:]
    called = items.output[2]
    assert ("1", "f", '{"a": 1}') == (
        called["call_id"],
        called["name"],
        called["arguments"],
    )
    assert {"type": "reasoning_text", "text": "hm"} == items.output[0]["content"][0]
    assert 3 == len({item["id"] for item in items.output})


def test_nothing_is_nothing():
    """Without a word there is no item, and empty pieces make none."""
    items = Items()
    assert [] == [*items.take(Change(text="")), *items.close()]
    assert [] == items.output


def test_an_incomplete_item():
    """What was cut off is marked so."""
    items = Items()
    list(items.take(Change(text="a")))
    list(items.close("incomplete"))
    assert "incomplete" == items.output[0]["status"]


def test_log_probabilities():
    """They are told with each piece, and all of them at the end."""
    one = {"text": "a", "id": 1, "logProb": -1.0}
    change = Change(text="a", logprobs=[{**one, "candidates": [one]}])
    items = Items(1)
    delta = list(items.take(change))[-1]
    list(items.close())
    assert -1.0 == delta["logprobs"][0]["logprob"]
    assert delta["logprobs"] == items.output[0]["content"][0]["logprobs"]
    assert [] == list(Items().take(change))[-1]["logprobs"]
