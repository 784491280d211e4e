"""A grammar tells the texts that obey it from those that begin to and the others."""

from __future__ import annotations

import re

import hypothesis
import hypothesis.strategies as st
import pytest

from lmstudio.server.gbnf import Grammar, Unreadable

JSON = r"""
# The grammar of an object.
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | escape )* "\"" ws
escape ::= "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4})
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [1-9]{1,3})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""


@pytest.mark.parametrize(
    ("grammar", "text", "verdict"),
    [
        ('root ::= "yes" | "no"', "yes", "whole"),
        ('root ::= "yes" | "no"', "ye", "begun"),
        ('root ::= "yes" | "no"', "yesno", "wrong"),
        ('root ::= "yes" | "no"', "", "begun"),
        ('root ::= ""', "", "whole"),
        ('root ::= ("a" | ) "b"{2,3} [^\\n]', "bbx", "whole"),
        ('root ::= "b"{2,}', "b", "begun"),
        ('root ::= "b"{2,}', "bbbbb", "whole"),
        ('root ::= "b"{2}', "bbb", "wrong"),
        ('root ::= "\\x41" "\\u00e4" [\\x42-\\x43-]', "Aä-", "whole"),
        ('root ::= "\\U0001F600"', "😀", "whole"),
        ("root ::= [^\\]a-c]", "b", "wrong"),
        ("root ::= [a\\]-]", "]", "whole"),
        ('root ::= one\none ::= "1" two?\ntwo ::= "2" one', "121", "whole"),
        ('root ::= "x"\nroot ::= "y"', "y", "whole"),
        ("root ::= .{3}", "日本", "begun"),
        ('root ::= "ab"*', "abab", "whole"),
        ('root ::= "ab"*', "abb", "wrong"),
        ('root ::= "(" root ")" | ""', "(((", "begun"),
        ('root ::= "(" root ")" | ""', "((()))", "whole"),
        (JSON, '{"a": [1, -2.5e3, {"b": "\\u00e4\\n"}], "c": null}', "whole"),
        (JSON, '{"a": [1, -2.', "begun"),
        (JSON, "Sure, here is", "wrong"),
    ],
)
def test_verdicts(grammar, text, verdict):
    """A text is whole, begun or wrong."""
    assert verdict == Grammar(grammar).judge(text)


@hypothesis.given(st.text("ab", max_size=8))
def test_like_regular_expressions(text):
    """Grammars without recursion judge as regular expressions do."""
    pattern = re.compile(r"(a|ba){1,3}b?(?:ab)*")
    verdict = Grammar('root ::= ("a" | "ba"){1,3} "b"? ("ab")*').judge(text)

    assert (pattern.fullmatch(text) is not None) == (verdict == "whole")


@pytest.mark.slow
def test_too_long_a_question():
    """A grammar that takes for ever leaves the question open."""
    assert "open" == Grammar('root ::= root root | "a"').judge("a" * 500)


@pytest.mark.parametrize(
    "grammar",
    [
        *("", "root ::= other", 'x ::= "a"', "root ::= <[1]>", 'root ::= ("a"'),
        *('root "a"', "root ::= )", 'root ::= * "a"'),
    ],
)
def test_other_grammars(grammar):
    """What is not known here is left to the engine."""
    with pytest.raises(Unreadable):
        Grammar(grammar)
