"""Models that several namespaces share: specifiers, configs, errors, model infos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from .model import Plain, model


@model(kw_only=True)
class KVField:
    """One setting: the server's key and its value.

    Source: ``KVConfig`` (docs/wire/config.md).
    """

    key: str
    value: Any = None


@model(kw_only=True)
class KVConfig:
    """A list of settings; a later one of the same key wins."""

    fields: list[KVField] = attrs.field(factory=list)


@model(kw_only=True)
class KVLayer:
    """The settings that come from one place, such as ``"apiOverride"``."""

    layer_name: str
    config: KVConfig = attrs.field(factory=KVConfig)


@model(kw_only=True)
class KVStack:
    """Layers of settings; a later layer wins, key by key."""

    layers: list[KVLayer] = attrs.field(factory=list)


@model(kw_only=True)
class ModelQuery:
    """Conditions on a loaded model; all that are given must hold.

    Attributes:
        domain: ``"llm"`` or ``"embedding"``.
        identifier: The name that it was loaded under.
        path: ``publisher/repo`` for any file of it, ``publisher/repo/file`` for one.
        vision: Whether it takes images.

    Source: docs/wire/models.md.
    """

    domain: str | None = None
    identifier: str | None = None
    path: str | None = None
    vision: bool | None = None


@model(kw_only=True)
class ModelSpecifier:
    """Says which loaded model is meant: by a query, or exactly one instance.

    Attributes:
        type: ``"query"`` or ``"instanceReference"``.
        query: With ``"query"``; resolved anew at each call.
        instance_reference: With ``"instanceReference"``.
    """

    type: str = "query"
    query: ModelQuery | None = None
    instance_reference: str | None = None


@model(kw_only=True)
class Quantization(Plain):
    """How the weights are stored: a name such as ``"Q4_K_M"``, and bits per weight."""

    name: str
    bits: int | None = None


@model(kw_only=True)
class ModelInfo(Plain):
    """A model on the server's disk.

    Attributes:
        type: ``"llm"``, ``"embedding"``, or a kind that a newer server knows.
        model_key: What `load` takes.
        path: Path of the file below the models folder, or the catalog name.
        format: ``"gguf"`` for llama.cpp.
        display_name: A name for people.
        size_bytes: Size on disk, bytes.
        publisher: Who made it; from the path where an older server doesn't say.
        architecture: Such as ``"llama"``.
        params_string: Such as ``"7B"``.
        quantization: How the weights are stored.
        max_context_length: Tokens that it was trained for.
        vision: Whether it takes images (text models).
        trained_for_tool_use: Whether its template knows tools (text models).
        variants: Keys of all quantizations.
        selected_variant: The one that loads by default.
        indexed_model_identifier: Long, stable name.
        device_identifier: None for this machine.
        raw: The whole object as the server sent it, with fields unknown here.

    Source: docs/wire/models.md.
    """

    type: str
    model_key: str
    path: str
    format: str = "gguf"
    display_name: str = ""
    size_bytes: int = 0
    publisher: str = ""
    architecture: str | None = None
    params_string: str | None = None
    quantization: Quantization | None = None
    max_context_length: int = 0
    vision: bool | None = None
    trained_for_tool_use: bool | None = None
    variants: list[str] | None = None
    selected_variant: str | None = None
    indexed_model_identifier: str = ""
    device_identifier: str | None = attrs.field(default=None, metadata={"null": True})
    raw: Mapping[str, Any] = attrs.field(factory=dict, repr=False, eq=False)


@model(kw_only=True)
class InstanceInfo(ModelInfo):
    """A model in the server's memory.

    Attributes:
        identifier: The name that it was loaded under.
        instance_reference: Opaque and unique for each load.
        context_length: Tokens of context that it was loaded with.
        ttl_ms: Milliseconds of idleness after which it is unloaded, None for never.
        last_used_time: Unix time of the last use, milliseconds.
    """

    identifier: str
    instance_reference: str
    context_length: int = 0
    ttl_ms: float | None = attrs.field(default=None, metadata={"null": True})
    last_used_time: float | None = attrs.field(default=None, metadata={"null": True})


@model(kw_only=True)
class ErrorData:
    """An error as it travels.

    Attributes:
        title: Headline.
        root_title: Headline of the innermost error.
        cause: Explanation.
        suggestion: What to try.
        error_data: Free-form fields.
        display_data: One of the known codes with its fields.

    Source: docs/wire/errors.md.
    """

    title: str = "Unknown error"
    root_title: str | None = None
    cause: str | None = None
    suggestion: str | None = None
    error_data: dict[str, Any] | None = None
    display_data: dict[str, Any] | None = None


@model(kw_only=True)
class LoadModel:
    """Parameter of ``loadModel``.

    `no_hup` and `preset` go only to servers whose greeting lists these extensions.
    """

    model_key: str
    identifier: str | None = None
    ttl_ms: int | None = None
    load_config_stack: KVStack = attrs.field(factory=KVStack)
    no_hup: bool | None = None
    preset: str | None = None


@model(kw_only=True)
class GetOrLoad:
    """Parameter of ``getOrLoad``; `identifier` may also be a model key."""

    identifier: str
    load_ttl_ms: int | None = None
    load_config_stack: KVStack = attrs.field(factory=KVStack)


@model(kw_only=True)
class Unload:
    """Parameter of ``unloadModel``."""

    identifier: str


@model(kw_only=True)
class GetModelInfo:
    """Parameter of ``getModelInfo``."""

    specifier: ModelSpecifier
    throw_if_not_found: bool = False


@model(kw_only=True)
class Specified:
    """Parameter of the calls that only name a model, such as ``getLoadConfig``."""

    specifier: ModelSpecifier


@model(kw_only=True)
class BaseConfig:
    """Parameter of ``getBasePredictionConfig``.

    Attributes:
        specifier: The loaded model that is meant.
        ignore_server_session_config: Leave out what the server was told at run time.
    """

    specifier: ModelSpecifier
    ignore_server_session_config: bool | None = None


@model(kw_only=True)
class SpecifiedText:
    """Parameter of ``tokenize`` and ``countTokens``."""

    specifier: ModelSpecifier
    input_string: str


@model(kw_only=True)
class Tokens:
    """Reply of ``tokenize``."""

    tokens: list[int]


@model(kw_only=True)
class TokenCount:
    """Reply of ``countTokens``."""

    token_count: int
