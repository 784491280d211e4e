"""The llama.cpp engine: every loaded model in a child process of its own."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from lmstudio.server.engine import (
    Draft,
    EngineError,
    Event,
    LoadFailed,
    LoadSettings,
    ModelCrashed,
    ModelFile,
    Request,
    Unloaded,
)
from lmstudio.server.engines import llama_child
from lmstudio.server.engines.http import HTTPClient, Refused
from lmstudio.server.engines.llama_completion import (
    Reading,
    completion,
    parse,
    refusal,
    unit_mean,
)
from lmstudio.server.engines.llama_load import (
    Loading,
    check_file,
    child_config,
    hidden_folders,
    load_failed,
)
from lmstudio.server.engines.llama_process import Child

READY_SECONDS = 10.0  # for the first answer of a child that has loaded its model
END_SECONDS = 2.0  # how long after its last connection broke a child may take to end

#: Runs llama_child.py by its path: `-m` would import the packages around it first,
#: which takes half as long as loading a small model.
COMMAND = (
    sys.executable,
    "-c",
    "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')",
    llama_child.__file__,
)


class LlamaCppEngine:
    """Runs models in llama.cpp, in child processes.

    Attributes:
        name: ``"llama.cpp"``.
    """

    name = "llama.cpp"

    def __init__(self, command: Sequence[str] | None = None) -> None:
        """Prepare; nothing is started before the first load.

        Args:
            command: How to start a child; None for llama.cpp.
        """
        self._command = tuple(command or COMMAND)
        self._children: set[Child] = set()
        self._models: set[LlamaCppModel] = set()
        self._closed = False

    async def load(
        self,
        model: ModelFile,
        settings: LoadSettings,
        on_progress: Callable[[float], None],
    ) -> LlamaCppModel:
        """Load a model. Cancelling the task stops the load and frees everything.

        Args:
            on_progress: Called on the loop with 0 to 1, never decreasing.

        Raises:
            LoadFailed: The file can't be loaded, or the engine is closed.
        """
        self._check_open()
        check_file(model.path)
        key = secrets.token_hex(32)
        marker = f"IMAGE{secrets.token_hex(16)}"
        loading = Loading(on_progress)
        config = child_config(model, settings, key, marker)
        try:
            child = await Child.start(self._command, config, loading.line)
        except OSError as exc:
            raise LoadFailed("The engine could not be started", str(exc)) from exc
        child.folders = hidden_folders(model)
        self._children.add(child)
        child.on_exit(lambda: self._children.discard(child))
        try:
            self._check_open()
            port, layers = await self._ready(child, loading)
            http = HTTPClient(port, key)
            loaded = LlamaCppModel(child, http, layers, model, config)
            checks = loaded.read_properties(settings.draft)
            await asyncio.wait_for(checks, READY_SECONDS)
            on_progress(1.0)
        except BaseException as exc:
            await child.stop()
            if isinstance(exc, (Refused, OSError, asyncio.TimeoutError)):
                self._check_open()
                raise load_failed(child, f"{type(exc).__name__}: {exc}") from exc
            raise
        self._models.add(loaded)
        loaded.on_exit(lambda: self._models.discard(loaded))
        return loaded

    async def close(self) -> None:
        """Unload everything, loads under way too. Safe to repeat."""
        self._closed = True
        models, children = list(self._models), list(self._children)
        await asyncio.gather(
            *(model.unload() for model in models), *(child.stop() for child in children)
        )

    async def _ready(self, child: Child, loading: Loading) -> tuple[int, int]:
        """Wait for the child's word; its port and the layers on the GPU."""
        ended = asyncio.create_task(child.wait())
        waits: list[asyncio.Future[Any]] = [loading.ready, ended]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not loading.ready.done():
                self._check_open()
                raise load_failed(child)
            said = loading.ready.result()
            if said.get("event") != "ready":
                await child.wait(END_SECONDS)  # for the last of its log
                raise load_failed(child, str(said.get("message")), said.get("event"))
            return int(said["port"]), int(said["gpu_layers"])
        finally:
            ended.cancel()
            loading.ready.cancel()

    def _check_open(self) -> None:
        if self._closed:
            raise LoadFailed("The engine was closed")


class LlamaCppModel:
    """A model in a child process. All methods belong to the loop that loaded it.

    Attributes:
        context_length: Tokens of context that were really allocated.
        gpu_layers: Layers on the GPU; 0 on a CPU, -1 for all of them.
        pid: Of the process that holds it.
    """

    def __init__(
        self,
        child: Child,
        http: HTTPClient,
        gpu_layers: int,
        model: ModelFile,
        config: llama_child.Config,
    ) -> None:
        self.context_length = 0
        self.gpu_layers = gpu_layers
        self.pid = child.pid
        self._child = child
        self._http = http
        self._key = model.key
        self._batch_size = config["batch_size"]
        self._marker = config["media_marker"]
        self._unloading = False
        child.on_exit(http.close)

    async def read_properties(self, draft: Draft | None = None) -> None:
        """Ask the child what it really loaded. `LlamaCppEngine.load` does.

        Raises:
            LoadFailed: The draft model was taken and is not used.
        """
        properties = await self._http.call("/props")
        self.context_length = int(properties["default_generation_settings"]["n_ctx"])

        if draft is None:
            return
        slots = await self._http.call("/slots")
        if not all(slot.get("speculative") for slot in slots):
            raise LoadFailed(
                f"{draft.file.key!r} can't propose tokens to {self._key!r}",
                "Their vocabularies differ",
                "Use a draft model of the same family",
            )

    async def predict(self, request: Request) -> AsyncIterator[Event]:
        """Generate: progress of the prompt, pieces, and one `Done` last.

        The tokens of the pieces add up to those of `Done`, except for tokens without
        any text: the one that ends the text, and the stop string's.

        Closing the iterator (or cancelling the task in it) stops the generation.

        Raises:
            ContextOverflow: The prompt alone does not fit the context.
            BadRequest: The engine refused the request.
            ModelCrashed: The engine's process ended.
            Unloaded: The model was unloaded, before or meanwhile.
            EngineError: Predictions running beside this one left no context for it,
                or llama.cpp failed in a way of its own.
        """
        self._check_running()
        reading = Reading(logprobs=request.logprobs)
        try:
            stream = await self._http.stream(
                "/completion", completion(request, self._marker)
            )
            try:
                while payloads := await stream.read():
                    for payload in payloads:
                        for event in reading.events(parse(payload)):
                            yield event
            finally:
                stream.close()
            if not reading.done:
                raise EngineError("The engine broke off its answer", "It has no end")
        except Refused as exc:
            raise refusal(exc) from exc
        except OSError as exc:
            raise await self._broken(exc) from exc
        except (KeyError, TypeError, ValueError) as exc:
            text = f"{type(exc).__name__}: {exc}"
            raise EngineError("llama.cpp's answer can't be read", text) from exc

    async def tokenize(
        self, text: str, *, add_special: bool = False, parse_special: bool = False
    ) -> list[int]:
        """Token ids of a text.

        Args:
            add_special: Put the model's own first token (BOS) in front, if it has one.
            parse_special: Read ``<|control|>`` tokens in the text as such.

        Raises:
            ModelCrashed: The engine's process ended.
            Unloaded: The model was unloaded.
        """
        parameter = {
            "content": text,
            "add_special": add_special,
            "parse_special": parse_special,
        }
        tokens: list[int] = (await self._call("/tokenize", parameter))["tokens"]
        return tokens

    async def embed(self, text: str) -> list[float]:
        """The text's embedding, one float per dimension, of length 1 (L2).

        Of a text longer than the model can take, only the beginning counts.

        Raises:
            BadRequest: The model was not loaded for embedding.
            ModelCrashed: The engine's process ended.
            Unloaded: The model was unloaded.
        """
        content: Any = text
        if len(text.encode()) + 2 > self._batch_size:  # a token has at least one byte
            tokens = await self.tokenize(text, add_special=True)
            if len(tokens) > self._batch_size:
                # The last token closes the text (SEP); models need to see it.
                content = [*tokens[: self._batch_size - 1], tokens[-1]]
        reply = await self._call("/embedding", {"content": content})
        return unit_mean(reply[0]["embedding"])

    async def unload(self) -> None:
        """Free everything. Safe to repeat; running predictions raise `Unloaded`."""
        if self._child.returncode is None:
            self._unloading = True
        self._http.close()
        await self._child.stop()

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Call back once, on the loop, when the model is gone (also after a crash)."""
        self._child.on_exit(callback)

    async def _call(self, path: str, parameter: Any) -> Any:
        self._check_running()
        try:
            return await self._http.call(path, parameter)
        except Refused as exc:
            raise refusal(exc) from exc
        except OSError as exc:
            raise await self._broken(exc) from exc

    def _check_running(self) -> None:
        if self._unloading:
            raise Unloaded(f"The model {self._key!r} was unloaded")
        if self._child.returncode is not None:
            raise self._crashed()

    async def _broken(self, exc: OSError) -> EngineError:
        """The error for a broken connection: most often the process has ended."""
        ended = await self._child.wait(END_SECONDS)
        if self._unloading:
            return Unloaded(f"The model {self._key!r} was unloaded")
        if ended:
            return self._crashed()
        return EngineError("The engine broke off its answer", str(exc))

    def _crashed(self) -> ModelCrashed:
        return ModelCrashed(
            f"The process of the model {self._key!r} ended by itself "
            f"({self._child.how_it_ended()})",
            self._child.tail() or None,
            "Load the model again",
        )
