"""What clients ask of the application around a server: here there is none.

They get an answer that is true here, or an error that says what would be right.
"""

from __future__ import annotations

import logging
from typing import Any

from ..protocol.server import ABSENT
from ..wire import system
from .caller import Caller, CallHandler, ChannelHandler, End
from .engine import BadRequest
from .failures import Failure

log = logging.getLogger(__name__)

#: Most of a notification that goes into the log, characters.
_SHOWN = 200


async def _start_http(caller: Caller, parameter: system.StartHTTPServer) -> Any:
    service = caller.service
    port, cors = parameter.port, parameter.cors
    if port is not None and not 1 <= port <= 65535:
        raise BadRequest(f"port must be from 1 to 65535, not {port}")
    if port not in (None, service.port):
        raise _settled(f"It serves HTTP on port {service.port} and on no other")
    if cors not in (None, service.cors):
        lets = "lets web pages in" if service.cors else "lets no web pages in"
        raise _settled(f"It was started so that it {lets}")
    return ABSENT  # it serves already


def _settled(cause: str) -> Failure:
    return Failure(
        "This server can't start another HTTP server",
        cause,
        "Stop it, and start it again with other options: `lms server start --help`",
        data={"code": "unsupported"},
    )


async def _stop_http(_: Caller, __: None) -> Any:
    raise Failure(
        "This server can't stop to serve HTTP",
        "Websockets and plain HTTP share its port",
        "requestShutdown and `lms server stop` end all of it",
        data={"code": "unsupported"},
    )


async def _notify(_: Caller, parameter: system.Notify) -> Any:
    texts = [parameter.title, parameter.description or ""]
    log.info("a client notifies: %s", " - ".join(repr(t[:_SHOWN]) for t in texts if t))
    return ABSENT


async def _flags(_: Caller, __: None) -> Any:
    return []


async def _set_flag(_: Caller, parameter: system.ExperimentFlag) -> Any:
    if parameter.value:
        raise _unsupported("has no experiments to switch on")
    return ABSENT  # it is off


async def _engines(_: Caller, __: Any) -> Any:
    return []


async def _selections(_: Caller, __: Any) -> Any:
    # An empty Map in superjson's form. Source: docs/wire/endpoints.md.
    return {"json": [], "meta": {"values": ["map"]}}


async def _hardware(_: Caller, __: Any) -> Any:
    return {"status": "ok", "engines": []}


def _unsupported(what: str) -> Failure:
    return Failure(
        f"This server {what}",
        "It runs models with the llama.cpp that it was installed with",
        "Do this with the LM Studio application",
        data={"code": "unsupported"},
    )


_NO_CHOICE = "has no engines to choose from"


async def _refuse(_: Caller, __: Any) -> Any:
    raise _unsupported(_NO_CHOICE)


async def _refuse_channel(_: Caller, __: Any, ___: End) -> None:
    raise _unsupported(_NO_CHOICE)


#: Namespace and endpoint -> what answers it.
CALLS: dict[tuple[str, str], CallHandler] = {
    ("system", "startHttpServer"): _start_http,
    ("system", "stopHttpServer"): _stop_http,
    ("system", "notify"): _notify,
    ("system", "getExperimentFlags"): _flags,
    ("system", "setExperimentFlag"): _set_flag,
    ("runtime", "listEngines"): _engines,
    ("runtime", "getEngineSelections"): _selections,
    ("runtime", "surveyHardware"): _hardware,
    ("runtime", "selectEngine"): _refuse,
    ("runtime", "removeEngine"): _refuse,
    ("runtime", "searchRuntimeExtensions"): _refuse,
}
#: Namespace and endpoint -> what serves it.
CHANNELS: dict[tuple[str, str], ChannelHandler] = {
    ("runtime", "downloadRuntimeExtension"): _refuse_channel,
}
