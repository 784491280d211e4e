"""Models on a server's disk, with the ways to load them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import attrs

from .errors import LMStudioValueError, shown
from .html import Table
from .progress import Progress
from .wire.common import ModelInfo
from .wire.model import model

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .keywords import LoadOptions

H = TypeVar("H")
H_co = TypeVar("H_co", covariant=True)

#: Seconds of idleness after which a shared model is unloaded.
SHARED_TTL = 3600.0


class Loads(Protocol[H_co]):
    """What loads models: ``client.llm`` or ``client.embedding``."""

    @property
    def model(self) -> Callable[..., H_co]:
        """See `lmstudio.catalog.Models.model`."""
        ...

    @property
    def load_new_instance(self) -> Callable[..., H_co]:
        """See `lmstudio.catalog.Models.load_new_instance`."""
        ...


@model(kw_only=True)
class DownloadedModel(ModelInfo, Generic[H]):
    """A model on the server's disk: all that `ModelInfo` has, and ways to load it."""

    _loads: Loads[H] | None = attrs.field(default=None, repr=False, eq=False)

    @property
    def info(self) -> ModelInfo:
        """The same without ways to load it: to be kept, compared or pickled."""
        names = [field.name for field in attrs.fields(ModelInfo)]
        return ModelInfo(**{name: getattr(self, name) for name in names})

    def model(
        self,
        *,
        ttl: float | None = SHARED_TTL,
        config: Mapping[str, Any] | None = None,
        on_progress: Callable[[float], object] | None = None,
        on_load_progress: Callable[[float], object] | None = None,
        progress: Progress = None,
        timeout: float | None = None,
        **options: Unpack[LoadOptions],
    ) -> H:
        """A handle of it, loaded now if it is not; see `lmstudio.catalog.Models.model`.

        Raises:
            LMStudioValueError: An argument is wrong, or it is of a kind that can't be
                loaded; nothing was sent.
            LMStudioModelLoadError: It could not be loaded.
        """
        return self._loader().model(
            self.model_key,
            ttl=ttl,
            config=config,
            on_progress=on_progress,
            on_load_progress=on_load_progress,
            progress=progress,
            timeout=timeout,
            **options,
        )

    def load_new_instance(
        self,
        instance_identifier: str | None = None,
        *,
        ttl: float | None = SHARED_TTL,
        config: Mapping[str, Any] | None = None,
        on_load_progress: Callable[[float], object] | None = None,
        **options: Unpack[LoadOptions],
    ) -> H:
        """Load it anew; see `lmstudio.catalog.Models.load_new_instance`.

        Raises what `model` raises.
        """
        return self._loader().load_new_instance(
            self.model_key,
            instance_identifier,
            ttl=ttl,
            config=config,
            on_load_progress=on_load_progress,
            **options,
        )

    def _loader(self) -> Loads[H]:
        if self._loads is None:
            raise LMStudioValueError(
                f"{shown(self.model_key)} can't be loaded: it is of the type"
                f" {shown(self.type)}, and only 'llm' and 'embedding' can"
            )
        return self._loads


class DownloadedModels(Table[DownloadedModel[H]]):
    """Models on a server's disk: a list that notebooks show as a table."""

    COLUMNS = (
        ("model", "model_key"),
        ("type", "type"),
        ("size", "size_bytes"),
        ("parameters", "params_string"),
        ("architecture", "architecture"),
        ("context", "max_context_length"),
    )


def with_loader(info: ModelInfo, loads: Loads[H] | None) -> DownloadedModel[H]:
    """What is known of a model, with what loads it."""
    names = [field.name for field in attrs.fields(ModelInfo)]
    fields = {name: getattr(info, name) for name in names}
    return DownloadedModel(**fields, loads=loads)
