"""The paths of plain HTTP, and what answers each."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.routing import Route

from ..limits import Limits
from ..service import Service
from .completions import Completions
from .embeddings import Embeddings
from .exchange import EVENTS, NATIVE, OPENAI, Endpoint, Handler, Ongoing
from .jobs import Jobs
from .loads import Loads
from .models import Lists
from .responses import Responses
from .stored import Stored
from .v1_chat import Chats

Table = Mapping[str, Mapping[str, Handler]]


class Rest:
    """Everything that one server answers over plain HTTP.

    Args:
        service: What all connections share.
        limits: How much clients may ask for.

    Attributes:
        routes: Its routes, the catch-alls last.
    """

    def __init__(self, service: Service, limits: Limits | None = None) -> None:
        self._ongoing = Ongoing(limits or Limits())
        found = [
            Route(path, Endpoint(methods, self._ongoing, style))
            for style, table in (
                (OPENAI, _openai(service)),
                (EVENTS, _responses(service)),
                (NATIVE, _native(service)),
            )
            for path, methods in table.items()
        ]
        prefixes = {"/v1": OPENAI, "/api/v0": OPENAI, "/api/v1": NATIVE}
        nowhere = [
            Route(f"{prefix}/{{path:path}}", Endpoint({}, self._ongoing, style))
            for prefix, style in prefixes.items()
        ]
        self.routes = found + nowhere

    async def stop(self, reason: str) -> None:
        """End all answers with an error, and take no more requests."""
        await self._ongoing.stop(reason)


def _openai(service: Service) -> Table:
    lists, embeddings = Lists(service), Embeddings(service)
    completions = Completions(service)
    extended = Completions(service, extended=True)
    return {
        "/v1/models": {"GET": lists.openai},
        "/v1/models/{model:path}": {"GET": lists.openai_one},
        "/v1/chat/completions": {"POST": completions.chat},
        "/v1/completions": {"POST": completions.text},
        "/v1/embeddings": {"POST": embeddings.embed},
        "/api/v0/models": {"GET": lists.v0},
        "/api/v0/models/{model:path}": {"GET": lists.v0_one},
        "/api/v0/chat/completions": {"POST": extended.chat},
        "/api/v0/completions": {"POST": extended.text},
        "/api/v0/embeddings": {"POST": embeddings.embed},
    }


def _responses(service: Service) -> Table:
    responses = Responses(service, Stored())
    return {
        "/v1/responses": {"POST": responses.create},
        "/v1/responses/{id}": {"GET": responses.get, "DELETE": responses.delete},
    }


def _native(service: Service) -> Table:
    loads, downloads = Loads(service), Jobs(service)
    return {
        "/api/v1/models": {"GET": Lists(service).v1},
        "/api/v1/models/load": {"POST": loads.load},
        "/api/v1/models/unload": {"POST": loads.unload},
        "/api/v1/models/download": {"POST": downloads.start},
        "/api/v1/models/download/status/{id}": {"GET": downloads.status},
        "/api/v1/chat": {"POST": Chats(service, Stored()).chat},
    }
