"""The protocol's JSON schema, where it is at hand beside the repository."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

SCHEMA = Path(__file__).parents[2] / "shared" / "protocol" / "lms.schema.json"
HEAD = "#/definitions/"


@cache
def definitions() -> Any:
    """All definitions, with references that resolve and objects that are open.

    Readers ignore unknown properties, so those that newer servers send are no fault.
    """
    root = json.loads(SCHEMA.read_text("utf-8"))
    names = sorted(root["definitions"], key=len, reverse=True)

    def fixed(node: Any) -> Any:
        if isinstance(node, list):
            return [fixed(item) for item in node]
        if not isinstance(node, dict):
            return node
        made = {}
        for key, value in node.items():
            if key == "$ref":
                # Names hold slashes, which a JSON pointer would take for steps.
                rest = value[len(HEAD) :]
                name = next(n for n in names if rest == n or rest.startswith(n + "/"))
                made[key] = HEAD + name.replace("/", "~1") + rest[len(name) :]
            elif not (key == "additionalProperties" and value is False):
                made[key] = fixed(value)
        return made

    return fixed(root["definitions"])


def problems(name: str, value: Any) -> list[str]:
    """What does not fit a definition; skips the test where there is no schema."""
    if not SCHEMA.is_file():
        pytest.skip(f"the schema of the protocol is not at {SCHEMA}")
    reference = {"$ref": HEAD + name.replace("/", "~1"), "definitions": definitions()}
    validator = jsonschema.Draft7Validator(reference)
    return [f"{e.json_path}: {e.message}" for e in validator.iter_errors(value)]
