"""The template tells how a model writes calls."""

from __future__ import annotations

import pytest

from lmstudio.server.prompt import CHATML
from lmstudio.server.toolcalls_syntax import DEFAULT, SYNTAXES, knows_tools, syntax_of


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
def test_the_sign_of_each(syntax):
    """A template with tools and the sign of a syntax belongs to it."""
    assert syntax is syntax_of("{{ tools }}" + syntax.sign)


@pytest.mark.parametrize("template", [None, "", CHATML, "<tool_call>"])
def test_templates_without_tools(template):
    """A template that shows no tools gets the form that we explain."""
    assert not knows_tools(template)
    assert DEFAULT is syntax_of(template)


def test_functions_in_tags():
    """A function may stand without the tag around it where templates have both."""
    syntax = syntax_of("{{ tools }}<tool_call><function=x>")

    assert ("<tool_call>", "<function=") == syntax.opens


@pytest.mark.parametrize(
    ("more", "arguments"),
    [("", "arguments"), ('"parameters": dictionary', "parameters")],
)
def test_templates_without_a_sign(more, arguments):
    """Without a sign calls are bare JSON, with the word that the template has."""
    syntax = syntax_of("{{ tools }}" + more)

    assert ((), arguments) == (syntax.opens, syntax.arguments)


def test_marks_differ():
    """No mark of a start is the beginning of another: the first would hide it."""
    for syntax in (*SYNTAXES, DEFAULT):
        marks = (*syntax.opens, *syntax.closes)
        assert not [
            (a, b) for a in marks for b in marks if a != b and b.startswith(a)
        ], syntax.name
