"""Calls are found in every form that models use, wherever the pieces break."""

# ruff: noqa: RUF001 - the marks of DeepSeek have such bars
from __future__ import annotations

import itertools
import json

import hypothesis
import hypothesis.strategies as st
import pytest

from lmstudio.server.toolcalls import ToolCalls, schemas_of
from lmstudio.server.toolcalls_syntax import BARE, DEFAULT, SYNTAXES

SYNTAX = {syntax.name: syntax for syntax in (*SYNTAXES, DEFAULT, BARE)}
NAMES = {"add": "add", "get_time": "get time"}
SCHEMAS = {
    "add": {"properties": {"a": {"type": "integer"}, "b": {"type": "string"}}},
}
#: What a call adds up to: its name and its arguments, or why it failed.
ADD = ("add", {"a": 1})
TIME = ("get time", {})
TAGGED = ("add", {"a": 1, "b": "2"})

CASES = [
    ("hermes", "Just text <b>, no call {}.", ["Just text <b>, no call {}."]),
    (
        "hermes",
        'Sure. <tool_call>\n{"name": "add", "arguments": {"a": 1, "b": "x}\\"{<\\u00e4"'
        '}}\n</tool_call>\n<tool_call>\n{"arguments": {}, "name": "get_time"}\n'
        "</tool_call> done <b>",
        ["Sure. ", ("add", {"a": 1, "b": 'x}"{<ä'}), TIME, "done <b>"],
    ),
    (
        "hermes",
        "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\n2\n"
        "</parameter>\n</function>\n</tool_call>",
        [TAGGED],
    ),
    (
        "functions",
        "Hm <function=add><parameter=a>1</parameter><parameter=b>2</parameter>"
        "</function> so",
        ["Hm ", TAGGED, "so"],
    ),
    ("functions", "<function=get_time>\n</function>", [TIME]),
    (
        "hermes",
        "<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n<arg_key>b"
        "</arg_key>\n<arg_value>2</arg_value>\n</tool_call>",
        [TAGGED],
    ),
    ("hermes", "<tool_call>get_time\n</tool_call>!", [TIME, "!"]),
    (
        "llama",
        '{"name": "add", "parameters": {"a": 1}}; {"name": "get_time", '
        '"parameters": {}}',
        [ADD, TIME],
    ),
    ("llama", '<|python_tag|>{"name": "add", "parameters": {"a": 1}}', [ADD]),
    (
        "llama",
        '{"type": "function", "function": "add", "parameters": {"a": 1}}',
        [ADD],
    ),
    (
        "mistral",
        '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}, "id": 7},'
        ' {"name": "get_time", "arguments": {}}]',
        [ADD, TIME],
    ),
    (
        "mistral",
        'Hm[TOOL_CALLS]add[ARGS]{"a": 1}[TOOL_CALLS]get_time[CALL_ID]abc[ARGS]{}',
        ["Hm", ADD, TIME],
    ),
    ("granite", '<|tool_call|>[{"name": "add", "arguments": {"a": 1}}]', [ADD]),
    ("granite", "<|tool_call|>[]", []),
    (
        "command",
        '<|START_ACTION|>[\n {"tool_call_id": "0", "tool_name": "add", "parameters":'
        ' {"a": 1}}\n]<|END_ACTION|>',
        [ADD],
    ),
    (
        "deepseek",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n"
        '{"a": 1}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>get_time<｜tool▁sep｜>'
        "{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        [ADD, TIME],
    ),
    (
        "harmony",
        "<|channel|>commentary to=functions.add <|constrain|>json<|message|>"
        '{"a": 1}<|call|>',
        [ADD],
    ),
    ("harmony", "<|start|>assistant<|channel|>final<|message|>Hello", ["Hello"]),
    (
        "default",
        '[TOOL_REQUEST]{"name": "add", "arguments": {"a": 1}}[END_TOOL_REQUEST] ok',
        [ADD, "ok"],
    ),
    ("default", "See [1] and [TOOL", ["See [1] and [TOOL"]),
    ("bare", '```json\n{"name": "add", "arguments": {"a": 1}}\n```', [ADD]),
    ("bare", ' \n{"name": "add", "arguments": {"a": 1}}', [" \n", ADD]),
    ("bare", '{"name": "John", "age": 3}', ['{"name": "John", "age": 3}']),
    ("bare", '{"name": "ad"', ['{"name": "ad"']),
    ("bare", 'I say {"name": "add"}', ['I say {"name": "add"}']),
    ("bare", "```python\nprint()\n```", ["```python\nprint()\n```"]),
    (
        "hermes",
        '<tool_call>\n{"name": "add", "arguments": "{\\"a\\": 1}"}</tool_call>.',
        [ADD, "."],
    ),
    (
        "hermes",
        '<tool_call>{"type":"function","function":{"name":"add","arguments":{"a":1}}}'
        "</tool_call>",
        [ADD],
    ),
    (
        "hermes",
        '<tool_call>{"name": "add", "arguments": {"a": 1}, "x": null,'
        ' "y": [2, {"z": "}"}]}</tool_call>',
        [ADD],
    ),
    ("hermes", '<tool_call>{"name": "other"}</tool_call>', [("other", {})]),
    ("hermes", '<tool_call>{"name": "get_time", "arguments": null}', [TIME]),
    # Calls that cannot be read.
    ("hermes", 'x <tool_call>\n{"name": "add", "argu', ["x ", "It is cut off"]),
    ("hermes", "<tool_call>\n", []),
    (
        "hermes",
        '<tool_call>\n{"name": "add", </tool_call> and more',
        ["It is not JSON", "and more"],
    ),
    (
        "hermes",
        "<tool_call>{'name': 'add'}<tool_call>{\"name\": \"get_time\"}</tool_call>",
        ["It is not JSON", TIME],
    ),
    (
        "hermes",
        '<tool_call>{"name": "add", "arguments": [1]}</tool_call>.',
        ["Its arguments are not a JSON object", "."],
    ),
    (
        "hermes",
        '<tool_call>{"name": "add", "arguments": {"a": NaN}}</tool_call>.',
        ["It is not JSON", "."],
    ),
    (
        "hermes",
        '<tool_call>{"name": "add", "arguments": {"a" 1}}</tool_call>.',
        ["Its arguments are not valid JSON", "."],
    ),
    (
        "hermes",
        '<tool_call>{"name": "add", "arguments": {"a": "\\ud800"}}</tool_call>.',
        ["Its arguments are not valid JSON", "."],
    ),
    (
        "hermes",
        '<tool_call>{"arguments": {}}</tool_call>.',
        ["It does not name a tool", "."],
    ),
    (
        "hermes",
        "<tool_call><b></tool_call>.",
        ["It begins with neither JSON nor a function", "."],
    ),
    (
        "hermes",
        "<tool_call>well, I think not</tool_call>.",
        ["It begins with neither JSON nor the name of a tool", "."],
    ),
    (
        "hermes",
        "<tool_call><function=add>what</tool_call>.",
        ["A function holds something else than parameters", "."],
    ),
    (
        "mistral",
        "[TOOL_CALLS][1]",
        ["A list of calls holds something else"],
    ),
]


def told(syntax, pieces):
    """What pieces of output come to: texts, and what calls add up to."""
    ids = itertools.count(1)
    calls = ToolCalls(SYNTAX[syntax], NAMES, SCHEMAS, new_id=lambda: str(next(ids)))
    events = [event for piece in pieces for event in calls.feed(piece)]
    events += calls.end()
    assert not calls.is_open
    made = summed(events)
    assert calls.count == sum(isinstance(one, tuple) for one in made)
    return made


def summed(events):
    """Texts put together, and the packets of each call checked and summed up."""
    made, call = [], None
    for event in events:
        if isinstance(event, str):
            assert call is None and event
            if made and type(made[-1]) is str:
                made[-1] += event
            else:
                made.append(event)
            continue
        kind = event["type"].removeprefix("toolCallGeneration")
        if kind == "Start":
            assert call is None
            call = {"id": event["toolCallId"], "name": None, "text": ""}
        elif kind == "NameReceived":
            assert call["name"] is None
            call["name"] = event["name"]
        elif kind == "ArgumentFragmentGenerated":
            assert call["name"] is not None and event["content"]
            call["text"] += event["content"]
        else:
            made.append(ended(kind, event, call))
            call = None
    assert call is None
    return made


class Failed(str):
    """Why a call failed; no text of the answer."""


def ended(kind, event, call):
    if kind == "Failed":
        assert event["error"]["title"] == event["error"]["rootTitle"]
        return Failed(event["error"]["cause"].partition(":")[0])
    assert "End" == kind
    request = event["toolCallRequest"]
    assert (call["id"], "function", call["name"]) == (
        request["id"],
        request["type"],
        request["name"],
    )
    assert json.loads(call["text"], strict=False) == request["arguments"]
    return request["name"], request["arguments"]


@pytest.mark.parametrize(("syntax", "text", "expected"), CASES)
def test_every_form_cut_at_every_place(syntax, text, expected):
    """Each form is read the same in one piece, in two, and character by character."""
    assert expected == told(syntax, [text])
    assert expected == told(syntax, list(text))
    for cut in range(1, len(text)):
        assert expected == told(syntax, [text[:cut], text[cut:]])


@pytest.mark.slow
@hypothesis.given(st.data())
@hypothesis.settings(deadline=None, max_examples=60)
def test_forms_cut_anywhere(data):
    """Each form is read the same wherever its pieces break."""
    syntax, text, expected = data.draw(st.sampled_from(CASES))
    cuts = data.draw(st.sets(st.integers(0, len(text)), max_size=8))
    edges = [0, *sorted(cuts), len(text)]

    assert expected == told(
        syntax, [text[start:stop] for start, stop in itertools.pairwise(edges)]
    )


@pytest.mark.slow
@hypothesis.given(
    st.lists(
        st.sampled_from(
            [
                *("<tool_call>", "</tool_call>", "{", "}", "[", "]", '"', "\\", ":"),
                *(
                    '"name"',
                    '"arguments"',
                    '"add"',
                    "add",
                    "<function=",
                    ">",
                    ",",
                    "\n",
                ),
                *("<parameter=a>", "</parameter>", "</function>", "1", " ", "x", "<"),
                *("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "```json"),
            ]
        )
    )
)
@hypothesis.settings(deadline=None, max_examples=60)
def test_any_text_is_read(parts):
    """Whatever a model writes, each call has one end, and cuts change nothing."""
    text = "".join(parts)

    assert told("hermes", [text]) == told("hermes", list(text))


def test_text_goes_out_at_once():
    """Text waits only while it may be the beginning of a call."""
    calls = ToolCalls(SYNTAX["hermes"], NAMES)

    assert [" "] == list(calls.feed(" "))
    assert ["A"] == list(calls.feed("A"))
    assert [" b {"] == list(calls.feed(" b {"))
    assert [" c "] == list(calls.feed(" c <tool"))
    assert ["<tool box"] == list(calls.feed(" box"))
    assert [] == list(calls.feed("<"))
    assert ["<x"] == list(calls.feed("x"))
    assert [] == list(calls.end())


def test_arguments_come_while_they_are_written():
    """The name is told when it is known, and the arguments piece by piece."""
    calls = ToolCalls(SYNTAX["hermes"], NAMES, new_id=lambda: "7")
    pieces = ["<tool_call>", '{"na', 'me": "add"', ', "arguments": {"a"', ": 1", "}}"]
    kinds = [
        [
            event["type"].removeprefix("toolCallGeneration")
            for event in calls.feed(piece)
        ]
        for piece in pieces
    ]

    assert [
        [],
        ["Start"],
        ["NameReceived"],
        ["ArgumentFragmentGenerated"],
        ["ArgumentFragmentGenerated"],
        ["ArgumentFragmentGenerated", "End"],
    ] == kinds


def test_the_raw_text_of_a_call():
    """The end of a call has its text as the model wrote it."""
    calls = ToolCalls(SYNTAX["hermes"], NAMES)
    raw = '{"name": "add",  "arguments": {}}'

    *_, end = calls.feed(f"<tool_call>\n{raw}\n</tool_call>")
    assert raw == end["rawContent"]


def test_ids():
    """Ids are nine digits, each another: templates of some models take no others."""
    calls = ToolCalls(SYNTAX["default"], NAMES)
    call = '[TOOL_REQUEST]{"name": "add"}[END_TOOL_REQUEST]'
    events = calls.feed(call * 20)
    ids = [e["toolCallId"] for e in events if "toolCallId" in e]

    assert 20 == len(set(ids))
    assert all(len(one) == 9 and one.isdigit() for one in ids)


def test_schemas_of():
    """The schemas of tools by name, an empty one where there is none."""
    tools = [
        {"function": {"name": "a", "parameters": {"type": "object"}}},
        {"function": {"name": "b"}},
    ]
    assert {"a": {"type": "object"}, "b": {}} == schemas_of(tools)


@pytest.mark.slow
def test_a_long_call():
    """A call may be as long as it likes, in pieces of one token."""
    calls = ToolCalls(SYNTAX["hermes"], NAMES)
    calls.feed('<tool_call>{"name": "add", "arguments": {"a": "')
    for _ in range(10_000):
        calls.feed("abcd")

    *_, end = calls.feed('"}}')
    assert {"a": "abcd" * 10_000} == end["toolCallRequest"]["arguments"]
