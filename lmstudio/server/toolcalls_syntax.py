"""How models write calls of tools: one row for each way, found by the template."""

# ruff: noqa: RUF001 - the marks of DeepSeek have such bars
from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Syntax:
    """How a model writes calls of tools.

    What stands between the marks is read in all forms that models use: JSON with a name
    and arguments, a list of such, a name with JSON behind it, or tags.

    Attributes:
        name: For people.
        sign: A text in templates of models that write so.
        opens: Marks in front of a call.
        closes: Marks behind a call.
        wraps: Marks around several calls, and others that say nothing; dropped.
        tokens: Other texts that may be control tokens and have to stay in the output.
        arguments: What the arguments are called in JSON.
        forced: What the answer begins with when a call is forced.
        stops: Texts that end the answer.
    """

    name: str
    sign: str = ""
    opens: tuple[str, ...] = ()
    closes: tuple[str, ...] = ()
    wraps: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    arguments: str = "arguments"
    forced: str = ""
    stops: tuple[str, ...] = ()

    @property
    def marks(self) -> tuple[str, ...]:
        """All texts that an engine must not drop from the output."""
        return (*self.opens, *self.closes, *self.wraps, *self.tokens)


#: For models whose template knows no tools; `toolcalls_prompt` explains it to them.
DEFAULT = Syntax(
    name="default",
    opens=("[TOOL_REQUEST]",),
    closes=("[END_TOOL_REQUEST]",),
    forced="[TOOL_REQUEST]",
    stops=("[TOOL_RESULT]",),
)
#: For templates that know tools and have none of the marks below: bare JSON.
BARE = Syntax(name="bare")

#: The first whose sign is in a template is the one.
SYNTAXES = (
    Syntax(
        name="deepseek",
        sign="<｜tool▁call▁begin｜>",
        opens=("<｜tool▁call▁begin｜>",),
        closes=("<｜tool▁call▁end｜>",),
        wraps=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
        tokens=("<｜tool▁sep｜>",),
        forced="<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>",
    ),
    Syntax(
        name="harmony",
        sign="to=functions.",
        opens=(
            "<|channel|>commentary to=functions.",
            "<|channel|>analysis to=functions.",
            "<|start|>assistant to=functions.",
        ),
        closes=("<|call|>",),
        wraps=(
            "<|start|>assistant<|channel|>final<|message|>",
            "<|start|>assistant<|channel|>commentary<|message|>",
            "<|channel|>final<|message|>",
            "<|channel|>commentary<|message|>",
            "<|start|>assistant",
        ),
        tokens=("<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|constrain|>"),
    ),
    Syntax(
        name="mistral",
        sign="[TOOL_CALLS]",
        opens=("[TOOL_CALLS]",),
        tokens=("[ARGS]", "[CALL_ID]"),
        forced="[TOOL_CALLS]",
    ),
    Syntax(
        name="command",
        sign="<|START_ACTION|>",
        opens=("<|START_ACTION|>",),
        closes=("<|END_ACTION|>",),
        wraps=("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
        arguments="parameters",
        forced="<|START_ACTION|>",
    ),
    Syntax(
        name="granite",
        sign="<|tool_call|>",
        opens=("<|tool_call|>",),
        closes=("</|tool_call|>", "<|/tool_call|>"),
        forced="<|tool_call|>",
    ),
    Syntax(
        name="hermes",
        sign="<tool_call>",
        opens=("<tool_call>",),
        closes=("</tool_call>",),
        forced="<tool_call>\n",
    ),
    Syntax(
        name="functions",
        sign="<function=",
        opens=("<function=",),
        closes=("</function>",),
    ),
    Syntax(
        name="llama",
        sign="<|python_tag|>",
        opens=("<|python_tag|>",),
        arguments="parameters",
    ),
)
#: What Llama's templates without the tag tell the model to write.
_PARAMETERS = '"parameters": dictionary'


def syntax_of(template: str | None) -> Syntax:
    """The way of a model whose template knows tools; `DEFAULT` where it does not."""
    if not knows_tools(template):
        return DEFAULT
    assert template is not None
    for syntax in SYNTAXES:
        if syntax.sign in template:
            if syntax.name == "hermes" and "<function=" in template:
                opens = (*syntax.opens, "<function=")
                return attrs.evolve(syntax, opens=opens)
            return syntax
    arguments = "parameters" if _PARAMETERS in template else "arguments"
    return attrs.evolve(BARE, arguments=arguments)


def knows_tools(template: str | None) -> bool:
    """Whether a template shows tools to the model."""
    return "tools" in (template or "")
