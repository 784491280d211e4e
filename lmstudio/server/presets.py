"""Presets: named settings for loading and predicting, one file each."""

from __future__ import annotations

import json
import logging
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import attrs

from ..errors import LMStudioProtocolError
from ..wire.common import KVConfig
from ..wire.converter import structure
from .failures import no_preset

log = logging.getLogger(__name__)

SUFFIX = ".preset.json"
#: Bytes of a preset file; larger ones are not read.
LARGEST = 1 << 20
#: What a completion of raw text refuses; of a preset it is left out there.
NOT_FOR_RAW_TEXT = (
    "llm.prediction.tools",
    "llm.prediction.toolChoice",
    "llm.prediction.reasoning.budgetTokens",
)


@attrs.frozen(kw_only=True)
class Preset:
    """Settings under a name.

    Attributes:
        identifier: Unique, such as ``"@local:my-chatml"``.
        name: For people; several presets may share it.
        operation: Settings of predictions.
        load: Settings of loads.

    Source: docs/wire/config.md, "Presets".
    """

    identifier: str
    name: str
    operation: KVConfig = attrs.field(factory=KVConfig)
    load: KVConfig = attrs.field(factory=KVConfig)


@attrs.frozen
class Broken:
    """A preset file that can't be used, and why."""

    file: str
    problem: str


class Presets(Protocol):
    """The presets of a server: those of a folder, or of a test."""

    def list(self) -> tuple[Sequence[Preset], Sequence[Broken]]:
        """All that can be used, and those that can't."""
        ...


class PresetFolder:
    """Presets in files; looked at anew each time, so files may come and go.

    Args:
        folder: Need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # File -> what it was when it was read, and what was in it.
        self._read: dict[Path, tuple[object, Preset | Broken]] = {}

    def list(self) -> tuple[Sequence[Preset], Sequence[Broken]]:
        """All presets, in the order of their files; broken ones are logged once."""
        before, self._read = self._read, {}
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            state = _state(path)
            known = before.get(path)
            if known is not None and known[0] == state:
                self._read[path] = known
                continue
            found = _read(path)
            if isinstance(found, Broken):
                log.warning("preset file %s: %s", path, found.problem)
            self._read[path] = (state, found)
        all_found = [found for _, found in self._read.values()]
        return (
            [found for found in all_found if isinstance(found, Preset)],
            [found for found in all_found if isinstance(found, Broken)],
        )


@attrs.frozen
class FixedPresets:
    """Presets that never change."""

    presets: Sequence[Preset] = ()

    def list(self) -> tuple[Sequence[Preset], Sequence[Broken]]:
        """All of them."""
        return self.presets, ()


def find(presets: Presets, wanted: str) -> Preset:
    """The preset that a name means.

    That is the one with this identifier; else with this name, in any case; else the
    only one that has it in its identifier or name.

    Raises:
        Failure: None does, or several do.

    Source: docs/wire/config.md, "Presets".
    """
    there, broken = presets.list()
    small = wanted.casefold()
    rounds: tuple[Iterable[Preset], ...] = (
        [p for p in there if p.identifier == wanted][:1],
        [p for p in there if p.name == wanted],
        [p for p in there if p.name.casefold() == small],
        [p for p in there if small and small in f"{p.identifier}\0{p.name}".casefold()],
    )
    fits: list[Preset] = next((list(fits) for fits in rounds if fits), [])
    if len(fits) == 1:
        return fits[0]
    raise no_preset(
        wanted,
        [(preset.identifier, preset.name) for preset in fits or there],
        total=len(there),
        is_ambiguous=bool(fits),
        broken=[f"{file.file} ({file.problem})" for file in broken],
    )


def for_raw_text(config: KVConfig) -> KVConfig:
    """The settings of a preset as far as they make sense without messages."""
    return KVConfig(fields=[f for f in config.fields if f.key not in NOT_FOR_RAW_TEXT])


def read_preset(content: Any, stem: str) -> Preset:
    """A preset from parsed JSON.

    Args:
        stem: Stands in for an identifier or a name that is missing.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    names: list[str] = []
    for field, default in (("identifier", f"@local:{stem}"), ("name", stem)):
        value = content.get(field) or default
        if not isinstance(value, str):
            raise ValueError(f"{field} is no text")
        names.append(value)
    parts: list[KVConfig] = []
    for part in ("operation", "load"):
        try:
            given = content.get(part)
            given = {} if given is None else given
            parts.append(structure(given, KVConfig, part))
        except LMStudioProtocolError as exc:
            raise ValueError(str(exc)) from None
    identifier, name = names
    operation, load = parts
    return Preset(identifier=identifier, name=name, operation=operation, load=load)


def _state(path: Path) -> object:
    """What changes when a file does; None when there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _read(path: Path) -> Preset | Broken:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return Broken(path.name, "not a file")
        if status.st_size > LARGEST:
            return Broken(path.name, f"larger than {LARGEST} bytes")
        content = json.loads(path.read_text("utf-8-sig"))
        return read_preset(content, path.name.removesuffix(SUFFIX))
    except (OSError, ValueError, RecursionError) as exc:
        return Broken(path.name, f"{type(exc).__name__}: {exc}")
