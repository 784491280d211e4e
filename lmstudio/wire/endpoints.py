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


#: Packets of clients that have more fields than their type, and their classes.
REQUEST_SHAPES: dict[str, type] = {
    "setSelectedDownloadOptionIndex": repository.SelectOption
}
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
        _read(of, "getBasePredictionConfig", common.BaseConfig, common.KVConfig),
        _read(of, "getInstanceProcessingState", ask, llm.ProcessingState),
        _read(of, "estimateModelUsage", usage.EstimateUsage, usage.ResourcesUsage),
        _read(of, "tokenize", text, common.Tokens),
        _read(of, "countTokens", text, common.TokenCount),
    )


_RETRIEVAL_PACKETS = (
    "onFileProcessList",
    "onFileProcessingStart",
    "onFileProcessingEnd",
    "onFileProcessingStepStart",
    "onFileProcessingStepProgress",
    "onFileProcessingStepEnd",
    "onSearchingStart",
    "onSearchingEnd",
    "result",
)
_DOWNLOAD_PACKETS = ("downloadProgress", "startFinalizing", "success")
_PLAN_PACKETS = ("planUpdated", "planReady", *_DOWNLOAD_PACKETS)

#: Calls of ``repository`` that our server always answers alike or refuses, with the
#: type of the reply. Nobody looks at their parameters.
_ALIKE = {
    "getModelCatalog": dict,
    "fuzzyFindStaffPicks": dict,
    "getWritableArtifactOwners": dict,
    "getLocalArtifactFiles": dict,
    "getAuthenticationStatus": dict,
    "isAuthenticated": dict,
    "lmLinkStatus": dict,
    "deauthenticate": None,
    "loginWithPreAuthenticatedKeys": None,
    "loginAsComputeDevice": None,
    "lmLinkSetDisabled": None,
    "lmLinkUpdateDeviceName": None,
    "lmLinkSetPreferredDevice": None,
    "installPluginDependencies": None,
    "installLocalPlugin": None,
}
#: Channels of ``repository`` that our server refuses: packets both ways.
_REFUSED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "downloadArtifact": (_DOWNLOAD_PACKETS, ("cancel",)),
    "pushArtifact": (("message",), ()),
    "ensureAuthenticated": (("authenticationUrl", "authenticated"), ()),
}


def _about_hub() -> tuple[Endpoint, ...]:
    """The rows of ``repository``."""
    of, hub = "repository", repository
    options = hub.GetDownloadOptions, hub.DownloadOptions
    return (
        _read(of, "searchModels", hub.SearchModels, hub.SearchResults),
        _read(of, "getModelDownloadOptions", *options),
        _channel(of, "downloadModel", hub.DownloadModel, _DOWNLOAD_PACKETS),
        Endpoint(
            *(of, "createArtifactDownloadPlan", "channel", hub.CreateArtifactPlan),
            packets=_PLAN_PACKETS,
            requests=("cancel", "commit"),
        ),
        Endpoint(
            *(of, "createDownloadPlan", "channel", hub.CreatePlan),
            packets=_PLAN_PACKETS,
            requests=(*REQUEST_SHAPES, "commit", "cancelDownload", "cancelPlan"),
        ),
        *(
            Endpoint(of, name, "rpc", dict, kind, kind is not None, optional=True)
            for name, kind in _ALIKE.items()
        ),
        *(
            Endpoint(
                *(of, name, "channel", dict),
                packets=packets,
                requests=requests,
                optional=True,
            )
            for name, (packets, requests) in _REFUSED.items()
        ),
    )


def _about_application() -> tuple[Endpoint, ...]:
    """Rows of what clients ask of the application around a server."""
    of = "runtime"
    return (
        Endpoint(*("system", "startHttpServer", "rpc", system.StartHTTPServer)),
        Endpoint("system", "stopHttpServer", "rpc"),
        Endpoint("system", "notify", "rpc", system.Notify),
        _read("system", "getExperimentFlags", None, list[str]),
        Endpoint("system", "setExperimentFlag", "rpc", system.ExperimentFlag),
        _read(of, "listEngines", None, list[dict[str, Any]]),
        Endpoint(*(of, "getEngineSelections", "rpc", dict, dict), True, optional=True),
        Endpoint(*(of, "surveyHardware", "rpc", dict, dict), optional=True),
        Endpoint(of, "selectEngine", "rpc", dict),
        Endpoint(of, "removeEngine", "rpc", dict),
        _read(of, "searchRuntimeExtensions", dict, dict),
        Endpoint(
            *(of, "downloadRuntimeExtension", "channel", dict),
            packets=_DOWNLOAD_PACKETS,
            requests=("cancel",),
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
        _read(
            "system",
            "listDownloadedModelVariants",
            system.ModelVariants,
            list[common.ModelInfo],
        ),
        _read("system", "version", None, system.Version),
        _read("system", "info", None, system.SystemInfo),
        *_about_hub(),
        *_about_application(),
        Endpoint("system", "alive", "channel"),
        Endpoint("system", "requestShutdown", "rpc"),
        Endpoint(
            "files", "uploadFileBase64", "rpc", files.UploadFile, files.UploadedFile
        ),
        _read("files", "getDocumentParsingLibrary", files.OfFile, files.Parser),
        _read("files", "getLocalFileAbsolutePath", dict, dict),
        Endpoint(
            *("files", "retrieve", "channel", files.Retrieve),
            packets=_RETRIEVAL_PACKETS,
            requests=("stop",),
        ),
        _channel(
            *("files", "parseDocument", files.ParseDocument),
            ("parserLoaded", "progress", "result"),
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


def endpoint(namespace: str, name: str) -> Endpoint:
    """The row of an endpoint that this package calls itself."""
    key = (namespace, name)
    return ENDPOINTS[key]
