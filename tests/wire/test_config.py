"""Every setting goes to the wire and back, and a wrong one is explained."""

from __future__ import annotations

import math
import re

import pytest

from ids import stable
from lmstudio.errors import LMStudioValueError, shown
from lmstudio.wire import checks
from lmstudio.wire.common import KVConfig, KVField, KVLayer, KVStack
from lmstudio.wire.config import (
    CHECKBOX,
    EMBEDDING_LOAD,
    LOAD,
    PREDICTION,
    collapse,
)
from lmstudio.wire.converter import camel, unstructure
from schema import problems

TABLES = (LOAD, EMBEDDING_LOAD, PREDICTION)
ROWS = [
    pytest.param(table, row, id=f"{table.what}-{row.name}")
    for table in TABLES
    for row in table.settings
]
#: Values to try on each row: those that its check takes are right.
SAMPLES = (
    *(0, 1, 0.5, 3, 500, True, "text", ["a"], "max", "f16", "stopAtLimit", "snakeCase"),
    *([[5, "-inf"]], {"A": "b"}),
)
#: Mappings that the protocol's schema knows the shape of.
SHAPES = {
    "structured": {"type": "json", "jsonSchema": {"type": "object"}},
    "raw_tools": {
        "type": "toolArray",
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "f",
                    "description": "d",
                    "parameters": {"type": "object", "properties": {}},
                },
            }
        ],
    },
    "tool_choice": {"type": "generic", "mode": "auto"},
    "mirostat_sampling": {"version": 2, "learningRate": 0.1, "targetEntropy": 5},
    "context_prefill": [{"type": "jsonFile", "absPath": "/a"}],
    "llama_cpp_arguments_override": {
        "enabled": True,
        "disabledParameters": ["a"],
        "overrideParameters": [{"key": "a", "value": "b"}],
        "excludeAllConfig": False,
    },
    "prompt_template": {
        "type": "jinja",
        "jinjaPromptTemplate": {"template": "{{ x }}"},
        "stopStrings": [],
    },
    "reasoning_parsing": {"enabled": True, "startString": "<", "endString": ">"},
    "gpu_split": {
        "strategy": "evenly",
        "disabledGpus": [],
        "priority": [],
        "customRatio": [],
    },
    "mlx_kv_cache_quantization": {
        "enabled": True,
        "bits": 8,
        "groupSize": 64,
        "quantizedStart": 5000,
    },
}


#: The same when a model is loaded: without stop strings.
LOAD_TEMPLATE = {"type": "jinja", "jinjaPromptTemplate": {"template": "{{ x }}"}}


def right_values(row):
    """Samples that fit, in their wire form."""
    found = []
    for value in (*SAMPLES, SHAPES.get(row.name, 0), LOAD_TEMPLATE):
        try:
            found.append(row.check(value))
        except ValueError:
            continue
    return found


def wire(field):
    return {field.key: field.value}


@pytest.mark.parametrize(("table", "row"), ROWS)
def test_every_row_makes_the_round_trip(table, row):
    """In any of its names, a value comes back under the canonical one."""
    values = right_values(row)
    assert values, "no sample fits this row"
    for value in values:
        expected = {"checked": True, "value": value} if row.wrap == CHECKBOX else value
        for name in (row.name, camel(row.name), *row.also, *map(camel, row.also)):
            (field,) = table.encode({name: value})
            assert {row.key: expected} == wire(field)
        assert {row.name: value} == table.decode(KVConfig(fields=[field]))
    assert [] == table.encode({row.name: None})
    assert row is table.by_key(row.key)
    assert row is table.find(camel(row.name))


@pytest.mark.parametrize(("table", "row"), ROWS)
def test_every_row_refuses_what_is_wrong(table, row):
    """The error names the option, what would be right, and what was given."""
    least, *greatest = limits(row) or [None]
    beyond = [] if least is None else [least - 1, *(limit + 1 for limit in greatest)]
    for value in (*beyond, object(), b"bytes", "\ud800", {1: "x"}, float("nan")):
        with pytest.raises(LMStudioValueError) as caught:
            table.encode({row.name: value})
        message = str(caught.value)
        assert message.startswith(f"{table.what} option {row.name} must be ")
        assert message.endswith(f", not {value!r}")
        assert ("(or False to switch it off)" in message) == (row.wrap == CHECKBOX)


@pytest.mark.parametrize(
    ("table", "row"), [p for p in ROWS if p.values[1].wrap == CHECKBOX]
)
def test_every_checkbox_can_be_off(table, row):
    """False is off, with the value that the application writes beside it."""
    (field,) = table.encode({row.name: False})

    assert {row.key: {"checked": False, "value": row.off}} == wire(field)
    assert {row.name: False} == table.decode(KVConfig(fields=[field]))
    for value in (
        {"checked": True, "value": False},
        {"checked": False},
        {"checked": False, "value": 5},
    ):
        config = KVConfig(fields=[KVField(key=row.key, value=value)])
        assert {row.name: False} == table.decode(config)


@pytest.mark.parametrize(("table", "row"), ROWS)
def test_every_value_fits_the_schema(table, row):
    """What a check takes, the protocol's schema takes, limits included."""
    of = {
        LOAD: "llmLoadModelConfig",
        EMBEDDING_LOAD: "embeddingLoadModelConfig",
        PREDICTION: "llmPredictionConfigInput",
    }[table]
    shape = SHAPES.get(row.name)
    values = [shape] if shape else [] if row.check is checks.mapping else SAMPLES
    for value in [*right_values_of(row, values), *limits(row)]:
        config = KVConfig(fields=table.encode({row.name: value}))
        assert [] == problems("kvConfig", unstructure(config))
        if row.name == "gpu_split":
            assert [] == problems("gpuSplitConfig", value)
        if row.name == "gpu_ratio":
            assert [] == problems("llmLlamaAccelerationOffloadRatio", value)
        assert [] == problems(of, {row_name_in_schema(row): value})


def row_name_in_schema(row):
    """The option's name in the schema: acronyms keep their capitals there."""
    return next((name for name in row.also if "KVCache" in name), camel(row.name))


def right_values_of(row, values):
    for value in values:
        try:
            yield row.check(value)
        except ValueError:
            continue


def limits(row):
    """The least and the greatest value that a check takes, by its own words."""
    try:
        row.check(object())
    except ValueError as exc:
        words = r"number (?:of at least|from) (-?\d+)(?: to (\d+))?"
        found = re.search(words, str(exc))
        numbers = found.groups() if found else ()
        return [int(number) for number in numbers if number is not None]
    raise AssertionError("the check takes anything")


def test_keys_and_names_are_unique():
    """No two rows of a table share a key or a name in any spelling."""
    for table in TABLES:
        keys = [row.key for row in table.settings]
        names = [
            spelling
            for row in table.settings
            for spelling in {*map(camel, (row.name, *row.also)), row.name, *row.also}
        ]
        assert sorted(set(keys)) == sorted(keys)
        assert sorted(set(names)) == sorted(names)
        assert [row.name for row in table.settings] == table.names()


@pytest.mark.parametrize(
    ("table", "name", "message"),
    [
        (
            PREDICTION,
            "temprature",
            "unknown prediction option 'temprature'; did you mean 'temperature'?",
        ),
        (
            PREDICTION,
            "maxPredictedToken",
            "unknown prediction option 'maxPredictedToken'; did you mean 'max_tokens'?",
        ),
        (PREDICTION, "zzzzzzzz", "unknown prediction option 'zzzzzzzz'"),
        (PREDICTION, 5, "unknown prediction option 5"),
        (
            PREDICTION,
            "contextLength",
            "'contextLength' is a load option, not a prediction option",
        ),
        (
            LOAD,
            "temperature",
            "'temperature' is a prediction option, not a load option",
        ),
        (
            EMBEDDING_LOAD,
            "flash_attention",
            "'flash_attention' is a load option, not an embedding load option",
        ),
        (
            EMBEDDING_LOAD,
            "top_k",
            "'top_k' is a prediction option, not an embedding load option",
        ),
    ],
)
def test_unknown_and_misplaced_names(table, name, message):
    """The nearest name is proposed, or the place where the option belongs."""
    for value in (1, None):
        with pytest.raises(LMStudioValueError) as caught:
            table.encode({name: value})
        assert message == str(caught.value)


def test_one_option_under_two_names():
    """Nothing is dropped in silence: giving an option twice is an error."""
    with pytest.raises(LMStudioValueError) as caught:
        PREDICTION.encode({"max_tokens": 5, "maxPredictedTokens": 6})
    assert (
        "prediction option max_tokens is given twice, as 'max_tokens' and as"
        " 'maxPredictedTokens'"
    ) == str(caught.value)
    (field,) = PREDICTION.encode({"max_tokens": None, "maxPredictedTokens": 6})
    assert {"checked": True, "value": 6} == field.value


def test_no_limit_in_the_words_of_the_readme():
    """-1 tokens means no limit."""
    (field,) = PREDICTION.encode({"max_predicted_tokens": -1})
    assert {"checked": False, "value": 1} == field.value


def test_messages_of_limits():
    """Limits stand in the message as people write them."""
    with pytest.raises(LMStudioValueError) as caught:
        LOAD.encode({"contextLength": 0})
    assert (
        "load option context_length must be a whole number of at least 1, not 0"
    ) == str(caught.value)
    with pytest.raises(LMStudioValueError) as caught:
        PREDICTION.encode({"top_p": 2})
    assert (
        "prediction option top_p_sampling must be a number from 0 to 1"
        " (or False to switch it off), not 2"
    ) == str(caught.value)


def test_what_newer_servers_report():
    """Keys without a row keep the server's name; bare values stay bare."""
    fields = [
        KVField(key="llm.load.new", value=1),
        KVField(key="llm.load.seed", value=7),
        KVField(key="llm.load.seed", value={"odd": 1}),
        KVField(key="llm.load.contextLength", value={"checked": True}),
    ]
    assert {
        "llm.load.new": 1,
        "seed": {"odd": 1},
        "context_length": {"checked": True},
    } == LOAD.decode(KVConfig(fields=fields))
    assert LOAD.find("new") is None
    assert LOAD.by_key("new") is None


@pytest.mark.parametrize("table", TABLES)
def test_raw_settings(table):
    """The server's own keys go as they are, in front of the named options."""
    expected = [KVField(key="x.new", value=[1]), KVField(key="y", value=None)]
    for raw in (
        {"x.new": (1,), "y": None},
        {"fields": [{"key": "x.new", "value": [1]}, {"key": "y"}]},
    ):
        assert expected == table.encode({"raw": raw, "seed": None})
    (_, last) = table.encode({"seed": 5, "raw": {"x": 1}})
    assert table.find("seed").key == last.key


@pytest.mark.parametrize(
    "raw",
    [
        *(5, "x", ["x"], {1: 2}, {"x": math.nan}, {"fields": [{}]}, {"fields": ["x"]}),
        {"x": object()},
        {"\ud800": 1},
    ],
    ids=stable,
)
def test_wrong_raw_settings(raw):
    """What is no JSON can't travel."""
    with pytest.raises(LMStudioValueError) as caught:
        PREDICTION.encode({"raw": raw})
    assert (
        "prediction option raw must be a mapping of the server's keys to JSON values,"
        ' such as {"llm.prediction.temperature": 0.5}, not '
    ) + shown(raw) == str(caught.value)


def test_an_option_that_is_in_raw_as_well():
    """Nothing is dropped in silence: giving a setting by name and by key is one."""
    with pytest.raises(LMStudioValueError) as caught:
        PREDICTION.encode({"temperature": 1, "raw": {"llm.prediction.temperature": 1}})
    assert "prediction option temperature is given twice, also in raw" == str(
        caught.value
    )


def test_layers_collapse():
    """A later layer wins key by key, and a later field of one layer."""

    def layer(name, *pairs):
        fields = [KVField(key=key, value=value) for key, value in pairs]
        return KVLayer(layer_name=name, config=KVConfig(fields=fields))

    stack = KVStack(
        layers=[
            layer("hardware", ("a", 1), ("b", {"x": 1})),
            layer("apiOverride", ("b", {"y": 2}), ("c", 3), ("c", 4)),
        ]
    )
    assert {"a": 1, "b": {"y": 2}, "c": 4} == {
        field.key: field.value for field in collapse(stack).fields
    }
    assert KVConfig() == collapse(KVStack())
