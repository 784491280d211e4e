"""Any settings together go to the wire and back, and any answer is read or refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmstudio.errors import LMStudioError
from lmstudio.wire.common import KVConfig, KVField, KVLayer, KVStack
from lmstudio.wire.config import (
    EMBEDDING_LOAD,
    LOAD,
    PREDICTION,
    RAW,
    collapse,
)
from lmstudio.wire.converter import camel, structure, unstructure
from wire.test_config import right_values

TABLES = (LOAD, EMBEDDING_LOAD, PREDICTION)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(("checked", "value", "type", "ratio", "x")), inner
        )
    ),
    max_leaves=5,
)


def chosen(table):
    """Right settings of a table: a few of its rows, with values of `right_values`."""
    rows = [row for row in table.settings if row.wrap != RAW]
    each = {row.name: st.sampled_from(right_values(row)) for row in rows}
    return st.fixed_dictionaries({}, optional=each)


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.what)
@settings(max_examples=40)
@given(data=st.data())
def test_settings_make_the_round_trip(table, data):
    """Through JSON and back they are the same, in both spellings and any layers."""
    given_ = data.draw(chosen(table))
    respelled = {
        camel(name) if data.draw(st.booleans()) else name: value
        for name, value in given_.items()
    }
    fields = table.encode(respelled)
    where = data.draw(st.integers(0, len(fields)))
    layers = [
        KVLayer(layer_name=name, config=KVConfig(fields=part))
        for name, part in (("base", fields[:where]), ("apiOverride", fields[where:]))
    ]
    sent = json.loads(json.dumps(unstructure(KVStack(layers=layers))))

    came = collapse(structure(sent, KVStack, "x"))
    assert given_ == table.decode(came)
    assert given_ == table.decode(structure(unstructure(came), KVConfig, "x"))


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.what)
@settings(max_examples=40)
@given(data=st.data())
def test_any_answer_is_read_or_refused(table, data):
    """Whatever values a server's settings have, they are read or refused by name."""
    keys = st.sampled_from([row.key for row in table.settings]) | st.text(max_size=5)
    fields = data.draw(
        st.lists(st.builds(KVField, key=keys, value=json_values), max_size=6)
    )
    try:
        found = table.decode(KVConfig(fields=fields))
    except LMStudioError as exc:
        assert any(field.key in str(exc) for field in fields)
    else:
        unknown = {field.key for field in fields}  # newer ones keep their keys
        assert {row.name for row in table.settings} | unknown >= set(found)
