"""A stand-in for the model hub, on loopback, with scripted faults.

It serves the routes that ``huggingface_hub`` asks: ``/api/models``,
``/api/models/<id>``, ``/api/models/<id>/tree/<revision>`` and
``/<id>/resolve/<revision>/<file>`` with HEAD, Range, ETag and headers of large files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import attrs

from gguf_files import gguf_bytes, model_fields

COMMIT = "0123456789abcdef0123456789abcdef01234567"
#: Bytes that are sent at once.
PIECE = 64 * 1024


@attrs.frozen(kw_only=True)
class Fault:
    """What happens to one request for a file instead of what should.

    Attributes:
        status: Answer with this and nothing else.
        headers: Of that answer, or besides those of a good one.
        after: Break off after so many bytes.
        stall: Wait after `after` bytes until the server closes, in place of breaking.
        content: Send this in place of the file.
        whole: Send the whole file, whatever range was asked for.
    """

    status: int | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict)
    after: int | None = None
    stall: bool = False
    content: bytes | None = None
    whole: bool = False


@attrs.define
class Request:
    """A request that came.

    Attributes:
        method: Such as ``"GET"``.
        path: Without the query.
        query: The first value of each name.
        headers: By names in lower case.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]


class HubServer:
    """A running stand-in.

    Attributes:
        url: Its address.
        repos: Name of a repository -> path of a file -> content.
        locked: Name of a repository -> the status that refuses it.
        requests: All that came, in order.
        stalled: Set while a request waits in a stall.
        listed: What ``/api/models`` answers in place of the truth.
        sizes: Path of a file -> the wrong size that is announced for it.
    """

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.locked: dict[str, int] = {}
        self.requests: list[Request] = []
        self.stalled = threading.Event()
        self.listed: Any = None
        self.sizes: dict[str, int] = {}
        self.released = threading.Event()
        self.faults: dict[str, deque[Fault]] = defaultdict(deque)
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self._web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._web.daemon_threads = False  # so that closing waits for their end
        self.url = f"http://127.0.0.1:{self._web.server_address[1]}"
        self._thread = threading.Thread(
            target=self._web.serve_forever, kwargs={"poll_interval": 0.02}
        )
        self._thread.start()

    def add(self, repo: str, files: Mapping[str, bytes]) -> None:
        """Put files into a repository."""
        self.repos.setdefault(repo, {}).update(files)

    def fail(self, path: str, *faults: Fault) -> None:
        """Script what happens to the next requests for a file, or for an API path."""
        self.faults[path] += faults

    def fetched(self, path: str) -> list[str | None]:
        """The ranges of all requests for a file."""
        return [
            r.headers.get("range")
            for r in self.requests
            if r.method == "GET" and r.path.endswith(f"/{path}")
        ]

    def close(self) -> None:
        """End all requests, and stop."""
        self.released.set()
        self._web.shutdown()
        self._web.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_hub: HubServer
    timeout = 10

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        hub, parts = self.server_hub, urlsplit(self.path)
        path = unquote(parts.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        hub.requests.append(Request(self.command, path, query, headers))
        with contextlib.suppress(ConnectionError):  # the client is gone
            if path == "/api/models":
                self._api(path, lambda: self._list(query))
            elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/.*)?", path):
                self._repo(path, found[1], found[2] or "")
            elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
                self._file(found[1], found[2])
            else:
                self._refuse(404)

    def _api(self, path: str, answer: Any) -> None:
        faults = self.server_hub.faults[path]
        if faults:
            fault = faults.popleft()
            self._refuse(fault.status or 500, fault.headers)
        else:
            self._json(answer())

    def _list(self, query: Mapping[str, str]) -> Any:
        hub = self.server_hub
        if hub.listed is not None:
            return hub.listed
        word = query.get("search", "").lower()
        names = [
            name
            for name, files in hub.repos.items()
            if word in name.lower() and any(f.endswith(".gguf") for f in files)
        ]
        return [{"id": n, "modelId": n} for n in names][: int(query["limit"])]

    def _repo(self, path: str, name: str, rest: str) -> None:
        hub = self.server_hub
        if name in hub.locked:
            self._refuse(hub.locked[name], {"X-Error-Message": "Access is restricted"})
        elif name not in hub.repos:
            self._refuse(404, {"X-Error-Code": "RepoNotFound"})
        elif rest.startswith("/tree/"):
            self._api(path, lambda: [_entry(hub, *f) for f in hub.repos[name].items()])
        else:
            files = hub.repos[name].items()
            siblings = [
                {"rfilename": entry.pop("path"), **entry}
                for entry in (_entry(hub, *file) for file in files)
            ]
            told = {"id": name, "sha": COMMIT, "siblings": siblings}
            self._api(path, lambda: told)

    def _file(self, name: str, path: str) -> None:
        hub = self.server_hub
        content = hub.repos.get(name, {}).get(path)
        if content is None:
            self._refuse(404, {"X-Error-Code": "EntryNotFound"})
            return
        faults = hub.faults[path]
        fault = faults.popleft() if faults and self.command == "GET" else Fault()
        if fault.status is not None:
            self._refuse(fault.status, fault.headers)
            return
        digest = hashlib.sha256(content).hexdigest()
        content = fault.content if fault.content is not None else content
        begin = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and not fault.whole:
            begin = int(asked[1])
            if begin >= len(content):
                self._refuse(416)
                return
            self.send_response(206)
            total = len(content)
            self.send_header("Content-Range", f"bytes {begin}-{total - 1}/{total}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - begin))
        self.send_header("ETag", f'"{digest}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("X-Linked-Etag", f'"{digest}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self._send(content[begin:], fault)

    def _send(self, content: bytes, fault: Fault) -> None:
        most = len(content) if fault.after is None else fault.after
        for at in range(0, most, PIECE):
            self.wfile.write(content[at : min(at + PIECE, most)])
        self.wfile.flush()
        if fault.stall:
            self.server_hub.stalled.set()
            self.server_hub.released.wait()
        if fault.after is not None:
            self.close_connection = True

    def _json(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _entry(hub: HubServer, path: str, content: bytes) -> dict[str, Any]:
    """A file as the hub lists it."""
    size = hub.sizes.get(path, len(content))
    entry: dict[str, Any] = {"type": "file", "path": path, "size": size}
    if path.endswith(".gguf"):
        digest = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"sha256": digest, "size": size, "pointerSize": 134}
    return entry


@contextlib.contextmanager
def hub_server() -> Iterator[HubServer]:
    """A stand-in that is closed at the end."""
    hub = HubServer()
    try:
        yield hub
    finally:
        hub.close()


def model_bytes(name: str = "Tiny", size: int = 0, file_type: int = 15) -> bytes:
    """A GGUF file that can be listed, of at least so many bytes."""
    fields = model_fields(name=name, file_type=file_type)
    rows = max(8, size // 128)
    return gguf_bytes(fields, {"output.weight": [32, rows]})


def temporary(path: Path) -> list[str]:
    """Names of the unfinished files below a folder."""
    return sorted(p.name for p in path.rglob("*.part"))
