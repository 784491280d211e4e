"""The table of endpoints: namespace, name, kind and what travels on it."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from . import common, diagnostics, embedding, files, llm, repository, system, usage

Kind = Literal["rpc", "channel"]


@attrs.frozen
class Endpoint:
    """One row.

    Attributes:
        namespace: Also the path of the socket, such as ``"llm"``.
        name: As it travels.
        kind: ``"rpc"`` for one reply, ``"channel"`` for packets.
        parameter: Class of the parameter, None when there must be none.
        result: Type of the reply of an rpc, None when there is none.
        repeatable: True for calls that only read: they may be sent once more when
            the connection broke.
        packets: Types of the packets that the server sends on a channel.
        requests: Types of the packets that the client sends on a channel.
        optional: True when the parameter may be left out.

    Source: docs/wire/endpoints.md.
    """

    namespace: str
    name: str
    kind: Kind
    parameter: type | None = None
    result: Any = None
    repeatable: bool = False
    packets: tuple[str, ...] = ()
    requests: tuple[str, ...] = ()
    optional: bool = False


#: The packets of every prediction.
PREDICTION_PACKETS = (
    "promptProcessingProgress",
    "fragment",
    "toolCallGenerationStart",
    "toolCallGenerationNameReceived",
    "toolCallGenerationArgumentFragmentGenerated",
    "toolCallGenerationEnd",
    "toolCallGenerationFailed",
    "success",
)
_LOAD_PACKETS = ("resolved", "progress", "success")
_GET_OR_LOAD_PACKETS = (
    "alreadyLoaded",
    "startLoading",
    "unloadingOtherJITModel",
    "loadProgress",
    "loadSuccess",
)


def _read(namespace: str, name: str, parameter: type | None, result: Any) -> Endpoint:
    """A call that only reads."""
    return Endpoint(namespace, name, "rpc", parameter, result, True)


def _channel(
    namespace: str, name: str, parameter: type, packets: tuple[str, ...]
) -> Endpoint:
    """A channel that can be cancelled."""
    return Endpoint(
        namespace,
        name,
        "channel",
        parameter,
        packets=packets,
        requests=("cancel",),
    )


def _models(of: str) -> tuple[Endpoint, ...]:
    """The rows that ``llm`` and ``embedding`` have in common."""
    info, text = common.InstanceInfo, common.SpecifiedText
    ask = common.GetModelInfo
    return (
        _channel(of, "loadModel", common.LoadModel, _LOAD_PACKETS),
        _channel(of, "getOrLoad", common.GetOrLoad, _GET_OR_LOAD_PACKETS),
        Endpoint(of, "unloadModel", "rpc", common.Unload),
        _read(of, "listLoaded", None, list[common.InstanceInfo]),
        _read(of, "getModelInfo", ask, info | None),
        _read(of, "getLoadConfig", common.Specified, common.KVConfig),
        _read(of, "getInstanceProcessingState", ask, llm.ProcessingState),
        _read(of, "tokenize", text, common.Tokens),
        _read(of, "countTokens", text, common.TokenCount),
    )


def _about_hub() -> tuple[Endpoint, ...]:
    """The rows of ``repository``."""
    of, hub = "repository", repository
    ends = ("downloadProgress", "startFinalizing", "success")
    refused = ("cancel", "commit", "cancelDownload", "cancelPlan")
    return (
        _read(of, "searchModels", hub.SearchModels, hub.SearchResults),
        _read(
            of, "getModelDownloadOptions", hub.GetDownloadOptions, hub.DownloadOptions
        ),
        _channel(of, "downloadModel", hub.DownloadModel, ends),
        *(
            # What our client never asks for; official ones read the replies.
            Endpoint(of, name, "rpc", dict, dict, True, optional=True)
            for name in (
                *("getModelCatalog", "fuzzyFindStaffPicks"),
                *("getWritableArtifactOwners", "isAuthenticated"),
                *("getAuthenticationStatus", "lmLinkStatus", "getLocalArtifactFiles"),
            )
        ),
        *(
            Endpoint(of, name, "rpc", dict, optional=True)
            for name in (
                *("deauthenticate", "loginWithPreAuthenticatedKeys"),
                *("loginAsComputeDevice", "lmLinkSetDisabled"),
                *("lmLinkUpdateDeviceName", "lmLinkSetPreferredDevice"),
                *("installPluginDependencies", "installLocalPlugin"),
            )
        ),
        *(
            Endpoint(of, name, "channel", dict, requests=refused, optional=True)
            for name in (
                *("downloadArtifact", "createArtifactDownloadPlan"),
                *("createDownloadPlan", "pushArtifact", "ensureAuthenticated"),
            )
        ),
    )


ENDPOINTS: dict[tuple[str, str], Endpoint] = {
    (row.namespace, row.name): row
    for row in (
        *_models("llm"),
        _channel("llm", "predict", llm.Predict, PREDICTION_PACKETS),
        _channel("llm", "completeRawText", llm.CompleteRawText, PREDICTION_PACKETS),
        _read("llm", "applyPromptTemplate", llm.ApplyTemplate, llm.Formatted),
        *_models("embedding"),
        _read("embedding", "embedString", embedding.EmbedString, embedding.Embedding),
        _read("system", "listDownloadedModels", None, list[common.ModelInfo]),
        _read("system", "version", None, system.Version),
        _read("system", "info", None, system.SystemInfo),
        *_about_hub(),
        Endpoint("system", "alive", "channel"),
        Endpoint("system", "requestShutdown", "rpc"),
        Endpoint(
            "files", "uploadFileBase64", "rpc", files.UploadFile, files.UploadedFile
        ),
        Endpoint(
            "diagnostics",
            "streamLogs",
            "channel",
            diagnostics.StreamLogs,
            packets=("log",),
            requests=("stop",),
            optional=True,
        ),
    )
}


#: Calls of the client that newer servers of LM Studio answer, and ours does not.
#: Source: docs/wire/models.md, "Estimates".
FOREIGN: dict[tuple[str, str], Endpoint] = {
    (of, "estimateModelUsage"): _read(
        of, "estimateModelUsage", usage.EstimateUsage, usage.ResourcesUsage
    )
    for of in ("llm", "embedding")
}


def endpoint(namespace: str, name: str) -> Endpoint:
    """The row of an endpoint that this package calls itself."""
    key = (namespace, name)
    return ENDPOINTS[key] if key in ENDPOINTS else FOREIGN[key]
