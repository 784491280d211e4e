"""Presets are read from files, found by loose names, and never break the server."""

from __future__ import annotations

import json
import logging

import pytest

from lmstudio import LMStudioClient, LMStudioPresetNotFoundError
from lmstudio.server.failures import Failure
from lmstudio.server.presets import (
    LARGEST,
    FixedPresets,
    Preset,
    PresetFolder,
    find,
    read_preset,
)
from lmstudio.testing import FakeServer
from lmstudio.wire.common import KVConfig, KVField
from server.benches import on_a_bench

FIELDS = {"fields": [{"key": "llm.prediction.temperature", "value": 0.5}]}
CONTENT = {"identifier": "@local:a", "name": "A", "operation": FIELDS, "load": {}}


def config(**fields):
    made = [KVField(key=k.replace("_", "."), value=v) for k, v in fields.items()]
    return KVConfig(fields=made)


def write(folder, name, content):
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / name).write_text(text, "utf-8")


def names(folder):
    presets, broken = folder.list()
    return [p.name for p in presets], [b.file for b in broken]


def test_files_of_the_application_are_read(tmp_path):
    """Identifier, name and both parts; fields that nobody knows here are ignored."""
    write(tmp_path, "a.preset.json", CONTENT | {"changed": True})
    write(tmp_path, "notes.json", "nothing of ours")
    ((preset,), broken) = PresetFolder(tmp_path).list()

    assert [] == broken
    assert ("@local:a", "A") == (preset.identifier, preset.name)
    assert config(llm_prediction_temperature=0.5) == preset.operation
    assert KVConfig() == preset.load


def test_a_file_name_stands_in_for_what_is_missing(tmp_path):
    """A preset of hand needs neither identifier nor name, nor both parts."""
    write(tmp_path, "by hand.preset.json", {"operation": None})
    ((preset,), _) = PresetFolder(tmp_path).list()

    assert ("@local:by hand", "by hand") == (preset.identifier, preset.name)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "not a JSON object"),
        ("[" * 100_000, "RecursionError"),
        (" " * (LARGEST + 1), "larger than"),
        ({"name": 7}, "name is no text"),
        ({"identifier": ["x"]}, "identifier is no text"),
        ({"operation": {"fields": 7}}, "operation"),
        ({"load": {"fields": [{"value": 1}]}}, "load"),
        ({"load": []}, "load"),
    ],
)
def test_broken_files_are_listed_and_logged_once(tmp_path, caplog, content, problem):
    """They are no presets, do no harm, and come back when they are mended."""
    folder = PresetFolder(tmp_path)
    write(tmp_path, "a.preset.json", CONTENT)
    write(tmp_path, "b.preset.json", content)
    with caplog.at_level(logging.WARNING):
        seen = [names(folder), names(folder)]
    assert [(["A"], ["b.preset.json"])] * 2 == seen
    (record,) = caplog.records
    assert problem in record.getMessage()

    write(tmp_path, "b.preset.json", CONTENT | {"name": "Mended"})
    assert (["A", "Mended"], []) == names(folder)


def test_what_is_no_file_is_broken(tmp_path):
    """A folder of that name, and a link to nothing."""
    (tmp_path / "a.preset.json").mkdir()
    (tmp_path / "b.preset.json").symlink_to(tmp_path / "nowhere")

    assert ([], ["a.preset.json", "b.preset.json"]) == names(PresetFolder(tmp_path))


def test_a_folder_that_is_not_there_has_none(tmp_path):
    """Nothing is made up, and nothing raises."""
    assert ([], []) == names(PresetFolder(tmp_path / "nowhere"))


THERE = FixedPresets(
    [
        Preset(identifier="@local:chatml", name="My ChatML"),
        Preset(identifier="@local:two", name="Twins"),
        Preset(identifier="@local:three", name="TWINS"),
        Preset(identifier="My ChatML", name="confusing"),
    ]
)


@pytest.mark.parametrize(
    ("wanted", "identifier"),
    [
        ("@local:chatml", "@local:chatml"),
        ("My ChatML", "My ChatML"),  # the identifier comes first
        ("my chatml", "@local:chatml"),
        ("Twins", "@local:two"),
        ("TWINS", "@local:three"),
        ("THREE", "@local:three"),
        ("confus", "My ChatML"),
    ],
)
def test_a_preset_is_found_by(wanted, identifier):
    """Identifier, else name in any case, else the only one with it inside."""
    assert identifier == find(THERE, wanted).identifier


@pytest.mark.parametrize(
    ("wanted", "title", "sample"),
    [
        ("twins", "Several presets fit 'twins'", ["@local:two", "@local:three"]),
        (
            "t",
            "Several presets fit 't'",
            ["@local:chatml", "@local:two", "@local:three", "My ChatML"],
        ),
        ("none", "No preset is called 'none'", [p.identifier for p in THERE.presets]),
        ("", "No preset is called ''", [p.identifier for p in THERE.presets]),
    ],
)
def test_a_preset_is_not_found_by(wanted, title, sample):
    """The error lists what fits, or else what there is."""
    with pytest.raises(Failure) as caught:
        find(THERE, wanted)

    assert title == caught.value.title
    display = caught.value.display
    assert sample == [one["identifier"] for one in display["availablePresetsSample"]]
    assert 4 == display["totalAvailablePresets"]


def test_the_error_names_broken_files(tmp_path):
    """Who looks for a preset that can't be read learns that it is there."""
    write(tmp_path, "mine.preset.json", "{")
    with pytest.raises(Failure, match=r"Broken: mine\.preset\.json \(JSONDecodeError"):
        find(PresetFolder(tmp_path), "mine")


def test_content_of_a_preset_that_is_no_object():
    """What is no object is no preset."""
    with pytest.raises(ValueError, match="not a JSON object"):
        read_preset("x", "x")


def prediction_config(end):
    fields = end["predictionConfig"]["fields"]
    return {field["key"].rpartition(".")[2]: field["value"] for field in fields}


@on_a_bench
async def test_layers_of_a_prediction(bench):
    """The client beats the preset of the call, and that beats the one of the load."""
    bench.service.presets = FixedPresets(
        [
            Preset(
                identifier="load",
                name="load",
                operation=config(
                    llm_prediction_temperature=0.1,
                    llm_prediction_topKSampling=1,
                    llm_prediction_systemPrompt="of the load",
                    llm_prediction_tools={"type": "none"},
                ),
            ),
            Preset(
                identifier="call",
                name="call",
                operation=config(
                    llm_prediction_temperature=0.2, llm_prediction_topKSampling=2
                ),
            ),
        ]
    )
    await bench.socket.load(preset="load")
    field = {"key": "llm.prediction.temperature", "value": 0.3}
    layer = {"layerName": "apiOverride", "config": {"fields": [field]}}
    raw = {"layerName": "completeModeFormatting", "config": {"fields": []}}
    seen = []
    for layers in ([layer], [layer, raw]):
        *_, success, _ = await bench.socket.predict(
            fuzzyPresetIdentifier="CALL", predictionConfigStack={"layers": layers}
        )
        seen.append(prediction_config(success))

    assert (0.3, 2, "of the load") == (
        seen[0]["temperature"],
        seen[0]["topKSampling"],
        seen[0]["systemPrompt"],
    )
    assert {"tools"} == seen[0].keys() - seen[1].keys()  # raw text takes none


@on_a_bench
async def test_layers_of_a_load(bench):
    """What the client says beats the preset, key by key."""
    bench.service.presets = FixedPresets(
        [
            Preset(
                identifier="p",
                name="p",
                load=config(llm_load_contextLength=512, llm_load_numExperts=3),
            )
        ]
    )
    field = {"key": "llm.load.contextLength", "value": 1024}
    layer = {"layerName": "apiOverride", "config": {"fields": [field]}}
    for stack in ({"layers": []}, {"layers": [layer]}):
        await bench.socket.load(preset="p", loadConfigStack=stack)
    registry = bench.service.registry
    configs = [
        {field.key: field.value for field in instance.config.fields}
        for instance in registry.loaded("llm")
    ]

    assert [(512, 3), (1024, 3)] == [
        (made["llm.load.contextLength"], made["llm.load.numExperts"])
        for made in configs
    ]


def test_presets_from_the_client():
    """`load(preset=)` loads with it, every handle predicts with it, errors list it."""
    preset = Preset(
        identifier="@local:mine",
        name="Mine",
        operation=config(llm_prediction_temperature=0.25),
        load=config(llm_load_contextLength=512),
    )
    with (
        FakeServer(["any"], presets=[preset, "Yours"]) as fake,
        LMStudioClient(fake.host) as client,
    ):
        model = client.llm.load("any", preset="mine")
        assert 512 == model.get_context_length()
        other = client.llm.get("any")
        for handle, options in ((model, {}), (other, {}), (other, {"preset": "yours"})):
            result = handle.respond("x", **options).result()
            assert 0.25 == result.prediction_config["temperature"]
        assert None is fake.parameters("predict")[1].get("fuzzyPresetIdentifier")
        with pytest.raises(LMStudioPresetNotFoundError, match=r"'Mine' .*'Yours'"):
            other.respond("x", preset="theirs").result()
