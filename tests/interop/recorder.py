"""A proxy between a client and a server that writes down what either says."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Literal

import attrs
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.client import ClientConnection, connect
from websockets.sync.connection import Connection
from websockets.sync.server import ServerConnection, serve

#: Bytes in one frame, as the server has it.
LARGEST_FRAME = 100 * 1024 * 1024


@attrs.frozen
class Frame:
    """One message as it travelled.

    Attributes:
        connection: Numbers the sockets, from 1.
        namespace: What the socket serves, such as ``"llm"``.
        sender: Whose message it is.
        message: What it says.
    """

    connection: int
    namespace: str
    sender: Literal["client", "server"]
    message: dict[str, Any]


class Recorder:
    """Hands on what it gets, in order; `recording` makes one.

    Attributes:
        address: ``host:port`` for clients.
        frames: What was said so far.
    """

    def __init__(self, server: str, file: Path) -> None:
        self.address = ""
        self.frames: list[Frame] = []
        self._server = server
        self._file = file
        self._numbers = itertools.count(1)
        self._writing = threading.Lock()

    def answer(self, client: ServerConnection, request: Request) -> Response | None:
        """Ask the server what is no upgrade to a websocket, such as the greeting."""
        if "Upgrade" in request.headers:
            return None
        http = HTTPConnection(self._server, timeout=10)
        with contextlib.closing(http):
            http.request("GET", request.path)
            reply = http.getresponse()
            response = client.respond(reply.status, reply.read().decode())
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = reply.headers["Content-Type"]
        return response

    def hand_on(self, client: ServerConnection) -> None:
        """Serve one socket to its end."""
        assert client.request is not None
        path, number = client.request.path, next(self._numbers)
        url = f"ws://{self._server}{path}"
        with connect(url, compression=None, max_size=LARGEST_FRAME) as server:
            there = (number, path.strip("/"))
            back = threading.Thread(
                target=self._pump, args=(server, client, *there, "server")
            )
            back.start()
            self._pump(client, server, *there, "client")
            back.join()

    def _pump(
        self,
        source: ServerConnection | ClientConnection,
        target: Connection,
        number: int,
        namespace: str,
        sender: Literal["client", "server"],
    ) -> None:
        try:
            for text in source:
                self._write(Frame(number, namespace, sender, json.loads(text)))
                target.send(text)
        except ConnectionClosed:
            pass  # the other pump ends as well
        finally:
            target.close()

    def _write(self, frame: Frame) -> None:
        with self._writing:
            self.frames.append(frame)
            with self._file.open("a", encoding="utf-8") as file:
                print(json.dumps(attrs.asdict(frame)), file=file)


@contextlib.contextmanager
def recording(server: str, file: Path) -> Iterator[Recorder]:
    """A recorder in front of a server.

    Args:
        server: ``host:port``.
        file: Gets one line of JSON per message, for whoever looks into a failure.
    """
    recorder = Recorder(server, file)
    with serve(
        recorder.hand_on,
        "127.0.0.1",
        0,
        process_request=recorder.answer,
        compression=None,
        max_size=LARGEST_FRAME,
    ) as proxy:
        host, port = proxy.socket.getsockname()[:2]
        recorder.address = f"{host}:{port}"
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        try:
            yield recorder
        finally:
            proxy.shutdown()
            thread.join()
