"""What handles of all kinds of models have in common: names, looked up at each call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn, TypeVar, overload

from .arguments import checked_text, checked_texts
from .calls import call, call_all
from .errors import LMStudioProtocolError, LMStudioTypeError
from .html import Table, escape
from .progress import Progress
from .session import Session
from .wire.common import (
    GetModelInfo,
    InstanceInfo,
    KVStack,
    ModelQuery,
    ModelSpecifier,
    Specified,
    SpecifiedText,
    Unload,
)
from .wire.config import EMBEDDING_LOAD, LOAD
from .wire.llm import ProcessingState


class ModelHandle:
    """A name for a loaded model. It survives unloading, and works again after loading.

    Attributes:
        namespace: ``"llm"`` or ``"embedding"``.
        info: What the server said when the handle was made by loading or listing;
            None for a handle that nobody has asked the server about.
    """

    namespace = ""

    def __init__(
        self,
        session: Session,
        query: ModelQuery,
        *,
        info: InstanceInfo | None = None,
        preset: str | None = None,
        timeout: float | None = None,
        call_time: float | None = 60.0,
        progress: Progress = None,
    ) -> None:
        self._session = session
        self._query = query
        self._specifier = ModelSpecifier(query=query)
        self._preset = preset
        self._timeout = timeout
        self._call_time = call_time
        self._progress = progress
        self.info = info

    @property
    def identifier(self) -> str:
        """The name that the model was loaded under.

        Asks the server when the handle was made from something else.

        Raises:
            LMStudioModelNotFoundError: No loaded model matches.
        """
        return self._query.identifier or self.get_info().identifier

    @property
    def path(self) -> str:
        """The path of the model's file, as `get_info` tells it."""
        return self.info.path if self.info is not None else self.get_info().path

    def get_model_info(self) -> InstanceInfo | None:
        """What the server knows of the model; None when none matches this handle."""
        return self._info(throw=False)

    def get_info(self) -> InstanceInfo:
        """What the server knows of the model.

        Raises:
            LMStudioModelNotFoundError: No loaded model matches.
        """
        info = self._info(throw=True)
        if info is None:
            raise LMStudioProtocolError(
                "getModelInfo", "neither a model nor an error came back"
            )
        return info

    def _info(self, *, throw: bool) -> InstanceInfo | None:
        parameter = GetModelInfo(specifier=self._specifier, throw_if_not_found=throw)
        info: InstanceInfo | None = self._call("getModelInfo", parameter)
        return info

    def get_load_config(self) -> dict[str, Any]:
        """How the model was loaded: our names, ``False`` for what is off."""
        config = self._call("getLoadConfig", Specified(specifier=self._specifier))
        table = EMBEDDING_LOAD if self.namespace == "embedding" else LOAD
        return table.decode(config)

    def load_differences(self, wanted: KVStack) -> dict[str, tuple[Any, Any]]:
        """Load options that are not as wanted: name -> the wanted and the real value.

        What the server does not tell, and what it calls by names of its own, is left
        out.
        """
        table = EMBEDDING_LOAD if self.namespace == "embedding" else LOAD
        real, given = self.get_load_config(), {}
        for layer in wanted.layers:
            given.update(table.decode(layer.config))
        return {
            name: (value, real[name])
            for name, value in given.items()
            if table.find(name) and name in real and real[name] != value
        }

    def get_processing_state(self) -> ProcessingState:
        """What the model does at the moment, and how many requests it has.

        Raises:
            LMStudioModelNotFoundError: No loaded model matches.
            LMStudioUnsupportedError: The server is too old to say.
        """
        ask = GetModelInfo(specifier=self._specifier, throw_if_not_found=True)
        state: ProcessingState | None = self._call("getInstanceProcessingState", ask)
        if state is None:
            raise LMStudioProtocolError(
                "getInstanceProcessingState", "neither a state nor an error came back"
            )
        return state

    def get_context_length(self) -> int:
        """Tokens of context that the model was loaded with."""
        length = self.get_load_config().get("context_length")
        return length if type(length) is int else self.get_info().context_length

    def unload(self) -> None:
        """Free the model's memory.

        Raises:
            LMStudioModelNotFoundError: It was not loaded any more.
        """
        self._call("unloadModel", Unload(identifier=self.identifier))

    # A str is an Iterable of str as well; it is meant as one text.
    @overload
    def tokenize(self, input: str) -> list[int]: ...  # type: ignore[overload-overlap]  # a str is an Iterable[str], too
    @overload
    def tokenize(self, input: Iterable[str]) -> list[list[int]]: ...

    def tokenize(self, input: str | Iterable[str]) -> list[int] | list[list[int]]:
        """Token ids of a text, or of each text of several.

        Several texts are sent without waiting for the answers of those before them.

        Raises:
            LMStudioModelNotFoundError: The model is not loaded.
            LMStudioError: For several texts the error's `index` says which failed.
        """
        if isinstance(input, str):
            tokens: list[int] = self._call("tokenize", self._text(input)).tokens
            return tokens
        texts = [self._text(one) for one in checked_texts(input, "tokenize")]
        where, limit = (self._session, self.namespace, "tokenize"), self._call_time
        return [reply.tokens for reply in call_all(*where, texts, timeout=limit)]

    def count_tokens(self, input: str) -> int:
        """How many tokens a text has."""
        count: int = self._call("countTokens", self._text(input)).token_count
        return count

    def _text(self, text: str) -> SpecifiedText:
        checked = checked_text(text, "the text")
        return SpecifiedText(specifier=self._specifier, input_string=checked)

    def _call(self, name: str, parameter: Any) -> Any:
        return call(
            self._session, self.namespace, name, parameter, timeout=self._call_time
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ModelHandle):
            return NotImplemented
        mine = (self.namespace, self._query, self._session)
        return mine == (other.namespace, other._query, other._session)

    def __hash__(self) -> int:
        return hash((self.namespace, self._query))

    def __reduce__(self) -> NoReturn:
        raise LMStudioTypeError(
            "a handle can't be pickled or copied; pickle the client and the identifier,"
            " and ask that client for it with get(identifier)"
        )

    def __repr__(self) -> str:
        named = {
            name: value
            for name in ("identifier", "path", "vision")
            if (value := getattr(self._query, name)) is not None
        }
        inside = ", ".join(f"{name}={value!r}" for name, value in named.items())
        return f"<{type(self).__name__} {inside or 'any'}>"

    def _repr_html_(self) -> str:
        if self.info is None:  # it would have to ask the server
            return f"<code>{escape(repr(self))}</code>"
        return f"<code>{escape(repr(self))}</code>{self.info._repr_html_()}"


H = TypeVar("H", bound=ModelHandle)


class LoadedModels(Table[H]):
    """Models in a server's memory: a list that notebooks show as a table.

    It shows what the server said when it was made.
    """

    COLUMNS = (
        ("identifier", "info.identifier"),
        ("model", "info.model_key"),
        ("type", "info.type"),
        ("size", "info.size_bytes"),
        ("context", "info.context_length"),
    )
