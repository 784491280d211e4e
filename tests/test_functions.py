"""Functions become tools: schemas for the model, instances for the function."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
from typing import Annotated, Any, Literal, Optional, TypedDict

import attrs
import pytest

from lmstudio import (
    LMStudioToolError,
    LMStudioTypeError,
    LMStudioValueError,
    ToolFunctionDef,
)
from lmstudio.functions import to_act_with, tool_setting, tools_of, with_tools


class Unit(enum.Enum):
    CELSIUS = "c"
    FAHRENHEIT = "f"


@attrs.frozen
class Place:
    city: str
    country: str = "FR"


@dataclasses.dataclass
class Span:
    days: int


class Options(TypedDict):
    short: bool


def forecast(
    place: Place,
    span: Span,
    unit: Unit = Unit.CELSIUS,
    kind: Literal["rain", "sun"] = "rain",
    near: Optional[list[Place]] = None,  # noqa: UP045
    pair: tuple[int, float] = (1, 2.0),
    options: Options | None = None,
    limit: Annotated[int, "At most so many"] = 3,
) -> Any:
    """Tell the weather.

    Args:
        place: Where.
        unit: Which unit.
        limit: The hint says more.

    Returns:
        A text.
    """
    return place, span, unit, kind, near, pair, options, limit


def only(function):
    """The one tool that is made of something."""
    [tool] = tools_of([function]).values()
    return tool


def add(a: int, b: int = 2) -> int:
    """Add."""
    return a + b


def first(a: int, b: int = 2, /, c: int = 3) -> tuple[int, int, int]:
    return a, b, c


# --- what the model is told


def test_definition():
    """The docstring without its sections describes the tool; defaults are optional."""
    expected = {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Add.",
            "parameters": {
                "type": "object",
                "properties": {
                    "a": {"type": "integer"},
                    "b": {"type": "integer", "default": 2},
                },
                "required": ["a"],
                "additionalProperties": False,
            },
        },
    }
    assert expected == only(add).definition
    assert {"type": "toolArray", "tools": [expected]} == tool_setting(tools_of([add]))
    assert {"type": "none"} == tool_setting({})


def test_schemas_of_hints():
    """Every kind of hint has its schema; classes are defined once."""
    tool = only(forecast).definition["function"]
    schema = tool["parameters"]
    properties = schema["properties"]

    assert "Tell the weather.\n\nReturns: A text." == tool["description"]
    assert ["place", "span"] == schema["required"]
    assert {"$ref": "#/$defs/Place", "description": "Where."} == properties["place"]
    assert ["c", "f"] == properties["unit"]["enum"]
    assert ("c", "Which unit.") == (
        properties["unit"]["default"],
        properties["unit"]["description"],
    )
    assert ["rain", "sun"] == properties["kind"]["enum"]
    assert {"$ref": "#/$defs/Place"} == properties["near"]["anyOf"][0]["items"]
    assert "default" not in properties["near"]
    assert [1, 2.0] == properties["pair"]["default"]
    assert "At most so many" == properties["limit"]["description"]
    assert {"city"} == set(schema["$defs"]["Place"]["required"])


def test_nothing_to_tell():
    """A function without parameters and docstring makes a tool as well."""

    def now() -> str:
        return "now"

    function = only(now).definition["function"]

    assert {"name", "parameters"} == set(function)
    assert {} == function["parameters"]["properties"]
    assert "now" == only(now).call(only(now).arguments(None))


def test_what_a_partial_filled_in_is_hidden():
    """The model never sees what the caller has filled in, such as a key."""

    def search(text: str, key: str) -> str:
        return f"{text} {key}"

    tool = only(functools.partial(search, key="secret"))

    assert "secret" not in str(tool.definition)
    assert ["text"] == list(tool.definition["function"]["parameters"]["properties"])
    assert "x secret" == tool.call(tool.arguments({"text": "x"}))


def test_from_callable():
    """Name and description can be others; the parts can be looked at."""
    made = ToolFunctionDef.from_callable(add, name="plus", description="Sum")

    assert ("plus", "Sum", add) == (made.name, made.description, made.implementation)
    assert {"a": int, "b": {"type": int, "default": 2}} == made.parameters
    assert "plus" == only(made).name
    assert "" == ToolFunctionDef.from_callable(add, description="").description


def test_dict_form():
    """The parts as a dict are the same as a ToolFunctionDef."""
    parts = {
        "name": "add",
        "description": "Add.",
        "parameters": {
            "a": int,
            "b": {"type": Annotated[int, "more"], "default": 2, "description": "less"},
        },
        "implementation": add,
    }
    tool = only(parts)

    assert only(ToolFunctionDef(**parts)).definition == tool.definition
    assert {"type": "integer", "default": 2, "description": "more"} == (
        tool.definition["function"]["parameters"]["properties"]["b"]
    )
    assert 3 == tool.call(tool.arguments({"a": 1}))


RAW = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a"],
        },
        "strict": True,
    },
}


def test_raw_definitions():
    """A definition as OpenAI writes it travels as it is, with a function or without."""
    expected = {k: v for k, v in RAW["function"].items() if k != "strict"}

    assert expected == only(RAW).definition["function"]
    assert None is only(RAW).implementation
    tool = only({**RAW, "implementation": add})
    assert expected == tool.definition["function"]
    assert 5 == tool.call(tool.arguments({"a": 1, "b": 4}))
    bare = only({"type": "function", "function": {"name": "f"}})
    assert {"type": "object", "properties": {}} == (
        bare.definition["function"]["parameters"]
    )


# --- what the function is called with


def test_arguments_become_instances():
    """The function gets what its hints say; what is left out has its own default."""
    tool = only(forecast)

    arguments = tool.arguments(
        {
            "place": {"city": "Paris"},
            "span": {"days": 2.0},
            "unit": "f",
            "near": [{"city": "Lyon", "country": "FR"}],
            "pair": [3, 4],
            "options": {"short": True},
        }
    )

    assert (
        Place("Paris"),
        Span(2),
        Unit.FAHRENHEIT,
        "rain",
        [Place("Lyon")],
        (3, 4.0),
        {"short": True},
        3,
    ) == tool.call(arguments)
    assert "kind" not in arguments


def test_positional_only():
    """Parameters that have no name in calls are filled in by their place."""
    tool = only(first)

    assert (1, 2, 3) == tool.call(tool.arguments({"a": 1}))
    assert (1, 5, 6) == tool.call(tool.arguments({"c": 6, "b": 5, "a": 1}))


class Counter:
    def __init__(self):
        self.count = 0

    def more(self, by: int) -> int:
        """Count."""
        self.count += by
        return self.count

    __call__ = more

    @staticmethod
    def never(by: int) -> int:
        return 0


def test_methods_and_objects():
    """Bound methods, objects and static methods work on what they belong to."""
    counter = Counter()
    tools = tools_of([counter.more, counter, Counter.never])

    assert ["more", "Counter", "never"] == list(tools)
    assert [1, 3, 0] == [
        tool.call({"by": n}) for n, tool in enumerate(tools.values(), 1)
    ]
    assert 3 == counter.count


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "tool add: wrong arguments: 'a' is a required property"),
        (None, "tool add: wrong arguments: 'a' is a required property"),
        ({"a": "1"}, "tool add: wrong arguments: a: '1' is not of type 'integer'"),
        ({"a": None}, "tool add: wrong arguments: a: None is not of type 'integer'"),
        ({"a": 1, "c": 2, "d": 3}, "tool add: unknown argument c, d; it takes a, b"),
    ],
)
def test_wrong_arguments(given, problem):
    """What the model got wrong is said in a sentence that it can use."""
    with pytest.raises(LMStudioToolError) as caught:
        only(add).arguments(given)
    assert problem == str(caught.value)


def test_arguments_that_no_schema_refuses():
    """A class that refuses its own arguments is an error with the place."""

    @attrs.frozen
    class Even:
        n: int = attrs.field()

        @n.validator
        def _check(self, _, value):
            if value % 2:
                raise ValueError("it is odd")

    Even.__annotations__["n"] = int  # the hints here are text

    def halve(number: Even) -> int:
        return number.n // 2

    halve.__annotations__["number"] = Even
    tool = only(halve)

    assert 2 == tool.call(tool.arguments({"number": {"n": 4}}))
    with pytest.raises(LMStudioToolError, match=r"tool halve: .*\.number.*it is odd"):
        tool.arguments({"number": {"n": 3}})


def test_raw_arguments():
    """Without additionalProperties a raw definition takes more than it names."""

    def show(**arguments):
        return arguments

    tool = only({**RAW, "implementation": show})

    assert {"a": 1, "z": 2} == tool.call(tool.arguments({"a": 1, "z": 2}))


# --- what is refused, before anything is sent


def no_hint(a: int, b) -> int:
    return a


def unusable(a: object) -> int:
    return 1


async def waits(a: int) -> int:
    return a


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (no_hint, "parameter b of tool no_hint has no type hint; write one, such as"),
        (unusable, "object at unusable.a has no JSON form"),
        (waits, "tool waits is async"),
        (lambda a: a, "a lambda has no name"),
        ("add", "'add' is no tool; a tool is a function with type hints"),
        (3, "3 is no tool; "),
        ({"name": "x", "parameter": {}}, "{'name': 'x', 'parameter': {}} is no tool"),
        ({"type": "other", "name": "x"}, "{'type': 'other', 'name': 'x'} is no tool"),
        ({"type": "function"}, "{'type': 'function'} is no tool"),
        ({"name": ""}, "the name of a tool must be 1 to 64 letters (a to z), digits"),
        ({"name": "a b!"}, "the name of a tool must be 1 to 64 letters (a to z), digi"),
        ({"name": "x" * 65}, "the name of a tool must be 1 to 64 letters (a to z), di"),
        ({"name": "größe"}, "the name of a tool must be 1 to 64 letters (a to z), dig"),
        ({"name": 3}, "the name of a tool must be text, not 3"),
        ({"name": "x", "description": 3}, "the description of tool x must be text"),
        ({"name": "x", "parameters": [1]}, "parameters of tool x must be a mapping"),
        (
            {"name": "x", "parameters": {"a": {"default": 1}}},
            "parameter a of tool x must be a type, or",
        ),
        (
            {"name": "x", "parameters": {"type": "object", "required": 3}},
            "tool x: the JSON schema is not valid at required",
        ),
        (
            {"type": "function", "function": {"name": "x", "parameters": {"a": 1}}},
            "parameters of tool 'x' must be a JSON schema with",
        ),
        (
            {"name": "x", "implementation": 3},
            "the implementation of tool x must be a function, not 3",
        ),
        (
            {"name": "x", "implementation": waits},
            "tool x is async",
        ),
        (
            {"name": "x", "parameters": {"c": int}, "implementation": add},
            "the implementation of tool x does not fit its parameters c: ",
        ),
        (
            {"name": "x", "implementation": add},
            "the implementation of tool x does not fit its parameters (none): ",
        ),
    ],
)
def test_unusable_tools(given, problem):
    """Each mistake has its sentence, which names the tool and what is wrong."""
    with pytest.raises(LMStudioValueError) as caught:
        tools_of([given])
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize("given", [add, "add", {"name": "x"}, None])
def test_no_list_of_tools(given):
    """One tool alone is no list of tools."""
    with pytest.raises(LMStudioTypeError, match="tools must be a list, not"):
        tools_of(given)


def test_two_of_one_name():
    """Two tools of one name can't be told apart."""
    with pytest.raises(LMStudioValueError, match="two tools are named add; name one"):
        tools_of([add, RAW])


def test_implementations_without_a_signature():
    """What has no signature is taken as it is."""
    tool = only({"name": "x", "parameters": {"a": int}, "implementation": dict})

    assert {"a": 1} == tool.call(tool.arguments({"a": 1}))


@pytest.mark.parametrize("default", [object(), {1: object()}, float("nan"), "\ud800"])
def test_defaults_that_are_no_json(default):
    """A default that has no JSON form is not told, and counts nevertheless."""
    parameters = {"a": {"type": Any, "default": default}}
    tool = only(
        {"name": "x", "parameters": parameters, "implementation": lambda a=1: a}
    )
    schema = tool.definition["function"]["parameters"]

    assert {} == schema["properties"]["a"]
    assert [] == schema.get("required", [])
    assert 1 == tool.call(tool.arguments({}))


@pytest.mark.parametrize(
    ("hint", "default", "shown"),
    [
        (int, "x", "int"),
        (int, 1.5, "int"),
        (int, object(), "int"),
        (Literal["a"], "b", "typing.Literal['a']"),
        (list[int], ["a"], "list[int]"),
        (int | None, "x", "int | None"),
    ],
)
def test_defaults_that_do_not_fit(hint, default, shown):
    """A default that its own hint refuses is an error before anything is sent."""
    parameters = {"a": {"type": hint, "default": default}}
    with pytest.raises(LMStudioTypeError) as caught:
        only({"name": "x", "parameters": parameters})
    said = str(caught.value)
    assert said.startswith("the default of parameter a of tool x is ")
    assert f"which does not fit its type {shown}" in said


@pytest.mark.parametrize(
    ("hint", "default"),
    [
        (int, None),
        (float, 1),
        (tuple[int, int], (1, 2)),
        (set[int], {1}),
        (Annotated[int, "a number"], 1),
        (datetime.date, datetime.date(2026, 11, 22)),
        (datetime.date, "2026-11-22"),
        (int | None, 1),
        (Any, object()),
    ],
)
def test_defaults_that_fit(hint, default):
    """Defaults fit as values, or as JSON has them; None stands for nothing."""
    parameters = {"a": {"type": hint, "default": default}}
    tool = only({"name": "x", "parameters": parameters})

    assert {} == tool.arguments({})


def test_a_description_may_be_none():
    """None is the same as no description."""
    made = ToolFunctionDef(name="x", description=None)

    assert "" == made.description
    assert "description" not in only(made).definition["function"]


# --- options of respond and act


def test_options_of_respond():
    """Tools become the option raw_tools; both at once are refused."""
    assert {"seed": 1} == with_tools({"seed": 1}, None)
    made = with_tools({"seed": 1}, [add])
    assert {"seed", "raw_tools"} == set(made)
    assert ["add"] == [t["function"]["name"] for t in made["raw_tools"]["tools"]]
    assert {"type": "none"} == with_tools({}, [])["raw_tools"]
    with pytest.raises(LMStudioValueError, match="'rawTools' is no option here"):
        with_tools({"rawTools": {}}, [add])


def test_options_of_act():
    """The choice is taken out; what does not go together with act is refused."""
    options = {"seed": 1, "toolChoice": "required"}

    tools, choice = to_act_with(options, [add])

    assert ["add"] == list(tools)
    assert "required" == choice
    assert {"seed": 1} == options
    assert None is to_act_with({}, [add])[1]


@pytest.mark.parametrize(
    ("options", "tools", "problem"),
    [
        ({"raw_tools": {}}, [add], "'raw_tools' is no option here"),
        ({"structured": {}}, [add], "act() takes no structured; ask for it afterwards"),
        ({}, [], "act() needs a tool; without any use respond()"),
        ({}, [RAW], "act() can't call tool add, which has no implementation"),
    ],
)
def test_act_without(options, tools, problem):
    """A run needs tools that it can call, and nothing that contradicts them."""
    with pytest.raises(LMStudioValueError) as caught:
        to_act_with(options, tools)
    assert problem in str(caught.value)
