"""Every row of the table agrees with the protocol's schema and with our models."""

from __future__ import annotations

import types
import typing

import attrs
import pytest

from lmstudio.wire import endpoints as module
from lmstudio.wire.common import ModelQuery, ModelSpecifier
from lmstudio.wire.converter import structure, unstructure
from lmstudio.wire.endpoints import ENDPOINTS, endpoint
from lmstudio.wire.llm import Message, Part
from lmstudio.wire.repository import ArtifactTarget, SearchIdentifier
from schema import SCHEMA, definitions, problems

ROWS = [pytest.param(row, id="/".join(key)) for key, row in ENDPOINTS.items()]
#: Values of required fields by their type.
PLAIN = {str: "x", int: 1, float: 0.5, bool: True}
#: Models whose fields mean something to each other.
SAMPLES = {
    Message: Message(role="user", content=[Part(type="text", text="x")]),
    Part: Part(type="text", text="x"),
    ModelSpecifier: ModelSpecifier(query=ModelQuery(identifier="x")),
    ArtifactTarget: ArtifactTarget(type="artifact", owner="x", name="x"),
    SearchIdentifier: SearchIdentifier(type="hf", identifier="x"),
}


def sample(kind):
    """A value of a type, with as little in it as there may be."""
    if kind in SAMPLES:
        return SAMPLES[kind]
    if kind in PLAIN:
        return PLAIN[kind]
    if typing.get_origin(kind) is list:
        return [sample(typing.get_args(kind)[0])]
    if isinstance(kind, types.UnionType):
        return sample(typing.get_args(kind)[0])
    if not attrs.has(kind):
        return {}
    attrs.resolve_types(kind)
    fields = attrs.fields(kind)
    return kind(
        **{f.name: sample(f.type) for f in fields if f.default is attrs.NOTHING}
    )


def name_in_schema(row, what):
    """The definition of a part of an endpoint; None where the schema has none."""
    if not SCHEMA.is_file():
        pytest.skip(f"the schema of the protocol is not at {SCHEMA}")
    name = f"{row.namespace}/{row.kind}/{row.name}/{what}"
    return name if name in definitions() else None


def types_in(node):
    """The types of packets that a definition tells apart."""
    return {
        kind
        for variant in node.get("anyOf", node.get("oneOf", [node]))
        for kind in (
            types_in(variant)
            if "properties" not in variant
            else [variant["properties"]["type"]["const"]]
        )
    }


@pytest.mark.parametrize("row", ROWS)
def test_keys(row):
    """A row stands under its own namespace and name."""
    assert row is ENDPOINTS[row.namespace, row.name]
    assert row is endpoint(row.namespace, row.name)
    assert row.kind in ("rpc", "channel")


@pytest.mark.parametrize("row", ROWS)
def test_kinds(row):
    """Only channels have packets, only calls have results and are repeated."""
    if row.kind == "rpc":
        assert ((), ()) == (row.packets, row.requests)
    else:
        assert (None, False) == (row.result, row.repeatable)
    if row.repeatable:
        assert row.result is not None


@pytest.mark.parametrize("row", ROWS)
def test_parameters(row):
    """The least that a client may send fits the schema and comes back."""
    if row.parameter in (None, dict):  # none, or one that nobody looks at
        return
    value = sample(row.parameter)
    wire = unstructure(value)

    assert value == structure(wire, row.parameter, row.name)
    what = "parameter" if row.kind == "rpc" else "creationParameter"
    name = name_in_schema(row, what)
    assert [] == (problems(name, wire) if name else [])


@pytest.mark.parametrize("row", ROWS)
def test_results(row):
    """The least that a server may answer comes back."""
    if row.result is None:
        return
    value = sample(row.result)
    assert value == structure(unstructure(value), row.result, row.name)


@pytest.mark.parametrize("row", ROWS)
def test_packets(row):
    """The types of packets are those of the schema, in both directions."""
    if row.kind == "rpc":
        return
    for what, known in (
        ("toClientPacket", row.packets),
        ("toServerPacket", row.requests),
    ):
        name = name_in_schema(row, what)
        assert set(known) == (types_in(definitions()[name]) if name else set(known))


@pytest.mark.parametrize("row", ROWS)
def test_only_reading_is_repeated(row):
    """What loads, unloads, uploads or stops something is never sent twice."""
    reads = ("list", "get", "count", "tokenize", "version", "info", "apply", "embed")
    reads += ("estimate", "search", "isAuthenticated", "fuzzyFind", "lmLinkStatus")
    is_reading = row.kind == "rpc" and row.name.startswith(reads)
    assert is_reading == row.repeatable


def test_both_kinds_of_models_have_the_same_calls():
    """What is true of text models is in ``embedding`` too, but for predictions."""
    shared = {row.name for row in module._models("embedding")}
    names = {row.name for row in ENDPOINTS.values() if row.namespace == "llm"}
    assert shared < names
    assert {"predict", "completeRawText", "applyPromptTemplate"} == names - shared
