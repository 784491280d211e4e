"""The models of a server: on its disk, and in its memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

import attrs

from .aliases import one_of
from .arguments import checked_callback, checked_flag, checked_name
from .calls import call
from .downloaded import (
    SHARED_TTL,
    DownloadedModel,
    DownloadedModels,
    Loads,
    with_loader,
)
from .errors import (
    LMStudioError,
    LMStudioModelNotFoundError,
    LMStudioTypeError,
    LMStudioValueError,
    shown,
)
from .handles import LoadedModels, ModelHandle
from .loading import Load
from .models import LLM, EmbeddingModel
from .nearest import Asked, meant
from .options import load_stack
from .ownership import Owned
from .progress import Bar, Progress, displays
from .session import Session
from .wire.common import (
    GetModelInfo,
    GetOrLoad,
    InstanceInfo,
    KVStack,
    LoadModel,
    ModelInfo,
    ModelQuery,
    ModelSpecifier,
    Unload,
)
from .wire.usage import EstimateUsage, ResourcesUsage

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .keywords import LoadOptions

log = logging.getLogger("lmstudio.catalog")

#: What models are for. Source: docs/wire/models.md.
DOMAINS = ("llm", "embedding", "imageGen", "transcription", "tts", "drafter")

H = TypeVar("H", bound=ModelHandle)


class Models(Generic[H]):
    """The models of one kind on a server: ``client.llm`` and ``client.embedding``."""

    #: The class of the handles; it knows the namespace.
    _handle_class: type[H]

    def __init__(
        self,
        session: Session,
        owned: Owned,
        timeout: float | None,
        call_time: float | None,
        progress: Progress = None,
    ) -> None:
        self._session = session
        self._owned = owned
        self._timeout = timeout
        self._call_time = call_time
        self._progress = progress

    def __repr__(self) -> str:
        return self._session.shown_of(self)

    def load(
        self,
        path: str,
        *,
        identifier: str | None = None,
        config: Mapping[str, Any] | None = None,
        acceleration: Any = None,
        preset: str | None = None,
        no_hup: bool = False,
        ttl: float | None = None,
        on_progress: Callable[[float], object] | None = None,
        on_load_progress: Callable[[float], object] | None = None,
        progress: Progress = None,
        verbose: bool | None = None,
        signal: Any = None,
        timeout: float | None = None,
        **options: Unpack[LoadOptions],
    ) -> H:
        """Load a model into memory, always anew, and wait for it.

        The model belongs to this client and is unloaded when the client closes, also
        at the end of the program, unless `no_hup` or `ttl` is given.

        Args:
            path: A model key, or a path below the server's models folder:
                ``publisher/repo`` or ``publisher/repo/file.gguf``.
            identifier: A name to refer to it; the server makes one up otherwise.
            config: Load options such as ``context_length``, in either spelling.
            acceleration: ``{"offload": 0.5}``: the share of layers on the GPU.
            preset: Preset for the predictions of the returned handle; embedding models
                make none.
            no_hup: Keep the model loaded after the client closes.
            ttl: Seconds of idleness after which the server unloads it.
            on_progress: Called with 0 to 1, in this thread.
            on_load_progress: The same under the name of the official SDK.
            progress: Whether a bar shows the progress on a terminal or in a notebook,
                after 0.7 s; or a function in its place, called with 0 to 1; or tqdm,
                the class or a bar. None takes the client's, and shows no bar with an
                `on_progress`.
            verbose: True logs the progress at the level INFO; False shows no bar.
            signal: A `Signal` or `threading.Event` that cancels the load.
            timeout: Seconds for the whole load, with connecting; None waits as long as
                it takes. A server that can't be reached at all is told within 10 s.
            options: Load options as keywords: ``context_length``, ``gpu``, ...

        Raises:
            LMStudioValueError: An argument is wrong; nothing was sent.
            LMStudioModelNotFoundError: The server has no such model.
            LMStudioModelLoadError: It could not be loaded, or the identifier is taken.
            LMStudioCancelledError: The signal was set; nothing stays loaded.
            LMStudioTimeoutError: The time is over; nothing stays loaded.
            LMStudioWebsocketError: The server can't be reached, or was lost.
        """
        checked_name(path, "path")
        keeps = checked_flag(no_hup, "no_hup") or ttl is not None
        on_progress = _told(on_progress, on_load_progress)
        if verbose is not None and not checked_flag(verbose, "verbose"):
            progress = False if progress is None else progress
        bar, on_progress = self._displays(path, progress, on_progress)
        if verbose:
            on_progress = _logged(path, on_progress)
        if preset is not None:
            self._check_preset(preset)
        parameter = LoadModel(
            model_key=path,
            identifier=(
                None if identifier is None else checked_name(identifier, "identifier")
            ),
            ttl_ms=_milliseconds(ttl),
            load_config_stack=self._stack(self.load, config, options, acceleration),
        )
        load = self._load("loadModel", parameter, on_progress, signal, timeout, bar)
        # Only now, when all arguments are right, is the server asked for anything.
        extensions = self._session.greeting().get("extensions")
        can = extensions if isinstance(extensions, list) else []
        load.parameter = attrs.evolve(
            parameter,
            no_hup=keeps if "noHup" in can else None,
            preset=preset if "loadPreset" in can else None,
        )
        info = load.run()
        if not keeps:
            self._owned.add(self._namespace, info)
        return self._handle(info, preset)

    def load_new_instance(
        self,
        model_key: str,
        instance_identifier: str | None = None,
        *,
        ttl: float | None = SHARED_TTL,
        config: Mapping[str, Any] | None = None,
        on_load_progress: Callable[[float], object] | None = None,
        **options: Unpack[LoadOptions],
    ) -> H:
        """Load a model anew that outlives this client; see `load`.

        Args:
            ttl: Seconds of idleness after which the server unloads it.
            options: Load options as keywords.
        """
        self._stack(self.load_new_instance, config, options)  # errors with our name
        return self.load(
            model_key,
            identifier=instance_identifier,
            ttl=ttl,
            no_hup=True,
            config=config,
            on_load_progress=on_load_progress,
            **options,
        )

    def model(
        self,
        model_key: str | None = None,
        /,
        *,
        ttl: float | None = SHARED_TTL,
        config: Mapping[str, Any] | None = None,
        on_progress: Callable[[float], object] | None = None,
        on_load_progress: Callable[[float], object] | None = None,
        progress: Progress = None,
        timeout: float | None = None,
        **options: Unpack[LoadOptions],
    ) -> H:
        """A loaded model of that name, loaded now if there is none.

        It is shared with other clients and outlives this one.

        Args:
            model_key: An identifier or a model key; None takes any loaded model.
            ttl: Seconds of idleness after which the server unloads it, if this call
                loads it.
            config: Load options, if this call loads it. For a model that is loaded
                otherwise already, a warning in the log names what differs.
            on_progress: Called with 0 to 1, in this thread.
            on_load_progress: The same under the name of the official SDK.
            progress: As for `load`.
            timeout: Seconds for the load, as for `load`.
            options: Load options as keywords; the same as in `config`.

        Raises:
            LMStudioModelNotFoundError: There is no such model, or none is loaded.
            LMStudioModelLoadError: It could not be loaded.
        """
        stack = self._stack(self.model, config, options)
        if model_key is None:
            specifier = ModelSpecifier(query=ModelQuery())
            ask = GetModelInfo(specifier=specifier, throw_if_not_found=True)
            return self._handle(self._call("getModelInfo", ask), None)
        parameter = GetOrLoad(
            identifier=checked_name(model_key, "model key"),
            load_ttl_ms=_milliseconds(ttl),
            load_config_stack=stack,
        )
        on_progress = _told(on_progress, on_load_progress)
        bar, on_progress = self._displays(model_key, progress, on_progress)
        load = self._load("getOrLoad", parameter, on_progress, None, timeout, bar)
        handle = self._handle(load.run(), None)
        wishes = {**(config or {}), **options}
        if wishes and load.was_loaded:
            _warn_of_differences(handle, stack, wishes)
        return handle

    def get(
        self,
        query: str | Mapping[str, Any] | ModelQuery | None = None,
        /,
        *,
        identifier: str | None = None,
        path: str | None = None,
        vision: bool | None = None,
        **unknown: NoReturn,
    ) -> H:
        """A handle of a loaded model, without asking the server.

        The model behind it may change: each call looks for a loaded model that fits.

        Args:
            query: The identifier, or a mapping of the other arguments, also with
                ``domain``; ``{}`` or nothing is any loaded model.
            identifier: The name that it was loaded under.
            path: ``publisher/repo`` for any file of it, or the path of one file.
            vision: Whether it takes images.

        Raises:
            LMStudioValueError: An argument is wrong.
        """
        Asked(self.get).refuse(unknown)
        named: dict[str, Any] = {"identifier": identifier, "path": path}
        named.update(vision=vision, domain=None)
        if isinstance(query, str):
            query = {"identifier": query}
        if isinstance(query, ModelQuery):
            query = attrs.asdict(query)
        if query is not None and not isinstance(query, Mapping):
            raise LMStudioTypeError(
                f"get takes an identifier or a mapping, not {shown(query)}"
            )
        for name, value in (query or {}).items():
            if name not in named:
                raise LMStudioValueError(
                    f"unknown field {shown(name)} in a query{meant(name, list(named))};"
                    f" known are {', '.join(named)}"
                )
            if named[name] is not None:
                raise LMStudioValueError(f"{name} is given twice")
            named[name] = value
        if named["domain"] not in (None, self._namespace):
            raise LMStudioValueError(
                f"the domain is {self._namespace!r} here, not {shown(named['domain'])}"
            )
        for name in ("identifier", "path"):
            if named[name] is not None:
                named[name] = checked_name(named[name], name)
        if named["vision"] is not None:
            checked_flag(named["vision"], "vision")
        return self._make(ModelQuery(**named), None, None)

    def list_loaded(self) -> list[H]:
        """Handles of all loaded models, in the order that the server lists them."""
        infos: list[InstanceInfo] = self._call("listLoaded", None)
        return LoadedModels(self._handle(info, None) for info in infos)

    def list_downloaded(self) -> list[DownloadedModel[H]]:
        """The models of this kind on the server's disk, each with ways to load it."""
        kind = self._namespace
        return list_downloaded(self._session, kind, self._call_time, {kind: self})

    def unload(self, identifier: str | ModelHandle) -> None:
        """Free the memory of a model.

        Args:
            identifier: Its name, or a handle, which is the same as its own `unload`.

        Raises:
            LMStudioModelNotFoundError: No loaded model has that identifier.
        """
        if isinstance(identifier, ModelHandle):
            identifier.unload()
            return
        self._call(
            "unloadModel", Unload(identifier=checked_name(identifier, "identifier"))
        )

    def unload_all(self) -> list[str]:
        """Free the memory of every model of this kind, also of those of other clients.

        Returns:
            The identifiers of those that were unloaded. One that somebody else unloads
            meanwhile is not among them, and is no error.
        """
        unloaded = []
        for info in self._call("listLoaded", None):
            try:
                self.unload(info.identifier)
            except LMStudioModelNotFoundError:
                continue
            unloaded.append(info.identifier)
        return unloaded

    def estimate_resources_usage(
        self, model_key: str, config: Mapping[str, Any] | None = None
    ) -> ResourcesUsage:
        """What a model would take in memory, without loading it.

        Args:
            model_key: As for `load`.
            config: Load options in either spelling.

        Raises:
            LMStudioValueError: An argument is wrong; nothing was sent.
            LMStudioModelNotFoundError: The server has no such model.
            LMStudioUnsupportedError: The server makes no estimates.
        """
        parameter = EstimateUsage(
            model_key=checked_name(model_key, "model key"),
            load_config_stack=self._stack(self.estimate_resources_usage, config, {}),
        )
        usage: ResourcesUsage = self._call("estimateModelUsage", parameter)
        return usage

    def _load(
        self,
        name: str,
        parameter: Any,
        on_progress: Callable[[float], object] | None,
        signal: Any,
        timeout: float | None,
        bar: Bar | None,
    ) -> Load:
        return Load(
            self._session,
            self._namespace,
            name,
            parameter,
            on_progress=on_progress,
            signal=signal,
            timeout=timeout,
            bar=bar,
        )

    def _displays(
        self,
        name: str,
        progress: Progress,
        on_progress: Callable[[float], object] | None,
    ) -> tuple[Bar | None, Callable[[float], object] | None]:
        return displays(f"Loading {name}", progress, self._progress, on_progress)

    @property
    def _namespace(self) -> str:
        return self._handle_class.namespace

    def _stack(
        self,
        method: Callable[..., Any],
        config: Mapping[str, Any] | None,
        options: Mapping[str, Any],
        acceleration: Any = None,
    ) -> KVStack:
        return load_stack(
            config,
            acceleration,
            keywords=options,
            embedding=self._namespace == "embedding",
            asked=Asked(method, ("gpu",)),
        )

    def _check_preset(self, preset: str) -> None:
        checked_name(preset, "preset")

    def _call(self, name: str, parameter: Any) -> Any:
        return call(
            self._session, self._namespace, name, parameter, timeout=self._call_time
        )

    def _handle(self, info: InstanceInfo, preset: str | None) -> H:
        return self._make(ModelQuery(identifier=info.identifier), info, preset)

    def _make(
        self, query: ModelQuery, info: InstanceInfo | None, preset: str | None
    ) -> H:
        return self._handle_class(
            self._session,
            query,
            info=info,
            preset=preset,
            timeout=self._timeout,
            call_time=self._call_time,
            progress=self._progress,
        )


class LLMs(Models[LLM]):
    """The text models of a server: ``client.llm``."""

    _handle_class = LLM


class EmbeddingModels(Models[EmbeddingModel]):
    """The embedding models of a server: ``client.embedding``."""

    _handle_class = EmbeddingModel

    def _check_preset(self, preset: str) -> None:
        raise LMStudioValueError(
            "preset is for predictions, and an embedding model makes none"
        )


class System:
    """The server as a whole: ``client.system``."""

    def __init__(
        self,
        session: Session,
        call_time: float | None,
        loads: Mapping[str, Loads[Any]],
    ) -> None:
        self._session = session
        self._call_time = call_time
        self._loads = loads

    def __repr__(self) -> str:
        return self._session.shown_of(self)

    def list_downloaded_models(
        self, domain: str | None = None
    ) -> list[DownloadedModel[Any]]:
        """The models on the server's disk.

        Args:
            domain: ``"llm"``, ``"embedding"``, or another of `DOMAINS`; None lists all.

        Raises:
            LMStudioValueError: There is no such domain.
        """
        if domain is not None and domain not in DOMAINS:
            wrong = LMStudioValueError if isinstance(domain, str) else LMStudioTypeError
            raise wrong(
                f"the domain must be 'llm', 'embedding' or None, not {shown(domain)};"
                f" other domains of the protocol are {', '.join(DOMAINS[2:])}"
            )
        return list_downloaded(self._session, domain, self._call_time, self._loads)

    def get_version(self) -> str:
        """The version of the server's application."""
        reply = call(self._session, "system", "version", timeout=self._call_time)
        version: str = reply.version
        return version


def list_downloaded(
    session: Session,
    domain: str | None,
    call_time: float | None,
    loads: Mapping[str, Loads[Any]],
) -> list[DownloadedModel[Any]]:
    """The models on the server's disk, of one kind or of all.

    Args:
        loads: Kinds of models, and what loads them.
    """
    infos: list[ModelInfo] = call(
        session, "system", "listDownloadedModels", timeout=call_time
    )
    return DownloadedModels(
        with_loader(info, loads.get(info.type))
        for info in infos
        if domain is None or info.type == domain
    )


def _milliseconds(ttl: object) -> int | None:
    if ttl is None:
        return None
    right = f"ttl must be a number of seconds of at least 0.001, not {shown(ttl)}"
    if not isinstance(ttl, (int, float)) or isinstance(ttl, bool):
        raise LMStudioTypeError(right)
    if not 0.001 <= ttl < 1e10:
        raise LMStudioValueError(right)
    return int(ttl * 1000)


def _told(on_progress: Any, on_load_progress: Any) -> Any:
    """The one callback that was given under either name."""
    checked_callback(on_load_progress, "on_load_progress", takes=1)
    return one_of("on_progress", on_progress, "on_load_progress", on_load_progress)


def _warn_of_differences(
    handle: ModelHandle, wanted: KVStack, config: Mapping[str, Any]
) -> None:
    try:
        differences = handle.load_differences(wanted)
    except LMStudioError as exc:  # the model is there all the same
        log.debug("how %s was loaded is unknown: %s", handle.identifier, exc)
        return
    if not config.keys() & {"auto_fit", "autoFit"}:
        differences.pop("auto_fit", None)  # it came with other options
    for name, (value, real) in differences.items():
        log.warning(
            "%s is loaded already, with %s=%.200r and not %.200r; load() loads it anew",
            *(shown(handle.identifier), name, real, value),
        )


def _logged(
    path: str, on_progress: Callable[[float], object] | None
) -> Callable[[float], object]:
    checked_callback(on_progress, "on_progress", takes=1)

    def report(progress: float) -> None:
        log.info("loading %s: %.0f %%", path, progress * 100)
        if on_progress is not None:
            on_progress(progress)

    return report
