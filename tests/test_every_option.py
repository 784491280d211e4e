"""Every setting of the protocol can be given, in every spelling, and is sent right.

The protocol's description and schema stand beside the repository; without them nothing
is compared with these.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lmstudio import LMStudioClient, LMStudioError
from lmstudio.testing import FakeServer
from lmstudio.wire.config import CHECKBOX, EMBEDDING_LOAD, LOAD, PREDICTION
from lmstudio.wire.model import camel
from test_schema import DEFINITIONS, all_problems

PAGE = Path(__file__).parents[2] / "shared" / "protocol" / "PROTOCOL.md"
#: Keys that no option has: those of another call, those that go with an option, and a
#: prefix of keys that anyone may make.
WITHOUT = {
    "retrieval.databaseFile",
    "retrieval.chunkingMethod",
    "retrieval.limit",
    "retrieval.embeddingModel",
    "llm.load.mlx.autoFit",
    "llm.load.yuzu.autoFit",
    "ext.virtualModel.customField.*",
}
TABLES = (LOAD, EMBEDDING_LOAD, PREDICTION)
TEMPLATE = {
    "type": "manual",
    "manual_prompt_template": {"before_user": "Q: "},
    "stop_strings": ["Q: "],
}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
#: Values as users write them, of the options that take no number or switch.
VALUES = {
    ("load", "prompt_template"): "{{ messages }}",
    "prompt_template": TEMPLATE,
    "num_cpu_expert_layers_ratio": "max",
    "gpu_ratio": "off",
    "gpu_split": {"strategy": "priority_order", "priority": [1]},
    "reasoning_budget_message": "Enough.",
    "llama_k_cache_quantization_type": "q8_0",
    "llama_v_cache_quantization_type": "Q4_0",
    "speculative_draft_model": "draft",
    "llama_cpp_arguments_override": {"override_parameters": {"-ub": 8}},
    "mlx_kv_cache_quantization": {"bits": 4},
    "vllm_reasoning_parser": "deepseek_r1",
    "vllm_tool_call_parser": "hermes",
    "env_vars": {"HSA_OVERRIDE_GFX_VERSION": "11.0.0"},
    "stop_strings": "END",
    "tool_call_stop_strings": ["END"],
    "context_overflow_policy": "rolling_window",
    "structured": {"type": "json", "json_schema": {"type": "object"}},
    "raw_tools": [TOOL],
    "tool_choice": "auto",
    "tool_naming": "snake_case",
    "system_prompt": "Be brief.",
    "context_prefill": [{"type": "json_file", "abs_path": "/a.json"}],
    "reasoning_parsing": {"start_string": "<t>", "end_string": "</t>"},
    "draft_model": "draft",
    "mirostat_sampling": {"version": 2, "target_entropy": 4},
    "logit_bias": {5: "-inf", 6: 1.5},
}


def value_of(table, row):
    """What a user would give."""
    found = VALUES.get((table.what, row.name), VALUES.get(row.name))
    if found is not None:
        return found
    for number in (1, True):
        try:
            row.check(number)
        except ValueError:
            continue
        return number
    raise AssertionError(f"there is no value for {row.name}")


def spellings(row):
    """Every name of an option."""
    names = (row.name, *row.also)
    return list(dict.fromkeys([*names, *map(camel, names)]))


def rows_of_page():
    """Key and value of every row in the tables of settings of the protocol."""
    text = PAGE.read_text("utf-8")
    part = text[text.index("### 7.3 ") : text.index("### 7.6 ")]
    rows = re.findall(r"^\| `([\w.*]+)` \| ([^|]+?) \|", part, re.MULTILINE)
    return [(key, value) for key, value in rows if "." in key or key == "envVars"]


@pytest.mark.skipif(not PAGE.is_file(), reason=f"{PAGE.name} is not there")
def test_every_setting_of_the_protocol_is_an_option():
    """Each key has a row in our tables, wrapped as the protocol says."""
    described = dict(rows_of_page())
    ours = {row.key: row for table in TABLES for row in table.settings}
    assert 90 < len(described)
    assert described.keys() - ours.keys() == WITHOUT
    assert set() == ours.keys() - described.keys()
    wrapped = {key for key, value in described.items() if value.startswith("checkbox")}
    assert wrapped == {key for key, row in ours.items() if row.wrap == CHECKBOX}


@pytest.fixture
def fake():
    with FakeServer(["any", "text-embed"], loaded=["any"], extensions=()) as made:
        yield made


def sent(fake, endpoint):
    """The fields of the last call of an endpoint, by key."""
    stack = "predictionConfigStack" if endpoint == "predict" else "loadConfigStack"
    layers = fake.parameters(endpoint)[-1][stack]["layers"]
    assert "apiOverride" == layers[0]["layerName"]
    return {field["key"]: field["value"] for field in layers[0]["config"]["fields"]}


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.what)
def test_every_option_is_sent(fake, table):
    """In each spelling the same goes out, and it fits the schema."""
    with LMStudioClient(fake.host) as client:
        model = client.llm.get("any")
        for row in table.settings:
            found = []
            for name in spellings(row):
                options = {name: value_of(table, row)}
                try:  # some settings mean nothing here; they were sent
                    if table is PREDICTION:
                        model.respond("x", config=options).result()
                    elif table is LOAD:
                        client.llm.load("any", config=options).unload()
                    else:
                        client.embedding.load("text-embed", config=options).unload()
                except LMStudioError as exc:
                    assert not isinstance(exc, ValueError), (name, exc)
                endpoint = "predict" if table is PREDICTION else "loadModel"
                found.append(sent(fake, endpoint)[row.key])
            assert found[1:] == found[:-1], row.name
            is_checkbox = isinstance(found[0], dict) and "checked" in found[0]
            assert (row.wrap == CHECKBOX) == is_checkbox, row.name
    if DEFINITIONS:
        problems, count = all_problems(fake)
        assert [] == problems
        assert len(table.settings) < count


def test_options_that_are_off(fake):
    """False is sent in the off form of each option that has one."""
    with LMStudioClient(fake.host) as client:
        model = client.llm.get("any")
        for row in PREDICTION.settings:
            if row.wrap == CHECKBOX:
                model.respond("x", **{row.name: False}).exception(timeout=5)
                off = {"checked": False, "value": row.off}
                assert off == sent(fake, "predict")[row.key]
        model.respond("x", raw={"llm.prediction.new": [1]}).result()
        assert {"llm.prediction.new": [1]} == sent(fake, "predict")
    if DEFINITIONS:
        assert [] == all_problems(fake)[0]
