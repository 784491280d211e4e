"""Servers with a scripted engine behind the real web server."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from lmstudio.server.ports import listen
from lmstudio.server.runner import Server
from lmstudio.server.service import Service
from lmstudio.server.tokens import Tokens, read_token
from lmstudio.testing.engine import (
    ScriptedEngine,
    ScriptedModels,
    Scripts,
    prediction_of,
    scripted_model,
)
from lmstudio.testing.script import Reply, Step


class Scripted:
    """A running server, and what it will say.

    Attributes:
        server: The server.
        engine: Its engine.
        url: Of the server, for websockets.
        http: The same for plain HTTP.
        services: The service, once the server has made it.
    """

    def __init__(
        self,
        cors: bool,
        shutdown: Callable[[], None] | None,
        tokens: Tokens | None,
        **options: Any,
    ) -> None:
        self.scripts = Scripts()
        self.engine = ScriptedEngine(self.scripts)
        self.services: list[Service] = []

        async def predict(instance: Any, files: Any, **prompt: Any) -> Any:
            return prediction_of(instance, self.scripts, **prompt)

        def service() -> Service:
            made = Service(
                ScriptedModels([scripted_model("any")]),
                self.engine,
                predict=predict,
                control_tokens_of=lambda _: (),
                shutdown=shutdown,
                tokens=tokens,
            )
            self.services.append(made)
            return made

        socks = [listen("127.0.0.1", 0)]
        self.server = Server(socks, service, cors, tokens=tokens, **options)
        self.url = self.server.url
        self.http = self.url.replace("ws:", "http:")

    def reply(self, *steps: Step, **fields: Any) -> None:
        """Script the next answer."""
        self.scripts.add_reply(Reply(steps, **fields))


@contextlib.contextmanager
def scripted_server(
    cors: bool = False,
    shutdown: Callable[[], None] | None = None,
    *,
    api_token: str | None = None,
    tokens: Tokens | None = None,
    **options: Any,
) -> Iterator[Scripted]:
    """A server that is closed at the end.

    Args:
        api_token: The only token that it accepts.
        tokens: What it accepts, likewise.
        options: Of `Server`.
    """
    if api_token is not None:
        tokens = Tokens([read_token(api_token)])
    scripted = Scripted(cors, shutdown, tokens, **options)
    with scripted.server:
        yield scripted
