"""Options of prompt templates: keywords and the official mapping are the same."""

from __future__ import annotations

import pytest

from lmstudio import LMStudioTypeError, LMStudioValueError
from lmstudio.templates import template_options
from lmstudio.wire.llm import TemplateOptions


def now() -> str:
    """The time."""
    return "12:00"


def test_nothing():
    """Without options nothing is said."""
    assert TemplateOptions() == template_options(None) == template_options({})


def test_all_spellings():
    """Keywords, snake_case and camelCase."""
    keywords = template_options(
        None, omit_bos_token=True, omit_eos_token=False, tools=[now]
    )
    snake = {"omit_bos_token": True, "omit_eos_token": False, "tool_definitions": [now]}
    camel = {"omitBosToken": True, "omitEosToken": False, "toolDefinitions": [now]}

    assert (True, False) == (keywords.omit_bos_token, keywords.omit_eos_token)
    assert ["now"] == [t["function"]["name"] for t in keywords.tool_definitions]
    assert keywords == template_options(snake) == template_options(camel)


def test_definitions_of_the_official_sdk():
    """They travel as they are."""
    parameters = {"type": "object", "properties": {"a": {"type": "number"}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}

    (made,) = template_options({"toolDefinitions": [tool]}).tool_definitions
    assert ("f", parameters) == (
        made["function"]["name"],
        made["function"]["parameters"],
    )


@pytest.mark.parametrize(
    ("opts", "keywords", "kind", "words"),
    [
        (7, {}, LMStudioTypeError, "opts must be a mapping"),
        ({"omitBos": True}, {}, LMStudioValueError, "opts has no 'omitBos'; there are"),
        (
            {"omitBosToken": True},
            {"omit_bos_token": True},
            LMStudioValueError,
            "omit_bos_token is given twice",
        ),
        ({}, {"omit_eos_token": 1}, LMStudioTypeError, "omit_eos_token"),
        ({}, {"tools": "f"}, LMStudioTypeError, "tools must be a list"),
    ],
)
def test_what_is_wrong(opts, keywords, kind, words):
    """Wrong options are named."""
    with pytest.raises(kind, match=words):
        template_options(opts, **keywords)
