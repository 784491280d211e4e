"""Models see tools under plain names, in their template or in the system prompt."""

from __future__ import annotations

import json

import pytest

from lmstudio.server.prompt import CHATML
from lmstudio.server.toolcalls_prompt import Tooling, one_shown_name, shown_names

TOOL = {
    "type": "function",
    "function": {"name": "get weather!", "description": "Weather {here}."},
}
SHOWN = {**TOOL, "function": {**TOOL["function"], "name": "get_weather"}}
CALL = {
    "type": "function",
    "id": "1",
    "function": {"name": "get weather!", "arguments": {"city": "Köln"}},
}
ROUND = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL, CALL]},
    {"role": "tool", "content": '"rain"', "tool_call_id": "1", "name": "get weather!"},
    {"role": "tool", "content": '"sun"', "tool_call_id": "1"},
    {"role": "assistant", "content": "Both."},
]


@pytest.mark.parametrize(
    ("name", "naming", "shown"),
    [
        ("get weather!", "passThrough", "get weather!"),
        ("get weather!", "removeSpecial", "get_weather"),
        ("get-weather_2", "removeSpecial", "get-weather_2"),
        ("天気", "removeSpecial", "tool"),
        ("getWeather now", "snakeCase", "get_weather_now"),
        ("get-weather_now", "camelCase", "getWeatherNow"),
        ("!", "camelCase", "tool"),
    ],
)
def test_names(name, naming, shown):
    """Each way of naming makes names of plain letters, except the one that does not."""
    assert shown == one_shown_name(name, naming)


def test_names_differ():
    """Two tools never get one name."""
    names = ["a b", "a_b", "a!b", "a_b_2"]

    assert ["a_b", "a_b_2", "a_b_3", "a_b_2_2"] == list(
        shown_names(names, "removeSpecial").values()
    )


def test_a_template_with_tools():
    """A template that knows tools gets them; names are the model's everywhere."""
    tooling = Tooling([TOOL], "removeSpecial", "{{ tools }}<tool_call>")
    turns = tooling.turns(ROUND)

    assert [SHOWN] == tooling.for_template == tooling.tools
    assert {"get_weather": "get weather!"} == tooling.own_names
    assert ["get_weather"] * 2 == [
        call["function"]["name"] for call in turns[1]["tool_calls"]
    ]
    assert "get_weather" == turns[2]["name"]
    assert [turn["content"] for turn in ROUND] == [turn["content"] for turn in turns]


def test_a_template_without_tools():
    """Where the template knows none, tools, calls and results become text."""
    tooling = Tooling([TOOL], "removeSpecial", CHATML)
    system, *turns = tooling.turns(ROUND)

    assert [] == tooling.for_template
    assert "system" == system["role"]
    assert json.dumps(SHOWN["function"]) in system["content"].splitlines()
    assert "[TOOL_REQUEST]{" in system["content"]
    request = '[TOOL_REQUEST]{"name": "get_weather", "arguments": {"city": "Köln"}}'
    request += "[END_TOOL_REQUEST]"
    assert [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": f"Let me see.\n{request}\n{request}"},
        {
            "role": "user",
            "content": '[TOOL_RESULT]"rain"[END_TOOL_RESULT]\n'
            '[TOOL_RESULT]"sun"[END_TOOL_RESULT]',
        },
        {"role": "assistant", "content": "Both."},
    ] == turns


@pytest.mark.parametrize(
    ("said", "start"), [("Be brief.", "Be brief.\n\n# T"), ("", "# T")]
)
def test_the_system_prompt_stays(said, start):
    """The tools stand behind what the system prompt says."""
    tooling = Tooling([TOOL], "removeSpecial", None)
    turns = tooling.turns([{"role": "system", "content": said}])

    assert 1 == len(turns)
    assert turns[0]["content"].startswith(start)


def test_without_tools():
    """Without tools nothing is added, and old calls are text all the same."""
    tooling = Tooling([], "removeSpecial", CHATML)
    turns = tooling.turns(ROUND)

    assert ["user", "assistant", "user", "assistant"] == [t["role"] for t in turns]
    assert [] == tooling.for_template


def test_shown_tools():
    """Definitions are found by the tools' own names."""
    other = {"type": "function", "function": {"name": "other"}}
    tooling = Tooling([TOOL, other], "removeSpecial", None)

    assert [SHOWN] == tooling.shown_tools(["get weather!"])
