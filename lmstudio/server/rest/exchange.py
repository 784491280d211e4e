"""One request over plain HTTP and its answer; nothing else here knows ASGI."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import attrs
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from ...errors import shown
from ..guard import new_request_id
from ..limits import Limits
from ..peer import encoded
from .errors import RestError, refusal
from .options import field_at_fault

log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Style:
    """How the answers of an endpoint look.

    Attributes:
        is_named: The events of its streams have names.
        is_native: Its errors have LM Studio's own types.
    """

    is_named: bool = False
    is_native: bool = False


OPENAI = Style()
EVENTS = Style(is_named=True)
NATIVE = Style(is_named=True, is_native=True)


class Exchange:
    """One request, and its answer as it is sent.

    Attributes:
        request_id: Names the request in logs; clients get it as ``x-request-id``.
        style: How errors look.
        params: What the path says, by name.
        given: What the body says, once it is read.
        is_started: Whether a part of the answer is out, and so its status.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        style: Style = OPENAI,
        limits: Limits | None = None,
    ) -> None:
        self.style = style
        self._limits = limits or Limits()
        self.request_id = new_request_id()
        self.params: Mapping[str, str] = scope.get("path_params", {})
        self.headers = Headers(scope=scope)
        self.given: Mapping[str, Any] = {}
        self.is_started = False
        self._is_ended = False
        self._receive = receive
        self._send = send

    async def body(self) -> dict[str, Any]:
        """Read the body, which is a JSON object.

        How large it may be and how slowly it may come is watched in front of us.

        Raises:
            RestError: It is something else.
            Gone: The client has hung up before its end.
        """
        self._check_kind()
        data = await self._read()
        limits = self._limits
        if limits.are_too_many(data):
            raise RestError(
                f"The body has more than {limits.values} values",
                status=413,
                code="too_many_values",
            )
        try:
            parsed = json.loads(data)  # a thread would hold up all others as well
        except (ValueError, RecursionError) as exc:
            why = "nested too deeply" if isinstance(exc, RecursionError) else str(exc)
            raise RestError(
                f"The body is no JSON: {why}", code="invalid_json"
            ) from None
        if not isinstance(parsed, dict):
            raise RestError(
                f"The body must be a JSON object, not {shown(parsed)}",
                code="invalid_json",
            )
        self.given = parsed
        return parsed

    async def gone(self) -> None:
        """Wait until the client has hung up."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def reply(
        self, value: Any, status: int = 200, *more: tuple[bytes, bytes]
    ) -> None:
        """Send the whole answer as JSON.

        Args:
            more: Further headers.
        """
        data = encoded(value).encode()
        length = (b"content-length", str(len(data)).encode())
        await self._start(status, b"application/json", length, *more)
        await self._say(data, more=False)

    async def event(self, data: Any, name: str | None = None) -> None:
        """Send one event of a stream; the first one starts the answer.

        It waits while the client reads slower than we write.
        """
        head = f"event: {name}\n" if name is not None else ""
        text = data if isinstance(data, str) else encoded(data)
        await self._stream(f"{head}data: {text}\n\n")

    async def keep_alive(self) -> None:
        """Send a line that says nothing: clients give up on a silent server."""
        await self._stream(": waiting\n\n")

    async def end(self) -> None:
        """End a stream."""
        await self._say(b"", more=False)

    async def fail(self, exc: BaseException) -> None:
        """Tell of an error: by the status, or at the end of what is out already."""
        if self._is_ended:
            return
        error = refusal(exc)
        if error.param is None:
            error.param = field_at_fault(exc, self.given)
        if error.status >= 500:
            log.warning("%s failed: %s", self.request_id, error)
        body = error.body(is_native=self.style.is_native)
        if not self.is_started:
            final = error.status >= 500 and not error.may_succeed
            more = [(b"x-should-retry", b"false")] if final else []
            await self.reply(body, error.status, *more)
            return
        if self.style.is_named:
            # Some readers look for the object, others for its fields.
            plain = {"message": str(error), "code": error.code, "param": error.param}
            await self.event({"type": "error", **plain, **body}, "error")
        else:
            await self.event(body)
        await self.end()

    async def _stream(self, text: str) -> None:
        if not self.is_started:
            quiet = (b"cache-control", b"no-cache")
            await self._start(200, b"text/event-stream; charset=utf-8", quiet)
        await self._say(text.encode(), more=True)

    async def _start(
        self, status: int, kind: bytes, *more: tuple[bytes, bytes]
    ) -> None:
        self.is_started = True
        named = (b"x-request-id", self.request_id.encode())
        headers = [(b"content-type", kind), named, *more]
        start = {"type": "http.response.start", "status": status, "headers": headers}
        await self._send(start)

    async def _say(self, data: bytes, *, more: bool) -> None:
        self._is_ended = not more
        message = {"type": "http.response.body", "body": data, "more_body": more}
        await self._send(message)

    def _check_kind(self) -> None:
        kind = self.headers.get("content-type", "application/json")
        name = kind.partition(";")[0].strip().lower()
        if name != "application/json" and not name.endswith("+json"):
            raise RestError(
                f"The body must have the content type application/json, not {name!r}",
                status=415,
                code="unsupported_media_type",
            )

    async def _read(self) -> bytes:
        parts: list[bytes] = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Gone
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                return b"".join(parts)


class Gone(Exception):
    """The client has hung up before it said what it wants."""


Handler = Callable[[Exchange, dict[str, Any]], Awaitable[None]]


class Ongoing:
    """The requests that are answered at the moment.

    Attributes:
        limits: How much each may ask for.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._works: dict[asyncio.Task[None], asyncio.Future[None]] = {}
        self._reason: str | None = None  # why the server ends, once it does

    @contextlib.contextmanager
    def entered(self, work: asyncio.Task[None]) -> Iterator[None]:
        """Count a request that runs as this task."""
        self._works[work] = asyncio.get_running_loop().create_future()
        try:
            yield
        finally:
            self._works.pop(work).set_result(None)

    @property
    def is_stopping(self) -> bool:
        """Whether the server ends."""
        return self._reason is not None

    def check(self) -> None:
        """Raise RestError when the server ends."""
        if self._reason is not None:
            raise RestError(self._reason, status=503, code="shutting_down")

    async def stop(self, reason: str) -> None:
        """Stop all of them, take no more, and wait until their clients know."""
        self._reason = reason
        answered = list(self._works.values())
        for work in self._works:
            work.cancel()
        if answered:
            await asyncio.wait(answered)


class Endpoint:
    """The ASGI application of one path.

    Args:
        methods: HTTP methods and what answers them.
        ongoing: Where its requests are counted.
        style: How its errors look.
    """

    def __init__(
        self, methods: Mapping[str, Handler], ongoing: Ongoing, style: Style = OPENAI
    ) -> None:
        self._methods = dict(methods)
        if "GET" in self._methods:
            self._methods.setdefault("HEAD", self._methods["GET"])
        self._ongoing = ongoing
        self._style = style

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, until the client hangs up."""
        exchange = Exchange(scope, receive, send, self._style, self._ongoing.limits)
        try:
            self._ongoing.check()
            handler = self._handler(scope)
            asked = await exchange.body() if scope["method"] == "POST" else {}
        except RestError as exc:
            await exchange.fail(exc)
            return
        except Gone:
            return
        work = asyncio.ensure_future(handler(exchange, asked))
        with self._ongoing.entered(work):
            try:
                await self._answer(exchange, work)
            except asyncio.CancelledError:
                if not self._ongoing.is_stopping:
                    raise
                # A client that does not read its end; uvicorn would log a failure.

    async def _answer(self, exchange: Exchange, work: asyncio.Task[None]) -> None:
        try:
            if not await _is_done(exchange, work):
                self._ongoing.check()
        except Exception as exc:
            await exchange.fail(exc)

    def _handler(self, scope: Scope) -> Handler:
        handler = self._methods.get(scope["method"])
        if handler is None:
            path, known = scope["path"], ", ".join(sorted(self._methods))
            title = f"{scope['method']} {path[:200]}: there is no such endpoint"
            if not known:
                raise RestError(title, status=404, code="unknown_endpoint")
            hint = f"This path takes {known}"
            raise RestError(title, hint, status=405, code="method_not_allowed")
        return handler


async def _is_done(exchange: Exchange, work: asyncio.Task[None]) -> bool:
    """Wait for some work, whose failure is raised; False when it was cancelled.

    It is cancelled when the client hangs up.
    """
    watch = asyncio.ensure_future(exchange.gone())
    try:
        await asyncio.wait([work, watch], return_when=asyncio.FIRST_COMPLETED)
    finally:
        is_gone = not work.done()
        if is_gone:
            work.cancel()
            await asyncio.wait([work])
        watch.cancel()
    if work.cancelled():
        return is_gone
    work.result()
    return True
