"""A call of a tool as the only possible output: the schema that an engine gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .sampling import GenerationError
from .structure import Structure, engine_schema, schema_errors

Tool = Mapping[str, Any]
_KEY = "llm.prediction.tools"


def forced_call(tools: Sequence[Tool], arguments: str) -> Structure:
    """What holds the output to one call of one of some tools.

    What an engine cannot enforce in the schemas of the arguments is left out: those
    who call the tools check the arguments anyway.

    Args:
        tools: Definitions, with the names that the model knows.
        arguments: What the arguments are called.

    Raises:
        GenerationError: The schema of a tool is no JSON schema.
    """
    calls, schemas = [], {}
    for number, tool in enumerate(tools):
        function = tool["function"]
        parameters = {"type": "object", **(function.get("parameters") or {})}
        problem = next(iter(schema_errors(parameters)), None)
        if problem is not None:
            raise GenerationError(
                f"{_KEY}: the parameters of {function['name']!r} are no JSON schema",
                problem,
                code="invalidSetting",
            )
        if not parameters.keys() & {"additionalProperties", "patternProperties"}:
            # Left to itself a model goes on with arguments of its own making.
            parameters["additionalProperties"] = not parameters.get("properties")
        at = f"#/$defs/tool{number}"
        schemas[f"tool{number}"] = _moved(engine_schema(parameters), at)
        calls.append(
            {
                "type": "object",
                "properties": {
                    "name": {"const": function["name"]},
                    arguments: {"$ref": at},
                },
                "required": ["name", arguments],
                "additionalProperties": False,
            }
        )
    whole = calls[0] if len(calls) == 1 else {"anyOf": calls}
    schema = {**whole, "$defs": schemas}
    return Structure(json_schema=schema, schema=schema)


def _moved(schema: Any, to: str) -> Any:
    """A schema whose references to itself hold at another place."""
    if isinstance(schema, Mapping):
        made = {key: _moved(value, to) for key, value in schema.items()}
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference.startswith("#"):
            made["$ref"] = to + reference[1:]
        return made
    if isinstance(schema, list):
        return [_moved(part, to) for part in schema]
    return schema
