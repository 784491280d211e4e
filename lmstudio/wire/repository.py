"""Models of the ``repository`` namespace: search, download options, progress."""

from __future__ import annotations

from .model import model, tagged

#: Formats of models. Source: docs/wire/repository.md.
FORMATS = (
    *("gguf", "safetensors", "onnx", "ggml", "mlx_placeholder", "torch_safetensors"),
    *("pte", "yuzu"),
)


@model(kw_only=True)
class SearchOptions:
    """What is searched for.

    Attributes:
        search_term: Words of the name.
        limit: How many results at most, 1 to 25.
        compatibility_types: Formats such as ``"gguf"``; None for all.
    """

    search_term: str | None = None
    limit: int | None = None
    compatibility_types: list[str] | None = None


@model(kw_only=True)
class SearchModels:
    """Parameter of ``searchModels``.

    Source: docs/wire/repository.md.
    """

    opts: SearchOptions


@model(kw_only=True)
class SearchIdentifier:
    """What names a model that was found.

    Attributes:
        type: ``"hf"`` for a repository of the hub, ``"catalog"`` for the application's
            own list.
        identifier: There, such as ``"owner/name"``.
    """

    type: str
    identifier: str


@model(kw_only=True)
class SearchResult:
    """A model that was found.

    Attributes:
        name: For people.
        identifier: What names it.
        exact: Whether it is the very one that was searched for.
        staff_pick: Whether the application's makers recommend it.
    """

    name: str
    identifier: SearchIdentifier
    exact: bool | None = None
    staff_pick: bool | None = None


@model(kw_only=True)
class SearchResults:
    """Reply of ``searchModels``."""

    results: list[SearchResult]


@model(kw_only=True)
class GetDownloadOptions:
    """Parameter of ``getModelDownloadOptions``."""

    model_search_result_identifier: SearchIdentifier


@model(kw_only=True)
class DownloadOption:
    """One of the files that a model can be downloaded as.

    Attributes:
        name: For people.
        size_bytes: Of all that will be downloaded, bytes.
        fit_estimation: ``"fullGPUOffload"``, ``"partialGPUOffload"``,
            ``"fitWithoutGPU"`` or ``"willNotFit"``.
        download_identifier: What ``downloadModel`` takes.
        indexed_model_identifier: Where the model will be found after it.
        quantization: Such as ``"Q4_K_M"``, None where the name does not tell.
        recommended: True for the one that suits most users.
        compatibility_type: The format, such as ``"gguf"``.
    """

    name: str
    size_bytes: int
    fit_estimation: str
    download_identifier: str
    indexed_model_identifier: str
    quantization: str | None = None
    recommended: bool | None = None
    compatibility_type: str | None = None


@model(kw_only=True)
class DownloadOptions:
    """Reply of ``getModelDownloadOptions``."""

    results: list[DownloadOption]


@model(kw_only=True)
class DownloadModel:
    """Parameter of ``downloadModel``."""

    download_identifier: str


@model(kw_only=True)
class CreateArtifactPlan:
    """Parameter of ``createArtifactDownloadPlan``.

    Attributes:
        owner: Lower-case letters, digits and inner hyphens.
        name: The same, and dots.
    """

    owner: str
    name: str


@model(kw_only=True)
class ArtifactTarget:
    """A plan for an artifact; fields as in `CreateArtifactPlan`."""

    type: str
    owner: str
    name: str


@model(kw_only=True)
class ModelSource:
    """Where a model comes from.

    Attributes:
        type: ``"huggingface"``.
        user: Who has the repository.
        repo: Its name there.
    """

    type: str
    user: str
    repo: str


@model(kw_only=True)
class ModelTarget:
    """A plan for a model."""

    type: str
    source: ModelSource


PlanTarget = ArtifactTarget | ModelTarget
tagged(PlanTarget, "type", {"artifact": ArtifactTarget, "model": ModelTarget})


@model(kw_only=True)
class FileName:
    """A wish for a file, by its name."""

    type: str
    file_name: str


@model(kw_only=True)
class QuantName:
    """A wish for a quantization, such as ``"Q4_K_M"``."""

    type: str
    quant_name: str


Preference = FileName | QuantName
tagged(Preference, "type", {"fileName": FileName, "quantName": QuantName})


@model(kw_only=True)
class PlanOptions:
    """What a plan prefers.

    Attributes:
        resolution_preference: Wishes, the first that can be met counts.
        compatibility_types: Formats such as ``"gguf"``; None for all.
    """

    resolution_preference: list[Preference] | None = None
    compatibility_types: list[str] | None = None


@model(kw_only=True)
class CreatePlan:
    """Parameter of ``createDownloadPlan``.

    Source: docs/wire/repository.md.
    """

    target: PlanTarget
    opts: PlanOptions | None = None


@model(kw_only=True)
class SelectOption:
    """The client's packet ``setSelectedDownloadOptionIndex``.

    Attributes:
        node_index: Of a model in the plan's nodes.
        requested_plan_version: What the next plan's version must reach.
        selected_download_option_index: Of the node's options; None for the copy that
            is already here.
    """

    node_index: int
    requested_plan_version: int
    selected_download_option_index: int | None


@model(kw_only=True)
class DownloadProgress:
    """How far a download is.

    Attributes:
        downloaded_bytes: Those that are here, from earlier attempts too.
        total_bytes: Those that there will be.
        speed_bytes_per_second: Over the last seconds.
    """

    downloaded_bytes: int
    total_bytes: int
    speed_bytes_per_second: float = 0.0

    @property
    def share(self) -> float:
        """How much of it is there, 0 to 1."""
        return min(1.0, self.downloaded_bytes / max(1, self.total_bytes))

    @property
    def seconds_left(self) -> float | None:
        """Seconds that the rest takes at that speed; None while nothing comes."""
        if self.speed_bytes_per_second <= 0:
            return None
        left = max(0, self.total_bytes - self.downloaded_bytes)
        return left / self.speed_bytes_per_second
