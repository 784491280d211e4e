"""What all connections to one server share."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from ..wire.common import KVConfig
from ..wire.endpoints import Endpoint
from ..wire.llm import History, TemplateOptions
from .clients import Client, Clients
from .downloads import Downloads
from .engine import Engine, ModelFile
from .files import File, Files
from .gguf import control_tokens
from .instances import Instance
from .logs import Logs
from .memory import Policy
from .presets import FixedPresets, Presets
from .registry import Models, Registry
from .tokens import Tokens
from .twins import Twins
from .work import Workers, in_turn

log = logging.getLogger(__name__)

#: Namespaces that official clients connect to. Calls in those that this server does
#: not have yet get a warning and an error, never silence.
#: Source: docs/wire/connection.md.
NAMESPACES = (
    "llm",
    "embedding",
    "system",
    "files",
    "repository",
    "diagnostics",
    "plugins",
    "runtime",
)

#: What of this project's own the greeting announces.
EXTENSIONS = ("noHup", "logKinds", "loadPreset")


def _control_tokens(file: ModelFile) -> Sequence[str]:
    return control_tokens(file.path)


class Prediction(Protocol):
    """A text being generated, as packets: `generation.Generation` or a scripted one.

    Attributes:
        input_text: The formatted prompt.
    """

    input_text: str

    def packets(self) -> AsyncIterator[Any]:
        """Packets as they travel, and one `Finished` last."""
        ...

    def cancel(self) -> None:
        """Stop; the packets then end with a `Finished` that says so."""
        ...


class Predict(Protocol):
    """Starts predictions."""

    async def __call__(
        self,
        instance: Instance,
        *,
        history: History | None,
        raw_prompt: str | None,
        config: KVConfig,
        files: Mapping[str, File],
    ) -> Prediction:
        """Prepare a prediction from a history, or from a text taken as it is.

        Args:
            files: Those that the history shows, by their identifiers.
        """
        ...


class FormatPrompt(Protocol):
    """Puts a history into the form that a model was trained on."""

    async def __call__(
        self,
        instance: Instance,
        history: History,
        config: KVConfig,
        options: TemplateOptions,
        /,
    ) -> str:
        """The prompt as text."""
        ...


class Service:
    """One server, without its sockets.

    Args:
        control_tokens_of: Reads from a model's file what text of users must not say.
        tokens: Who may connect, None for everyone.
        memory: What the server does by itself about its memory.

    Attributes:
        registry: Models in memory.
        clients: Everyone who is connected.
        files: What they have uploaded.
        workers: Threads for templates and schemas, a few of them for each client.
        logs: Tells those who watch the server what it does.
        presets: Named settings.
        downloads: Models on their way to the disk; None where there is no such disk.
        predict: Starts predictions.
        twins: Models with a draft model for one prediction; None without an engine.
        format_prompt: Makes prompts out of histories.
        shutdown: Ends the server, for ``requestShutdown``; None where a client may not.
        port: Where it is served, None where it is not by a socket.
        cors: Whether web pages of any origin are let in.
        before: Called in front of every call and channel with its endpoint, parameter
            and number; tests hold and fail them so.
        observe: Called with the namespace and each parsed message that arrives.
    """

    def __init__(
        self,
        models: Models,
        engine: Engine,
        *,
        predict: Predict | None = None,
        format_prompt: FormatPrompt | None = None,
        control_tokens_of: Callable[[ModelFile], Sequence[str]] = _control_tokens,
        shutdown: Callable[[], None] | None = None,
        presets: Presets | None = None,
        downloads: Downloads | None = None,
        tokens: Tokens | None = None,
        memory: Policy | None = None,
    ) -> None:
        self.registry = Registry(models, engine, control_tokens_of, memory)
        self.clients = Clients(self._released, tokens)
        self.files = Files()
        self.workers = Workers()
        self.logs = Logs()
        self.presets: Presets = presets or FixedPresets()
        self.downloads = downloads
        self.predict: Predict = predict or _predict
        # Scripted predictions have no engine that could draft.
        self.twins = Twins(self.registry) if predict is None else None
        self.format_prompt: FormatPrompt = format_prompt or _format_prompt
        self.shutdown = shutdown
        self.port: int | None = None
        self.cors = False
        self.before: Callable[[Endpoint, Any, int], Awaitable[None]] | None = None
        self.observe: Callable[[str, Any], None] | None = None

    async def close(self) -> None:
        """Stop downloads, unload everything. Safe to repeat."""
        if self.downloads is not None:
            await self.downloads.close()
        if self.twins is not None:
            await self.twins.close()
        await self.registry.close()
        self.workers.close()

    def _released(self, client: Client) -> None:
        self.registry.release(client)
        self.files.release(client)


async def _predict(
    instance: Instance,
    *,
    history: History | None,
    raw_prompt: str | None,
    config: KVConfig,
    files: Mapping[str, File],
) -> Prediction:
    # Imported here: templates need a library that the fake server does without.
    from .generation import Generation
    from .pictures import images_of

    images = await in_turn(images_of, files.values()) if files else {}

    # On a thread: templates and schemas may take seconds, and others wait meanwhile.
    prediction: Prediction = await in_turn(
        Generation,
        instance.model,
        instance.file,
        history=history,
        raw_prompt=raw_prompt,
        config=config,
        control_tokens=lambda: instance.control_tokens,
        images=images,
        draft_key=instance.draft_key,
    )
    return prediction


async def _format_prompt(
    instance: Instance, history: History, config: KVConfig, options: TemplateOptions
) -> str:
    from .generation import format_prompt

    return await format_prompt(instance.model, instance.file, history, config, options)
