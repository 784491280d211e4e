"""A server that records what a real one says, and says it again without it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import attrs
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from .. import discovery
from ..address import Address
from ..errors import LMStudioConnectionError, LMStudioValueError
from ..protocol.server import ABSENT
from ..server.failures import Failure, error_object
from .cassette import Event, Opening, Recorded, Tape, Who
from .loopback import LARGEST_FRAME, Host
from .redaction import Redactor

Mode = Literal["none", "once", "new", "all"]
MODES = ("none", "once", "new", "all")
#: Seconds that a client may take to send a packet that was recorded.
PATIENCE = 10.0

#: Calls that make or end what later calls name. In the mode ``"new"`` the real server
#: is asked again for each, so that what a new call names is there.
_STATEFUL = {"loadModel", "getOrLoad", "unloadModel", "listLoaded", "getModelInfo"}
_STATEFUL |= {"uploadFileBase64"}

#: Message type of the server -> field of the number, of the body, and what it is.
_SAID: dict[str, tuple[str, str, Who]] = {
    "rpcResult": ("callId", "result", "result"),
    "rpcError": ("callId", "error", "error"),
    "channelSend": ("channelId", "message", "server"),
    "channelClose": ("channelId", "", "closed"),
    "channelError": ("channelId", "error", "error"),
}


class Cassette:
    """A server on a loopback port that is a recording of another.

    Calls are matched by what they say, in any order. Any client can use it.

    Args:
        path: The file, one JSON object a line.
        mode: ``"none"`` only replays; ``"once"`` records when there is no file;
            ``"new"`` replays, and records what is not there yet; ``"all"`` records
            everything again. None is ``"none"`` when ``CI`` is set, else ``"once"``.
        server: The real one, as `lmstudio.LMStudioClient` takes it; None takes
            ``LMSTUDIO_HOST``, or looks on this machine. Only asked when recording.
        timing: Record when each message came, and wait as long in a replay.
        port: 0 takes a free one.

    Attributes:
        host: ``"127.0.0.1:<port>"``.
        url: The same with ``ws://`` in front.
        port: The port.
        mode: The mode.
        is_recording: Whether a real server is behind it.

    Raises:
        StaleCassetteError: There is nothing to replay, or the file is no cassette.
        LMStudioConnectionError: There is no server to record.
        LMStudioRealModelError: Real servers are forbidden, and this would record one.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        mode: Mode | None = None,
        *,
        server: str | None = None,
        timing: bool = False,
        port: int = 0,
    ) -> None:
        self.mode: Mode = mode or ("none" if os.environ.get("CI") else "once")
        if self.mode not in MODES:
            raise LMStudioValueError(f"mode must be one of {MODES}, not {mode!r}")
        self._tape = tape = Tape(Path(path))
        self._redactor = Redactor()
        self._timing = timing
        replays = self.mode in ("none", "new") or (self.mode == "once" and tape.exists)
        self.is_recording = self.mode in ("new", "all") or not replays
        if replays and (tape.exists or self.mode == "none"):
            tape.read()
            for call in tape.calls:
                self._redactor.know(call.opening.parameter)
                for event in call.events:
                    self._redactor.know(event.body)
        self._real = self._find(server) if self.is_recording else None
        self._is_new = False
        self._host = Host(self._serve, self._answer, port)
        self.port = self._host.port
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"ws://{self.host}"

    def __enter__(self) -> Cassette:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(save=kind is None)
        if kind is None:
            self.assert_all_used()

    def close(self, save: bool = True) -> None:
        """Stop, and write the file if there is something new. Safe to repeat.

        Args:
            save: False throws away what is new, as after a failed test.
        """
        self._host.close()
        if self._is_new and save:
            self._tape.write()
        self._is_new = False

    def assert_all_matched(self) -> None:
        """Fail if something was asked for that is not recorded.

        Raises:
            StaleCassetteError: It says what comes nearest.
        """
        self._tape.check(all_used=False)

    def assert_all_used(self) -> None:
        """Fail as `assert_all_matched` does, or if a recorded call was never asked for.

        Raises:
            StaleCassetteError: It names the calls.
        """
        self._tape.check(all_used=self.mode != "new")

    def _find(self, server: str | None) -> Address:
        given = server or os.environ.get("LMSTUDIO_HOST")
        address = Address.parse(given) if given else discovery.find_local()
        greeting = discovery.greet(address)
        if not greeting:
            reason = "no LM Studio server answers there, and one is to be recorded"
            raise LMStudioConnectionError(
                address.url, "refused", reason, discovery.START
            )
        self._redactor.hide(address.netloc, "<host>")
        for name in ("LM_API_TOKEN", "LMSTUDIO_API_TOKEN"):
            self._redactor.hide(os.environ.get(name, ""), "<token>")
        if not self._tape.calls:
            self._tape.greeting = self._redactor.redacted(greeting)
        return address

    def _answer(self, path: str) -> Any:
        return self._tape.greeting if path == "/lmstudio-greeting" else None

    async def _serve(self, socket: ServerConnection, namespace: str) -> None:
        line = _Line(self, socket, namespace)
        try:
            await line.run()
        finally:
            await line.end()


@attrs.define(eq=False)
class _Open:
    """A call that the real server has, and where it is written down."""

    call: Recorded | None
    pattern: Recorded | None  # of an earlier recording; this call is only asked again
    since: float


class _Line:
    """One client on one socket, and the real server behind it if need be."""

    def __init__(self, owner: Cassette, socket: ServerConnection, of: str) -> None:
        self._owner = owner
        self._tape = owner._tape
        self._redactor = owner._redactor
        self._socket = socket
        self._namespace = of
        self._auth: Any = None
        self._real: ClientConnection | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: dict[tuple[str, Any], _Open] = {}
        self._played: dict[Any, asyncio.Queue[Any]] = {}  # packets of the client

    async def run(self) -> None:
        """Serve the client until it goes."""
        self._auth = json.loads(await self._socket.recv())
        self._redactor.hide(str(self._auth.get("clientPasskey")), "<token>")
        self._redactor.hide(str(self._auth.get("clientIdentifier")), "<client>")
        if self._owner.is_recording:
            await self._connect()
        else:
            await self._send({"success": True})
        async for text in self._socket:
            await self._receive(json.loads(text))

    async def end(self) -> None:
        """Stop what runs for the client."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._real is not None:
            await self._real.close()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, message: Any) -> None:
        await self._socket.send(json.dumps(message, ensure_ascii=False))

    async def _connect(self) -> None:
        address = self._owner._real
        assert address is not None
        self._real = await connect(
            address.socket_url(self._namespace),
            compression=None,
            max_size=LARGEST_FRAME,
            ping_interval=None,
            proxy=None if address.is_private else True,
        )
        await self._real.send(json.dumps(self._auth))
        await self._socket.send(await self._real.recv())
        self._spawn(self._listen(self._real))

    async def _receive(self, message: Any) -> None:
        kind = message.get("type")
        if kind == "rpcCall":
            await self._opened(message, "rpc", "callId", "parameter")
        elif kind == "channelCreate":
            await self._opened(message, "channel", "channelId", "creationParameter")
        elif kind == "channelSend" and message["channelId"] in self._played:
            self._played[message["channelId"]].put_nowait(message["message"])
        elif kind == "keepAlive":
            await self._send({"type": "keepAliveAck"})
        elif self._real is not None:
            state = self._open.get(("channel", message.get("channelId")))
            if kind == "channelSend" and state is not None:
                self._note(state, "client", message["message"])
            await self._real.send(json.dumps(message))

    async def _opened(self, message: Any, kind: str, number: str, field: str) -> None:
        parameter = message.get(field, ABSENT)
        if parameter is not ABSENT:
            parameter = self._redactor.redacted(parameter)
        opening = Opening(self._namespace, message["endpoint"], kind, parameter)
        recorded = self._tape.take(opening)
        again = self._real is not None and opening.endpoint in _STATEFUL
        if recorded is not None and not again:
            self._spawn(self._played_back(recorded, kind, message[number]))
        elif self._real is not None:
            call = self._tape.add(opening) if recorded is None else None
            self._owner._is_new |= call is not None
            state = _Open(call, recorded, time.monotonic())
            self._open[kind, message[number]] = state
            await self._real.send(json.dumps(message))
        else:
            title, text = "Not in the cassette", self._tape.not_recorded(opening)
            await self._fail(kind, message[number], error_object(Failure(title, text)))

    async def _listen(self, real: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for text in real:
                message = json.loads(text)
                number, body, who = _SAID.get(message.get("type"), ("", "", "lost"))
                kind = "rpc" if number == "callId" else "channel"
                key = (kind, message.get(number))
                state = self._open.get(key)
                if state is not None:
                    self._note(state, who, message.get(body, ABSENT))
                    if who != "server":
                        del self._open[key]
                await self._socket.send(text)
        if not self._open:
            await self._socket.close()
            return
        for state in self._open.values():
            self._note(state, "lost", ABSENT)
        self._open.clear()
        self._socket.transport.abort()

    def _note(self, state: _Open, who: Who, body: Any) -> None:
        if state.pattern is not None:
            said = [event.body for event in state.pattern.events if event.who == who]
            for recorded in said:
                self._redactor.pair(recorded, body)
        if state.call is None:
            return
        after = None
        if self._owner._timing:
            after = round(time.monotonic() - state.since, 3)
        body = body if body is ABSENT else self._redactor.redacted(body)
        state.call.events.append(Event(who, body, after))

    async def _played_back(self, call: Recorded, kind: str, number: Any) -> None:
        with contextlib.suppress(ConnectionClosed):  # the client has had enough
            await self._play(call, kind, number)

    async def _play(self, call: Recorded, kind: str, number: Any) -> None:
        packets: asyncio.Queue[Any] = asyncio.Queue()
        if kind == "channel":
            self._played[number] = packets
        began, ended = time.monotonic(), False
        for at, event in enumerate(call.events):
            if event.who == "client":
                if not await self._awaited(packets, call, kind, number):
                    return
                continue
            # The client has stopped it earlier than it was recorded.
            is_late = not packets.empty()
            if is_late and event.who == "server" and _is_fragment(event.body):
                continue
            if self._owner._timing and event.after is not None:
                left = event.after - (time.monotonic() - began)
                await asyncio.sleep(max(0.0, left))
            body = event.body
            if body is not ABSENT:
                body = self._redactor.restored(body)
            if event.is_end:
                ended = at == len(call.events) - 1
                self._played.pop(number, None)
            await self._say(event.who, kind, number, body)
            await asyncio.sleep(0)  # a burst must not keep the client's words waiting
        if ended or kind == "rpc":
            self._played.pop(number, None)

    async def _awaited(
        self, packets: asyncio.Queue[Any], call: Recorded, kind: str, number: Any
    ) -> bool:
        """Wait for a packet that the client sent when it was recorded."""
        try:
            await asyncio.wait_for(packets.get(), PATIENCE)
        except asyncio.TimeoutError:  # the same class from 3.11 on
            title = "The recording was stopped by its client here"
            self._tape.note(f"{title}, and this client has not: {call.opening}")
            self._played.pop(number, None)
            await self._fail(kind, number, error_object(Failure(title)))
            return False
        return True

    async def _fail(self, kind: str, number: Any, error: Mapping[str, Any]) -> None:
        await self._say("error", kind, number, dict(error))

    async def _say(self, who: Who, kind: str, number: Any, body: Any) -> None:
        if who == "lost":
            self._socket.transport.abort()
            return
        for name, (field, part, meaning) in _SAID.items():
            if meaning == who and name.startswith(kind):
                message = {"type": name, field: number}
                if body is not ABSENT and part:
                    message[part] = body
                await self._send(message)


def _is_fragment(packet: Any) -> bool:
    return isinstance(packet, dict) and packet.get("type") == "fragment"
