"""Web pages get what the user lets them have, and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from interop import environments
from interop.clients import embedded_server, log_file
from interop.conftest import make_home

#: How long the browser may take for everything, seconds.
PATIENCE = 90.0
PAGE = """<!doctype html><meta charset="utf-8"><script type="module" src="page.js">
</script>"""


class Pages(SimpleHTTPRequestHandler):
    """Serves a folder, and takes what a page posts."""

    def __init__(self, results, *args, **options):
        self.results = results
        super().__init__(*args, **options)

    def do_POST(self):
        size = int(self.headers["Content-Length"])
        self.results.put(json.loads(self.rfile.read(size)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A folder with the page and the SDK in one file."""
    folder = tmp_path_factory.mktemp("pages")
    environments.browser_page(folder / "page.js")
    (folder / "index.html").write_text(PAGE)
    return folder


@contextlib.contextmanager
def serving(pages, results):
    """Serve the pages on a port of their own; yields the address."""
    handler = partial(Pages, results, directory=str(pages))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def visit(pages, profile, server):
    """Open the page in a browser; returns what it posted."""
    results: queue.Queue = queue.Queue()
    # It is killed, so it tidies nothing up. Not in the test's own folder: the path of a
    # socket there would be too long.
    scratch = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with scratch as folder, serving(pages, results) as address:
        words = [
            environments.chromium(),
            "--headless=new",
            "--no-sandbox",  # root in a container has no other way
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            f"--user-data-dir={profile}",
            f"http://{address}/index.html?server={server}",
        ]
        process = subprocess.Popen(
            words,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "TMPDIR": folder},
        )
        try:
            return results.get(timeout=PATIENCE)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def home(tmp_path, model_file):
    """The home of a server, with the model in it."""
    return make_home(tmp_path / "home", model_file)


def test_with_cors_a_page_drives_the_server(pages, home, tmp_path):
    """A page of another origin lists, loads, streams and counts, as a program does."""
    with embedded_server(home, cors=True) as server:
        got = visit(pages, tmp_path / "profile", server)

    assert "failed" not in got, got
    assert [] == got["errors"]
    assert got["opens"]
    assert (200, True) == (
        got["greeting"]["status"],
        got["greeting"]["body"]["lmstudio"],
    )
    driven = got["driven"]
    assert (0, 1) == (driven["progress"][0], driven["progress"][-1])
    assert driven["content"] == "".join(driven["texts"]) != ""
    assert len(driven["texts"]) > 5
    assert "maxPredictedTokensReached" == driven["stop"]
    assert 1 == driven["tokens"]


def test_without_cors_a_page_is_refused(pages, home, tmp_path):
    """It gets no socket and may read nothing, and the server's log says so."""
    with embedded_server(home) as server:
        got = visit(pages, tmp_path / "profile", server)

    assert not got["opens"]
    assert {"error"} == set(got["greeting"]) == set(got["status"])
    assert "refused a web page of http://127.0.0.1:" in log_file(home).read_text()
