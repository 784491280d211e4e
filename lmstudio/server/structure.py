"""Structured output: settings checked before the engine sees them, answers after."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import attrs

from ..errors import shown
from .gbnf import Grammar, Unreadable
from .json_start import first_characters, may_become_json
from .sampling import GenerationError
from .schema_answers import answer_problem, inner_drafts
from .schema_limits import grammar_problems, schema_problems

KEY = "llm.prediction.structured"
SCHEMA_KEY = f"{KEY}.jsonSchema"

#: Keywords that no engine here can enforce. llama.cpp passes over them or, by its own
#: defaults, drops the whole schema and generates free text.
REFUSED = {
    *("$dynamicAnchor", "$dynamicRef", "$recursiveRef", "contains"),
    *("dependencies", "dependentRequired", "dependentSchemas", "else", "if"),
    *("maxContains", "minContains", "not", "propertyNames", "then"),
    *("unevaluatedItems", "unevaluatedProperties", "uniqueItems"),
}
#: Formats that llama.cpp enforces. With any other it would drop the whole schema; a
#: format is a remark in JSON schema, so others are left out.
FORMATS = {
    *("date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6"),
    *("time", "uuid"),
}
#: Keywords whose value is a schema, a list of schemas, or schemas by name.
_SCHEMA = ("additionalItems", "additionalProperties", "items")
_SCHEMAS = ("allOf", "anyOf", "items", "oneOf", "prefixItems")
_BY_NAME = ("$defs", "definitions", "patternProperties", "properties")

#: One step through a regular expression: an escape, a set, a group, or a character.
_REGEX_STEP = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?(?:P=|<?[=!])|.", re.S)
_REGEX_REFUSED = re.compile(r"\\[1-9bB]|\(\?.+")
_ROOT_RULE = re.compile(r"^[ \t]*root\s*::=", re.M)

_Path = tuple[str, ...]


@attrs.frozen(kw_only=True)
class Structure:
    """What the output has to be.

    Attributes:
        json_schema: For the engine: the user's schema without what it cannot read;
            ``{}`` is any JSON, None with a grammar.
        grammar: A GBNF grammar, None with a schema.
        schema: The schema as the user wrote it, None for any JSON.
    """

    json_schema: Mapping[str, Any] | None = None
    grammar: str | None = None
    schema: Mapping[str, Any] | None = None

    def check_start(self, text: str) -> None:
        """Raise GenerationError when output cannot be the beginning of an answer.

        An engine that could not use a schema generates free text without a word.
        """
        if self.grammar is not None:
            if _judged(self.grammar, text) == "wrong":
                raise _not_of_grammar(text)
        else:
            start = text.lstrip()
            if start[:1] not in ("", *self._first) or not may_become_json(start):
                raise GenerationError(
                    "The engine could not hold the output to the schema",
                    f"It begins with {shown(text)}",
                    "Simplify the schema: it may have no possible value, or be too "
                    "large",
                    code="invalidAnswer",
                )

    @property
    def _first(self) -> frozenset[str]:
        root = self.schema or {}
        return first_characters(root, lambda reference: _resolved(root, reference))

    def check(self, text: str) -> None:
        """Raise GenerationError when a finished answer is not what was asked for."""
        if self.grammar is not None:
            if _judged(self.grammar, text) in ("begun", "wrong"):
                raise _not_of_grammar(text)
            return
        try:
            value = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as exc:
            raise _mismatch("JSON", str(exc), text) from None
        if self.schema is None:
            return
        problem = answer_problem(_validator(self.schema), self.schema, value)
        if problem is not None:
            raise _mismatch("JSON that obeys the schema", problem, text)


def read_structure(setting: Mapping[str, Any] | None) -> Structure | None:
    """Check the setting ``llm.prediction.structured``; None for free text.

    Raises:
        GenerationError: The setting, its schema or its grammar is wrong or holds
            something that no engine here can enforce; the error names it.
    """
    kind = "none" if setting is None else setting.get("type")
    if setting is None or kind == "none":
        return None
    if kind == "json":
        return _json_structure(setting.get("jsonSchema"))
    if kind == "gbnf":
        return _grammar_structure(setting.get("gbnfGrammar"))
    raise _wrong(
        f"{KEY}.type must be 'none', 'json' or 'gbnf', not {shown(kind)}", code=None
    )


def _json_structure(schema: Any) -> Structure:
    if schema is None:
        return Structure(json_schema={})
    if not isinstance(schema, Mapping):
        raise _wrong(f"{SCHEMA_KEY} must be an object, not {shown(schema)}")
    from jsonschema.exceptions import SchemaError

    try:
        _validator(schema).check_schema(schema)
        problems = list(_problems(schema, schema, ()))
        excesses = list(itertools.islice(schema_problems(_schemas(schema, ())), 10))
        cleaned = _cleaned(schema)
    except SchemaError as exc:
        at = exc.json_path.replace("$", SCHEMA_KEY, 1)
        raise _wrong(f"{at} is not valid JSON schema: {exc.message}") from exc
    except RecursionError as exc:
        raise _wrong(f"{SCHEMA_KEY} is nested too deeply") from exc
    problems += inner_drafts(schema, SCHEMA_KEY)
    if problems:
        raise _wrong(
            f"{SCHEMA_KEY} holds what this server cannot enforce",
            "; ".join(problems),
            "Leave these out of the schema, and check the answer yourself",
        )
    if excesses:
        raise _wrong(
            f"{SCHEMA_KEY} has no possible value, or is too large for the engine",
            "; ".join(excesses),
            "Correct it, or use smaller bounds and check the answer yourself",
        )
    return Structure(json_schema=cleaned, schema=schema)


def _grammar_structure(grammar: Any) -> Structure:
    # Other kinds of grammar are left out: llama.cpp drops a wrong one in silence.
    is_other = isinstance(grammar, str) and grammar.lstrip().startswith("%")
    if not isinstance(grammar, str) or not _ROOT_RULE.search(grammar) or is_other:
        raise _wrong(
            f"{KEY}.gbnfGrammar must be a GBNF grammar with a rule for root, such as "
            f'\'root ::= "yes" | "no"\', not {shown(grammar)}',
            code="invalidGrammar",
        )
    excesses = list(itertools.islice(grammar_problems(grammar), 10))
    if excesses:
        raise _wrong(
            f"{KEY}.gbnfGrammar is too large for the engine",
            "; ".join(excesses),
            "Use a smaller grammar",
            code="invalidGrammar",
        )
    return Structure(grammar=grammar)


def schema_errors(schema: Mapping[str, Any]) -> Iterator[str]:
    """What makes a schema none, or none that stands alone."""
    from jsonschema.exceptions import SchemaError

    try:
        _validator(schema).check_schema(schema)
        for at, part in _schemas(schema, ()):
            reference = part.get("$ref")
            if reference is not None and not _resolves(schema, reference):
                yield f"$ref {shown(reference)} at {at}, which is not in the schema"
        yield from schema_problems(_schemas(schema, ()))
    except SchemaError as exc:
        yield f"{exc.json_path}: {exc.message}"
    except RecursionError:
        yield "it is nested too deeply"


def engine_schema(schema: Any) -> Any:
    """A schema without all that engines here cannot enforce."""
    if not isinstance(schema, Mapping):
        return schema
    dropped = set(REFUSED)
    if any(_irregular(schema)):
        dropped |= {"pattern", "patternProperties"}
    made: dict[str, Any] = {}
    for key, value in _cleaned(schema).items():
        if key in dropped:
            continue
        if key in _BY_NAME and isinstance(value, Mapping):
            made[key] = {name: engine_schema(part) for name, part in value.items()}
        elif key in _SCHEMAS and isinstance(value, list):
            made[key] = [engine_schema(part) for part in value]
        else:
            made[key] = engine_schema(value) if key in _SCHEMA else value
    return made


def _irregular(schema: Mapping[str, Any]) -> Iterator[str]:
    """The patterns directly in a schema that are more than a regular language."""
    patterns = [schema.get("pattern"), *schema.get("patternProperties", ())]
    for pattern in filter(None, patterns):
        if any(map(_REGEX_REFUSED.fullmatch, _REGEX_STEP.findall(pattern))):
            yield pattern


def _validator(schema: Mapping[str, Any]) -> Any:
    """The class that validates by a schema, of the draft that the schema names."""
    from jsonschema import validators

    return validators.validator_for(schema, validators.Draft202012Validator)


def _parts(schema: Mapping[str, Any]) -> Iterator[tuple[_Path, Any]]:
    """The schemas directly inside a schema, and where they are."""
    for key, value in schema.items():
        if key in _BY_NAME and isinstance(value, Mapping):
            yield from (((key, name), part) for name, part in value.items())
        elif key in _SCHEMAS and isinstance(value, list):
            yield from (((key, str(n)), part) for n, part in enumerate(value))
        elif key in _SCHEMA:
            yield (key,), value


def _problems(root: Any, schema: Any, path: _Path) -> Iterator[str]:
    """What cannot be enforced, each with its place in the schema."""
    if not isinstance(schema, Mapping):
        return
    at = "/".join(("#", *path))
    for key in sorted(REFUSED & schema.keys()):
        if schema[key] is not False or key != "uniqueItems":
            yield f"{key} at {at}"
    reference = schema.get("$ref")
    if reference is not None and not _resolves(root, reference):
        yield f"$ref {shown(reference)} at {at}, which is not in the schema itself"
    for pattern in _irregular(schema):
        yield f"pattern {shown(pattern)} at {at}, with more than a regular language"
    for inner, part in _parts(schema):
        yield from _problems(root, part, path + inner)


def _resolves(root: Any, reference: str) -> bool:
    """Whether a reference is a pointer to a schema in the schema."""
    return isinstance(_resolved(root, reference), (Mapping, bool))


def _resolved(root: Any, reference: str) -> Any:
    """What a reference points to in the schema, None for nothing."""
    if reference == "#":
        return root
    if not reference.startswith("#/"):
        return None
    found = root
    for step in reference[2:].split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isdigit() and int(name) < len(found):
            found = found[int(name)]
        else:
            return None
    return found


def _schemas(schema: Any, path: _Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A schema and all schemas in it, each with its place."""
    if isinstance(schema, Mapping):
        yield "/".join(("#", *path)), schema
        for inner, part in _parts(schema):
            yield from _schemas(part, path + inner)


def _cleaned(schema: Any) -> Any:
    """A schema as engines can read it, which allows at least what the schema allows.

    ``oneOf`` becomes ``anyOf``: engines refuse alternatives that overlap. The finished
    answer is checked by the schema as it was.
    """
    if not isinstance(schema, Mapping):
        return schema
    made: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "uniqueItems" or (key == "format" and value not in FORMATS):
            continue
        if key == "oneOf" and "anyOf" not in schema:
            made["anyOf"] = [_cleaned(part) for part in value]
        elif key in _BY_NAME and isinstance(value, Mapping):
            made[key] = {name: _cleaned(part) for name, part in value.items()}
        elif key in _SCHEMAS and isinstance(value, list):
            made[key] = [_cleaned(part) for part in value]
        else:
            made[key] = _cleaned(value) if key in _SCHEMA else value
    return made


def _judged(grammar: str, text: str) -> str:
    """Whether a text obeys a grammar, ``"open"`` where that cannot be told."""
    try:
        return _grammar(grammar).judge(text)
    except Unreadable:  # the engine understood it
        return "open"


@lru_cache(maxsize=8)
def _grammar(source: str) -> Grammar:
    return Grammar(source)


def _not_of_grammar(text: str) -> GenerationError:
    return GenerationError(
        "The engine did not hold the output to the grammar",
        f"The output: {shown(text)}",
        "Simplify the grammar",
        code="invalidAnswer",
    )


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _mismatch(wanted: str, problem: str, text: str) -> GenerationError:
    return GenerationError(
        f"The answer is not {wanted}",
        f"{problem}. The answer: {shown(text)}",
        "Ask again, or ask for something simpler",
        code="invalidAnswer",
    )


def _wrong(
    title: str,
    cause: str | None = None,
    suggestion: str | None = None,
    code: str | None = "invalidSchema",
) -> GenerationError:
    return GenerationError(title, cause, suggestion, code=code or "invalidSetting")
