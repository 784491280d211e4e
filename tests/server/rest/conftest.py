"""A scripted server with models of every kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lmstudio.testing.engine import ScriptedModels, scripted_model
from lmstudio.testing.script import Asked
from server.rest.asking import Answer, ask
from server.servers import Scripted, scripted_server

#: A text model, one that takes images, and one that embeds.
MODELS = ("any", "acme/any-vision", "any-embed")


class Served:
    """A running server, and what it was asked for.

    Attributes:
        scripted: The server, and what it will say.
        asked: Predictions, in order.
    """

    def __init__(self, scripted: Scripted) -> None:
        self.scripted = scripted
        self.url = scripted.http
        self.asked: list[Asked] = []
        models = scripted.services[0].registry.models
        assert isinstance(models, ScriptedModels)
        models.models = [scripted_model(key) for key in MODELS]

    def reply(self, *steps: Any, **fields: Any) -> None:
        """Script the next answer, and note what it is for."""
        self.scripted.reply(*steps, when=self._note, **fields)

    def ask(self, path: str, body: Any = None, **more: Any) -> Answer:
        """Ask, and wait for the whole answer."""
        return ask(self.url, path, body, **more)

    def _note(self, asked: Asked) -> bool:
        self.asked.append(asked)
        return True


@pytest.fixture
def served() -> Iterator[Served]:
    """A running server."""
    with scripted_server() as scripted:
        yield Served(scripted)
