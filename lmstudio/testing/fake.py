"""A server for tests: the real peer behind a scripted engine, on a loopback port."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

from ..errors import LMStudioValueError, shown
from ..server.engine import ModelFile
from ..server.failures import Failure
from ..server.instances import Instance, Wanted
from ..server.presets import FixedPresets, Preset
from ..server.service import EXTENSIONS, Service
from ..wire.common import KVConfig
from ..wire.endpoints import Endpoint
from ..wire.llm import History, TemplateOptions
from .engine import (
    ScriptedEngine,
    ScriptedModels,
    ScriptedPrediction,
    prediction_of,
    scripted_model,
)
from .faults import Faults
from .link import Request, link, request
from .log import Log, Received
from .loopback import Loopback
from .script import Chunk, Step, all_text, perform
from .scripting import Default, Scripting, Scripts


class FakeServer(Scripting):
    """A server whose answers a test writes down.

    It runs on a thread of its own from the start. Use it as a context manager, from
    any number of threads. What nobody scripted is made up from what was asked: calls
    of the tools, each once; JSON of the asked schema; else an echo of the user's last
    message. At the end of a ``with`` block it fails the test if something was asked
    for that no scripted answer was for.

    Args:
        models: Models on its disk: keys, or whole files. A key with ``embed`` in it is
            an embedding model, one with ``vision`` takes images.
        loaded: Those of them that are in memory from the start.
        presets: Presets that it has: names of empty ones, or whole ones.
        extensions: What the greeting announces; ``()`` makes it look like the
            application.
        lacks: Endpoints that it does not know, as an older server has them not.
        port: 0 takes a free one.
        default: What is done about predictions that nobody scripted: ``"auto"`` as
            above, ``"echo"`` always, or ``"fail"``. None is ``"auto"`` until
            `reply_when` is used, and ``"fail"`` from then on.
        chunk: Cut texts into ``"words"``, or into so many characters each; None
            leaves scripted ones whole.

    Attributes:
        host: ``"127.0.0.1:<port>"``.
        url: The same with ``ws://`` in front.
        port: The port.
        engine: The scripted engine; its `loads` tell what was loaded, and how.

    Raises:
        LMStudioValueError: `lacks` names what is no endpoint.
    """

    def __init__(
        self,
        models: Iterable[str | ModelFile] = ("any",),
        *,
        loaded: Iterable[str] = (),
        presets: Iterable[Preset | str] = (),
        extensions: Sequence[str] = EXTENSIONS,
        lacks: Iterable[str] = (),
        port: int = 0,
        default: Default | None = None,
        chunk: Chunk = None,
    ) -> None:
        super().__init__(Scripts(default, chunk))
        self._faults = Faults(lacks)
        self._models = ScriptedModels(
            [scripted_model(m) if isinstance(m, str) else m for m in models]
        )
        self.engine = ScriptedEngine(self._scripts)
        self._service = Service(
            self._models,
            self.engine,
            predict=self._predict,
            format_prompt=_format_prompt,
            control_tokens_of=lambda _: (),
            presets=FixedPresets([_preset(preset) for preset in presets]),
        )
        self._log = Log()
        self._service.observe = self._log.add
        self._service.before = self._before
        self._loopback = Loopback(self._service, extensions, port, self._faults)
        self.port = self._loopback.port
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"ws://{self.host}"
        for key in loaded:
            self.load(key)

    def __repr__(self) -> str:
        return f"<FakeServer {self.host}>"

    def __enter__(self) -> FakeServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        if kind is None:
            self.assert_all_matched()

    def before(
        self,
        endpoint: str | None,
        steps: Step | Sequence[Step],
        *,
        times: int | None = 1,
    ) -> None:
        """Do these steps before the next call of an endpoint is looked at.

        A failure among them is the answer; after `NEVER` there is none.

        Args:
            endpoint: Its name; None for any. ``"authenticate"`` stands for the first
                message of each connection: a failure refuses the client.
            steps: One step or several, but no texts and packets.
            times: For how many calls; None for all from now on, where nothing else
                is left for them.

        Raises:
            LMStudioTypeError: A step is none.
            LMStudioValueError: There is no such endpoint, or `times` is not above 0.
        """
        self._faults.plan(endpoint, steps, times)

    def fail(
        self,
        endpoint: str | None,
        title: str,
        *,
        times: int | None = 1,
        code: str | None = None,
        **details: Any,
    ) -> None:
        """Let the next call of an endpoint fail; with ``"authenticate"``, a client.

        Args:
            endpoint: As `before` takes it.
            times: As `before` takes it.
            code: A ``displayData`` code; `details` are its fields.

        Raises:
            LMStudioValueError: As in `before`.
        """
        display = {"code": code, **details} if code is not None else None
        self.before(endpoint, Failure(title, display=display), times=times)

    def load(
        self, key: str, *, identifier: str | None = None, ttl: float | None = None
    ) -> str:
        """Load a model on the server itself; returns its identifier.

        Args:
            ttl: Seconds of idleness after which it goes, None for never.
        """

        async def load() -> str:
            registry = self._service.registry
            file = self._models.find(key)[0]
            domain = "embedding" if file.is_embedding else "llm"
            running = await registry.load(key, domain, Wanted(ttl=ttl), identifier)
            return (await running.instance()).identifier

        return self._loopback.call(load)

    def unload(self, identifier: str) -> None:
        """Unload a model on the server itself; what runs on it ends there.

        Raises:
            LMStudioValueError: Nothing of this name is loaded.
        """

        async def unload() -> None:
            registry = self._service.registry
            for domain in ("llm", "embedding"):
                if identifier in (i.identifier for i in registry.loaded(domain)):
                    await registry.unload(identifier, domain)
                    return
            raise LMStudioValueError(f"no loaded model is called {shown(identifier)}")

        self._loopback.call(unload)

    def loaded(self) -> list[str]:
        """Identifiers of what is in memory, first loaded first."""

        async def loaded() -> list[str]:
            registry = self._service.registry
            both = registry.loaded("llm") + registry.loaded("embedding")
            return [instance.identifier for instance in both]

        return self._loopback.call(loaded)

    def send(self, namespace: str, message: dict[str, Any] | str) -> None:
        """Send a message, or any text, on every socket of a namespace as it is."""
        text = message if isinstance(message, str) else json.dumps(message)
        self._loopback.call(lambda: self._loopback.send(namespace, text))

    def drop_connections(self) -> None:
        """Break every connection, without a word. New ones are accepted."""
        self._loopback.call(self._loopback.drop_connections)

    @property
    def requests(self) -> list[Received]:
        """Every message that arrived so far, in order."""
        return self._log.all()

    def parameters(self, endpoint: str) -> list[Any]:
        """What an endpoint was called with so far, parsed JSON."""
        return [seen.parameter for seen in self.requests if seen.endpoint == endpoint]

    def wait_for(
        self, predicate: Callable[[Received], bool], timeout: float = 5.0
    ) -> Received:
        """The first message that fits, past ones included; waits for it if need be.

        Args:
            timeout: Seconds.

        Raises:
            TimeoutError: None came in time.
        """
        return self._log.wait_for(predicate, timeout)

    def wait_for_call(self, endpoint: str, timeout: float = 5.0) -> Received:
        """The first message that opens an endpoint; waits for it if need be."""
        return self.wait_for(lambda seen: seen.endpoint == endpoint, timeout)

    def close(self) -> None:
        """Stop, and close what is open. Safe to repeat."""
        self._loopback.close()

    async def _before(self, endpoint: Endpoint, _: Any, number: int) -> None:
        current = Request(link.get(), number)
        request.set(current)
        for step in self._faults.take(endpoint.name):
            await perform(step, current)

    async def _predict(
        self,
        instance: Instance,
        *,
        history: History | None,
        raw_prompt: str | None,
        config: KVConfig,
        files: Mapping[str, Any] | None = None,
    ) -> ScriptedPrediction:
        return prediction_of(instance, self._scripts, history, raw_prompt, config)


def _preset(given: Preset | str) -> Preset:
    if isinstance(given, Preset):
        return given
    return Preset(identifier=f"@local:{given}", name=given)


async def _format_prompt(
    _: Instance, history: History, __: KVConfig, ___: TemplateOptions
) -> str:
    return all_text(history)
