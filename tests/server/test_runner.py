"""A server on a thread starts, says what is wrong if it can't, and ends cleanly."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

import lmstudio.server
from lmstudio.server import ports, serve
from lmstudio.server.ports import PortUnavailable, listen
from lmstudio.server.runner import Server
from lmstudio.testing.engine import ScriptedEngine, ScriptedModel, Scripts
from lmstudio.testing.script import NEVER, Await
from rawclient import raw_client
from server.servers import scripted_server

#: Imports the package of the server and says whether the web server came along.
PROBE = (
    "import sys, lmstudio.server;"
    "print([name for name in ('uvicorn', 'starlette') if name in sys.modules])"
)


def test_serve(tmp_path):
    """A server in a program lists the models of a folder and takes any engine."""
    engine = ScriptedEngine(Scripts())
    with serve(port=0, models_dir=tmp_path, engine=engine) as server:
        assert isinstance(server, lmstudio.server.Server)
        assert ("127.0.0.1", f"ws://127.0.0.1:{server.port}") == (
            server.host,
            server.url,
        )
        assert f"<Server {server.url}>" == repr(server)
        with raw_client(server.url, "system") as client:
            assert [] == client.call("listDownloadedModels")["result"]
            assert "rpcError" == client.call("requestShutdown")["type"]
    assert f"<Server {server.url} (closed)>" == repr(server)
    server.close()
    listen("127.0.0.1", server.port).close()  # the port is free again


def test_it_is_reached_by_its_url_wherever_it_listens(tmp_path):
    """The URL of a server that listens everywhere names this machine."""
    engine = ScriptedEngine(Scripts())
    with serve("0.0.0.0", 0, models_dir=tmp_path, engine=engine) as server:
        assert f"ws://127.0.0.1:{server.port}" == server.url


def test_a_taken_port_is_an_error_at_once(tmp_path):
    """The error names the port and who has it."""
    with (
        scripted_server() as scripted,
        pytest.raises(PortUnavailable, match="an LM Studio server") as caught,
    ):
        serve(port=scripted.server.port, models_dir=tmp_path)
    assert scripted.server.port == caught.value.port


def test_what_keeps_it_from_starting_is_raised():
    """A failure on the thread is raised where the server was asked for."""

    def broken():
        raise ValueError("oops")

    with pytest.raises(ValueError, match="oops"):
        Server([listen("127.0.0.1", 0)], broken, False)


def test_closing_unloads_and_stops_loads():
    """Nothing is loaded after the end, and a load that hangs does not delay it."""
    with scripted_server() as scripted:
        scripted.scripts.add_load([1.0])
        scripted.scripts.add_load([gate := Await(), NEVER])
        with raw_client(scripted.url) as client:
            client.load("any")
            stack = {"layers": []}
            client.open("loadModel", {"modelKey": "any", "loadConfigStack": stack})
            assert gate.reached.wait(5)
        (service,) = scripted.services
        (instance,) = service.registry.loaded("llm")
    assert not instance.model.is_loaded
    assert [] == service.registry.loaded("llm")


def test_an_engine_that_hangs_is_given_up(monkeypatch, caplog):
    """A model that can't be unloaded does not keep the server from ending."""

    async def unload(_):
        await asyncio.Event().wait()

    monkeypatch.setattr("lmstudio.server.runner.CLOSING", 0.05)
    monkeypatch.setattr(ScriptedModel, "unload", unload)
    with scripted_server() as scripted, raw_client(scripted.url) as client:
        client.load("any")
    assert "gave up waiting for models to unload" in caplog.messages


def test_a_client_may_end_it_where_that_was_allowed():
    """``requestShutdown`` reaches the program that runs the server."""
    asked = threading.Event()
    with (
        scripted_server(shutdown=asked.set) as scripted,
        raw_client(scripted.url, "system") as client,
    ):
        assert {"type": "rpcResult", "callId": 1} == client.call("requestShutdown")
        assert asked.is_set()


def test_it_ends_at_once(monkeypatch):
    """The end waits for no look at the clock, nor for a silent client."""
    monkeypatch.setattr("lmstudio.server.runner._TICK", 60.0)
    with scripted_server() as scripted, raw_client(scripted.url, "llm"):
        closing = threading.Thread(target=scripted.server.close)
        closing.start()
        closing.join(30)
        assert not closing.is_alive()


@pytest.mark.slow
def test_many_clients_at_once():
    """Clients on several threads are served side by side."""
    replies = []
    with scripted_server() as scripted:

        def ask():
            with raw_client(scripted.url) as client:
                replies.append([client.call("listLoaded")["type"] for _ in range(20)])

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [["rpcResult"] * 20] * 8 == replies


@pytest.mark.slow
def test_the_web_server_is_imported_at_first_use():
    """Importing the package does not import the web server."""
    run = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=True
    )
    assert "[]\n" == run.stdout
    with pytest.raises(AttributeError, match="nonsense"):
        lmstudio.server.nonsense  # noqa: B018


def test_official_clients_find_a_discoverable_server(monkeypatch, tmp_path):
    """It answers on its own port and on one where official clients look."""
    with listen("127.0.0.1", 0) as sock:
        free = sock.getsockname()[1]
    monkeypatch.setattr(ports, "LOCAL_PORTS", (free,))
    engine = ScriptedEngine(Scripts())
    with serve(port=0, models_dir=tmp_path, engine=engine, discoverable=True) as server:
        for port in (server.port, free):
            with raw_client(f"ws://127.0.0.1:{port}", "system") as client:
                assert [] == client.call("listDownloadedModels")["result"]
    listen("127.0.0.1", free).close()  # both ports are free again
