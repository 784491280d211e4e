"""What the server does for each call: one function per endpoint."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable
from typing import Any

import attrs

from .._version import __version__
from ..protocol.server import ABSENT
from ..wire import common, embedding, files, llm, system, usage
from ..wire.config import collapse
from . import application, repository, retrieval
from .access import logged_call
from .clients import Client
from .engine import BadRequest, EngineError
from .failures import Failure
from .infos import instance_info, model_info
from .instances import Instance, Wanted
from .service import Service


@attrs.frozen
class Context:
    """Where a call comes from.

    Attributes:
        service: What all connections share.
        namespace: The socket's, such as ``"llm"``.
        client: Who calls.
    """

    service: Service
    namespace: str
    client: Client

    def find(self, specifier: common.ModelSpecifier) -> Instance:
        """The loaded model that is meant.

        Raises:
            EngineError: None is.
        """
        return self.service.registry.find(specifier, self.namespace)


#: Longest text that is turned into tokens or a vector, characters. A token takes many
#: times the memory of its text.
LONGEST_TEXT = 4_000_000

Handler = Callable[[Context, Any], Awaitable[Any]]


async def _list_loaded(context: Context, _: None) -> Any:
    registry = context.service.registry
    return [instance_info(i) for i in registry.loaded(context.namespace)]


async def _unload(context: Context, parameter: common.Unload) -> Any:
    registry = context.service.registry
    await registry.unload(parameter.identifier, context.namespace)
    return ABSENT


async def _model_info(context: Context, parameter: common.GetModelInfo) -> Any:
    try:
        return instance_info(context.find(parameter.specifier))
    except EngineError:
        if parameter.throw_if_not_found:
            raise
        return ABSENT


async def _load_config(context: Context, parameter: common.Specified) -> Any:
    return context.find(parameter.specifier).config


async def _base_config(context: Context, parameter: common.BaseConfig) -> Any:
    return context.find(parameter.specifier).operation


async def _estimate(context: Context, parameter: usage.EstimateUsage) -> Any:
    wanted = Wanted(config=collapse(parameter.load_config_stack))
    made, passes = await context.service.registry.estimate(
        parameter.model_key, context.namespace, wanted
    )
    return usage.ResourcesUsage(
        memory=usage.MemoryUsage(
            confidence="high" if made.is_sure else "low",
            # What a GPU would take of it is known to the child that loads the model.
            model_vram_bytes=0,
            context_vram_bytes=0,
            total_vram_bytes=0,
            model_bytes=made.weights,
            context_bytes=made.context,
            total_bytes=made.total,
        ),
        passes_guardrails=passes,
    )


async def _processing_state(context: Context, parameter: common.GetModelInfo) -> Any:
    try:
        status, queued = context.find(parameter.specifier).status
    except EngineError:
        if parameter.throw_if_not_found:
            raise
        return ABSENT
    return llm.ProcessingState(status=status, queued=queued)


def _text(given: str) -> str:
    """The text of a call.

    Raises:
        BadRequest: It is too long.
    """
    if len(given) > LONGEST_TEXT:
        raise BadRequest(
            f"The text has {len(given)} characters, and may have {LONGEST_TEXT}",
            None,
            "Split it, and send its parts one by one",
        )
    return given


async def _tokens(
    context: Context, parameter: common.SpecifiedText, *, ends: bool = False
) -> list[int]:
    instance = context.find(parameter.specifier)
    with context.service.registry.use(instance):
        return await instance.model.tokenize(
            _text(parameter.input_string), add_special=ends
        )


async def _tokenize(context: Context, parameter: common.SpecifiedText) -> Any:
    # Source: docs/wire/models.md, "Tokens".
    ends = context.namespace == "embedding"
    return common.Tokens(tokens=await _tokens(context, parameter, ends=ends))


async def _count_tokens(context: Context, parameter: common.SpecifiedText) -> Any:
    return common.TokenCount(token_count=len(await _tokens(context, parameter)))


async def _apply_template(context: Context, parameter: llm.ApplyTemplate) -> Any:
    instance = context.find(parameter.specifier)
    own = common.KVLayer(layer_name="instance", config=instance.operation)
    layers = [own, *parameter.prediction_config_stack.layers]
    config = collapse(common.KVStack(layers=layers))
    history = _without_documents(parameter.history)
    with context.service.registry.use(instance):
        text = await context.service.format_prompt(
            instance, history, config, parameter.opts
        )
    return llm.Formatted(formatted=text)


def _without_documents(history: llm.History) -> llm.History:
    """Leave out files that are no images: no template has a place for them.

    Official test suites format histories with such files, though no model takes them.
    """

    def stays(part: llm.Part) -> bool:
        return part.type != "file" or part.file_type == "image"

    messages = [
        attrs.evolve(message, content=[part for part in message.content if stays(part)])
        for message in history.messages
    ]
    return attrs.evolve(history, messages=messages)


async def _embed(context: Context, parameter: embedding.EmbedString) -> Any:
    instance = context.find(parameter.model_specifier)
    with context.service.registry.use(instance, "computingEmbedding"):
        vector = await instance.model.embed(_text(parameter.input_string))
    return embedding.Embedding(embedding=vector)


async def _upload(context: Context, parameter: files.UploadFile) -> Any:
    file = context.service.files.add(
        context.client, parameter.name, parameter.content_base64
    )
    return files.UploadedFile(
        identifier=file.identifier,
        file_type=file.file_type,
        size_bytes=len(file.content),
    )


async def _list_downloaded(context: Context, _: None) -> Any:
    return [model_info(file) for file in await context.service.registry.downloaded()]


async def _list_variants(context: Context, parameter: system.ModelVariants) -> Any:
    files = await context.service.registry.downloaded()
    wanted = parameter.model_key.casefold()
    keys = {f.key for f in files if wanted in (f.key.casefold(), f.variant.casefold())}
    return [model_info(file) for file in files if file.key in keys]


def version() -> str:
    """The version as clients read it: three numbers."""
    numbers = [*re.findall(r"\d+", __version__), "0", "0"]
    return ".".join(numbers[:3])


async def _version(_: Context, __: None) -> Any:
    return system.Version(version=version(), build=1)


async def _info(_: Context, __: None) -> Any:
    return system.SystemInfo(pid=os.getpid(), is_daemon=True, version=version())


async def _request_shutdown(context: Context, _: None) -> Any:
    if context.service.shutdown is None:
        raise Failure(
            "This server can't be stopped by a client",
            "It is part of another program, or open to the network",
            "End that program, or run `lms server stop` on its machine",
        )
    context.service.shutdown()
    return ABSENT


_SHARED: dict[str, Handler] = {
    "unloadModel": _unload,
    "listLoaded": _list_loaded,
    "getModelInfo": _model_info,
    "getLoadConfig": _load_config,
    "getBasePredictionConfig": _base_config,
    "getInstanceProcessingState": _processing_state,
    "estimateModelUsage": _estimate,
    "tokenize": _tokenize,
    "countTokens": _count_tokens,
}

_CALLS: dict[tuple[str, str], Handler] = {
    **{("llm", name): handler for name, handler in _SHARED.items()},
    ("llm", "applyPromptTemplate"): _apply_template,
    **{("embedding", name): handler for name, handler in _SHARED.items()},
    ("embedding", "embedString"): _embed,
    ("files", "uploadFileBase64"): _upload,
    ("system", "listDownloadedModels"): _list_downloaded,
    ("system", "listDownloadedModelVariants"): _list_variants,
    ("system", "version"): _version,
    ("system", "info"): _info,
    ("system", "requestShutdown"): _request_shutdown,
    **application.CALLS,
    **repository.CALLS,
    **retrieval.CALLS,
}

#: Namespace and endpoint -> what answers it.
CALLS: dict[tuple[str, str], Handler] = {
    key: logged_call("/".join(key), handler) for key, handler in _CALLS.items()
}
